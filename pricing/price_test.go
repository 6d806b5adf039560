package pricing_test

import (
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/pricing"
	"github.com/earmark-dev/earmark/usage"
)

var noon = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC) // a Friday

var opus = pricing.Entry{
	Provider: "anthropic", Model: "claude-opus-5-5", Aliases: []string{"claude-opus-latest"},
	Prices: pricing.Prices{Rates: pricing.Rates{
		pricing.Input: pricing.PerMillion("4"), pricing.Output: pricing.PerMillion("20"), pricing.CacheRead: pricing.PerMillion("0.2"),
		pricing.CacheWrite: pricing.PerMillion("5"), pricing.CacheWrite5m: pricing.As(pricing.CacheWrite), pricing.CacheWrite1h: pricing.PerMillion("8"),
		pricing.WebSearches: pricing.USD("0.01"),
	}},
	Variants: []pricing.Variant{
		{When: pricing.When{Region: "us"}, Multiplier: pricing.MustDecimal("1.1")},
		{When: pricing.When{Speed: "fast"}, Multiplier: pricing.MustDecimal("2")},
		{When: pricing.When{ServiceTier: "batch"}, Prices: &pricing.Prices{Rates: pricing.Rates{
			pricing.Input: pricing.PerMillion("2"), pricing.Output: pricing.PerMillion("10"),
		}}},
	},
}

// tiered makes an entry whose prices double at a threshold.
func tiered(provider, model string, threshold int64, inclusive bool) pricing.Entry {
	return pricing.Entry{
		Provider: provider, Model: model,
		Prices: pricing.Prices{
			Rates: pricing.Rates{pricing.Input: pricing.PerMillion("1"), pricing.Output: pricing.PerMillion("10")},
			Tiers: []pricing.Tier{{Threshold: threshold, Inclusive: inclusive, Rates: pricing.Rates{pricing.Input: pricing.PerMillion("2"), pricing.Output: pricing.PerMillion("15")}}},
		},
	}
}

func tokens(input, output int64) usage.Usage {
	return usage.Usage{Input: usage.Input{Tokens: input}, Output: usage.Output{Tokens: output}, Counts: usage.Counts{Requests: 1}}
}

func newTable(tb testing.TB, entries ...pricing.Entry) *pricing.Table {
	tb.Helper()
	table, err := pricing.NewTable(entries...)
	require.NoError(tb, err)
	return table
}

// Past a threshold the whole request costs more, and vendors differ by one token in where that is.
func TestTierEdges(t *testing.T) {
	t.Parallel()
	table := newTable(t, tiered("openai", "gpt-5.5", 272_000, true), tiered("xai", "grok-4.3", 200_000, true),
		tiered("google", "gemini-2.5-pro", 200_000, false), tiered("anthropic", "claude-sonnet-4-5", 200_000, false))
	for _, c := range []struct {
		provider, model string
		last            int64 // of the lower tier
	}{{"openai", "gpt-5.5", 271_999}, {"xai", "grok-4.3", 199_999}, {"google", "gemini-2.5-pro", 200_000}, {"anthropic", "claude-sonnet-4-5", 200_000}} {
		for _, edge := range []struct{ input, want int64 }{
			{c.last - 1, c.last - 1 + 100}, {c.last, c.last + 100}, {c.last + 1, 2*(c.last+1) + 150}, {c.last + 2, 2*(c.last+2) + 150},
		} {
			charge, err := table.Price(tokens(edge.input, 10), pricing.Query{Provider: c.provider, Model: c.model, Time: noon})
			require.NoError(t, err)
			require.Equal(t, edge.want, charge.USDMicros, "%s with %d input tokens", c.model, edge.input)
		}
	}
	// Cached tokens are part of the prompt's size.
	u := tokens(200_001, 0)
	u.Input.CacheRead = 200_000
	_, err := table.Price(u, pricing.Query{Model: "gemini-2.5-pro", Time: noon})
	var unpriced *pricing.UnpricedError
	require.ErrorAs(t, err, &unpriced)
	require.Equal(t, pricing.CacheRead, unpriced.Part)
}

