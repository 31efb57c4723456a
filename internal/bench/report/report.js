// Draws the plots of a report from the result that the page carries. <html> tells how that went: data-plots is how many were
// drawn, data-errors what went wrong.
(() => {
  "use strict";
  const root = document.documentElement;
  const result = JSON.parse(document.getElementById("result").textContent);
  const series = result.series || [], operations = result.operations || [];
  const arrival = "message";
  const palette = ["register", "enumerate", "multicast", "heartbeat", "subscribe", arrival];
  const names = [...new Set([...operations.map((m) => m.operation), ...series.map((s) => s.operation)])];

  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const colour = (op) => {
    const known = palette.indexOf(op);
    return css("--op" + (known < 0 ? names.indexOf(op) % palette.length : known));
  };
  const veil = (hex) => hex + "26";

  const three = (v) => (v >= 100 ? v.toFixed(0) : v >= 10 ? String(+v.toFixed(1)) : String(+v.toFixed(2)));
  const ms = (v) => (v == null ? "" : v === 0 ? "0" : v < 1 ? three(v * 1000) + " µs" : v < 1000 ? three(v) + " ms" : three(v / 1000) + " s");
  const number = (v) => (v == null ? "" : v >= 1000 ? Math.round(v).toLocaleString("en") : three(v));
  const rate = (v) => (v == null ? "" : number(v) + "/s");
  const last = series.reduce((most, s) => Math.max(most, s.at), 0);
  const clock = (v) => {
    if (v == null) return "";
    const whole = Math.round(v);
    return last < 180 ? +v.toFixed(1) + " s" : Math.floor(whole / 60) + ":" + String(whole % 60).padStart(2, "0");
  };
  const percentile = (x) => (x == null ? "" : +(100 * (1 - 1 / x)).toPrecision(8) + " %");

  // The samples of each operation, on the seconds that any has.
  const seconds = [...new Set(series.map((s) => s.at))].sort((a, b) => a - b);
  const place = new Map(seconds.map((at, i) => [at, i]));
  const byOperation = new Map(names.map((op) => [op, new Array(seconds.length).fill(null)]));
  for (const s of series) byOperation.get(s.operation)[place.get(s.at)] = s;
  const sampled = names.filter((op) => byOperation.get(op).some((s) => s));
  const over = (op, value) => byOperation.get(op).map((s) => (s ? value(s) : null));
  const latency = (op, name) => over(op, (s) => (s.done > 0 ? s[name] : null));
  const sum = (values) => values.reduce((a, b) => a + (b || 0), 0);

  // A plot is a function of whether its y axis is logarithmic, so that it can be drawn anew.
  const line = (label, stroke, value, more) => ({
    label, stroke, width: 1.75, value: (_, v) => value(v), points: { show: false }, ...more,
  });
  const alone = seconds.length < 2; // a line needs two points

  function overTime(lines, values, format) {
    return (log) => ({
      data: [seconds, ...values],
      options: {
        scales: { x: { time: false }, y: yScale(log, values) },
        series: [{ label: "at", value: (_, v) => clock(v) }, ...lines().map((l) => (alone ? { ...l, points: { show: true } } : l))],
        axes: [axis({ values: (_, at) => at.map(clock), space: 60 }), yAxis(format, log)],
        cursor: { sync: { key: "time", setSeries: false }, points: { size: 6 } },
      },
    });
  }

  function yScale(log, values) {
    if (!log) return { range: (_, __, most) => [0, most > 0 ? most * 1.08 : 1] };
    const all = values.flat().filter((v) => v > 0);
    const least = all.reduce((a, b) => Math.min(a, b), Infinity), most = all.reduce((a, b) => Math.max(a, b), 0);
    return { distr: 3, range: () => [least * 0.8, Math.max(most * 1.25, least * 2)] };
  }

  const font = "12px system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif";
  const axis = (more) => ({
    stroke: css("--muted"), font, size: 34, grid: { stroke: css("--grid"), width: 1 }, ticks: { stroke: css("--grid"), width: 1, size: 5 }, ...more,
  });
  const yAxis = (format, log) => axis({
    size: 66, values: (_, at) => at.map((v) => (v == null ? "" : format(v))),
    ...(log ? { splits: logSplits, filter: (_, at) => at } : {}),
  });
  // 1, 2 and 5 of each power of ten, or the powers alone when there are many.
  function logSplits(u) {
    const { min, max } = u.scales.y, steps = max / min > 2000 ? [1] : [1, 2, 5], all = [];
    for (let power = Math.floor(Math.log10(min)); power <= Math.log10(max); power++) {
      for (const step of steps) all.push(+(step * 10 ** power).toPrecision(3));
    }
    return all.filter((v) => v >= min && v <= max);
  }

  function byPercentile() {
    const some = operations.filter((m) => (m.percentiles || []).length > 0);
    const at = (p) => 1 / (1 - p.percentile / 100);
    const tables = some.map((m) => {
      const points = m.percentiles.filter((p) => p.percentile > 0 && p.percentile < 100);
      return [points.map(at), points.map((p) => p.ms)];
    });
    if (tables.length === 0) return null;
    const data = uPlot.join(tables);
    const end = data[0][data[0].length - 1];
    const powers = [];
    for (let v = 10; v <= end; v *= 10) powers.push(v);
    // Where there is little room, the sign is left out, and so are the marks between.
    const narrow = (u) => u.width < 90 * powers.length;
    const marks = (u) => [1, ...(narrow(u) ? [] : [2]), ...powers];
    const named = (u, at) => at.map((x) => (narrow(u) ? percentile(x).replace(" %", "") : percentile(x)));
    return (log) => ({
      data,
      options: {
        scales: { x: { time: false, distr: 3, range: [1, Math.max(end, 10)] }, y: yScale(log, data.slice(1)) },
        series: [
          { label: "up to", value: (_, v) => percentile(v) },
          ...some.map((m) => line(m.operation, colour(m.operation), ms, { spanGaps: true, width: 2 })),
        ],
        axes: [axis({ splits: marks, filter: (_, v) => v, values: named }), yAxis(ms, log)],
        cursor: { dataIdx: nearest, points: { size: 6 } },
      },
    });
  }
  // The operations have points of their own: the cursor takes the nearest one that is not a gap.
  function nearest(u, series, index) {
    const values = u.data[series];
    for (let off = 0; off < values.length; off++) {
      if (values[index - off] != null) return index - off;
      if (values[index + off] != null) return index + off;
    }
    return index;
  }

  function throughput() {
    const kinds = sampled.filter((op) => op !== arrival), values = [], lines = [];
    for (const op of kinds) {
      values.push(over(op, (s) => s.offered), over(op, (s) => s.done));
      lines.push(() => line(op + " offered", colour(op), rate, { dash: [5, 4], width: 1.25 }), () => line(op + " done", colour(op), rate));
    }
    return kinds.length ? overTime(() => lines.map((l) => l()), values, number) : null;
  }

  function arrivals() {
    const stroke = () => colour(arrival);
    return overTime(() => [line("received", stroke(), rate, { fill: veil(stroke()) })], [over(arrival, (s) => s.done)], number);
  }

  function latencies(op) {
    const values = ["p50", "p99", "max"].map((name) => latency(op, name));
    if (!values.flat().some((v) => v > 0)) return null;
    return overTime(() => [
      line("p50", colour(op), ms, { fill: veil(colour(op)), width: 1.25 }),
      line("p99", colour(op), ms),
      line("max", css("--muted"), ms, { dash: [2, 3], width: 1.25 }),
    ], values, ms);
  }

  function failures() {
    const kinds = sampled.filter((op) => sum(over(op, (s) => s.failed)) > 0);
    if (!kinds.length) return null;
    return overTime(() => kinds.map((op) => line(op, colour(op), rate, { fill: veil(colour(op)) })),
      kinds.map((op) => over(op, (s) => s.failed)), number);
  }

  // place draws a plot, and again when its width, the theme or its axis changes.
  const redraws = [];
  let drawn = 0;
  function show(target, plot, height, log) {
    if (!plot) {
      target.textContent = target.dataset.none || "n/a";
      return;
    }
    let shown = null;
    const draw = () => {
      if (shown) shown.destroy();
      const { data, options } = plot(log());
      shown = new uPlot({ width: width(), height, padding: [10, 16, 0, 0], ...options, hooks: { ready: [count] } }, data, target);
    };
    const width = () => Math.max(target.clientWidth, 240);
    const count = () => { root.dataset.plots = ++drawn; };
    draw();
    redraws.push(draw);
    new ResizeObserver(() => { if (shown.width !== width()) shown.setSize({ width: width(), height }); }).observe(target);
  }

  function logarithmic(id, values) {
    const box = document.getElementById(id);
    const all = values.filter((v) => v > 0);
    box.checked = all.reduce((a, b) => Math.max(a, b), 0) > 30 * all.reduce((a, b) => Math.min(a, b), Infinity);
    box.parentElement.hidden = all.length === 0;
    box.addEventListener("change", again);
    return () => box.checked;
  }
  function again() {
    drawn = 0;
    redraws.forEach((draw) => draw());
    dots();
  }

  function dots() {
    document.querySelectorAll("#operations tbody th").forEach((cell, i) => {
      const dot = cell.querySelector(".dot") || cell.insertBefore(document.createElement("span"), cell.firstChild);
      dot.className = "dot";
      dot.style.background = colour(operations[i].operation);
    });
  }

  const linear = () => false;
  const curves = operations.flatMap((m) => (m.percentiles || []).map((p) => p.ms));
  const times = series.filter((s) => s.done > 0).flatMap((s) => [s.p50, s.max]);
  show(document.getElementById("plot-percentiles"), byPercentile(), 340, logarithmic("log-percentiles", curves));
  show(document.getElementById("plot-throughput"), throughput(), 280, linear);
  if (sampled.includes(arrival)) {
    document.getElementById("arrivals").hidden = false;
    show(document.getElementById("plot-arrivals"), arrivals(), 200, linear);
  }
  const log = logarithmic("log-latency", times);
  const multiples = document.getElementById("plot-latency");
  for (const op of names) {
    const box = document.createElement("div"), head = document.createElement("h3"), target = document.createElement("div");
    head.textContent = op;
    target.className = "plot";
    box.append(head, target);
    multiples.append(box);
    show(target, latencies(op), 220, log);
  }
  if (names.length === 0) multiples.textContent = "n/a";
  show(document.getElementById("plot-failures"), failures(), 180, linear);
  dots();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);

  const link = document.getElementById("download");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(result, null, 2) + "\n"], { type: "application/json" }));
  link.hidden = false;
})();
