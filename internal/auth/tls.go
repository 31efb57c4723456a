package auth

import (
	"crypto/tls"
	"slices"
	"time"
)

// ClientAuth is whether clients show certificates.
type ClientAuth string

// Whether clients show certificates. One that is shown must be good, required or not.
const (
	ClientAuthNone     ClientAuth = "none"
	ClientAuthOptional ClientAuth = "optional"
	ClientAuthRequired ClientAuth = "required"
)

// TLS is how a server secures its connections.
type TLS struct {
	// CertFile and KeyFile hold the certificate, with those between it and its authority behind it, and its key, in PEM.
	CertFile, KeyFile string
	// ClientCAFile holds the authorities, in PEM, that vouch for clients.
	ClientCAFile string
	// ClientAuth is whether clients show certificates. Default: required with ClientCAFile, none without.
	ClientAuth ClientAuth
	// MinVersion is "1.2" or "1.3", the default.
	MinVersion string
	// PollInterval is how often the files are looked at. Default (0): 5 s.
	PollInterval time.Duration
}

func (t TLS) withDefaults() TLS {
	setDefault(&t.MinVersion, "1.3")
	setDefault(&t.PollInterval, filePoll)
	if t.ClientCAFile != "" {
		setDefault(&t.ClientAuth, ClientAuthRequired)
	}
	setDefault(&t.ClientAuth, ClientAuthNone)
	return t
}

// Validate returns an InvalidError that names the field at fault. It reads no file.
func (t TLS) Validate() error {
	t = t.withDefaults()
	switch {
	case t.CertFile == "":
		return invalid("cert_file", "is required")
	case t.KeyFile == "":
		return invalid("key_file", "is required")
	case t.MinVersion != "1.2" && t.MinVersion != "1.3":
		return invalid("min_version", "expected 1.2 or 1.3, got %q", t.MinVersion)
	case t.PollInterval < 0:
		return invalid("poll_interval", "must not be negative, got %s", t.PollInterval)
	case !slices.Contains([]ClientAuth{ClientAuthNone, ClientAuthOptional, ClientAuthRequired}, t.ClientAuth):
		return invalid("client_auth", "expected none, optional or required, got %q", t.ClientAuth)
	case t.ClientAuth != ClientAuthNone && t.ClientCAFile == "":
		return invalid("client_ca_file", "is required with client_auth %s: certificates of clients are checked against it",
			t.ClientAuth)
	case t.ClientAuth == ClientAuthNone && t.ClientCAFile != "":
		return invalid("client_ca_file", "has no effect with client_auth none")
	}
	return nil
}

// read makes a configuration of what the files hold now. text is all of it.
func (t TLS) read() (config *tls.Config, text []byte, err error) {
	paths := []string{t.CertFile, t.KeyFile}
	if t.ClientCAFile != "" {
		paths = append(paths, t.ClientCAFile)
	}
	var texts [3][]byte
	for i, path := range paths {
		if texts[i], err = readFile(path); err != nil {
			return nil, nil, err
		}
		text = append(append(text, texts[i]...), 0)
	}
	pair, err := tls.X509KeyPair(texts[0], texts[1])
	if err != nil {
		return nil, text, err
	}
	config = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}}
	if t.MinVersion == "1.2" {
		config.MinVersion = tls.VersionTLS12
	}
	if t.ClientAuth == ClientAuthNone {
		return config, text, nil
	}
	if config.ClientCAs, err = parsePool(t.ClientCAFile, texts[2]); err != nil {
		return nil, text, err
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	if t.ClientAuth == ClientAuthOptional {
		config.ClientAuth = tls.VerifyClientCertIfGiven
	}
	// A resumed session would be good for a client whose authority has been removed since.
	config.SessionTicketsDisabled = true
	return config, text, nil
}
