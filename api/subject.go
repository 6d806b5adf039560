package api

import (
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/contrib/instrumentation/github.com/gin-gonic/gin/otelgin"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/tracing"
)

// subject is the reservation that a call is about.
type subject struct {
	reservationID string // empty for a call that is not about one reservation
	// key is the Idempotency-Key of a call that may have one; keyErr is the error if it is
	// invalid.
	key    string
	keyErr error
}

const subjectKey = "subject"

// subjectOf determines the subject once for each call. The handlers use it, and the log and
// the trace of the call name it, in any order.
func subjectOf(c *gin.Context) subject {
	if known, found := c.Get(subjectKey); found {
		return known.(subject)
	}
	s := newSubject(c)
	c.Set(subjectKey, s)
	return s
}

// newSubject reads the id from the path, derives it from the Idempotency-Key, or generates
// one for a reservation without a key.
func newSubject(c *gin.Context) (s subject) {
	route := c.FullPath()
	if strings.HasPrefix(route, "/v1/reservations/:id") && earmark.IsReservationID(c.Param("id")) {
		return subject{reservationID: c.Param("id")}
	}
	if c.Request.Method != http.MethodPost || (route != "/v1/reservations" && route != "/v1/usage") {
		return s
	}
	s.key, s.keyErr = idempotencyKey(c)
	switch {
	case s.keyErr != nil:
	case s.key != "":
		s.reservationID = earmark.ReservationID(callerOf(c).tenant, s.key)
	case route == "/v1/reservations":
		s.reservationID = earmark.NewReservationID()
	}
	return s
}

// traceReservation makes a trace that begins with this call the trace of the reservation.
func traceReservation(c *gin.Context) {
	if id := subjectOf(c).reservationID; id != "" {
		c.Request = c.Request.WithContext(tracing.WithReservation(c.Request.Context(), id))
	}
	c.Next()
}

// traceCalls makes a span for each call of /v1, in its caller's trace if it has one.
func traceCalls(traces trace.TracerProvider) gin.HandlerFunc {
	return otelgin.Middleware("earmark",
		otelgin.WithTracerProvider(traces),
		// Baggage is not taken in: nothing here reads it, and OpenTelemetry quotes a header that it cannot parse to the log.
		otelgin.WithPropagators(propagation.TraceContext{}),
		otelgin.WithGinFilter(func(c *gin.Context) bool { return strings.HasPrefix(c.FullPath(), "/v1/") }))
}

// describeSpan adds the call's subject to its span.
func describeSpan(c *gin.Context, id string) {
	if span := trace.SpanFromContext(c.Request.Context()); id != "" && span.IsRecording() {
		span.SetAttributes(attribute.String("earmark.reservation_id", id), attribute.String("earmark.tenant", callerOf(c).tenant))
	}
}
