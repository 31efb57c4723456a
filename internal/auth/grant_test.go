package auth

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

type object = map[string]any

func parse(t testing.TB, text string) *filter.Expr {
	t.Helper()
	e, err := filter.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func grant(t testing.TB, p *Policy, c Caller, op Operation) Grant {
	t.Helper()
	g, err := p.Grant(c, op)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// Several rules add up, and each restricts what it grants itself only.
func TestRulesAddUp(t *testing.T) {
	p := compile(t,
		Rule{Subjects: []string{"*"}, Roles: []Role{RoleRegister, RoleEnumerate}, Identities: []string{"${sub}/*"}, Filter: object{"tenant": "${claim.tenant}"}, Hidden: []string{"secret", "sensor.key"}},
		Rule{Claims: object{"roles": "ops"}, Roles: []Role{RoleEnumerate, RoleSubscribe}, Identities: []string{"ops/*"}, Filter: object{"public": true}, Hidden: []string{"sensor", "other"}},
		Rule{Subjects: []string{"root"}, Roles: []Role{RoleAdmin}},
	)
	bob := Caller{Subject: "bob", Method: MethodJWT, Claims: object{"tenant": "b"}}
	root := Caller{Subject: "root", Method: MethodMTLS}
	for _, tt := range []struct {
		name   string
		caller Caller
		op     Operation
		owns   string // space-separated, of: alice/1 bob/1 ops/1 x
		filter string
		hidden string // of: secret sensor sensor.key sensor.x other
	}{
		{"one rule", bob, OpEnumerate, "bob/1", `{"tenant":"b"}`, "secret sensor.key"},
		{"two rules", alice, OpEnumerate, "alice/1 ops/1", `{"$or":[{"tenant":"acme"},{"public":true}]}`, "sensor.key"},
		{"the first of two rules", alice, OpHeartbeat, "alice/1", `{"tenant":"acme"}`, "secret sensor.key"},
		{"the second of two rules", alice, OpAck, "ops/1", `{"public":true}`, "sensor sensor.key sensor.x other"},
		{"a rule without restrictions", root, OpEnumerate, "alice/1 bob/1 ops/1 x", "{}", ""},
	} {
		g := grant(t, p, tt.caller, tt.op)
		var owns, hidden []string
		for _, id := range []string{"alice/1", "bob/1", "ops/1", "x"} {
			if g.Owns(id) {
				owns = append(owns, id)
			}
		}
		for _, name := range []string{"secret", "sensor", "sensor.key", "sensor.x", "other"} {
			if path, _ := filter.ParsePath(name); g.Hides(path) {
				hidden = append(hidden, name)
			}
		}
		if strings.Join(owns, " ") != tt.owns || strings.Join(hidden, " ") != tt.hidden || g.Filter().String() != tt.filter {
			t.Errorf("%s: owns %v, filter %s, hidden %v", tt.name, owns, g.Filter(), hidden)
		}
	}
}

func TestFilterTemplates(t *testing.T) {
	caller := Caller{Subject: `a"}, {"x": "*`, Method: MethodJWT, Claims: object{
		"star": "*", "n": 7, "empty": "", "long": strings.Repeat("a", 5000), "prefix": "a.*",
	}}
	for _, tt := range []struct {
		name   string
		filter object
		want   string // empty: the rule grants nothing
	}{
		{"nothing to fill in", object{"a": "b"}, `{"a":"b"}`},
		{"empty", object{}, `{}`},
		{"the subject is literal", object{"a": "${sub}"}, `{"a":"a\"}, {\"x\": \"*"}`},
		{"in a text", object{"a": "x-${claim.star}-${claim.n}"}, `{"a":"x-*-7"}`},
		{"an escape", object{"a": "$${sub}", "b": "${claim.n}"}, `{"a":"${sub}","b":"7"}`},
		{"in a list", object{"a": object{"$in": []any{"x", "${claim.star}", 1}}}, `{"a":{"$in":["x","*",1]}}`},
		{"deep", object{"$and": []any{object{"$not": object{"a": "${claim.n}"}}, object{"b": object{"$startswith": "${claim.prefix}"}}}}, `{"a":{"$not":{"$eq":"7"}},"b":{"$startswith":"a.*"}}`},
		{"an operator's name is no operator", object{"a": "$regex", "b": object{"$regex": "^[$]{1}"}}, `{"a":"$regex","b":{"$regex":"^[$]{1}"}}`},
		{"missing", object{"a": "${claim.missing}"}, ""},
		{"missing, negated", object{"a": object{"$ne": "${claim.missing}"}}, ""},
		{"missing in a list", object{"a": object{"$nin": []any{"x", "${claim.empty}"}}}, ""},
		{"too long for a filter", object{"a": "${claim.long}"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := compile(t, Rule{Subjects: []string{"*"}, Roles: []Role{RoleWatch}, Filter: tt.filter})
			g, err := p.Grant(caller, OpWatch)
			if (err == nil) != (tt.want != "") || err == nil && g.Filter().String() != tt.want {
				t.Errorf("got %s, %v", g.Filter(), err)
			}
		})
	}
}

// FuzzFilterTemplate checks that what is filled in is literal, whatever the filter.
func FuzzFilterTemplate(f *testing.F) {
	f.Add(`{"a": "${sub}"}`, "alice")
	f.Add(`{"$or": [{"a": {"$in": ["x", "${claim.c}"]}}, {"$not": {"b": "$${${sub}"}}]}`, `"}, {"x": "*`)
	f.Add(`{"a.regex": "^x${sub}"}`, "a|b")
	f.Add(`{"${sub}": {"$exists": true}}`, "$or")
	f.Fuzz(func(t *testing.T, text, value string) {
		raw, err := multicastregistry.DecodeJSON(text, nil)
		if err != nil || !utf8.ValidString(text+value) {
			return
		}
		m, err := compileFilter(raw, filter.Limits{})
		if err != nil {
			return
		}
		e, ok := m.of(Caller{Subject: value, Claims: object{"c": value}})
		if !ok {
			return
		}
		// The same tree, but for the places that are filled in.
		var got, want []string
		for c := range e.All() {
			got = append(got, c.Op.String()+strings.Join(c.Path, "."))
		}
		for c := range m.expr.All() {
			want = append(want, c.Op.String()+strings.Join(c.Path, "."))
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%s with %q becomes %s", text, value, e)
		}
	})
}

// A rule whose filter lacks something grants nothing, and hides nothing either.
func TestRuleThatLacksSomething(t *testing.T) {
	p := compile(t,
		Rule{Subjects: []string{"*"}, Roles: []Role{RoleWatch}, Filter: object{"team": "${claim.team}"}},
		Rule{Subjects: []string{"*"}, Roles: []Role{RoleWatch}, Filter: object{"a": 1}, Hidden: []string{"secret"}},
		Rule{Subjects: []string{"*"}, Roles: []Role{RoleWatch}, Filter: object{"a": 1.0}, Hidden: []string{"secret"}},
	)
	g := grant(t, p, alice, OpWatch)
	if g.Filter().String() != `{"a":1}` || !g.Hides([]string{"secret"}) {
		t.Errorf("%s", g.Filter())
	}
}

func TestRestrict(t *testing.T) {
	p := compile(t, Rule{Subjects: []string{"alice"}, Roles: []Role{RoleWatch}, Filter: object{"tenant": "${claim.tenant}"}},
		Rule{Subjects: []string{"root"}, Roles: []Role{RoleAdmin}})
	g := grant(t, p, alice, OpWatch)
	free := grant(t, p, Caller{Subject: "root", Method: MethodToken}, OpWatch)
	for _, tt := range []struct{ asked, want string }{
		{`{}`, `{"tenant":"acme"}`},
		{`{"a":1}`, `{"a":1,"tenant":"acme"}`},
		{`{"tenant":"other"}`, `{"$and":[{"tenant":"acme"},{"tenant":"other"}]}`},
		{`{"$or":[{"tenant":"other"},{}]}`, `{"tenant":"acme","$or":[{"tenant":"other"},{}]}`},
		{`{"$not":{"tenant":"acme"}}`, `{"tenant":"acme","$not":{"tenant":"acme"}}`},
	} {
		asked := parse(t, tt.asked)
		got := g.Restrict(asked)
		if !filter.Equal(parse(t, got.String()), parse(t, tt.want)) {
			t.Errorf("%s becomes %s, want %s", tt.asked, got, tt.want)
		}
		for _, m := range []object{{"tenant": "acme"}, {"tenant": "acme", "a": 1.0}, {"tenant": "other", "a": 1.0}, {"a": 1.0}, {}} {
			if filter.Match(got, m) != (m["tenant"] == "acme" && filter.Match(asked, m)) {
				t.Errorf("%s for %v", got, m)
			}
		}
		if free.Restrict(asked) != asked {
			t.Error("a filter is restricted by nothing")
		}
	}
	if g.Restrict(nil).String() != `{"tenant":"acme"}` || free.Restrict(nil) != nil {
		t.Error("no filter at all")
	}
}

// Tenants who may register what their own filter admits only cannot step in front of others.
func TestCheckMetadata(t *testing.T) {
	p := compile(t,
		Rule{Subjects: []string{"alice"}, Roles: []Role{RoleRegister}, Identities: []string{"a/*"}, Filter: object{"tenant": "a"}},
		Rule{Subjects: []string{"alice"}, Roles: []Role{RoleRegister}, Identities: []string{"b/*"}, Filter: object{"tenant": "b"}},
	)
	g := grant(t, p, alice, OpRegister)
	for _, tt := range []struct {
		identity, tenant string
		want             bool
	}{{"a/1", "a", true}, {"b/1", "b", true}, {"a/1", "b", false}, {"b/1", "a", false}, {"c/1", "a", false}, {"a/1", "c", false}} {
		err := g.CheckMetadata(tt.identity, object{"tenant": tt.tenant})
		if (err == nil) != tt.want || err != nil && !errors.Is(err, ErrPermissionDenied) {
			t.Errorf("%s of %s: %v", tt.identity, tt.tenant, err)
		}
	}
}

func TestHiddenFieldsCannotBeNamed(t *testing.T) {
	p := compile(t, Rule{Subjects: []string{"*"}, Roles: []Role{RoleEnumerate}, Hidden: []string{"secret", "sensor.key", `a\.b`}},
		Rule{Subjects: []string{"root"}, Roles: []Role{RoleAdmin}})
	g := grant(t, p, alice, OpEnumerate)
	const text = `permission denied: enumerate in namespace "prod": a field may not be used`
	for _, tt := range []struct {
		filter string
		refuse bool
	}{
		{`{}`, false},
		{`{"a":1,"sensor":{"$exists":true},"sensor.x":2,"secrets":3,"x.secret":4}`, false},
		{`{"a.b":1}`, false},
		{`{"secret":1}`, true},
		{`{"secret.inner.deep":1}`, true},
		{`{"sensor.key":1}`, true},
		{`{"sensor.key.x":1}`, true},
		{`{"a\\.b":1}`, true},
		{`{"\\secret":1}`, true},
		{`{"secret":{"$exists":false}}`, true},
		{`{"secret":{"$ne":null}}`, true},
		{`{"secret.type":"string"}`, true},
		{`{"secret":{"$regex":"^a"}}`, true},
		{`{"secret":{"$in":[]}}`, true},
		{`{"a":1,"$or":[{"b":1},{"$and":[{"c":1},{"$not":{"secret":{"$not":{"$lt":3}}}}]}]}`, true},
		{`{"$not":{"sensor.key":{"$exists":true}}}`, true},
	} {
		err := g.CheckFilter(parse(t, tt.filter))
		if (err != nil) != tt.refuse || err != nil && (!errors.Is(err, ErrPermissionDenied) || err.Error() != text) {
			t.Errorf("%s: %v", tt.filter, err)
		}
	}
	if g.CheckFilter(nil) != nil {
		t.Error("no filter at all is refused")
	}
	err := g.CheckPaths([]string{"a"}, []string{"sensor", "key"})
	if err == nil || err.Error() != text || Reason(err) != `the field "sensor.key" is hidden from the caller` {
		t.Error(err, Reason(err))
	}
	if err := g.CheckPaths([]string{"a"}, []string{"sensor"}); err != nil {
		t.Error(err)
	}
	free := grant(t, p, Caller{Subject: "root", Method: MethodToken}, OpEnumerate)
	if err := free.CheckFilter(parse(t, `{"secret":1}`)); err != nil {
		t.Error(err)
	}
}

func TestRedact(t *testing.T) {
	p := compile(t, Rule{Subjects: []string{"*"}, Roles: []Role{RoleEnumerate}, Hidden: []string{"secret", "sensor.key", "a.b.c"}})
	g := grant(t, p, alice, OpEnumerate)
	for _, tt := range []struct{ name, in, want string }{
		{"nothing hidden", `{"x":{"secret":1}}`, `{"x":{"secret":1}}`},
		{"a field", `{"x":1,"secret":{"a":1}}`, `{"x":1}`},
		{"a field of an object", `{"sensor":{"key":1,"x":2}}`, `{"sensor":{"x":2}}`},
		{"the only field of an object", `{"sensor":{"key":1}}`, `{"sensor":{}}`},
		{"deep", `{"a":{"b":{"c":1,"d":2},"c":3}}`, `{"a":{"b":{"d":2},"c":3}}`},
		{"another type", `{"sensor":"key","a":{"b":7}}`, `{"sensor":"key","a":{"b":7}}`},
		{"in lists", `{"sensor":[{"key":1,"x":2},[{"key":3}],"key",null]}`, `{"sensor":[{"x":2},[{}],"key",null]}`},
		{"empty", `{}`, `{}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in, want := decode(t, tt.in), decode(t, tt.want)
			if got := g.Redact(in); !reflect.DeepEqual(got, want) {
				t.Errorf("got %v", got)
			}
			if !reflect.DeepEqual(in, decode(t, tt.in)) {
				t.Error("what is given is changed")
			}
			encoded, err := g.RedactEncoded(string(multicastregistry.AppendMetadata(nil, in)))
			if err != nil || encoded != string(multicastregistry.AppendMetadata(nil, want)) {
				t.Errorf("encoded: %q, %v", encoded, err)
			}
		})
	}
	if _, err := g.RedactEncoded("\x0asecret"); err == nil {
		t.Error("what cannot be decoded is answered")
	}
	if got, err := g.RedactEncoded("\x0axyz"); err != nil || got != "\x0axyz" {
		t.Error("what hides nothing is decoded", err)
	}
	if g.Redact(nil) != nil {
		t.Error("something becomes of nothing")
	}
}

func decode(t *testing.T, text string) object {
	t.Helper()
	metadata, err := multicastregistry.DecodeJSON(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	return metadata
}

func TestCheckFields(t *testing.T) {
	t.Parallel()
	p, err := Compile(PolicyConfig{Namespace: "n", Rules: []Rule{{
		Subjects: []string{"*"}, Roles: []Role{RoleRegister}, Identities: []string{"*"}, Hidden: []string{"secret", "owner.phone"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	g, err := p.Grant(Caller{Subject: "a", Method: MethodToken}, OpRegister)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		metadata map[string]any
		denied   bool
	}{
		{nil, false},
		{map[string]any{"room": "lab", "owner": map[string]any{"name": "x"}, "secrets": 1}, false},
		{map[string]any{"owner": "phone"}, false},
		{map[string]any{"secret": nil}, true},
		{map[string]any{"owner": map[string]any{"phone": "1"}}, true},
		{map[string]any{"owner": []any{"x", map[string]any{"phone": "1"}}}, true},
	} {
		if err := g.CheckFields(row.metadata); errors.Is(err, ErrPermissionDenied) != row.denied {
			t.Errorf("%v: %v", row.metadata, err)
		}
	}
}
