package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/prism-data-layer/prism/client"
)

// credentialFlags say how to reach a server that asks who is calling. A token itself is no flag: others could read it in the list
// of processes.
type credentialFlags struct {
	tokenFile     string
	tls           bool
	caFile        string
	certFile      string
	keyFile       string
	serverName    string
	insecureToken bool
}

// credentialNames are the flags of credentialFlags.
var credentialNames = []string{"token-file", "tls", "ca-file", "cert-file", "key-file", "tls-server-name", "insecure-token"}

func (f *credentialFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.tokenFile, "token-file", env("PRISM_TOKEN_FILE", ""),
		"`FILE` with the token to send (env PRISM_TOKEN_FILE; env PRISM_TOKEN is the token itself)")
	flags.BoolVar(&f.tls, "tls", env("PRISM_TLS", "") == "true", "connect with TLS (env PRISM_TLS=true)")
	flags.StringVar(&f.caFile, "ca-file", env("PRISM_CA_FILE", ""),
		"`FILE` with the authorities to trust, PEM; implies --tls (env PRISM_CA_FILE; default the system's)")
	flags.StringVar(&f.certFile, "cert-file", env("PRISM_CERT_FILE", ""),
		"`FILE` with the client's certificate, PEM; implies --tls (env PRISM_CERT_FILE)")
	flags.StringVar(&f.keyFile, "key-file", env("PRISM_KEY_FILE", ""), "`FILE` with its key, PEM (env PRISM_KEY_FILE)")
	flags.StringVar(&f.serverName, "tls-server-name", env("PRISM_TLS_SERVER_NAME", ""),
		"`NAME` that the server's certificate must have (env PRISM_TLS_SERVER_NAME; default the host of --server)")
	flags.BoolVar(&f.insecureToken, "insecure-token", env("PRISM_INSECURE_TOKEN", "") == "true",
		"send the token without TLS to other machines, too (env PRISM_INSECURE_TOKEN=true)")
}

// options are the client's options for the flags.
func (f *credentialFlags) options() ([]client.Option, error) {
	var out []client.Option
	if f.tls || f.caFile != "" || f.certFile != "" || f.keyFile != "" || f.serverName != "" {
		cfg, err := f.config()
		if err != nil {
			return nil, err
		}
		out = append(out, client.WithTLS(cfg))
	}
	if f.insecureToken {
		out = append(out, client.WithPlaintextToken())
	}
	token := os.Getenv("PRISM_TOKEN")
	switch {
	case f.tokenFile != "" && token != "":
		return nil, errors.New("PRISM_TOKEN and --token-file (or PRISM_TOKEN_FILE) are both set: which token is meant?")
	case f.tokenFile != "":
		file := &tokenFile{name: f.tokenFile}
		if _, err := file.token(); err != nil {
			return nil, err
		}
		out = append(out, client.WithTokenSource(func(context.Context) (string, error) { return file.token() }))
	case token != "":
		out = append(out, client.WithToken(strings.TrimSpace(token)))
	}
	return out, nil
}

func (f *credentialFlags) config() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.serverName}
	if f.caFile != "" {
		text, err := os.ReadFile(f.caFile)
		if err != nil {
			return nil, fmt.Errorf("--ca-file: %w", err)
		}
		if cfg.RootCAs = x509.NewCertPool(); !cfg.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--ca-file: %s has no certificates in PEM", f.caFile)
		}
	}
	switch {
	case f.certFile == "" && f.keyFile == "":
		return cfg, nil
	case f.certFile == "" || f.keyFile == "":
		return nil, errors.New("--cert-file and --key-file go together")
	}
	pair, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
	if err != nil {
		return nil, fmt.Errorf("--cert-file, --key-file: %w", err)
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}

// tokenEvery is how long a token that was read from a file is used before it is read again: somebody may renew it there.
const tokenEvery = 10 * time.Second

// tokenFile is a file with a token.
type tokenFile struct {
	name string

	mu   sync.Mutex
	last string
	read time.Time
}

func (f *tokenFile) token() (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last != "" && time.Since(f.read) < tokenEvery {
		return f.last, nil
	}
	text, err := os.ReadFile(f.name)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("--token-file: %s does not hold one token", f.name)
	}
	f.last, f.read = token, time.Now()
	return token, nil
}

// connect returns a client of a server, with the shared flags.
func (p *program) connect(server string) (*client.Client, error) {
	options, err := p.credentials.options()
	if err != nil {
		return nil, err
	}
	options = append(options, tracing()...)
	return client.Dial(server, append(options, client.WithNamespace(p.namespace))...)
}

func completeCredentials(root *cobra.Command) {
	for _, name := range []string{"token-file", "ca-file", "cert-file", "key-file"} {
		must(root.MarkPersistentFlagFilename(name))
	}
	must(root.RegisterFlagCompletionFunc("tls-server-name", cobra.NoFileCompletions))
}
