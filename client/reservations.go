package client

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
)

// Settled is the result of a commit or a release.
type Settled struct {
	// Reservation is its state after the call; nil if Accepted.
	Reservation *earmark.Reservation
	// Accepted means that the ledger is away, and that Temporal keeps the settlement until
	// the ledger is back. Repeating the call is safe.
	Accepted bool
}

// Reserve sets amounts aside for one request: those of the request, or the most that the
// call of its Estimate may cost, which the reservation then shows. The error is CodeBudgetExceeded for a denial;
// its Violations name the budgets.
//
// key names the request: the same key and request return the same reservation, however
// often they are sent. With an empty key Reserve generates one for this call, so that it
// can repeat the call. To try again later, after CodeAdmissionUnknown or CodeUnavailable,
// pass a key of your own.
//
// If Replayed is true, an earlier call made the reservation: another request with this key
// runs, or ran. Do not call the model then, unless you know that the earlier call was yours
// and did not call it. The call is repeated; a reservation that an earlier attempt of this
// call made is not Replayed.
func (c *Client) Reserve(ctx context.Context, key string, request earmark.ReservationRequest) (*earmark.Reservation, error) {
	if key == "" {
		r, err := c.make(ctx, reserveCall(rand.Text(), request))
		if r != nil {
			r.Replayed = false // no other call has this key
		}
		return r, err
	}
	if err := earmark.ValidateIdempotencyKey(key); err != nil {
		return nil, err
	}
	return c.make(ctx, reserveCall(key, request))
}

// make makes a reservation, and reports in Replayed whether an earlier call had made it. A
// call that was sent more than once may find the reservation of its own first attempt.
func (c *Client) make(ctx context.Context, call call) (*earmark.Reservation, error) {
	return changed(ctx, c, call, func(r *earmark.Reservation, replayed bool) { r.Replayed = replayed })
}

// changed makes a call with an idempotency key, and marks what an earlier call with the key made.
func changed[T any](ctx context.Context, c *Client, call call, mark func(*T, bool)) (*T, error) {
	var value T
	got, err := c.exchange(ctx, call, &value)
	if err != nil {
		return nil, err
	}
	mark(&value, got.sent == 1 && got.header.Get("Idempotency-Hit") == "true")
	return &value, nil
}

// Decide reports whether a request would be admitted now, and reserves nothing. The call is
// repeated.
func (c *Client) Decide(ctx context.Context, request earmark.ReservationRequest) (*earmark.Decision, error) {
	return one[earmark.Decision](ctx, c, call{method: http.MethodPost, path: "/v1/decisions", body: request, repeat: true})
}

// Reservation returns a reservation. The call is repeated.
func (c *Client) Reservation(ctx context.Context, id string) (*earmark.Reservation, error) {
	return one[earmark.Reservation](ctx, c, call{method: http.MethodGet, path: reservationPath(id), repeat: true})
}

// Reservations lists reservations, newest first. The call is repeated.
func (c *Client) Reservations(ctx context.Context, filter earmark.ReservationFilter) (earmark.Page[earmark.Reservation], error) {
	return page[earmark.Reservation](ctx, c, "/v1/reservations", reservationQuery(filter))
}

func reservationQuery(filter earmark.ReservationFilter) url.Values {
	query := pageQuery(filter.Cursor, filter.Limit)
	set(query, "state", string(filter.State))
	set(query, "scope", filter.Scope)
	setFlag(query, "overdue", filter.Overdue)
	setFlag(query, "orphan", filter.Orphan)
	setFlag(query, "stuck", filter.Stuck)
	set(query, "stuck_reason", string(filter.StuckReason))
	return query
}

// Commit charges the usage, in exactly the reserved units, and gives the rest back. The
// call is repeated.
func (c *Client) Commit(ctx context.Context, id string, usage earmark.Amounts) (Settled, error) {
	return c.settle(ctx, commitCall(id, usage))
}

// CommitResponse charges what a response of the model cost, at the prices of the
// reservation's admission, and gives the rest back. The error is CodeInvalidRequest if the
// usage object is wrong, with the path in Field, and CodeUnknownModel or CodeUnpriced if a
// price is missing: the reservation is then as it was, and Commit with amounts still
// charges it. The call is repeated.
func (c *Client) CommitResponse(ctx context.Context, id string, response earmark.Response) (Settled, error) {
	return c.settle(ctx, changeCall(id, verbCommit, response))
}

// CommitEstimate charges usage that is an estimate, as when a stream broke before the
// provider reported it. The first Commit or CommitResponse corrects it, in full. The call is
// repeated.
func (c *Client) CommitEstimate(ctx context.Context, id string, usage earmark.Amounts) (Settled, error) {
	return c.settle(ctx, changeCall(id, verbCommit, commitBody{Usage: usage, Estimated: true}))
}

