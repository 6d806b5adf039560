// Package amounts computes amounts in the units that Earmark counts by itself: the most that
// a call of a model may cost, from an estimate, and what it did cost, from the usage that
// the provider sent.
package amounts

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/tokens"
	"github.com/earmark-dev/earmark/pricing"
	"github.com/earmark-dev/earmark/usage"
)

// Prices are the prices of a tenant at one version.
type Prices interface {
	Price(u usage.Usage, q pricing.Query, scopes []string) (pricing.Charge, error)
	Find(provider, model string, at time.Time) (*pricing.Entry, error)
}

// NeedPrices reports whether amounts in these units need prices.
func NeedPrices(units []string) bool { return slices.Contains(units, earmark.UnitUSDMicros) }

// Countable returns those of units that Earmark counts by itself.
func Countable(units []string) []string {
	return slices.DeleteFunc(slices.Clone(units), func(unit string) bool { return !slices.Contains(earmark.CountedUnits, unit) })
}

// Worst returns the most that the call may cost in each of units, on the scopes at a moment.
// prices may be nil unless NeedPrices. The error is CodeInvalidRequest, CodeUnknownModel or
// CodeUnpriced.
func Worst(e earmark.Estimate, units, scopes []string, prices Prices, at time.Time) (earmark.Amounts, error) {
	input, err := inputTokens(e)
	if err != nil {
		return nil, err
	}
	if e.CachedInputTokens > input {
		return nil, earmark.Invalidf("estimate.cached_input_tokens", "%d is more than the %d tokens of the input", e.CachedInputTokens, input)
	}
	output := max(1, e.N) * *e.MaxOutputTokens
	amounts := countsOf(units, input, output, 1)
	if NeedPrices(units) {
		if amounts[earmark.UnitUSDMicros], err = worstPrice(e, input, output, scopes, prices, at); err != nil {
			return nil, withField(err, "estimate.model")
		}
	}
	return amounts, nil
}

// countsOf returns the amounts in units but usd_micros.
func countsOf(units []string, input, output, requests int64) earmark.Amounts {
	all := earmark.Amounts{
		earmark.UnitInputTokens: input, earmark.UnitOutputTokens: output, earmark.UnitTokens: input + output, earmark.UnitRequests: requests,
	}
	counted := earmark.Amounts{}
	for _, unit := range units {
		if n, ok := all[unit]; ok {
			counted[unit] = n
		}
	}
	return counted
}

func inputTokens(e earmark.Estimate) (int64, error) {
	switch {
	case e.InputText != "":
		return tokens.Text(e.Model, e.InputText), nil
	case len(e.Messages) > 0:
		n, err := tokens.Messages(e.Model, e.Messages)
		var wrong *tokens.Error
		if errors.As(err, &wrong) {
			return 0, earmark.Invalidf("estimate.messages"+wrong.Path, "%s", wrong.Reason)
		}
		return n, err
	}
	return e.InputTokens, nil
}

// worstPrice returns the price of the dearest response that the estimate allows: its input
// as ordinary input, read from the cache, or written to it for any duration that has a price,
// but for what is surely cached; its output as text or as reasoning; at each hour with a price of its
// own.
func worstPrice(e earmark.Estimate, input, output int64, scopes []string, prices Prices, at time.Time) (int64, error) {
	entry, err := prices.Find(e.Provider, e.Model, at)
	if err != nil {
		return 0, err
	}
	query := pricing.Query{
		Provider: e.Provider, Model: e.Model, Time: at, ServiceTier: e.ServiceTier, Speed: e.Speed, Region: e.Region, Estimate: true,
	}
	worst := int64(-1)
	var missing error
	for _, query.ResponseTime = range hours(entry, at) {
		for i, u := range candidates(input, e.CachedInputTokens, output) {
			charge, err := prices.Price(u, query, scopes)
			switch {
			case err == nil:
				worst = max(worst, charge.USDMicros)
			case i == 0 || earmark.ErrorCode(err) != earmark.CodeUnpriced:
				missing = err // ordinary input and output must have a price
			}
		}
	}
	return worst, missing
}

// candidates returns the ways in which a provider may count a response, the ordinary one
// first.
func candidates(input, cached, output int64) []usage.Usage {
	rest := input - cached
	var all []usage.Usage
	for _, out := range []usage.Output{{Tokens: output}, {Tokens: output, Reasoning: output}} {
		for _, in := range []usage.Input{
			{}, {CacheWrite: rest}, {CacheWrite: rest, CacheWrite5m: rest}, {CacheWrite: rest, CacheWrite30m: rest},
			{CacheWrite: rest, CacheWrite1h: rest}, {CacheWrite: rest, CacheWrite12h: rest}, {CacheRead: rest},
		} {
			in.Tokens, in.CacheRead = input, in.CacheRead+cached
			all = append(all, usage.Usage{Input: in, Output: out, Counts: usage.Counts{Requests: 1}})
		}
	}
	return all
}

