//go:build compareprices

package pricing_test

import (
	"encoding/json"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/usage"
)

// response is a body of one provider, with what genai-prices needs to read it.
type response struct {
	Provider string       `json:"provider"`
	Flavor   string       `json:"flavor"`
	Format   usage.Format `json:"-"`
	Body     any          `json:"body"`
}

// object is a JSON object.
type object map[string]any

// responses makes a body for each provider, from counts that fit into each other.
func responses(r *rand.Rand) []response {
	part := func(of int64) int64 { return r.Int64N(of + 1) }
	in, out := r.Int64N(1_000_000), r.Int64N(100_000)
	read := part(in)
	write := part(in - read)
	fiveMinutes := part(write)
	audio := part(in - read - write)
	reasoning := part(out)
	audioOut := part(out - reasoning)
	searches := r.Int64N(4)
	chat := object{
		"prompt_tokens": in, "completion_tokens": out, "total_tokens": in + out,
		"prompt_tokens_details":     object{"cached_tokens": read, "cache_write_tokens": write, "audio_tokens": audio},
		"completion_tokens_details": object{"reasoning_tokens": reasoning, "audio_tokens": audioOut},
	}
	plainChat := object{ // for those that know neither audio nor cache writes
		"prompt_tokens": in, "completion_tokens": out, "total_tokens": in + out,
		"prompt_tokens_details": object{"cached_tokens": read}, "completion_tokens_details": object{"reasoning_tokens": reasoning},
	}
	xai := object{
		"prompt_tokens": in, "completion_tokens": out - reasoning, "total_tokens": in + out,
		"prompt_tokens_details": object{"cached_tokens": read}, "completion_tokens_details": object{"reasoning_tokens": reasoning},
	}
	anthropic := object{
		"input_tokens": in - read - write, "cache_read_input_tokens": read, "cache_creation_input_tokens": write, "output_tokens": out,
		"cache_creation":  object{"ephemeral_5m_input_tokens": fiveMinutes, "ephemeral_1h_input_tokens": write - fiveMinutes},
		"server_tool_use": object{"web_search_requests": searches}, "output_tokens_details": object{"thinking_tokens": reasoning},
	}
	responsesAPI := object{
		"input_tokens": in, "output_tokens": out, "total_tokens": in + out,
		"input_tokens_details": object{"cached_tokens": read, "cache_write_tokens": write}, "output_tokens_details": object{"reasoning_tokens": reasoning},
	}
	gemini := object{
		"promptTokenCount": in - audio, "toolUsePromptTokenCount": audio, "cachedContentTokenCount": read,
		"candidatesTokenCount": out - reasoning, "thoughtsTokenCount": reasoning, "totalTokenCount": in + out,
		"candidatesTokensDetails": []object{{"modality": "AUDIO", "tokenCount": audioOut}},
	}
	bedrock := object{
		"inputTokens": in - read - write, "outputTokens": out, "totalTokens": in + out, "cacheReadInputTokens": read, "cacheWriteInputTokens": write,
	}
	body := func(u object) object { return object{"model": "m", "usage": u} }
	return []response{
		{"openai", "chat", usage.OpenAIChat, body(chat)},
		{"openai", "responses", usage.OpenAIResponses, body(responsesAPI)},
		{"azure", "chat", usage.AzureOpenAI, body(chat)},
		{"azure", "responses", usage.AzureOpenAI, body(responsesAPI)},
		{"anthropic", "default", usage.Anthropic, body(anthropic)},
		{"google", "default", usage.Gemini, object{"modelVersion": "m", "usageMetadata": gemini}},
		{"aws", "default", usage.BedrockConverse, body(bedrock)},
		{"x-ai", "chat", usage.XAI, body(xai)},
		{"deepseek", "chat", usage.DeepSeek, body(plainChat)},
		{"groq", "default", usage.Groq, body(plainChat)},
		{"mistral", "default", usage.Mistral, body(plainChat)},
		{"cohere", "default", usage.Cohere, body(object{
			"billed_units": object{"input_tokens": in, "output_tokens": out}, "tokens": object{"input_tokens": in + 500, "output_tokens": out + 5},
		})},
	}
}

// TestCompareUsage reads the same responses here, by format and by shape, and by the extractors of genai-prices: every count that they have is
// the same.
func TestCompareUsage(t *testing.T) {
	require.NotEmpty(t, *packages, "run make compare-prices")
	r := rand.New(rand.NewPCG(*seed, 1))
	var all []response
	for range max(*random/20, 100) {
		all = append(all, responses(r)...)
	}
	p := programs[0]
	answers := exchange[response, map[string]any](t, p.start("extract"), all)
	compared := 0
	for i, c := range all {
		text, err := json.Marshal(c.Body)
		require.NoError(t, err)
		u, err := usage.Normalize(c.Format, text)
		require.NoError(t, err, string(text))
		shaped, err := usage.Normalize("", text)
		require.NoError(t, err, string(text))
		require.Equal(t, [3]any{u.Input, u.Output, u.Counts}, [3]any{shaped.Input, shaped.Output, shaped.Counts}, string(text))
		require.NotContains(t, answers[i], "error", "%s %s", c.Provider, c.Flavor)
		ours := map[string]int64{
			"input_tokens": u.Input.Tokens, "cache_read_tokens": u.Input.CacheRead, "cache_write_tokens": u.Input.CacheWrite,
			"cache_write_5m_tokens": u.Input.CacheWrite5m, "cache_write_1h_tokens": u.Input.CacheWrite1h, "input_audio_tokens": u.Input.Audio,
			"output_tokens": u.Output.Tokens, "output_reasoning_tokens": u.Output.Reasoning, "output_audio_tokens": u.Output.Audio,
			"web_searches": u.Counts.WebSearches,
		}
		for name, theirs := range answers[i] {
			n, known := ours[name]
			if name == "input_tool_tokens" { // the normal form counts them as input alone
				continue
			}
			require.True(t, known, "%s: %s", c.Provider, name)
			require.EqualValues(t, n, theirs, "%s: %s of %s", c.Provider, name, text)
			compared++
		}
	}
	t.Logf("%d responses, %d counts are equal", len(all), compared)
}
