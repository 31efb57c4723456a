package redis

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func TestConfig(t *testing.T) {
	for name, row := range map[string]struct {
		cfg   Config
		field string
	}{
		"host":               {Config{Host: "localhost:6379"}, ""},
		"no port":            {Config{Host: "localhost"}, ""},
		"IPv6":               {Config{Host: "::1"}, ""},
		"IPv6 in brackets":   {Config{Host: "[::1]"}, ""},
		"IPv6 with port":     {Config{Host: "[::1]:1"}, ""},
		"one address":        {Config{Addresses: []string{"a"}}, ""},
		"cluster":            {Config{Addresses: []string{"a", "b:1"}, Cluster: true}, ""},
		"sentinels":          {Config{Addresses: []string{"a", "b"}, Sentinel: Sentinel{Master: "m", Username: "u", Password: "p"}, Database: 1}, ""},
		"all":                {Config{Host: "h", Username: "u", PasswordFile: "f", Database: 3, TLS: &TLS{Cert: "c", Key: "k"}, Timeout: time.Second}, ""},
		"nothing":            {Config{}, "host"},
		"both":               {Config{Host: "a", Addresses: []string{"b"}}, "addresses"},
		"many":               {Config{Addresses: []string{"a", "b"}}, "addresses"},
		"URL":                {Config{Host: "redis://localhost"}, "host"},
		"port":               {Config{Host: "localhost:x"}, "host"},
		"port 0":             {Config{Host: "localhost:0"}, "host"},
		"colons":             {Config{Host: "a:b:c"}, "host"},
		"empty address":      {Config{Addresses: []string{"a", ""}, Cluster: true}, "addresses/1"},
		"two passwords":      {Config{Host: "a", Password: "p", PasswordFile: "f"}, "password_file"},
		"no password":        {Config{Host: "a", Username: "u"}, "username"},
		"negative database":  {Config{Host: "a", Database: -1}, "database"},
		"cluster's database": {Config{Host: "a", Database: 1, Cluster: true}, "database"},
		"cluster's sentinel": {Config{Host: "a", Cluster: true, Sentinel: Sentinel{Master: "m"}}, "sentinel"},
		"no master":          {Config{Host: "a", Sentinel: Sentinel{Password: "p"}}, "sentinel/master"},
		"timeout":            {Config{Host: "a", Timeout: 1}, "timeout"},
		"negative timeout":   {Config{Host: "a", Timeout: -time.Second}, "timeout"},
		"no key":             {Config{Host: "a", TLS: &TLS{Cert: "c"}}, "tls/key"},
	} {
		t.Run(name, func(t *testing.T) { wantField(t, row.cfg.Validate(), row.field) })
	}
	for field, cfg := range map[string]Config{
		"host":        {Host: "redis://user:s3cret@localhost:6379"},
		"addresses/1": {Addresses: []string{"a", ":s3cret@localhost"}, Cluster: true},
	} {
		_, err := Open(t.Context(), cfg)
		wantField(t, err, field)
		if strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "under username and password") {
			t.Errorf("a password in %s: %v", field, err)
		}
	}
	if _, err := Open(t.Context(), Config{}); !errors.Is(err, mr.ErrInvalid) {
		t.Errorf("open: %v", err)
	}
}

func TestServer(t *testing.T) {
	noError(t, checkServer("7.0.15", "standalone", false))
	noError(t, checkServer("10.1.0", "cluster", true))
	noError(t, checkServer("8.0.0", "sentinel", false))
	for _, version := range []string{"6.2.14", "", "x"} {
		if err := checkServer(version, "standalone", false); !errors.Is(err, mr.ErrUnsupported) || !strings.Contains(err.Error(), "7.0") {
			t.Errorf("version %q: %v", version, err)
		}
	}
	wantField(t, checkServer("7.2.0", "cluster", false), "cluster")
	wantField(t, checkServer("7.2.0", "standalone", true), "cluster")
	wantOpenError(t, Config{Host: testenv.Redis(t).Addr, Cluster: true}, mr.ErrInvalid, "cluster: ")
	wantOpenError(t, Config{Host: testenv.Redis(t).Addr, Database: 99}, mr.ErrInvalid, "database: ")
	c := connect(t, Config{Host: testenv.Redis(t).Addr, Database: 3})
	put(t, unswept(t, c, RegistryConfig{}), "a", time.Minute)
	if name := text(t, c, "CLIENT", "GETNAME"); name != clientName {
		t.Errorf("the client's name is %q", name)
	}
}

