package auth

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

func compile(t testing.TB, rules ...Rule) *Policy {
	t.Helper()
	p, err := Compile(PolicyConfig{Namespace: "prod", Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var alice = Caller{Subject: "alice", Method: MethodJWT, Claims: map[string]any{
	"tenant": "acme", "roles": []any{"ops", "dev"}, "level": json.Number("3"), "admin": true, "realm": map[string]any{"roles": []any{"x"}},
}}

func TestWhoIsMeant(t *testing.T) {
	for _, tt := range []struct {
		name string
		rule Rule
		want bool
	}{
		{"everybody", Rule{Subjects: []string{"*"}}, true},
		{"by name", Rule{Subjects: []string{"bob", "alice"}}, true},
		{"by pattern", Rule{Subjects: []string{"al*"}}, true},
		{"another", Rule{Subjects: []string{"bob", "ali"}}, false},
		{"a literal star", Rule{Subjects: []string{`al\*`}}, false},
		{"by method", Rule{Subjects: []string{"*"}, Methods: []Method{MethodMTLS, MethodJWT}}, true},
		{"by another method", Rule{Subjects: []string{"*"}, Methods: []Method{MethodToken}}, false},
		{"by claim", Rule{Claims: map[string]any{"tenant": "acme"}}, true},
		{"by one of several values", Rule{Claims: map[string]any{"tenant": []any{"x", "acme"}}}, true},
		{"by a claim in a list", Rule{Claims: map[string]any{"roles": "dev"}}, true},
		{"by one of several in a list", Rule{Claims: map[string]any{"roles": []any{"x", "ops"}}}, true},
		{"by number", Rule{Claims: map[string]any{"level": 3}}, true},
		{"by number as text", Rule{Claims: map[string]any{"level": "3"}}, false},
		{"by bool", Rule{Claims: map[string]any{"admin": true}}, true},
		{"by bool as text", Rule{Claims: map[string]any{"admin": "true"}}, false},
		{"by a claim within", Rule{Claims: map[string]any{"realm.roles": "x"}}, true},
		{"by another value", Rule{Claims: map[string]any{"tenant": "acme2"}}, false},
		{"no pattern in values", Rule{Claims: map[string]any{"tenant": "*"}}, false},
		{"by a claim that is missing", Rule{Claims: map[string]any{"team": "a"}}, false},
		{"by an object", Rule{Claims: map[string]any{"realm": "x"}}, false},
		{"by all claims", Rule{Claims: map[string]any{"tenant": "acme", "roles": "ops"}}, true},
		{"not by all claims", Rule{Claims: map[string]any{"tenant": "acme", "roles": "x"}}, false},
		{"subject and claims", Rule{Subjects: []string{"alice"}, Claims: map[string]any{"tenant": "acme"}}, true},
		{"subject without claims", Rule{Subjects: []string{"alice"}, Claims: map[string]any{"tenant": "x"}}, false},
	} {
		tt.rule.Roles = []Role{RoleWatch}
		p := compile(t, tt.rule)
		_, err := p.Grant(alice, OpWatch)
		if (err == nil) != tt.want || len(p.Roles(alice)) > 0 != tt.want {
			t.Errorf("%s: %v, %v", tt.name, err, p.Roles(alice))
		}
	}
	static := Caller{Subject: "ci", Method: MethodToken, Claims: map[string]any{"roles": []string{"ops"}}}
	if _, err := compile(t, Rule{Claims: map[string]any{"roles": "ops"}, Roles: []Role{RoleWatch}}).Grant(static, OpWatch); err != nil {
		t.Error(err)
	}
}

// allOperations, with the role of each.
var allOperations = map[Operation]Role{
	OpRegister: RoleRegister, OpHeartbeat: RoleRegister, OpUnregister: RoleRegister,
	OpEnumerate: RoleEnumerate, OpCount: RoleEnumerate, OpExplain: RoleEnumerate,
	OpMulticast: RoleMulticast, OpGetMulticast: RoleMulticast, OpListMulticasts: RoleMulticast, OpCancelMulticast: RoleMulticast,
	OpSubscribe: RoleSubscribe, OpAck: RoleSubscribe, OpWatch: RoleWatch, OpListNamespaces: RoleAdmin, OpAdmin: RoleAdmin,
}

func TestRolesAndOperations(t *testing.T) {
	if len(allOperations) != len(needs) {
		t.Fatal("an operation is missing here")
	}
	for _, role := range Roles() {
		p := compile(t, Rule{Subjects: []string{"alice"}, Roles: []Role{role}, Identities: []string{"*"}})
		if got := p.Roles(alice); len(got) != 1 || got[0] != role {
			t.Errorf("%s: %v", role, got)
		}
		for op, needed := range allOperations {
			if op.Role() != needed {
				t.Errorf("%s needs %s", op, op.Role())
			}
			want := role == needed || role == RoleAdmin
			g, err := p.Grant(alice, op)
			if (err == nil) != want || g.Owns("x") != want {
				t.Errorf("%s with role %s: %v", op, role, err)
			}
		}
		for _, op := range []Operation{"", "drop", Operation(RoleAdmin) + "x"} {
			if _, err := p.Grant(alice, op); !errors.Is(err, ErrPermissionDenied) || op.Role() != "" {
				t.Errorf("%q with role %s: %v", op, role, err)
			}
		}
	}
}

func TestDenied(t *testing.T) {
	p := compile(t, Rule{Subjects: []string{"alice"}, Roles: []Role{RoleRegister}, Identities: []string{"${sub}/*"}})
	var none *Policy
	for _, tt := range []struct {
		name   string
		policy *Policy
		caller Caller
		text   string
		detail string
	}{
		{"no role", p, alice, `permission denied: watch in namespace "prod"`, `no rule gives "alice" the role watch`},
		{"nobody", p, Caller{}, `permission denied: watch in namespace "prod"`, "not authenticated"},
		{"nobody, with a subject", compile(t, Rule{Subjects: []string{"*"}, Roles: []Role{RoleAdmin}}), Caller{Subject: "alice"}, `permission denied: watch in namespace "prod"`, "not authenticated"},
		{"no rules", compile(t), alice, `permission denied: watch in namespace "prod"`, "no rule"},
		{"no policy", none, alice, `permission denied: watch in namespace ""`, "no policy"},
	} {
		g, err := tt.policy.Grant(tt.caller, OpWatch)
		if !errors.Is(err, ErrPermissionDenied) || err.Error() != tt.text || !strings.Contains(Reason(err), tt.detail) || g.Owns("alice/1") {
			t.Errorf("%s: %v (%s)", tt.name, err, Reason(err))
		}
	}
	if len(p.Roles(Caller{})) > 0 || len(none.Roles(alice)) > 0 {
		t.Error("nobody has roles")
	}
	g, err := p.Grant(alice, OpHeartbeat)
	if err != nil || g.CheckIdentity("alice/1") != nil || g.CheckMetadata("alice/1", nil) != nil {
		t.Fatal(err)
	}
	for _, err := range []error{g.CheckIdentity("bob/1"), g.CheckMetadata("bob/1", nil)} {
		if !errors.Is(err, ErrPermissionDenied) || errors.Is(err, ErrUnauthenticated) || err.Error() != `permission denied: heartbeat in namespace "prod": identity "bob/1"` {
			t.Error(err)
		}
	}
	if text := g.CheckIdentity(strings.Repeat("\n", 10_000)).Error(); len(text) > 1000 || strings.Contains(text, "\n") {
		t.Errorf("%d bytes", len(text))
	}
	if Reason(errors.New("another")) != "" {
		t.Error("another error has a reason")
	}
}

func TestAllowAll(t *testing.T) {
	for _, c := range []Caller{{}, alice} {
		p := AllowAll("dev")
		if got := p.Roles(c); !slices.Equal(got, []Role{RoleAdmin}) {
			t.Error(got)
		}
		for op := range allOperations {
			g, err := p.Grant(c, op)
			if err != nil || !g.Owns("anything") || g.Filter() != nil || g.Hides([]string{"a"}) {
				t.Errorf("%s: %v", op, err)
			}
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	good := Rule{Subjects: []string{"*"}, Roles: []Role{RoleWatch}}
	for _, tt := range []struct {
		change func(*Rule)
		want   string
	}{
		{func(r *Rule) { r.Subjects = nil }, "access[1].subject: a subject or claims are required"},
		{func(r *Rule) { r.Subjects = []string{"${sub}"} }, "access[1].subject: expected a pattern without"},
		{func(r *Rule) { r.Subjects = []string{"a", `\`} }, `access[1].subject[1]: expected \* or \\`},
		{func(r *Rule) { r.Methods = []Method{"password"} }, `access[1].methods: expected token, jwt or mtls, got "password"`},
		{func(r *Rule) { r.Methods = []Method{MethodJWT, MethodNone} }, `access[1].methods[1]: expected token, jwt or mtls, got "none"`},
		{func(r *Rule) { r.Claims = map[string]any{"a": nil} }, "access[1].claims.a: expected a string, a number or a bool"},
		{func(r *Rule) { r.Claims = map[string]any{"a": []any{}} }, "access[1].claims.a: expected a name and at least one value"},
		{func(r *Rule) { r.Claims = map[string]any{"a": "b", "c": []any{map[string]any{}}} }, "access[1].claims.c: expected a string"},
		{func(r *Rule) { r.Roles = nil }, "access[1].roles: at least one of [register"},
		{func(r *Rule) { r.Roles = []Role{RoleWatch, "root"} }, `access[1].roles[1]: expected one of [register enumerate multicast subscribe watch admin], got "root"`},
		{func(r *Rule) { r.Roles = []Role{RoleRegister} }, "access[1].identity: is required"},
		{func(r *Rule) { r.Roles = []Role{RoleSubscribe} }, "access[1].identity: is required"},
		{func(r *Rule) { r.Identities = []string{""} }, "access[1].identity: must not be empty"},
		{func(r *Rule) { r.Identities = []string{strings.Repeat("a", 1025)} }, "access[1].identity: must not be empty, nor longer"},
		{func(r *Rule) { r.Identities = []string{"a", "${name}"} }, `access[1].identity[1]: "${name}": expected ${sub} or ${claim.NAME}`},
		{func(r *Rule) { r.Identities = []string{"${sub}*"} }, `access[1].identity: "${sub}*": nothing stands between`},
		{func(r *Rule) { r.Hidden = []string{"a", ".b"} }, `access[1].hidden[1]: ".b": an empty part`},
		{func(r *Rule) { r.Filter = map[string]any{"a": map[string]any{"$like": "b"}} }, "access[1].filter: filter: /a/$like: unknown operator"},
		{func(r *Rule) { r.Filter = map[string]any{"a": "${tenant}"} }, "access[1].filter: a: expected ${sub}"},
		{func(r *Rule) { r.Filter = map[string]any{"$or": []any{map[string]any{"a": "${"}}} }, "access[1].filter: $or: a: expected ${sub}"},
		{func(r *Rule) { r.Filter = map[string]any{"${sub}": "a"} }, `access[1].filter: "${sub}": nothing can be filled into the name`},
		{func(r *Rule) { r.Filter = map[string]any{"a": map[string]any{"$regex": "^${sub}"}} }, "access[1].filter: filter: /a/$regex: nothing can be filled into a regular expression"},
		{func(r *Rule) { r.Filter = map[string]any{"a.regex": "^${sub}"} }, "access[1].filter: filter: /a.regex: nothing can be filled into a regular expression"},
		{func(r *Rule) { r.Filter = map[string]any{"a.type": "${sub}"} }, `access[1].filter: filter: /a.type: unknown type "${…}"`},
		{func(r *Rule) { r.Filter = map[string]any{"a.semver": "${sub}"} }, `access[1].filter: filter: /a.semver: expected a version range`},
	} {
		bad := good
		tt.change(&bad)
		_, err := Compile(PolicyConfig{Namespace: "prod", Rules: []Rule{good, bad}})
		if !errors.Is(err, multicastregistry.ErrInvalid) || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
	deep := good
	deep.Filter = map[string]any{"$not": map[string]any{"$not": map[string]any{"a": 1}}}
	if _, err := Compile(PolicyConfig{Rules: []Rule{deep}, Filter: filter.Limits{Depth: 2}}); err == nil || !strings.Contains(err.Error(), "deeper than 2") {
		t.Error(err)
	}
}
