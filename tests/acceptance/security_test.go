package acceptance

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/app"
	"github.com/prism-data-layer/prism/internal/auth"
)

// site is all that a server with tenants needs: certificates, an issuer of tokens, and static tokens.
type site struct {
	t      testing.TB
	dir    string
	caCert *x509.Certificate
	caKey  *ecdsa.PrivateKey
	trust  *x509.CertPool

	issuer *httptest.Server
	sign   *ecdsa.PrivateKey
	away   atomic.Bool // the issuer does not answer
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), trust: x509.NewCertPool(), caKey: newKey(t), sign: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, s.caKey.Public(), s.caKey)
	must(t, err)
	s.caCert, err = x509.ParseCertificate(der)
	must(t, err)
	s.trust.AddCert(s.caCert)
	s.write("ca.pem", encoded("CERTIFICATE", der))
	s.renew(2)

	set := jwkset.NewMemoryStorage()
	key, err := jwkset.NewJWKFromKey(s.sign.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: "k"}})
	must(t, err)
	must(t, set.KeyWrite(t.Context(), key))
	keys, err := set.JSONPublic(t.Context())
	must(t, err)
	s.issuer = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if s.away.Load() {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		w.Write(keys)
	}))
	t.Cleanup(s.issuer.Close)
	s.write("issuer.pem", encoded("CERTIFICATE", s.issuer.Certificate().Raw))
	return s
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func encoded(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// write replaces a file as a whole.
func (s *site) write(name string, text []byte) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	must(s.t, errors.Join(os.WriteFile(path+".new", text, 0o600), os.Rename(path+".new", path)))
}

