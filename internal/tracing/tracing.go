package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// Name is the instrumentation scope of all spans of a server.
const Name = "github.com/prism-data-layer/prism"

const (
	// flushTimeout bounds what a server that ends waits for a collector to take what is left.
	flushTimeout = 3 * time.Second
	// defaultService is the name of a server that was given none.
	defaultService = "prism"
)

// Tracing is the tracing of one server. All methods may be called concurrently; those of a nil Tracing do nothing.
type Tracing struct {
	provider *sdktrace.TracerProvider
	exporter *exporter
	tracer   trace.Tracer
}

// Open returns the tracing that a configuration asks for, or, when there is none, OpenTelemetry's environment variables. It
// returns nil, which is no error, when nothing does. It does not wait for the collector. The caller closes it.
//
// The environment may be meant for other programs: what is wrong with it, when there is no configuration, is logged, and is no
// error.
func Open(ctx context.Context, given *Config, version string, logger *slog.Logger) (*Tracing, error) {
	t, err := open(ctx, given, version, logger)
	if err != nil && given == nil {
		logger.LogAttrs(ctx, slog.LevelWarn, "traces are off: OpenTelemetry's environment variables do not fit", slog.Any("error", err))
		return nil, nil
	}
	return t, err
}

func open(ctx context.Context, given *Config, version string, logger *slog.Logger) (*Tracing, error) {
	cfg, ok, err := wanted(given)
	if err != nil {
		return nil, err
	}
	if !ok {
		if given != nil {
			logger.LogAttrs(ctx, slog.LevelWarn, "traces are off: OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER says so")
		}
		return nil, nil
	}
	client, err := newUploader(cfg)
	if err != nil {
		return nil, err
	}
	described, err := describe(ctx, cfg, version)
	switch {
	case err != nil && given != nil:
		return nil, err
	case err != nil:
		logger.LogAttrs(ctx, slog.LevelWarn, "traces are without what does not fit", slog.Any("error", err))
	}
	inner, err := otlptrace.New(ctx, client)
	if err != nil {
		return nil, err
	}
	t := &Tracing{exporter: newExporter(inner, logger)}
	options := []sdktrace.TracerProviderOption{sdktrace.WithResource(described), sdktrace.WithSpanProcessor(newQueue(t.exporter))}
	if cfg.SampleRatio != nil {
		options = append(options, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(*cfg.SampleRatio))))
	}
	t.provider = sdktrace.NewTracerProvider(options...)
	t.tracer = t.provider.Tracer(Name, trace.WithInstrumentationVersion(version), trace.WithSchemaURL(semconv.SchemaURL))
	return t, nil
}

// describe tells whose traces they are; with an error, as far as that makes sense. The configuration comes before the
// environment, and that before what we call ourselves.
func describe(ctx context.Context, cfg Config, version string) (*resource.Resource, error) {
	own := []attribute.KeyValue{semconv.ServiceName(defaultService)}
	if version != "" {
		own = append(own, semconv.ServiceVersion(version))
	}
	options := []resource.Option{
		resource.WithSchemaURL(semconv.SchemaURL), resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(own...), resource.WithFromEnv(),
	}
	if cfg.ServiceName != "" {
		options = append(options, resource.WithAttributes(semconv.ServiceName(cfg.ServiceName)))
	}
	described, err := resource.New(ctx, options...)
	switch {
	case errors.Is(err, resource.ErrSchemaURLConflict): // of the SDK's own parts, which say the same in another version
		return described, nil
	case err != nil:
		return described, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return described, nil
}

// Tracer returns what makes the spans of calls; nil when tracing is off.
func (t *Tracing) Tracer() trace.Tracer {
	if t == nil {
		return nil
	}
	return t.tracer
}

// Close sends what is left, as far as the collector takes it in a few seconds, and ends the tracing.
func (t *Tracing) Close() {
	if t == nil {
		return
	}
	giveUp := time.AfterFunc(flushTimeout, t.exporter.giveUp)
	defer giveUp.Stop()
	_ = t.provider.Shutdown(context.Background()) // the exporter logs what fails
	t.exporter.finish(context.Background())
}
