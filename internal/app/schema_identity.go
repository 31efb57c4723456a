package app

import (
	"math"

	"github.com/goccy/go-yaml/ast"

	"github.com/prism-data-layer/prism/internal/schema"
)

// identitySchema reads what the metadata of a namespace's identities look like.
func (d *decoder) identitySchema(n ast.Node, out *Namespace) {
	s := new(schema.Config)
	before := len(d.problems)
	d.mapping(n, "identity_schema",
		key{name: "strict", read: func(n ast.Node) { d.truth(n, "identity_schema.strict", &s.Strict) }},
		key{name: "fields", required: true, read: func(n ast.Node) { s.Fields = d.fields(n, "identity_schema.fields") }},
	)
	if len(d.problems) == before {
		_, err := schema.New(*s)
		d.invalid(n, "identity_schema", err)
	}
	out.Schema = s
}

func (d *decoder) fields(n ast.Node, what string) map[string]schema.Field {
	out := make(map[string]schema.Field)
	pairs, ok := d.pairs(n, what)
	if !ok {
		return out
	}
	for _, p := range pairs {
		if _, twice := out[p.name]; twice {
			d.atf(p.key, "%s.%s is given twice", what, p.name)
		}
		out[p.name] = d.field(p.value, what+"."+p.name)
	}
	return out
}

func (d *decoder) field(n ast.Node, what string) (f schema.Field) {
	var types []string
	for _, t := range schema.Types() {
		types = append(types, string(t))
	}
	size := func(name string, out *int) key {
		return key{name: name, read: func(n ast.Node) { d.within(n, what+"."+name, out, 0, maxLimit) }}
	}
	bound := func(name string, out **float64) key {
		return key{name: name, read: func(n ast.Node) { *out = d.real(n, what+"."+name) }}
	}
	d.mapping(n, what,
		key{name: "type", required: true, read: func(n ast.Node) {
			var t string
			d.choice(n, what+".type", &t, types...)
			f.Type = schema.Type(t)
		}},
		key{name: "required", read: func(n ast.Node) { d.truth(n, what+".required", &f.Required) }},
		key{name: "enum", read: func(n ast.Node) {
			d.list(n, what+".enum", func(_ int, n ast.Node) { f.Enum = append(f.Enum, d.value(n, what+".enum")) })
		}},
		size("min_length", &f.MinLength), size("max_length", &f.MaxLength),
		size("min_items", &f.MinItems), size("max_items", &f.MaxItems),
		bound("minimum", &f.Minimum), bound("maximum", &f.Maximum),
		key{name: "pattern", read: func(n ast.Node) { d.text(n, what+".pattern", &f.Pattern) }},
		key{name: "default", read: func(n ast.Node) { f.Default = d.value(n, what+".default") }},
		key{name: "auto", read: func(n ast.Node) { d.choice(n, what+".auto", &f.Auto, schema.AutoNow) }},
		key{name: "items", read: func(n ast.Node) {
			items := d.field(n, what+".items")
			f.Items = &items
		}},
		key{name: "fields", read: func(n ast.Node) { f.Fields = d.fields(n, what+".fields") }},
	)
	return f
}

// real reads a finite number.
func (d *decoder) real(n ast.Node, what string) *float64 {
	var out float64
	switch v := d.value(n, what).(type) {
	case int64:
		out = float64(v)
	case uint64:
		out = float64(v)
	case float64:
		out = v
	default:
		d.expected(n, what, "a number")
		return nil
	}
	if math.IsNaN(out) || math.IsInf(out, 0) {
		d.expected(n, what, "a finite number")
	}
	return &out
}
