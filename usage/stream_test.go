package usage_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/usage"
)

func TestStream(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		format usage.Format
		events []string
		final  bool
		want   usage.Usage
	}{
		{
			"Anthropic: input of the start, cumulative output of the deltas", "",
			[]string{
				`{"type":"message_start","message":{"model":"claude-opus-5-5","usage":{"input_tokens":10,"cache_creation_input_tokens":7,"cache_read_input_tokens":100,
				  "cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":7},"output_tokens":1,"service_tier":"priority","speed":"fast"}}}`,
				`{"type":"content_block_delta","delta":{"text":"hello"}}`,
				`{"type":"message_delta","delta":{},"usage":{"input_tokens":null,"cache_creation_input_tokens":null,"cache_read_input_tokens":null,"output_tokens":20}}`,
				`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":30,"cache_creation_input_tokens":null,"cache_read_input_tokens":null,
				  "output_tokens":55,"output_tokens_details":{"thinking_tokens":5},"server_tool_use":{"web_search_requests":1,"web_fetch_requests":0}}}`,
				`{"type":"message_stop"}`,
			},
			true,
			usage.Usage{
				Format: usage.Anthropic, Model: "claude-opus-5-5", ServiceTier: "priority", Speed: "fast",
				Input: usage.Input{Tokens: 137, CacheRead: 100, CacheWrite: 7, CacheWrite1h: 7}, Output: usage.Output{Tokens: 55, Reasoning: 5},
				Counts: usage.Counts{Requests: 1, WebSearches: 1},
			},
		},
		{
			"Anthropic: broken off after the start", "",
			[]string{`{"type":"message_start","message":{"usage":{"input_tokens":10,"output_tokens":1}}}`},
			false,
			usage.Usage{Format: usage.Anthropic, Input: usage.Input{Tokens: 10}, Output: usage.Output{Tokens: 1}, Counts: usage.Counts{Requests: 1}},
		},
		{
			"OpenAI Chat: the one extra chunk", usage.OpenAIChat,
			[]string{
				`{"model":"gpt-5.5","service_tier":"flex","choices":[{"delta":{"content":"a"}}],"usage":null}`,
				`{"model":"gpt-5.5","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}`,
				`[DONE]`, ``,
			},
			true,
			usage.Usage{
				Format: usage.OpenAIChat, Model: "gpt-5.5", ServiceTier: "flex", Input: usage.Input{Tokens: 5}, Output: usage.Output{Tokens: 7},
				Counts: usage.Counts{Requests: 1},
			},
		},
		{
			"a vendor that counts in every chunk: the last, not the sum", "",
			[]string{
				`{"choices":[{}],"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}`,
				`{"choices":[{}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}`,
			},
			true,
			usage.Usage{Format: usage.OpenAIChat, Input: usage.Input{Tokens: 5}, Output: usage.Output{Tokens: 2}, Counts: usage.Counts{Requests: 1}},
		},
		{
			"Gemini: every chunk is cumulative", "",
			[]string{
				`{"candidates":[{"content":{}}],"modelVersion":"gemini-2.5-pro","usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":1,"totalTokenCount":6}}`,
				`{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":9,"totalTokenCount":14}}`,
			},
			true,
			usage.Usage{
				Format: usage.Gemini, Model: "gemini-2.5-pro", Input: usage.Input{Tokens: 5}, Output: usage.Output{Tokens: 9},
				Counts: usage.Counts{Requests: 1},
			},
		},
		{
			"Gemini: broken off", "",
			[]string{`{"candidates":[{"content":{}}],"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":1,"totalTokenCount":6}}`},
			false,
			usage.Usage{Format: usage.Gemini, Input: usage.Input{Tokens: 5}, Output: usage.Output{Tokens: 1}, Counts: usage.Counts{Requests: 1}},
		},
		{
			"Bedrock: one metadata event", "",
			[]string{
				`{"messageStop":{"stopReason":"end_turn"}}`,
				`{"metadata":{"usage":{"inputTokens":3,"outputTokens":4,"totalTokens":7,"cacheReadInputTokens":0},"metrics":{"latencyMs":10}}}`,
			},
			true,
			usage.Usage{Format: usage.BedrockConverse, Input: usage.Input{Tokens: 3}, Output: usage.Output{Tokens: 4}, Counts: usage.Counts{Requests: 1}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := usage.NewStream(c.format)
			_, err := s.Usage()
			require.ErrorIs(t, err, usage.ErrNoUsage)
			for _, event := range c.events {
				require.NoError(t, s.Add([]byte(event)))
			}
			require.Equal(t, c.final, s.Final())
			got, err := s.Usage()
			require.NoError(t, err)
			require.NotEmpty(t, got.Raw)
			got.Raw = nil
			require.Equal(t, c.want, got)
		})
	}
}

func TestStreamWithoutUsage(t *testing.T) {
	t.Parallel()
	s := usage.NewStream("")
	require.NoError(t, s.Add([]byte(`{"choices":[{"delta":{"content":"a"}}],"usage":null}`)))
	require.Error(t, s.Add([]byte(`{"choices":`)))
	_, err := s.Usage()
	require.ErrorIs(t, err, usage.ErrNoUsage)
	require.False(t, s.Final())
}
