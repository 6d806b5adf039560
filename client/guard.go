package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client/internal/choice"
)

// Bounds of the settlement after the work is done. One attempt is cut short so
// that a connection that hangs leaves time for another.
const (
	defaultSettleLimit = 30 * time.Second
	settleAttemptLimit = 10 * time.Second
)

const nothingSentReason = "the caller says that nothing was sent"

// Do runs work, such as one call of a model, within a reservation: it reserves,
// keeps the lease for as long as work runs (7 days at most), and settles by what
// work returns:
//
//   - usage that is not all zero is charged, with an error as well as without one;
//   - usage of all zeros is charged if there is no error;
//   - with ErrNothingSent in the error, the reservation is released;
//   - otherwise nobody knows what was spent: the reservation is left to its expiry
//     policy, and the error has an *UnsettledError with ErrUsageUnknown.
//
// A panic passes through and leaves the reservation to its expiry policy too. Usage
// has exactly the reserved units.
//
// The request chooses that policy, OnExpiry; there is no default here. It decides
// who pays for a crash in the middle: OnExpiryCommit charges what was reserved, the
// choice for resold calls; OnExpiryRelease charges nobody, although the provider
// may; OnExpiryReview leaves it to a person.
//
// Where work was not run, the error is an *earmark.Error, such as a denial (see
// IsDenied), or wraps ErrKeyInUse. Else it holds work's own error and, when the
// settlement failed, an *UnsettledError; errors.Is and errors.As find both.
// Settling goes on after ctx has ended, and is repeated until WithSettleLimit.
//
// key names this run: a second one with the same key does not begin. With an empty
// key every run is another one. Since a run that died may have spent money, its key
// does not begin again either; try again with a new one.
func (c *Client) Do(ctx context.Context, key string, request earmark.ReservationRequest,
	work func(ctx context.Context, r *earmark.Reservation) (earmark.Amounts, error),
) (Settled, error) {
	var usage earmark.Amounts
	return c.guard(ctx, key, request,
		func(ctx context.Context, r *earmark.Reservation) (err error) {
			usage, err = work(ctx, r)
			return err
		},
		func() report { return report{usage: usage} })
}

// DoStream is Do for work that counts what it uses as it goes, such as a stream
// that may break. What the meter says when work ends is charged, also when work
// fails, is cancelled or panics: that much is known to be spent. A meter that was
// never used, or that stands at zero after an error, says nothing, and then the
// reservation is left to its expiry policy, or released if work said that nothing
// was sent.
//
// A commit is final. So count early what costs early: the prompt's tokens when it
// is sent, each chunk as it comes, and set the exact totals when the model gives
// them.
func (c *Client) DoStream(ctx context.Context, key string, request earmark.ReservationRequest,
	work func(ctx context.Context, r *earmark.Reservation, meter *Meter) error,
) (Settled, error) {
	meter := &Meter{}
	return c.guard(ctx, key, request,
		func(ctx context.Context, r *earmark.Reservation) error { return work(ctx, r, meter) },
		func() report { return meter.report(request.Amounts) })
}

// report is what work said about its usage; nil usage is no word.
type report struct {
	usage       earmark.Amounts
	nothingSent bool
	failed      bool
}

func (c *Client) guard(ctx context.Context, key string, request earmark.ReservationRequest,
	work func(context.Context, *earmark.Reservation) error, read func() report,
) (settled Settled, err error) {
	began := time.Now()
	r, err := c.reserveForOneRun(ctx, key, request)
	if err != nil {
		return Settled{}, err
	}
	stop := c.keep(ctx, lease{id: r.ID, ttl: request.WithDefaults().TTL(), since: began})
	returned := false
	defer func() {
		if returned {
			return
		}
		// A panic, or runtime.Goexit. It goes on after this, unrecovered, so that its
		// trace is whole. Only usage that was counted is settled by.
		stop()
		said := read()
		said.failed, said.nothingSent = true, false
		_, _ = c.settleBy(ctx, r, said)
	}()
	workErr := work(ctx, r)
	returned = true
	stop()

	said := read()
	said.failed = workErr != nil
	said.nothingSent = said.nothingSent || errors.Is(workErr, ErrNothingSent)
	settled, err = c.settleBy(ctx, r, said)
	return settled, bothErrors(workErr, err)
}

// reserveForOneRun reserves, and refuses a reservation that another run made with
// the same key. One that an earlier attempt of this very call made, whose answer
// was lost, is its own.
func (c *Client) reserveForOneRun(ctx context.Context, key string, request earmark.ReservationRequest) (*earmark.Reservation, error) {
	if err := choice.CheckOnExpiry(request); err != nil {
		return nil, err
	}
	r, err := c.Reserve(ctx, key, request)
	switch {
	case err != nil:
		return nil, err
	case r.Replayed:
		return nil, fmt.Errorf("reservation %s: %w", r.ID, ErrKeyInUse)
	}
	return r, nil
}

// settleBy settles by what work said. It never releases where a commit may have
// landed, and never guesses.
func (c *Client) settleBy(ctx context.Context, r *earmark.Reservation, said report) (Settled, error) {
	ctx = context.WithoutCancel(ctx)
	unsettled := UnsettledError{ReservationID: r.ID, OnExpiry: r.OnExpiry}
	var change call
	switch {
	case isSpent(said.usage) || (said.usage != nil && !said.failed && !said.nothingSent):
		unsettled.Verb, unsettled.Usage = verbCommit, said.usage
		change = commitCall(r.ID, said.usage)
	case said.nothingSent:
		unsettled.Verb = verbRelease
		change = releaseCall(r.ID, nothingSentReason)
	default:
		unsettled.Err = ErrUsageUnknown
		return Settled{}, c.tell(ctx, &unsettled)
	}
	limited, cancel := context.WithTimeout(ctx, c.settleLimit)
	defer cancel()
	change.attempts, change.limit, change.pastForeign = math.MaxInt, settleAttemptLimit, true
	settled, err := c.settle(limited, change)
	if err != nil {
		unsettled.Err = err
		var e *earmark.Error
		if errors.As(err, &e) && e.Reservation != nil {
			unsettled.OnExpiry = e.Reservation.OnExpiry // a refused commit changes it to review
		}
		return Settled{}, c.tell(ctx, &unsettled)
	}
	return settled, nil
}

func (c *Client) tell(ctx context.Context, unsettled *UnsettledError) error {
	c.log.ErrorContext(ctx, "reservation not settled",
		slog.String("reservation_id", unsettled.ReservationID),
		slog.String("verb", unsettled.Verb),
		slog.String("usage", unsettled.Usage.String()),
		slog.Any("error", unsettled.Err))
	c.unsettled(ctx, unsettled)
	return unsettled
}

func isSpent(usage earmark.Amounts) bool {
	for _, amount := range usage {
		if amount != 0 {
			return true
		}
	}
	return false
}
