package nats

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func TestConfigValidate(t *testing.T) {
	good := []string{"localhost:4222"}
	for _, row := range []struct {
		field string // empty: valid
		cfg   Config
	}{
		{"", Config{Servers: good}},
		{"", Config{Servers: []string{"nats://a:1", "tls://b", "ws://c:80", "wss://d", "10.0.0.1", "[::1]:4222", "nats://u:p@e:4222"}}},
		{"", Config{Servers: good, User: "u", Password: "p", Timeout: time.Second, InboxPrefix: "_INBOX.mine", TLS: &TLS{}}},
		{"", Config{Servers: good, Token: "t"}},
		{"servers", Config{}},
		{"servers/0", Config{Servers: []string{""}}},
		{"servers/1", Config{Servers: []string{"a", "http://b"}}},
		{"servers/0", Config{Servers: []string{"a,b"}}},
		{"servers/0", Config{Servers: []string{"a b"}}},
		{"servers/0", Config{Servers: []string{"nats://"}}},
		{"servers/0", Config{Servers: []string{"a:port"}}},
		{"password_file", Config{Servers: good, User: "u", Password: "p", PasswordFile: "f"}},
		{"user", Config{Servers: good, Password: "p"}},
		{"user", Config{Servers: good, PasswordFile: "p"}},
		{"user", Config{Servers: good, User: "u", Token: "t"}},
		{"user", Config{Servers: good, Credentials: "u", NKey: "t"}},
		{"tls/key", Config{Servers: good, TLS: &TLS{Cert: "c"}}},
		{"tls/key", Config{Servers: good, TLS: &TLS{Key: "k"}}},
		{"timeout", Config{Servers: good, Timeout: -1}},
		{"timeout", Config{Servers: good, Timeout: 1}},
		{"inbox_prefix", Config{Servers: good, InboxPrefix: "a.*"}},
		{"inbox_prefix", Config{Servers: good, InboxPrefix: "a b"}},
		{"inbox_prefix", Config{Servers: good, InboxPrefix: "prism.x"}},
		{"inbox_prefix", Config{Servers: good, InboxPrefix: "$SYS"}},
		{"inbox_prefix", Config{Servers: good, InboxPrefix: "a."}},
		// files that cannot be used are found by Open
		{"password_file", Config{Servers: good, User: "u", PasswordFile: "/nowhere"}},
		{"credentials", Config{Servers: good, Credentials: "/nowhere"}},
		{"nkey", Config{Servers: good, NKey: "/nowhere"}},
		{"tls/ca", Config{Servers: good, TLS: &TLS{CA: "/nowhere"}}},
		{"tls/ca", Config{Servers: good, TLS: &TLS{CA: "conn_test.go"}}},
		{"tls/cert", Config{Servers: good, TLS: &TLS{Cert: "/nowhere", Key: "/nowhere"}}},
	} {
		err := row.cfg.Validate()
		if err == nil {
			_, err = row.cfg.options()
		}
		var bad *mr.InvalidError
		if row.field == "" && err != nil || row.field != "" && (!errors.As(err, &bad) || bad.Field != row.field) {
			t.Errorf("%+v: %v, want %q", row.cfg, err, row.field)
		}
	}
	if _, err := Open(t.Context(), Config{}); !errors.Is(err, mr.ErrInvalid) {
		t.Errorf("open: %v", err)
	}
	if _, err := Open(t.Context(), Config{Servers: good, NKey: "/nowhere"}); !errors.Is(err, mr.ErrInvalid) {
		t.Errorf("open: %v", err)
	}
	cfg := Config{Servers: []string{"nats://u:secret@a:1", "u:secret@b", "c"}}
	if where := cfg.where(); strings.Contains(where, "secret") || !strings.Contains(where, "@a:1") || !strings.Contains(where, ", c") {
		t.Errorf("where: %s", where)
	}
}

