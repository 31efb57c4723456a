package multicastregistry

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

func TestSimilar(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, among, want string }{
		{"batery", "battery room floor", "battery"},
		{"Battery", "battery", "battery"},
		{"SENSOR.Temp", "sensor.temp sensor", "sensor.temp sensor"},
		{"tepm", "temp", "temp"},
		{"temp", "sensor sensor.temp sensor.humidity", "sensor.temp"},
		{"sensor.temp", "temp tags", "temp"},
		{"sensor_temp", "sensor.temp", "sensor.temp"},
		{"sensor/temp", "sensor.temp", "sensor.temp"},
		{"sensorTemp", "sensor.temp sensor", "sensor.temp sensor"},
		{"sensor.temp", "sensor_temp", "sensor_temp"},
		{"sensors.temp", "sensor.temp", "sensor.temp"},
		{"tmep", "sensor.temp", "sensor.temp"},
		{"batt", "battery bat", "bat battery"},
		{"level", "battery_level", "battery_level"},
		{"battery_level", "battery", "battery"},
		{"rooms", "room zoom broom bloom", "room"},
		{"room", "r", ""},
		{"x", "y z", ""},
		{"ab", "cd", ""},
		{"id", "ip", "ip"},
		{"floor", "color flow", ""},
		{"température", "temperature", "temperature"},
		{"a.b", "a\\.b", "a\\.b"},
		{"--", "a b", ""},
		{strings.Repeat("x", 1000), strings.Repeat("x", 999) + "y", ""},
	} {
		path, err := filter.ParsePath(row.name)
		if err != nil {
			t.Fatal(err)
		}
		var among [][]string
		for name := range strings.FieldsSeq(row.among) {
			candidate, err := filter.ParsePath(name)
			if err != nil {
				t.Fatal(err)
			}
			among = append(among, candidate)
		}
		var got []string
		slices.Reverse(among) // the order must not matter
		for _, path := range similar(path, among) {
			got = append(got, filter.FormatPath(path))
		}
		if s := strings.Join(got, " "); s != row.want {
			t.Errorf("%s among %s: %s, want %s", row.name, row.among, s, row.want)
		}
	}
	if got := similar([]string{"room"}, [][]string{{"", "room"}, {"room", ""}}); len(got) != 0 {
		t.Errorf("%q cannot be reached by any filter", got)
	}
}

func TestDistance(t *testing.T) {
	t.Parallel()
	var rows distanceRows
	for _, row := range []struct {
		a, b string
		want int
	}{
		{"battery", "battery", 0},
		{"battery", "batery", 1},
		{"battery", "abttery", 1},
		{"battery", "baxtery", 1},
		{"battery", "batteries", 3 - 4}, // three, and seven letters may have two
		{"kitten", "sitten", 1},
		{"kitten", "sittin", 2},
		{"kitten", "sitting", -1},
		{"firmware_version", "firmwareversoin", 2},
		{"ca", "abc", -1},
		{"a", "a", -1},
		{"", "", -1},
	} {
		for range 2 { // the rows are used again
			if got := rows.distance(row.a, row.b); got != row.want {
				t.Errorf("%s and %s: %d, want %d", row.a, row.b, got, row.want)
			}
			row.a, row.b = row.b, row.a
		}
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		a, b := make([]rune, rng.IntN(14)), make([]rune, rng.IntN(14))
		for i := range a {
			a[i] = rune('a' + rng.IntN(3))
		}
		for i := range b {
			b[i] = rune('a' + rng.IntN(3))
		}
		got, want := rows.distance(string(a), string(b)), wholeTable(a, b)
		if most := []int{-1, -1, 1, 1, 1, 1, 2, 2, 2, 3}[min(len(a), len(b), 9)]; want > most {
			want = -1
		}
		if got != want {
			t.Fatalf("%s and %s: %d, want %d", string(a), string(b), got, want)
		}
	}
}

// wholeTable is distance in the plainest form.
func wholeTable(a, b []rune) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		for j := range d[i] {
			switch {
			case i == 0 || j == 0:
				d[i][j] = i + j
				continue
			case a[i-1] == b[j-1]:
				d[i][j] = d[i-1][j-1]
			default:
				d[i][j] = 1 + min(d[i-1][j], d[i][j-1], d[i-1][j-1])
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}

// BenchmarkSimilar looks among as many fields as are looked at.
func BenchmarkSimilar(b *testing.B) {
	among := make([][]string, mostFields)
	for i := range among {
		among[i] = []string{"sensor", fmt.Sprintf("reading%05d", i)}
	}
	b.ReportAllocs()
	for b.Loop() {
		if got := similar([]string{"sensor", "raeding00500"}, among); len(got) != mostSuggestions {
			b.Fatal(got)
		}
	}
}
