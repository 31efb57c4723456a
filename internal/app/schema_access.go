package app

import (
	"errors"
	"fmt"
	"slices"

	"github.com/goccy/go-yaml/ast"

	"github.com/prism-data-layer/prism/internal/auth"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// serverTLS reads how connections are secured.
func (d *decoder) serverTLS(n ast.Node, cfg *Config) {
	t := new(auth.TLS)
	before := len(d.problems)
	clientAuth := ""
	d.mapping(n, "tls",
		key{name: "cert_file", required: true, read: func(n ast.Node) { d.text(n, "tls.cert_file", &t.CertFile) }},
		key{name: "key_file", required: true, read: func(n ast.Node) { d.text(n, "tls.key_file", &t.KeyFile) }},
		key{name: "client_ca_file", read: func(n ast.Node) { d.text(n, "tls.client_ca_file", &t.ClientCAFile) }},
		key{name: "client_auth", read: func(n ast.Node) {
			d.choice(n, "tls.client_auth", &clientAuth,
				string(auth.ClientAuthNone), string(auth.ClientAuthOptional), string(auth.ClientAuthRequired))
		}},
		key{name: "min_version", read: func(n ast.Node) { d.version(n, "tls.min_version", &t.MinVersion) }},
	)
	t.ClientAuth = auth.ClientAuth(clientAuth)
	if len(d.problems) == before {
		d.invalid(n, "tls", t.Validate())
	}
	cfg.TLS = t
}

// version reads 1.2 or 1.3, which YAML takes for numbers.
func (d *decoder) version(n ast.Node, what string, out *string) {
	if number, ok := n.(*ast.FloatNode); ok {
		*out = number.GetToken().Value
	} else {
		d.text(n, what, out)
	}
}

// authentication reads which credentials are accepted.
func (d *decoder) authentication(n ast.Node, cfg *Config) {
	a := new(auth.Config)
	before := len(d.problems)
	d.mapping(n, "auth",
		key{name: "tokens", read: func(n ast.Node) {
			d.list(n, "auth.tokens", func(i int, n ast.Node) {
				a.Tokens = append(a.Tokens, d.token(n, fmt.Sprintf("auth.tokens[%d]", i)))
			})
		}},
		key{name: "jwt", read: func(n ast.Node) { a.JWT = d.jwt(n) }},
		key{name: "mtls", read: func(n ast.Node) {
			a.MTLS = new(auth.MTLS)
			d.mapping(n, "auth.mtls", key{name: "subject", read: func(n ast.Node) {
				var sources []string
				d.texts(n, "auth.mtls.subject", &sources)
				for _, source := range sources {
					a.MTLS.Subject = append(a.MTLS.Subject, auth.SubjectSource(source))
				}
			}})
		}},
	)
	switch {
	case len(d.problems) != before:
	case a.None():
		d.atf(n, "auth: at least one of tokens, jwt and mtls is needed; without auth nobody is asked who they are")
	default:
		d.invalid(n, "auth", a.Validate())
	}
	cfg.Auth = a
}

func (d *decoder) token(n ast.Node, what string) (t auth.Token) {
	d.mapping(n, what,
		key{name: "name", required: true, read: func(n ast.Node) { d.text(n, what+".name", &t.Name) }},
		key{name: "hash", required: true, read: func(n ast.Node) { d.secret(n, what+".hash", &t.Hash) }},
		key{name: "claims", read: func(n ast.Node) { t.Claims = d.object(n, what+".claims") }},
	)
	return t
}

func (d *decoder) jwt(n ast.Node) *auth.JWT {
	j := new(auth.JWT)
	d.mapping(n, "auth.jwt",
		key{name: "issuer", required: true, read: func(n ast.Node) { d.text(n, "auth.jwt.issuer", &j.Issuer) }},
		key{name: "audiences", required: true, read: func(n ast.Node) { d.texts(n, "auth.jwt.audiences", &j.Audiences) }},
		key{name: "algorithms", read: func(n ast.Node) { d.texts(n, "auth.jwt.algorithms", &j.Algorithms) }},
		key{name: "leeway", read: func(n ast.Node) { d.duration(n, "auth.jwt.leeway", &j.Leeway) }},
		key{name: "subject_claim", read: func(n ast.Node) { d.text(n, "auth.jwt.subject_claim", &j.SubjectClaim) }},
		key{name: "jwks_url", read: func(n ast.Node) { d.text(n, "auth.jwt.jwks_url", &j.JWKSURL) }},
		key{name: "jwks_file", read: func(n ast.Node) { d.text(n, "auth.jwt.jwks_file", &j.JWKSFile) }},
		key{name: "ca_file", read: func(n ast.Node) { d.text(n, "auth.jwt.ca_file", &j.CAFile) }},
		key{name: "refresh_interval", read: func(n ast.Node) { d.duration(n, "auth.jwt.refresh_interval", &j.RefreshInterval) }},
		key{name: "start_timeout", read: func(n ast.Node) { d.duration(n, "auth.jwt.start_timeout", &j.StartTimeout) }},
	)
	return j
}

// access reads who may do what in a namespace.
func (d *decoder) access(n ast.Node, out *Namespace) {
	before := len(d.problems)
	var places []ast.Node
	d.list(n, "access", func(i int, n ast.Node) {
		places = append(places, n)
		out.Access = append(out.Access, d.rule(n, fmt.Sprintf("access[%d]", i)))
	})
	if len(d.problems) != before {
		return
	}
	for i, rule := range out.Access { // one by one, so that each problem is told where it stands
		_, err := auth.Compile(auth.PolicyConfig{Rules: []auth.Rule{rule}, Filter: out.Filter})
		if bad, ok := errors.AsType[*multicastregistry.InvalidError](err); ok {
			field, _ := cutRule(bad.Field)
			d.atf(places[i], "access[%d]%s: %s", i, field, bad.Problem)
		}
	}
}

// cutRule takes "access[0]" off a field.
func cutRule(field string) (rest string, ok bool) {
	const first = "access[0]"
	if len(field) < len(first) || field[:len(first)] != first {
		return "." + field, false
	}
	return field[len(first):], true
}

func (d *decoder) rule(n ast.Node, what string) (r auth.Rule) {
	d.mapping(n, what,
		key{name: "subject", read: func(n ast.Node) { d.oneOrMore(n, what+".subject", &r.Subjects) }},
		key{name: "methods", read: func(n ast.Node) {
			var methods []string
			d.oneOrMore(n, what+".methods", &methods)
			for _, method := range methods {
				r.Methods = append(r.Methods, auth.Method(method))
			}
		}},
		key{name: "claims", read: func(n ast.Node) { r.Claims = d.object(n, what+".claims") }},
		key{name: "roles", required: true, read: func(n ast.Node) {
			var roles []string
			d.oneOrMore(n, what+".roles", &roles)
			for _, role := range roles {
				r.Roles = append(r.Roles, auth.Role(role))
			}
		}},
		key{name: "identity", read: func(n ast.Node) { d.oneOrMore(n, what+".identity", &r.Identities) }},
		key{name: "filter", read: func(n ast.Node) { r.Filter = d.object(n, what+".filter") }},
		key{name: "hidden", read: func(n ast.Node) { d.oneOrMore(n, what+".hidden", &r.Hidden) }},
	)
	return r
}

// oneOrMore reads a text, or a list of them.
func (d *decoder) oneOrMore(n ast.Node, what string, out *[]string) {
	if _, list := n.(*ast.SequenceNode); list {
		d.texts(n, what, out)
		return
	}
	var one string
	if d.text(n, what, &one); one != "" {
		*out = []string{one}
	}
}

// object reads a mapping of any values, as decoded JSON has them.
func (d *decoder) object(n ast.Node, what string) map[string]any {
	out := make(map[string]any)
	pairs, ok := d.pairs(n, what)
	if !ok {
		return out
	}
	for _, p := range pairs {
		if _, twice := out[p.name]; twice {
			d.atf(p.key, "%s.%s is given twice", what, p.name)
		}
		out[p.name] = d.value(p.value, what+"."+p.name)
	}
	return out
}

func (d *decoder) value(n ast.Node, what string) any {
	switch v := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return d.object(n, what)
	case *ast.SequenceNode:
		list := make([]any, 0, len(v.Values))
		for i, element := range v.Values {
			list = append(list, d.value(element, fmt.Sprintf("%s[%d]", what, i)))
		}
		return list
	case *ast.StringNode:
		return v.Value
	case *ast.LiteralNode:
		return v.Value.Value
	case *ast.BoolNode:
		return v.Value
	case *ast.NullNode, nil:
		return nil
	case *ast.FloatNode:
		return v.Value
	case *ast.IntegerNode:
		if i, ok := v.Value.(int64); ok {
			return i
		}
		if u, ok := v.Value.(uint64); ok {
			if i := int64(u); i >= 0 {
				return i
			}
			return u
		}
	}
	d.expected(n, what, "a text, a number, a truth value, null, a list or a mapping")
	return nil
}

