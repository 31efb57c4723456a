package auth

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestIdentityTemplates(t *testing.T) {
	caller := Caller{Subject: "alice", Method: MethodJWT, Claims: map[string]any{
		"tenant": "acme", "star": "*", "list": []any{"a"}, "empty": "", "n": json.Number("7"), "f": 1.5, "null": nil, "yes": true,
		"a.b": "dotted", "a": map[string]any{"b": "nested", "c": map[string]any{"d": "deep"}}, "bad": "\xff",
	}}
	for _, tt := range []struct {
		pattern  string
		identity string
		want     bool
	}{
		{"*", "", true},
		{"*", "anything/at all\n", true},
		{"dev-1", "dev-1", true},
		{"dev-1", "dev-12", false},
		{"dev-*", "dev-", true},
		{"dev-*", "dev", false},
		{"*-eu", "a-eu", true},
		{"*-eu", "a-eu2", false},
		{"a*a", "a", false}, // the two do not share a letter
		{"a*a", "aa", true},
		{"a*b*c", "a-b-b-c", true},
		{"a*b*c", "a-c-b", false},
		{"a**b", "a-b", true},
		{`\*`, "*", true},
		{`\*`, "a", false},
		{`\\*`, `\a`, true},
		{"$${sub}", "${sub}", true},
		{"$${sub}", "alice", false},
		{"a$b{c}", "a$b{c}", true},
		{"${sub}", "alice", true},
		{"${sub}", "Alice", false},
		{"${sub}/*", "alice/x", true},
		{"${sub}/*", "alice/x/y", true},
		{"${sub}/*", "alice", false},
		{"${sub}/*", "alice2/x", false},
		{"${sub}/*", "bob/alice/x", false},
		{"t/${claim.tenant}/${sub}", "t/acme/alice", true},
		{"${claim.n}/*", "7/x", true},
		{"${claim.a.b}", "dotted", true}, // the whole name first
		{"${claim.a.c.d}", "deep", true},
		{"${claim.a.c.x}", "", false},
		{"${claim.tenant.x}", "acme", false},
		{"${claim.star}/x", "*/x", true}, // no wildcard
		{"${claim.star}/x", "a/x", false},
		{"${claim.missing}/*", "/x", false},
		{"${claim.empty}/*", "/x", false},
		{"${claim.list}/*", "a/x", false},
		{"${claim.f}/*", "1.5/x", false},
		{"${claim.null}/*", "/x", false},
		{"${claim.yes}/*", "true/x", false},
		{"${claim.bad}/*", "\xff/x", false},
	} {
		template, err := parseTemplate(tt.pattern, true)
		if err != nil {
			t.Errorf("%s: %v", tt.pattern, err)
			continue
		}
		g, ok := template.glob(caller)
		if got := ok && g.match(tt.identity); got != tt.want {
			t.Errorf("%s for %q: %v", tt.pattern, tt.identity, got)
		}
	}
}

func TestTemplatesRefused(t *testing.T) {
	for _, s := range []string{"${", "${sub", "${}", "${SUB}", "${subject}", "${claim.}", "${claim}", "a${ sub}", "${claim.${sub}}", `\`, `\a`, `a\`} {
		if _, err := parseTemplate(s, true); err == nil {
			t.Errorf("%s is accepted", s)
		}
	}
	for _, s := range []string{"${sub}*", "*${sub}", "${sub}${claim.a}", "a/${claim.a}*/b"} {
		template, err := parseTemplate(s, true)
		if err != nil || template.checkOwner() == nil {
			t.Errorf("%s is accepted, %v", s, err)
		}
	}
	if _, err := parseGlob("${sub}"); err == nil {
		t.Error("a subject that is filled in is accepted")
	}
}

// FuzzTemplate compares with regular expressions, and checks that what is filled in is literal.
func FuzzTemplate(f *testing.F) {
	for _, seed := range [][3]string{
		{"${sub}/*", "alice", "alice/x"},
		{"*", "", "x"},
		{`a\*b*`, "", "a*bc"},
		{"${claim.c}-${sub}/*", "*", "*-*/y"},
		{"$${sub}", "a", "${sub}"},
		{"a*b*c", "", "abc"},
		{"${sub", "a", "b"},
		{"*${sub}*", "a.b", "xa.by"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, pattern, value, identity string) {
		if !utf8.ValidString(pattern + value + identity) {
			return
		}
		template, err := parseTemplate(pattern, true)
		if err != nil {
			return
		}
		caller := Caller{Subject: value, Claims: map[string]any{"c": value}}
		var want strings.Builder
		complete := true
		for _, p := range template {
			if p.kind == star {
				want.WriteString("(?s:.*)")
				continue
			}
			text, ok := p.fill(caller)
			complete = complete && ok
			want.WriteString(regexp.QuoteMeta(text))
		}
		g, ok := template.glob(caller)
		if ok != complete {
			t.Fatalf("%q is complete: %v", pattern, ok)
		}
		re, err := regexp.Compile("^" + want.String() + "$")
		if err != nil {
			return // too large
		}
		if ok && g.match(identity) != re.MatchString(identity) {
			t.Fatalf("%q with %q for %q: %v", pattern, value, identity, g.match(identity))
		}
	})
}
