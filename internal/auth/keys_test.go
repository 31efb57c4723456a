package auth

import (
	"context"
	"crypto"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// with opens an authenticator for an issuer with one key, "a", and tells how to use tokens of keys.
func with(t *testing.T, change func(*issuer, *JWT)) (i *issuer, a *Authenticator, logs *logged, as func(id string, key crypto.Signer) error) {
	t.Helper()
	i = newIssuer(t, map[string]crypto.Signer{"a": ecKey()})
	cfg := i.config()
	if change != nil {
		change(i, &cfg)
	}
	a, logs = openJWT(t, cfg)
	return i, a, logs, func(id string, key crypto.Signer) error {
		_, err := a.Authenticate(t.Context(), Credentials{Bearer: sign(t, jwt.SigningMethodES256, id, key, claims(cfg.Issuer))})
		return err
	}
}

func wantNil(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v (%s)", what, err, Reason(err))
	}
}

func TestRotation(t *testing.T) {
	i, a, _, as := with(t, nil)
	old := sign(t, jwt.SigningMethodES256, "a", ecKey(), claims(i.URL))
	use := func() error { _, err := a.Authenticate(t.Context(), Credentials{Bearer: old}); return err }
	wantNil(t, "the first key", use())
	next := newEC()
	refused(t, as("b", next), Invalid, "key not found")

	i.setKeys(t, map[string]crypto.Signer{"a": ecKey(), "b": next})
	wantNil(t, "the next key, at once", as("b", next))
	wantNil(t, "the first key, still", use())

	i.setKeys(t, map[string]crypto.Signer{"b": next, "c": newEC()})
	refused(t, as("x", next), Invalid, "key not found") // lets the keys be read
	refused(t, use(), Invalid, "key not found")         // though it was remembered
}

func TestPeriodicRefresh(t *testing.T) {
	i, _, _, as := with(t, func(_ *issuer, j *JWT) { j.pace.every, j.pace.least = 10*time.Millisecond, time.Hour })
	next := newEC()
	i.setKeys(t, map[string]crypto.Signer{"a": ecKey(), "b": next})
	eventually(t, "the next key is known", func() bool { return as("b", next) == nil })
}

// An outage leaves the keys as they are, and ends by itself.
func TestOutage(t *testing.T) {
	i, a, logs, as := with(t, func(_ *issuer, j *JWT) { j.pace.every = 5 * time.Millisecond })
	wantNil(t, "no outage", a.Check())
	i.broken.Store(true)
	eventually(t, "the outage is noticed", func() bool { return a.Check() != nil })
	if !strings.Contains(a.Check().Error(), "503") || a.Ready() != nil {
		t.Error(a.Check(), a.Ready())
	}
	before := i.requests.Load()
	wantNil(t, "the old key", as("a", ecKey()))
	refused(t, as("b", newEC()), Invalid, "key not found")
	wantNil(t, "the old key, after a look", as("a", ecKey()))
	eventually(t, "it is tried again and again", func() bool { return a.jwt.keys.check() != nil && logs.count("cannot read") > 0 })
	if logs.count("cannot read the issuer's keys") != 1 {
		t.Error("an outage is not logged once")
	}
	i.broken.Store(false)
	eventually(t, "the outage is over", func() bool { return a.Check() == nil && i.requests.Load() > before })
	eventually(t, "that is logged", func() bool { return logs.count("can be read again") == 1 })
}

func TestStartWithoutIssuer(t *testing.T) {
	var ca string
	i, a, logs, as := with(t, func(i *issuer, _ *JWT) { i.broken.Store(true); ca = i.ca })
	if _, err := os.Stat(ca); err != nil {
		t.Fatal(err)
	}
	if a.Check() == nil || a.Ready() == nil {
		t.Error("nothing is wrong?")
	}
	refused(t, as("a", ecKey()), Invalid, "there are no keys of the issuer: read the issuer's keys")
	i.broken.Store(false)
	eventually(t, "keys come", func() bool { return as("a", ecKey()) == nil })
	if logs.count("cannot read the issuer's keys") != 1 {
		t.Error("it is not logged once")
	}
}

