package auth

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// BenchmarkAuthenticate finds out who is calling. For JSON web tokens "verified" is without what is remembered, and "remembered"
// with it; the ratio is why tokens are remembered at all.
func BenchmarkAuthenticate(b *testing.B) {
	path := writeFile(b, "keys.json", jwks(b, allKeys()))
	token, hash := NewToken()
	a, err := Open(b.Context(), Config{
		Tokens: []Token{{Name: "ci", Hash: hash}}, MTLS: &MTLS{}, JWT: &JWT{Issuer: "me", Audiences: []string{"prism"}, JWKSFile: path},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(a.Close)
	run := func(name string, credentials Credentials) time.Duration {
		var each time.Duration
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.Authenticate(b.Context(), credentials); err != nil {
					b.Fatal(err)
				}
			}
			each = b.Elapsed() / time.Duration(b.N)
		})
		return each
	}
	run("token", Credentials{Bearer: token})
	run("mtls", Credentials{PeerCertificates: chain(b, nil)})
	for _, alg := range []struct {
		method jwt.SigningMethod
		id     string
		key    any
	}{{jwt.SigningMethodRS256, "rsa", rsaKey()}, {jwt.SigningMethodES256, "ec", ecKey()}, {jwt.SigningMethodEdDSA, "ed", edKey()}} {
		text := sign(b, alg.method, alg.id, alg.key, claims("me"))
		remembered := run(alg.method.Alg()+"/remembered", Credentials{Bearer: text})
		b.Run(alg.method.Alg()+"/verified", func(b *testing.B) {
			b.ReportAllocs()
			digest := sha256.Sum256([]byte(text))
			for b.Loop() {
				a.jwt.cache = newCache()
				if _, err := a.jwt.verify(b.Context(), text, digest, time.Now()); err != nil {
					b.Fatal(err)
				}
			}
			if remembered > 0 {
				b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(remembered), "x-remembered")
			}
		})
	}
}

// BenchmarkGrant finds out what a caller may do, whose rule is the last of ten and fills in an identity and, in the second case, a
// filter.
func BenchmarkGrant(b *testing.B) {
	for _, bench := range []struct {
		name   string
		filter object
	}{{"identity", object{"public": true}}, {"filter", object{"tenant": "${claim.tenant}"}}} {
		b.Run(bench.name, func(b *testing.B) {
			var rules []Rule
			for i := range 9 {
				rules = append(rules, Rule{Subjects: []string{fmt.Sprintf("team-%d/*", i)}, Claims: object{"roles": "dev"}, Roles: []Role{RoleAdmin}})
			}
			rules = append(rules, Rule{
				Claims: object{"roles": "ops"}, Roles: []Role{RoleEnumerate}, Identities: []string{"${sub}/*"}, Filter: bench.filter, Hidden: []string{"secret"},
			})
			p := compile(b, rules...)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Grant(alice, OpEnumerate); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRedactEncoded is what an answer of one identity costs more, with and without the hidden field.
func BenchmarkRedactEncoded(b *testing.B) {
	g := grant(b, compile(b, Rule{Subjects: []string{"*"}, Roles: []Role{RoleEnumerate}, Hidden: []string{"secret"}}), alice, OpEnumerate)
	metadata := object{"room": "lab", "floor": int64(3), "battery": 0.5, "tags": []any{"a", "b"}, "firmware": "1.2.3"}
	for _, name := range []string{"without", "with"} {
		if name == "with" {
			metadata["secret"] = "x"
		}
		encoded := string(multicastregistry.AppendMetadata(nil, metadata))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := g.RedactEncoded(encoded); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
