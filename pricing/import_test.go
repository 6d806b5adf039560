package pricing_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/pricing"
	"github.com/earmark-dev/earmark/usage"
)

type importFunc func([]byte, pricing.ImportOptions) ([]pricing.Entry, []pricing.Finding, error)

// imported reads a table, which must be valid, and returns its findings as text.
func imported(t *testing.T, read importFunc, text string, options pricing.ImportOptions) (*pricing.Table, []string) {
	t.Helper()
	entries, findings, err := read([]byte(text), options)
	require.NoError(t, err)
	all := make([]string, 0, len(findings))
	for _, f := range findings {
		all = append(all, f.String())
	}
	return newTable(t, entries...), all
}

func requirePrice(t *testing.T, table *pricing.Table, u usage.Usage, q pricing.Query, want int64) {
	t.Helper()
	if q.Time.IsZero() {
		q.Time = noon
	}
	charge, err := table.Price(u, q)
	require.NoError(t, err)
	require.Equal(t, want, charge.USDMicros)
}

func requireUnpriced(t *testing.T, table *pricing.Table, u usage.Usage, q pricing.Query, want string) {
	t.Helper()
	if q.Time.IsZero() {
		q.Time = noon
	}
	_, err := table.Price(u, q)
	require.ErrorContains(t, err, want)
}

func with(u usage.Usage, change func(*usage.Usage)) usage.Usage {
	change(&u)
	return u
}

