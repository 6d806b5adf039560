package pricing_test

import (
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/pricing"
	"github.com/earmark-dev/earmark/usage"
)

// FuzzImport: whatever a table has in it, its entries are valid and can be priced with.
func FuzzImport(f *testing.F) {
	f.Add([]byte(`{"m": {"litellm_provider": "p", "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06, "input_cost_per_token_above_200k_tokens": 1,
		"off_peak_pricing": {"hours_utc": "10:00-00:00", "input_cost_per_token": 0, "output_cost_per_token": 0}, "tiered_pricing": [{"range": [0, 5]}]}}`))
	f.Add([]byte(`{"p": {"models": {"m": {"cost": {"input": 1.25, "output": 10, "tiers": [{"tier": {"type": "context", "size": 5}, "input": 1, "output": 1}]}}}}}`))
	f.Add([]byte(`{"data": [{"id": "m", "pricing": {"prompt": "0.000003", "completion": "1", "overrides": [{"min_prompt_tokens": 5, "prompt": "1"}]}}]}`))
	f.Add([]byte(`[{"id": "p", "models": [{"id": "m", "match": {"or": [{"equals": "a"}, {"regex": "b"}]}, "prices": [{"prices": {"input_mtok": {"base": 1, "tiers": [{"start": 5, "price": 2}]}}}]}]}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, read := range []importFunc{pricing.ImportLiteLLM, pricing.ImportModelsDev, pricing.ImportOpenRouter, pricing.ImportGenAIPrices} {
			entries, findings, err := read(data, pricing.ImportOptions{Free: true})
			if err != nil {
				continue
			}
			for _, finding := range findings {
				require.NotEmpty(t, finding.Reason)
			}
			table, err := pricing.NewTable(entries...)
			require.NoError(t, err)
			for _, e := range entries {
				_, _ = table.Price(tokens(1, 1), pricing.Query{Provider: e.Provider, Model: e.Model, Time: noon})
			}
		}
	})
}

// FuzzPrice: a charge is the sum of its lines, and never less than without one of the tokens.
func FuzzPrice(f *testing.F) {
	f.Add(int64(1000), int64(500), int64(20), int64(3), int64(100), int64(40), uint8(0))
	f.Add(int64(272_000), int64(0), int64(0), int64(0), int64(1), int64(1), uint8(7))
	entry := opus
	entry.Tiers = []pricing.Tier{{Threshold: 200_000, Rates: entry.Rates}}
	table := newTable(f, entry)
	f.Fuzz(func(t *testing.T, input, read, write, long, output, reasoning int64, how uint8) {
		for _, n := range []*int64{&input, &read, &write, &long, &output, &reasoning} {
			*n &= usage.MaxCount
		}
		read = min(read, input)
		write = min(write, input-read)
		long, reasoning = min(long, write), min(reasoning, output)
		u := usage.Usage{
			Input:  usage.Input{Tokens: input, CacheRead: read, CacheWrite: write, CacheWrite1h: long},
			Output: usage.Output{Tokens: output, Reasoning: reasoning}, Counts: usage.Counts{Requests: 1},
		}
		if how&1 > 0 {
			u.Region = "us"
		}
		if how&2 > 0 {
			u.Speed = "fast"
		}
		q := pricing.Query{Model: entry.Model, Time: time.Unix(1, 0), Estimate: how&4 > 0}
		e, err := table.Explain(u, q)
		require.NoError(t, err)
		sum := new(big.Rat)
		for _, line := range e.Lines {
			usd, ok := new(big.Rat).SetString(line.USD)
			require.True(t, ok)
			sum.Add(sum, usd)
		}
		exact, ok := new(big.Rat).SetString(e.Charge.USD())
		require.True(t, ok)
		require.Zero(t, sum.Cmp(exact))
		micros := new(big.Rat).SetFrac64(e.Charge.USDMicros, 1_000_000)
		difference := micros.Sub(micros, exact)
		if q.Estimate {
			require.True(t, difference.Sign() >= 0 && difference.Cmp(big.NewRat(1, 1_000_000)) < 0)
		} else {
			require.True(t, difference.Cmp(big.NewRat(1, 2_000_000)) <= 0 && difference.Cmp(big.NewRat(-1, 2_000_000)) > 0)
		}
		if u.Output.Tokens > u.Output.Reasoning {
			u.Output.Tokens--
			less, err := table.Price(u, q)
			require.NoError(t, err)
			require.LessOrEqual(t, less.USDMicros, e.Charge.USDMicros)
		}
	})
}
