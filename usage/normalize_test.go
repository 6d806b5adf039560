package usage_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/usage"
)

// fixtures follow the types of the providers' own packages; docs/ai.md names package and version for each. The values are ours.
// byShape says that the format is found without its name.
var fixtures = []struct {
	name    string
	format  usage.Format
	byShape bool
	raw     string
	want    usage.Usage
}{
	{
		"OpenAI Chat: cache, reasoning and rejected predictions are inside", usage.OpenAIChat, true,
		`{"prompt_tokens":12000,"completion_tokens":700,"total_tokens":12700,
		  "prompt_tokens_details":{"cached_tokens":10000,"cache_write_tokens":1500,"audio_tokens":0,"image_tokens":0,"text_tokens":12000},
		  "completion_tokens_details":{"reasoning_tokens":512,"audio_tokens":0,"accepted_prediction_tokens":30,"rejected_prediction_tokens":60}}`,
		usage.Usage{
			Input: usage.Input{Tokens: 12000, CacheRead: 10000, CacheWrite: 1500}, Output: usage.Output{Tokens: 700, Reasoning: 512},
			Counts: usage.Counts{Requests: 1},
		},
	},
	{
		"OpenAI Chat: audio in and out", usage.OpenAIChat, true,
		`{"prompt_tokens":300,"completion_tokens":200,"total_tokens":500,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":250},
		  "completion_tokens_details":{"audio_tokens":150}}`,
		usage.Usage{Input: usage.Input{Tokens: 300, Audio: 250}, Output: usage.Output{Tokens: 200, Audio: 150}, Counts: usage.Counts{Requests: 1}},
	},
	{
		"OpenAI embeddings have no completion", usage.OpenAIChat, true,
		`{"object":"list","model":"text-embedding-3-small","data":[{"embedding":[0.1,-2e-3]}],"usage":{"prompt_tokens":8,"total_tokens":8}}`,
		usage.Usage{Model: "text-embedding-3-small", Input: usage.Input{Tokens: 8}, Counts: usage.Counts{Requests: 1}},
	},
	{
		"OpenAI Chat: the response's tier", usage.OpenAIChat, true,
		`{"id":"x","model":"gpt-5.5-2026-04-23","service_tier":"flex","choices":[{"message":{"content":"\"usage\": {}"}}],
		  "usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12,"prompt_tokens_details":null,"completion_tokens_details":null}}`,
		usage.Usage{
			Model: "gpt-5.5-2026-04-23", ServiceTier: "flex", Input: usage.Input{Tokens: 5}, Output: usage.Output{Tokens: 7},
			Counts: usage.Counts{Requests: 1},
		},
	},
	{
		"OpenAI Responses: cache writes by duration, in the terminal event", usage.OpenAIResponses, true,
		`{"type":"response.completed","sequence_number":9,"response":{"model":"gpt-6-astra","service_tier":"priority","usage":{
		  "input_tokens":5000,"input_tokens_details":{"cached_tokens":1000,"cache_write_tokens":3000,
		  "cache_write_tokens_details":{"ttl_30m_tokens":2000,"ttl_12h_tokens":900}},
		  "output_tokens":400,"output_tokens_details":{"reasoning_tokens":100},"total_tokens":5400}}}`,
		usage.Usage{
			Model: "gpt-6-astra", ServiceTier: "priority",
			Input:  usage.Input{Tokens: 5000, CacheRead: 1000, CacheWrite: 3000, CacheWrite30m: 2000, CacheWrite12h: 900},
			Output: usage.Output{Tokens: 400, Reasoning: 100}, Counts: usage.Counts{Requests: 1},
		},
	},
	{
		"OpenAI Realtime: cached audio", usage.OpenAIRealtime, true,
		`{"total_tokens":900,"input_tokens":600,"output_tokens":300,"input_token_details":{"text_tokens":200,"audio_tokens":400,"image_tokens":0,
		  "cached_tokens":320,"cached_tokens_details":{"text_tokens":192,"audio_tokens":128,"image_tokens":0}},
		  "output_token_details":{"text_tokens":60,"audio_tokens":240}}`,
		usage.Usage{
			Input:  usage.Input{Tokens: 600, CacheRead: 320, CacheReadAudio: 128, Audio: 400},
			Output: usage.Output{Tokens: 300, Audio: 240}, Counts: usage.Counts{Requests: 1},
		},
	},
	{
		"OpenAI transcription by duration", usage.OpenAIRealtime, true, `{"type":"duration","seconds":12.3456}`,
		usage.Usage{Counts: usage.Counts{Requests: 1, AudioMilliseconds: 12346}},
	},
	{
		"OpenAI Images: output is images", usage.OpenAIImages, true,
		`{"input_tokens":60,"input_tokens_details":{"text_tokens":20,"image_tokens":40},"output_tokens":4160,"total_tokens":4220}`,
		usage.Usage{Input: usage.Input{Tokens: 60, Image: 40}, Output: usage.Output{Tokens: 4160, Image: 4160}, Counts: usage.Counts{Requests: 1}},
	},
	{
		"Azure is OpenAI", usage.AzureOpenAI, false,
		`{"prompt_tokens":10,"completion_tokens":20,"total_tokens":30,"completion_tokens_details":{"reasoning_tokens":15}}`,
		usage.Usage{Input: usage.Input{Tokens: 10}, Output: usage.Output{Tokens: 20, Reasoning: 15}, Counts: usage.Counts{Requests: 1}},
	},
	{
		"Anthropic: input leaves out the cache", usage.Anthropic, true,
		`{"model":"claude-opus-5-5","usage":{"input_tokens":2095,"cache_creation_input_tokens":1200,"cache_read_input_tokens":50000,
		  "cache_creation":{"ephemeral_5m_input_tokens":200,"ephemeral_1h_input_tokens":1000},"output_tokens":503,
		  "output_tokens_details":{"thinking_tokens":100},"server_tool_use":{"web_search_requests":2,"web_fetch_requests":1},
		  "service_tier":"batch","speed":"fast","inference_geo":"us"}}`,
		usage.Usage{
			Model: "claude-opus-5-5", ServiceTier: "batch", Speed: "fast", Region: "us",
			Input:  usage.Input{Tokens: 53295, CacheRead: 50000, CacheWrite: 1200, CacheWrite5m: 200, CacheWrite1h: 1000},
			Output: usage.Output{Tokens: 503, Reasoning: 100}, Counts: usage.Counts{Requests: 1, WebSearches: 2, WebFetches: 1},
		},
	},
	{
		"Anthropic: compaction is on top of the counts, the advisor is another model", usage.Anthropic, true,
		`{"model":"claude-opus-5-5","usage":{"input_tokens":10,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":50,"iterations":[
		  {"type":"compaction","model":null,"input_tokens":50000,"output_tokens":2000,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":null},
		  {"type":"advisor_message","model":"claude-fable-5-1","input_tokens":700,"output_tokens":30,"cache_creation_input_tokens":5,"cache_read_input_tokens":0,
		   "cache_creation":{"ephemeral_5m_input_tokens":5,"ephemeral_1h_input_tokens":0}},
		  {"type":"message","model":null,"input_tokens":4,"output_tokens":20,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":null},
		  {"type":"message","model":null,"input_tokens":6,"output_tokens":30,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":null}]}}`,
		usage.Usage{
			Model: "claude-opus-5-5", Input: usage.Input{Tokens: 50715, CacheWrite: 5, CacheWrite5m: 5},
			Output: usage.Output{Tokens: 2080}, Counts: usage.Counts{Requests: 3},
			Each: []usage.Usage{
				{
					Format: usage.Anthropic, Model: "claude-opus-5-5", Input: usage.Input{Tokens: 10}, Output: usage.Output{Tokens: 50},
					Counts: usage.Counts{Requests: 1},
				},
				{Format: usage.Anthropic, Input: usage.Input{Tokens: 50000}, Output: usage.Output{Tokens: 2000}, Counts: usage.Counts{Requests: 1}},
				{
					Format: usage.Anthropic, Model: "claude-fable-5-1", Input: usage.Input{Tokens: 705, CacheWrite: 5, CacheWrite5m: 5},
					Output: usage.Output{Tokens: 30}, Counts: usage.Counts{Requests: 1},
				},
			},
		},
	},
	{
		"Anthropic: a fallback served, and the hop that declined is of another model", usage.Anthropic, true,
		`{"input_tokens":300,"output_tokens":40,"iterations":[
		  {"type":"message","model":"claude-opus-5-5","input_tokens":200,"output_tokens":1},
		  {"type":"fallback_message","model":"claude-sonnet-5-5","input_tokens":100,"output_tokens":39}]}`,
		usage.Usage{
			Input: usage.Input{Tokens: 300}, Output: usage.Output{Tokens: 40}, Counts: usage.Counts{Requests: 2},
			Each: []usage.Usage{
				{
					Format: usage.Anthropic, Model: "claude-sonnet-5-5", Input: usage.Input{Tokens: 100}, Output: usage.Output{Tokens: 39},
					Counts: usage.Counts{Requests: 1},
				},
				{
					Format: usage.Anthropic, Model: "claude-opus-5-5", Input: usage.Input{Tokens: 200}, Output: usage.Output{Tokens: 1},
					Counts: usage.Counts{Requests: 1},
				},
			},
		},
	},
	{
		"Gemini: thoughts and tool use are on top", usage.Gemini, true,
		`{"modelVersion":"gemini-2.5-pro","candidates":[],"usageMetadata":{"promptTokenCount":1000,"cachedContentTokenCount":400,"candidatesTokenCount":200,
		  "thoughtsTokenCount":300,"toolUsePromptTokenCount":7000,"totalTokenCount":8500,
		  "promptTokensDetails":[{"modality":"TEXT","tokenCount":700},{"modality":"AUDIO","tokenCount":200},{"modality":"DOCUMENT","tokenCount":100}],
		  "cacheTokensDetails":[{"modality":"AUDIO","tokenCount":150},{"modality":"TEXT","tokenCount":250}],
		  "toolUsePromptTokensDetails":[{"modality":"TEXT","tokenCount":7000}],
		  "candidatesTokensDetails":[{"modality":"IMAGE","tokenCount":120}],"trafficType":"ON_DEMAND_FLEX"}}`,
		usage.Usage{
			Model: "gemini-2.5-pro", ServiceTier: "flex",
			Input:  usage.Input{Tokens: 8000, CacheRead: 400, CacheReadAudio: 150, Audio: 200, Image: 100},
			Output: usage.Output{Tokens: 500, Reasoning: 300, Image: 120}, Counts: usage.Counts{Requests: 1},
		},
	},
	{
		"Gemini: a blocked prompt has no candidates", usage.Gemini, true, `{"promptTokenCount":9,"totalTokenCount":9}`,
		usage.Usage{Input: usage.Input{Tokens: 9}, Counts: usage.Counts{Requests: 1}},
	},
	{
		"Gemini Live", usage.Gemini, true,
		`{"promptTokenCount":50,"responseTokenCount":70,"totalTokenCount":120,"responseTokensDetails":[{"modality":"AUDIO","tokenCount":70}]}`,
		usage.Usage{Input: usage.Input{Tokens: 50}, Output: usage.Output{Tokens: 70, Audio: 70}, Counts: usage.Counts{Requests: 1}},
	},
	{
		"Gemini Interactions", usage.GeminiInteractions, true,
		`{"total_input_tokens":100,"total_cached_tokens":40,"total_output_tokens":20,"total_thought_tokens":30,"total_tool_use_tokens":7,"total_tokens":157,
		  "input_tokens_by_modality":[{"modality":"image","tokens":60}],"grounding_tool_count":[{"type":"google_search","count":3},{"type":"google_maps","count":1}]}`,
		usage.Usage{
			Input: usage.Input{Tokens: 107, CacheRead: 40, Image: 60}, Output: usage.Output{Tokens: 50, Reasoning: 30},
			Counts: usage.Counts{Requests: 1, WebSearches: 3, MapSearches: 1},
		},
	},
	{
		"Bedrock Converse: input leaves out the cache", usage.BedrockConverse, true,
		`{"usage":{"inputTokens":4,"outputTokens":200,"totalTokens":2100,"cacheReadInputTokens":1596,"cacheWriteInputTokens":300,
		  "cacheDetails":[{"ttl":"1h","inputTokens":200},{"ttl":"5m","inputTokens":100}]},"serviceTier":{"type":"flex"}}`,
		usage.Usage{
			ServiceTier: "flex", Input: usage.Input{Tokens: 1900, CacheRead: 1596, CacheWrite: 300, CacheWrite5m: 100, CacheWrite1h: 200},
			Output: usage.Output{Tokens: 200}, Counts: usage.Counts{Requests: 1},
		},
	},
	{
		"xAI: reasoning is on top, the total shows it", usage.XAI, true,
		`{"prompt_tokens":32,"completion_tokens":9,"total_tokens":135,"prompt_tokens_details":{"text_tokens":32,"cached_tokens":6},
		  "completion_tokens_details":{"reasoning_tokens":94}}`,
		usage.Usage{Input: usage.Input{Tokens: 32, CacheRead: 6}, Output: usage.Output{Tokens: 103, Reasoning: 94}, Counts: usage.Counts{Requests: 1}},
	},
	{
		"xAI: no total, but named", usage.XAI, false,
		`{"prompt_tokens":32,"completion_tokens":9,"completion_tokens_details":{"reasoning_tokens":94},"num_sources_used":4}`,
		usage.Usage{Input: usage.Input{Tokens: 32}, Output: usage.Output{Tokens: 103, Reasoning: 94}, Counts: usage.Counts{Requests: 1, SearchSources: 4}},
	},
	{
		"xAI Responses: reasoning is inside", usage.XAI, false,
		`{"input_tokens":32,"output_tokens":103,"total_tokens":135,"output_tokens_details":{"reasoning_tokens":94}}`,
		usage.Usage{Input: usage.Input{Tokens: 32}, Output: usage.Output{Tokens: 103, Reasoning: 94}, Counts: usage.Counts{Requests: 1}},
	},
	{
		"DeepSeek: hits and misses are the prompt", usage.DeepSeek, true,
		`{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,"prompt_cache_hit_tokens":64,"prompt_cache_miss_tokens":36,
		  "prompt_tokens_details":{"cached_tokens":64},"completion_tokens_details":{"reasoning_tokens":20}}`,
		usage.Usage{Input: usage.Input{Tokens: 100, CacheRead: 64}, Output: usage.Output{Tokens: 50, Reasoning: 20}, Counts: usage.Counts{Requests: 1}},
	},
	{
		"Groq: the last chunk of a stream", usage.Groq, true,
		`{"id":"c","choices":[],"x_groq":{"id":"r","usage":{"queue_time":0.01,"prompt_tokens":24,"prompt_time":0.001,"completion_tokens":300,
		  "completion_time":0.4,"total_tokens":324,"total_time":0.42,"prompt_tokens_details":{"cached_tokens":16}}}}`,
		usage.Usage{Input: usage.Input{Tokens: 24, CacheRead: 16}, Output: usage.Output{Tokens: 300}, Counts: usage.Counts{Requests: 1}},
	},
	{
		"Mistral: connectors are on top", usage.Mistral, true,
		`{"prompt_tokens":100,"completion_tokens":50,"total_tokens":450,"connector_tokens":300,"connectors":{"web_search":2,"code_interpreter":1}}`,
		usage.Usage{Input: usage.Input{Tokens: 400}, Output: usage.Output{Tokens: 50}, Counts: usage.Counts{Requests: 1, WebSearches: 2, ToolCalls: 1}},
	},
	{
		"Mistral: audio in seconds", usage.Mistral, true,
		`{"prompt_tokens":4,"completion_tokens":6,"total_tokens":10,"prompt_audio_seconds":7,"service_tier":"standard"}`,
		usage.Usage{
			ServiceTier: "standard", Input: usage.Input{Tokens: 4}, Output: usage.Output{Tokens: 6},
			Counts: usage.Counts{Requests: 1, AudioMilliseconds: 7000},
		},
	},
	{
		"Mistral OCR", usage.Mistral, true, `{"model":"mistral-ocr-latest","usage_info":{"pages_processed":3,"doc_size_bytes":12345}}`,
		usage.Usage{Model: "mistral-ocr-latest", Counts: usage.Counts{Requests: 1, Pages: 3}},
	},
	{
		"Cohere: billed units are billed, tokens are not", usage.Cohere, true,
		`{"usage":{"billed_units":{"input_tokens":5,"output_tokens":5,"search_units":1},"tokens":{"input_tokens":508,"output_tokens":10},"cached_tokens":64}}`,
		usage.Usage{Input: usage.Input{Tokens: 5}, Output: usage.Output{Tokens: 5}, Counts: usage.Counts{Requests: 1, SearchUnits: 1}},
	},
	{
		"OpenRouter: its cost, and the provider's beside it with the caller's own key", usage.OpenRouter, true,
		`{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,"cost":0.00014,"is_byok":true,
		  "cost_details":{"upstream_inference_cost":0.0028,"upstream_inference_prompt_cost":0.001,"upstream_inference_completions_cost":0.0018},
		  "prompt_tokens_details":{"cached_tokens":10,"cache_write_tokens":20,"video_tokens":5},"completion_tokens_details":{"reasoning_tokens":30},
		  "server_tool_use_details":{"web_search_requests":2}}`,
		usage.Usage{
			Input: usage.Input{Tokens: 100, CacheRead: 10, CacheWrite: 20, Video: 5}, Output: usage.Output{Tokens: 50, Reasoning: 30},
			Counts: usage.Counts{Requests: 1, WebSearches: 2}, Cost: usage.Cost{USD: "0.00014", UpstreamUSD: "0.0028"},
		},
	},
	{
		"AI SDK 5: reasoning on top, as the total shows", usage.AISDKv5, true,
		`{"inputTokens":100,"outputTokens":20,"totalTokens":180,"reasoningTokens":60}`,
		usage.Usage{Input: usage.Input{Tokens: 100}, Output: usage.Output{Tokens: 80, Reasoning: 60}, Counts: usage.Counts{Requests: 1}},
	},
	{
		"AI SDK 5: reasoning inside, as the total shows", usage.AISDKv5, true,
		`{"inputTokens":100,"outputTokens":80,"totalTokens":180,"reasoningTokens":60,"cachedInputTokens":0}`,
		usage.Usage{Input: usage.Input{Tokens: 100}, Output: usage.Output{Tokens: 80, Reasoning: 60}, Counts: usage.Counts{Requests: 1}},
	},
	{
		"AI SDK 6 of a model", usage.AISDKv6, true,
		`{"inputTokens":{"total":110,"noCache":10,"cacheRead":70,"cacheWrite":30},"outputTokens":{"total":50,"text":20,"reasoning":30}}`,
		usage.Usage{Input: usage.Input{Tokens: 110, CacheRead: 70, CacheWrite: 30}, Output: usage.Output{Tokens: 50, Reasoning: 30}, Counts: usage.Counts{Requests: 1}},
	},
	{
		"AI SDK 7 of a call", usage.AISDKv7, false,
		`{"inputTokens":110,"inputTokenDetails":{"noCacheTokens":10,"cacheReadTokens":70,"cacheWriteTokens":30},
		  "outputTokens":50,"outputTokenDetails":{"textTokens":20,"reasoningTokens":30},"totalTokens":160}`,
		usage.Usage{Input: usage.Input{Tokens: 110, CacheRead: 70, CacheWrite: 30}, Output: usage.Output{Tokens: 50, Reasoning: 30}, Counts: usage.Counts{Requests: 1}},
	},
	{
		"AI SDK: the provider's own object says more", usage.AISDKv6, true,
		`{"inputTokens":{"total":420,"noCache":420},"outputTokens":{"total":0},
		  "raw":{"promptTokenCount":420,"toolUsePromptTokenCount":7000,"totalTokenCount":7420}}`,
		usage.Usage{Input: usage.Input{Tokens: 7420}, Counts: usage.Counts{Requests: 1}},
	},
	{
		"AI SDK: an uncertain object of the provider is left alone", usage.AISDKv6, true,
		`{"inputTokens":{"total":5},"outputTokens":{"total":30,"reasoning":20},
		  "raw":{"prompt_tokens":5,"completion_tokens":10,"completion_tokens_details":{"reasoning_tokens":20}}}`,
		usage.Usage{Input: usage.Input{Tokens: 5}, Output: usage.Output{Tokens: 30, Reasoning: 20}, Counts: usage.Counts{Requests: 1}},
	},
	{
		"AI SDK: an embedding", usage.AISDKv6, true, `{"tokens":17}`,
		usage.Usage{Input: usage.Input{Tokens: 17}, Counts: usage.Counts{Requests: 1}},
	},
	{
		"LangChain", usage.LangChain, true,
		`{"usage_metadata":{"input_tokens":350,"output_tokens":240,"total_tokens":590,
		  "input_token_details":{"audio":10,"cache_creation":200,"cache_read":100},"output_token_details":{"audio":10,"reasoning":200}}}`,
		usage.Usage{
			Input: usage.Input{Tokens: 350, CacheRead: 100, CacheWrite: 200, Audio: 10}, Output: usage.Output{Tokens: 240, Reasoning: 200, Audio: 10},
			Counts: usage.Counts{Requests: 1},
		},
	},
	{
		"OpenAI Agents: each request by itself", usage.OpenAIAgents, true,
		`{"requests":2,"inputTokens":300,"outputTokens":30,"totalTokens":330,"inputTokensDetails":[{"cached_tokens":0},{"cached_tokens":128}],
		  "outputTokensDetails":[{"reasoning_tokens":5},{"reasoning_tokens":0}],"requestUsageEntries":[
		  {"inputTokens":100,"outputTokens":10,"totalTokens":110,"inputTokensDetails":{},"outputTokensDetails":{"reasoning_tokens":5}},
		  {"inputTokens":200,"outputTokens":20,"totalTokens":220,"inputTokensDetails":{"cached_tokens":128},"outputTokensDetails":{}}]}`,
		usage.Usage{
			Input: usage.Input{Tokens: 300, CacheRead: 128}, Output: usage.Output{Tokens: 30, Reasoning: 5}, Counts: usage.Counts{Requests: 2},
			Each: []usage.Usage{
				{Format: usage.OpenAIAgents, Input: usage.Input{Tokens: 100}, Output: usage.Output{Tokens: 10, Reasoning: 5}, Counts: usage.Counts{Requests: 1}},
				{Format: usage.OpenAIAgents, Input: usage.Input{Tokens: 200, CacheRead: 128}, Output: usage.Output{Tokens: 20}, Counts: usage.Counts{Requests: 1}},
			},
		},
	},
	{
		"OpenTelemetry", usage.OpenTelemetry, true,
		`{"gen_ai.request.model":"gpt-5.5","gen_ai.response.model":"gpt-5.5-2026-04-23","gen_ai.usage.input_tokens":100,"gen_ai.usage.output_tokens":50,
		  "gen_ai.usage.cache_read.input_tokens":40,"gen_ai.usage.cache_creation.input_tokens":10,"gen_ai.usage.reasoning.output_tokens":20}`,
		usage.Usage{
			Model: "gpt-5.5-2026-04-23", Input: usage.Input{Tokens: 100, CacheRead: 40, CacheWrite: 10}, Output: usage.Output{Tokens: 50, Reasoning: 20},
			Counts: usage.Counts{Requests: 1},
		},
	},
}

