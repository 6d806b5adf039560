package api

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/amounts"
	"github.com/earmark-dev/earmark/internal/prices"
	"github.com/earmark-dev/earmark/pricing"
)

const (
	// maxPriceName bounds the name of a provider or a model in a query, in bytes.
	maxPriceName = 256
	// maxAddedPrices bounds the entries of one call; `earmark price import` takes more.
	maxAddedPrices = 100
)

// pricePage is a page of the entries of one version.
type pricePage struct {
	Version int64 `json:"version"`
	earmark.Page[pricing.Entry]
}

// pricesBody adds prices of the caller's tenant.
type pricesBody struct {
	Entries  json.RawMessage `json:"entries"`
	Source   string          `json:"source"`
	Operator string          `json:"operator"`
	Reason   string          `json:"reason"`
}

// addedPrices is the answer to it.
type addedPrices struct {
	Version int64           `json:"version"` // the newest
	Entries []pricing.Entry `json:"entries"` // those that were added; the others said nothing new
}

type explainBody struct {
	Model    string          `json:"model"`
	Provider string          `json:"provider"`
	Usage    json.RawMessage `json:"provider_usage"`
	Format   string          `json:"usage_format"`
	Scopes   []string        `json:"scopes"`
	At       string          `json:"at"`
	Version  int64           `json:"version"`
}

// explainedPrice is the sum of a usage, line by line.
type explainedPrice struct {
	Version int64 `json:"version"`
	pricing.Explanation
	USD       string `json:"usd"` // exact
	USDMicros int64  `json:"usd_micros"`
}

// listPrices lists the entries of the tenant that hold at a moment. A cursor stays with the
// version and the moment of the first page.
func (s *server) listPrices(c *gin.Context) error {
	q, err := readQuery(c, "provider", "model", "at", "version", "cursor", "limit")
	if err != nil {
		return err
	}
	provider, model := q.values.Get("provider"), q.values.Get("model")
	for _, name := range []string{"provider", "model"} {
		if len(q.values.Get(name)) > maxPriceName {
			return earmark.Invalidf(name, "is over %d bytes", maxPriceName)
		}
	}
	cursor, limit, err := q.page()
	if err != nil {
		return err
	}
	place, err := readPriceCursor(cursor, provider, model)
	if err != nil {
		return err
	}
	if cursor == "" {
		if place, err = firstPriceCursor(q); err != nil {
			return err
		}
	}
	ctx, by := c.Request.Context(), callerOf(c)
	shown, err := inQueue(ctx, s.queues.lists, by.turn(), func() (page pricePage, err error) {
		book, err := s.pricesAt(ctx, by.tenant, place.version)
		if err != nil {
			return page, err
		}
		held := book.Held(provider, model, place.at)
		page.Version, page.Data = book.Version, held[min(place.skip, len(held)):]
		if len(page.Data) > limit {
			page.Data = page.Data[:limit]
			page.NextCursor = priceCursor{book.Version, place.at, place.skip + limit}.text(provider, model)
		}
		return page, nil
	})
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, shown)
}

// pricesAt returns the prices of a version, or of the newest for 0.
func (s *server) pricesAt(ctx context.Context, tenant string, version int64) (*prices.Prices, error) {
	if version == 0 {
		return s.prices.Current(ctx, tenant)
	}
	return s.prices.Version(ctx, tenant, version)
}

// priceCursor is where the next page of prices begins.
type priceCursor struct {
	version int64
	at      time.Time
	skip    int
}

func firstPriceCursor(q query) (place priceCursor, err error) {
	if place.at, err = momentOf("at", q.values.Get("at")); err != nil {
		return place, err
	}
	if text := q.values.Get("version"); q.values.Has("version") {
		if place.version, err = strconv.ParseInt(text, 10, 64); err != nil || place.version < 1 {
			return place, earmark.Invalidf("version", "%q is not the number of a version, 1 or more", earmark.Clip(text))
		}
	}
	return place, nil
}

// momentOf reads a time; now without one.
func momentOf(field, text string) (time.Time, error) {
	if text == "" {
		return time.Now(), nil
	}
	return earmark.ParseTime(field, text)
}

// text writes the cursor; it names the filter, so that no other list takes it.
func (p priceCursor) text(provider, model string) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d %d %d %s", p.version, p.at.UnixNano(), p.skip, priceFilter(provider, model)))
}

func priceFilter(provider, model string) string {
	const bytesKept = 6 // enough to distinguish filters; a cursor is no secret
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q", provider, model))
	return base64.RawURLEncoding.EncodeToString(sum[:bytesKept])
}

