package app

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// A Problem is one fault of a configuration file, where it stands.
type Problem struct {
	// File is the name of the file.
	File string
	// Line and Column say where the fault stands, both from 1.
	Line, Column int
	// Text says what is wrong and what would be right.
	Text string
}

// String returns file:line:column: text, as editors and terminals know it.
func (p Problem) String() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Text)
}

// ConfigError holds every problem of a configuration file, in the order of the file.
type ConfigError struct {
	// Problems has at least one element.
	Problems []Problem
}

// Error returns the problems, one a line.
func (e *ConfigError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// decoder walks the syntax tree of a file and collects problems instead of stopping at the first. What it cannot read
// keeps its zero value; nothing is used once there is a problem.
type decoder struct {
	file     string
	problems []Problem
}

// atf reports a problem.
func (d *decoder) atf(n ast.Node, format string, args ...any) {
	p := Problem{File: d.file, Line: 1, Column: 1, Text: fmt.Sprintf(format, args...)}
	if n != nil {
		if pos := position(n); pos != nil {
			p.Line, p.Column = pos.Line, pos.Column
		}
	}
	d.problems = append(d.problems, p)
}

// position is where a reader would point: at a mapping's first key, not at its colon.
func position(n ast.Node) *token.Position {
	switch v := n.(type) {
	case *ast.MappingNode:
		if !v.IsFlowStyle && len(v.Values) > 0 && v.Values[0].Key != nil {
			return position(v.Values[0].Key)
		}
	case *ast.MappingValueNode:
		if v.Key != nil {
			return position(v.Key)
		}
	}
	if t := n.GetToken(); t != nil {
		return t.Position
	}
	return nil
}

// document parses a file into the one node that it must consist of; nil when it reported why not.
func (d *decoder) document(src []byte) (root ast.Node) {
	defer func() {
		if panicked := recover(); panicked != nil { // a third party's parser meets whatever stands in the file
			d.atf(nil, "is not YAML that can be read: %v", panicked)
			root = nil
		}
	}()
	if len(src) > maxConfigBytes {
		d.atf(nil, "the file has %d bytes, at most %d are read", len(src), maxConfigBytes)
		return nil
	}
	if !utf8.Valid(src) {
		d.atf(nil, "is not UTF-8 text")
		return nil
	}
	file, err := parser.ParseBytes(src, 0, parser.AllowDuplicateMapKey()) // duplicates are reported below, with the others
	if err != nil {
		d.syntax(err)
		return nil
	}
	var docs []ast.Node
	for _, doc := range file.Docs {
		if doc != nil && doc.Body != nil {
			if _, directive := doc.Body.(*ast.DirectiveNode); !directive {
				docs = append(docs, doc.Body)
			}
		}
	}
	switch len(docs) {
	case 0:
		d.atf(nil, "the file is empty; legal keys: %s", strings.Join(topLevel, ", "))
		return nil
	case 1:
		return docs[0]
	}
	d.atf(docs[1], "a second document begins here; a configuration is one document, so remove the ---")
	return nil
}

func (d *decoder) syntax(err error) {
	p := Problem{File: d.file, Line: 1, Column: 1, Text: err.Error()}
	if e, ok := err.(yaml.Error); ok { //nolint:errorlint // the parser returns it bare, and its As needs the same type
		p.Text = e.GetMessage()
		if t := e.GetToken(); t != nil && t.Position != nil {
			p.Line, p.Column = t.Position.Line, t.Position.Column
		}
	}
	if strings.Contains(p.Text, "'\t'") {
		p.Text = "a tab cannot indent YAML; use spaces"
	}
	d.problems = append(d.problems, p)
}

// key is one legal key of a mapping and what reads its value.
type key struct {
	name     string
	required bool
	read     func(n ast.Node)
}

// pair is one entry of a mapping.
type pair struct {
	key   ast.Node
	name  string
	value ast.Node
}

// mapping reads a mapping with the given keys, and reports all that is unknown, given twice or missing. What names the
// mapping in messages, such as "backend_slots.registry".
func (d *decoder) mapping(n ast.Node, what string, keys ...key) {
	pairs, ok := d.pairs(n, what)
	if !ok {
		return
	}
	d.entries(n, what, pairs, keys)
}

func (d *decoder) entries(n ast.Node, what string, pairs []pair, keys []key) {
	prefix := ""
	if what != "" {
		prefix = what + "."
	}
	seen := make(map[string]bool)
	for _, p := range pairs {
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == p.name })
		switch {
		case i < 0:
			d.atf(p.key, "unknown key %s%s; %slegal keys: %s", prefix, shorten(p.name), meant(p.name, keys), names(keys))
		case seen[p.name]:
			d.atf(p.key, "%s%s is given twice", prefix, p.name)
		default:
			keys[i].read(p.value)
		}
		seen[p.name] = true
	}
	for _, k := range keys {
		if k.required && !seen[k.name] {
			d.atf(n, "%s%s is missing", prefix, k.name)
		}
	}
}

// pairs lists the entries of a mapping.
func (d *decoder) pairs(n ast.Node, what string) (pairs []pair, ok bool) {
	var values []*ast.MappingValueNode
	switch v := n.(type) {
	case *ast.MappingNode:
		values = v.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{v}
	default:
		d.expected(n, what, "a mapping")
		return nil, false
	}
	for _, v := range values {
		if v == nil || v.Key == nil {
			d.expected(n, what, "a mapping")
			return nil, false
		}
		name, ok := v.Key.(*ast.StringNode)
		if !ok {
			d.atf(v.Key, "keys must be plain text")
			continue
		}
		pairs = append(pairs, pair{key: v.Key, name: name.Value, value: v.Value})
	}
	return pairs, true
}

// list reads a sequence, element by element.
func (d *decoder) list(n ast.Node, what string, read func(i int, n ast.Node)) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.expected(n, what, "a list")
		return
	}
	if len(seq.Values) == 0 {
		d.atf(n, "%s: is empty; at least one is needed", what)
	}
	for i, v := range seq.Values {
		read(i, v)
	}
}

// expected reports a value of the wrong type.
func (d *decoder) expected(n ast.Node, what, want string) {
	if what == "" {
		what = "the file"
	}
	d.atf(n, "%s: expected %s, got %s", what, want, describe(n))
}

func describe(n ast.Node) string {
	switch v := n.(type) {
	case nil, *ast.NullNode:
		return "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.BoolNode:
		return "a truth value"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "the number " + shorten(n.String())
	case *ast.StringNode:
		return fmt.Sprintf("%q", shorten(v.Value))
	case *ast.LiteralNode:
		return "a block of text"
	case *ast.AliasNode, *ast.AnchorNode:
		return "an anchor or alias, which are not supported here"
	case *ast.TagNode:
		return "a tag, which are not supported here"
	}
	return "something else"
}

func names(keys []key) string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = k.name
	}
	return strings.Join(out, ", ")
}

// shorten keeps what a problem quotes to a readable length.
func shorten(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// meant is "did you mean x? " for the legal key that is at most two slips of the keyboard away.
func meant(name string, keys []key) string {
	best, least := "", 3
	for _, k := range keys {
		if n := slips(name, k.name); n < least && n < len(k.name) {
			best, least = k.name, n
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean " + best + "? "
}

// slips counts the insertions, deletions and replacements between two names, up to 3.
func slips(a, b string) int {
	if len(a) > len(b)+2 || len(b) > len(a)+2 {
		return 3
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return min(row[len(b)], 3)
}
