package bench

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// notMeasured stands where there is no figure.
const notMeasured = "n/a"

// duration writes milliseconds with three digits, in the unit that suits them.
func duration(ms float64) string {
	if !(ms >= 0) || math.IsInf(ms, 0) { // nor NaN
		return notMeasured
	}
	ms = threeDigits(ms)
	switch {
	case ms == 0:
		return "0"
	case ms < 1:
		return strconv.FormatFloat(ms*1000, 'f', 0, 64) + " µs"
	case ms < 1000:
		return aligned(ms) + " ms"
	}
	return aligned(threeDigits(ms/1000)) + " s"
}

// figure writes a number of at least 0 with three digits, and all of those before the point.
func figure(v float64) string {
	if !(v >= 0) || math.IsInf(v, 0) {
		return notMeasured
	}
	v = threeDigits(v)
	switch {
	case v == math.Trunc(v):
		return thousands(uint64(v))
	case v >= 0.01:
		return aligned(v)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

// aligned writes a rounded number with three digits, zeros included: figures below each other are compared.
func aligned(v float64) string {
	switch {
	case v >= 100:
		return thousands(uint64(math.Round(v)))
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// threeDigits rounds what is below 1,000.
func threeDigits(v float64) float64 {
	if v == 0 || v >= 1000 {
		return v
	}
	scale := math.Pow(10, 2-math.Floor(math.Log10(v)))
	return math.Round(v*scale) / scale
}

// thousands writes a number with commas.
func thousands(n uint64) string {
	all := strconv.FormatUint(n, 10)
	var b strings.Builder
	for i, d := range all {
		if i > 0 && (len(all)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// perSecond writes a rate.
func perSecond(v float64) string { return figure(v) + "/s" }

// share writes a part of a whole in percent. What is not all or nothing is never rounded to it.
func share(part, whole float64) string {
	if !(whole > 0) {
		return notMeasured
	}
	percent := 100 * part / whole
	switch {
	case percent > 0 && percent < 0.001:
		return "< 0.001 %"
	case percent > 99 && percent < 100:
		return strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.3f", math.Floor(percent*1000)/1000), "0"), ".") + " %"
	}
	return figure(percent) + " %"
}

// size writes a number of bytes.
func size(n uint64) string {
	v := float64(n)
	for _, unit := range []string{"B", "KiB", "MiB"} {
		if v < 1024 {
			return figure(v) + " " + unit
		}
		v /= 1024
	}
	return figure(v) + " GiB"
}

// span writes a duration without parts that are zero: 5m, not 5m0s.
func span(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// nth names a percentile as people do: p50, p99.9, max.
func nth(percentile float64) string {
	if percentile >= 100 {
		return "max"
	}
	return "p" + strconv.FormatFloat(percentile, 'f', -1, 64)
}

// counted is a number with its noun.
func counted(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(n) + " " + many
}

// plain makes text from outside safe for a terminal: what cannot be printed becomes a replacement character.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}
