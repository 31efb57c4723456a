package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

// files are those of a server.
type files struct{ cert, key, ca string }

func newFiles(t *testing.T) files {
	t.Helper()
	dir := t.TempDir()
	return files{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")}
}

func (f files) write(t *testing.T, cert, key []byte) {
	t.Helper()
	rewrite(t, f.cert, cert)
	rewrite(t, f.key, key)
}

// renew writes a new certificate.
func (f files) renew(t *testing.T, ca authority) {
	t.Helper()
	cert, key := ca.sign(nil)
	f.write(t, cert, key)
}

// shake makes real handshakes with a server that has the configuration. Its result is what the server and the client know.
func shake(t *testing.T, config, client *tls.Config) (server, own tls.ConnectionState, err error) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	type accepted struct {
		state tls.ConnectionState
		err   error
	}
	done := make(chan accepted, 1)
	go func() {
		raw, err := listener.Accept()
		if err != nil {
			done <- accepted{err: err}
			return
		}
		defer raw.Close()
		conn := tls.Server(raw, config)
		err = conn.HandshakeContext(context.Background())
		done <- accepted{conn.ConnectionState(), err}
		_, _ = conn.Write([]byte("x"))
	}()
	client = client.Clone()
	client.ServerName = "localhost"
	conn, err := (&tls.Dialer{Config: client}).DialContext(t.Context(), "tcp", listener.Addr().String())
	if err == nil {
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1)) // TLS 1.3 tells the client late that its certificate is refused
		own = conn.(*tls.Conn).ConnectionState()
	}
	a := <-done
	return a.state, own, errors.Join(err, a.err)
}

