package app

import (
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"golang.org/x/net/http/httpguts"

	"github.com/prism-data-layer/prism/internal/tracing"
)

// tracing reads where traces go.
func (d *decoder) tracing(n ast.Node, cfg *Config) {
	t := new(tracing.Config)
	before := len(d.problems)
	d.mapping(n, "tracing",
		key{name: "endpoint", read: func(n ast.Node) { d.text(n, "tracing.endpoint", &t.Endpoint) }},
		key{name: "headers", read: func(n ast.Node) { t.Headers = d.headers(n) }},
		key{name: "sample_ratio", read: func(n ast.Node) { t.SampleRatio = d.ratio(n, "tracing.sample_ratio") }},
		key{name: "service_name", read: func(n ast.Node) { d.text(n, "tracing.service_name", &t.ServiceName) }},
	)
	if len(d.problems) == before {
		d.invalid(n, "tracing", t.Validate())
	}
	cfg.Tracing = t
}

// headers reads names and values of headers. No problem quotes a value.
func (d *decoder) headers(n ast.Node) map[string]string {
	const what = "tracing.headers"
	out := make(map[string]string)
	pairs, _ := d.pairs(n, what)
	for _, p := range pairs {
		var value string
		switch v := p.value.(type) {
		case *ast.StringNode:
			value = v.Value
		case *ast.IntegerNode:
			value = v.GetToken().Value
		default:
			d.secret(p.value, what+"."+shorten(p.name), &value)
			continue
		}
		name := strings.ToLower(p.name) // as gRPC wants it, and HTTP does not mind
		_, twice := out[name]
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			d.atf(p.key, "%s: %q is not a name of a header", what, shorten(p.name))
		case twice:
			d.atf(p.key, "%s: %s is given twice", what, http.CanonicalHeaderKey(name))
		case !httpguts.ValidHeaderFieldValue(value):
			d.atf(p.value, "%s.%s: has characters that no header can have", what, name)
		}
		out[name] = value
	}
	return out
}

// ratio reads a number from 0 to 1.
func (d *decoder) ratio(n ast.Node, what string) *float64 {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode:
	default:
		d.expected(n, what, "a number from 0 to 1")
		return nil
	}
	v, err := strconv.ParseFloat(strings.ReplaceAll(n.GetToken().Value, "_", ""), 64)
	if err != nil || math.IsNaN(v) || v < 0 || v > 1 {
		d.atf(n, "%s: %s is out of range; legal values: 0 to 1", what, shorten(n.GetToken().Value))
		return nil
	}
	return &v
}

// tracingEntries are what the file says about tracing.
func tracingEntries(t *tracing.Config) yaml.MapSlice {
	out := entries("endpoint", t.Endpoint, "service_name", t.ServiceName)
	if len(t.Headers) > 0 {
		out = append(out, yaml.MapItem{Key: "headers", Value: t.Headers})
	}
	if t.SampleRatio != nil {
		out = append(out, yaml.MapItem{Key: "sample_ratio", Value: *t.SampleRatio})
	}
	if out == nil {
		out = yaml.MapSlice{}
	}
	return out
}

// maskedTracing is the same without its secrets.
func maskedTracing(t *tracing.Config) *tracing.Config {
	if t == nil || len(t.Headers) == 0 {
		return t
	}
	out := *t
	out.Headers = make(map[string]string, len(t.Headers))
	for name := range t.Headers {
		out.Headers[name] = masked
	}
	return &out
}