func TestImportLiteLLM(t *testing.T) {
	t.Parallel()
	table, findings := imported(t, pricing.ImportLiteLLM, `{
	  "sample_spec": {"input_cost_per_token": 0},
	  "claude-x": {"litellm_provider": "anthropic", "input_cost_per_token": 3e-06, "output_cost_per_token": 1.5e-05,
	    "cache_read_input_token_cost": 3e-07, "cache_creation_input_token_cost": 3.75e-06, "cache_creation_input_token_cost_above_1hr": 6e-06,
	    "input_cost_per_token_above_200k_tokens": 6e-06, "output_cost_per_token_above_200k_tokens": 2.25e-05,
	    "cache_creation_input_token_cost_above_1hr_above_200k_tokens": 1.2e-05, "cache_creation_input_token_cost_above_200k_tokens": 7.5e-06,
	    "input_cost_per_token_batches": 1.5e-06, "output_cost_per_token_batches": 7.5e-06,
	    "search_context_cost_per_query": {"search_context_size_low": 0.01, "search_context_size_high": 0.01},
	    "provider_specific_entry": {"us": 1.1, "fast": 2, "dance": 1}, "code_interpreter_cost_per_session": 0.03},
	  "gpt-x": {"litellm_provider": "openai", "input_cost_per_token": 5e-06, "output_cost_per_token": 3e-05,
	    "input_cost_per_token_above_272k_tokens": 1e-05, "output_cost_per_token_above_272k_tokens": 4.5e-05,
	    "input_cost_per_token_priority": 1e-05, "output_cost_per_token_priority": 6e-05, "input_cost_per_token_flex": 1e-06,
	    "cache_creation_input_token_cost": 6.25e-06, "cache_creation_input_token_cost_above_12hr": 1e-05,
	    "regional_processing_uplift_multiplier_eu": 1.1, "search_context_cost_per_query": {"search_context_size_low": 0.01, "search_context_size_high": 0.02}},
	  "gemini/half": {"litellm_provider": "gemini", "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06, "output_cost_per_reasoning_token": 3e-06,
	    "input_cost_per_audio_token": 7e-06, "input_cost_per_token_above_200k_tokens": 2e-06},
	  "deepseek/chat": {"litellm_provider": "deepseek", "input_cost_per_token": 3e-07, "output_cost_per_token": 1.2e-06, "input_cost_per_token_cache_hit": 6e-09,
	    "off_peak_pricing": {"input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07, "windows": [{"hours_utc": ["10:00-00:00"], "weekdays": [1, 2, 3, 4, 5]}]}},
	  "tencent/chat": {"litellm_provider": "tencent", "input_cost_per_token": 2e-06, "output_cost_per_token": 2e-06,
	    "off_peak_pricing": {"input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06, "weekday_timezone": "Asia/Shanghai", "windows": [{"hours_utc": "00:00-00:00", "weekdays": [6]}]}},
	  "odd-hours": {"litellm_provider": "tencent", "input_cost_per_token": 2e-06, "output_cost_per_token": 2e-06,
	    "off_peak_pricing": {"input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06, "hours_utc": "dawn"}},
	  "dashscope/qwen": {"litellm_provider": "dashscope", "tiered_pricing": [
	    {"range": [0, 256000.0], "input_cost_per_token": 5e-08, "output_cost_per_token": 4e-07},
	    {"range": [256000.0, 1000000.0], "input_cost_per_token": 2.5e-07, "output_cost_per_token": 2e-06}]},
	  "whisper": {"litellm_provider": "openai", "mode": "audio_transcription", "input_cost_per_second": 0.0001},
	  "video": {"litellm_provider": "openai", "output_cost_per_second": 0.1},
	  "free": {"litellm_provider": "openai", "input_cost_per_token": 0, "output_cost_per_token": 0},
	  "nobody": {"input_cost_per_token": 1},
	  "claude-latest": {"alias_of": "claude-x"}, "lost": {"alias_of": "gone"},
	  "bad": {"litellm_provider": "openai", "input_cost_per_token": -1, "output_cost_per_token": "x"}
	}`, pricing.ImportOptions{})
	claude := pricing.Query{Provider: "anthropic", Model: "claude-x"}
	requirePrice(t, table, tokens(1000, 100), claude, 3000+1500)
	requirePrice(t, table, tokens(1000, 100), pricing.Query{Model: "claude-latest"}, 4500)
	// _above_1hr is how long the cache keeps it, at any size of the prompt.
	oneHour := with(tokens(1000, 0), func(u *usage.Usage) { u.Input.CacheWrite, u.Input.CacheWrite1h = 1000, 1000 })
	requirePrice(t, table, oneHour, claude, 6000)
	requirePrice(t, table, with(tokens(1000, 0), func(u *usage.Usage) { u.Input.CacheWrite, u.Input.CacheWrite5m = 1000, 400 }), claude, 3750)
	requirePrice(t, table, with(tokens(200_001, 0), func(u *usage.Usage) { u.Input.CacheWrite, u.Input.CacheWrite1h = 1, 1 }), claude, 1_200_012)
	requirePrice(t, table, tokens(200_000, 0), claude, 600_000)
	requirePrice(t, table, tokens(200_001, 0), claude, 1_200_006)
	requireUnpriced(t, table, with(tokens(200_001, 0), func(u *usage.Usage) { u.Input.CacheRead = 1 }), claude, "cache_read has no rate")
	requirePrice(t, table, with(tokens(1000, 100), func(u *usage.Usage) { u.ServiceTier = "batch" }), claude, 2250)
	requireUnpriced(t, table, with(oneHour, func(u *usage.Usage) { u.ServiceTier = "batch" }), claude, "cache_write_1h has no rate")
	requireUnpriced(t, table, with(tokens(200_001, 1), func(u *usage.Usage) { u.ServiceTier = "batch" }), claude, "input has no rate")
	requirePrice(t, table, with(tokens(1000, 100), func(u *usage.Usage) { u.Region, u.Speed = "us", "fast" }), claude, 9900)
	requirePrice(t, table, with(tokens(1000, 100), func(u *usage.Usage) { u.Counts.WebSearches = 2 }), claude, 24_500)

	gpt := pricing.Query{Provider: "openai", Model: "gpt-x"}
	requirePrice(t, table, tokens(271_999, 0), gpt, 1_359_995)
	requirePrice(t, table, tokens(272_000, 0), gpt, 2_720_000) // inclusive
	requirePrice(t, table, with(tokens(100, 0), func(u *usage.Usage) { u.Input.CacheRead = 50 }), gpt, 500)
	requirePrice(t, table, with(tokens(100, 0), func(u *usage.Usage) { u.Input.CacheWrite, u.Input.CacheWrite30m, u.Input.CacheWrite12h = 100, 60, 40 }), gpt, 775)
	requirePrice(t, table, with(tokens(100, 0), func(u *usage.Usage) { u.ServiceTier = "priority" }), gpt, 1000)
	requireUnpriced(t, table, with(tokens(272_000, 0), func(u *usage.Usage) { u.ServiceTier = "priority" }), gpt, "input has no rate")
	requireUnpriced(t, table, with(tokens(100, 0), func(u *usage.Usage) { u.ServiceTier = "flex" }), gpt, `service tier "flex" has none`)
	requireUnpriced(t, table, with(tokens(100, 0), func(u *usage.Usage) { u.Counts.WebSearches = 1 }), gpt, "web_searches has no rate")

	half := pricing.Query{Provider: "gemini", Model: "half"}
	requirePrice(t, table, with(tokens(1000, 100), func(u *usage.Usage) { u.Input.Audio, u.Input.Image, u.Output.Reasoning = 100, 100, 50 }), half, 900+700+100+150)
	requireUnpriced(t, table, tokens(200_001, 0), half, "input has no rate")

	deepseek := pricing.Query{Model: "deepseek/chat", Time: time.Date(2026, 11, 27, 9, 59, 59, 0, time.UTC)}
	cached := with(tokens(10_000, 1000), func(u *usage.Usage) { u.Input.CacheRead = 5000 })
	requirePrice(t, table, cached, deepseek, 1500+30+1200)
	deepseek.Time = deepseek.Time.Add(time.Second)
	requirePrice(t, table, cached, deepseek, 750+30+600)

	saturday := time.Date(2026, 11, 27, 16, 0, 0, 0, time.UTC) // at midnight in Shanghai
	requirePrice(t, table, tokens(10, 10), pricing.Query{Model: "tencent/chat", Time: saturday.Add(-1)}, 40)
	requirePrice(t, table, tokens(10, 10), pricing.Query{Model: "tencent/chat", Time: saturday}, 20)
	requirePrice(t, table, tokens(10, 10), pricing.Query{Model: "tencent/chat", Time: saturday.Add(24 * time.Hour)}, 40)

	qwen := pricing.Query{Provider: "dashscope", Model: "qwen"}
	requirePrice(t, table, tokens(256_000, 0), qwen, 12_800)
	requirePrice(t, table, tokens(256_001, 0), qwen, 64_000)
	requirePrice(t, table, usage.Usage{Counts: usage.Counts{AudioMilliseconds: 12_345}}, pricing.Query{Model: "whisper"}, 1235)

	require.Equal(t, []string{
		"claude-x.code_interpreter_cost_per_session: is not taken over: usage has no count for it",
		"claude-x: above 200000 tokens: no price for cache_read, which has one otherwise",
		"claude-x: service tier batch: no price for cache_read, cache_write, cache_write_1h, which has one otherwise",
		"claude-x: batch above 200000 tokens: no price, though the standard service tier has one",
		"claude-x.provider_specific_entry.dance: is not taken over: usage does not say it",
		"gpt-x.search_context_cost_per_query: depends on the size of the search context, which no usage object says",
		"gpt-x: above 272000 tokens: no price for cache_write, cache_write_12h, which has one otherwise",
		"gpt-x: service tier flex has a price for one of input and output alone",
		"gpt-x: service tier priority: no price for cache_write, cache_write_12h, which has one otherwise",
		"gpt-x: priority above 272000 tokens: no price, though the standard service tier has one",
		"gemini/half: above 200000 tokens: a price for one of input and output alone; refused for all such prompts",
		"odd-hours.off_peak_pricing.hours_utc: dawn is not a window such as 16:30-00:30",
		"odd-hours: its off-peak hours cannot be taken over, so the model is refused",
		"video.output_cost_per_second: is not taken over: usage has no count for it",
		"video: no price that usage has a count for",
		"free: all prices are 0: free, or not known to the table; refused unless free entries are allowed",
		"nobody: no litellm_provider: who bills is not known",
		"bad.input_cost_per_token: -1 is not a decimal number, 0 or more",
		"bad.output_cost_per_token: x is not a decimal number, 0 or more",
		"bad: no price that usage has a count for",
		"lost: alias_of: gone has no price",
	}, findings)

	free, _ := imported(t, pricing.ImportLiteLLM, `{"free": {"litellm_provider": "p", "input_cost_per_token": 0, "output_cost_per_token": 0}}`, pricing.ImportOptions{Free: true})
	requirePrice(t, free, tokens(5, 5), pricing.Query{Model: "free"}, 0)
}