func TestMarginalTiers(t *testing.T) {
	t.Parallel()
	e := tiered("x", "m", 1000, false)
	e.Marginal = true
	table := newTable(t, e)
	for _, c := range []struct{ input, output, want int64 }{{1000, 0, 1000}, {1001, 0, 1002}, {3000, 0, 5000}, {3000, 1001, 5000 + 10_000 + 15}} {
		charge, err := table.Price(tokens(c.input, c.output), pricing.Query{Model: "m", Time: noon})
		require.NoError(t, err)
		require.Equal(t, c.want, charge.USDMicros)
	}
}

func TestAllPartsAreDisjoint(t *testing.T) {
	t.Parallel()
	// Every part has a rate that no sum of the others gives.
	rates := pricing.Rates{}
	parts := []pricing.Part{
		pricing.Input, pricing.InputAudio, pricing.InputImage, pricing.InputVideo, pricing.CacheRead, pricing.CacheReadAudio, pricing.CacheReadImage,
		pricing.CacheReadVideo, pricing.CacheWrite, pricing.CacheWrite5m, pricing.CacheWrite30m, pricing.CacheWrite1h, pricing.CacheWrite12h,
		pricing.Output, pricing.Reasoning, pricing.OutputAudio, pricing.OutputImage, pricing.OutputVideo,
	}
	rate := "1"
	for _, part := range parts {
		rates[part] = pricing.USD(rate)
		rate += "0"
	}
	table := newTable(t, pricing.Entry{Provider: "p", Model: "m", Prices: pricing.Prices{Rates: rates}})
	u := usage.Usage{
		Input: usage.Input{
			Tokens: 1 + 2 + 3 + 4 + 5 + 1 + 1 + 1 + 6 + 1 + 2 + 3 + 4, CacheRead: 5 + 3, CacheReadAudio: 1, CacheReadImage: 1, CacheReadVideo: 1,
			CacheWrite: 6 + 1 + 2 + 3 + 4, CacheWrite5m: 1, CacheWrite30m: 2, CacheWrite1h: 3, CacheWrite12h: 4,
			Audio: 2 + 1, Image: 3 + 1, Video: 4 + 1,
		},
		Output: usage.Output{Tokens: 7 + 1 + 2 + 3 + 4, Reasoning: 1, Audio: 2, Image: 3, Video: 4},
	}
	charge, err := table.Price(u, pricing.Query{Model: "m", Time: noon, Multiplier: pricing.MustDecimal("0.000001")})
	require.NoError(t, err)
	require.Equal(t, "432174321611154321", fmt.Sprint(charge.USDMicros))
}

func TestRounding(t *testing.T) {
	t.Parallel()
	table := newTable(t, pricing.Entry{Provider: "p", Model: "m", Prices: pricing.Prices{Rates: pricing.Rates{
		pricing.Input: pricing.PerMillion("0.1"), pricing.Output: pricing.PerMillion("0.000000000001"),
	}}})
	price := func(u usage.Usage, q pricing.Query) int64 {
		q.Model, q.Time = "m", noon
		charge, err := table.Price(u, q)
		require.NoError(t, err)
		return charge.USDMicros
	}
	require.EqualValues(t, 0, price(tokens(4, 0), pricing.Query{}))
	require.EqualValues(t, 1, price(tokens(5, 0), pricing.Query{}), "half is rounded up")
	require.EqualValues(t, 1, price(tokens(14, 0), pricing.Query{}))
	require.EqualValues(t, 2, price(tokens(15, 0), pricing.Query{}))
	require.EqualValues(t, 0, price(tokens(4, 999), pricing.Query{}), "the parts are not rounded one by one")
	require.EqualValues(t, 1, price(tokens(1, 0), pricing.Query{Estimate: true}))
	require.EqualValues(t, 1, price(tokens(0, 1), pricing.Query{Estimate: true}), "the smallest part of a micro-dollar")
	require.EqualValues(t, 1, price(tokens(10, 0), pricing.Query{Estimate: true}))
	require.EqualValues(t, 0, price(tokens(0, 0), pricing.Query{Estimate: true}))
	require.EqualValues(t, 2, price(tokens(10, 0), pricing.Query{Multiplier: pricing.MustDecimal("1.0000001")}), "resale is rounded up")
	require.EqualValues(t, 3, price(tokens(10, 0), pricing.Query{Multiplier: pricing.MustDecimal("3")}))

	charge, err := table.Price(tokens(usage.MaxCount, usage.MaxCount), pricing.Query{Model: "m", Time: noon})
	require.NoError(t, err)
	require.Equal(t, "900719925.483106299254740991", charge.USD())
	_, err = newTable(t, pricing.Entry{Provider: "p", Model: "m", Prices: pricing.Prices{Rates: pricing.Rates{pricing.Input: pricing.USD("9000")}}}).
		Price(tokens(usage.MaxCount, 0), pricing.Query{Model: "m", Time: noon})
	require.ErrorContains(t, err, "more than an amount can be")
}

