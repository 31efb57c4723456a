package main

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

const head = `# Configuration

<!-- Written by "go run ./internal/tools/configdoc" from the configuration's decoder and structs. Do not edit it by hand. -->

Every key that ` + "`prism serve --config FILE`" + ` accepts. The file is one YAML document. An unknown key, a key
given twice or an impossible value is an error that names the line; ` + "`prism config validate FILE`" + ` finds all of them
without starting anything, and ` + "`prism config validate --show FILE`" + ` prints the file with the defaults of all but the
slots' own options. Complete files to start from are in [examples](../../examples/README.md); what backends do is in
[backends](backends.md).

| value | written as |
|---|---|
| duration | seconds as a number, or text such as ` + "`90s`, `5m`, `24h`" + `; 1 ms to 100 years |
| size | bytes as a number, or with a unit: ` + "`512KiB`" + ` (B, KB, KiB, MB, MiB, GB, GiB) |
| text | text; a number or a truth value needs quotes |
| secret | the same, and no message ever quotes it |

A key in **bold** is required.
`

// A row is a key as the page shows it.
type row struct {
	name, value, initial, text string
	required                   bool
}

// A section is a mapping as the page shows it.
type section struct {
	title, intro string
	rows         []row
}

type writer struct {
	code     *code
	sections []section
	// names are the keys of the fields of the mapping at hand.
	names map[string]string
}

// render writes the page from the code under root and a decoder's answers.
func render(root string, ask func(src string) []problem) (string, error) {
	var file key
	if err := (prober{ask: ask}).mapping(place{}, &file); err != nil {
		return "", err
	}
	w := &writer{code: &code{root: root, packages: make(map[string]*pkg)}}
	app, err := w.code.load(configPath)
	if err != nil {
		return "", err
	}
	fields, err := w.code.fields(app, app.structs["Config"])
	if err != nil {
		return "", err
	}
	if err := w.mapping("Top level", "", file.keys, fields); err != nil {
		return "", err
	}
	w.share()
	var b strings.Builder
	b.WriteString(head)
	for _, s := range w.sections {
		s.write(&b)
	}
	return b.String(), nil
}

