// Package tracing makes OpenTelemetry traces, one for each reservation, and sends them to
// the destination in the standard OTEL_* environment variables. Without a destination it
// makes nothing and runs nothing.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/opentelemetry"
	"go.temporal.io/sdk/interceptor"
)

const (
	serviceName = "earmark" // unless OTEL_SERVICE_NAME says otherwise
	scopeName   = "github.com/earmark-dev/earmark"
	// flushTimeout bounds how long a stopping process waits for its last spans.
	flushTimeout = 5 * time.Second
)

// Tracing makes and sends spans. A nil Tracing does neither.
type Tracing struct{ provider *sdktrace.TracerProvider }

// FromEnv sets up tracing from the OTEL_* variables; nil if they name no destination. The
// error names the variable that is wrong.
func FromEnv(ctx context.Context, version string, logger *slog.Logger) (*Tracing, error) {
	on, err := wanted()
	if err != nil || !on {
		return nil, err
	}
	exporter, err := newExporter(ctx)
	if err != nil {
		return nil, err
	}
	// Later options win; the environment comes last.
	described, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", serviceName), attribute.String("service.version", version)), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { logger.Warn("Traces were not sent.", "error", err) }))
	return New(sdktrace.WithBatcher(exporter), sdktrace.WithResource(described)), nil
}

// New returns a Tracing with its own options, for tests.
func New(options ...sdktrace.TracerProviderOption) *Tracing {
	return &Tracing{sdktrace.NewTracerProvider(append(options, sdktrace.WithIDGenerator(ids{}), sdktrace.WithSpanProcessor(redactor{}))...)}
}

// wanted reports whether the environment names a destination for traces.
func wanted() (bool, error) {
	exporter := os.Getenv("OTEL_TRACES_EXPORTER")
	switch {
	case strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || exporter == "none":
		return false, nil
	case exporter == "otlp":
		return true, nil
	case exporter != "":
		return false, fmt.Errorf("OTEL_TRACES_EXPORTER is %q; use otlp or none", exporter)
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "", nil
}

// newExporter reads the protocol; the exporter reads the rest of the environment. It does
// not connect yet.
func newExporter(ctx context.Context) (sdktrace.SpanExporter, error) {
	name := "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	protocol := os.Getenv(name)
	if protocol == "" {
		name = "OTEL_EXPORTER_OTLP_PROTOCOL"
		protocol = os.Getenv(name)
	}
	switch protocol {
	case "grpc":
		return otlptracegrpc.New(ctx)
	case "", "http/protobuf": // the standard's default
		return otlptracehttp.New(ctx)
	}
	return nil, fmt.Errorf("%s is %q; use grpc or http/protobuf", name, protocol)
}

// Provider returns the provider for code that makes its own spans; nil if tracing is off.
func (t *Tracing) Provider() trace.TracerProvider {
	if t == nil {
		return nil
	}
	return t.provider
}

// Pool makes a pool trace the queries of traced calls.
func (t *Tracing) Pool(config *pgxpool.Config) {
	if t != nil {
		// The parameters of a query are left out of its span, as they are left out of logs.
		config.ConnConfig.Tracer = otelpgx.NewTracer(otelpgx.WithTracerProvider(t.provider), otelpgx.WithSpanNameFunc(queryName))
	}
}

// Observe makes a Temporal client, and the workers made with it, make traces. The trace
// context travels in headers, which a replay does not compare.
func (t *Tracing) Observe(options *client.Options) error {
	if t == nil {
		return nil
	}
	traced, err := opentelemetry.NewTracingInterceptor(opentelemetry.TracerOptions{
		Tracer: t.provider.Tracer(scopeName),
		// A header from a client in another language must not make its call fail.
		AllowInvalidParentSpans: true,
		DisableQueryTracing:     true, // queries come from people who look at a workflow
	})
	if err != nil {
		return fmt.Errorf("trace Temporal's calls: %w", err)
	}
	options.Interceptors = append([]interceptor.ClientInterceptor{traced}, options.Interceptors...)
	return nil
}

// Shutdown sends the remaining spans.
func (t *Tracing) Shutdown(ctx context.Context, logger *slog.Logger) {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil && !errors.Is(err, context.Canceled) {
		logger.WarnContext(ctx, "The last traces were not sent.", "error", err)
	}
}

// queryName returns the ledger function that a statement calls, or else its first words.
func queryName(statement string) string {
	lines := slices.DeleteFunc(strings.Split(statement, "\n"), func(line string) bool { return strings.HasPrefix(line, "--") })
	words := strings.Fields(strings.Join(lines, " "))
	const enough = 3
	for _, word := range words {
		if function, _, called := strings.Cut(word, "("); called && strings.HasPrefix(function, "earmark.") {
			return function
		}
	}
	return strings.Join(words[:min(len(words), enough)], " ")
}
