package main

import (
	"bytes"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// panel is one measure: a diagram of lines.
type panel struct {
	title, x, y string
	lines       []line
	linear      bool // axes from 0, not logarithmic ones
}

type line struct {
	name   string
	look   int // colour and glyph
	points plotter.XYs
}

// looks can be told apart by those who see few colours, and by their glyphs.
var looks = []struct {
	color color.Color
	shape draw.GlyphDrawer
}{
	{color.RGBA{R: 0x00, G: 0x72, B: 0xb2, A: 0xff}, draw.CircleGlyph{}},
	{color.RGBA{R: 0xd5, G: 0x5e, B: 0x00, A: 0xff}, draw.BoxGlyph{}},
	{color.RGBA{R: 0x00, G: 0x9e, B: 0x73, A: 0xff}, draw.PyramidGlyph{}},
	{color.RGBA{R: 0x55, G: 0x55, B: 0x55, A: 0xff}, draw.RingGlyph{}},
}

// Indexes of looks.
const (
	blue = iota
	red
	green
	grey
)

// linesOf makes points of what is found at them; what is not above 0 cannot stand on a logarithmic axis and is left out.
func linesOf(name string, look int, points []Point, y func(Point) float64) line {
	l := line{name: name, look: look}
	for _, p := range points {
		if v := y(p); v > 0 && p.X > 0 {
			l.points = append(l.points, plotter.XY{X: float64(p.X), Y: v})
		}
	}
	return l
}

func cpu(p Point) float64 { return p.total() }

func p50(p Point) float64 { return p.P50 * 1000 }

func millis(p Point) float64 { return p.P50 }

// each divides by how many there are.
func each(of func(Point) float64) func(Point) float64 {
	return func(p Point) float64 { return of(p) / float64(p.X) }
}

func cpuOf(kind string) func(Point) float64 { return func(p Point) float64 { return p.CPU[kind] } }

// drawAll draws a file of each question.
func drawAll(folder string, found map[string]*Measured) error {
	for name, panels := range map[string][]panel{
		"identities": identityPanels(found["identities"]), "targets": targetPanels(found["targets"]),
		"proxies": proxyPanels(found["proxies"]), "subscribers": subscriberPanels(found["subscribers"]),
	} {
		svg, err := drawn(panels)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, name+".svg"), svg, 0o644); err != nil { //nolint:gosec // documentation
			return err
		}
	}
	return nil
}

const (
	micros = "µs"
	bytes1 = "bytes"
)

func identityPanels(m *Measured) []panel {
	const x = "identities registered"
	three := func(y func(Point) float64) []line {
		return []line{
			linesOf("multicast to 100, acknowledged", red, m.series("multicast"), y),
			linesOf("enumerate 100", blue, m.series("enumerate"), y),
			linesOf("register", green, m.series("register"), y),
		}
	}
	idle := m.last("memory").Memory[kindProxy]
	perIdentity := func(p Point) float64 { return (p.Memory[kindProxy] - idle) / float64(p.X) }
	return []panel{
		{title: "CPU time of the server", x: x, y: micros + " for each operation", lines: three(cpu)},
		{title: "Median time, one caller", x: x, y: "ms", lines: three(millis)},
		{title: "Memory of the server", x: x, y: bytes1 + " for each identity", lines: []line{
			linesOf("resident, above an idle server's", grey, m.series("enumerate"), perIdentity),
		}},
	}
}

func targetPanels(m *Measured) []panel {
	const x = "targets of a multicast"
	return []panel{
		{title: "CPU time of the servers", x: x, y: micros + " for each target", lines: []line{
			linesOf("over NATS: proxy and NATS", red, m.series("nats"), each(cpu)),
			linesOf("over NATS: proxy alone", green, m.series("nats"), each(cpuOf(kindProxy))),
			linesOf("in memory", blue, m.series("memory"), each(cpu)),
		}},
		{title: "Median time, one caller", x: x, y: "ms", lines: []line{
			linesOf("over NATS", red, m.series("nats"), millis), linesOf("in memory", blue, m.series("memory"), millis),
		}},
	}
}

func proxyPanels(m *Measured) []panel {
	const x = "proxies"
	mix := m.series("mix")
	return []panel{
		{title: "CPU time of the servers", x: x, y: micros + " for each operation", linear: true, lines: []line{
			linesOf("all", grey, mix, cpu), linesOf("proxies", blue, mix, cpuOf(kindProxy)),
			linesOf("Redis", red, mix, cpuOf(kindRedis)), linesOf("NATS", green, mix, cpuOf(kindNATS)),
		}},
		{title: "Operations, all on the same cores", x: x, y: "operations a second", linear: true, lines: []line{
			linesOf("16 callers, each waits for its answer", grey, mix, func(p Point) float64 { return p.PerSecond }),
		}},
	}
}

func subscriberPanels(m *Measured) []panel {
	const x = "streams, of one identity each"
	all := m.series("streams")
	return []panel{
		{title: "CPU time of the server", x: x, y: micros + " for each message", lines: []line{
			linesOf("multicast to all, acknowledged", blue, all, each(cpu)),
		}},
		{title: "Median time, one caller", x: x, y: "ms", lines: []line{linesOf("multicast to all, acknowledged", blue, all, millis)}},
		{title: "Memory of the server", x: x, y: bytes1 + " for each stream", lines: []line{
			linesOf("resident, from 1,000 streams on", grey, all, func(p Point) float64 {
				if p.X < 1000 {
					return 0 // less than what the server's memory varies by itself
				}
				return p.Other["bytes_per_stream"]
			}),
		}},
	}
}

