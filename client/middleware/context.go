package middleware

import (
	"context"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
)

type contextKey struct{}

type run struct {
	meter       *client.Meter
	reservation *earmark.Reservation
}

func with(ctx context.Context, meter *client.Meter, reservation *earmark.Reservation) context.Context {
	return context.WithValue(ctx, contextKey{}, run{meter, reservation})
}

// Meter returns the meter of the guarded request that ctx belongs to. Without a guard it
// returns a meter that nobody reads, so that a handler also runs alone, for example in
// tests.
func Meter(ctx context.Context) *client.Meter {
	if guarded, ok := ctx.Value(contextKey{}).(run); ok {
		return guarded.meter
	}
	return &client.Meter{}
}

// NothingSent marks the request as answered without spending anything, and releases the
// reservation. Counted usage takes precedence.
func NothingSent(ctx context.Context) { Meter(ctx).NothingSent() }

// Reservation returns the reservation of the request that ctx belongs to; nil without a
// guard, and with WithFailOpen while Earmark is away.
func Reservation(ctx context.Context) *earmark.Reservation {
	guarded, _ := ctx.Value(contextKey{}).(run)
	return guarded.reservation
}
