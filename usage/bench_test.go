package usage_test

import (
	"testing"

	"github.com/earmark-dev/earmark/usage"
)

func BenchmarkNormalize(b *testing.B) {
	for name, raw := range map[string]string{
		"openai_chat": `{"prompt_tokens":12000,"completion_tokens":700,"total_tokens":12700,
			"prompt_tokens_details":{"cached_tokens":10000,"audio_tokens":0},
			"completion_tokens_details":{"reasoning_tokens":512,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}`,
		"anthropic": `{"input_tokens":2095,"cache_creation_input_tokens":1200,"cache_read_input_tokens":50000,
			"cache_creation":{"ephemeral_5m_input_tokens":200,"ephemeral_1h_input_tokens":1000},"output_tokens":503,
			"output_tokens_details":{"thinking_tokens":100},"server_tool_use":{"web_search_requests":2,"web_fetch_requests":0},
			"service_tier":"standard","speed":"standard","inference_geo":"us"}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := usage.Normalize("", []byte(raw)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
