// Package middleware guards net/http handlers with Earmark: it reserves the worst case of a
// request before the handler runs, extends the lease while it runs, and charges the usage
// that it counted when it returns.
//
//	guarded := middleware.Handler(earmarks, ask, handler)
//
// The handler counts its usage with Meter(r.Context()). Its ResponseWriter is the server's
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
	// Key names the run, see client.Do; if it is empty, each run gets a new one. If the key
	// comes from your caller, put the caller's name in front of it, or one caller can use
	// up the keys of another.
	Key     string
	Request earmark.ReservationRequest
}

// AskFunc returns the Ask of a request. An *earmark.Error is answered by its code, for
// example CodeInvalidRequest with 400; every other error is answered with 500, without its
// text. To read the body, use PeekBody.
type AskFunc func(*http.Request) (Ask, error)

// Option configures a guard.
type Option func(*guard)

// WithRefusal replaces WriteProblem as the answer to a request that did not reach the
// handler. err is the AskFunc's own, or wraps an *earmark.Error or client.ErrKeyInUse.
func WithRefusal(answer func(w http.ResponseWriter, r *http.Request, err error)) Option {
	return func(g *guard) { g.refuse = answer }
}

// WithViolations includes the budgets that a denied request does not fit into: their ids,
// scopes, limits and balances. Use it only if the budgets are the caller's own. The default
// is a 402 without them.
func WithViolations() Option {
	return func(g *guard) { g.refuse = writeWithViolations }
}

// WithFailOpen runs the handler without a reservation while Earmark is away; the default is
// to answer 503. Limits do not hold then. uncharged receives the usage that the handler
// counted (nil if none), for a later client.ChargeUsage; its context does not end with the
// request's.
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
// WriteProblem. After next, the usage on Meter(r.Context()) is settled like that of
// client.DoStream: a handler that counted usage is charged for it, whether it returns,
// panics or loses its caller; a handler that counted nothing leaves the reservation to its
// expiry policy, unless it called NothingSent. Panics pass through. The client's log and
// client.WithUnsettled receive reservations that could not be settled.
//
// The response ends after the settlement, because the server ends it when Handler returns;
// client.WithSettleLimit bounds that.
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
			return ctx.Err() // the caller is gone: a meter at zero is then no evidence
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

// isAway reports whether Earmark is away, and not the caller gone.
func isAway(r *http.Request, err error) bool {
	code := earmark.ErrorCode(err)
	return r.Context().Err() == nil && (code == earmark.CodeUnavailable || code == earmark.CodeAdmissionUnknown)
}

// fault returns refusals that the caller can do something about unchanged. The others, such
// as a scope without a budget, come from the AskFunc's request, and so are a fault of this
// service.
func fault(err error) error {
	switch earmark.ErrorCode(err) {
	case earmark.CodeBudgetExceeded, earmark.CodeAdmissionUnknown, earmark.CodeUnavailable, earmark.CodeRateLimited,
		earmark.CodeAlreadySettled, earmark.CodeReservationExpired, earmark.CodeIdempotencyMismatch:
		return err
	default:
		if errors.Is(err, client.ErrKeyInUse) {
			return err
		}
		return &misaskedError{err}
	}
}

// misaskedError is an error of Earmark that this service caused.
type misaskedError struct{ err error }

func (e *misaskedError) Error() string {
	return "the guard asked for what Earmark refuses: " + e.err.Error()
}

func (e *misaskedError) Unwrap() error { return e.err }
