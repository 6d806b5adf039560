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

// Bounds of the settlement after the work. Each attempt is bounded, so that a hanging
// connection leaves time for another attempt.
const (
	defaultSettleLimit = 30 * time.Second
	settleAttemptLimit = 10 * time.Second
)

const nothingSentReason = "the caller says that nothing was sent"

// Do runs work, such as one call of a model, within a reservation: it reserves, extends the
// lease while work runs (7 days at most), and settles by the result of work:
//
//   - usage that is not all zero is charged, with or without an error;
//   - usage of all zeros is charged if there is no error;
//   - if the error wraps ErrNothingSent, the reservation is released;
//   - otherwise the usage is unknown: the reservation is left to its expiry policy, and
//     the error has an *UnsettledError with ErrUsageUnknown.
//
// A panic passes through and also leaves the reservation to its expiry policy. The usage
// must have exactly the reserved units.
//
// The request must choose that policy, OnExpiry; there is no default here. It decides who
// pays for a crash in between: OnExpiryCommit charges the reserved amount, the choice for
// resold calls; OnExpiryRelease charges nobody, although the provider may charge you;
// OnExpiryReview leaves the decision to a person.
//
// If work did not run, the error is an *earmark.Error, such as a denial (see IsDenied), or
// wraps ErrKeyInUse. Otherwise it holds work's own error and, if the settlement failed, an
// *UnsettledError; errors.Is and errors.As find both. The settlement continues after ctx
// has ended, and is repeated until WithSettleLimit.
//
// key names this run: a second run with the same key does not start. With an empty key
// every run gets a new one. A run that died may have spent money, so its key does not start
// another run either; use a new key.
func (c *Client) Do(ctx context.Context, key string, request earmark.ReservationRequest,
	work func(ctx context.Context, r *earmark.Reservation) (earmark.Amounts, error),
) (Settled, error) {
	var usage earmark.Amounts
	return c.guard(ctx, key, request,
		func(ctx context.Context, r *earmark.Reservation) (err error) {
			usage, err = work(ctx, r)
			return err
		},
		func(*earmark.Reservation) report { return report{usage: usage} })
}

// DoStream is Do for work that counts its usage as it goes, such as a stream that may
// break. The usage on the meter when work ends is charged, even if work fails, is cancelled
// or panics, because that usage is spent. A meter that was never used, or that is zero
// after an error, is not evidence: the reservation is then left to its expiry policy, or
// released if work called NothingSent.
//
// A commit is final, so count usage as early as it is spent: the prompt's tokens when you
// send it, each chunk when it arrives, and set the exact totals when the model reports
// them.
func (c *Client) DoStream(ctx context.Context, key string, request earmark.ReservationRequest,
	work func(ctx context.Context, r *earmark.Reservation, meter *Meter) error,
) (Settled, error) {
	meter := &Meter{}
	return c.guard(ctx, key, request,
		func(ctx context.Context, r *earmark.Reservation) error { return work(ctx, r, meter) },
		func(r *earmark.Reservation) report { return meter.report(r.Amounts) })
}

// DoResponse is Do for work that returns what the provider sent, for Earmark to compute
// what it cost. An empty response is unknown usage. If Earmark refuses the response, the
// reservation is not settled: the *UnsettledError has it.
func (c *Client) DoResponse(ctx context.Context, key string, request earmark.ReservationRequest,
	work func(ctx context.Context, r *earmark.Reservation) (earmark.Response, error),
) (Settled, error) {
	var response earmark.Response
	return c.guard(ctx, key, request,
		func(ctx context.Context, r *earmark.Reservation) (err error) {
			response, err = work(ctx, r)
			return err
		},
		func(*earmark.Reservation) report { return report{response: response} })
}

// report is the usage that work reported: amounts, or a provider's response in their place.
// nil usage without a response means that it reported none.
type report struct {
	usage       earmark.Amounts
	response    earmark.Response
	estimated   bool
	nothingSent bool
	failed      bool
}

// run is one admitted run. Its lease is kept until it ends.
type run struct {
	client      *Client
	reservation *earmark.Reservation
	ttl         time.Duration
	stop        func() // of the lease; it may be called again
}

func (c *Client) begin(ctx context.Context, key string, request earmark.ReservationRequest) (*run, error) {
	began := time.Now()
	r, err := c.reserveForOneRun(ctx, key, request)
	if err != nil {
		return nil, err
	}
	ttl := request.WithDefaults().TTL()
	return &run{client: c, reservation: r, ttl: ttl, stop: c.keep(ctx, lease{id: r.ID, ttl: ttl, since: began})}, nil
}

// end settles by the report.
func (r *run) end(ctx context.Context, said report) (Settled, error) {
	r.stop()
	return r.client.settleBy(ctx, r.reservation, said)
}

func (c *Client) guard(ctx context.Context, key string, request earmark.ReservationRequest,
	work func(context.Context, *earmark.Reservation) error, read func(*earmark.Reservation) report,
) (settled Settled, err error) {
	admitted, err := c.begin(ctx, key, request)
	if err != nil {
		return Settled{}, err
	}
	r := admitted.reservation
	returned := false
	defer func() {
		if returned {
			return
		}
		// A panic, or runtime.Goexit. It continues after this deferred call, so that its
		// trace is whole. Only counted usage is settled.
		admitted.stop()
		said := read(r)
		said.failed, said.nothingSent = true, false
		_, _ = admitted.end(ctx, said)
	}()
	workErr := work(ctx, r)
	returned = true
	admitted.stop()

	said := read(r)
	said.failed = workErr != nil
	said.nothingSent = said.nothingSent || errors.Is(workErr, ErrNothingSent)
	settled, err = admitted.end(ctx, said)
	return settled, bothErrors(workErr, err)
}

// reserveForOneRun reserves, and refuses a reservation that another run made with the same
// key. It accepts a reservation that an earlier attempt of this call made, whose answer was
// lost.
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

// settleBy settles by the report. It never releases if a commit may have succeeded, and
// never guesses.
func (c *Client) settleBy(ctx context.Context, r *earmark.Reservation, said report) (Settled, error) {
	ctx = context.WithoutCancel(ctx)
	unsettled := UnsettledError{ReservationID: r.ID, OnExpiry: r.OnExpiry}
	var change call
	switch {
	case said.response.Given():
		unsettled.Verb, unsettled.Response, unsettled.Estimated = verbCommit, said.response, said.estimated
		change = changeCall(r.ID, verbCommit, commitBody{Response: said.response, Estimated: said.estimated})
	case isSpent(said.usage) || (said.usage != nil && !said.failed && !said.nothingSent):
		unsettled.Verb, unsettled.Usage, unsettled.Estimated = verbCommit, said.usage, said.estimated
		change = changeCall(r.ID, verbCommit, commitBody{Usage: said.usage, Estimated: said.estimated})
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