// hours returns a moment in each part of the next week in which prices of the entry differ,
// beginning with at. A response comes within a week, because a lease is no longer.
func hours(entry *pricing.Entry, at time.Time) []time.Time {
	moments := []time.Time{at}
	midnight := at.UTC().Truncate(24 * time.Hour)
	for _, variant := range entry.Variants {
		for _, window := range variant.When.Windows {
			for day := range 8 {
				for _, edge := range []pricing.TimeOfDay{window.Start, window.End} {
					moment := midnight.AddDate(0, 0, day).Add(time.Duration(edge) * time.Second)
					if moment.After(at) {
						moments = append(moments, moment)
					}
				}
			}
		}
	}
	return moments
}

// Used returns what a response cost in each of units, on the scopes: at the prices of
// priced, and in the hour of at. prices may be nil unless NeedPrices. The error is
// CodeInvalidRequest and names the path, CodeUnknownModel or CodeUnpriced. It also returns
// what explains the amounts later.
func Used(r earmark.Response, units, scopes []string, prices Prices, priced earmark.Priced, at time.Time) (earmark.Amounts, *earmark.ResponseRecord, error) {
	if unit := firstOther(units); unit != "" {
		return nil, nil, earmark.Invalidf("provider_usage", "does not count %s, which is reserved; send usage with amounts in exactly the reserved units", unit)
	}
	u, err := Normalize(r.UsageFormat, r.ProviderUsage)
	if err != nil {
		return nil, nil, err
	}
	record := &earmark.ResponseRecord{
		ProviderUsage: u.Raw, UsageFormat: string(u.Format), Model: cmp.Or(r.Model, u.Model, priced.Model), Provider: cmp.Or(r.Provider, priced.Provider),
		RespondedAt: at.UTC(),
	}
	if err := record.Validate(); err != nil {
		return nil, nil, err
	}
	amounts := countsOf(units, u.Input.Tokens, u.Output.Tokens, max(1, u.Counts.Requests))
	if NeedPrices(units) {
		if amounts[earmark.UnitUSDMicros], err = usedPrice(u, r, scopes, prices, priced, at); err != nil {
			return nil, nil, err
		}
		record.PriceVersion = priced.Version
	}
	return amounts, record, nil
}

// Normalize reads what a provider sent; without a format the shape decides. The error is CodeInvalidRequest and names the
// path.
func Normalize(format string, sent []byte) (usage.Usage, error) {
	if format != "" && !slices.Contains(usage.Formats(), usage.Format(format)) {
		return usage.Usage{}, earmark.Invalidf("usage_format", "%q is not allowed; use one of %s", earmark.Clip(format), formatNames())
	}
	u, err := usage.Normalize(usage.Format(format), sent)
	var wrong *usage.Error
	switch {
	case errors.As(err, &wrong):
		return u, earmark.Invalidf(wrong.Path, "%s", wrong.Reason)
	case err != nil:
		return u, earmark.Invalidf(usage.Root, "%w", err)
	}
	return u, nil
}

func firstOther(units []string) string {
	for _, unit := range units {
		if !slices.Contains(earmark.CountedUnits, unit) {
			return unit
		}
	}
	return ""
}

func formatNames() string {
	names := make([]string, 0, len(usage.Formats()))
	for _, format := range usage.Formats() {
		names = append(names, string(format))
	}
	return strings.Join(names, ", ")
}

// usedPrice prices what the model did that the caller names, or else the response, or else
// the reservation.
func usedPrice(u usage.Usage, r earmark.Response, scopes []string, prices Prices, priced earmark.Priced, at time.Time) (int64, error) {
	query := pricing.Query{Provider: priced.Provider, Model: priced.Model, Time: priced.At, ResponseTime: at}
	if r.Model != "" {
		u.Model, query.Model = "", r.Model
	}
	if r.Provider != "" {
		query.Provider = r.Provider
	}
	if query.Model == "" && u.Model == "" && u.Cost.USD == "" {
		return 0, earmark.Invalidf("model", "is missing; neither the call, nor the response, nor the reservation names the model that answered")
	}
	charge, err := prices.Price(u, query, scopes)
	if err != nil {
		return 0, withField(err, "model")
	}
	return charge.USDMicros, nil
}

// withField returns err with the name of the input as the caller knows it.
func withField(err error, field string) error {
	var e *earmark.Error
	if !errors.As(err, &e) {
		return earmark.Invalidf(field, "%w", err)
	}
	if e.Code != earmark.CodeUnknownModel && e.Code != earmark.CodeUnpriced {
		return err
	}
	named := *e
	named.Field = field
	return &named
}
