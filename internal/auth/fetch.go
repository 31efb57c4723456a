package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"
)

// maxKeysBytes is the largest answer of an issuer, and the largest file.
const maxKeysBytes = 1 << 20

// filePoll is how often files are looked at. Polling sees what notifications miss: a folder that is swapped by a symbolic link,
// as Kubernetes does, and network file systems.
const filePoll = 5 * time.Second

// checkURL refuses a URL over which somebody else could slip in keys.
func checkURL(field, raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		return invalid(field, "expected a URL such as https://issuer.example.com, got %q", raw)
	case u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	}
	return invalid(field, "must be https, unless the host is this one, got %q", raw)
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// loader returns how to read the text of the JWK set.
func (j JWT) loader() (func(ctx context.Context) ([]byte, error), error) {
	if j.JWKSFile != "" {
		return func(context.Context) ([]byte, error) { return readFile(j.JWKSFile) }, nil
	}
	client, err := j.client()
	if err != nil {
		return nil, err
	}
	if j.JWKSURL != "" {
		return func(ctx context.Context) ([]byte, error) { return get(ctx, client, j.JWKSURL) }, nil
	}
	return func(ctx context.Context) ([]byte, error) { return discover(ctx, client, j.Issuer) }, nil
}

func (j JWT) client() (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	transport.MaxResponseHeaderBytes = 64 << 10
	transport.DisableKeepAlives = true // a connection every few minutes is not worth keeping
	if j.CAFile != "" {
		pool, err := readPool(j.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{
		Transport: transport,
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > 3 {
				return errors.New("more than 3 redirects")
			}
			return checkURL("redirect", req.URL.String())
		},
	}, nil
}

// discover reads the issuer's metadata as OpenID Connect Discovery has it, and then the keys.
func discover(ctx context.Context, client *http.Client, issuer string) ([]byte, error) {
	at := strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
	text, err := get(ctx, client, at)
	if err != nil {
		return nil, err
	}
	var metadata struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(text, &metadata); err != nil {
		return nil, fmt.Errorf("%s: expected a JSON object: %w", at, err)
	}
	if metadata.Issuer != issuer {
		return nil, fmt.Errorf("%s: is about the issuer %q, not %q", at, shorten(metadata.Issuer), issuer)
	}
	if err := checkURL("jwks_uri", metadata.JWKSURI); err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	return get(ctx, client, metadata.JWKSURI)
}

func get(ctx context.Context, client *http.Client, at string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: answered %s", at, shorten(resp.Status))
	}
	text, err := readBounded(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	return text, nil
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	text, err := readBounded(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}

func readBounded(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxKeysBytes+1))
	if err == nil && len(text) > maxKeysBytes {
		return nil, fmt.Errorf("is larger than %d bytes", maxKeysBytes)
	}
	return text, err
}

func readPool(path string) (*x509.CertPool, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return parsePool(path, text)
}

func parsePool(path string, text []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: expected certificates in PEM", path)
	}
	return pool, nil
}