func TestMissingIsNotFree(t *testing.T) {
	t.Parallel()
	table := newTable(t, pricing.Entry{Provider: "p", Model: "m", Prices: pricing.Prices{Rates: pricing.Rates{
		pricing.Input: pricing.PerMillion("1"), pricing.Output: pricing.PerMillion("2"),
	}}})
	for part, set := range map[pricing.Part]func(*usage.Usage){
		pricing.CacheRead:     func(u *usage.Usage) { u.Input.CacheRead = 1 },
		pricing.CacheWrite:    func(u *usage.Usage) { u.Input.CacheWrite = 1 },
		pricing.CacheWrite1h:  func(u *usage.Usage) { u.Input.CacheWrite, u.Input.CacheWrite1h = 1, 1 },
		pricing.InputAudio:    func(u *usage.Usage) { u.Input.Audio = 1 },
		pricing.InputImage:    func(u *usage.Usage) { u.Input.Image = 1 },
		pricing.OutputAudio:   func(u *usage.Usage) { u.Output.Audio = 1 },
		pricing.WebSearches:   func(u *usage.Usage) { u.Counts.WebSearches = 1 },
		pricing.MapSearches:   func(u *usage.Usage) { u.Counts.MapSearches = 1 },
		pricing.SearchSources: func(u *usage.Usage) { u.Counts.SearchSources = 1 },
		pricing.SearchUnits:   func(u *usage.Usage) { u.Counts.SearchUnits = 1 },
		pricing.ToolCalls:     func(u *usage.Usage) { u.Counts.ToolCalls = 1 },
		pricing.AudioSeconds:  func(u *usage.Usage) { u.Counts.AudioMilliseconds = 1 },
		pricing.Pages:         func(u *usage.Usage) { u.Counts.Pages = 1 },
		pricing.Images:        func(u *usage.Usage) { u.Counts.Images = 1 },
	} {
		u := tokens(10, 10)
		set(&u)
		_, err := table.Price(u, pricing.Query{Model: "m", Time: noon})
		var unpriced *pricing.UnpricedError
		require.ErrorAs(t, err, &unpriced, part)
		require.Equal(t, part, unpriced.Part)
		require.EqualValues(t, 1, unpriced.Count)
	}
	u := tokens(10, 10)
	u.Output.Reasoning, u.Counts.WebFetches = 5, 3 // reasoning costs what output costs; fetches and requests are free
	charge, err := table.Price(u, pricing.Query{Model: "m", Time: noon})
	require.NoError(t, err)
	require.EqualValues(t, 30, charge.USDMicros)

	// A price of 0 is a price.
	free := newTable(t, pricing.Entry{Provider: "p", Model: "m", Prices: pricing.Prices{Rates: pricing.Rates{pricing.Input: pricing.USD("0"), pricing.Output: pricing.USD("0")}}})
	charge, err = free.Price(tokens(10, 10), pricing.Query{Model: "m", Time: noon, Estimate: true})
	require.NoError(t, err)
	require.Zero(t, charge.USDMicros)
}