// TestOpenInVain has nobody to talk to.
func TestOpenInVain(t *testing.T) {
	dead := testenv.NewFault(t, "127.0.0.1:1")
	silent := testenv.NewFault(t, strings.TrimPrefix(testenv.NATS(t).URL, "nats://"))
	dead.Cut()
	silent.Stall()
	for _, addr := range []string{dead.Addr, silent.Addr} {
		start := time.Now()
		_, err := Open(t.Context(), Config{Servers: []string{addr}, Timeout: 300 * time.Millisecond})
		if !errors.Is(err, mr.ErrUnavailable) || !strings.Contains(err.Error(), addr) || time.Since(start) > 3*time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := Open(ctx, Config{Servers: []string{silent.Addr}}); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 2*time.Second {
		t.Errorf("with a deadline: %v after %s", err, time.Since(start))
	}
	cancel()
	if _, err := Open(ctx, Config{Servers: []string{silent.Addr}}); err == nil {
		t.Error("with an ended context: no error")
	}
	c := opening(t, dead.Addr, silent.Addr, testenv.NATS(t).URL) // one of three will do
	if err := c.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// works fails the test unless a configuration connects and a message goes through.
func works(t *testing.T, what string, cfg Config) {
	t.Helper()
	c, err := Open(within(t), cfg)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	defer c.Close()
	m := messaging(c)
	sub := subscribe(t, m, mr.Topic("auth", "a"))
	if err := errors.Join(m.Publish(within(t), []mr.Message{message("auth", "a", "x")})...); err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	receive(t, sub, 1)
}

// wantRefused fails the test unless the server does not accept the credentials, and the error says so.
func wantRefused(t *testing.T, what string, cfg Config) {
	t.Helper()
	c, err := Open(within(t), cfg)
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, nats.ErrAuthorization) || errors.Is(err, mr.ErrUnavailable) || !strings.Contains(err.Error(), "credentials are refused") {
		t.Errorf("%s: %v", what, err)
	}
}

func file(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPassword(t *testing.T) {
	n := testenv.NewNATS(t, func(o *server.Options) { o.Username, o.Password = "u", "right" })
	at := []string{n.URL}
	works(t, "password", Config{Servers: at, User: "u", Password: "right"})
	works(t, "password file", Config{Servers: at, User: "u", PasswordFile: file(t, []byte("right\n"))})
	works(t, "in the URL", Config{Servers: []string{strings.Replace(n.URL, "://", "://u:right@", 1)}})
	wantRefused(t, "wrong password", Config{Servers: at, User: "u", Password: "wrong"})
	wantRefused(t, "wrong file", Config{Servers: at, User: "u", PasswordFile: file(t, []byte("wrong"))})
	wantRefused(t, "nothing", Config{Servers: at})
	wantRefused(t, "token", Config{Servers: at, Token: "right"})
}

// TestPasswordChange has the server ask for another password after a restart, and the file get it later.
func TestPasswordChange(t *testing.T) {
	first := testenv.NewNATS(t, func(o *server.Options) { o.Username, o.Password = "u", "old" })
	second := testenv.NewNATS(t, func(o *server.Options) { o.Username, o.Password = "u", "new" })
	path := file(t, []byte("old"))
	var log bytes.Buffer
	c := opened(t, Config{
		Servers: []string{first.URL, second.URL}, User: "u", PasswordFile: path, Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	first.Stop()
	eventually(t, "the outage is noticed", func() bool { return c.Ping(within(t)) != nil })
	<-time.After(500 * time.Millisecond) // several attempts fail
	if err := c.Ping(within(t)); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("ping with the wrong password: %v", err)
	}
	if err := os.WriteFile(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new password is accepted", func() bool { return c.Ping(within(t)) == nil })
	c.Close()
	if text := log.String(); !strings.Contains(text, "connection lost") || !strings.Contains(text, "connected again") {
		t.Errorf("log: %s", text)
	}
}

func TestToken(t *testing.T) {
	n := testenv.NewNATS(t, func(o *server.Options) { o.Authorization = "right" })
	works(t, "token", Config{Servers: []string{n.URL}, Token: "right"})
	wantRefused(t, "wrong token", Config{Servers: []string{n.URL}, Token: "wrong"})
}

func TestNKey(t *testing.T) {
	user, other := newKey(t, nkeys.CreateUser), newKey(t, nkeys.CreateUser)
	n := testenv.NewNATS(t, func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public(t, user)}} })
	works(t, "nkey", Config{Servers: []string{n.URL}, NKey: file(t, seed(t, user))})
	wantRefused(t, "another nkey", Config{Servers: []string{n.URL}, NKey: file(t, seed(t, other))})
}

func newKey(t *testing.T, create func() (nkeys.KeyPair, error)) nkeys.KeyPair {
	t.Helper()
	key, err := create()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func public(t *testing.T, key nkeys.KeyPair) string {
	t.Helper()
	text, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func seed(t *testing.T, key nkeys.KeyPair) []byte {
	t.Helper()
	text, err := key.Seed()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestCredentials has a server with an operator, an account, and users who present JWTs.
func TestCredentials(t *testing.T) {
	operator, account := newKey(t, nkeys.CreateOperator), newKey(t, nkeys.CreateAccount)
	accountJWT, err := jwt.NewAccountClaims(public(t, account)).Encode(operator)
	if err != nil {
		t.Fatal(err)
	}
	resolver := &server.MemAccResolver{}
	if err := resolver.Store(public(t, account), accountJWT); err != nil {
		t.Fatal(err)
	}
	n := testenv.NewNATS(t, func(o *server.Options) {
		o.TrustedKeys, o.AccountResolver, o.JetStream = []string{public(t, operator)}, resolver, false
	})
	creds := func(signer nkeys.KeyPair) string {
		user := newKey(t, nkeys.CreateUser)
		claims := jwt.NewUserClaims(public(t, user))
		text, err := claims.Encode(signer)
		if err != nil {
			t.Fatal(err)
		}
		content, err := jwt.FormatUserConfig(text, seed(t, user))
		if err != nil {
			t.Fatal(err)
		}
		return file(t, content)
	}
	works(t, "credentials", Config{Servers: []string{n.URL}, Credentials: creds(account)})
	wantRefused(t, "of another account", Config{Servers: []string{n.URL}, Credentials: creds(newKey(t, nkeys.CreateAccount))})
	wantRefused(t, "none", Config{Servers: []string{n.URL}})
}

// authority signs certificates for 127.0.0.1.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.pem, a.key = a.sign(t, template)
	block, _ := pem.Decode(a.pem)
	var err error
	if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) sign(t *testing.T, template *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key
}

// issue returns the files of a certificate and its key.
func (a *authority) issue(t *testing.T) (cert, key string) {
	t.Helper()
	text, private := a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "prism"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"nats.test"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	der, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return file(t, text), file(t, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

// TestTLS has a server that asks for a certificate of the client's.
func TestTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	cert, key := ours.issue(t)
	own, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(ours.pem)
	n := testenv.NewNATS(t, func(o *server.Options) {
		o.TLSConfig = &tls.Config{
			MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{own}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert,
		}
		o.TLSTimeout = 5
	})
	ca := file(t, ours.pem)
	clientCert, clientKey := ours.issue(t)
	wrongCert, wrongKey := theirs.issue(t)
	at := []string{n.URL}
	works(t, "both certificates", Config{Servers: at, TLS: &TLS{CA: ca, Cert: clientCert, Key: clientKey}})
	works(t, "server name", Config{Servers: at, TLS: &TLS{CA: ca, Cert: clientCert, Key: clientKey, ServerName: "nats.test"}})
	works(t, "insecure", Config{Servers: at, TLS: &TLS{Cert: clientCert, Key: clientKey, Insecure: true}})
	for what, wrong := range map[string]*TLS{
		"unknown authority": {CA: file(t, theirs.pem), Cert: clientCert, Key: clientKey},
		"wrong name":        {CA: ca, Cert: clientCert, Key: clientKey, ServerName: "elsewhere.test"},
		"no certificate":    {CA: ca},
		"wrong certificate": {CA: ca, Cert: wrongCert, Key: wrongKey},
		"no TLS":            nil,
	} {
		c, err := Open(within(t), Config{Servers: at, TLS: wrong})
		if err == nil {
			c.Close()
		}
		if !errors.Is(err, mr.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		} else {
			t.Logf("%s: %v", what, err)
		}
	}
}
