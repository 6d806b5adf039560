package tracing

import (
	"context"
	"crypto/rand"
	"crypto/sha256"

	"go.opentelemetry.io/otel/trace"
)

type reservationKey struct{}

// WithReservation makes a trace that begins in ctx the reservation's: calls that
// come without a trace of their caller's are found together, however far apart.
func WithReservation(ctx context.Context, reservationID string) context.Context {
	return context.WithValue(ctx, reservationKey{}, reservationID)
}

// TraceID is the trace of a reservation whose callers have none of their own. It
// follows from the id, so that every process comes to the same, and to the same
// decision on whether it is sampled.
func TraceID(reservationID string) (id trace.TraceID) {
	sum := sha256.Sum256([]byte("trace of " + reservationID))
	copy(id[:], sum[:])
	return id
}

// ids makes the ids of traces and spans.
type ids struct{}

// NewIDs begins a trace.
func (ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	reservationID, _ := ctx.Value(reservationKey{}).(string)
	if reservationID != "" {
		return TraceID(reservationID), newSpanID()
	}
	var id trace.TraceID
	_, _ = rand.Read(id[:]) // never fails
	return id, newSpanID()
}

// NewSpanID goes on with a trace.
func (ids) NewSpanID(context.Context, trace.TraceID) trace.SpanID { return newSpanID() }

func newSpanID() (id trace.SpanID) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}