func TestFind(t *testing.T) {
	t.Parallel()
	later := opus
	later.From, later.Variants = noon, nil
	later.Prices = pricing.Prices{Rates: pricing.Rates{pricing.Input: pricing.PerMillion("3"), pricing.Output: pricing.PerMillion("15")}}
	first := opus
	first.From = noon.AddDate(0, -1, 0)
	other := tiered("openrouter", "anthropic/claude-opus-5-5", 5, false)
	same := tiered("vertex", "claude-opus-latest", 5, false)
	matched := pricing.Entry{
		Provider: "openai", Model: "gpt-5.5", Match: &pricing.Match{And: []pricing.Match{{StartsWith: "gpt-5.5-"}, {Regex: `\d{4}-\d{2}-\d{2}$`}}},
		Prices: pricing.Prices{Rates: pricing.Rates{pricing.Input: pricing.USD("1"), pricing.Output: pricing.USD("1")}},
	}
	table := newTable(t, later, first, other, same, matched)
	inputRate := func(provider, model string, at time.Time) string {
		e, err := table.Find(provider, model, at)
		require.NoError(t, err)
		return e.Rates[pricing.Input].USD.String()
	}
	require.Equal(t, "0.000003", inputRate("", "claude-opus-5-5", noon), "from this moment on")
	require.Equal(t, "0.000004", inputRate("", "claude-opus-5-5", noon.Add(-1)))
	require.Equal(t, "0.000003", inputRate("anthropic", "Claude-Opus-Latest", noon.AddDate(1, 0, 0)))
	require.Equal(t, "0.000001", inputRate("", "anthropic/claude-opus-5-5", noon), "a full name comes before provider/model")
	require.Equal(t, "0.000001", inputRate("", "vertex/claude-opus-latest", noon))
	require.Equal(t, "1", inputRate("openai", "gpt-5.5-2026-04-23", noon))

	_, err := table.Find("", "claude-opus-latest", noon)
	require.ErrorContains(t, err, "several have it, such as")
	_, err = table.Find("anthropic", "claude-opus-5-5", first.From.Add(-1))
	require.ErrorContains(t, err, "its first price begins after")
	_, err = table.Find("openai", "gpt-5.5-mini", noon)
	var unknown *pricing.UnknownModelError
	require.ErrorAs(t, err, &unknown)
	require.Equal(t, []string{"openai/gpt-5.5"}, unknown.Nearest)
	_, err = table.Find("", "claude-opus-5.5", noon)
	require.EqualError(t, err, `no price for model "claude-opus-5.5"; nearest are anthropic/claude-opus-5-5, vertex/claude-opus-latest`)
}

func TestVariants(t *testing.T) {
	t.Parallel()
	table := newTable(t, opus)
	price := func(u usage.Usage, q pricing.Query) (int64, error) {
		q.Model, q.Time = "claude-opus-5-5", noon
		charge, err := table.Price(u, q)
		return charge.USDMicros, err
	}
	u := tokens(1000, 100) // 4,000 + 2,000
	for _, c := range []struct {
		name  string
		query pricing.Query
		set   func(*usage.Usage)
		want  int64
	}{
		{"standard", pricing.Query{}, func(u *usage.Usage) { u.ServiceTier, u.Speed, u.Region = "standard", "standard", "global" }, 6000},
		{"batch", pricing.Query{}, func(u *usage.Usage) { u.ServiceTier = "batch" }, 3000},
		{"batch, as the caller knows", pricing.Query{ServiceTier: "Batch"}, func(*usage.Usage) {}, 3000},
		{"the response comes first", pricing.Query{ServiceTier: "batch"}, func(u *usage.Usage) { u.ServiceTier = "standard" }, 6000},
		{"region", pricing.Query{}, func(u *usage.Usage) { u.Region = "us" }, 6600},
		{"fast in a region", pricing.Query{}, func(u *usage.Usage) { u.Region, u.Speed = "us", "fast" }, 13200},
		{"batch in a region", pricing.Query{Region: "us"}, func(u *usage.Usage) { u.ServiceTier = "batch" }, 3300},
		{"searches are not multiplied", pricing.Query{Region: "us"}, func(u *usage.Usage) { u.Counts.WebSearches = 1 }, 16600},
		{"nor replaced", pricing.Query{}, func(u *usage.Usage) { u.ServiceTier, u.Counts.WebSearches = "batch", 1 }, 13000},
	} {
		v := u
		c.set(&v)
		got, err := price(v, c.query)
		require.NoError(t, err, c.name)
		require.Equal(t, c.want, got, c.name)
	}
	for want, set := range map[string]func(*usage.Usage){
		`service tier "priority" has none`: func(u *usage.Usage) { u.ServiceTier = "priority" },
		`speed "turbo" has none`:           func(u *usage.Usage) { u.Speed = "turbo" },
		`region "eu" has none`:             func(u *usage.Usage) { u.Region = "eu" },
		`cache_read has no rate`:           func(u *usage.Usage) { u.ServiceTier, u.Input.CacheRead = "batch", 5 },
	} {
		v := u
		set(&v)
		_, err := price(v, pricing.Query{})
		require.ErrorContains(t, err, want)
	}
}