// Release gives the whole amount back, because nothing was spent. It is final. reason may
// be empty. The call is repeated.
func (c *Client) Release(ctx context.Context, id, reason string) (Settled, error) {
	return c.settle(ctx, releaseCall(id, reason))
}

// Extend moves the expiry of a held reservation to at least ttl from now; parts of a second
// are rounded up. The call is repeated.
func (c *Client) Extend(ctx context.Context, id string, ttl time.Duration) (*earmark.Reservation, error) {
	return one[earmark.Reservation](ctx, c, extendCall(id, ttl))
}

// ChargeUsage charges usage without a reservation; it returns a committed reservation. key
// names the usage and is required: the same usage under another key is charged again. If
// Replayed is true, an earlier call had charged it. The call is repeated.
func (c *Client) ChargeUsage(ctx context.Context, key string, request earmark.UsageRequest) (*earmark.Reservation, error) {
	if err := earmark.ValidateIdempotencyKey(key); err != nil {
		return nil, err
	}
	return c.make(ctx, call{method: http.MethodPost, path: "/v1/usage", key: key, body: request, repeat: true})
}

// Entries lists the journal, oldest first. The call is repeated.
func (c *Client) Entries(ctx context.Context, filter earmark.EntryFilter) (earmark.Page[earmark.Entry], error) {
	query := pageQuery(filter.Cursor, filter.Limit)
	set(query, "budget_id", filter.BudgetID)
	set(query, "reservation_id", filter.ReservationID)
	return page[earmark.Entry](ctx, c, "/v1/entries", query)
}

// Events reads what happened after filter.After, oldest first. To miss nothing, give NextAfter of each page to the
// next call, also if the page was empty. The call is repeated.
func (c *Client) Events(ctx context.Context, filter earmark.EventFilter) (*earmark.EventPage, error) {
	query := pageQuery("", filter.Limit)
	set(query, "after", filter.After)
	types := make([]string, len(filter.Types))
	for i, name := range filter.Types {
		types[i] = string(name)
	}
	set(query, "type", strings.Join(types, ","))
	set(query, "budget_id", filter.BudgetID)
	return one[earmark.EventPage](ctx, c, call{method: http.MethodGet, path: "/v1/events", query: query, repeat: true})
}

// Overview counts the open reservations, by age. The call is repeated.
func (c *Client) Overview(ctx context.Context) (*earmark.Overview, error) {
	return one[earmark.Overview](ctx, c, call{method: http.MethodGet, path: "/v1/overview", repeat: true})
}

func (c *Client) settle(ctx context.Context, call call) (Settled, error) {
	var reservation earmark.Reservation
	got, err := c.exchange(ctx, call, &reservation)
	switch {
	case err != nil:
		return Settled{}, err
	case got.status == http.StatusAccepted:
		return Settled{Accepted: true}, nil
	}
	return Settled{Reservation: &reservation}, nil
}

func reserveCall(key string, request earmark.ReservationRequest) call {
	return call{method: http.MethodPost, path: "/v1/reservations", key: key, body: request, repeat: true}
}

// commitBody has amounts or a response.
type commitBody struct {
	Usage earmark.Amounts `json:"usage,omitempty"`
	earmark.Response
	Estimated bool `json:"estimated,omitempty"`
}

func commitCall(id string, usage earmark.Amounts) call {
	return changeCall(id, verbCommit, map[string]earmark.Amounts{"usage": usage})
}

func releaseCall(id, reason string) call {
	return changeCall(id, verbRelease, map[string]string{"reason": reason})
}

func extendCall(id string, ttl time.Duration) call {
	return changeCall(id, "extend", map[string]int64{"ttl_seconds": wholeSeconds(ttl)})
}

func changeCall(id, verb string, body any) call {
	return call{method: http.MethodPost, path: reservationPath(id) + "/" + verb, body: body, repeat: true}
}

func reservationPath(id string) string { return "/v1/reservations/" + url.PathEscape(id) }

func pageQuery(cursor string, limit int) url.Values {
	query := url.Values{}
	set(query, "cursor", cursor)
	if limit != 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	return query
}

func set(query url.Values, name, value string) {
	if value != "" {
		query.Set(name, value)
	}
}

func setFlag(query url.Values, name string, value bool) {
	if value {
		query.Set(name, "true")
	}
}

func wholeSeconds(d time.Duration) int64 {
	return int64((d + time.Second - 1) / time.Second)
}
