package tracing

import (
	"context"
	"crypto/rand"
	"crypto/sha256"

	"go.opentelemetry.io/otel/trace"
)

type reservationKey struct{}

// WithReservation makes a trace that begins in ctx the trace of the reservation: it joins
// calls of callers that send no trace of their own, however far apart they are.
func WithReservation(ctx context.Context, reservationID string) context.Context {
	return context.WithValue(ctx, reservationKey{}, reservationID)
}

// TraceID returns the trace of a reservation whose callers send none. It is derived from
// the id, so that every process gets the same trace and the same sampling decision.
func TraceID(reservationID string) (id trace.TraceID) {
	sum := sha256.Sum256([]byte("trace of " + reservationID))
	copy(id[:], sum[:])
	return id
}

// ids generates the ids of traces and spans.
type ids struct{}

// NewIDs returns the ids of a new trace and its first span.
func (ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	reservationID, _ := ctx.Value(reservationKey{}).(string)
	if reservationID != "" {
		return TraceID(reservationID), newSpanID()
	}
	var id trace.TraceID
	_, _ = rand.Read(id[:]) // never fails
	return id, newSpanID()
}

// NewSpanID returns the id of a further span of a trace.
func (ids) NewSpanID(context.Context, trace.TraceID) trace.SpanID { return newSpanID() }

func newSpanID() (id trace.SpanID) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}
