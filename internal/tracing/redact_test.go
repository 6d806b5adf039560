package tracing

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/earmark-dev/earmark/internal/keys"
)

func TestSpansShowNoSecrets(t *testing.T) {
	t.Parallel()
	key := keys.New()
	recorder := tracetest.NewSpanRecorder()
	traced := New(sdktrace.WithSpanProcessor(recorder))
	_, span := traced.provider.Tracer("test").Start(t.Context(), "GET",
		trace.WithAttributes(attribute.String("url.path", "/v1/"+key.Text()), attribute.Int("http.response.status_code", 400)))
	span.End()
	require.ElementsMatch(t, []attribute.KeyValue{
		attribute.String("url.path", "/v1/emk_"+key.ID+"_…"), attribute.Int("http.response.status_code", 400),
	}, recorder.Ended()[0].Attributes())
}
