package app

import (
	"bytes"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/limits"
)

const slotsLine = "\n    backend_slots: {registry: {type: memory}, messaging: {type: memory}}\n"

const secured = `
listen: {hosts: [prism.example.com]}
tls: {cert_file: server.pem, key_file: server.key, client_ca_file: clients.pem, client_auth: optional, min_version: 1.2}
auth:
  tokens:
    - name: ci
      hash: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      claims: {roles: [ops, "dev"], level: 3, staff: true}
  jwt:
    issuer: https://issuer.example
    audiences: [prism]
    leeway: 10s
    subject_claim: email
  mtls: {subject: [spiffe, cn]}
namespaces:
  - name: a
    pattern: multicast-registry
    access:
      - subject: "*"
        roles: [enumerate, multicast]
        filter: {tenant: "${claim.tenant}", level: {$lt: 5}, tags: {$in: [x, 2, true]}}
        hidden: [secret, a.b]
      - subject: [ci, "ci-*"]
        methods: token
        roles: admin
      - claims: {roles: ops}
        roles: [register]
        identity: "${sub}/*"
    identity_schema:
      strict: true
      fields:
        tenant: {type: string, required: true, max_length: 64, pattern: "^[a-z]+$"}
        level: {type: integer, minimum: 0, maximum: 9.5, default: 3}
        tags: {type: array, items: {type: string, enum: [x, "2"]}, max_items: 3}
        at: {type: object, fields: {lat: {type: number}}}
        any: {type: object, fields: {}}
        joined: {type: timestamp, auto: now}
    limits:
      min_ttl: 1s
      max_ttl: 1h
      max_targets: 1000
      per_caller: {streams: 3, attached: 100, rates: {register: 100/s, multicast: {rate: 30/m, burst: 5}}}
      total: {payload_bytes: 1.5MiB/m, metadata_bytes: {rate: 100/s, burst: 1MB}, rates: {watch: 5/h}}
` + `    backend_slots: {registry: {type: memory}, messaging: {type: memory}}
`

// TestSecured reads all that can be said about security, and writes it again.
func TestSecured(t *testing.T) {
	t.Parallel()
	cfg, err := Parse("x.yaml", []byte(secured))
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Namespaces[0].Access) != 3 || cfg.TLS.MinVersion != "1.2" || cfg.Auth.JWT.Leeway.String() != "10s" {
		t.Errorf("got %+v, %+v, %+v", cfg.Namespaces[0].Access, cfg.TLS, cfg.Auth.JWT)
	}
	if got := cfg.Auth.Tokens[0].Claims; !reflect.DeepEqual(got, map[string]any{"roles": []any{"ops", "dev"}, "level": int64(3), "staff": true}) {
		t.Errorf("claims %v", got)
	}
	again, err := Parse("again.yaml", []byte(cfg.YAML()))
	if err != nil {
		t.Fatalf("%v\nof\n%s", err, cfg.YAML())
	}
	if !reflect.DeepEqual(cfg, again) {
		t.Errorf("written and read again it is another one:\n%s\nand\n%s", cfg.YAML(), again.YAML())
	}
	l := cfg.Namespaces[0].Limits
	if l.PerCaller.Rates["multicast"] != (limits.Rate{PerSecond: 0.5, Burst: 5}) || l.MaxTTL != time.Hour || l.Total.Rates["watch"].PerSecond != 5.0/3600 {
		t.Errorf("limits %+v", l)
	}
	if l.Total.PayloadBytes != (limits.Rate{PerSecond: 1.5 * (1 << 20) / 60}) || l.Total.MetadataBytes != (limits.Rate{PerSecond: 100, Burst: 1e6}) {
		t.Errorf("limits %+v", l)
	}
	policies, err := cfg.policies()
	if err != nil || policies[0] == nil {
		t.Errorf("policies %v, %v", policies, err)
	}
}

