// Package middleware guards net/http handlers with Earmark: before a handler runs,
// the worst case of its request is reserved; while it runs, the lease is kept; when
// it returns, what it metered is charged.
//
//	guarded := middleware.Handler(earmarks, ask, handler)
//
// The handler counts with Meter(r.Context()). Its ResponseWriter is the server's
// own, so flushing, http.ResponseController and hijacking work as without a guard.
package middleware

import (
	"context"
	"errors"
	"net/http"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
)

// Ask is what to set aside for one HTTP request.
type Ask struct {
	// Key names the run, see client.Do; empty for another one each time. Do not take
	// it from the caller as it is: put the caller's own name in front, or one caller
	// takes up the keys of another.
	Key     string
	Request earmark.ReservationRequest
}

// AskFunc derives an Ask. An *earmark.Error of it is answered by its code, such as
// CodeInvalidRequest with 400; another error is answered with 500, without its
// text. To look into the body, use PeekBody.
type AskFunc func(*http.Request) (Ask, error)

// Option changes a guard under construction.
type Option func(*guard)

// WithRefusal answers requests that did not get to the handler, in place of
// WriteProblem. err is the AskFunc's own, or holds an *earmark.Error or
// client.ErrKeyInUse.
func WithRefusal(answer func(w http.ResponseWriter, r *http.Request, err error)) Option {
	return func(g *guard) { g.refuse = answer }
}

// WithViolations shows a denied caller which budgets the request does not fit
// into: their ids, scopes, limits and balances. Use it where the budgets are the
// caller's own. The default is a 402 without them.
func WithViolations() Option {
	return func(g *guard) { g.refuse = writeWithViolations }
}

// WithFailOpen runs the handler without a reservation while Earmark is away, where
// the default is to answer 503. Limits do not hold then. uncharged is handed what
// the handler metered (nil if nothing), to be charged later with
// client.ChargeUsage; its context does not end with the request's.
func WithFailOpen(uncharged func(ctx context.Context, ask Ask, usage earmark.Amounts)) Option {
	return func(g *guard) { g.uncharged = uncharged }
}

type guard struct {
	client    *client.Client
	ask       AskFunc
	next      http.Handler
	refuse    func(http.ResponseWriter, *http.Request, error)
	uncharged func(context.Context, Ask, earmark.Amounts)
}

// Handler guards next. A request that is not admitted is answered without next, see
// WriteProblem. After next, what Meter(r.Context()) says is settled as by
// client.DoStream: a handler that returns, panics or loses its caller after it
// metered usage is charged that much; one that metered nothing leaves the
// reservation to its expiry policy, unless it called NothingSent. Panics pass
// through. Reservations that could not be settled go to the client's log and to
// client.WithUnsettled.
//
// The response ends after the settlement, since the server ends it when Handler
// returns; client.WithSettleLimit bounds that.
func Handler(c *client.Client, ask AskFunc, next http.Handler, options ...Option) http.Handler {
	g := &guard{client: c, ask: ask, next: next, refuse: WriteProblem}
	for _, option := range options {
		option(g)
	}
	return g
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ask, err := g.ask(r)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	admitted := false
	_, err = g.client.DoStream(r.Context(), ask.Key, ask.Request,
		func(ctx context.Context, reservation *earmark.Reservation, meter *client.Meter) error {
			admitted = true
			g.next.ServeHTTP(w, r.WithContext(with(ctx, meter, reservation)))
			return ctx.Err() // a caller who is gone: a meter at zero then says nothing
		})
	switch {
	case admitted || err == nil: // the client has reported what is not settled
	case g.uncharged != nil && isAway(r, err):
		g.runUnguarded(w, r, ask)
	default:
		g.refuse(w, r, fault(err))
	}
}

func (g *guard) runUnguarded(w http.ResponseWriter, r *http.Request, ask Ask) {
	meter := &client.Meter{}
	lasting := context.WithoutCancel(r.Context())
	defer func() { g.uncharged(lasting, ask, meter.Usage()) }()
	g.next.ServeHTTP(w, r.WithContext(with(r.Context(), meter, nil)))
}

// isAway reports whether Earmark, and not the caller, is gone.
func isAway(r *http.Request, err error) bool {
	code := earmark.ErrorCode(err)
	return r.Context().Err() == nil && (code == earmark.CodeUnavailable || code == earmark.CodeAdmissionUnknown)
}

// fault keeps a refusal that the caller can do something about. The others blame
// what the AskFunc made of the request, such as a scope without a budget, and so
// this service.
func fault(err error) error {
	switch earmark.ErrorCode(err) {
	case earmark.CodeBudgetExceeded, earmark.CodeAdmissionUnknown, earmark.CodeUnavailable,
		earmark.CodeAlreadySettled, earmark.CodeReservationExpired, earmark.CodeIdempotencyMismatch:
		return err
	default:
		if errors.Is(err, client.ErrKeyInUse) {
			return err
		}
		return &misaskedError{err}
	}
}

// misaskedError is an error of Earmark's that is this service's own fault.
type misaskedError struct{ err error }

func (e *misaskedError) Error() string {
	return "the guard asked for what Earmark refuses: " + e.err.Error()
}

func (e *misaskedError) Unwrap() error { return e.err }
