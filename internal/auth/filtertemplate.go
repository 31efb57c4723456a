package auth

import (
	"errors"
	"fmt"
	"strings"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// mandatory is a rule's filter: one for all callers, or decoded JSON with templates for strings.
type mandatory struct {
	limits filter.Limits
	expr   *filter.Expr
	raw    any // nil when nothing is filled in
}

// sample stands for what will be filled in while a filter is checked: from Unicode's private use area, so that nobody means it.
const sample = "\ue000"

func compileFilter(raw map[string]any, limits filter.Limits) (mandatory, error) {
	m := mandatory{limits: limits}
	filled := false
	templated, err := withTemplates(raw, &filled)
	if err != nil {
		return m, err
	}
	sampled, _ := fillIn(templated, func(t template) (string, bool) {
		var s strings.Builder
		for _, p := range t {
			if p.kind == literal {
				s.WriteString(p.text)
			} else {
				s.WriteString(sample)
			}
		}
		return s.String(), true
	})
	m.expr, err = limits.ParseValue(sampled)
	if err != nil {
		return m, errors.New(strings.NewReplacer(sample, "${…}", `\ue000`, "${…}").Replace(err.Error()))
	}
	if !filled {
		return m, nil
	}
	for e := range m.expr.All() {
		if text, _ := e.Value.(string); e.Op == filter.Regex && strings.Contains(text, sample) {
			return m, fmt.Errorf("filter: %s: nothing can be filled into a regular expression; "+
				"$startswith, $endswith and $contains take it literally", e.Pointer())
		}
	}
	m.raw = templated
	return m, nil
}

// withTemplates copies decoded JSON with a template in place of every string.
func withTemplates(raw any, filled *bool) (any, error) {
	switch v := raw.(type) {
	case string:
		t, err := parseTemplate(v, false)
		*filled = *filled || t.variables()
		return t, err
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, inner := range v {
			if strings.Contains(key, "${") {
				return nil, fmt.Errorf("%q: nothing can be filled into the name of a field", shorten(key))
			}
			var err error
			if out[key], err = withTemplates(inner, filled); err != nil {
				return nil, fmt.Errorf("%s: %w", shorten(key), err)
			}
		}
		return out, nil
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			var err error
			if out[i], err = withTemplates(inner, filled); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return raw, nil
}

// fillIn is the inverse of withTemplates.
func fillIn(templated any, text func(template) (string, bool)) (any, bool) {
	switch v := templated.(type) {
	case template:
		return text(v)
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, inner := range v {
			var ok bool
			if out[key], ok = fillIn(inner, text); !ok {
				return nil, false
			}
		}
		return out, true
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			var ok bool
			if out[i], ok = fillIn(inner, text); !ok {
				return nil, false
			}
		}
		return out, true
	}
	return templated, true
}

// of is the filter for a caller. It is not ok when the caller lacks something, or has what no filter may hold.
func (m mandatory) of(c Caller) (*filter.Expr, bool) {
	if m.raw == nil {
		return m.expr, true
	}
	filled, ok := fillIn(m.raw, func(t template) (string, bool) { return t.text(c) })
	if !ok {
		return nil, false
	}
	expr, err := m.limits.ParseValue(filled)
	return expr, err == nil
}
