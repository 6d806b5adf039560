package client

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/earmark-dev/earmark"
)

// When a lease is extended, in parts of its length. A third of the lease is left at that
// point, enough for several attempts. Retry-After is ignored: it is at least a second,
// which may be the whole lease, and one small call for each pause is little load.
const (
	shortestExtendPause = 50 * time.Millisecond
	longestExtendPause  = 5 * time.Second
	shortestExtendLimit = time.Second // of one attempt
	longestExtendLimit  = 10 * time.Second
)

func extendAfter(ttl time.Duration) time.Duration { return ttl - ttl/3 }

func extendPause(ttl time.Duration) time.Duration {
	pause := min(max(ttl/15, shortestExtendPause), longestExtendPause)
	return pause - rand.N(pause/4+1) //nolint:gosec // jitter is no secret
}

func extendLimit(ttl time.Duration) time.Duration {
	return min(max(ttl/6, shortestExtendLimit), longestExtendLimit)
}

// lease is a reservation that must outlive ttl. The client never compares its clock with
// the server's: the lease is at least ttl long from the moment since, which is before the
// first call was sent.
type lease struct {
	id    string
	ttl   time.Duration
	since time.Time
}

// keep extends the lease until stop is called; stop waits for a running extension. The
// caller's context may end long before the work notices, so keep does not end with it.
func (c *Client) keep(ctx context.Context, l lease) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.keepExtending(ctx, l)
	}()
	return func() {
		cancel()
		<-done
	}
}

// keepExtending continues after the end of the lease while Earmark is away, because the
// state decides there, not the clock. It stops when nothing is left to extend; the work
// continues, because its money may be spent, and its commit will be late.
func (c *Client) keepExtending(ctx context.Context, l lease) {
	failing := false
	for wait := time.Until(l.since.Add(extendAfter(l.ttl))); sleep(ctx, wait) == nil; {
		asked := time.Now()
		err := c.extendOnce(ctx, l)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failing = false
			wait = time.Until(asked.Add(extendAfter(l.ttl)))
		case isOver(err):
			c.log.WarnContext(ctx, "the lease is over while the work runs; its commit will be late",
				slog.String("reservation_id", l.id), slog.Any("error", err))
			return
		default:
			if !failing {
				c.log.WarnContext(ctx, "the lease was not extended; trying again",
					slog.String("reservation_id", l.id), slog.Any("error", err))
			}
			failing = true
			wait = extendPause(l.ttl)
		}
	}
}

func (c *Client) extendOnce(ctx context.Context, l lease) error {
	extend := extendCall(l.id, l.ttl)
	extend.attempts, extend.limit = 1, extendLimit(l.ttl)
	_, err := c.exchange(ctx, extend, nil)
	return err
}

func isOver(err error) bool {
	switch earmark.ErrorCode(err) {
	case earmark.CodeAlreadySettled, earmark.CodeReservationExpired:
		return true
	default:
		return false
	}
}
