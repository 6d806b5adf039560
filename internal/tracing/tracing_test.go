package tracing

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"runtime"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	"go.temporal.io/sdk/client"
)

// withoutTraces takes everything out of the environment that has to do with traces.
func withoutTraces(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		"OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
		"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
	} {
		t.Setenv(name, "")
	}
}

func fromEnv(t *testing.T) (*Tracing, error) {
	t.Helper()
	return FromEnv(t.Context(), "test", slog.New(slog.DiscardHandler))
}

// Where the environment names no place for traces, nothing is made and nothing runs.
func TestOffByDefault(t *testing.T) {
	withoutTraces(t)
	before := runtime.NumGoroutine()
	traces, err := fromEnv(t)
	require.NoError(t, err)
	require.Nil(t, traces)
	require.Nil(t, traces.Provider())
	config, err := pgxpool.ParseConfig("postgres://127.0.0.1/earmark")
	require.NoError(t, err)
	traces.Pool(config)
	require.Nil(t, config.ConnConfig.Tracer)
	var options client.Options
	require.NoError(t, traces.Observe(&options))
	require.Empty(t, options.Interceptors)
	traces.Shutdown(t.Context(), slog.New(slog.DiscardHandler))
	require.Equal(t, before, runtime.NumGoroutine())
}

func TestTheEnvironmentDecides(t *testing.T) {
	const place = "http://127.0.0.1:4318"
	for name, test := range map[string]struct {
		env  map[string]string
		on   bool
		says string // of an error
	}{
		"an endpoint":              {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": place}, true, ""},
		"an endpoint for traces":   {map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": place + "/v1/traces"}, true, ""},
		"an exporter":              {map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, true, ""},
		"over gRPC":                {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": place, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, true, ""},
		"no exporter":              {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": place, "OTEL_TRACES_EXPORTER": "none"}, false, ""},
		"switched off":             {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": place, "OTEL_SDK_DISABLED": "true"}, false, ""},
		"an exporter there is not": {map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, false, `OTEL_TRACES_EXPORTER is "zipkin"; use otlp or none`},
		"a protocol there is not":  {map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, false, `OTEL_EXPORTER_OTLP_PROTOCOL is "http/json"; use grpc or http/protobuf`},
		"another protocol there is not": {map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "udp"}, false,
			`OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is "udp"; use grpc or http/protobuf`},
	} {
		t.Run(name, func(t *testing.T) {
			withoutTraces(t)
			for name, value := range test.env {
				t.Setenv(name, value)
			}
			traces, err := fromEnv(t)
			if test.says != "" {
				require.EqualError(t, err, test.says)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.on, traces != nil)
			traces.Shutdown(t.Context(), slog.New(slog.DiscardHandler))
		})
	}
}

// The calls about one reservation come to one trace in every process, unless their
// caller has one.
func TestATraceIsNamedAfterItsReservation(t *testing.T) {
	t.Parallel()
	here, elsewhere := New(), New()
	begin := func(traces *Tracing, ctx context.Context) trace.SpanContext {
		_, span := traces.Provider().Tracer("test").Start(ctx, "call")
		defer span.End()
		return span.SpanContext()
	}
	mine := WithReservation(t.Context(), "rsv_mine")
	first, second := begin(here, mine), begin(elsewhere, mine)
	require.Equal(t, TraceID("rsv_mine"), first.TraceID())
	require.Equal(t, first.TraceID(), second.TraceID())
	require.NotEqual(t, first.SpanID(), second.SpanID())
	require.NotEqual(t, first.TraceID(), begin(here, WithReservation(t.Context(), "rsv_other")).TraceID())
	unnamed := begin(here, t.Context()).TraceID()
	require.NotEqual(t, unnamed, begin(here, t.Context()).TraceID())

	callers := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled, Remote: true})
	require.Equal(t, callers.TraceID(), begin(here, trace.ContextWithRemoteSpanContext(mine, callers)).TraceID())
}

func TestLogLinesTellTheirTrace(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(Logs(slog.NewJSONHandler(&out, &slog.HandlerOptions{ReplaceAttr: RenameKeys}))).With("tenant", "acme")
	line := func() map[string]any {
		defer out.Reset()
		var fields map[string]any
		require.NoError(t, json.Unmarshal(out.Bytes(), &fields), out.String())
		return fields
	}
	ctx, span := New().Provider().Tracer("test").Start(t.Context(), "call")
	defer span.End()
	log.InfoContext(ctx, "in a trace")
	require.Equal(t, span.SpanContext().TraceID().String(), line()["trace_id"])
	log.InfoContext(t.Context(), "in none")
	require.NotContains(t, line(), "trace_id")
	log.Info("Temporal's SDK", "TraceID", span.SpanContext().TraceID()) //nolint:sloglint // the key of the SDK
	require.Equal(t, span.SpanContext().TraceID().String(), line()["trace_id"])
}

func TestQueriesAreNamedAfterWhatTheyCall(t *testing.T) {
	t.Parallel()
	for statement, name := range map[string]string{
		"SELECT earmark.commit($1, $2)":                "earmark.commit",
		"-- why\nSELECT id\nFROM earmark.reservations": "SELECT id FROM",
		"SELECT * FROM earmark.sweep($1, $2)":          "earmark.sweep",
		"begin":                                        "begin",
		"":                                             "",
	} {
		require.Equal(t, name, queryName(statement))
	}
}