func TestImportModelsDev(t *testing.T) {
	t.Parallel()
	table, findings := imported(t, pricing.ImportModelsDev, `{
	  "xai": {"id": "xai", "models": {
	    "grok": {"cost": {"input": 1.25, "output": 2.5, "cache_read": 0.2, "context_over_200k": {"input": 2.5, "output": 5},
	      "tiers": [{"tier": {"type": "context", "size": 200000}, "input": 2.5, "output": 5, "cache_read": 0.4}]}},
	    "no-cost": {}, "free": {"cost": {"input": 0, "output": 0}}, "half": {"cost": {"input": 1}}}},
	  "google": {"models": {
	    "gemini": {"cost": {"input": 1.25, "output": 10, "input_audio": 7, "reasoning": 12, "context_over_200k": {"input": 2.5, "output": 15}},
	      "experimental": {"modes": {"fast": {"cost": {"input": 2.5, "output": 20}, "provider": {"body": {"service_tier": "priority"}}}}}}}}
	}`, pricing.ImportOptions{From: noon})
	grok := pricing.Query{Provider: "xai", Model: "grok"}
	requirePrice(t, table, tokens(199_999, 0), grok, 249_999)
	requirePrice(t, table, tokens(200_000, 0), grok, 500_000)
	requirePrice(t, table, with(tokens(200_000, 0), func(u *usage.Usage) { u.Input.CacheRead = 100_000 }), grok, 290_000)
	gemini := pricing.Query{Provider: "google", Model: "gemini"}
	requirePrice(t, table, with(tokens(1000, 100), func(u *usage.Usage) { u.Input.Audio, u.Input.CacheRead, u.Output.Reasoning = 10, 10, 10 }), gemini, 1225+13+70+900+120)
	requirePrice(t, table, with(tokens(1000, 100), func(u *usage.Usage) { u.ServiceTier = "priority" }), gemini, 4500)
	requireUnpriced(t, table, tokens(200_001, 0), gemini, "input has no rate")
	requireUnpriced(t, table, tokens(1, 0), pricing.Query{Provider: "google", Model: "gemini", Time: noon.Add(-1)}, "its first price begins after")
	require.Equal(t, []string{
		"xai.models.no-cost: no cost",
		"xai.models.free: all prices are 0: free, or not known to the table; refused unless free entries are allowed",
		"google.models.gemini.cost.context_over_200k: it does not say at how many tokens it begins (tiers would): prompts above 200,000 tokens are refused",
		"google.models.gemini.experimental.modes.fast.cost: this tier: no price for input_audio, reasoning, which has one otherwise",
	}, findings)
}

