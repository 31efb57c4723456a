package tracing

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// secured returns what the environment says about certificates: who vouches for the collector, and who we are to it.
func secured() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if file := environment("CERTIFICATE"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_CERTIFICATE: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_CERTIFICATE: %s holds no certificate", file)
		}
	}
	const certificate, key = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_KEY"
	switch ours, private := environment("CLIENT_CERTIFICATE"), environment("CLIENT_KEY"); {
	case ours == "" && private == "":
	case ours == "" || private == "":
		return nil, fmt.Errorf("%s and %s: one is of no use without the other", certificate, key)
	default:
		pair, err := tls.LoadX509KeyPair(ours, private)
		if err != nil {
			return nil, fmt.Errorf("%s or %s: %w", certificate, key, err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}
