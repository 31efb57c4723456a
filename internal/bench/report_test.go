package bench

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"html"
	"image"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/prism-data-layer/prism/internal/testenv"
)

func pageOf(t *testing.T, r *Result) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// fileOf puts a page where a browser finds it.
func fileOf(t *testing.T, page string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(path, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	return (&url.URL{Scheme: "file", Path: path}).String()
}

var (
	resultElement = regexp.MustCompile(`(?s)<script type="application/json" id="result">(.*?)</script>`)
	scriptElement = regexp.MustCompile(`(?s)<script>(.*?)</script>`)
	styleElement  = regexp.MustCompile(`(?s)<style>(.*?)</style>`)
	policyElement = regexp.MustCompile(`http-equiv="Content-Security-Policy" content="([^"]*)"`)
)

// TestPageIsComplete checks that a page loads nothing, may load nothing, and holds the result.
func TestPageIsComplete(t *testing.T) {
	t.Parallel()
	want := sampleResult()
	page := pageOf(t, want)
	policy := html.UnescapeString(policyElement.FindStringSubmatch(page)[1])
	for directive, element := range map[string]*regexp.Regexp{"script-src": scriptElement, "style-src": styleElement} {
		sum := sha256.Sum256([]byte(element.FindStringSubmatch(page)[1]))
		if allowed := directive + " 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(policy, allowed) {
			t.Errorf("the policy %q does not allow %s", policy, allowed)
		}
	}
	if !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q", policy)
	}
	if outside := regexp.MustCompile(`(?i)<(link|img|iframe|object|base)\b|\ssrc=|\sstyle=|@import|\burl\(`).FindString(page); outside != "" {
		t.Errorf("the page has %q", outside)
	}
	if !strings.Contains(page, "Copyright (c) 2022 Leon Sorokin") {
		t.Error("the page lacks the licence of what it contains")
	}
	var got Result
	if err := json.Unmarshal([]byte(resultElement.FindStringSubmatch(page)[1]), &got); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(&got)
	if err != nil {
		t.Fatal(err)
	}
	if first, err := json.Marshal(want); err != nil || !bytes.Equal(again, first) {
		t.Errorf("the page holds another result (%v)", err)
	}
	// Without scripts, the tables say what the text says.
	bare := html.UnescapeString(regexp.MustCompile(`(?s)<script.*?</script>|<[^>]*>`).ReplaceAllString(page, " "))
	for _, s := range want.sections() {
		for _, l := range s.Lines {
			if !strings.Contains(bare, l.Text) {
				t.Errorf("the page lacks %q", l.Text)
			}
		}
		if s.Table == nil {
			continue
		}
		for _, row := range s.Table.Rows {
			if !strings.Contains(strings.Join(strings.Fields(bare), " "), strings.Join(row, " ")) {
				t.Errorf("the page lacks the row %q", row)
			}
		}
	}
}

func TestPageOfWhatIsNoNumber(t *testing.T) {
	t.Parallel()
	if err := (&Result{Seconds: math.NaN()}).WriteHTML(&bytes.Buffer{}); err == nil {
		t.Error("a result that is no JSON became a page")
	}
}

// attribute returns one of <html>'s, as the page's scripts have set it.
func attribute(dom, name string) string {
	match := regexp.MustCompile(`^[^>]*<html[^>]* ` + name + `="([^"]*)"`).FindStringSubmatch(strings.TrimPrefix(dom, "<!DOCTYPE html>\n"))
	if match == nil {
		return ""
	}
	return html.UnescapeString(match[1])
}

// plotted returns how many lines each plot of a page has, in the plots' order, besides the x axis.
func plotted(dom string) []int {
	var lines []int
	for _, plot := range strings.Split(dom, `class="uplot `)[1:] {
		if strings.Contains(plot, "<canvas") {
			lines = append(lines, strings.Count(plot, `<tr class="u-series`)-1)
		}
	}
	return lines
}