func TestNormalize(t *testing.T) {
	t.Parallel()
	seen := map[usage.Format]bool{}
	for _, f := range fixtures {
		seen[f.format] = true
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.want.Format = f.format
			named, err := usage.Normalize(f.format, []byte(f.raw))
			require.NoError(t, err)
			require.NotEmpty(t, named.Raw)
			raw := named.Raw
			named.Raw = nil
			require.Equal(t, f.want, named)

			// The kept object alone gives the same counts again.
			again, err := usage.Normalize(f.format, raw)
			require.NoError(t, err)
			require.Equal(t, [3]any{named.Input, named.Output, named.Counts}, [3]any{again.Input, again.Output, again.Counts})

			found, err := usage.Normalize("", []byte(f.raw))
			if !f.byShape {
				return
			}
			require.NoError(t, err)
			found.Raw = nil
			require.Equal(t, f.want, found)
		})
	}
	for _, format := range usage.Formats() {
		require.Truef(t, seen[format], "no fixture has the format %s", format)
	}
}

func TestNormalizeRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		format usage.Format
		raw    string
		want   string // begins with the path
	}{
		{
			"a part above its whole", usage.OpenAIChat,
			`{"prompt_tokens":1,"completion_tokens":10,"total_tokens":11,"completion_tokens_details":{"reasoning_tokens":12}}`,
			"provider_usage.completion_tokens_details.reasoning_tokens: 12 is more than completion_tokens, 10",
		},
		{
			"OpenAI or xAI: no total says it", "",
			`{"prompt_tokens":1,"completion_tokens":10,"completion_tokens_details":{"reasoning_tokens":4}}`,
			"provider_usage.completion_tokens_details.reasoning_tokens: is inside completion_tokens (openai_chat) or on top of them (xai)",
		},
		{
			"more reasoning than output and nobody says whose", "",
			`{"prompt_tokens":1,"completion_tokens":10,"completion_tokens_details":{"reasoning_tokens":12}}`,
			"provider_usage.completion_tokens_details.reasoning_tokens: 12 is more than completion_tokens, 10; where reasoning comes on top, name the format xai",
		},
		{
			"xAI's object under OpenAI's name", usage.OpenAIChat,
			`{"prompt_tokens":32,"completion_tokens":100,"total_tokens":226,"completion_tokens_details":{"reasoning_tokens":94}}`,
			"provider_usage.total_tokens: 226 is prompt_tokens + completion_tokens + reasoning_tokens",
		},
		{
			"OpenAI's object under xAI's name", usage.XAI,
			`{"prompt_tokens":32,"completion_tokens":100,"total_tokens":132,"completion_tokens_details":{"reasoning_tokens":94}}`,
			"provider_usage.total_tokens: 132 is not prompt_tokens + completion_tokens + reasoning_tokens, 226",
		},
		{
			"a total that is no sum", "", `{"prompt_tokens":32,"completion_tokens":9,"total_tokens":40,"completion_tokens_details":{"reasoning_tokens":1}}`,
			"provider_usage.total_tokens: 40 is not prompt_tokens + completion_tokens, 41",
		},
		{"a fraction", "", `{"input_tokens":1.5,"output_tokens":2}`, "provider_usage.input_tokens: is 1.5; it must be an integer from 0 to 9007199254740991"},
		{"an exponent", "", `{"input_tokens":1e3,"output_tokens":2}`, "provider_usage.input_tokens: is 1e3; it must be an integer"},
		{"negative", "", `{"input_tokens":-1,"output_tokens":2}`, "provider_usage.input_tokens: is -1; it must be an integer"},
		{"text", "", `{"input_tokens":"12","output_tokens":2}`, "provider_usage.input_tokens: is a string; it must be an integer"},
		{"overflow", "", `{"input_tokens":9007199254740992,"output_tokens":2}`, "provider_usage.input_tokens: is 9007199254740992; it must be an integer"},
		{"far overflow", "", `{"input_tokens":99999999999999999999999999,"output_tokens":2}`, "provider_usage.input_tokens: is 99999999999999999999999999; it must"},
		{
			"overflow in sum", usage.Anthropic, `{"input_tokens":9007199254740991,"cache_read_input_tokens":9007199254740991,"output_tokens":0}`,
			"provider_usage: counts more than 9007199254740991 in sum",
		},
		{"a member twice", "", `{"input_tokens":1,"output_tokens":2,"input_tokens":1}`, "provider_usage.input_tokens: is there twice; once is allowed"},
		{"a member twice, once escaped", "", `{"input_tokens":1,"output_tokens":2,"\u0069nput_tokens":1}`, "provider_usage.input_tokens: is there twice; once is allowed"},
		{
			"a member twice below", "", `{"prompt_tokens":1,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":0,"cached_tokens":1}}`,
			"provider_usage.prompt_tokens_details.cached_tokens: is there twice; once is allowed",
		},
		{"in a response", "", `{"usage":{"input_tokens":-1}}`, "provider_usage.usage.input_tokens: is -1; it must be an integer"},
		{
			"in a list", "", `{"promptTokenCount":1,"promptTokensDetails":[{"modality":"TEXT","tokenCount":1},{"modality":"AUDIO","tokenCount":"x"}]}`,
			"provider_usage.promptTokensDetails[1].tokenCount: is a string; it must be an integer",
		},
		{
			"modalities above their whole", "", `{"promptTokenCount":1,"promptTokensDetails":[{"modality":"TEXT","tokenCount":1},{"modality":"AUDIO","tokenCount":1}]}`,
			"provider_usage.promptTokensDetails: are 2 tokens in sum, more than the 1 that they are part of",
		},
		{
			"Gemini's total", "", `{"promptTokenCount":10,"candidatesTokenCount":5,"thoughtsTokenCount":7,"totalTokenCount":15}`,
			"provider_usage.totalTokenCount: 15 is not the sum of prompt, tool use, candidates and thoughts, 22",
		},
		{
			"cache writes by duration above the sum", "",
			`{"input_tokens":1,"output_tokens":1,"cache_creation_input_tokens":5,"cache_creation":{"ephemeral_5m_input_tokens":3,"ephemeral_1h_input_tokens":3}}`,
			"provider_usage.cache_creation: 5 minutes and 1 hour together, 6, are more than cache_creation_input_tokens, 5",
		},
		{
			"cache reads and writes above the input", "", `{"prompt_tokens":10,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":6,"cache_write_tokens":6}}`,
			"provider_usage: cache reads and writes together, 12, are more than input tokens, 10",
		},
		{
			"iterations that do not add up", "", `{"input_tokens":10,"output_tokens":1,"iterations":[{"type":"message","input_tokens":9,"output_tokens":1}]}`,
			"provider_usage.iterations: the message entries do not add up",
		},
		{
			"an iteration of an unknown kind", "", `{"input_tokens":10,"output_tokens":1,"iterations":[{"type":"dream","input_tokens":9,"output_tokens":1}]}`,
			"provider_usage.iterations[0].type: is dream; allowed are message, compaction, advisor_message and fallback_message",
		},
		{"message_delta alone", usage.Anthropic, `{"output_tokens":5}`, "provider_usage.input_tokens: is missing; the format anthropic requires it"},
		{"another format's object", usage.Gemini, `{"prompt_tokens":5}`, "provider_usage.promptTokenCount: is missing; the format gemini requires it"},
		{"AI SDK 5 with a cache", "", `{"inputTokens":5,"outputTokens":5,"totalTokens":10,"cachedInputTokens":3}`, "provider_usage.cachedInputTokens: is 3, inside inputTokens or beside them"},
		{"AI SDK parts above the total", "", `{"inputTokens":{"total":5,"noCache":3,"cacheRead":3},"outputTokens":{"total":1}}`, "provider_usage.inputTokens.noCache: makes 6"},
		{"DeepSeek's hits and misses", "", `{"prompt_tokens":10,"completion_tokens":1,"prompt_cache_hit_tokens":3,"prompt_cache_miss_tokens":3}`, "provider_usage.prompt_cache_miss_tokens: 3 and prompt_cache_hit_tokens, 3, are not prompt_tokens, 10"},
		{"Bedrock's total", "", `{"inputTokens":4,"outputTokens":2,"totalTokens":9,"cacheReadInputTokens":10}`, "provider_usage.totalTokens: 9 is neither"},
		{"entries that do not add up to the run", "", `{"requests":2,"inputTokens":5,"outputTokens":5,"requestUsageEntries":[{"inputTokens":5,"outputTokens":4}]}`, "provider_usage.requestUsageEntries: do not add up to the run"},
		{"no known shape", "", `{"tokens_used":5}`, "provider_usage: has the shape of no known format; allowed are ai_sdk_v5"},
		{"null", "", `null`, "provider_usage: is null; it must be an object"},
		{"empty", "", ``, "provider_usage: is not valid JSON"},
		{"broken", "", `{"prompt_tokens":1`, "provider_usage: is not valid JSON"},
		{"unknown format", "openai", `{}`, "usage_format: openai is unknown; allowed are ai_sdk_v5, ai_sdk_v6"},
		{"too many members", "", "{" + manyMembers(300) + "}", "provider_usage: has more than 256 members"},
		{"deeply wrapped", "", strings.Repeat(`{"response":`, 9) + `{"input_tokens":1}` + strings.Repeat("}", 9), "provider_usage: has the shape of no known format"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := usage.Normalize(c.format, []byte(c.raw))
			var at *usage.Error
			require.ErrorAs(t, err, &at)
			require.Zero(t, got)
			require.True(t, strings.HasPrefix(err.Error(), c.want), "%s\nwant %s", err, c.want)
		})
	}
}

func manyMembers(n int) string {
	all := map[string]int{}
	for i := range n {
		all["m"+strings.Repeat("x", i)] = i
	}
	text, _ := json.Marshal(all)
	return strings.Trim(string(text), "{}")
}

func TestRawKeepsNoPrompt(t *testing.T) {
	t.Parallel()
	body := `{"model":"m","choices":[{"message":{"content":"secret"}}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`
	u, err := usage.Normalize("", []byte(body))
	require.NoError(t, err)
	require.JSONEq(t, `{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}`, string(u.Raw))
}

// The caller may use its buffer again.
func TestNormalizeKeepsNoReference(t *testing.T) {
	t.Parallel()
	body := []byte(`{"model":"gpt-5.5","service_tier":"flex","usage":{"prompt_tokens":1,"completion_tokens":2,"cost":0.5}}`)
	u, err := usage.Normalize("", body)
	require.NoError(t, err)
	clear(body)
	require.Equal(t, "gpt-5.5", u.Model)
	require.Equal(t, "flex", u.ServiceTier)
	require.JSONEq(t, `{"prompt_tokens":1,"completion_tokens":2,"cost":0.5}`, string(u.Raw))
	require.EqualValues(t, "0.5", u.Cost.USD)
}