// certificate makes one of the authority's.
func (s *site) certificate(serial int64, name string) (cert, key []byte) {
	s.t.Helper()
	own := newKey(s.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.caCert, own.Public(), s.caKey)
	must(s.t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(own)
	must(s.t, err)
	return encoded("CERTIFICATE", der), encoded("PRIVATE KEY", pkcs8)
}

// renew gives the server a new certificate.
func (s *site) renew(serial int64) {
	s.t.Helper()
	cert, key := s.certificate(serial, "server")
	s.write("server.key", key)
	s.write("server.pem", cert)
}

// tls is how a client connects, with a certificate if it has a name.
func (s *site) tls(name string) *tls.Config {
	s.t.Helper()
	cfg := &tls.Config{RootCAs: s.trust, MinVersion: tls.VersionTLS13}
	if name != "" {
		pair, err := tls.X509KeyPair(s.certificate(99, name))
		must(s.t, err)
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg
}

// jwt is a token of the issuer.
func (s *site) jwt(subject string, claims map[string]any) string {
	s.t.Helper()
	all := jwt.MapClaims{"iss": s.issuer.URL, "aud": "prism", "sub": subject, "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(all, claims)
	token := jwt.NewWithClaims(jwt.SigningMethodES256, all)
	token.Header["kid"] = "k"
	text, err := token.SignedString(s.sign)
	must(s.t, err)
	return text
}

const aliceToken, auditorToken = "prism_alice-has-this-one", "prism_the-auditor-has-this-one"

// config is that of a server with two tenants, an auditor and an operator, each known by credentials of another kind.
func (s *site) config() app.Config {
	s.t.Helper()
	const slots = "    backend_slots: {registry: {type: memory}, messaging: {type: memory}, durability: {type: memory}}\n"
	text := fmt.Sprintf(`
tls: {cert_file: %[1]s/server.pem, key_file: %[1]s/server.key, client_ca_file: %[1]s/ca.pem, client_auth: optional}
auth:
  tokens:
    - {name: alice, hash: "%[2]s"}
    - {name: auditor, hash: "%[3]s"}
  jwt: {issuer: "%[4]s", jwks_url: "%[4]s/keys", audiences: [prism], ca_file: %[1]s/issuer.pem, start_timeout: 1s}
  mtls: {subject: cn}
namespaces:
  - name: shared
    pattern: multicast-registry
    access:
      - subject: alice
        methods: token
        roles: [register, enumerate, multicast, subscribe, watch]
        identity: "${sub}/*"
        filter: {tenant: "${sub}"}
      - claims: {groups: tenants}
        methods: jwt
        roles: [register, enumerate, multicast, subscribe, watch]
        identity: "${claim.tenant}/*"
        filter: {tenant: "${claim.tenant}"}
      - subject: auditor
        roles: [enumerate, watch]
        hidden: secret
      - {subject: operator, methods: mtls, roles: admin}
%[5]s  - name: private
    pattern: multicast-registry
    access: [{subject: operator, methods: mtls, roles: admin}]
%[5]s`, s.dir, auth.HashToken(aliceToken), auth.HashToken(auditorToken), s.issuer.URL, slots)
	text = strings.Replace(text, "{subject: cn}", "{subject: [cn]}", 1)
	cfg, err := app.Parse("secured.yaml", []byte(text))
	must(s.t, err)
	cfg.TLS.PollInterval = 10 * time.Millisecond
	return cfg
}

// as returns a client with further options.
func (s *site) as(at app.Addresses, opts ...client.Option) *proxy {
	s.t.Helper()
	c, err := client.Dial(at.GRPC, append([]client.Option{client.WithNamespace("shared"), client.WithTLS(s.tls(""))}, opts...)...)
	must(s.t, err)
	s.t.Cleanup(func() { check(s.t, c.Close()) })
	return &proxy{Client: c, namespace: "shared", at: at.GRPC, durable: true}
}

// TestTenants walks through what a tenant, an auditor and an operator do, and what they may not.
func TestTenants(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	at := run(t, s.config())
	alice := s.as(at, client.WithToken(aliceToken))
	bob := s.as(at, client.WithToken(s.jwt("5f1e", map[string]any{"tenant": "bob", "groups": []string{"staff", "tenants"}})))
	auditor := s.as(at, client.WithToken(auditorToken))
	operator := s.as(at, client.WithTLS(s.tls("operator")))
	ctx := t.Context()
	for p, id := range map[*proxy]string{alice: "alice/1", bob: "bob/1"} {
		tenant, _, _ := strings.Cut(id, "/")
		_, err := p.Register(ctx, client.Registration{ID: id, Metadata: map[string]any{"tenant": tenant, "secret": "of-" + tenant}})
		must(t, err)
		_, err = p.Heartbeat(ctx, id, 0)
		must(t, err)
	}
	hears, heard := alice.attach(t, "alice/1"), bob.attach(t, "bob/1")
	for p, want := range map[*proxy][]string{alice: {"alice/1"}, bob: {"bob/1"}, auditor: {"alice/1", "bob/1"}, operator: {"alice/1", "bob/1"}} {
		var got []string
		for _, i := range p.find(t, `{}`) {
			got = append(got, i.ID)
			if _, shown := i.Metadata()["secret"]; shown == (p == auditor) {
				t.Errorf("%s: metadata %v", want, i.Metadata())
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("finds %v, want %v", got, want)
		}
	}
	own := alice.multicast(t, client.MulticastRequest{Payload: []byte("to my own")})
	checkAllAcked(t, own, []string{"alice/1"})
	hears.checkReceived(t, own.ID, []string{"alice/1"})
	all := operator.multicast(t, client.MulticastRequest{Payload: []byte("to everybody")})
	checkAllAcked(t, all, []string{"alice/1", "bob/1"})
	hears.checkReceived(t, all.ID, []string{"alice/1"})
	heard.checkReceived(t, all.ID, []string{"bob/1"})
	if heard.total() != 1 {
		t.Errorf("bob receives %d messages, one was for him", heard.total())
	}

	denied := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, client.ErrPermissionDenied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := alice.Register(ctx, client.Registration{ID: "bob/2", Metadata: map[string]any{"tenant": "alice"}})
	denied("register another's", err)
	_, err = alice.Register(ctx, client.Registration{ID: "alice/2", Metadata: map[string]any{"tenant": "bob"}})
	denied("register what another receives", err)
	_, err = alice.Heartbeat(ctx, "bob/1", 0)
	denied("keep another's", err)
	_, err = alice.Unregister(ctx, "bob/1")
	denied("remove another's", err)
	denied("receive another's", alice.Receive(ctx, []string{"bob/1"}, func(context.Context, client.Message) error { return nil }))
	_, err = auditor.Multicast(ctx, client.MulticastRequest{})
	denied("send without the role", err)
	match, err := client.ParseFilter(`{"secret": {"$exists": true}}`)
	must(t, err)
	_, err = auditor.Enumerate(ctx, client.Query{Filter: match})
	denied("probe a hidden field", err)
	_, err = alice.In("private").Enumerate(ctx, client.Query{})
	denied("another namespace", err)
	_, err = alice.In("nowhere").Enumerate(ctx, client.Query{})
	denied("a namespace that is none", err)
	_, err = alice.GetMulticast(ctx, all.ID)
	wantError(t, err, client.ErrNotFound)
	for what, p := range map[string]*proxy{
		"nothing": s.as(at), "a wrong token": s.as(at, client.WithToken("prism_wrong")), "another audience": s.as(at, client.WithToken(s.jwt("x", map[string]any{"aud": "billing", "groups": "tenants"}))),
	} {
		if _, err := p.Enumerate(ctx, client.Query{}); !errors.Is(err, client.ErrUnauthenticated) {
			t.Errorf("with %s: %v", what, err)
		}
	}
	// The names of others in credentials of the wrong kind.
	for what, p := range map[string]*proxy{
		"operator by JWT": s.as(at, client.WithToken(s.jwt("operator", nil))), "alice by JWT": s.as(at, client.WithToken(s.jwt("alice", nil))),
		"alice by certificate": s.as(at, client.WithTLS(s.tls("alice"))), "a tenant without a name": s.as(at, client.WithToken(s.jwt("x", map[string]any{"groups": "tenants", "tenant": ""}))),
		"a token beside the operator's certificate": s.as(at, client.WithTLS(s.tls("operator")), client.WithToken(s.jwt("x", nil))),
	} {
		_, err := p.Enumerate(ctx, client.Query{})
		denied(what, err)
	}
	plain, err := client.Dial(at.GRPC, client.WithToken(aliceToken))
	must(t, err)
	defer plain.Close()
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := plain.Enumerate(short, client.Query{}); err == nil {
		t.Error("without TLS it works")
	}
}

// TestCertificateRenewal changes the certificate, once to a broken one, while calls are made and a stream is open.
func TestCertificateRenewal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	at := run(t, s.config())
	operator := s.as(at, client.WithTLS(s.tls("operator")))
	operator.register(t, 1, nil)
	hears := operator.attach(t, name(0))
	ctx, stop := context.WithCancel(t.Context())
	var calling sync.WaitGroup
	var calls atomic.Int64
	for _, fresh := range []bool{false, true} {
		calling.Go(func() {
			for ctx.Err() == nil {
				p := operator.Client
				if fresh {
					c, err := client.Dial(at.GRPC, client.WithNamespace("shared"), client.WithTLS(s.tls("")), client.WithToken(aliceToken))
					check(t, err)
					p = c
				}
				if _, err := p.Enumerate(context.WithoutCancel(ctx), client.Query{}); err != nil {
					t.Errorf("during the renewal: %v", err)
				}
				calls.Add(1)
				if fresh {
					check(t, p.Close())
				}
				select {
				case <-ctx.Done():
				case <-time.After(2 * time.Millisecond):
				}
			}
		})
	}
	for _, address := range []string{at.GRPC, at.HTTP} {
		if got := serial(t, s, address); got != 2 {
			t.Errorf("the certificate is number %d", got)
		}
	}
	s.write("server.pem", []byte("-----BEGIN CERTIFICATE-----\nhalf"))
	<-time.After(100 * time.Millisecond)
	if got := serial(t, s, at.GRPC); got != 2 {
		t.Errorf("the certificate is number %d", got)
	}
	s.renew(3)
	for _, address := range []string{at.GRPC, at.HTTP} {
		eventually(t, "the new certificate is shown", func() bool { return serial(t, s, address) == 3 })
	}
	all := operator.multicast(t, client.MulticastRequest{Payload: []byte("over the old connection")})
	hears.checkReceived(t, all.ID, []string{name(0)})
	stop()
	calling.Wait()
	if calls.Load() < 4 {
		t.Errorf("only %d calls were made", calls.Load())
	}
}

// serial is the number of the certificate that a server shows.
func serial(t testing.TB, s *site, address string) int64 {
	t.Helper()
	dialer := &tls.Dialer{Config: s.tls("")}
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	must(t, err)
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// TestIssuerAway starts while the issuer does not answer: the server is not ready, and serves those that it knows without it.
func TestIssuerAway(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.away.Store(true)
	at := run(t, s.config())
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: s.tls("")}}
	defer web.CloseIdleConnections()
	ready := func() (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+at.HTTP+"/readyz", nil)
		must(t, err)
		resp, err := web.Do(req)
		must(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		must(t, err)
		return resp.StatusCode, string(text)
	}
	if code, text := ready(); code != http.StatusServiceUnavailable || strings.Contains(text, "shared") || strings.Contains(text, s.issuer.URL) {
		t.Errorf("while the issuer is away: %d %s", code, text)
	}
	token := s.jwt("x", map[string]any{"groups": "tenants", "tenant": "bob"})
	bob := s.as(at, client.WithToken(token))
	if _, err := bob.Enumerate(t.Context(), client.Query{}); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("while nothing can be checked: %v", err)
	}
	if _, err := s.as(at, client.WithToken(aliceToken)).Enumerate(t.Context(), client.Query{}); err != nil {
		t.Errorf("a static token meanwhile: %v", err)
	}
	s.away.Store(false)
	eventually(t, "it is ready", func() bool {
		code, _ := ready()
		return code == http.StatusOK
	})
	_, err := bob.Enumerate(t.Context(), client.Query{})
	must(t, err)
	s.away.Store(true) // what is known stays good
	_, err = s.as(at, client.WithToken(s.jwt("y", map[string]any{"groups": "tenants", "tenant": "eve"}))).Enumerate(t.Context(), client.Query{})
	must(t, err)
	if code, text := ready(); code != http.StatusOK {
		t.Errorf("with keys that are known: %d %s", code, text)
	}
}

// TestInsecure checks that nobody serves the world by accident.
func TestInsecure(t *testing.T) {
	t.Parallel()
	cfg, err := app.Parse("open.yaml", []byte(config("open", "{registry: {type: memory}, messaging: {type: memory}}")))
	must(t, err)
	loud := &lockedText{}
	start := func(cfg app.Config) error {
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
		defer stop()
		return app.Run(ctx, cfg, slog.New(slog.NewTextHandler(loud, nil)), func(app.Addresses) { stop() })
	}
	for _, listen := range []app.Listen{{GRPC: "0.0.0.0:0", HTTP: "127.0.0.1:0"}, {GRPC: "127.0.0.1:0", HTTP: ":0"}, {GRPC: "127.0.0.1:0", HTTP: "[::]:0"}} {
		cfg.Listen, cfg.Insecure = listen, false
		if err := start(cfg); err == nil || !strings.Contains(err.Error(), "--insecure") {
			t.Errorf("%+v: %v", listen, err)
		}
	}
	if strings.Contains(loud.String(), "serving") {
		t.Error("it was served for a moment")
	}
	cfg.Listen, cfg.Insecure = app.Listen{GRPC: "0.0.0.0:0", HTTP: "127.0.0.1:0"}, true
	check(t, start(cfg))
	if !strings.Contains(loud.String(), "INSECURE") {
		t.Errorf("it is not said loudly: %s", loud.String())
	}
	cfg.Listen, cfg.Insecure = app.Listen{GRPC: "127.0.0.1:0", HTTP: "localhost:0"}, false
	check(t, start(cfg))
}

// lockedText is a log that may be read while it is written.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
