package proxy

import (
	"log/slog"
	"net/http"
	"testing"

	"github.com/prism-data-layer/prism/internal/auth"
)

// A page whose own name is made to lead to this machine gets nothing.
func TestForeignHost(t *testing.T) {
	b := serve(t, Config{Hosts: []string{"Prism.example.com"}})
	ask := func(b *bench, host string) int {
		t.Helper()
		r, err := http.NewRequestWithContext(b.ctx, http.MethodGet, b.url+"/v1/namespaces", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		response, err := b.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode
	}
	for host, want := range map[string]int{
		"evil.example": 403, "evil.example:8981": 403, "127.0.0.1.evil.example": 403, "localhost.evil.example": 403, "notlocalhost": 403,
		"": 200, "localhost": 200, "localhost:1": 200, "LOCALHOST.": 200, "app.localhost": 200, "127.0.0.1": 200, "127.0.0.1:80": 200,
		"[::1]": 200, "[::1]:80": 200, "192.0.2.7:80": 200, "prism.example.com:443": 200, "x.prism.example.com": 403,
	} {
		if got := ask(b, host); got != want {
			t.Errorf("%q: %d, want %d", host, got, want)
		}
	}
	authenticator, err := auth.Open(t.Context(), auth.Config{Tokens: staticTokens("op")}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(authenticator.Close)
	if got := ask(serve(t, Config{Authenticator: authenticator}), "evil.example"); got != http.StatusUnauthorized {
		t.Errorf("with auth: %d, want 401", got)
	}
}