func TestRegionsAndHours(t *testing.T) {
	t.Parallel()
	rates := func(perMillion string) *pricing.Prices {
		return &pricing.Prices{Rates: pricing.Rates{pricing.Input: pricing.PerMillion(perMillion), pricing.Output: pricing.PerMillion(perMillion)}}
	}
	const hour = 3600
	e := pricing.Entry{
		Provider: "p", Model: "m", Prices: *rates("100"),
		Variants: []pricing.Variant{
			{When: pricing.When{Region: "*"}, Multiplier: pricing.MustDecimal("1.1")},
			{When: pricing.When{Region: "eu"}, Multiplier: pricing.MustDecimal("1.2")},
			{When: pricing.When{Windows: []pricing.Window{
				{Start: 16*hour + 30*60, End: 30 * 60, Days: []time.Weekday{time.Monday, time.Tuesday, time.Wednesday, time.Thursday, time.Friday}},
				{Days: []time.Weekday{time.Saturday, time.Sunday}},
			}}, Prices: rates("50")},
			{When: pricing.When{ServiceTier: "flex"}, Prices: rates("40")},
		},
	}
	price := func(e pricing.Entry, q pricing.Query) (int64, error) {
		q.Model = "m"
		charge, err := newTable(t, e).Price(tokens(1, 0), q)
		return charge.USDMicros, err
	}
	at := func(day, hour, minute, second int) time.Time {
		return time.Date(2026, 11, day, hour, minute, second, 0, time.UTC)
	}
	for _, c := range []struct {
		query pricing.Query
		want  int64
	}{
		{pricing.Query{Time: noon}, 100},
		{pricing.Query{Time: noon, Region: "us"}, 110},
		{pricing.Query{Time: noon, Region: "EU"}, 120},
		{pricing.Query{Time: noon, ServiceTier: "flex"}, 40},
		{pricing.Query{Time: at(27, 16, 29, 59)}, 100},
		{pricing.Query{Time: at(27, 16, 30, 0)}, 50},
		{pricing.Query{Time: at(27, 16, 30, 0).In(time.FixedZone("", -8*hour))}, 50},
		{pricing.Query{Time: at(27, 0, 29, 59)}, 50},
		{pricing.Query{Time: at(27, 0, 30, 0)}, 100},
		{pricing.Query{Time: at(28, 12, 0, 0)}, 50},
		{pricing.Query{Time: at(29, 23, 59, 59), Region: "eu"}, 60},
	} {
		got, err := price(e, c.query)
		require.NoError(t, err)
		require.Equal(t, c.want, got, "%+v", c.query)
	}
	_, err := price(e, pricing.Query{Time: at(28, 12, 0, 0), ServiceTier: "flex"})
	require.ErrorContains(t, err, "two of its variants hold")
	both := e
	both.Variants = slices.Concat(e.Variants, []pricing.Variant{{When: pricing.When{ServiceTier: "flex", Windows: e.Variants[2].When.Windows}, Prices: rates("30")}})
	got, err := price(both, pricing.Query{Time: at(28, 12, 0, 0), ServiceTier: "flex"})
	require.NoError(t, err)
	require.EqualValues(t, 30, got, "the price for both conditions")
	apart := e
	apart.Variants = slices.Concat(e.Variants, []pricing.Variant{{When: pricing.When{ServiceTier: "flex", Region: "eu"}, Prices: rates("30")}})
	_, err = price(apart, pricing.Query{Time: at(28, 12, 0, 0), ServiceTier: "flex", Region: "eu"})
	require.ErrorContains(t, err, "two of its variants hold", "a third does not settle it")
	_, err = price(e, pricing.Query{})
	require.ErrorContains(t, err, "the time of the response is missing")
}

