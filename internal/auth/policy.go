package auth

import (
	"fmt"
	"maps"
	"slices"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// Rule says what some callers may do. At least one of Subjects and Claims says who, and all that are given must match.
type Rule struct {
	// Subjects are patterns, of which the caller's subject must match one. * is any text, and "*" is whoever is authenticated.
	Subjects []string
	// Methods are those of which one must have been used. Default: any. It tells apart subjects of the same name.
	Methods []Method
	// Claims are values, or lists of values, of which the caller's claim must have one: as its value, or in it if it is a list.
	Claims map[string]any
	// Roles is what they may do.
	Roles []Role
	// Identities are patterns of the identities that they may act as: "${sub}/*", or "*" for all. Required with the roles register
	// and subscribe. The role admin without it owns all.
	Identities []string
	// Filter is ANDed onto every query: a filter as decoded JSON, with ${sub} and ${claim.NAME} in strings. Nil: none.
	Filter map[string]any
	// Hidden are fields of the metadata, spelled as in filters, that they neither read nor name.
	Hidden []string
}

// PolicyConfig is who may do what in a namespace.
type PolicyConfig struct {
	// Namespace is its name.
	Namespace string
	// Rules are the rules. Without any, nobody may do anything.
	Rules []Rule
	// Filter bounds the rules' filters.
	Filter filter.Limits
}

// Policy decides what callers may do in a namespace. It is immutable; a nil Policy denies everything.
type Policy struct {
	namespace string
	rules     []rule
	open      bool
}

// rule is a Rule that was prepared.
type rule struct {
	subjects   []glob
	methods    []Method
	claims     []claimRule
	roles      roles
	identities []template
	filter     *mandatory
	hidden     paths
}

type claimRule struct {
	name   string
	values []any // as filter.Scalar gives them
}

// AllowAll returns a policy that grants everything to everybody.
func AllowAll(namespace string) *Policy {
	return &Policy{namespace: namespace, open: true, rules: []rule{{
		subjects: []glob{{"", ""}}, roles: RoleAdmin.bit(), identities: []template{{{kind: star}}},
	}}}
}

// Compile prepares a policy. The error is an InvalidError that names the place, such as access[2].identity.
func Compile(cfg PolicyConfig) (*Policy, error) {
	p := &Policy{namespace: cfg.Namespace}
	for i, r := range cfg.Rules {
		compiled, err := r.compile(cfg.Filter)
		if err != nil {
			return nil, within(fmt.Sprintf("access[%d]", i), err)
		}
		p.rules = append(p.rules, compiled)
	}
	return p, nil
}

func (r Rule) compile(limits filter.Limits) (out rule, err error) {
	if len(r.Subjects) == 0 && len(r.Claims) == 0 {
		return out, invalid("subject", `a subject or claims are required, to say whom the rule is about; "*" is everybody`)
	}
	for i, s := range r.Subjects {
		g, err := parseGlob(s)
		if err != nil {
			return out, invalid(place("subject", i, len(r.Subjects)), "%v", err)
		}
		out.subjects = append(out.subjects, g)
	}
	for i, m := range r.Methods {
		if !slices.Contains([]Method{MethodToken, MethodJWT, MethodMTLS}, m) {
			return out, invalid(place("methods", i, len(r.Methods)), "expected token, jwt or mtls, got %q", m)
		}
	}
	out.methods = slices.Clone(r.Methods)
	if out.claims, err = compileClaims(r.Claims); err != nil {
		return out, err
	}
	if out.roles, err = compileRoles(r.Roles); err != nil {
		return out, err
	}
	if out.identities, err = r.compileIdentities(out.roles); err != nil {
		return out, err
	}
	if r.Filter != nil {
		m, err := compileFilter(r.Filter, limits)
		if err != nil {
			return out, invalid("filter", "%v", err)
		}
		out.filter = &m
	}
	for i, name := range r.Hidden {
		path, err := filter.ParsePath(name)
		if err != nil {
			return out, invalid(place("hidden", i, len(r.Hidden)), "%q: %v", shorten(name), err)
		}
		out.hidden = append(out.hidden, path)
	}
	return out, nil
}

// place names one of n values of a field, which may be written without a list when it is the only one.
func place(field string, i, n int) string {
	if n == 1 {
		return field
	}
	return fmt.Sprintf("%s[%d]", field, i)
}

func compileClaims(claims map[string]any) ([]claimRule, error) {
	var out []claimRule
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		value := claims[name]
		values, isList := value.([]any)
		if !isList {
			values = []any{value}
		}
		at := "claims." + name
		if name == "" || len(values) == 0 {
			return nil, invalid(at, "expected a name and at least one value")
		}
		c := claimRule{name: name}
		for _, v := range values {
			scalar, ok := filter.Scalar(v)
			if !ok || scalar == nil {
				return nil, invalid(at, "expected a string, a number or a bool, or a list of them, got %T", v)
			}
			c.values = append(c.values, scalar)
		}
		out = append(out, c)
	}
	return out, nil
}