func TestWaitAtMost(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		DefaultTimeout: feedTick, 300 * time.Millisecond: 150 * time.Millisecond, time.Millisecond: time.Millisecond,
	} {
		if got := (&Conn{timeout: timeout}).waitAtMost(feedTick); got != want {
			t.Errorf("of %v it waits %v, want %v", timeout, got, want)
		}
	}
}

func wantOpenError(t *testing.T, cfg Config, sentinel error, part string) {
	t.Helper()
	c, err := Open(t.Context(), cfg)
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, sentinel) || !strings.Contains(err.Error(), part) {
		t.Errorf("got %v, want %v with %q", err, sentinel, part)
	}
}

func TestUnreachable(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	noError(t, err)
	addr := listener.Addr().String()
	silent := Config{Host: addr, Timeout: 200 * time.Millisecond}
	wantOpenError(t, silent, mr.ErrUnavailable, "redis: connect to "+addr)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, silent); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a deadline: %v", err)
	}
	noError(t, listener.Close())
	wantOpenError(t, Config{Host: addr}, mr.ErrUnavailable, addr)
	wantOpenError(t, Config{Addresses: []string{addr}, Cluster: true}, mr.ErrUnavailable, addr)
	wantOpenError(t, Config{Addresses: []string{addr}, Sentinel: Sentinel{Master: "m"}, Timeout: time.Second}, mr.ErrUnavailable, addr)
}

func TestPassword(t *testing.T) {
	server := testenv.NewRedis(t, "--requirepass", "secret")
	wantOpenError(t, Config{Host: server.Addr}, mr.ErrUnsupported, "wants a password")
	wantOpenError(t, Config{Host: server.Addr, Password: "wrong"}, mr.ErrUnsupported, "refuses the username or password")
	c := connect(t, Config{Host: server.Addr, Password: "secret"})
	do(t, c, "ACL", "SETUSER", "prism", "on", ">other", "+@all", "-ping", "~*")
	wantOpenError(t, Config{Host: server.Addr, Username: "prism", Password: "other"}, mr.ErrUnsupported, "'ping'")
	do(t, c, "ACL", "SETUSER", "prism", "+ping")

	// A password file is read for each connection: a new password needs no restart.
	file := filepath.Join(t.TempDir(), "password")
	filed := Config{Host: server.Addr, Username: "prism", PasswordFile: file, Timeout: time.Second}
	wantOpenError(t, filed, mr.ErrInvalid, "password_file: ")
	noError(t, os.WriteFile(file, []byte("other\n"), 0o600))
	user := connect(t, filed)
	do(t, c, "ACL", "SETUSER", "prism", "resetpass", ">new")
	noError(t, os.WriteFile(file, []byte("new"), 0o600))
	do(t, c, "CLIENT", "KILL", "USER", "prism")
	eventually(t, "the new password is used", func() bool {
		err := user.Ping(t.Context())
		return err == nil
	})
}

func TestClosed(t *testing.T) {
	c, err := Open(t.Context(), Config{Host: testenv.Redis(t).Addr})
	noError(t, err)
	c.Close()
	c.Close()
	if err := c.Ping(t.Context()); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("ping after close: %v", err)
	}
	for _, result := range c.read.DoMulti(t.Context(), c.read.B().Ping().Build(), c.read.B().Ping().Build()) {
		if result.Error() == nil {
			t.Error("a command after close succeeds")
		}
	}
}

// certificate is a certificate, in files.
type certificate struct {
	path, key string
	cert      *x509.Certificate
	signer    *ecdsa.PrivateKey
}