func TestImportOpenRouter(t *testing.T) {
	t.Parallel()
	table, findings := imported(t, pricing.ImportOpenRouter, `{"data": [
	  {"id": "anthropic/claude", "pricing": {"prompt": "0.000003", "completion": "0.000015", "request": "0", "image": "0", "web_search": "0.01", "internal_reasoning": "0",
	    "input_cache_read": "0.0000003", "input_cache_write": "0.00000375", "input_cache_write_1h": "0.000006",
	    "overrides": [{"min_prompt_tokens": 200000, "prompt": "0.000006", "completion": "0.0000225"}]}},
	  {"id": "deepseek/chat", "pricing": {"prompt": "0.000001", "completion": "0.000002",
	    "overrides": [{"utc_start": 1630, "utc_end": 30, "prompt": "0.0000005"}]}},
	  {"id": "openrouter/auto", "pricing": {"prompt": "-1", "completion": "-1"}},
	  {"id": "sale", "pricing": {"prompt": "1", "completion": "1", "discount": 0.2}},
	  {"id": "both", "pricing": {"prompt": "1", "completion": "1", "overrides": [{"utc_start": 0, "utc_end": 100, "min_prompt_tokens": 5, "prompt": "2"}]}},
	  {"id": "picture", "pricing": {"prompt": "1", "completion": "1", "image": "0.02"}},
	  {"id": "free:free", "pricing": {"prompt": "0", "completion": "0"}}, {"pricing": {}}
	]}`, pricing.ImportOptions{})
	claude := pricing.Query{Model: "anthropic/claude"}
	requirePrice(t, table, with(tokens(1000, 100), func(u *usage.Usage) { u.Output.Reasoning, u.Counts.WebSearches = 50, 1 }), claude, 3000+1500+10_000)
	requirePrice(t, table, tokens(200_000, 0), claude, 600_000)
	requirePrice(t, table, with(tokens(200_001, 0), func(u *usage.Usage) { u.Input.CacheRead = 1 }), claude, 1_200_000) // the table says that the rest stays
	requirePrice(t, table, with(tokens(100, 0), func(u *usage.Usage) { u.Input.CacheWrite, u.Input.CacheWrite1h = 100, 50 }), claude, 488)
	deepseek := pricing.Query{Model: "deepseek/chat", Time: time.Date(2026, 11, 27, 16, 29, 59, 0, time.UTC)}
	requirePrice(t, table, tokens(10, 10), deepseek, 30)
	deepseek.Time = deepseek.Time.Add(time.Second)
	requirePrice(t, table, tokens(10, 10), deepseek, 25)
	require.Equal(t, []string{
		"openrouter/auto.pricing.prompt: -1 is not a decimal number, 0 or more; the model is refused",
		"sale.pricing.discount: whether the prices beside it include it is not said; the model is refused",
		"both.pricing.overrides[0]: by size and by hours together, or by neither; the model is refused",
		"picture.pricing.image: is not taken over: usage has no count for it",
		"free:free: all prices are 0: free, or not known to the table; refused unless free entries are allowed",
		"data[7]: no id",
	}, findings)
}

