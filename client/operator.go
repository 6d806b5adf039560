package client

import (
	"context"
	"net/http"
	"time"

	"github.com/earmark-dev/earmark"
)

// By is a person who settles in the caller's place, and why. The journal keeps both.
type By struct {
	Operator string `json:"operator,omitempty"` // a name, see earmark.ValidateOperator
	Reason   string `json:"reason,omitempty"`
}

// Stuck lists the reservations that need somebody to look, newest first. Of the
// filter it takes Scope, StuckReason, Cursor and Limit. It is repeated.
func (c *Client) Stuck(ctx context.Context, filter earmark.ReservationFilter) (earmark.StuckPage, error) {
	query := reservationQuery(earmark.ReservationFilter{Scope: filter.Scope, Cursor: filter.Cursor, Limit: filter.Limit, Stuck: true, StuckReason: filter.StuckReason})
	var page earmark.StuckPage
	_, err := c.exchange(ctx, call{method: http.MethodGet, path: "/v1/reservations", query: query, repeat: true}, &page)
	return page, err
}

// CommitBy is Commit by a person.
func (c *Client) CommitBy(ctx context.Context, id string, usage earmark.Amounts, by By) (Settled, error) {
	return c.settle(ctx, changeCall(id, verbCommit, struct {
		Usage earmark.Amounts `json:"usage"`
		By
	}{usage, by}))
}

// GiveBack is an operator's release: an expiry with a reason, after which usage
// that turns up is still charged. It is repeated.
func (c *Client) GiveBack(ctx context.Context, id string, by By) (Settled, error) {
	return c.settle(ctx, changeCall(id, verbRelease, by))
}

// ExtendBy is Extend by a person.
func (c *Client) ExtendBy(ctx context.Context, id string, ttl time.Duration, by By) (*earmark.Reservation, error) {
	return one[earmark.Reservation](ctx, c, changeCall(id, "extend", struct {
		TTLSeconds int64 `json:"ttl_seconds"`
		By
	}{wholeSeconds(ttl), by}))
}

// Adopt starts a new workflow for an open reservation that lost its own; one that
// has an open workflow keeps it. It is repeated.
func (c *Client) Adopt(ctx context.Context, id string, by By) (*earmark.Reservation, error) {
	return one[earmark.Reservation](ctx, c, changeCall(id, "adopt", by))
}
