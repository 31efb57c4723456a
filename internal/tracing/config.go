package tracing

import (
	"cmp"
	"fmt"
	"math"
	"net/url"
	"os"
	"strings"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// Config is what Open takes. What is unset is as OpenTelemetry's environment variables say.
type Config struct {
	// Endpoint is the URL of a collector that takes OTLP over HTTP, such as http://127.0.0.1:4318, to which /v1/traces is added;
	// with https it is asked for a certificate. Default: OTEL_EXPORTER_OTLP_ENDPOINT, or else port 4318 of this machine.
	Endpoint string
	// Headers are sent with every export, such as a token. Default: OTEL_EXPORTER_OTLP_HEADERS.
	Headers map[string]string
	// SampleRatio is the part of the traces that begin here, from 0 to 1, that is recorded; those that began at a caller are
	// recorded if the caller records them. Default: OTEL_TRACES_SAMPLER, or else all.
	SampleRatio *float64
	// ServiceName is what the server is called in traces. Default: OTEL_SERVICE_NAME, or else "prism".
	ServiceName string
}

// Validate returns an InvalidError that names the field with an impossible value.
func (c Config) Validate() error {
	bad := func(field, problem string) error {
		return &multicastregistry.InvalidError{Field: field, Problem: problem}
	}
	if c.Endpoint != "" {
		at, problem := parsed(c.Endpoint)
		if problem == "" && strings.HasSuffix(strings.TrimRight(at.Path, "/"), tracesPath) {
			problem = "must be without " + tracesPath + ", which is added"
		}
		if problem != "" {
			return bad("endpoint", problem)
		}
	}
	if r := c.SampleRatio; r != nil && (math.IsNaN(*r) || *r < 0 || *r > 1) {
		return bad("sample_ratio", "must be from 0 to 1")
	}
	return nil
}

// parsed reads the URL of a collector, or says what is wrong with it.
func parsed(endpoint string) (at *url.URL, problem string) {
	at, err := url.Parse(endpoint)
	if err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" || at.User != nil || at.RawQuery != "" {
		return nil, "must be a URL such as http://127.0.0.1:4318"
	}
	return at, ""
}

// wanted returns the configuration with what the environment says about who is to be asked for what. ok is false when traces are
// off: nothing asks for them, or the environment forbids them.
func wanted(given *Config) (cfg Config, ok bool, err error) {
	exporter := os.Getenv("OTEL_TRACES_EXPORTER")
	switch {
	case strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true"), exporter == "none":
		return cfg, false, nil
	case exporter != "" && exporter != "otlp":
		return cfg, false, fmt.Errorf("OTEL_TRACES_EXPORTER: %q is not possible; legal values: otlp, none", exporter)
	case given != nil:
		cfg = *given
	case cmp.Or(exporter, os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"), os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")) == "":
		return cfg, false, nil
	}
	const name, only = "OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"
	protocol := cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), os.Getenv(name), only)
	if cfg.Endpoint == "" && protocol != only { // then the endpoint is of another protocol too
		return cfg, false, fmt.Errorf("%s: %q is not possible; set it to %s, and the endpoint to the collector's port for that, "+
			"which is 4318 as a rule; or say tracing.endpoint in the configuration", name, protocol, only)
	}
	return cfg, true, cfg.Validate()
}