// mapping adds the section of a mapping, and those of the mappings in it.
func (w *writer) mapping(title, path string, keys []key, fields []field) error {
	at := len(w.sections)
	w.sections = append(w.sections, section{title: title})
	names := make(map[string]string)
	for _, k := range keys {
		if f, ok := fieldOf(fields, k.name); ok {
			names[f.name] = k.name
		}
	}
	for _, k := range keys {
		w.names = names
		own := strings.TrimPrefix(path+"."+k.name, ".")
		r, f, err := w.row(own, k, fields)
		if err != nil {
			return err
		}
		w.sections[at].rows = append(w.sections[at].rows, r)
		if len(k.keys) == 0 && len(k.types) == 0 || f != nil && f.isMap() && !k.named {
			continue
		}
		inner := fields // backend_slots is no struct of its own
		if f != nil {
			in, s, err := w.code.structOf(*f)
			if err != nil {
				return err
			}
			if inner, err = w.code.fields(in, s); err != nil {
				return err
			}
		}
		if k.named {
			own += ".NAME"
		}
		if len(k.keys) > 0 {
			if err := w.mapping("`"+own+"`", own, k.keys, inner); err != nil {
				return err
			}
		}
		for _, typ := range slices.Sorted(maps.Keys(k.types)) {
			// ttl_default and delivery stand in a slot and belong to the namespace
			all, err := w.code.flat(append(slices.Clone(fields), inner...), typ)
			if err != nil {
				return err
			}
			if err := w.mapping("`"+k.name+"` of type `"+typ+"`", own+"."+typ, k.types[typ], all); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *writer) row(path string, k key, fields []field) (row, *field, error) {
	f, found := fieldOf(fields, k.name)
	if !found && describedAs(path) == "" {
		return row{}, nil, fmt.Errorf("nothing tells what %s is: give its field the key's name and a comment, "+
			"or describe it in internal/tools/configdoc/words.go", path)
	}
	if len(k.values) == 0 && (k.kind == "text" || k.kind == "a list") {
		k.values = w.code.choicesOf(f)
	}
	r := row{name: k.name, required: k.required, value: valueOf(k), text: describedAs(path)}
	if f.isMap() && len(k.keys) > 0 && !k.named {
		r.value = perKey(k)
	}
	doc := w.keyNames(sentence(f, terms.Replace(f.doc)))
	app := field{in: w.code.packages[configPath]}
	r.initial = w.constants(app, cmp.Or(defaults[path], defaults[k.name]), k)
	if m := defaultForm.FindStringSubmatchIndex(doc); m != nil {
		r.initial = cmp.Or(r.initial, w.constants(f, doc[m[2]:m[3]], k))
		doc = strings.TrimSpace(doc[:m[0]] + doc[m[1]:])
	}
	if strings.HasPrefix(k.kind, "seconds") {
		r.initial = spelledUnit.ReplaceAllString(r.initial, "$1$2")
	}
	if k.required {
		r.initial = "" // whatever a program that leaves it out gets
	}
	if r.text == "" {
		r.text = w.constants(f, doc, k)
	}
	if r.text == "" {
		return row{}, nil, fmt.Errorf("%s, the field of %s, has no comment", f.name, path)
	}
	if !found {
		return r, nil, nil
	}
	return r, &f, nil
}

// sentence drops the name that a comment begins with: "MaxAge is how long …" is "How long …".
func sentence(f field, doc string) string {
	if strings.HasPrefix(doc, f.name+" and ") {
		return doc // of two fields
	}
	for _, lead := range []string{f.name + " is, ", f.name + " is ", f.name + " are, ", f.name + " are ", f.name + " "} {
		if rest, ok := strings.CutPrefix(doc, lead); ok {
			return strings.ToUpper(rest[:1]) + rest[1:]
		}
	}
	return doc
}

// spelledUnit is a duration as comments write it; the page writes it as a file does.
var spelledUnit = regexp.MustCompile(`\b(\d+) (ms|s|m|h)[a-z]*\b`)

var word = regexp.MustCompile(`\b[A-Z][A-Za-z]+\b`)

// keyNames puts keys in the place of the names of their fields.
func (w *writer) keyNames(text string) string {
	return word.ReplaceAllStringFunc(text, func(name string) string {
		key := w.names[name]
		first := strings.HasPrefix(text, name) && !strings.HasPrefix(text, name+" and ")
		if key == "" || first || name == "Cluster" {
			return name
		}
		return "`" + key + "`"
	})
}

// constants puts the values of constants in the place of their names.
func (w *writer) constants(f field, text string, k key) string {
	if f.in == nil {
		return text
	}
	return constName.ReplaceAllStringFunc(text, func(name string) string {
		m := constName.FindStringSubmatch(name)
		v, ok := w.code.value(f.in, f.imports, m[1], m[2])
		if !ok {
			return name
		}
		return shown(v, k)
	})
}

// share moves what every slot of one type has, its connection, into a section of its own.
func (w *writer) share() {
	for _, typ := range []string{"nats", "redis"} {
		suffix := "of type `" + typ + "`"
		var slots []int
		for i, s := range w.sections {
			if strings.HasSuffix(s.title, suffix) {
				slots = append(slots, i)
			}
		}
		if len(slots) < 3 { //nolint:mnd // registry, messaging and durability
			continue
		}
		title := "connection " + suffix
		shared := section{title: title, intro: "In every slot of this type. Slots that say the same share a connection."}
		for _, r := range w.sections[slots[0]].rows {
			everywhere := r.name != "type"
			for _, i := range slots {
				everywhere = everywhere && slices.Contains(w.sections[i].rows, r)
			}
			if everywhere {
				shared.rows = append(shared.rows, r)
			}
		}
		for _, i := range slots {
			w.sections[i].rows = slices.DeleteFunc(w.sections[i].rows, func(r row) bool { return slices.Contains(shared.rows, r) })
			w.sections[i].intro = "And the keys of its [connection](#connection-of-type-" + typ + ")."
		}
		w.sections = append(w.sections, shared)
	}
	w.once()
}

// once drops what is said again: the mappings of one connection look alike in every slot.
func (w *writer) once() {
	seen := make(map[string]bool)
	w.sections = slices.DeleteFunc(w.sections, func(s section) bool {
		name := strings.Trim(s.title, "`")
		last := name[strings.LastIndexByte(name, '.')+1:]
		if !strings.Contains(name, "backend_slots.") || last != "tls" && last != "sentinel" {
			return false
		}
		again := seen[last]
		seen[last] = true
		return again
	})
	for i, s := range w.sections {
		name := strings.Trim(s.title, "`")
		if last := name[strings.LastIndexByte(name, '.')+1:]; seen[last] && strings.Contains(name, "backend_slots.") {
			w.sections[i].title = "`" + last + "` of a connection"
		}
		w.sections[i].rows = slices.DeleteFunc(s.rows, func(r row) bool { // the title says it
			return r.name == "type" && strings.Contains(s.title, " of type ")
		})
	}
	place := func(s section) int {
		return 1 + slices.IndexFunc(order, func(title string) bool { return strings.Contains(s.title, title) })
	}
	slices.SortStableFunc(w.sections, func(a, b section) int { return place(a) - place(b) })
}

// order is that of the last sections; others come before them.
var order = []string{
	"`registry` of", "`messaging` of", "`durability` of", "connection of type `nats`", "connection of type `redis`",
	"`sentinel` of", "`tls` of",
}

func (s section) write(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s\n\n", strings.ToUpper(s.title[:1])+s.title[1:])
	if s.intro != "" {
		fmt.Fprintf(b, "%s\n\n", s.intro)
	}
	fmt.Fprint(b, "| key | value | default | what it is |\n|---|---|---|---|\n")
	for _, r := range s.rows {
		name := "`" + r.name + "`"
		if r.required {
			name = "**" + name + "**"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", name, r.value, r.initial, r.text)
	}
}
