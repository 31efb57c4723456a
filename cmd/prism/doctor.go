package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/app"
	"github.com/prism-data-layer/prism/internal/auth"
	"github.com/prism-data-layer/prism/internal/doctor"
)

// doctorFlags is what doctor is told.
type doctorFlags struct {
	config   string
	prefix   string
	marker   string
	metadata string
}

func newDoctorCmd(p *program) *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what is wrong with a server",
		Long: `Find out what is wrong with a server, or with a configuration before a server runs with it. One identity is registered in
each namespace, renewed, found, sent messages, which it acknowledges, and removed; clocks are compared. Without --namespace all
namespaces are examined that the caller may use.

With --config, the file and the certificates that it names are checked, keys of an issuer are fetched, the backends are opened,
and the same is tried on them, in this process; servers that run on the same backends are not disturbed.

The exit code is 1 when something has failed.`,
		Example: `  prism doctor --server prism.internal:8980 --token-file token
  prism doctor --config /etc/prism/prism.yaml
  prism doctor --identity 'alice/doctor-' --metadata '{"tenant": "alice"}'   # for a caller who may not do everything`,
		Args:              args(cobra.NoArgs, "no arguments"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return p.doctor(cmd, f) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", "", "examine a configuration `FILE` (YAML) and its backends, in place of a server")
	flags.StringVar(&f.prefix, "identity", doctor.DefaultPrefix, "`PREFIX` of the names of the identities that are registered")
	flags.StringVar(&f.marker, "marker", doctor.DefaultMarker, "`FIELD` of their metadata, a text, by which they find themselves")
	flags.StringVar(&f.metadata, "metadata", "", "the rest of their metadata, as a `JSON` object")
	must(cmd.MarkFlagFilename("config", "yaml", "yml"))
	for _, name := range []string{"identity", "marker", "metadata"} {
		must(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	return cmd
}

func (p *program) doctor(cmd *cobra.Command, f doctorFlags) (err error) {
	ctx := cmd.Context()
	cfg := doctor.Config{Prefix: f.prefix, Marker: f.marker, Timeout: p.timeout}
	if cmd.Flags().Changed("namespace") || os.Getenv("PRISM_NAMESPACE") != "" {
		cfg.Namespaces = []string{p.namespace}
	}
	if f.metadata != "" {
		if err := json.Unmarshal([]byte(f.metadata), &cfg.Metadata); err != nil {
			return usagef(cmd, "--metadata is not a JSON object: %v", err)
		}
	}
	var findings []doctor.Finding
	if p.format == formatTable {
		cfg.Found = func(found doctor.Finding) { p.finding(found) }
	}
	note := func(found doctor.Finding) {
		findings = append(findings, found)
		if cfg.Found != nil {
			cfg.Found(found)
		}
	}
	connect := func() (*client.Client, error) { return p.connect(p.server) }
	if f.config != "" {
		at, stop, healthy := examineConfig(ctx, f.config, note)
		if !healthy {
			return p.diagnosis(findings)
		}
		defer func() { err = errors.Join(err, stop()) }()
		connect = func() (*client.Client, error) { return client.Dial(at.GRPC) }
	}
	c, err := connect()
	if err != nil {
		return err
	}
	defer c.Close()
	return p.diagnosis(append(findings, doctor.Examine(ctx, c, cfg)...))
}

// diagnosis ends with the findings, and the exit code that they deserve.
func (p *program) diagnosis(findings []doctor.Finding) error {
	if p.format != formatTable {
		if err := each(p, findings); err != nil {
			return err
		}
	}
	if !doctor.Healthy(findings) {
		return exit{exitError}
	}
	return nil
}

// finding prints one finding, as it comes.
func (p *program) finding(f doctor.Finding) {
	what := f.Check
	if f.Namespace != "" {
		what = f.Namespace + ": " + what
	}
	fmt.Fprintf(p.out, "%-8s %s: %s\n", f.Verdict, cell(what), brief(f.Detail))
	if f.Advice != "" {
		fmt.Fprintf(p.out, "%-8s %s\n", "", f.Advice)
	}
}

// examineConfig checks a configuration, and serves it without what finds out who is calling.
func examineConfig(ctx context.Context, file string, note func(doctor.Finding)) (at app.Addresses, stop func() error, ok bool) {
	cfg, err := app.Load(file)
	if err != nil {
		note(doctor.Finding{Check: "configuration", Verdict: doctor.Failed, Detail: err.Error()})
		return at, nil, false
	}
	note(doctor.Finding{
		Check: "configuration", Verdict: doctor.OK,
		Detail: file + ", " + counted(len(cfg.Namespaces), "namespace", "namespaces"),
	})
	ok = true
	for _, check := range []struct {
		what string
		do   func(context.Context, app.Config) (detail, advice string, err error)
	}{{"certificate", examineCertificate}, {"keys of the issuer", examineIssuer}} {
		detail, advice, err := check.do(ctx, cfg)
		f := doctor.Finding{Check: check.what, Verdict: doctor.OK, Detail: detail, Advice: advice}
		switch {
		case err != nil:
			f.Verdict, f.Detail, ok = doctor.Failed, err.Error(), false
		case detail == "":
			continue
		case advice != "":
			f.Verdict = doctor.Warning
		}
		note(f)
	}
	cfg.TLS, cfg.Auth, cfg.AuditLog, cfg.Listen.Admin = nil, nil, "", ""
	for i := range cfg.Namespaces {
		cfg.Namespaces[i].Access = nil
	}
	start := time.Now()
	at, stop, err = embed(ctx, cfg)
	if err != nil {
		note(doctor.Finding{
			Check: "open the backends", Verdict: doctor.Failed, Detail: err.Error(),
			Advice: "The message names namespace and slot: is that backend running there, and are address, password and TLS right?",
		})
		return at, nil, false
	}
	note(doctor.Finding{
		Check: "open the backends", Verdict: doctor.OK, Detail: fmt.Sprintf("in %s", time.Since(start).Round(time.Millisecond)),
	})
	if !ok {
		_ = stop() // what is wrong is known already
	}
	return at, stop, ok
}

// expiresSoon is from when on a certificate that ends is worth a word.
const expiresSoon = 14 * 24 * time.Hour

func examineCertificate(_ context.Context, cfg app.Config) (detail, advice string, err error) {
	if cfg.TLS == nil {
		return "", "", nil
	}
	reloader, err := auth.ServerTLS(*cfg.TLS, slog.New(slog.DiscardHandler)) //nolint:contextcheck // closed at once
	if err != nil {
		return "", "", err
	}
	reloader.Close()
	text, err := os.ReadFile(cfg.TLS.CertFile)
	if err != nil {
		return "", "", err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return "", "", fmt.Errorf("%s has no certificate in PEM", cfg.TLS.CertFile)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", cfg.TLS.CertFile, err)
	}
	left := time.Until(certificate.NotAfter)
	names := strings.Join(certificate.DNSNames, ", ")
	switch {
	case left <= 0:
		return "", "", fmt.Errorf("%s has expired at %s", cfg.TLS.CertFile, certificate.NotAfter.Format(time.RFC3339))
	case left < expiresSoon:
		advice = "Renew it: a server takes the new files by itself."
	}
	return fmt.Sprintf("for %s, until %s", names, certificate.NotAfter.Format(time.RFC3339)), advice, nil
}

func examineIssuer(ctx context.Context, cfg app.Config) (detail, advice string, err error) {
	if cfg.Auth == nil || cfg.Auth.JWT == nil {
		return "", "", nil
	}
	authenticator, err := auth.Open(ctx, *cfg.Auth, slog.New(slog.DiscardHandler))
	if err != nil {
		return "", "", err
	}
	defer authenticator.Close()
	if err := authenticator.Ready(); err != nil {
		return "", "", err
	}
	return cfg.Auth.JWT.Issuer + ": read", "", nil
}