func TestImportGenAIPrices(t *testing.T) {
	t.Parallel()
	table, findings := imported(t, pricing.ImportGenAIPrices, `[
	  {"id": "openai", "models": [
	    {"id": "gpt-x", "match": {"or": [{"equals": "gpt-x-2026-01-01"}, {"starts_with": "gpt-x-turbo"}, {"regex": "(?!a)"}]},
	     "prices": {"input_mtok": {"base": 5, "tiers": [{"start": 271999, "price": 10}]}, "output_mtok": {"base": 30, "tiers": [{"start": 271999, "price": 45}]},
	       "cache_read_mtok": 0.5, "web_searches_kcount": 10, "output_citation_mtok": 1}},
	    {"id": "whisper", "match": {"equals": "whisper"}, "prices": {"audio_hours": 0.36}},
	    {"id": "odd", "match": {"equals": "odd"}, "prices": {"audio_hours": 4.8}}]},
	  {"id": "deepseek", "models": [
	    {"id": "chat", "match": {"equals": "chat"}, "prices": [
	      {"prices": {"input_mtok": 1, "output_mtok": 2}},
	      {"constraint": {"start_time": "00:30:00Z", "end_time": "16:30:00Z"}, "prices": {"input_mtok": 3, "output_mtok": 4}},
	      {"constraint": {"start_date": "2026-11-28"}, "prices": {"input_mtok": 5, "output_mtok": 6}}]}]}
	]`, pricing.ImportOptions{})
	for _, name := range []string{"gpt-x", "gpt-x-2026-01-01", "gpt-x-turbo-1"} {
		q := pricing.Query{Provider: "openai", Model: name}
		requirePrice(t, table, tokens(271_999, 0), q, 1_359_995)
		requirePrice(t, table, tokens(272_000, 0), q, 2_720_000)
		requirePrice(t, table, with(tokens(272_000, 0), func(u *usage.Usage) { u.Input.CacheRead = 272_000 }), q, 136_000)
		requirePrice(t, table, with(tokens(1, 0), func(u *usage.Usage) { u.Counts.WebSearches = 1 }), q, 10_005)
		requireUnpriced(t, table, with(tokens(1, 0), func(u *usage.Usage) { u.Input.CacheWrite = 1 }), q, "cache_write has no rate")
	}
	requirePrice(t, table, usage.Usage{Counts: usage.Counts{AudioMilliseconds: 1500}}, pricing.Query{Model: "whisper"}, 150)
	chat := func(day, hour, minute int) pricing.Query {
		return pricing.Query{Model: "chat", Time: time.Date(2026, 11, day, hour, minute, 0, 0, time.UTC)}
	}
	requirePrice(t, table, tokens(10, 10), chat(27, 0, 29), 30)
	requirePrice(t, table, tokens(10, 10), chat(27, 0, 30), 70)
	requirePrice(t, table, tokens(10, 10), chat(27, 16, 30), 30)
	requirePrice(t, table, tokens(10, 10), chat(28, 0, 30), 110) // from this date the hours no longer matter
	require.Len(t, findings, 4)
	require.Contains(t, findings[0], "openai.gpt-x.match.or[2]: names of this form are not found")
	require.Equal(t, "openai.gpt-x.prices[0].output_citation_mtok: is not taken over: usage has no count for it", findings[1])
	require.Equal(t, "openai.odd.prices[0].audio_hours: 4.8 an hour is not an exact price of a second; it is left out", findings[2])
}

func TestImportsRefuseBrokenTables(t *testing.T) {
	t.Parallel()
	for _, read := range []importFunc{pricing.ImportLiteLLM, pricing.ImportModelsDev, pricing.ImportOpenRouter, pricing.ImportGenAIPrices} {
		for text, want := range map[string]string{
			`{"a": {"b": 1`:                  "is not valid JSON",
			`{"a": {"b": 1, "b": 2}}`:        "a.b is there twice",
			`{"a": [{"b": 1}, {"b": 1}]} {}`: "more after the JSON value",
			``:                               "the table is not valid JSON",
		} {
			_, _, err := read([]byte(text), pricing.ImportOptions{})
			require.ErrorContains(t, err, want)
		}
	}
}