func serverTLS(t *testing.T, cfg TLS) (*Reloader, *logged) {
	t.Helper()
	log, logs := newLog(t)
	cfg.PollInterval = 2 * time.Millisecond
	r, err := ServerTLS(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r, logs
}

func TestReload(t *testing.T) {
	ca, f := newAuthority(), newFiles(t)
	f.renew(t, ca)
	r, logs := serverTLS(t, TLS{CertFile: f.cert, KeyFile: f.key})
	config := r.Config("h2", "http/1.1")
	client := &tls.Config{RootCAs: ca.pool(), NextProtos: []string{"h2"}}
	serial := func() string {
		server, own, err := shake(t, config, client)
		if err != nil {
			t.Fatal(err)
		}
		if server.NegotiatedProtocol != "h2" || server.Version != tls.VersionTLS13 || len(server.PeerCertificates) > 0 {
			t.Errorf("%q, version %x", server.NegotiatedProtocol, server.Version)
		}
		return own.PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	if first != r.Leaf().SerialNumber.String() || r.Check() != nil {
		t.Error("another certificate", r.Check())
	}

	next, nextKey := ca.sign(nil)
	rewrite(t, f.cert, next) // the key does not fit yet
	eventually(t, "the mismatch is noticed", func() bool { return r.Check() != nil })
	if serial() != first || logs.count("cannot use") != 1 {
		t.Error("the old certificate is not in use")
	}
	rewrite(t, f.key, nextKey[:50])
	eventually(t, "the half-written key is noticed", func() bool { return logs.count("cannot use") == 2 })
	if serial() != first {
		t.Error("the old certificate is not in use")
	}
	rewrite(t, f.key, nextKey)
	eventually(t, "the pair is taken", func() bool { return r.Check() == nil })
	second := serial()
	if second == first || logs.count("reloaded") != 1 || logs.count("cannot use") != 2 {
		t.Error("the new certificate is not in use, or not logged once")
	}

	if err := os.Remove(f.cert); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the missing file is noticed", func() bool { return r.Check() != nil })
	<-time.After(20 * time.Millisecond)
	if serial() != second || logs.count("cannot use") != 3 {
		t.Errorf("a missing file is logged %d times", logs.count("cannot use")-2)
	}
	rewrite(t, f.cert, next)
	eventually(t, "all is well", func() bool { return r.Check() == nil })
	if logs.count("PRIVATE") > 0 {
		t.Error("the log has a key")
	}
}

func TestClientAuth(t *testing.T) {
	ca, stranger, f := newAuthority(), newAuthority(), newFiles(t)
	f.renew(t, ca)
	rewrite(t, f.ca, ca.pem())
	pair := func(a authority) []tls.Certificate {
		cert, key := a.sign(func(c *x509.Certificate) { c.DNSNames = []string{"worker.example.com"} })
		return []tls.Certificate{must(tls.X509KeyPair(cert, key))}
	}
	own, others := pair(ca), pair(stranger)
	for _, tt := range []struct {
		name  string
		auth  ClientAuth
		certs []tls.Certificate
		want  string // the subject
		fails bool
	}{
		{"required and shown", ClientAuthRequired, own, "worker.example.com", false},
		{"required is the default", "", nil, "", true},
		{"required and not shown", ClientAuthRequired, nil, "", true},
		{"required and a stranger's", ClientAuthRequired, others, "", true},
		{"optional and shown", ClientAuthOptional, own, "worker.example.com", false},
		{"optional and not shown", ClientAuthOptional, nil, "", false},
		{"optional and a stranger's", ClientAuthOptional, others, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, _ := serverTLS(t, TLS{CertFile: f.cert, KeyFile: f.key, ClientCAFile: f.ca, ClientAuth: tt.auth})
			client := &tls.Config{
				RootCAs: ca.pool(),
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { // even if the server wants another
					if len(tt.certs) == 0 {
						return new(tls.Certificate), nil
					}
					return &tt.certs[0], nil
				},
			}
			state, _, err := shake(t, r.Config("h2"), client)
			if (err != nil) != tt.fails {
				t.Fatalf("handshake: %v", err)
			}
			if tt.fails {
				return
			}
			a, err := Open(t.Context(), Config{MTLS: &MTLS{}}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			caller, err := a.Authenticate(t.Context(), Credentials{PeerCertificates: PeerCertificates(&state)})
			if tt.want == "" {
				refused(t, err, Missing, "no credentials")
			} else if err != nil || caller.Subject != tt.want {
				t.Errorf("got %+v, %v", caller, err)
			}
		})
	}
}

// A client whose authority was taken away does not come in again, not with a session of before either.
func TestClientCAReload(t *testing.T) {
	ca, next, f := newAuthority(), newAuthority(), newFiles(t)
	f.renew(t, ca)
	rewrite(t, f.ca, ca.pem())
	r, logs := serverTLS(t, TLS{CertFile: f.cert, KeyFile: f.key, ClientCAFile: f.ca, MinVersion: "1.2"})
	config := r.Config("h2")
	client := func(a authority, version uint16) *tls.Config {
		cert, key := a.sign(nil)
		pair := must(tls.X509KeyPair(cert, key))
		return &tls.Config{
			RootCAs: ca.pool(), ClientSessionCache: tls.NewLRUClientSessionCache(8), MaxVersion: version,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
		}
	}
	old12, old13, new13 := client(ca, tls.VersionTLS12), client(ca, tls.VersionTLS13), client(next, tls.VersionTLS13)
	for range 2 {
		for _, c := range []*tls.Config{old12, old13} {
			if _, own, err := shake(t, config, c); err != nil || own.DidResume || own.Version != c.MaxVersion {
				t.Fatal(own.DidResume, err)
			}
		}
		if _, _, err := shake(t, config, new13); err == nil {
			t.Fatal("a stranger comes in")
		}
	}
	rewrite(t, f.ca, next.pem())
	eventually(t, "it is reloaded", func() bool { return logs.count("reloaded") == 1 })
	for _, c := range []*tls.Config{old12, old13} {
		if _, _, err := shake(t, config, c); err == nil {
			t.Error("the old client comes in")
		}
	}
	if _, _, err := shake(t, config, new13); err != nil {
		t.Error(err)
	}
	rewrite(t, f.ca, []byte("nothing"))
	eventually(t, "it is noticed", func() bool {
		return r.Check() != nil && strings.Contains(r.Check().Error(), "expected certificates in PEM")
	})
	if _, _, err := shake(t, config, new13); err != nil {
		t.Error(err)
	}
}

func TestMinVersion(t *testing.T) {
	ca, f := newAuthority(), newFiles(t)
	f.renew(t, ca)
	client := func(version uint16) *tls.Config {
		return &tls.Config{RootCAs: ca.pool(), MinVersion: tls.VersionTLS10, MaxVersion: version}
	}
	for _, tt := range []struct {
		min     string
		version uint16
		fails   bool
	}{{"", tls.VersionTLS13, false}, {"", tls.VersionTLS12, true}, {"1.2", tls.VersionTLS12, false}, {"1.2", tls.VersionTLS11, true}} {
		r, _ := serverTLS(t, TLS{CertFile: f.cert, KeyFile: f.key, MinVersion: tt.min})
		if _, _, err := shake(t, r.Config(), client(tt.version)); (err != nil) != tt.fails {
			t.Errorf("%q with %x: %v", tt.min, tt.version, err)
		}
	}
}

// A real HTTP server negotiates HTTP/2 although its configuration changes.
func TestHTTPServer(t *testing.T) {
	ca, f := newAuthority(), newFiles(t)
	f.renew(t, ca)
	r, _ := serverTLS(t, TLS{CertFile: f.cert, KeyFile: f.key})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	server.TLS, server.EnableHTTP2 = r.Config("h2", "http/1.1"), true
	server.StartTLS()
	defer server.Close()
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: ca.pool(), ServerName: "localhost"}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "HTTP/2.0" {
		t.Errorf("%q, %v", body, err)
	}
}

// A real gRPC server takes new certificates, and tells who the client is.
func TestGRPCServer(t *testing.T) {
	ca, f := newAuthority(), newFiles(t)
	f.renew(t, ca)
	rewrite(t, f.ca, ca.pem())
	r, logs := serverTLS(t, TLS{CertFile: f.cert, KeyFile: f.key, ClientCAFile: f.ca})
	a, err := Open(t.Context(), Config{MTLS: &MTLS{}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	subjects := make(chan string, 2)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(r.Config("h2"))), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			p, _ := peer.FromContext(ctx)
			info := p.AuthInfo.(credentials.TLSInfo)
			caller, err := a.Authenticate(ctx, Credentials{PeerCertificates: PeerCertificates(&info.State)})
			subjects <- caller.Subject
			return must(next(ctx, req)), err
		}))
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener := must(new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0"))
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	defer func() { server.Stop(); <-done }()

	cert, key := ca.sign(func(c *x509.Certificate) { c.DNSNames = []string{"worker"} })
	pair := must(tls.X509KeyPair(cert, key))
	serial := func() string {
		var p peer.Peer
		conn := must(grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(
			&tls.Config{RootCAs: ca.pool(), ServerName: "localhost", Certificates: []tls.Certificate{pair}}))))
		defer conn.Close()
		if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.Peer(&p)); err != nil {
			t.Fatal(err)
		}
		if got := <-subjects; got != "worker" {
			t.Errorf("the caller is %q", got)
		}
		return p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	f.renew(t, ca)
	eventually(t, "it is reloaded", func() bool { return logs.count("reloaded") == 1 && r.Check() == nil })
	if serial() == first {
		t.Error("the old certificate is in use")
	}
}