// TestPageInBrowser has a browser draw pages.
func TestPageInBrowser(t *testing.T) {
	t.Parallel()
	hostile := "</script><script>document.documentElement.dataset.owned=1</script><img src=x onerror=alert(1)>\u2028'\"&"
	flat := handmade()
	flat.Series = seriesOf(5, 5)
	for name, row := range map[string]struct {
		result *Result
		plots  string // how many lines each has
		lines  []int
	}{
		// By percentile, throughput, messages, latency of each, failures.
		"a minute":   {sampleResult(), "9", []int{5, 8, 1, 3, 3, 3, 3, 3, 4}},
		"nothing":    {&Result{}, "", nil},
		"one second": {flat, "1", []int{2}},
		"hostile": {&Result{
			Plan: Plan{Name: hostile, Shares: map[string]float64{hostile: 1}}, Servers: []string{hostile}, Version: hostile,
			Operations: []Measured{{
				Operation: hostile, Offered: 2, Done: 1, Failed: 1, Errors: map[string]uint64{hostile: 1},
				Percentiles: []Percentile{{0, 1}, {50, 1}, {75, 3}, {100, 4}},
			}},
			Series: []Sample{
				{Operation: hostile, At: 1, Offered: 1, Done: 1, P50: 1, P99: 1, Max: 1}, {Operation: hostile, At: 2, Offered: 1, Failed: 1},
			},
			Setup: []Stage{{Name: hostile}}, Processes: []Process{{Name: hostile}}, Checks: []Check{{Limit: Limit{Operation: hostile}}},
			Delivery: &Delivery{Multicasts: 1, Reasons: map[string]uint64{hostile: 1}},
		}, "4", []int{1, 2, 3, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			dom := testenv.Chromium(t).DOM(fileOf(t, pageOf(t, row.result)))
			if errors := attribute(dom, "data-errors"); errors != "" || attribute(dom, "data-owned") != "" || strings.Contains(dom, "<img") {
				t.Errorf("errors %q, owned %q", errors, attribute(dom, "data-owned"))
			}
			if got := attribute(dom, "data-plots"); got != row.plots {
				t.Errorf("%q plots are drawn, want %q", got, row.plots)
			}
			if got := plotted(dom); !reflect.DeepEqual(got, row.lines) {
				t.Errorf("the plots have %v lines, want %v", got, row.lines)
			}
			if !strings.Contains(dom, `href="blob:`) {
				t.Error("the result cannot be downloaded")
			}
		})
	}
}

// TestPagePixels looks at the page: the lines of all operations are there, in the colours of each theme.
func TestPagePixels(t *testing.T) {
	t.Parallel()
	at := fileOf(t, pageOf(t, sampleResult()))
	parts := strings.Split(reportStyle, "@media (prefers-color-scheme: dark)")
	for theme, style := range map[testenv.Theme]string{testenv.Light: parts[0], testenv.Dark: parts[1]} {
		pixels := histogram(testenv.Chromium(t).Screenshot(at, 1200, 1500, theme))
		for _, name := range []string{"page", "card", "op0", "op1", "op2", "op3", "op5"} {
			text := regexp.MustCompile(`--` + name + `: #(\w{6})`).FindStringSubmatch(style)[1]
			colour, err := hex.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			// A line of 2 pixels is as long as the plot is wide, with soft edges.
			if n := about(pixels, [3]byte(colour)); n < 300 {
				t.Errorf("theme %d: %d pixels have the colour #%s of %s", theme, n, text, name)
			}
		}
	}
}

// histogram counts the pixels of each colour.
func histogram(picture image.Image) map[[3]byte]int {
	counts := make(map[[3]byte]int)
	bounds := picture.Bounds()
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			r, g, b, _ := picture.At(x, y).RGBA()
			counts[[3]byte{byte(r >> 8), byte(g >> 8), byte(b >> 8)}]++
		}
	}
	return counts
}

// about counts the pixels of nearly one colour.
func about(counts map[[3]byte]int, want [3]byte) (n int) {
	for colour, count := range counts {
		near := true
		for i := range colour {
			near = near && math.Abs(float64(colour[i])-float64(want[i])) < 12
		}
		if near {
			n += count
		}
	}
	return n
}
