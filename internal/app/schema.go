package app

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/prism-data-layer/prism/internal/proxy"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// topLevel are the keys of a file.
var topLevel = []string{
	"listen", "tls", "auth", "insecure", "audit_log", "tracing", "startup_timeout", "drain_timeout", "namespaces",
}

// Parse reads a configuration. Nothing is passed over: an unknown key, a key given twice, an impossible value or a second
// document is a problem, and the error is a *ConfigError with all of them.
func Parse(file string, src []byte) (Config, error) {
	d := &decoder{file: file}
	cfg := Default()
	cfg.Namespaces = nil
	if root := d.document(src); root != nil {
		d.config(root, &cfg)
	}
	if len(d.problems) == 0 {
		return cfg, nil
	}
	slices.SortStableFunc(d.problems, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return Config{}, &ConfigError{Problems: d.problems}
}

func (d *decoder) config(n ast.Node, cfg *Config) {
	d.mapping(n, "",
		key{name: "listen", read: func(n ast.Node) {
			d.mapping(n, "listen",
				key{name: "grpc", read: func(n ast.Node) { d.address(n, "listen.grpc", &cfg.Listen.GRPC) }},
				key{name: "http", read: func(n ast.Node) { d.address(n, "listen.http", &cfg.Listen.HTTP) }},
				key{name: "hosts", read: func(n ast.Node) { d.hosts(n, cfg) }},
				key{name: "admin", read: func(n ast.Node) { d.address(n, "listen.admin", &cfg.Listen.Admin) }},
			)
		}},
		key{name: "tls", read: func(n ast.Node) { d.serverTLS(n, cfg) }},
		key{name: "auth", read: func(n ast.Node) { d.authentication(n, cfg) }},
		key{name: "insecure", read: func(n ast.Node) { d.truth(n, "insecure", &cfg.Insecure) }},
		key{name: "audit_log", read: func(n ast.Node) { d.text(n, "audit_log", &cfg.AuditLog) }},
		key{name: "tracing", read: func(n ast.Node) { d.tracing(n, cfg) }},
		key{name: "startup_timeout", read: func(n ast.Node) { d.durationOrZero(n, "startup_timeout", &cfg.StartupTimeout) }},
		key{name: "drain_timeout", read: func(n ast.Node) { d.duration(n, "drain_timeout", &cfg.DrainTimeout) }},
		key{name: "namespaces", required: true, read: func(n ast.Node) {
			seen := make(map[string]bool)
			d.list(n, "namespaces", func(i int, n ast.Node) {
				cfg.Namespaces = append(cfg.Namespaces, d.namespace(n, fmt.Sprintf("namespaces[%d]", i), seen))
			})
		}},
	)
	if len(d.problems) == 0 {
		d.checkAccess(n, cfg)
	}
}

func (d *decoder) hosts(n ast.Node, cfg *Config) {
	d.texts(n, "listen.hosts", &cfg.Listen.Hosts)
	for _, host := range cfg.Listen.Hosts {
		if host == "" || strings.ContainsAny(host, ":/* ") {
			d.atf(n, "listen.hosts: expected names alone, such as prism.example.com, without scheme, port or *, got %q", shorten(host))
		}
	}
}

func (d *decoder) namespace(n ast.Node, what string, seen map[string]bool) Namespace {
	out := Namespace{Config: defaults("")}
	var slots, access, limits ast.Node
	d.mapping(n, what,
		key{name: "name", required: true, read: func(n ast.Node) {
			d.text(n, "name", &out.Namespace)
			var bad *multicastregistry.InvalidError
			switch {
			case out.Namespace == "":
			case errors.As(multicastregistry.Config{Namespace: out.Namespace}.Validate(), &bad):
				d.atf(n, "name: %s", shortenAll(bad.Problem, out.Namespace))
			case seen[out.Namespace]:
				d.atf(n, "name: namespace %q is given twice", out.Namespace)
			}
			seen[out.Namespace] = true
		}},
		key{name: "pattern", required: true, read: func(n ast.Node) {
			var pattern string
			d.choice(n, "pattern", &pattern, proxy.Pattern)
		}},
		key{name: "identity_schema", read: func(n ast.Node) { d.identitySchema(n, &out) }},
		key{name: "limits", read: func(n ast.Node) { limits = n }},
		key{name: "access", read: func(n ast.Node) { access = n }},
		key{name: "backend_slots", required: true, read: func(n ast.Node) { slots = n }},
		key{name: "timeout", read: func(n ast.Node) { d.duration(n, "timeout", &out.Timeout) }},
		key{name: "retry_attempts", read: func(n ast.Node) {
			d.count(n, "retry_attempts", &out.RetryAttempts, multicastregistry.MaxRetryAttempts)
		}},
		key{name: "retry_delay", read: func(n ast.Node) { d.duration(n, "retry_delay", &out.RetryDelay) }},
		key{name: "attempt_timeout", read: func(n ast.Node) { d.duration(n, "attempt_timeout", &out.AttemptTimeout) }},
		key{name: "max_payload", read: func(n ast.Node) { d.size(n, "max_payload", &out.MaxPayload, maxPayload) }},
		key{name: "max_metadata", read: func(n ast.Node) { d.size(n, "max_metadata", &out.MaxMetadata, maxMetadata) }},
		key{name: "filter", read: func(n ast.Node) {
			f := &out.Filter
			d.mapping(n, "filter",
				key{name: "max_depth", read: func(n ast.Node) { d.count(n, "filter.max_depth", &f.Depth, 64) }},
				key{name: "max_clauses", read: func(n ast.Node) { d.count(n, "filter.max_clauses", &f.Clauses, 10_000) }},
				key{name: "max_in_values", read: func(n ast.Node) { d.count(n, "filter.max_in_values", &f.InValues, 100_000) }},
				key{name: "max_regex_bytes", read: func(n ast.Node) { d.count(n, "filter.max_regex_bytes", &f.RegexBytes, 4096) }},
			)
		}},
	)
	if access != nil { // behind filter, whose limits hold for theirs
		d.access(access, &out)
	}
	if slots != nil { // last, because backends look at the name, wherever it stands
		d.slots(slots, &out)
	}
	if limits != nil {
		before := len(d.problems)
		if d.limits(limits, &out); len(d.problems) == before {
			d.checkDefault(limits, &out)
		}
	}
	return out
}

// checkedName returns a namespace's name for what is checked with it: a bad one is reported at its own place already.
func checkedName(name string) string {
	if (multicastregistry.Config{Namespace: name}).Validate() != nil {
		return multicastregistry.DefaultNamespace
	}
	return multicastregistry.Config{Namespace: name}.WithDefaults().Namespace
}

// slot reads one slot: its type, the keys that the slot has with every type, and those of each type. When each key is sound,
// check says whether they fit together.
func (d *decoder) slot(n ast.Node, name string, out *string, byType map[string][]key, check func(typ string) error, own ...key) {
	what := "backend_slots." + name
	pairs, ok := d.pairs(n, what)
	if !ok {
		return
	}
	legal := slices.Sorted(maps.Keys(byType))
	keys := append([]key{{name: "type", required: true, read: func(n ast.Node) {
		d.choice(n, what+".type", out, legal...)
	}}}, own...)
	typed := false
	for _, p := range pairs {
		if s, isText := p.value.(*ast.StringNode); p.name == "type" && isText && !typed {
			var options []key
			options, typed = byType[s.Value]
			keys = append(keys, options...)
		}
	}
	if !typed {
		// Which other keys are legal depends on the type: only the type is reported.
		pairs = slices.DeleteFunc(pairs, func(p pair) bool {
			return !slices.ContainsFunc(keys, func(k key) bool { return k.name == p.name })
		})
	}
	before := len(d.problems)
	d.entries(n, what, pairs, keys)
	if len(d.problems) == before {
		d.check(n, what, check(*out))
	}
}

// check reports what is impossible about a slot whose keys are each sound.
func (d *decoder) check(n ast.Node, what string, err error) {
	var bad *multicastregistry.InvalidError
	switch {
	case errors.As(err, &bad):
		d.atf(n, "%s.%s: %s", what, bad.Field, bad.Problem)
	case err != nil:
		d.atf(n, "%s: %v", what, err)
	}
}

func modes() []string {
	var out []string
	for _, m := range multicastregistry.DeliveryModes() {
		out = append(out, string(m))
	}
	return out
}

// shortenAll keeps a message readable that quotes a long value.
func shortenAll(message, quoted string) string {
	return strings.ReplaceAll(message, fmt.Sprintf("%q", quoted), fmt.Sprintf("%q", shorten(quoted)))
}

// ttl reads a duration, or "never".
func (d *decoder) ttl(n ast.Node, what string, out *time.Duration) {
	if s, ok := n.(*ast.StringNode); ok && s.Value == "never" {
		*out = multicastregistry.NoExpiry
		return
	}
	d.span(n, what, `seconds as a number, a duration such as "5m", or "never"`, out)
}