// TestBadSecurity has each fault told where it stands.
func TestBadSecurity(t *testing.T) {
	t.Parallel()
	const open, space = "auth: {tokens: [{name: a, hash: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}]}\n",
		"namespaces:\n  - name: a\n    pattern: multicast-registry"
	for _, row := range []struct{ file, want string }{
		{"auth: {}\n" + space + slotsLine, "1:7: auth: at least one of tokens, jwt and mtls"},
		{"auth: {tokens: [{name: a, hash: my-secret-token}]}\n" + space + slotsLine, `auth.tokens[0].hash: expected "sha256:"`},
		{"auth: {jwt: {issuer: http://issuer.example, audiences: [a]}}\n" + space + slotsLine, "auth.jwt.issuer"},
		{"auth: {mtls: {subject: [email]}}\n" + space + slotsLine, "auth.mtls.subject: expected spiffe"},
		{"auth: {mtls: {}}\n" + space + "\n    access: [{subject: a, roles: admin}]" + slotsLine, "auth.mtls: needs tls"},
		{open + space + slotsLine, `namespace "a": access is missing`},
		{space + "\n    access: [{subject: a, roles: admin}]" + slotsLine, `namespace "a": access has no effect without auth`},
		{open + space + "\n    access:\n      - {subject: a, roles: admin}\n      - {subject: b, roles: chief}" + slotsLine, `7:9: access[1].roles: expected one of`},
		{open + space + "\n    access: [{subject: a, roles: register}]" + slotsLine, "access[0].identity: is required"},
		{open + space + "\n    access: [{subject: a, roles: enumerate, filter: {a: {$near: 1}}}]" + slotsLine, "access[0].filter"},
		{open + space + "\n    access: [{subject: a, roles: enumerate, filter: {a: 1, a: 2}}]" + slotsLine, "access[0].filter.a is given twice"},
		{open + space + "\n    access: [{subject: a, roles: enumerate, filter: {a: !!x 1}}]" + slotsLine, "access[0].filter.a: expected"},
		{open + space + "\n    access: [{roles: enumerate}]" + slotsLine, "access[0].subject"},
		{open + space + "\n    access: [{subject: a, roles: enumerate, filter: 3}]" + slotsLine, "access[0].filter: expected a mapping"},
		{space + "\n    limits: {per_caller: {rates: {register: 100}}}" + slotsLine, "limits.per_caller.rates.register: expected a number of calls"},
		{space + "\n    limits: {per_caller: {rates: {register: 0/s}}}" + slotsLine, `got "0/s"`},
		{space + "\n    limits: {per_caller: {rates: {register: 5/d}}}" + slotsLine, `got "5/d"`},
		{space + "\n    limits: {total: {rates: {register: {burst: 5}}}}" + slotsLine, "limits.total.rates.register.rate is missing"},
		{space + "\n    limits: {total: {rates: {admin: 5/s}}}" + slotsLine, "unknown key limits.total.rates.admin"},
		{space + "\n    limits: {total: {rates: {watch: 5KB/s}}}" + slotsLine, `expected a number of calls in a second, a minute or an hour`},
		{space + "\n    limits: {total: {payload_bytes: 5TB/s}}" + slotsLine, `limits.total.payload_bytes: expected bytes in a second`},
		{space + "\n    limits: {total: {payload_bytes: 100}}" + slotsLine, `limits.total.payload_bytes: expected bytes in a second`},
		{space + "\n    limits: {total: {metadata_bytes: {rate: 5KB/s, burst: 0}}}" + slotsLine, `limits.total.metadata_bytes.burst`},
		{space + "\n    limits: {per_caller: {payload_bytes: {burst: 5}}}" + slotsLine, "limits.per_caller.payload_bytes.rate is missing"},
		{space + "\n    limits: {min_ttl: 1h, max_ttl: 1m}" + slotsLine, "limits.min_ttl: is more than max_ttl"},
		{space + "\n    limits: {max_ttl: 1m}" + slotsLine, "ttl_default (5m0s) is not within them"},
		{space + "\n    identity_schema: {fields: {a: {type: text}}}" + slotsLine, "identity_schema.fields.a.type"},
		{space + "\n    identity_schema: {strict: true}" + slotsLine, "identity_schema.fields is missing"},
		{space + "\n    identity_schema: {fields: {a: {type: string, minimum: 1}}}" + slotsLine, "identity_schema.fields.a.minimum: is for a number"},
		{space + "\n    identity_schema: {fields: {a: {type: number, minimum: x}}}" + slotsLine, "identity_schema.fields.a.minimum: expected a number"},
		{space + "\n    identity_schema: {fields: {a: {type: integer, default: x}}}" + slotsLine, "identity_schema.fields.a.default"},
		{"listen: {hosts: ['https://a.example']}\n" + space + slotsLine, "listen.hosts: expected names alone"},
		{"tls: {cert_file: a}\n" + space + slotsLine, "tls.key_file is missing"},
		{"tls: {cert_file: a, key_file: b, client_auth: required}\n" + space + slotsLine, "tls.client_ca_file: is required"},
		{"tls: {cert_file: a, key_file: b, min_version: 1.1}\n" + space + slotsLine, "tls.min_version"},
	} {
		_, err := Parse("x.yaml", []byte(row.file))
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s\ngot %v, want %s", row.file, err, row.want)
		}
		if err != nil && strings.Contains(err.Error(), "my-secret-token") {
			t.Errorf("a secret is quoted: %v", err)
		}
	}
}

// TestExposure has addresses that others can reach refused without auth, unless somebody insists.
func TestExposure(t *testing.T) {
	t.Parallel()
	withAuth, err := Parse("x.yaml", []byte(secured))
	if err != nil {
		t.Fatal(err)
	}
	plain := withAuth
	plain.TLS = nil
	insecure := Default()
	insecure.Insecure = true
	for name, row := range map[string]struct {
		cfg        Config
		address    string
		refused    string
		complaints string
	}{
		"loopback":         {Default(), "127.0.0.1:1", "", ""},
		"localhost":        {Default(), "localhost:1", "", ""},
		"IPv6 loopback":    {Default(), "[::1]:1", "", ""},
		"everywhere":       {Default(), "0.0.0.0:1", "say --insecure", ""},
		"everywhere, IPv6": {Default(), "[::]:1", "say --insecure", ""},
		"no host":          {Default(), ":1", "say --insecure", ""},
		"a name":           {Default(), "prism.example:1", "say --insecure", ""},
		"insecure":         {insecure, ":1", "", "INSECURE"},
		"auth, no TLS":     {plain, ":1", "", "plain text"},
		"auth and TLS":     {withAuth, ":1", "", ""},
	} {
		for _, field := range []string{"grpc", "http"} {
			cfg := row.cfg
			cfg.Listen = Listen{GRPC: "127.0.0.1:1", HTTP: "127.0.0.1:1"}
			if field == "grpc" {
				cfg.Listen.GRPC = row.address
			} else {
				cfg.Listen.HTTP = row.address
			}
			var log bytes.Buffer
			err := cfg.checkExposure(t.Context(), slog.New(slog.NewTextHandler(&log, nil)))
			if (err == nil) != (row.refused == "") || err != nil && !strings.Contains(err.Error(), row.refused) {
				t.Errorf("%s, %s: %v", name, field, err)
			}
			if complaints := log.String(); (complaints == "") != (row.complaints == "") || !strings.Contains(complaints, row.complaints) {
				t.Errorf("%s, %s: the log says %q", name, field, complaints)
			}
		}
	}
}
