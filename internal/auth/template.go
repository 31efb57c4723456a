package auth

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// A template is text with places that are filled in for each caller. In a pattern it has stars too.
type template []part

// part is a literal, or a star, or names what is filled in.
type part struct {
	text string
	kind partKind
}

type partKind uint8

const (
	literal partKind = iota
	star
	subject
	claim
)

var errVariable = errors.New(`expected ${sub} or ${claim.NAME}; a literal "${" is written "$${"`)

// parseTemplate reads a template. With stars it is a pattern, in which * stands for any text, \* for a star and \\ for a
// backslash.
func parseTemplate(s string, stars bool) (template, error) {
	var t template
	var text strings.Builder
	end := func() {
		if text.Len() > 0 {
			t = append(t, part{text.String(), literal})
			text.Reset()
		}
	}
	for s != "" {
		switch {
		case strings.HasPrefix(s, "$${"):
			text.WriteString("${")
			s = s[3:]
		case strings.HasPrefix(s, "${"):
			name, rest, ok := strings.Cut(s[2:], "}")
			v, known := variable(name)
			if !ok || !known {
				return nil, errVariable
			}
			end()
			t, s = append(t, v), rest
		case stars && s[0] == '*':
			end()
			if len(t) == 0 || t[len(t)-1].kind != star {
				t = append(t, part{kind: star})
			}
			s = s[1:]
		case stars && s[0] == '\\':
			if !strings.HasPrefix(s, `\*`) && !strings.HasPrefix(s, `\\`) {
				return nil, errors.New(`expected \* or \\`)
			}
			text.WriteByte(s[1])
			s = s[2:]
		default:
			text.WriteByte(s[0])
			s = s[1:]
		}
	}
	end()
	return t, nil
}

func variable(name string) (part, bool) {
	if name == "sub" {
		return part{kind: subject}, true
	}
	name, ok := strings.CutPrefix(name, "claim.")
	return part{name, claim}, ok && name != "" && !strings.Contains(name, "${")
}

// variables tells whether anything is filled in.
func (t template) variables() bool {
	for _, p := range t {
		if p.kind >= subject {
			return true
		}
	}
	return false
}

// checkOwner refuses a pattern with which a caller would own what belongs to others: "${sub}*" lets "al" own what is "alice's".
func (t template) checkOwner() error {
	for i := 1; i < len(t); i++ {
		a, b := t[i-1].kind, t[i].kind
		if a != literal && b != literal && (a >= subject || b >= subject) {
			return errors.New("nothing stands between what is filled in and what is beside it: " +
				`"${sub}*" would let "al" own what is "alice's"; put a separator between them, as in "${sub}/*"`)
		}
	}
	return nil
}

// text fills in a template without stars. It is not ok when the caller lacks something.
func (t template) text(c Caller) (string, bool) {
	var out strings.Builder
	for _, p := range t {
		text, ok := p.fill(c)
		if !ok {
			return "", false
		}
		out.WriteString(text)
	}
	return out.String(), true
}

// fill is the text of anything but a star. What is filled in is never empty.
func (p part) fill(c Caller) (string, bool) {
	switch p.kind {
	case literal:
		return p.text, true
	case subject:
		return c.Subject, c.Subject != ""
	}
	value, present := c.Claim(p.text)
	if !present {
		return "", false
	}
	value, _ = filter.Scalar(value)
	switch v := value.(type) {
	case string:
		return v, v != "" && utf8.ValidString(v)
	case int64:
		return strconv.FormatInt(v, 10), true
	case uint64:
		return strconv.FormatUint(v, 10), true
	}
	return "", false
}

// glob fills in a pattern. It is not ok when the caller lacks something.
func (t template) glob(c Caller) (glob, bool) {
	g := make(glob, 1, len(t)+1)
	for _, p := range t {
		if p.kind == star {
			g = append(g, "")
			continue
		}
		text, ok := p.fill(c)
		if !ok {
			return nil, false
		}
		g[len(g)-1] += text
	}
	return g, true
}

// A glob is the texts between the stars of a pattern, all of them literal.
type glob []string

func (g glob) match(s string) bool {
	if len(g) == 1 {
		return s == g[0]
	}
	last := len(g) - 1
	s, ok := strings.CutPrefix(s, g[0])
	if !ok {
		return false
	}
	if s, ok = strings.CutSuffix(s, g[last]); !ok {
		return false
	}
	for _, text := range g[1:last] {
		if _, s, ok = strings.Cut(s, text); !ok {
			return false
		}
	}
	return true
}

// parseGlob reads a pattern that is the same for everybody.
func parseGlob(s string) (glob, error) {
	t, err := parseTemplate(s, true)
	if err != nil {
		return nil, err
	}
	if t.variables() {
		return nil, fmt.Errorf(`expected a pattern without "${": %q`, shorten(s))
	}
	g, _ := t.glob(Caller{})
	return g, nil
}