// Iterations and requests are priced each by itself: by its own model, and in its own tier.
func TestEach(t *testing.T) {
	t.Parallel()
	advisor := pricing.Entry{Provider: "anthropic", Model: "claude-fable-5-1", Prices: pricing.Prices{Rates: pricing.Rates{
		pricing.Input: pricing.PerMillion("100"), pricing.Output: pricing.PerMillion("1000"), pricing.CacheWrite: pricing.PerMillion("1"), pricing.CacheWrite5m: pricing.PerMillion("1"),
	}}}
	table := newTable(t, opus, advisor, tiered("openai", "gpt-5.5", 272_000, true))
	u, err := usage.Normalize("", []byte(`{"model":"claude-opus-5-5","usage":{"input_tokens":10,"output_tokens":50,"iterations":[
		{"type":"compaction","input_tokens":50000,"output_tokens":2000},
		{"type":"advisor_message","model":"claude-fable-5-1","input_tokens":7,"output_tokens":3},
		{"type":"message","input_tokens":10,"output_tokens":50}]}}`))
	require.NoError(t, err)
	charge, err := table.Price(u, pricing.Query{Time: noon})
	require.NoError(t, err)
	require.EqualValues(t, 50_010*4+2_050*20+700+3_000, charge.USDMicros)

	// The name that the caller knows stands for the main model alone, never for another.
	u.Model, u.Each[0].Model = "what-it-runs-on", ""
	charge, err = table.Price(u, pricing.Query{Time: noon, Model: "claude-opus-5-5"})
	require.NoError(t, err)
	require.EqualValues(t, 50_010*4+2_050*20+700+3_000, charge.USDMicros)
	u.Each[2].Model = "an-advisor"
	_, err = table.Price(u, pricing.Query{Time: noon, Model: "claude-opus-5-5"})
	var unknown *pricing.UnknownModelError
	require.ErrorAs(t, err, &unknown)
	require.Equal(t, "an-advisor", unknown.Model)

	run := tokens(300_000, 0)
	run.Counts.Requests = 2
	_, err = table.Price(run, pricing.Query{Model: "gpt-5.5", Time: noon})
	require.ErrorContains(t, err, "2 requests are not listed one by one")
	run.Each = []usage.Usage{tokens(150_000, 0), tokens(150_000, 0)}
	charge, err = table.Price(run, pricing.Query{Model: "gpt-5.5", Time: noon})
	require.NoError(t, err)
	require.EqualValues(t, 300_000, charge.USDMicros)
}

func TestGatewayCost(t *testing.T) {
	t.Parallel()
	table := newTable(t)
	u := tokens(5, 5)
	u.Cost = usage.Cost{USD: "0.00014", UpstreamUSD: "2.8005e-3"}
	charge, err := table.Price(u, pricing.Query{Model: "unknown/model", Time: noon})
	require.NoError(t, err)
	require.EqualValues(t, 2941, charge.USDMicros)
	require.Equal(t, "0.0029405", charge.USD())
}

// Which of the cached tokens are audio matters where audio has another price, and is then required.
func TestCachedModality(t *testing.T) {
	t.Parallel()
	e := pricing.Entry{Provider: "p", Model: "m", Prices: pricing.Prices{Rates: pricing.Rates{
		pricing.Input: pricing.PerMillion("1"), pricing.InputAudio: pricing.PerMillion("10"), pricing.InputImage: pricing.As(pricing.Input),
		pricing.CacheRead: pricing.PerMillion("0.5"), pricing.CacheReadAudio: pricing.PerMillion("5"), pricing.CacheReadImage: pricing.As(pricing.CacheRead),
	}}}
	table := newTable(t, e)
	u := tokens(1000, 0)
	u.Input.Audio, u.Input.CacheRead = 600, 500
	_, err := table.Price(u, pricing.Query{Model: "m", Time: noon})
	require.ErrorContains(t, err, "100 tokens of audio, images or video are in the cache or not")
	u.Input.CacheReadAudio = 300
	charge, err := table.Price(u, pricing.Query{Model: "m", Time: noon})
	require.NoError(t, err)
	require.EqualValues(t, 200+300*10+100+300*5, charge.USDMicros)

	u = tokens(1000, 0) // images cost what text costs: it does not matter
	u.Input.Image, u.Input.CacheRead = 900, 800
	charge, err = table.Price(u, pricing.Query{Model: "m", Time: noon})
	require.NoError(t, err)
	require.EqualValues(t, 200+400, charge.USDMicros)
}

