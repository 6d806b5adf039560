package amounts_test

import (
	"context"
	"encoding/json"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/amounts"
	"github.com/earmark-dev/earmark/internal/prices"
	"github.com/earmark-dev/earmark/pricing"
)

var admitted = time.Date(2026, 11, 28, 10, 0, 0, 0, time.UTC)

type versions []prices.Version

func (v versions) PriceVersions(_ context.Context, after int64) ([]prices.Version, error) {
	return v[min(int(after), len(v)):], nil
}

func book(t require.TestingT, changes prices.Changes) *prices.Prices {
	p, err := prices.NewBook(versions{{ID: 1, Changes: changes}}).Current(context.Background(), "acme")
	require.NoError(t, err)
	return p
}

// drawPrices draws the prices of a model of Anthropic, which has all kinds of input.
func drawPrices(t *rapid.T) prices.Changes {
	rate := func(name string) pricing.Rate {
		return pricing.PerMillion(rapid.SampledFrom([]string{"0", "0.01", "0.3", "3", "3.75", "6", "15", "0.000007"}).Draw(t, name))
	}
	rates := func() pricing.Rates {
		r := pricing.Rates{
			pricing.Input: rate("input"), pricing.Output: rate("output"), pricing.CacheWrite5m: rate("5m"), pricing.CacheWrite1h: rate("1h"), pricing.CacheRead: rate("read"),
		}
		if rapid.Bool().Draw(t, "reasoning") {
			r[pricing.Reasoning] = rate("reasoning rate")
		}
		return r
	}
	e := pricing.Entry{Provider: "anthropic", Model: "claude-x", Prices: pricing.Prices{Rates: rates()}}
	if rapid.Bool().Draw(t, "tier") {
		e.Tiers = []pricing.Tier{{Threshold: 200, Inclusive: rapid.Bool().Draw(t, "inclusive"), Rates: twice(e.Rates)}}
	}
	if rapid.Bool().Draw(t, "hours") {
		e.Variants = []pricing.Variant{{
			When:       pricing.When{Windows: []pricing.Window{{Start: 16*3600 + 1800, End: 1800, Days: rapid.SampledFrom([][]time.Weekday{nil, {time.Sunday}}).Draw(t, "days")}}},
			Multiplier: pricing.MustDecimal(rapid.SampledFrom([]string{"0.5", "2"}).Draw(t, "factor")),
		}}
	}
	changes := prices.Changes{Entries: []pricing.Entry{e}}
	if rapid.Bool().Draw(t, "resale") {
		changes.Multipliers = []prices.Multiplier{{Factor: pricing.MustDecimal("1.3")}}
	}
	return changes
}

// twice returns the rates of a context tier, which are never below those before it.
func twice(rates pricing.Rates) pricing.Rates {
	all := pricing.Rates{}
	for part, rate := range rates {
		double := new(big.Rat).Mul(rate.USD.Rat(), big.NewRat(2, 1))
		all[part] = pricing.USD(double.FloatString(18))
	}
	return all
}

// TestNoResponseCostsMoreThanItsEstimate is what a hard limit rests on: whatever the provider
// counts as cached, written or thought, at whatever hour, within the tokens of the estimate.
func TestNoResponseCostsMoreThanItsEstimate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := book(t, drawPrices(t))
		input, limit := rapid.Int64Range(1, 500).Draw(t, "input"), rapid.Int64Range(0, 500).Draw(t, "limit")
		e := earmark.Estimate{Model: "claude-x", InputTokens: input, MaxOutputTokens: &limit}
		worst, err := amounts.Worst(e, earmark.CountedUnits, []string{"acme"}, p, admitted)
		require.NoError(t, err)

		used, output := rapid.Int64Range(0, input).Draw(t, "used"), rapid.Int64Range(0, limit).Draw(t, "output")
		read := rapid.Int64Range(0, used).Draw(t, "read")
		short := rapid.Int64Range(0, used-read).Draw(t, "5m")
		long := rapid.Int64Range(0, used-read-short).Draw(t, "1h")
		raw, err := json.Marshal(map[string]any{
			"input_tokens": used - read - short - long, "cache_read_input_tokens": read, "cache_creation_input_tokens": short + long, "output_tokens": output,
			"cache_creation":        map[string]int64{"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
			"output_tokens_details": map[string]int64{"thinking_tokens": rapid.Int64Range(0, output).Draw(t, "thinking")},
		})
		require.NoError(t, err)
		responded := admitted.Add(time.Duration(rapid.Int64Range(0, int64(7*24*time.Hour)).Draw(t, "later")))
		priced := earmark.Priced{Model: "claude-x", Version: 1, At: admitted}
		got, _, err := amounts.Used(earmark.Response{ProviderUsage: raw, UsageFormat: "anthropic"}, earmark.CountedUnits, []string{"acme"}, p, priced, responded)
		require.NoError(t, err)
		for unit, amount := range got {
			require.LessOrEqual(t, amount, worst[unit], "%s: %s", unit, raw)
		}
	})
}
