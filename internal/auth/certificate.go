package auth

import (
	"crypto/x509"
	"net/url"
	"slices"
	"strings"
	"time"
)

// SubjectSource is a part of a certificate that can be the subject.
type SubjectSource string

// The sources of a subject.
const (
	// SubjectSPIFFE is the URI among the alternative names with the scheme spiffe.
	SubjectSPIFFE SubjectSource = "spiffe"
	// SubjectDNS is the first DNS name among the alternative names.
	SubjectDNS SubjectSource = "dns"
	// SubjectCN is the common name.
	SubjectCN SubjectSource = "cn"
)

// MTLS accepts client certificates that TLS has verified.
type MTLS struct {
	// Subject lists where the subject stands: the first source that the certificate has counts. Default: spiffe, dns, cn.
	Subject []SubjectSource
}

func (m MTLS) withDefaults() MTLS {
	if len(m.Subject) == 0 {
		m.Subject = []SubjectSource{SubjectSPIFFE, SubjectDNS, SubjectCN}
	}
	return m
}

// Validate returns an InvalidError that names the field at fault.
func (m MTLS) Validate() error {
	for _, source := range m.Subject {
		if !slices.Contains(MTLS{}.withDefaults().Subject, source) {
			return invalid("subject", "expected spiffe, dns or cn, got %q", source)
		}
	}
	return nil
}

// caller reads a certificate. Its claims are lists: dns, uri and ou.
func (m MTLS) caller(cert *x509.Certificate, now time.Time) (Caller, error) {
	// TLS looked at the validity when the connection began, which may be long ago.
	if !now.Before(cert.NotAfter) {
		return Caller{}, unauthenticated(Expired, "the certificate is not valid after %s", cert.NotAfter.Format(time.RFC3339))
	}
	caller := Caller{Method: MethodMTLS, Expires: cert.NotAfter, Claims: map[string]any{
		"dns": list(cert.DNSNames), "uri": list(uris(cert.URIs)), "ou": list(cert.Subject.OrganizationalUnit),
	}}
	for _, source := range m.Subject {
		subject, bad := source.of(cert)
		if bad == "" && subject != "" {
			bad = badSubject(subject)
		}
		if bad != "" {
			return Caller{}, unauthenticated(Invalid, "the certificate's %s %s", source, bad)
		}
		if subject != "" {
			caller.Subject = subject
			return caller, nil
		}
	}
	return Caller{}, unauthenticated(Invalid, "the certificate names nobody: it has none of %v", m.Subject)
}

// of finds the subject, or says what is wrong with it.
func (s SubjectSource) of(cert *x509.Certificate) (subject, bad string) {
	switch s {
	case SubjectSPIFFE:
		for _, uri := range uris(cert.URIs) {
			if !strings.HasPrefix(uri, "spiffe://") {
				continue
			}
			if len(cert.URIs) > 1 {
				return "", "is not its only URI" // as the SPIFFE standard asks for
			}
			subject = uri
		}
		return subject, ""
	case SubjectDNS:
		if len(cert.DNSNames) == 0 {
			return "", ""
		}
		return cert.DNSNames[0], ""
	default:
		return cert.Subject.CommonName, ""
	}
}

func uris(urls []*url.URL) []string {
	out := make([]string, len(urls))
	for i, u := range urls {
		out[i] = u.String()
	}
	return out
}

func list(values []string) []any {
	out := make([]any, len(values))
	for i, v := range values {
		out[i] = v
	}
	return out
}
