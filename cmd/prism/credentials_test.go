package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prism-data-layer/prism/internal/app"
	"github.com/prism-data-layer/prism/internal/auth"
	"github.com/prism-data-layer/prism/internal/testenv"
)

// asking has a server ask who is calling: "ops", who may do everything, by a token or by certificate.
func asking(hash string) func(*app.Config) {
	return func(cfg *app.Config) {
		cfg.Auth = &auth.Config{Tokens: []auth.Token{{Name: "ops", Hash: hash}}}
		cfg.Namespaces[0].Access = []auth.Rule{{Subjects: []string{"ops"}, Roles: []auth.Role{auth.RoleAdmin}}}
	}
}

func keep(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestToken(t *testing.T) {
	var made tokenOut
	if err := json.Unmarshal([]byte(ok(t, "", "token", "-o", "json")), &made); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(made.Token, auth.TokenPrefix) || made.Hash != auth.HashToken(made.Token) {
		t.Errorf("got %+v", made)
	}
	if out := ok(t, "", "token"); !strings.Contains(out, "token  prism_") || !strings.Contains(out, "hash   sha256:") {
		t.Errorf("got %q", out)
	}
	if r := prism(t, "", made.Token+"\n", "token", "--hash"); r.code != 0 || r.out != "hash   "+made.Hash+"\n" {
		t.Errorf("got %+v", r)
	}
	for _, bad := range []string{"", "short", strings.Repeat("two words ", 9)} {
		if r := prism(t, "", bad, "token", "--hash"); r.code != exitError || !strings.Contains(r.err, "does not hold one token") {
			t.Errorf("%q: %+v", bad, r)
		}
	}
}

func TestTokenSent(t *testing.T) {
	token, hash := auth.NewToken()
	addr, _ := server(t, asking(hash))
	file := keep(t, "token", token+"\n")
	r := prism(t, addr, "", "enumerate")
	if r.code != exitError || !strings.Contains(r.err, "credentials are missing") || !strings.Contains(r.err, "--token-file") {
		t.Errorf("without a token: %+v", r)
	}
	ok(t, addr, "--token-file", file, "register", "dev-1")
	if out := ok(t, addr, "enumerate", "-q", "--token-file", file); out != "dev-1\n" {
		t.Errorf("got %q", out)
	}
	t.Setenv("PRISM_TOKEN_FILE", file)
	ok(t, addr, "heartbeat", "dev-1")
	t.Setenv("PRISM_TOKEN", token)
	if r := prism(t, addr, "", "enumerate"); r.code != exitError || !strings.Contains(r.err, "which token is meant") {
		t.Errorf("with two tokens: %+v", r)
	}
	t.Setenv("PRISM_TOKEN_FILE", "")
	ok(t, addr, "heartbeat", "dev-1")
	t.Setenv("PRISM_TOKEN", token+"x")
	if r := prism(t, addr, "", "heartbeat", "dev-1"); r.code != exitError || !strings.Contains(r.err, "credentials are invalid") {
		t.Errorf("with a wrong token: %+v", r)
	}
	if r := prism(t, "prism.example:1", "", "enumerate"); r.code != exitError || !strings.Contains(r.err, "plain text") {
		t.Errorf("to another machine: %+v", r)
	}
	t.Setenv("PRISM_TOKEN", "")
	for name, row := range map[string]struct{ file, want string }{
		"no file":   {filepath.Join(t.TempDir(), "none"), "no such file"},
		"empty":     {keep(t, "empty", "\n"), "does not hold one token"},
		"two words": {keep(t, "two", "a b"), "does not hold one token"},
	} {
		if r := prism(t, addr, "", "--token-file", row.file, "enumerate"); r.code != exitError || !strings.Contains(r.err, row.want) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestTokenFileRenewed reads a token again when it may have been renewed.
func TestTokenFileRenewed(t *testing.T) {
	t.Parallel()
	f := &tokenFile{name: keep(t, "token", "first")}
	wants := func(want string) {
		t.Helper()
		if got, err := f.token(); got != want || err != nil {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
	wants("first")
	if err := os.WriteFile(f.name, []byte("second\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wants("first")
	f.read = f.read.Add(-tokenEvery)
	wants("second")
	if err := os.Remove(f.name); err != nil {
		t.Fatal(err)
	}
	f.read = f.read.Add(-tokenEvery)
	if got, err := f.token(); err == nil {
		t.Errorf("without the file it is %q", got)
	}
}

func TestTLS(t *testing.T) {
	certificate := testenv.NewCertificate(t)
	addr, _ := server(t, func(cfg *app.Config) {
		cfg.TLS = &auth.TLS{
			CertFile: certificate.Cert, KeyFile: certificate.Key, ClientCAFile: certificate.CA, ClientAuth: auth.ClientAuthOptional,
		}
		cfg.Auth = &auth.Config{MTLS: new(auth.MTLS)}
		cfg.Namespaces[0].Access = []auth.Rule{{Subjects: []string{"*"}, Roles: []auth.Role{auth.RoleAdmin}}}
	})
	trusted := []string{"--ca-file", certificate.CA}
	with := func(more ...string) []string {
		return append(append(trusted, more...), "register", "dev-1", "--replace")
	}
	ok(t, addr, with("--cert-file", certificate.Cert, "--key-file", certificate.Key)...)
	for name, row := range map[string]struct {
		args []string
		want string
	}{
		"no certificate":  {with(), "credentials are missing"},
		"no TLS":          {[]string{"register", "dev-1"}, "server " + addr},
		"not trusted":     {[]string{"--tls", "register", "dev-1"}, "certificate"},
		"another name":    {with("--tls-server-name", "elsewhere.example"), "elsewhere.example"},
		"no key":          {with("--cert-file", certificate.Cert), "go together"},
		"no such file":    {with("--cert-file", "none", "--key-file", "none"), "no such file"},
		"no authorities":  {[]string{"--ca-file", "none", "register", "dev-1"}, "no such file"},
		"not authorities": {[]string{"--ca-file", certificate.Key, "register", "dev-1"}, "no certificates in PEM"},
	} {
		if r := prism(t, addr, "", append([]string{"--timeout", "3s"}, row.args...)...); r.code != exitError || !strings.Contains(r.err, row.want) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
