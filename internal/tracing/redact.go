package tracing

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/earmark-dev/earmark/internal/keys"
)

// redactor takes the secrets of API keys out of the attributes with which a span starts: a caller may have put a
// key into the path of its call.
type redactor struct{}

// OnStart is called before the span is used.
func (redactor) OnStart(_ context.Context, span sdktrace.ReadWriteSpan) {
	for _, a := range span.Attributes() {
		if a.Value.Type() != attribute.STRING {
			continue
		}
		if text := a.Value.AsString(); keys.InText.MatchString(text) {
			span.SetAttributes(a.Key.String(keys.WithoutSecrets(text)))
		}
	}
}

// OnEnd, Shutdown and ForceFlush have nothing to do.
func (redactor) OnEnd(sdktrace.ReadOnlySpan)      {}
func (redactor) Shutdown(context.Context) error   { return nil }
func (redactor) ForceFlush(context.Context) error { return nil }
