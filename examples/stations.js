// Writes stations.jsonl: real airports as weather-station identities, one JSON object a line.
//
//   make stations        fetches the two source packages with npm and runs this file
//   node examples/stations.js OLD NEW > examples/stations.jsonl
//
// NEW is the unpacked npm package airport-data-js 3.1.0, OLD is the same package at 1.0.6. Both are needed: in 3.1.0 the
// column elevation_ft holds something else (Singapore, 22 ft above the sea, has 193068), in 1.0.6 it is the elevation.
// A row is kept only where both editions describe the same place, and every field has a believable value. README.md says
// which fields come from where, and the licence. Only regenerating needs node; Prism itself reads stations.jsonl.

'use strict';
const path = require('path');

const FEET_OF_RUNWAY = { min: 1000, max: 20000 };
const FEET_OF_ELEVATION = { min: -1500, max: 15000 };
const SAME_PLACE_KM = 30;

async function main(oldDir, newDir) {
  const oldEdition = require(path.resolve(oldDir, 'lib/index.js'));
  const newEdition = require(path.resolve(newDir, 'lib/index.js'));

  const candidates = (await newEdition.findAirports({}))
    .filter((a) => a.type === 'large_airport' || a.type === 'medium_airport')
    .filter((a) => /^[A-Z0-9]{3}$/.test(a.iata));
  const elevations = await byIATA(oldEdition, new Set(candidates.map((a) => a.country_code)));

  const dropped = {};
  const stations = new Map();
  for (const airport of candidates) {
    const reason = unfit(airport, elevations.get(airport.iata)) || (stations.has(airport.iata) && 'repeated');
    if (reason) {
      dropped[reason] = (dropped[reason] || 0) + 1;
      continue;
    }
    stations.set(airport.iata, station(airport, elevations.get(airport.iata)));
  }

  for (const id of [...stations.keys()].sort()) process.stdout.write(JSON.stringify(stations.get(id)) + '\n');
  process.stderr.write(`${candidates.length} candidates, ${stations.size} stations, dropped: ${JSON.stringify(dropped)}\n`);
}

// byIATA asks the old edition country by country, because it cannot list everything and knows no North America.
async function byIATA(edition, countries) {
  const found = new Map();
  for (const country of countries) {
    const rows = await edition.getAirportByCountryCode(country).catch(() => []);
    for (const row of rows) found.set(row.iata, row);
  }
  return found;
}

// unfit tells why an airport is left out, or nothing if it is kept.
function unfit(airport, earlier) {
  if (!earlier) return 'not in 1.0.6';
  if (!/^[A-Z0-9]{4}$/.test(airport.icao) || airport.icao !== earlier.icao) return 'ICAO code differs';
  if (!/^[A-Z]{2}$/.test(airport.country_code) || !/^[A-Z]{2}$/.test(airport.continent)) return 'no country';
  if (!believable(airport.latitude, { min: -90, max: 90 }) || !believable(airport.longitude, { min: -180, max: 180 })) return 'no position';
  if (kilometres(airport, earlier) > SAME_PLACE_KM) return 'position differs';
  // An elevation of exactly 0 stands for "not known" in the source: Lijiang, at 7,360 ft, has it.
  if (!Number(earlier.elevation_ft) || !believable(Number(earlier.elevation_ft), FEET_OF_ELEVATION)) return 'no elevation';
  if (!believable(airport.runway_length, FEET_OF_RUNWAY)) return 'no runway length';
  if (airport.scheduled_service !== 'TRUE' && airport.scheduled_service !== 'FALSE') return 'service unknown';
  if (!knownTimezone(airport.time)) return 'no timezone';
  return undefined;
}

function station(airport, earlier) {
  return {
    identity: airport.iata,
    metadata: {
      name: airport.airport.replace(/\s+/g, ' ').trim(),
      icao: airport.icao,
      country: airport.country_code,
      continent: airport.continent,
      size: airport.type.replace('_airport', ''),
      elevation_ft: Number(earlier.elevation_ft),
      position: { lat: airport.latitude, lon: airport.longitude },
      timezone: airport.time,
      runway_ft: airport.runway_length,
      scheduled_service: airport.scheduled_service === 'TRUE',
    },
    ttl: '10m',
  };
}

function believable(value, range) {
  return typeof value === 'number' && value >= range.min && value <= range.max;
}

function knownTimezone(name) {
  try {
    return Boolean(name) && Boolean(new Intl.DateTimeFormat('en', { timeZone: name }));
  } catch {
    return false;
  }
}

// kilometres is close enough for two points of one airfield: a flat-earth distance with the meridians drawn together.
function kilometres(a, b) {
  const perDegree = 111.2;
  const north = a.latitude - Number(b.latitude);
  const east = (a.longitude - Number(b.longitude)) * Math.cos((a.latitude * Math.PI) / 180);
  return perDegree * Math.hypot(north, east);
}

if (process.argv.length !== 4) {
  process.stderr.write('usage: node stations.js AIRPORT-DATA-JS-1.0.6 AIRPORT-DATA-JS-3.1.0\n');
  process.exit(2);
}
main(process.argv[2], process.argv[3]).catch((err) => {
  process.stderr.write(`${err.stack}\n`);
  process.exit(1);
});
