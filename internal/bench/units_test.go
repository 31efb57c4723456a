package bench

import (
	"math"
	"testing"
	"time"
)

func TestUnits(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ got, want string }{
		{duration(0), "0"},
		{duration(.001), "1 µs"},
		{duration(.0404), "40 µs"},
		{duration(.9994), "999 µs"},
		{duration(.9996), "1.00 ms"},
		{duration(1.234), "1.23 ms"},
		{duration(9.996), "10.0 ms"},
		{duration(13), "13.0 ms"},
		{duration(99.96), "100 ms"},
		{duration(999.4), "999 ms"},
		{duration(999.6), "1.00 s"},
		{duration(61_234), "61.2 s"},
		{duration(3_600_000), "3,600 s"},
		{duration(math.NaN()), "n/a"},
		{duration(-1), "n/a"},
		{duration(math.Inf(1)), "n/a"},
		{figure(0), "0"},
		{figure(.00123), "0.0012"},
		{figure(.5), "0.50"},
		{figure(2), "2"},
		{figure(9.999), "10"},
		{figure(54.46), "54.5"},
		{figure(1234.5), "1,235"},
		{figure(999.6), "1,000"},
		{figure(12_345_678), "12,345,678"},
		{figure(math.NaN()), "n/a"},
		{thousands(0), "0"},
		{thousands(999), "999"},
		{thousands(1000), "1,000"},
		{thousands(math.MaxUint64), "18,446,744,073,709,551,615"},
		{share(1, 0), "n/a"},
		{share(0, 5), "0 %"},
		{share(5, 5), "100 %"},
		{share(1, 3), "33.3 %"},
		{share(1, 1e9), "< 0.001 %"},
		{share(999_999, 1_000_000), "99.999 %"},
		{share(1e9-1, 1e9), "99.999 %"},
		{share(995, 1000), "99.5 %"},
		{size(0), "0 B"},
		{size(64), "64 B"},
		{size(1 << 20), "1 MiB"},
		{size(187 << 20), "187 MiB"},
		{size(3 << 40), "3,072 GiB"},
		{span(0), "0s"},
		{span(time.Minute), "1m"},
		{span(time.Hour), "1h"},
		{span(90 * time.Second), "1m30s"},
		{nth(50), "p50"},
		{nth(99.9), "p99.9"},
		{nth(100), "max"},
		{counted(1, "dog", "dogs"), "1 dog"},
		{counted(1000, "dog", "dogs"), "1,000 dogs"},
		{plain("a\x1b[31mb\tc\u202ed\xff"), "a\ufffd[31mb\ufffdc\ufffdd\ufffd"},
		{plain("Größe µs"), "Größe µs"},
	} {
		if row.got != row.want {
			t.Errorf("got %q, want %q", row.got, row.want)
		}
	}
}