func readPriceCursor(cursor, provider, model string) (place priceCursor, err error) {
	if cursor == "" {
		return place, nil
	}
	var nanos int64
	var filter string
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil {
		_, err = fmt.Sscanf(string(raw), "%d %d %d %s", &place.version, &nanos, &place.skip, &filter)
	}
	if err != nil || filter != priceFilter(provider, model) || place.skip < 0 || place.version < 0 {
		return place, earmark.Invalidf("cursor", "is not a next_cursor of this list with this filter")
	}
	place.at = time.Unix(0, nanos)
	return place, nil
}

// addPrices adds a version with prices of the caller's tenant.
func (s *server) addPrices(c *gin.Context) error {
	var body pricesBody
	if err := cmp.Or(noQuery(c), decodeBody(c, &body)); err != nil {
		return err
	}
	entries, err := decodeEntries(body.Entries)
	if err != nil {
		return err
	}
	if len(body.Source) > prices.MaxSourceBytes {
		return earmark.Invalidf("source", "is over %d bytes", prices.MaxSourceBytes)
	}
	by, err := keyManager(c, body.Operator, body.Reason)
	if err != nil {
		return err
	}
	ctx, tenant := c.Request.Context(), callerOf(c).tenant
	now := time.Now().UTC().Truncate(time.Microsecond)
	added, err := inQueue(ctx, s.queues.changes, callerOf(c).turn(), func() (*prices.Version, error) {
		return s.prices.Add(ctx, tenant, func(state prices.State) (prices.Changes, error) {
			return prices.Changes{Entries: prices.Changed(state.Own, entries, now)}, nil
		}, func(ctx context.Context, after int64, changes prices.Changes) (*prices.Version, error) {
			return s.ledger.AddOwnPrices(ctx, tenant, after, changes.Entries, body.Source, by, body.Reason)
		})
	})
	if err != nil {
		return err
	}
	if added == nil {
		current, err := s.prices.Current(ctx, tenant)
		if err != nil {
			return err
		}
		return answer(c, http.StatusOK, addedPrices{current.Version, []pricing.Entry{}})
	}
	return answer(c, http.StatusCreated, addedPrices{added.ID, added.Entries})
}

// decodeEntries reads entries; the error is CodeInvalidRequest and names the entry.
func decodeEntries(raw json.RawMessage) ([]pricing.Entry, error) {
	if len(raw) == 0 {
		return nil, earmark.Invalidf("entries", "is missing; give 1 to %d prices", maxAddedPrices)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil || len(list) == 0 || len(list) > maxAddedPrices {
		return nil, earmark.Invalidf("entries", "is not a list of 1 to %d prices", maxAddedPrices)
	}
	entries := make([]pricing.Entry, len(list))
	for i, text := range list {
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&entries[i]); err != nil {
			return nil, earmark.Invalidf(fmt.Sprintf("entries[%d]", i), "is not a price: %v", err)
		}
		if from := entries[i].From; !from.IsZero() {
			if err := earmark.ValidateTime(fmt.Sprintf("entries[%d].from", i), from); err != nil {
				return nil, err
			}
		}
	}
	return entries, nil
}

// explainPrice answers with the cost of a usage, line by line. It changes nothing.
func (s *server) explainPrice(c *gin.Context) error {
	var body explainBody
	if err := cmp.Or(noQuery(c), decodeBody(c, &body)); err != nil {
		return err
	}
	at, err := momentOf("at", body.At)
	switch {
	case err != nil:
		return err
	case len(body.Model) > maxPriceName:
		return earmark.Invalidf("model", "is over %d bytes", maxPriceName)
	case len(body.Usage) == 0:
		return earmark.Invalidf("provider_usage", "is missing; give the usage object of the provider, or the response around it")
	case body.Version < 0:
		return earmark.Invalidf("version", "%d is not the number of a version, 1 or more", body.Version)
	}
	for i, scope := range body.Scopes {
		if err := earmark.ValidateScope(fmt.Sprintf("scopes[%d]", i), scope); err != nil {
			return err
		}
	}
	u, err := amounts.Normalize(body.Format, body.Usage)
	if err != nil {
		return err
	}
	if body.Model == "" && u.Model == "" && len(u.Each) == 0 && u.Cost.USD == "" {
		return earmark.Invalidf("model", "is missing, and the usage does not name it")
	}
	book, err := s.pricesAt(c.Request.Context(), callerOf(c).tenant, body.Version)
	if err != nil {
		return err
	}
	explanation, err := book.Explain(u, pricing.Query{Provider: body.Provider, Model: body.Model, Time: at}, body.Scopes)
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, explainedPrice{book.Version, explanation, explanation.Charge.USD(), explanation.Charge.USDMicros})
}
