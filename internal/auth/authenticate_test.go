package auth

import (
	"log/slog"
	"testing"
	"time"
)

// A changed configuration takes the keys of the same issuer along, whether it can be reached or not; the last who uses them ends it.
func TestWithTheSameIssuer(t *testing.T) {
	i := newIssuer(t, allKeys())
	cfg := Config{JWT: new(i.config())}
	before, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	i.broken.Store(true)
	cfg.Tokens = []Token{{Name: "ci", Hash: HashToken("ci-token-0123456789abcdef")}}
	after, err := before.With(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	before.Close()
	if err := after.Ready(); err != nil || after.jwt != before.jwt {
		t.Errorf("the keys are lost: %v", err)
	}
	if _, err := after.Authenticate(t.Context(), Credentials{Bearer: "ci-token-0123456789abcdef"}); err != nil {
		t.Error(err)
	}
	other := *cfg.JWT
	other.Leeway, other.StartTimeout = 1, 20*time.Millisecond
	apart, err := after.With(t.Context(), Config{JWT: &other}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if apart.jwt == after.jwt || apart.Ready() == nil {
		t.Error("another configuration has the same keys")
	}
	after.Close()
	apart.Close()
}