func TestExplain(t *testing.T) {
	t.Parallel()
	u, err := usage.Normalize("", []byte(`{"input_tokens":2095,"cache_read_input_tokens":50001,"cache_creation_input_tokens":0,"output_tokens":503,"inference_geo":"us",
		"output_tokens_details":{"thinking_tokens":100},"server_tool_use":{"web_search_requests":2}}`))
	require.NoError(t, err)
	table := newTable(t, opus)
	e, err := table.Explain(u, pricing.Query{Model: "claude-opus-5-5", Time: noon})
	require.NoError(t, err)
	require.Equal(t, `anthropic/claude-opus-5-5 (region us)  input         2095 ×   0.000004   = 0.009218 USD
anthropic/claude-opus-5-5 (region us)  cache_read    50001 ×  0.0000002  = 0.01100022 USD
anthropic/claude-opus-5-5 (region us)  output        403 ×    0.00002    = 0.008866 USD
anthropic/claude-opus-5-5 (region us)  reasoning     100 ×    0.00002    = 0.0022 USD
anthropic/claude-opus-5-5 (region us)  web_searches  2 ×      0.01       = 0.02 USD
0.05128422 USD, rounded half up: 51284 micro-dollars
`, e.String())
	sum := new(big.Rat)
	for _, line := range e.Lines {
		usd, ok := new(big.Rat).SetString(line.USD)
		require.True(t, ok)
		sum.Add(sum, usd)
	}
	require.Equal(t, e.Charge.USD(), sum.FloatString(8))
	charge, err := table.Price(u, pricing.Query{Model: "claude-opus-5-5", Time: noon})
	require.NoError(t, err)
	require.Equal(t, charge.USDMicros, e.Charge.USDMicros)
}

func TestEntriesAreChecked(t *testing.T) {
	t.Parallel()
	good := func() pricing.Entry { return tiered("p", "m", 5, false) }
	for want, spoil := range map[string]func(*pricing.Entry){
		"provider: \"\" must be a name":                              func(e *pricing.Entry) { e.Provider = "" },
		"model: is missing":                                          func(e *pricing.Entry) { e.Model = "" },
		"rates.inptu: is not a part; allowed are input, input_audio": func(e *pricing.Entry) { e.Rates["inptu"] = pricing.USD("1") },
		"rates.reasoning: as cache_read: that part needs a rate":     func(e *pricing.Entry) { e.Rates[pricing.Reasoning] = pricing.As(pricing.CacheRead) },
		"tiers[0].threshold: 0 must be more than 0":                  func(e *pricing.Entry) { e.Tiers[0].Threshold = 0 },
		"tiers[1].threshold: 5 must be more than 0 and than that":    func(e *pricing.Entry) { e.Tiers = append(e.Tiers, e.Tiers[0]) },
		"variants[0].when: at least one condition is required":       func(e *pricing.Entry) { e.Variants = []pricing.Variant{{Multiplier: pricing.MustDecimal("1")}} },
		"variants[0].prices: either prices or a multiplier above 0":  func(e *pricing.Entry) { e.Variants = []pricing.Variant{{When: pricing.When{Region: "us"}}} },
		"match: exactly one of":                                      func(e *pricing.Entry) { e.Match = &pricing.Match{Equals: "a", Contains: "b"} },
		"match.regex: error parsing":                                 func(e *pricing.Entry) { e.Match = &pricing.Match{Regex: "(?!x)"} },
	} {
		e := good()
		spoil(&e)
		_, err := pricing.NewTable(e)
		require.ErrorContains(t, err, want)
	}
	_, err := pricing.NewTable(good(), good())
	require.ErrorContains(t, err, "m has a price from the same date already")
}