// Sizes of a panel.
const (
	panelWidth  vg.Length = 300 // points
	panelHeight vg.Length = 260
)

// drawn draws panels side by side, as SVG.
func drawn(panels []panel) ([]byte, error) {
	row := make([]*plot.Plot, 0, len(panels))
	for _, p := range panels {
		drawn, err := p.plot()
		if err != nil {
			return nil, err
		}
		row = append(row, drawn)
	}
	canvas := vgsvg.New(panelWidth*vg.Length(len(panels)), panelHeight)
	paper := draw.New(canvas)
	paper.SetColor(color.White)
	paper.Fill(paper.Path())
	tiles := draw.Tiles{
		Rows: 1, Cols: len(panels), PadX: vg.Points(14), PadLeft: vg.Points(8), PadRight: vg.Points(14), PadTop: vg.Points(8),
		PadBottom: vg.Points(6),
	}
	for i, p := range row {
		p.Draw(tiles.At(paper, i, 0))
	}
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return nil, err
	}
	return bytes.ReplaceAll(out.Bytes(), []byte("font-family:Liberation Sans;"),
		[]byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;")), nil
}

var sans = font.Font{Typeface: "Liberation", Variant: "Sans"}

func (p panel) plot() (*plot.Plot, error) {
	d := plot.New()
	d.Title.Text, d.X.Label.Text, d.Y.Label.Text = p.title, p.x, p.y
	d.Title.TextStyle.Font, d.Title.Padding = font.From(sans, 12), vg.Points(6)
	for _, axis := range []*plot.Axis{&d.X, &d.Y} {
		axis.Label.TextStyle.Font, axis.Tick.Label.Font = font.From(sans, 11), font.From(sans, 10)
	}
	d.Legend.TextStyle.Font, d.Legend.Top, d.Legend.Left = font.From(sans, 10), true, true
	d.Legend.XOffs, d.Legend.YOffs, d.Legend.Padding = vg.Points(4), vg.Points(-2), vg.Points(3)
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = color.Gray{Y: 0xe0}, color.Gray{Y: 0xe0}
	d.Add(grid)
	for _, l := range p.lines {
		if len(l.points) == 0 {
			continue // an axis without an end has no ticks
		}
		drawn, points, err := plotter.NewLinePoints(l.points)
		if err != nil {
			return nil, err
		}
		look := looks[l.look]
		drawn.Color, drawn.Width = look.color, vg.Points(1.5)
		points.Color, points.Shape, points.Radius = look.color, look.shape, vg.Points(3)
		d.Add(drawn, points)
		d.Legend.Add(l.name, drawn, points)
	}
	if math.IsInf(d.X.Min, 0) { // nothing was measured
		d.X.Min, d.X.Max, d.Y.Min, d.Y.Max = 1, 10, 1, 10
	}
	if p.linear {
		d.X.Tick.Marker = plot.TickerFunc(counts)
		d.X.Min, d.X.Max = d.X.Min-0.2, d.X.Max+0.2
		d.Y.Min, d.Y.Max = 0, d.Y.Max*1.4 // room for the legend
		d.Y.Tick.Marker = plot.TickerFunc(even)
		return d, nil
	}
	d.X.Scale, d.X.Tick.Marker = plot.LogScale{}, plot.TickerFunc(decades)
	d.Y.Scale, d.Y.Tick.Marker = plot.LogScale{}, plot.TickerFunc(decades)
	d.X.Min, d.X.Max = d.X.Min/1.2, d.X.Max*1.2
	d.Y.Min, d.Y.Max = around(d.Y.Min, d.Y.Max, len(p.lines))
	return d, nil
}

// around returns whole decades with room for a legend.
func around(low, high float64, lines int) (from, to float64) {
	from, to = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high)))
	to = max(to, 10*from)
	// The legend takes so much of the height for each line.
	const each = 1.0 / 13
	for height := math.Log10(to / from); math.Log10(to/high) < height*float64(lines+1)*each; height = math.Log10(to / from) {
		to *= math.Pow(10, 0.5)
	}
	return from, to
}

// counts are whole numbers.
func counts(low, high float64) (ticks []plot.Tick) {
	for v := math.Ceil(low); v <= high; v++ {
		ticks = append(ticks, plot.Tick{Value: v, Label: strconv.Itoa(int(v))})
	}
	return ticks
}

// even are numbers at even distances.
func even(low, high float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(low, high)
	for i := range ticks {
		if !ticks[i].IsMinor() {
			ticks[i].Label = figure(ticks[i].Value)
		}
	}
	return ticks
}

// decades are powers of ten with their names, and what is between them. There are none of what is not above 0.
func decades(low, high float64) (ticks []plot.Tick) {
	if !(low > 0) || math.IsInf(high, 0) {
		return nil
	}
	for power := int(math.Floor(math.Log10(low))); power <= int(math.Ceil(math.Log10(high))); power++ {
		for digit := 1.0; digit < 10; digit++ {
			tick := plot.Tick{Value: digit * math.Pow10(power)}
			if digit == 1 {
				tick.Label = short(tick.Value)
			}
			if tick.Value >= low*0.999 && tick.Value <= high*1.001 {
				ticks = append(ticks, tick)
			}
		}
	}
	return ticks
}

// short writes a number with a letter for thousands and millions.
func short(v float64) string {
	for _, unit := range []struct {
		size float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= unit.size*0.999 {
			return strconv.FormatFloat(v/unit.size, 'g', 3, 64) + unit.name
		}
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
