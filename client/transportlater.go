package client

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/earmark-dev/earmark"
)

// Bounds of what is charged later.
const (
	maxLaterCharges   = 100_000 // about 1 KB each
	laterLimit        = 24 * time.Hour
	firstLaterPause   = 500 * time.Millisecond
	longestLaterPause = 30 * time.Second
	laterAttemptLimit = 30 * time.Second
)

var (
	errTooManyLater = errors.New("too much usage waits to be charged")
	errClosed       = errors.New("the transport was closed")
)

// laterCharges charges usage once Earmark is back.
type laterCharges struct {
	client    *Client
	uncharged func(context.Context, earmark.UsageRequest, error)
	closed    chan struct{}
	closing   sync.Once

	mu      sync.Mutex
	pending int
	empty   *sync.Cond
}

func (l *laterCharges) init(c *Client, uncharged func(context.Context, earmark.UsageRequest, error)) {
	l.client, l.uncharged, l.closed = c, uncharged, make(chan struct{})
	l.empty = sync.NewCond(&l.mu)
}

// lateCharge is usage, and how it is charged: a second time it changes nothing.
type lateCharge struct {
	usage  earmark.UsageRequest
	charge func(context.Context) error
}

func (l *laterCharges) add(ctx context.Context, late lateCharge) {
	l.mu.Lock()
	full := l.pending >= maxLaterCharges
	if !full {
		l.pending++
	}
	l.mu.Unlock()
	if full {
		l.lost(ctx, late, errTooManyLater)
		return
	}
	go func() {
		defer l.done()
		if err := l.untilCharged(ctx, late); err != nil {
			l.lost(ctx, late, err)
		}
	}()
}

func (l *laterCharges) done() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending--; l.pending == 0 {
		l.empty.Broadcast()
	}
}

func (l *laterCharges) untilCharged(ctx context.Context, late lateCharge) error {
	ctx, cancel := context.WithTimeout(ctx, laterLimit)
	defer cancel()
	for pause := firstLaterPause; ; pause = min(2*pause, longestLaterPause) {
		attempt, end := context.WithTimeout(ctx, laterAttemptLimit)
		err := late.charge(attempt)
		end()
		switch code := earmark.ErrorCode(err); {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return err
		case code != earmark.CodeUnavailable && code != earmark.CodeAdmissionUnknown && code != earmark.CodeRateLimited && !errors.Is(err, errForeign):
			return err
		}
		timer := time.NewTimer(pause - rand.N(pause/2)) //nolint:gosec // jitter is no secret
		select {
		case <-timer.C:
		case <-l.closed:
			timer.Stop()
			return errors.Join(errClosed, err)
		}
	}
}

func (l *laterCharges) lost(ctx context.Context, late lateCharge, err error) {
	l.client.log.ErrorContext(ctx, "usage was not charged", slog.Any("scopes", late.usage.Scopes),
		slog.String("usage", late.usage.Amounts.String()), slog.String("provider_usage", string(late.usage.ProviderUsage)), slog.Any("error", err))
	if l.uncharged != nil {
		l.uncharged(ctx, late.usage, err)
	}
}

// close waits until nothing is left, or ctx has ended; then each gives up.
func (l *laterCharges) close(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { l.closing.Do(func() { close(l.closed) }) })
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.pending > 0 {
		l.empty.Wait()
	}
}

// recommit repeats a commit whose outcome is not known.
func (g *guardedCall) recommit(said report) lateCharge {
	id := g.run.reservation.ID
	return lateCharge{g.usage(said), func(ctx context.Context) error { return g.commitTo(ctx, id, said) }}
}

func (g *guardedCall) commitTo(ctx context.Context, id string, said report) error {
	_, err := g.transport.client.settle(ctx, changeCall(id, verbCommit, commitBody{Usage: said.usage, Response: said.response, Estimated: said.estimated}))
	return err
}

// chargeLater charges a call that went without a reservation. If nobody knows its usage, the
// expiry policy decides, as it does for a reservation.
func (g *guardedCall) chargeLater(said report) {
	switch {
	case said.nothingSent:
		return
	case said.usage == nil && !said.response.Given():
		if g.request.OnExpiry == earmark.OnExpiryRelease {
			return
		}
		said = g.worstCase()
		if g.request.OnExpiry == earmark.OnExpiryReview {
			g.transport.later.lost(g.ctx, lateCharge{usage: g.usage(said)}, ErrUsageUnknown)
			return
		}
	}
	usage := g.usage(said)
	g.transport.later.add(g.ctx, lateCharge{usage, func(ctx context.Context) error {
		c := g.transport.client
		_, err := c.ChargeUsage(ctx, g.key, usage)
		if earmark.ErrorCode(err) != earmark.CodeIdempotencyMismatch { // mutation: lost-admission
			return err
		}
		// The admission took effect, and its answer was lost.
		r, err := c.Reserve(ctx, g.key, g.request)
		var e *earmark.Error
		switch {
		case err == nil:
			return g.commitTo(ctx, r.ID, said)
		case errors.As(err, &e) && e.Reservation != nil: // its lease has ended
			return g.commitTo(ctx, e.Reservation.ID, said)
		}
		return err
	}})
}

// worstCase is what the reservation would have held.
func (g *guardedCall) worstCase() report {
	if estimate := g.request.Estimate; estimate != nil {
		most := counts{input: estimate.InputTokens, output: *estimate.MaxOutputTokens * estimate.N}
		return report{response: most.response(), estimated: true}
	}
	return report{usage: g.request.Amounts, estimated: true}
}

// usage returns the report as usage without a reservation.
func (g *guardedCall) usage(said report) earmark.UsageRequest {
	usage := earmark.UsageRequest{Scopes: g.request.Scopes, Amounts: said.usage, Response: said.response, Metadata: maps.Clone(g.request.Metadata)}
	if usage.Given() {
		usage.Model, usage.Response.Provider = g.call.Model, g.transport.options.Provider
	}
	if said.estimated {
		usage.Metadata["estimated"] = "true"
	}
	return usage
}
