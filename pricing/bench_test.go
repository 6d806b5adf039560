package pricing_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/pricing"
	"github.com/earmark-dev/earmark/usage"
)

// BenchmarkNormalizeAndPrice is what a charge costs: at most 5 µs and 10 allocations are the aim.
func BenchmarkNormalizeAndPrice(b *testing.B) {
	table, err := pricing.NewTable(opus)
	require.NoError(b, err)
	query := pricing.Query{Provider: "anthropic", Model: "claude-opus-5-5", Time: time.Now()}
	for name, raw := range map[string]string{
		"anthropic": `{"input_tokens":2095,"cache_creation_input_tokens":1200,"cache_read_input_tokens":50000,
			"cache_creation":{"ephemeral_5m_input_tokens":200,"ephemeral_1h_input_tokens":1000},"output_tokens":503,
			"output_tokens_details":{"thinking_tokens":100},"server_tool_use":{"web_search_requests":2,"web_fetch_requests":0}}`,
		"openai_chat": `{"prompt_tokens":12000,"completion_tokens":700,"total_tokens":12700,
			"prompt_tokens_details":{"cached_tokens":10000,"audio_tokens":0},
			"completion_tokens_details":{"reasoning_tokens":512,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}`,
		"gemini": `{"usageMetadata":{"promptTokenCount":1200,"candidatesTokenCount":300,"thoughtsTokenCount":200,"totalTokenCount":1700,
			"promptTokensDetails":[{"modality":"TEXT","tokenCount":1200}]},"modelVersion":"claude-opus-5-5"}`,
	} {
		b.Run(name, func(b *testing.B) {
			body := []byte(raw)
			b.ReportAllocs()
			for b.Loop() {
				u, err := usage.Normalize("", body)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := table.Price(u, query); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPrice(b *testing.B) {
	table, err := pricing.NewTable(opus)
	require.NoError(b, err)
	u := usage.Usage{
		Input:  usage.Input{Tokens: 53295, CacheRead: 50000, CacheWrite: 1200, CacheWrite5m: 200, CacheWrite1h: 1000},
		Output: usage.Output{Tokens: 503, Reasoning: 100}, Counts: usage.Counts{Requests: 1, WebSearches: 2},
	}
	query := pricing.Query{Provider: "anthropic", Model: "claude-opus-5-5", Time: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := table.Price(u, query); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAllocations(t *testing.T) {
	table := newTable(t, opus)
	raw := []byte(`{"input_tokens":2095,"cache_creation_input_tokens":1200,"cache_read_input_tokens":50000,
		"cache_creation":{"ephemeral_5m_input_tokens":200,"ephemeral_1h_input_tokens":1000},"output_tokens":503}`)
	query := pricing.Query{Provider: "anthropic", Model: "claude-opus-5-5", Time: noon}
	const most = 10
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		u, err := usage.Normalize("", raw)
		if err == nil {
			_, err = table.Price(u, query)
		}
		require.NoError(t, err)
	}), float64(most))
}