func compileRoles(list []Role) (out roles, err error) {
	if len(list) == 0 {
		return 0, invalid("roles", "at least one of %v is required", Roles())
	}
	for i, role := range list {
		bit := role.bit()
		if bit == 0 {
			return 0, invalid(place("roles", i, len(list)), "expected one of %v, got %q", Roles(), role)
		}
		out |= bit
	}
	return out, nil
}

func (r Rule) compileIdentities(roles roles) ([]template, error) {
	if len(r.Identities) == 0 {
		if roles&RoleAdmin.bit() != 0 {
			return []template{{{kind: star}}}, nil
		}
		if roles&(RoleRegister.bit()|RoleSubscribe.bit()) != 0 {
			return nil, invalid("identity", `is required with the roles register and subscribe: "${sub}/*", or "*" for every identity`)
		}
	}
	var out []template
	for i, s := range r.Identities {
		at := place("identity", i, len(r.Identities))
		t, err := parseTemplate(s, true)
		if err == nil {
			err = t.checkOwner()
		}
		if err != nil {
			return nil, invalid(at, "%q: %v", shorten(s), err)
		}
		if len(t) == 0 || len(s) > 4*multicastregistry.MaxIdentityBytes {
			return nil, invalid(at, "must not be empty, nor longer than any identity")
		}
		out = append(out, t)
	}
	return out, nil
}

// matches tells whether the rule is about the caller.
func (r *rule) matches(c Caller) bool {
	if len(r.methods) > 0 && !slices.Contains(r.methods, c.Method) {
		return false
	}
	if len(r.subjects) > 0 && !slices.ContainsFunc(r.subjects, func(g glob) bool { return g.match(c.Subject) }) {
		return false
	}
	for i := range r.claims {
		if !r.claims[i].matches(c) {
			return false
		}
	}
	return true
}

// fits tells whether the caller has what the rule's filter is filled in with. Otherwise the rule grants nothing.
func (r *rule) fits(c Caller) bool {
	if r.filter == nil {
		return true
	}
	_, ok := r.filter.of(c)
	return ok
}

func (r *claimRule) matches(c Caller) bool {
	value, present := c.Claim(r.name)
	if !present {
		return false
	}
	switch v := value.(type) {
	case []any:
		return slices.ContainsFunc(v, r.has)
	case []string:
		return slices.ContainsFunc(v, func(s string) bool { return r.has(s) })
	}
	return r.has(value)
}

func (r *claimRule) has(value any) bool {
	scalar, ok := filter.Scalar(value)
	return ok && slices.Contains(r.values, scalar)
}

// Roles returns the roles that a caller has here, by whatever rule: none in a namespace that they should not know of.
func (p *Policy) Roles(c Caller) []Role {
	if p == nil || c.Method == MethodNone && !p.open {
		return nil
	}
	var have roles
	for i := range p.rules {
		if r := &p.rules[i]; r.matches(c) && r.fits(c) {
			have |= r.roles
		}
	}
	return slices.DeleteFunc(Roles(), func(r Role) bool { return r.bit()&have == 0 })
}

// Grant returns what a caller may do with an operation. The error is a DeniedError: they may not do it at all.
func (p *Policy) Grant(c Caller, op Operation) (Grant, error) {
	if p == nil {
		return Grant{}, &DeniedError{Operation: op, Detail: "no policy"}
	}
	g := Grant{operation: op, namespace: p.namespace}
	if c.Method == MethodNone && !p.open {
		return Grant{}, g.denied("the caller is not authenticated")
	}
	need := needs[op].bit
	for i := range p.rules {
		if r := &p.rules[i]; r.roles&need != 0 && r.matches(c) {
			g.add(r, c)
		}
	}
	if len(g.rules) == 0 {
		return Grant{}, g.denied(fmt.Sprintf("no rule gives %q the role %s", c.Subject, op.Role()))
	}
	g.filter = either(g.rules)
	return g, nil
}