// invalid reports an InvalidError of a part of the configuration.
func (d *decoder) invalid(n ast.Node, what string, err error) {
	if bad, ok := errors.AsType[*multicastregistry.InvalidError](err); ok {
		d.atf(n, "%s.%s: %s", what, bad.Field, bad.Problem)
	}
}

// checkAccess reports what does not fit together.
func (d *decoder) checkAccess(n ast.Node, cfg *Config) {
	if cfg.Auth != nil && cfg.Auth.MTLS != nil && (cfg.TLS == nil || cfg.TLS.ClientCAFile == "") {
		d.atf(n, "auth.mtls: needs tls with a client_ca_file, against which certificates of clients are checked")
	}
	for i := range cfg.Namespaces {
		switch name := cfg.Namespaces[i].Namespace; {
		case cfg.Auth != nil && len(cfg.Namespaces[i].Access) == 0:
			d.atf(n, "namespace %q: access is missing: with auth, nobody may do anything without a rule", shorten(name))
		case cfg.Auth == nil && len(cfg.Namespaces[i].Access) > 0:
			d.atf(n, "namespace %q: access has no effect without auth, which finds out who is calling", shorten(name))
		}
	}
}

// policies compiles the access rules of all namespaces, in their order. Without auth they are nil.
func (c Config) policies() ([]*auth.Policy, error) {
	out := make([]*auth.Policy, len(c.Namespaces))
	if c.Auth == nil {
		return out, nil
	}
	for i, n := range c.Namespaces {
		var err error
		out[i], err = auth.Compile(auth.PolicyConfig{
			Namespace: n.WithDefaults().Namespace, Rules: slices.Clone(n.Access), Filter: n.Filter,
		})
		if err != nil {
			return nil, fmt.Errorf("namespace %q: %w", n.Namespace, err)
		}
	}
	return out, nil
}
