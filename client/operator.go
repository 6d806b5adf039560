package client

import (
	"context"
	"net/http"
	"time"

	"github.com/earmark-dev/earmark"
)

// By names a person who settles in the caller's place, and says why. The journal keeps
// both.
type By struct {
	Operator string `json:"operator,omitempty"` // a name, see earmark.ValidateOperator
	Reason   string `json:"reason,omitempty"`
}

// Stuck lists the reservations that need a person, newest first. Of the filter it uses
// Scope, StuckReason, Cursor and Limit. The call is repeated.
func (c *Client) Stuck(ctx context.Context, filter earmark.ReservationFilter) (earmark.StuckPage, error) {
	query := reservationQuery(earmark.ReservationFilter{Scope: filter.Scope, Cursor: filter.Cursor, Limit: filter.Limit, Stuck: true, StuckReason: filter.StuckReason})
	var page earmark.StuckPage
	_, err := c.exchange(ctx, call{method: http.MethodGet, path: "/v1/reservations", query: query, repeat: true}, &page)
	return page, err
}

// CommitBy is Commit by an operator.
func (c *Client) CommitBy(ctx context.Context, id string, usage earmark.Amounts, by By) (Settled, error) {
	return c.settle(ctx, changeCall(id, verbCommit, struct {
		Usage earmark.Amounts `json:"usage"`
		By
	}{usage, by}))
}

// GiveBack is a release by an operator: an expiry with a reason, after which late usage is
// still charged. The call is repeated.
func (c *Client) GiveBack(ctx context.Context, id string, by By) (Settled, error) {
	return c.settle(ctx, changeCall(id, verbRelease, by))
}

// ExtendBy is Extend by an operator.
func (c *Client) ExtendBy(ctx context.Context, id string, ttl time.Duration, by By) (*earmark.Reservation, error) {
	return one[earmark.Reservation](ctx, c, changeCall(id, "extend", struct {
		TTLSeconds int64 `json:"ttl_seconds"`
		By
	}{wholeSeconds(ttl), by}))
}

// Correct adds signed amounts to a final charge: of a reservation that is committed with real usage, or of
// ChargeUsage. Below 0 gives back. key names the correction of this reservation and is required. If Replayed is true, an
// earlier call had made it. The error is CodeNotCharged if there is no final charge, and CodeBelowZero if less was charged
// than the correction gives back; Field names the unit. The call is repeated.
func (c *Client) Correct(ctx context.Context, id, key string, request earmark.CorrectionRequest) (*earmark.Reservation, error) {
	if err := earmark.ValidateIdempotencyKey(key); err != nil {
		return nil, err
	}
	correction := changeCall(id, "corrections", request)
	correction.key = key
	return c.make(ctx, correction)
}

// Adopt starts a new workflow for an open reservation that lost its own; a reservation with
// an open workflow keeps it. The call is repeated.
func (c *Client) Adopt(ctx context.Context, id string, by By) (*earmark.Reservation, error) {
	return one[earmark.Reservation](ctx, c, changeCall(id, "adopt", by))
}
