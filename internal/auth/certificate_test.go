package auth

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
)

// chain is what a verified client certificate looks like.
func chain(t testing.TB, change func(*x509.Certificate)) []*x509.Certificate {
	t.Helper()
	ca := newAuthority()
	text, _ := ca.sign(change)
	block, _ := pem.Decode(text)
	return []*x509.Certificate{must(x509.ParseCertificate(block.Bytes)), ca.cert}
}

func TestMTLS(t *testing.T) {
	spiffe := mustURL("spiffe://prod/ns/default/sa/worker")
	for _, tt := range []struct {
		name    string
		sources []SubjectSource
		change  func(*x509.Certificate)
		want    string
		fault   Fault
		detail  string
	}{
		{"spiffe first", nil, func(c *x509.Certificate) { c.URIs = []*url.URL{spiffe} }, spiffe.String(), "", ""},
		{"then dns", nil, func(c *x509.Certificate) { c.DNSNames = []string{"a.example.com", "b.example.com"} }, "a.example.com", "", ""},
		{"then cn", nil, func(c *x509.Certificate) { c.DNSNames, c.Subject.CommonName = nil, "worker" }, "worker", "", ""},
		{"another URI is none", nil, func(c *x509.Certificate) { c.URIs = []*url.URL{mustURL("https://a")} }, "localhost", "", ""},
		{"as configured", []SubjectSource{SubjectCN}, func(c *x509.Certificate) { c.Subject.CommonName = "worker" }, "worker", "", ""},
		{"none as configured", []SubjectSource{SubjectSPIFFE}, nil, "", Invalid, "names nobody"},
		{"no name at all", nil, func(c *x509.Certificate) { c.DNSNames, c.Subject.CommonName = nil, "" }, "", Invalid, "names nobody"},
		{"two URIs", nil, func(c *x509.Certificate) { c.URIs = []*url.URL{mustURL("https://a"), spiffe} }, "", Invalid, "spiffe is not its only URI"},
		{"a strange name", nil, func(c *x509.Certificate) { c.DNSNames, c.Subject.CommonName = nil, "a\nb" }, "", Invalid, "cn has control"},
		{"expired", nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }, "", Expired, "not valid after"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := Open(t.Context(), Config{MTLS: &MTLS{Subject: tt.sources}}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			certs := chain(t, tt.change)
			caller, err := a.Authenticate(t.Context(), Credentials{PeerCertificates: certs})
			if tt.fault != "" {
				refused(t, err, tt.fault, tt.detail)
				return
			}
			if err != nil || caller.Subject != tt.want || caller.Method != MethodMTLS || !caller.Expires.Equal(certs[0].NotAfter) {
				t.Errorf("got %+v, %v", caller, err)
			}
		})
	}
}

func TestMTLSClaims(t *testing.T) {
	certs := chain(t, func(c *x509.Certificate) {
		c.DNSNames, c.URIs, c.Subject.OrganizationalUnit = []string{"a", "b"}, []*url.URL{mustURL("https://x/y")}, []string{"ops"}
	})
	caller, err := MTLS{}.withDefaults().caller(certs[0], time.Now())
	want := map[string]any{"dns": []any{"a", "b"}, "uri": []any{"https://x/y"}, "ou": []any{"ops"}}
	if err != nil || !reflect.DeepEqual(caller.Claims, want) {
		t.Errorf("got %v, %v", caller.Claims, err)
	}
	if err := (Config{MTLS: &MTLS{Subject: []SubjectSource{"email"}}}).Validate(); err == nil || !strings.HasPrefix(err.Error(), "mtls.subject: expected spiffe, dns or cn") {
		t.Error(err)
	}
}

func TestCertificateWithoutMTLS(t *testing.T) {
	_, hash := NewToken()
	a, err := Open(t.Context(), Config{Tokens: []Token{{Name: "ci", Hash: hash}}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	_, err = a.Authenticate(t.Context(), Credentials{PeerCertificates: chain(t, nil)})
	refused(t, err, Missing, "do not authenticate here")
}

func TestPeerCertificates(t *testing.T) {
	certs := chain(t, nil)
	for _, tt := range []struct {
		name  string
		state *tls.ConnectionState
		want  int
	}{
		{"no TLS", nil, 0},
		{"no certificate", &tls.ConnectionState{}, 0},
		{"not verified", &tls.ConnectionState{PeerCertificates: certs}, 0},
		{"verified", &tls.ConnectionState{PeerCertificates: certs, VerifiedChains: [][]*x509.Certificate{certs}}, 2},
	} {
		if got := PeerCertificates(tt.state); len(got) != tt.want {
			t.Errorf("%s: %d certificates", tt.name, len(got))
		}
	}
}

func TestNone(t *testing.T) {
	a, err := Open(t.Context(), Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	caller, err := a.Authenticate(t.Context(), Credentials{Bearer: "whatever"})
	if err != nil || caller.Method != MethodNone || caller.Method.String() != "none" {
		t.Errorf("got %+v, %v", caller, err)
	}
}
