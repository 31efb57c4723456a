package app

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/prism-data-layer/prism/internal/auth"
	"github.com/prism-data-layer/prism/internal/limits"
	"github.com/prism-data-layer/prism/internal/schema"
)

// writeSecurity writes what the file says about who is calling, where it says anything.
func (c Config) writeSecurity(b *strings.Builder) {
	if t := c.TLS; t != nil {
		section(b, "", "tls", entries(
			"cert_file", t.CertFile, "key_file", t.KeyFile, "client_ca_file", t.ClientCAFile, "client_auth", string(t.ClientAuth),
			"min_version", t.MinVersion,
		))
	}
	if a := c.Auth; a != nil {
		var methods yaml.MapSlice
		if len(a.Tokens) > 0 {
			var tokens []yaml.MapSlice
			for _, t := range a.Tokens {
				tokens = append(tokens, entries("name", t.Name, "hash", t.Hash, "claims", t.Claims))
			}
			methods = append(methods, yaml.MapItem{Key: "tokens", Value: tokens})
		}
		if j := a.JWT; j != nil {
			methods = append(methods, yaml.MapItem{Key: "jwt", Value: entries(
				"issuer", j.Issuer, "audiences", j.Audiences, "algorithms", j.Algorithms, "leeway", j.Leeway,
				"subject_claim", j.SubjectClaim, "jwks_url", j.JWKSURL, "jwks_file", j.JWKSFile, "ca_file", j.CAFile,
				"refresh_interval", j.RefreshInterval, "start_timeout", j.StartTimeout,
			)})
		}
		if m := a.MTLS; m != nil {
			methods = append(methods, yaml.MapItem{Key: "mtls", Value: entries("subject", strs(m.Subject))})
		}
		section(b, "", "auth", methods)
	}
	if c.Insecure {
		fmt.Fprintln(b, "insecure: true")
	}
	if c.AuditLog != "" {
		fmt.Fprintf(b, "audit_log: %s\n", strconv.Quote(c.AuditLog))
	}
}

func writeAccess(b *strings.Builder, rules []auth.Rule) {
	if len(rules) == 0 {
		return
	}
	var out []yaml.MapSlice
	for _, r := range rules {
		rule := entries("subject", r.Subjects, "methods", strs(r.Methods), "claims", r.Claims, "roles", strs(r.Roles),
			"identity", r.Identities, "filter", r.Filter, "hidden", r.Hidden)
		if r.Filter != nil && len(r.Filter) == 0 {
			rule = append(rule, yaml.MapItem{Key: "filter", Value: r.Filter})
		}
		out = append(out, rule)
	}
	section(b, "    ", "access", out)
}

func writeSchema(b *strings.Builder, s *schema.Config) {
	if s == nil {
		return
	}
	fields := yaml.MapItem{Key: "fields", Value: schemaFields(s.Fields)}
	section(b, "    ", "identity_schema", append(entries("strict", s.Strict), fields))
}

func schemaFields(fields map[string]schema.Field) (out yaml.MapSlice) {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		out = append(out, yaml.MapItem{Key: name, Value: schemaField(fields[name])})
	}
	if out == nil {
		out = yaml.MapSlice{}
	}
	return out
}

func schemaField(f schema.Field) yaml.MapSlice {
	out := entries("type", string(f.Type), "required", f.Required, "min_length", f.MinLength, "max_length", f.MaxLength,
		"min_items", f.MinItems, "max_items", f.MaxItems, "pattern", f.Pattern, "auto", f.Auto)
	add := func(key string, value any) { out = append(out, yaml.MapItem{Key: key, Value: value}) }
	if f.Minimum != nil {
		add("minimum", *f.Minimum)
	}
	if f.Maximum != nil {
		add("maximum", *f.Maximum)
	}
	if f.Enum != nil {
		add("enum", f.Enum)
	}
	if f.Default != nil {
		add("default", f.Default)
	}
	if f.Items != nil {
		add("items", schemaField(*f.Items))
	}
	if f.Fields != nil {
		add("fields", schemaFields(f.Fields))
	}
	return out
}

func writeLimits(b *strings.Builder, l limits.Config) {
	out := entries("min_ttl", l.MinTTL, "max_ttl", l.MaxTTL, "max_targets", l.MaxTargets)
	for _, share := range []struct {
		name string
		limits.Share
	}{{"per_caller", l.PerCaller}, {"total", l.Total}} {
		shown := entries("streams", share.Streams, "attached", share.Attached)
		var rates yaml.MapSlice
		for _, role := range slices.Sorted(maps.Keys(share.Rates)) {
			r := share.Rates[role]
			rates = append(rates, yaml.MapItem{Key: string(role), Value: entries("rate", rateText(r), "burst", r.Burst)})
		}
		for _, bytes := range []struct {
			name string
			limits.Rate
		}{{"payload_bytes", share.PayloadBytes}, {"metadata_bytes", share.MetadataBytes}} {
			if bytes.PerSecond > 0 {
				shown = append(shown, yaml.MapItem{Key: bytes.name, Value: entries("rate", rateText(bytes.Rate), "burst", bytes.Burst)})
			}
		}
		if len(rates) > 0 {
			shown = append(shown, yaml.MapItem{Key: "rates", Value: rates})
		}
		if len(shown) > 0 {
			out = append(out, yaml.MapItem{Key: share.name, Value: shown})
		}
	}
	if len(out) > 0 {
		section(b, "    ", "limits", out)
	}
}

func strs[S ~string](values []S) []string {
	var out []string
	for _, v := range values {
		out = append(out, string(v))
	}
	return out
}

// entries are the keys and values that are set.
func entries(pairs ...any) (out yaml.MapSlice) {
	for pair := range slices.Chunk(pairs, 2) {
		set, value := true, pair[1]
		switch v := value.(type) {
		case string:
			set = v != ""
		case bool:
			set = v
		case int:
			set = v != 0
		case []string:
			set = len(v) > 0
		case map[string]any:
			set = len(v) > 0
		case time.Duration:
			set, value = v != 0, v.String()
		}
		if set {
			out = append(out, yaml.MapItem{Key: pair[0], Value: value})
		}
	}
	return out
}

// section writes a key with all that is under it.
func section(b *strings.Builder, indent, name string, value any) {
	text, err := yaml.MarshalWithOptions(yaml.MapSlice{{Key: name, Value: value}}, yaml.IndentSequence(true))
	if err != nil {
		panic(fmt.Sprintf("write %s as YAML: %v", name, err)) // it consists of what YAML has
	}
	for line := range strings.Lines(string(text)) {
		b.WriteString(indent + line)
	}
}
