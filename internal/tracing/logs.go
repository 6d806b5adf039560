package tracing

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// traceIDKey is the key of the trace in a log line.
const traceIDKey = "trace_id"

// temporalTraceIDKey is the key that Temporal's SDK uses.
const temporalTraceIDKey = "TraceID"

// Logs adds the trace id to log lines whose context has a trace.
func Logs(handler slog.Handler) slog.Handler { return logs{handler} }

type logs struct{ slog.Handler }

func (l logs) Handle(ctx context.Context, record slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		record.AddAttrs(slog.String(traceIDKey, span.TraceID().String()))
	}
	return l.Handler.Handle(ctx, record)
}

func (l logs) WithAttrs(attrs []slog.Attr) slog.Handler { return logs{l.Handler.WithAttrs(attrs)} }

func (l logs) WithGroup(name string) slog.Handler { return logs{l.Handler.WithGroup(name)} }

// RenameKeys changes the key in the log lines of Temporal's SDK to traceIDKey. It is for
// slog.HandlerOptions.
func RenameKeys(_ []string, attr slog.Attr) slog.Attr {
	if attr.Key == temporalTraceIDKey {
		attr.Key = traceIDKey
	}
	return attr
}