func TestServerTLSRefused(t *testing.T) {
	ca, f := newAuthority(), newFiles(t)
	cert, _ := ca.sign(nil)
	_, key := ca.sign(nil)
	f.write(t, cert, key)
	rewrite(t, f.ca, []byte("nothing"))
	fits := newFiles(t)
	fits.write(t, cert, nil)
	cert, key = ca.sign(nil)
	fits.write(t, cert, key)
	for _, tt := range []struct {
		name string
		cfg  TLS
		want string
	}{
		{"no certificate", TLS{KeyFile: "k"}, "cert_file: is required"},
		{"no key", TLS{CertFile: "c"}, "key_file: is required"},
		{"version", TLS{CertFile: "c", KeyFile: "k", MinVersion: "1.1"}, "min_version: expected 1.2 or 1.3"},
		{"poll", TLS{CertFile: "c", KeyFile: "k", PollInterval: -1}, "poll_interval: must not be negative"},
		{"client auth", TLS{CertFile: "c", KeyFile: "k", ClientAuth: "maybe"}, "client_auth: expected none, optional or required"},
		{"no authority", TLS{CertFile: "c", KeyFile: "k", ClientAuth: ClientAuthOptional}, "client_ca_file: is required with client_auth optional"},
		{"an authority for nothing", TLS{CertFile: "c", KeyFile: "k", ClientAuth: ClientAuthNone, ClientCAFile: "ca"}, "client_ca_file: has no effect"},
		{"no file", TLS{CertFile: "missing", KeyFile: "k"}, "open missing"},
		{"mismatch", TLS{CertFile: f.cert, KeyFile: f.key}, "tls: private key does not match public key"},
		{"no authority in the file", TLS{CertFile: fits.cert, KeyFile: fits.key, ClientCAFile: f.ca}, f.ca + ": expected certificates in PEM"},
	} {
		if _, err := ServerTLS(tt.cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
}