// issue writes a certificate and its key, signed by a parent or by itself.
func issue(t *testing.T, name string, parent *certificate) *certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	noError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: parent == nil, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	out := &certificate{cert: template, signer: key}
	if parent == nil {
		parent = out
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, &key.PublicKey, parent.signer)
	noError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	noError(t, err)
	write := func(kind string, content []byte) string {
		var text bytes.Buffer
		noError(t, pem.Encode(&text, &pem.Block{Type: kind, Bytes: content}))
		path := filepath.Join(t.TempDir(), name+".pem")
		noError(t, os.WriteFile(path, text.Bytes(), 0o600))
		return path
	}
	out.path, out.key = write("CERTIFICATE", der), write("PRIVATE KEY", private)
	return out
}

func TestTLS(t *testing.T) {
	ca := issue(t, "authority", nil)
	server, own, stranger := issue(t, "redis.test", ca), issue(t, "prism", ca), issue(t, "stranger", nil)
	redis := testenv.NewRedis(t, "--tls-cert-file", server.path, "--tls-key-file", server.key, "--tls-ca-cert-file", ca.path,
		"--tls-auth-clients", "yes")
	right := TLS{CA: ca.path, Cert: own.path, Key: own.key, ServerName: "redis.test"}
	c := connect(t, Config{Host: redis.Addr, TLS: &right})
	put(t, registry(t, c, RegistryConfig{}), "a", time.Minute)
	insecure := TLS{Cert: own.path, Key: own.key, Insecure: true}
	noError(t, connect(t, Config{Host: redis.Addr, TLS: &insecure}).Ping(t.Context()))

	garbage := filepath.Join(t.TempDir(), "garbage")
	noError(t, os.WriteFile(garbage, []byte("garbage"), 0o600))
	with := func(change func(*TLS)) Config {
		wrong := right
		change(&wrong)
		return Config{Host: redis.Addr, TLS: &wrong, Timeout: 2 * time.Second}
	}
	for name, row := range map[string]struct {
		cfg      Config
		sentinel error
		part     string
	}{
		"system's authorities":  {with(func(c *TLS) { c.CA = "" }), mr.ErrUnavailable, "unknown authority"},
		"another authority":     {with(func(c *TLS) { c.CA = stranger.path }), mr.ErrUnavailable, "unknown authority"},
		"another name":          {with(func(c *TLS) { c.ServerName = "other.test" }), mr.ErrUnavailable, "redis.test"},
		"no certificate":        {with(func(c *TLS) { c.Cert, c.Key = "", "" }), mr.ErrUnavailable, redis.Addr},
		"a strange certificate": {with(func(c *TLS) { c.Cert, c.Key = stranger.path, stranger.key }), mr.ErrUnavailable, redis.Addr},
		"no file":               {with(func(c *TLS) { c.CA = garbage + "x" }), mr.ErrInvalid, "tls/ca: "},
		"no PEM":                {with(func(c *TLS) { c.CA = garbage }), mr.ErrInvalid, "tls/ca: "},
		"a key of another":      {with(func(c *TLS) { c.Key = server.key }), mr.ErrInvalid, "tls/cert: "},
		"no TLS":                {Config{Host: redis.Addr, Timeout: 2 * time.Second}, mr.ErrUnavailable, redis.Addr},
	} {
		t.Run(name, func(t *testing.T) { wantOpenError(t, row.cfg, row.sentinel, row.part) })
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	cluster := clusterOf(t)
	wantOpenError(t, Config{Host: cluster.Addrs[0]}, mr.ErrInvalid, "cluster: ")
	c := connect(t, Config{Addresses: cluster.Addrs, Cluster: true})
	// Namespaces live on different masters.
	for range 6 {
		r := registry(t, c, RegistryConfig{MaxIdentities: 3})
		for n := range 3 {
			put(t, r, fmt.Sprintf("id-%d", n), time.Hour)
		}
		put(t, r, "id-0", time.Millisecond)
		if _, err := r.Renew(t.Context(), "id-1", mr.NoExpiry); err != nil {
			t.Error(err)
		}
		if existed, err := r.Delete(t.Context(), "id-2", 0); !existed || err != nil {
			t.Errorf("delete: %v, %v", existed, err)
		}
		eventually(t, "the expired one is swept", func() bool {
			head, err := r.Head(t.Context())
			noError(t, err)
			return head == 7
		})
		if n, err := r.Count(t.Context()); n != 1 || err != nil {
			t.Errorf("count: %d, %v", n, err)
		}
		noError(t, r.Ping(t.Context()))
	}
}