// Start waits for an issuer that does not answer, but not for long; nor does a call, nor Close.
func TestStartIsBounded(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(release)
	log, _ := newLog(t)
	begun := time.Now()
	a, err := Open(t.Context(), Config{JWT: &JWT{
		Issuer: "me", JWKSURL: server.URL, Audiences: []string{"prism"}, StartTimeout: 20 * time.Millisecond,
	}}, log)
	wantNil(t, "open", err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = a.Authenticate(ctx, Credentials{Bearer: sign(t, jwt.SigningMethodES256, "a", ecKey(), claims("me"))})
	refused(t, err, Invalid, "not read yet")
	a.Close()
	if took := time.Since(begun); took > 4*time.Second { // the fetch itself would take 5 s
		t.Errorf("took %s", took)
	}
	if _, err := Open(t.Context(), Config{JWT: &JWT{Issuer: "me", JWKSURL: server.URL, Audiences: []string{"prism"}, CAFile: "missing.pem"}}, log); err == nil || !strings.Contains(err.Error(), "ca_file: open missing.pem") {
		t.Error(err)
	}
}

// Invented key ids do not reach the issuer more often than is allowed.
func TestUnknownKeysAreLimited(t *testing.T) {
	i, _, _, as := with(t, func(_ *issuer, j *JWT) { j.pace.least = time.Hour })
	for n := range 50 {
		refused(t, as(fmt.Sprint("k", n), ecKey()), Invalid, "key not found")
	}
	if got := i.requests.Load(); got != 1 {
		t.Errorf("the issuer was asked %d times", got)
	}
	i, _, _, as = with(t, func(_ *issuer, j *JWT) { j.pace.least = 100 * time.Millisecond })
	<-time.After(110 * time.Millisecond)
	begun := time.Now()
	var all sync.WaitGroup
	for n := range 20 {
		all.Go(func() { _ = as(fmt.Sprint("k", n), ecKey()) })
	}
	all.Wait()
	most := 2 + int64(time.Since(begun)/(100*time.Millisecond))
	if got := i.requests.Load(); got < 2 || got > most {
		t.Errorf("the issuer was asked %d times, want 2 to %d", got, most)
	}
}

func TestBadIssuers(t *testing.T) {
	weak := map[string]crypto.Signer{"weak": weakRSAKey()}
	for _, tt := range []struct {
		name   string
		change func(*issuer, *JWT)
		want   string
	}{
		{"another issuer", func(i *issuer, _ *JWT) {
			i.setDiscovery(map[string]any{"issuer": i.URL + "/", "jwks_uri": i.URL + "/keys"})
		}, "is about the issuer"},
		{"no issuer", func(i *issuer, _ *JWT) { i.setDiscovery(map[string]any{"jwks_uri": i.URL + "/keys"}) }, "is about the issuer"},
		{"keys over http", func(i *issuer, _ *JWT) {
			i.setDiscovery(map[string]any{"issuer": i.URL, "jwks_uri": "http://a.example.com/keys"})
		}, "jwks_uri: must be https"},
		{"no keys", func(i *issuer, _ *JWT) { i.setDiscovery(map[string]any{"issuer": i.URL}) }, "jwks_uri: expected a URL"},
		{"keys elsewhere", func(i *issuer, _ *JWT) { i.setDiscovery(map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/x"}) }, "404"},
		{"no JSON", func(i *issuer, _ *JWT) { text := []byte("<html>"); i.discovery.Store(&text) }, "expected a JSON object"},
		{"no JSON for keys", func(i *issuer, _ *JWT) { text := []byte("<html>"); i.keys.Store(&text) }, "expected a JSON web key set"},
		{"an empty set", func(i *issuer, _ *JWT) { i.setKeys(t, nil) }, "none of the 0 keys"},
		{"a weak key only", func(i *issuer, _ *JWT) { i.setKeys(t, weak) }, "none of the 1 keys in the set can verify a signature: keys[0]: an RSA key of 1024 bits"},
		{"a secret only", func(i *issuer, _ *JWT) {
			text := []byte(`{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`)
			i.keys.Store(&text)
		}, "keys[0]: "},
		{"for encryption only", func(i *issuer, _ *JWT) { text := x25519(t); i.keys.Store(&text) }, "does not verify signatures"},
		{"many keys", func(i *issuer, _ *JWT) {
			text := []byte(`{"keys":[` + strings.Repeat("{},", 64) + `{}]}`)
			i.keys.Store(&text)
		}, "65 keys, the limit is 64"},
		{"a large document", func(i *issuer, _ *JWT) { text := []byte(strings.Repeat(" ", 1<<20) + "{}"); i.discovery.Store(&text) }, "larger than 1048576 bytes"},
		{"a large set", func(i *issuer, _ *JWT) { text := append(*i.keys.Load(), make([]byte, 1<<20)...); i.keys.Store(&text) }, "larger than 1048576 bytes"},
		{"unknown authority", func(_ *issuer, j *JWT) { j.CAFile = writeFile(t, "ca.pem", newAuthority().pem()) }, "unknown authority"},
		{"redirect to http", redirect("http://a.example.com/"), "must be https"},
		{"redirects for ever", redirect("/"), "more than 3 redirects"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, a, _, as := with(t, tt.change)
			if err := a.Check(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			refused(t, as("a", ecKey()), Invalid, "there are no keys")
		})
	}
}

func redirect(to string) func(*issuer, *JWT) {
	return func(i *issuer, _ *JWT) {
		i.Config.Handler = http.RedirectHandler(to, http.StatusFound)
	}
}

func x25519(t *testing.T) []byte {
	t.Helper()
	return []byte(`{"keys":[{"kty":"OKP","crv":"X25519","x":"` + strings.Repeat("A", 43) + `"}]}`)
}

func TestUseAndAlgOfKeys(t *testing.T) {
	i, _, _, as := with(t, nil)
	set := jwkset.NewMemoryStorage()
	for id, meta := range map[string]jwkset.JWKMetadataOptions{
		"enc": {KID: "enc", USE: jwkset.UseEnc}, "sig": {KID: "sig", USE: jwkset.UseSig}, "alg": {KID: "alg", ALG: jwkset.AlgES512},
	} {
		key, err := jwkset.NewJWKFromKey(ecKey().Public(), jwkset.JWKOptions{Metadata: meta})
		wantNil(t, id, err)
		wantNil(t, id, set.KeyWrite(t.Context(), key))
	}
	text, err := set.JSONPublic(t.Context())
	wantNil(t, "set", err)
	i.keys.Store((*[]byte)(&text))
	wantNil(t, "a key for signatures", as("sig", ecKey()))
	refused(t, as("enc", ecKey()), Invalid, `"use"`)
	refused(t, as("alg", ecKey()), Invalid, `"alg"`)
}

// Keys that cannot be replaced by what is there now stay.
func TestBadUpdate(t *testing.T) {
	i, a, _, as := with(t, nil)
	bad := []byte(`{"keys":[]}`)
	i.keys.Store(&bad)
	refused(t, as("b", newEC()), Invalid, "key not found")
	wantNil(t, "the old key", as("a", ecKey()))
	if a.Check() == nil {
		t.Error("nothing is wrong?")
	}
}

func TestJWKSURL(t *testing.T) {
	_, a, _, as := with(t, func(i *issuer, j *JWT) { j.JWKSURL, j.Issuer = i.URL+"/keys", "me"; i.setDiscovery(nil) })
	wantNil(t, "check", a.Check())
	wantNil(t, "use", as("a", ecKey()))
}

func TestJWKSFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	rewrite(t, path, jwks(t, map[string]crypto.Signer{"a": ecKey()}))
	_, a, logs, as := with(t, func(i *issuer, j *JWT) {
		i.Close()
		j.JWKSFile, j.CAFile, j.Issuer = path, "", "me"
		j.pace.every, j.pace.retry = 2*time.Millisecond, time.Millisecond
	})
	wantNil(t, "use", as("a", ecKey()))
	rewrite(t, path, []byte(`{"keys":`))
	eventually(t, "the bad file is noticed", func() bool { return a.Check() != nil })
	wantNil(t, "the old key", as("a", ecKey()))
	next := newEC()
	rewrite(t, path, jwks(t, map[string]crypto.Signer{"b": next}))
	eventually(t, "the next key is known", func() bool { return as("b", next) == nil })
	refused(t, as("a", ecKey()), Invalid, "key not found")
	wantNil(t, "remove", os.Remove(path))
	eventually(t, "the missing file is noticed", func() bool { return a.Check() != nil })
	wantNil(t, "the key", as("b", next))
	if n := logs.count("cannot read"); n < 2 || n > 3 {
		t.Errorf("logged %d times", n)
	}
}

func TestJWTDefaults(t *testing.T) {
	j := JWT{JWKSFile: "keys.json"}.withDefaults()
	if j.pace.every != filePoll || j.pace.least != time.Second || j.SubjectClaim != "sub" || j.Leeway != 30*time.Second || len(j.Algorithms) != 10 {
		t.Errorf("%+v", j)
	}
	if j = (JWT{RefreshInterval: time.Minute}).withDefaults(); j.pace.every != time.Minute || j.pace.least != 10*time.Second {
		t.Errorf("%+v", j)
	}
}
