package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/earmark-dev/earmark"
)

// Whoami says on whose behalf the client calls. It is repeated.
func (c *Client) Whoami(ctx context.Context) (*earmark.Caller, error) {
	return one[earmark.Caller](ctx, c, call{method: http.MethodGet, path: "/v1/whoami", repeat: true})
}

// Keys lists the tenant's keys, newest first, without their secrets. It is repeated.
func (c *Client) Keys(ctx context.Context, filter earmark.KeyFilter) (earmark.Page[earmark.Key], error) {
	return page[earmark.Key](ctx, c, "/v1/keys", pageQuery(filter.Cursor, filter.Limit))
}

// CreateKey makes a key; only this answer has its secret. It is not repeated.
func (c *Client) CreateKey(ctx context.Context, request earmark.KeyRequest, by By) (*earmark.IssuedKey, error) {
	return one[earmark.IssuedKey](ctx, c, call{method: http.MethodPost, path: "/v1/keys", body: struct {
		earmark.KeyRequest
		By
	}{request, by}})
}

// RotateKey replaces a key by a new one; the old one works on for the overlap, in whole
// seconds. Only this answer has the secret of the new one. It is not repeated.
func (c *Client) RotateKey(ctx context.Context, id string, overlap time.Duration, by By) (*earmark.IssuedKey, error) {
	return one[earmark.IssuedKey](ctx, c, call{method: http.MethodPost, path: keyPath(id, "rotate"), body: struct {
		OverlapSeconds int64 `json:"overlap_seconds"`
		By
	}{wholeSeconds(overlap), by}})
}

// RevokeKey ends a key for good, within 5 seconds on every server. It is repeated.
func (c *Client) RevokeKey(ctx context.Context, id string, by By) (*earmark.Key, error) {
	return one[earmark.Key](ctx, c, call{method: http.MethodPost, path: keyPath(id, "revoke"), body: by, repeat: true})
}

// Audit lists changes of the tenant's budgets and keys, newest first. It is repeated.
func (c *Client) Audit(ctx context.Context, filter earmark.AuditFilter) (earmark.Page[earmark.AuditRecord], error) {
	query := pageQuery(filter.Cursor, filter.Limit)
	set(query, "subject", filter.Subject)
	set(query, "action", filter.Action)
	set(query, "actor", filter.Actor)
	return page[earmark.AuditRecord](ctx, c, "/v1/audit", query)
}

func keyPath(id, verb string) string { return "/v1/keys/" + url.PathEscape(id) + "/" + verb }
