package bench

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// WriteText writes what a person at a terminal wants to know.
func (r *Result) WriteText(w io.Writer) error {
	var b bytes.Buffer
	settings := r.settings()
	if r.Plan.Name != "" {
		settings = slices.Insert(settings, 0, setting{"bench", plain(r.Plan.Name)})
	}
	for _, s := range settings {
		fmt.Fprintf(&b, "%-9s%s\n", s.Name, s.Value)
	}
	for _, s := range r.sections() {
		b.WriteByte('\n')
		if s.Table != nil {
			s.Table.write(&b)
		} else {
			fmt.Fprintln(&b, strings.ToUpper(s.Title))
		}
		for _, l := range s.Lines {
			fmt.Fprintln(&b, l.Mood.sign()+l.Text)
		}
	}
	fmt.Fprintf(&b, "\n%s\n", r.verdict().Text)
	_, err := w.Write(b.Bytes())
	return err
}

// sign marks what a reader must not miss.
func (m mood) sign() string {
	if m == warning || m == bad {
		return "! "
	}
	return ""
}

// write writes words to the left of their columns and figures to the right.
func (g *grid) write(b *bytes.Buffer) {
	widths := make([]int, len(g.Head))
	head := make([]string, len(g.Head))
	for i, name := range g.Head {
		head[i] = strings.ToUpper(name)
	}
	rows := append([][]string{head}, g.Rows...)
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var text strings.Builder
		for i, cell := range row {
			if i > 0 {
				text.WriteString("  ")
			}
			width := widths[i]
			if i < g.Words {
				width = -width
			}
			fmt.Fprintf(&text, "%*s", width, cell)
		}
		fmt.Fprintln(b, strings.TrimRight(text.String(), " "))
	}
}
