package auth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	rsaKey     = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	ecKey      = sync.OnceValue(newEC)
	edKey      = sync.OnceValue(func() ed25519.PrivateKey { _, key, err := ed25519.GenerateKey(rand.Reader); return must(key, err) })
	weakRSAKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 1024)) })
)

func newEC() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// logged collects what is logged.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

func newLog(t testing.TB) (*slog.Logger, *logged) {
	t.Helper()
	l := new(logged)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(l.buf.String())
		}
	})
	return slog.New(slog.NewJSONHandler(l, nil)), l
}

// jwks is a set with the public halves of keys, by id.
func jwks(t testing.TB, keys map[string]crypto.Signer) []byte {
	t.Helper()
	set := jwkset.NewMemoryStorage()
	for id, key := range keys {
		jwk, err := jwkset.NewJWKFromKey(key.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: id}})
		if err != nil {
			t.Fatal(err)
		}
		if err := set.KeyWrite(t.Context(), jwk); err != nil {
			t.Fatal(err)
		}
	}
	text, err := set.JSONPublic(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// issuer is an OIDC provider over TLS.
type issuer struct {
	*httptest.Server

	keys      atomic.Pointer[[]byte]
	discovery atomic.Pointer[[]byte]
	broken    atomic.Bool
	requests  atomic.Int64
	ca        string
}

func newIssuer(t testing.TB, keys map[string]crypto.Signer) *issuer {
	t.Helper()
	i := new(issuer)
	serve := func(text *atomic.Pointer[[]byte]) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if i.broken.Load() {
				http.Error(w, "down", http.StatusServiceUnavailable)
				return
			}
			w.Write(*text.Load())
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", serve(&i.discovery))
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		i.requests.Add(1)
		serve(&i.keys)(w, r)
	})
	i.Server = httptest.NewUnstartedServer(mux)
	i.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that do not trust it
	i.StartTLS()
	t.Cleanup(i.Close)
	i.setKeys(t, keys)
	i.setDiscovery(map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys"})
	i.ca = writeFile(t, "issuer-ca.pem", encode("CERTIFICATE", i.Certificate().Raw))
	return i
}

func (i *issuer) setKeys(t testing.TB, keys map[string]crypto.Signer) {
	t.Helper()
	text := jwks(t, keys)
	i.keys.Store(&text)
}

func (i *issuer) setDiscovery(document map[string]any) {
	text := must(json.Marshal(document))
	i.discovery.Store(&text)
}

// config is for tokens of the issuer, with a pace that suits tests.
func (i *issuer) config() JWT {
	return JWT{
		Issuer: i.URL, Audiences: []string{"prism"}, CAFile: i.ca,
		pace: pace{every: time.Hour, least: time.Nanosecond, retry: time.Millisecond, fetch: 5 * time.Second},
	}
}

func openJWT(t testing.TB, cfg JWT) (*Authenticator, *logged) {
	t.Helper()
	log, logs := newLog(t)
	a, err := Open(t.Context(), Config{JWT: &cfg}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a, logs
}

// claims are those of a good token, with changes: nil takes one away.
func claims(iss string, changes ...any) jwt.MapClaims {
	now := time.Now()
	c := jwt.MapClaims{
		"iss": iss, "aud": "prism", "sub": "alice", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "roles": []string{"ops"},
	}
	for i := 0; i < len(changes); i += 2 {
		if c[changes[i].(string)] = changes[i+1]; changes[i+1] == nil {
			delete(c, changes[i].(string))
		}
	}
	return c
}

func sign(t testing.TB, method jwt.SigningMethod, id string, key any, c jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(method, c)
	if id != "" {
		token.Header["kid"] = id
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func writeFile(t testing.TB, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	rewrite(t, path, text)
	return path
}

func rewrite(t testing.TB, path string, text []byte) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", text, 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority() authority {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	key := newEC()
	der := must(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	return authority{must(x509.ParseCertificate(der)), key}
}

func (a authority) pem() []byte { return encode("CERTIFICATE", a.cert.Raw) }

func (a authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// sign makes a certificate, for servers and clients, and its key.
func (a authority) sign(change func(*x509.Certificate)) (cert, key []byte) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if change != nil {
		change(template)
	}
	own := newEC()
	der := must(x509.CreateCertificate(rand.Reader, template, a.cert, &own.PublicKey, a.key))
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(own)))
}

func mustURL(raw string) *url.URL { return must(url.Parse(raw)) }

// eventually waits until something holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("it does not come true: %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// refused checks that an error tells a caller the fault and nothing else, and the log something.
func refused(t testing.TB, err error, fault Fault, detail string) {
	t.Helper()
	e, ok := errors.AsType[*UnauthenticatedError](err)
	if !ok || e.Fault != fault || err.Error() != "unauthenticated: credentials are "+string(fault) {
		t.Fatalf("got %v (%s), want %s", err, Reason(err), fault)
	}
	if !strings.Contains(Reason(err), detail) {
		t.Fatalf("the log gets %q, want %q in it", Reason(err), detail)
	}
}
