//go:build unix

package e2e_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
	"github.com/earmark-dev/earmark/internal/tracing"
)

// traces is a collector of OpenTelemetry, by HTTP and by gRPC, that keeps what it is
// sent.
type traces struct {
	collector.UnimplementedTraceServiceServer
	url string

	mu    sync.Mutex
	spans []*tracepb.Span
}

func collect(t *testing.T) *traces {
	t.Helper()
	c := &traces{}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

// traced is setup with a server that sends its traces to url, soon.
func traced(t *testing.T, url string, flags ...string) *env {
	t.Helper()
	s := stack.New(t, stack.Options{})
	s.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
	s.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
	server := s.Serve(flags...).Ready()
	return &env{Stack: s, api: api{t: t, base: server.URL}, server: server}
}

func (c *traces) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var request collector.ExportTraceServiceRequest
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &request) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	_, _ = c.Export(r.Context(), &request)
}

func (c *traces) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range request.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// of are the spans of one trace, by name.
func (c *traces) of(traceID string) map[string]*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := map[string]*tracepb.Span{}
	for _, span := range c.spans {
		if hex.EncodeToString(span.GetTraceId()) == traceID {
			found[span.GetName()] = span
		}
	}
	return found
}

// layers are spans of a reservation that is made and committed, one or more of each
// layer: HTTP, the calls to Temporal, workflow, activity, SQL.
var layers = []string{
	"POST /v1/reservations", "StartWorkflow:Reservation", "RunWorkflow:Reservation", "StartActivity:Reserve", "RunActivity:Reserve", "earmark.reserve",
	"POST /v1/reservations/:id/commit", "earmark.commit", "StartActivity:AwaitSettlement", "RunActivity:AwaitSettlement",
}

// requireWhole waits until a trace has all its layers, and checks that its spans hang
// together: all but those of the calls have their parent in it, or in its caller.
func (c *traces) requireWhole(t *testing.T, traceID, callersSpan string) {
	t.Helper()
	var spans map[string]*tracepb.Span
	complete := func() bool {
		spans = c.of(traceID)
		return !slices.ContainsFunc(layers, func(name string) bool { return spans[name] == nil })
	}
	for end := time.Now().Add(moment); !complete() && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond) //nolint:forbidigo // polls
	}
	require.Subset(t, slices.Collect(maps.Keys(spans)), layers, "the trace is not whole")
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := map[string]bool{}
	for _, span := range c.spans {
		if hex.EncodeToString(span.GetTraceId()) == traceID {
			ids[hex.EncodeToString(span.GetSpanId())] = true
		}
	}
	for _, name := range layers {
		parent := hex.EncodeToString(spans[name].GetParentSpanId())
		if strings.HasPrefix(name, "POST ") {
			require.Equal(t, callersSpan, parent, name)
		} else {
			require.True(t, ids[parent], "%s has no parent", name)
		}
	}
}

func TestOneTraceAReservation(t *testing.T) {
	t.Parallel()
	c := collect(t)
	b := traced(t, c.url, "--log-level", "debug", "--log-format", "json")
	b.budget("acme", "tokens", 1000)

	// Nobody traces but Earmark: the trace is named after the reservation.
	id := b.hold("one", tokens("acme", 100, 60)).ID
	b.commit(id, 40).status(t, http.StatusOK)
	traceID := tracing.TraceID(id).String()
	c.requireWhole(t, traceID, "")

	// Without a key as well, where the server makes the id.
	unkeyed := decoded[earmark.Reservation](t, b.do("POST", "/v1/reservations", tokens("acme", 100, 60)).status(t, http.StatusCreated)).ID
	b.commit(unkeyed, 40).status(t, http.StatusOK)
	c.requireWhole(t, tracing.TraceID(unkeyed).String(), "")

	// The caller traces: the spans are part of its trace.
	const callers, callersSpan = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	parent := "00-" + callers + "-" + callersSpan + "-01"
	joined := decoded[earmark.Reservation](t, b.do("POST", "/v1/reservations", tokens("acme", 100, 60), "traceparent", parent).status(t, http.StatusCreated)).ID
	b.do("POST", "/v1/reservations/"+joined+"/commit", `{"usage":{"tokens":7}}`, "traceparent", parent).status(t, http.StatusOK)
	c.requireWhole(t, callers, callersSpan)
	require.Empty(t, c.of(tracing.TraceID(joined).String()))

	// Other clients send no headers, and are served all the same.
	signalled := b.hold("signalled", tokens("acme", 100, 60)).ID
	require.NoError(t, b.Client().SignalWorkflow(t.Context(), "reservation-"+signalled, "", "commit", map[string]any{"usage": map[string]int{"tokens": 5}}))
	b.awaitState(signalled, earmark.StateCommitted, moment)

	line := b.logLine("/v1/reservations/:id/commit", id)
	require.Equal(t, traceID, line["trace_id"])
	require.Equal(t, earmark.DefaultTenant, line["tenant"])

	for _, name := range []string{"GET /metrics", "GET /readyz"} {
		c.mu.Lock()
		require.False(t, slices.ContainsFunc(c.spans, func(span *tracepb.Span) bool { return span.GetName() == name }), "%s is not worth a trace", name)
		c.mu.Unlock()
	}
}

// logLine finds the line of an answered call in the server's log.
func (b *env) logLine(route, id string) map[string]any {
	b.t.Helper()
	for line := range strings.Lines(b.server.Log()) {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) == nil && fields["route"] == route && fields["reservation_id"] == id {
			return fields
		}
	}
	require.FailNow(b.t, "the log has no such line", "%s %s:\n%s", route, id, b.server.Log())
	return nil
}

func TestTracesOverGRPC(t *testing.T) {
	t.Parallel()
	c := &traces{}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, c)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	s := stack.New(t, stack.Options{})
	s.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	s.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+listener.Addr().String())
	process := s.Serve().Ready()
	b := api{t: t, base: process.URL}
	b.budget("acme", "tokens", 1000)
	id := b.hold("one", tokens("acme", 100, 60)).ID
	b.commit(id, 40).status(t, http.StatusOK)
	process.Stop() // which sends what is left
	require.Subset(t, slices.Collect(maps.Keys(c.of(tracing.TraceID(id).String()))), layers)
}

// A collector that is away costs nothing but its traces, and a variable that makes
// no sense is reported at the start.
func TestTracesAreNotNeeded(t *testing.T) {
	t.Parallel()
	b := traced(t, "http://127.0.0.1:1")
	b.budget("acme", "tokens", 1000)
	b.commit(b.hold("one", tokens("acme", 100, 60)).ID, 40).status(t, http.StatusOK)

	s := stack.New(t, stack.Options{})
	s.Setenv("OTEL_TRACES_EXPORTER", "zipkin")
	result := s.Run("worker")
	require.Equal(t, 2, result.Code)
	require.Contains(t, result.Stderr, `OTEL_TRACES_EXPORTER is "zipkin"; use otlp or none`)
}
