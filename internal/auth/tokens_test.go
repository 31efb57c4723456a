package auth

import (
	"encoding/base64"
	"errors"
	"log/slog"
	"strings"
	"testing"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func TestTokens(t *testing.T) {
	token, hash := NewToken()
	other, otherHash := NewToken()
	if raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, "prism_")); err != nil || len(raw) != 32 || token == other {
		t.Fatalf("token %q: %v", token, err)
	}
	if parsed, err := ParseBearer("Bearer " + token); err != nil || parsed != token {
		t.Fatalf("a token is no bearer token: %v", err)
	}
	claims := map[string]any{"roles": []any{"ops"}}
	a, err := Open(t.Context(), Config{Tokens: []Token{
		{Name: "ci", Hash: hash, Claims: claims}, {Name: "cd", Hash: otherHash[:7] + strings.ToUpper(otherHash[7:])},
	}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if a.Check() != nil {
		t.Error(a.Check())
	}
	caller, err := a.Authenticate(t.Context(), Credentials{Bearer: token})
	if err != nil || caller.Subject != "ci" || caller.Method != MethodToken || caller.Claims["roles"] == nil || !caller.Expires.IsZero() {
		t.Fatalf("got %+v, %v", caller, err)
	}
	if caller, err = a.Authenticate(t.Context(), Credentials{Bearer: other}); err != nil || caller.Subject != "cd" {
		t.Fatalf("got %+v, %v", caller, err)
	}
	_, err = a.Authenticate(t.Context(), Credentials{})
	refused(t, err, Missing, "no credentials")
	for _, wrong := range []string{token[:len(token)-1], token + "A", hash, strings.TrimPrefix(hash, "sha256:"), strings.ToUpper(token)} {
		_, err = a.Authenticate(t.Context(), Credentials{Bearer: wrong})
		refused(t, err, Invalid, "not a known token")
		if strings.Contains(Reason(err), wrong) {
			t.Error("the log gets the token")
		}
	}
	_, err = a.Authenticate(t.Context(), Credentials{Bearer: strings.Repeat("a", maxBearerBytes+1)})
	refused(t, err, Invalid, "bytes")
}

func TestTokensRefused(t *testing.T) {
	_, hash := NewToken()
	_, other := NewToken()
	for _, tt := range []struct {
		name   string
		tokens []Token
		want   string
	}{
		{"no name", []Token{{Hash: hash}}, "tokens[0].name: is empty"},
		{"a name of control characters", []Token{{Name: "a\n", Hash: hash}}, "tokens[0].name: has control characters"},
		{"a long name", []Token{{Name: strings.Repeat("a", 2049), Hash: hash}}, "tokens[0].name: is too long"},
		{"a name that is no text", []Token{{Name: "\xff", Hash: hash}}, "tokens[0].name: is not valid UTF-8"},
		{"the name twice", []Token{{Name: "a", Hash: hash}, {Name: "a", Hash: other}}, `tokens[1].name: "a" is given twice`},
		{"the hash twice", []Token{{Name: "a", Hash: hash}, {Name: "b", Hash: hash[:7] + strings.ToUpper(hash[7:])}}, `tokens[1].hash: is that of "a" too`},
		{"the token itself", []Token{{Name: "a", Hash: "prism_secret"}}, "tokens[0].hash: expected"},
		{"no hash", []Token{{Name: "a"}}, "tokens[0].hash: expected"},
		{"a short hash", []Token{{Name: "a", Hash: hash[:len(hash)-2]}}, "tokens[0].hash: expected"},
		{"another function", []Token{{Name: "a", Hash: "SHA256:" + hash[7:]}}, "tokens[0].hash: expected"},
		{"no digits", []Token{{Name: "a", Hash: hash[:len(hash)-1] + "g"}}, "tokens[0].hash: expected"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Config{Tokens: tt.tokens}.Validate()
			bad, ok := errors.AsType[*multicastregistry.InvalidError](err)
			if !ok || !strings.HasPrefix(bad.Error(), tt.want) || strings.Contains(bad.Error(), "secret") {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if _, err := Open(t.Context(), Config{Tokens: tt.tokens}, slog.New(slog.DiscardHandler)); err == nil {
				t.Error("Open accepts it")
			}
		})
	}
}
