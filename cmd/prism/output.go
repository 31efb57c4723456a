package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/prism-data-layer/prism/client"
)

// The output formats.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatJSONL = "jsonl"
	formatYAML  = "yaml"
)

var formats = []string{formatTable, formatJSON, formatJSONL, formatYAML}

// show prints one value for machines: it is called in every format but table.
func (p *program) show(value any) error {
	switch p.format {
	case formatYAML:
		text, err := yamlOf(value)
		if err != nil {
			return err
		}
		_, err = p.out.Write(text)
		return err
	case formatJSONL:
		return writeJSON(p.out, value, "")
	default:
		return writeJSON(p.out, value, "  ")
	}
}

// list prints many values for machines as they come: an array in JSON, a line each in JSONL, a list in YAML.
type list struct {
	p *program
	n int
}

func (l *list) add(value any) error {
	l.n++
	switch l.p.format {
	case formatJSONL:
		return writeJSON(l.p.out, value, "")
	case formatYAML:
		text, err := yamlOf([]any{value})
		if err != nil {
			return err
		}
		_, err = l.p.out.Write(text)
		return err
	}
	var text bytes.Buffer
	if err := writeJSON(&text, value, "  "); err != nil {
		return err
	}
	opening := "[\n  "
	if l.n > 1 {
		opening = ",\n  "
	}
	indented := bytes.ReplaceAll(bytes.TrimRight(text.Bytes(), "\n"), []byte("\n"), []byte("\n  "))
	_, err := fmt.Fprintf(l.p.out, "%s%s", opening, indented)
	return err
}

func (l *list) end() error {
	var err error
	switch {
	case l.p.format == formatJSON && l.n == 0, l.p.format == formatYAML && l.n == 0:
		_, err = fmt.Fprintln(l.p.out, "[]")
	case l.p.format == formatJSON:
		_, err = fmt.Fprintln(l.p.out, "\n]")
	}
	return err
}

// each prints a slice for machines.
func each[T any](p *program, values []T) error {
	l := list{p: p}
	for _, value := range values {
		if err := l.add(value); err != nil {
			return err
		}
	}
	return l.end()
}

func writeJSON(to io.Writer, value any, indent string) error {
	encoder := json.NewEncoder(to)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	return encoder.Encode(value)
}

// table prints rows in columns, cut to the terminal.
func (p *program) table(head []string, rows [][]string) error {
	fit(head, rows, p.columns)
	w := tabwriter.NewWriter(p.out, 0, 0, len(columnGap), ' ', 0)
	fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// fit shortens the last column so that the rows fit into the width of the terminal.
func fit(head []string, rows [][]string, width int) {
	if width == 0 {
		return
	}
	last := len(head) - 1
	taken := 0
	for column := range last {
		widest := utf8.RuneCountInString(head[column])
		for _, row := range rows {
			widest = max(widest, utf8.RuneCountInString(row[column]))
		}
		taken += widest + len(columnGap)
	}
	for _, row := range rows {
		row[last] = shorten(row[last], max(width-taken, 10))
	}
}

// columnGap stands between two columns.
var columnGap = strings.Repeat(" ", 2)

// width is how many columns the terminal has; 0 when the output is none.
func width(out io.Writer) int {
	file, ok := out.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// watched tells whether a person looks at a stream.
func watched(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// printable makes text of unknown origin safe for a terminal: what is not printable is shown as an escape.
func printable(text string, keepLines bool) string {
	clean := func(r rune) bool { return unicode.IsPrint(r) || keepLines && r == '\n' }
	if utf8.ValidString(text) && strings.IndexFunc(text, func(r rune) bool { return !clean(r) }) < 0 {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, text[0])
		case clean(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		text = text[n:]
	}
	return b.String()
}

// cell is an identity or another text from outside in a column.
func cell(text string) string {
	if text == "" {
		return "-"
	}
	return printable(text, false)
}

// compact is metadata on one line.
func compact(value any) string {
	var text bytes.Buffer
	if err := writeJSON(&text, value, ""); err != nil {
		return "?"
	}
	return printable(strings.TrimSuffix(text.String(), "\n"), false)
}

// shorten cuts text to a number of columns.
func shorten(text string, columns int) string {
	if columns <= 0 || utf8.RuneCountInString(text) <= columns {
		return text
	}
	return string([]rune(text)[:max(columns-1, 0)]) + "…"
}

// span shows a duration without parts that are zero: 5m, not 5m0s.
func span(d time.Duration) string {
	if d == client.NoExpiry {
		return "never"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// counted is a number with its noun.
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// left shows how long a lease still lasts, by our clock.
func left(expires time.Time) string {
	if expires.IsZero() {
		return "never"
	}
	return span(max(time.Until(expires), 0).Round(time.Second))
}

// identityOut is an identity for machines; register --file reads it too.
type identityOut struct {
	Identity     string         `json:"identity"`
	Metadata     map[string]any `json:"metadata,omitempty"`
	TTL          string         `json:"ttl"`
	RegisteredAt time.Time      `json:"registered_at"`
	ExpiresAt    *time.Time     `json:"expires_at,omitempty"`
	Revision     uint64         `json:"revision,omitempty"`
}

func identityFor(i client.Identity) identityOut {
	return identityOut{
		Identity: i.ID, Metadata: i.Metadata(), TTL: span(i.TTL), RegisteredAt: i.RegisteredAt,
		ExpiresAt: moment(i.ExpiresAt), Revision: uint64(i.Revision),
	}
}

// moment leaves out a time that is none.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
