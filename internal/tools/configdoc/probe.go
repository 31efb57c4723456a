package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// How the decoder is asked. A file that says nothing but an unknown key is answered with the legal ones; a key without a value
// with what it expects; an impossible number with the range. So nothing has to be kept in step with it by hand.

// unknown is no legal key anywhere.
const unknown = "zzzz"

// A key is a legal key of a mapping.
type key struct {
	name     string
	required bool
	// kind is what the decoder expects, in its own words: "a whole number", "text", …
	kind string
	// values are the legal values, if there are few, and span is the range of a number.
	values []string
	span   string
	// keys are those of a mapping, or of the elements of a list.
	keys []key
	// types are the keys of a slot by the type of its backend; keys are empty then.
	types map[string][]key
	// many says that it takes a list as well.
	many bool
	// named says that it is a mapping of any names, each of which has the keys.
	named bool
	// again says that it is a mapping with the keys of one that it stands in.
	again bool
}

// A place is a mapping in a file: the lines above it, and how far its keys are indented.
type place struct {
	above  []string
	indent string
}

// with returns a file in which the place has one key, and its line.
func (p place) with(name, value string) (src string, line int) {
	lines := append(slices.Clone(p.above), p.indent+strings.TrimRight(name+": "+value, " "))
	return strings.Join(lines, "\n") + "\n", len(lines)
}

// under is the mapping that is the value of a key, or the first element of the list that is.
func (p place) under(name string, list bool) place {
	lines := append(slices.Clone(p.above), p.indent+name+":")
	if list {
		return place{above: append(lines, p.indent+"  -"), indent: p.indent + "    "}
	}
	return place{above: lines, indent: p.indent + "  "}
}

// beside is the place itself, once it has a key.
func (p place) beside(name, value string) place {
	return place{above: append(slices.Clone(p.above), p.indent+name+": "+value), indent: p.indent}
}

type prober struct {
	ask func(src string) []problem
	// within are the legal keys of the mappings around, as the decoder lists them.
	within []string
}

var (
	legalKeys   = regexp.MustCompile(`^unknown key (.*)` + unknown + `; (?:did you mean .*\? )?legal keys: (.*)$`)
	expectation = regexp.MustCompile(`expected (.*), got nothing$`)
	choices     = regexp.MustCompile(`nothing is not possible; legal values: (.*)$`)
	spans       = regexp.MustCompile(`is out of range; legal values: (.*)$`)
)

// mapping finds out which keys are legal at a place.
func (p prober) mapping(at place, k *key) (err error) {
	src, line := at.with(unknown, "1")
	answers := p.ask(src)
	for _, a := range answers {
		if m := legalKeys.FindStringSubmatch(a.text); m != nil && a.line == line {
			if k.again = slices.Contains(p.within, m[2]); !k.again {
				p.within = append(slices.Clone(p.within), m[2])
				k.keys, err = p.keys(at, m[1], strings.Split(m[2], ", "), answers)
			}
			return err
		}
		if a.line == line && strings.HasSuffix(a.text, "."+unknown+": expected a mapping, got the number 1") {
			k.named = true
			return p.mapping(at.under(unknown, false), k)
		}
	}
	if !slices.ContainsFunc(answers, func(a problem) bool { return strings.HasSuffix(a.text, ".type is missing") }) {
		if slices.ContainsFunc(answers, func(a problem) bool { return a.line == line }) {
			return fmt.Errorf("the decoder does not tell which keys are legal in:\n%s%v", src, answers)
		}
		return nil // any keys are
	}
	typ, err := p.key(at, "type")
	if err != nil {
		return err
	}
	k.types = make(map[string][]key)
	for _, name := range typ.values {
		var slot key
		if err := p.mapping(at.beside("type", name), &slot); err != nil {
			return err
		}
		k.types[name] = slot.keys
	}
	return nil
}

func (p prober) keys(at place, prefix string, names []string, answers []problem) ([]key, error) {
	var out []key
	for _, name := range names {
		k, err := p.key(at, name)
		if err != nil {
			return nil, err
		}
		k.required = slices.ContainsFunc(answers, func(a problem) bool { return a.text == prefix+name+" is missing" })
		out = append(out, k)
	}
	return out, nil
}

// key asks what a key expects.
func (p prober) key(at place, name string) (key, error) {
	if at.has(name) {
		return key{name: name, kind: "text"}, nil // it is what the place depends on
	}
	k := key{name: name}
	src, line := at.with(name, "")
	told := false
	for _, a := range p.ask(src) {
		if a.line != line || strings.HasSuffix(a.text, " is missing") {
			continue
		}
		told = true
		if m := choices.FindStringSubmatch(a.text); m != nil {
			k.kind, k.values = "a choice", strings.Split(m[1], ", ")
		} else if m := expectation.FindStringSubmatch(a.text); m != nil {
			k.kind = m[1]
		} else if strings.Contains(a.text, "expected text; a number needs quotes") {
			k.kind = "secret"
		}
	}
	var err error
	switch {
	case k.kind == "" && !told:
		k.kind = "any value"
	case k.kind == "":
		return k, fmt.Errorf("the decoder does not tell what %q expects in:\n%s", name, src)
	case k.kind == "a mapping":
		err = p.mapping(at.under(name, false), &k)
	case k.kind == "a list":
		err = p.elements(at, &k)
	case k.kind == "text":
		src, line := at.with(name, "["+unknown+"]")
		k.many = !slices.ContainsFunc(p.ask(src), func(a problem) bool {
			return a.line == line && strings.HasSuffix(a.text, "expected text, got a list")
		})
	case strings.Contains(k.kind, "number"):
		k.span = p.span(at, name)
	}
	return k, err
}

// elements finds out the keys of a list's elements; none when they are no mappings.
func (p prober) elements(at place, k *key) error {
	src, line := at.with(k.name, "[~]")
	told := false
	for _, a := range p.ask(src) {
		if a.line != line || strings.HasSuffix(a.text, " is missing") {
			continue
		}
		told = true
		if strings.HasSuffix(a.text, ": expected a mapping, got nothing") {
			return p.mapping(at.under(k.name, true), k)
		}
	}
	if !told {
		k.kind = "list of any values"
	}
	return nil
}

// span asks for the range of a number, with one that is out of every range.
func (p prober) span(at place, name string) string {
	src, line := at.with(name, "18446744073709551615")
	for _, a := range p.ask(src) {
		if m := spans.FindStringSubmatch(a.text); m != nil && a.line == line {
			return m[1]
		}
	}
	return ""
}

// has tells whether the place has a key already.
func (p place) has(name string) bool {
	return slices.ContainsFunc(p.above, func(l string) bool { return strings.HasPrefix(l, p.indent+name+": ") })
}
