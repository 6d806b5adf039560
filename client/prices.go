package client

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/pricing"
)

// PriceFilter selects prices. Empty fields select everything.
type PriceFilter struct {
	Provider string
	Model    string    // a part of a model's name, regardless of case
	At       time.Time // the moment at which they hold; zero means now
	Version  int64     // of the prices; 0 means the newest
	Cursor   string
	Limit    int
}

// PricePage is one page of the prices of a version.
type PricePage struct {
	Version int64 `json:"version"` // 0 without any
	earmark.Page[pricing.Entry]
}

// PricesRequest adds prices of the tenant, 1 to 100 of them.
type PricesRequest struct {
	Entries []pricing.Entry `json:"entries"`          // without From they hold from this call on
	Source  string          `json:"source,omitempty"` // where they come from, for people; at most 512 bytes
	By
}

// AddedPrices are the entries that a call has added; the others said nothing new.
type AddedPrices struct {
	Version int64           `json:"version"` // the newest
	Entries []pricing.Entry `json:"entries"`
}

// ExplainRequest asks what a usage costs.
type ExplainRequest struct {
	ProviderUsage json.RawMessage `json:"provider_usage"`         // as in earmark.Response
	UsageFormat   string          `json:"usage_format,omitempty"` // if it is empty, the shape decides
	Model         string          `json:"model,omitempty"`        // required if the usage does not name it
	Provider      string          `json:"provider,omitempty"`
	Scopes        []string        `json:"scopes,omitempty"`  // what is charged, for its multiplier
	At            time.Time       `json:"at,omitzero"`       // the moment whose prices apply; zero means now
	Version       int64           `json:"version,omitempty"` // 0 means the newest
}

// ExplainedPrice is the cost of a usage, line by line.
type ExplainedPrice struct {
	Version int64 `json:"version"`
	pricing.Explanation
	USD       string `json:"usd"`        // the exact sum
	USDMicros int64  `json:"usd_micros"` // rounded once
}

// Prices lists the prices that hold at a moment, by provider and model. It is repeated.
func (c *Client) Prices(ctx context.Context, filter PriceFilter) (PricePage, error) {
	query := pageQuery(filter.Cursor, filter.Limit)
	set(query, "provider", filter.Provider)
	set(query, "model", filter.Model)
	if !filter.At.IsZero() {
		set(query, "at", filter.At.Format(time.RFC3339Nano))
	}
	if filter.Version != 0 {
		set(query, "version", strconv.FormatInt(filter.Version, 10))
	}
	var prices PricePage
	_, err := c.exchange(ctx, call{method: http.MethodGet, path: "/v1/prices", query: query, repeat: true}, &prices)
	return prices, err
}

// AddPrices adds prices of the tenant. They count for reservations that begin later, within
// 3 seconds on every server. It is not repeated.
func (c *Client) AddPrices(ctx context.Context, request PricesRequest) (*AddedPrices, error) {
	return one[AddedPrices](ctx, c, call{method: http.MethodPost, path: "/v1/prices", body: request})
}

// ExplainPrice returns what a usage costs. It charges nothing, and is repeated. The errors
// are those of CommitResponse.
func (c *Client) ExplainPrice(ctx context.Context, request ExplainRequest) (*ExplainedPrice, error) {
	return one[ExplainedPrice](ctx, c, call{method: http.MethodPost, path: "/v1/prices/explain", body: request, repeat: true})
}
