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

// reservationIDKey is where a call keeps the id of the reservation that it is about.
const reservationIDKey = "reservation_id"

// identify finds out before anything else which reservation a call is about, so
// that its log line and its trace tell.
func identify(c *gin.Context) {
	if id := idOfCall(c); id != "" {
		c.Set(reservationIDKey, id)
		c.Request = c.Request.WithContext(tracing.WithReservation(c.Request.Context(), id))
	}
	c.Next()
}

// idOfCall is empty for a call that is about no one reservation.
func idOfCall(c *gin.Context) string {
	route := c.FullPath()
	if strings.HasPrefix(route, "/v1/reservations/:id") && earmark.IsReservationID(c.Param("id")) {
		return c.Param("id")
	}
	if c.Request.Method != http.MethodPost || (route != "/v1/reservations" && route != "/v1/usage") {
		return ""
	}
	switch key, err := idempotencyKey(c); {
	case err != nil: // the handler says so
		return ""
	case key != "":
		return earmark.ReservationID(earmark.DefaultTenant, key)
	case route == "/v1/reservations":
		return earmark.NewReservationID()
	}
	return ""
}

// traceCalls makes a span of each call of /v1, in its caller's trace if it has one.
func traceCalls(traces trace.TracerProvider) gin.HandlerFunc {
	return otelgin.Middleware("earmark",
		otelgin.WithTracerProvider(traces),
		otelgin.WithPropagators(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})),
		otelgin.WithGinFilter(func(c *gin.Context) bool { return strings.HasPrefix(c.FullPath(), "/v1/") }))
}

// describeSpan tells in the call's span what it was about.
func describeSpan(c *gin.Context, id string) {
	if span := trace.SpanFromContext(c.Request.Context()); id != "" && span.IsRecording() {
		span.SetAttributes(attribute.String("earmark.reservation_id", id), attribute.String("earmark.tenant", earmark.DefaultTenant))
	}
}
