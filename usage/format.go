package usage

import (
	"slices"
	"strings"
)

// Format names a shape of usage object and the meaning of its counts.
type Format string

// The formats that [Normalize] reads. docs/ai.md says for each what includes what.
const (
	OpenAIChat         Format = "openai_chat"         // also legacy completions and embeddings
	OpenAIResponses    Format = "openai_responses"    //
	OpenAIRealtime     Format = "openai_realtime"     // also audio transcriptions
	OpenAIImages       Format = "openai_images"       //
	AzureOpenAI        Format = "azure_openai"        // Chat and Responses
	Anthropic          Format = "anthropic"           // Messages, with the beta's iterations; also on Bedrock and Vertex
	Gemini             Format = "gemini"              // usageMetadata, also of the Live API
	GeminiInteractions Format = "gemini_interactions" //
	BedrockConverse    Format = "bedrock_converse"    //
	XAI                Format = "xai"                 // Chat, Responses and Realtime
	DeepSeek           Format = "deepseek"            //
	Groq               Format = "groq"                //
	Mistral            Format = "mistral"             // Chat, agents and OCR
	Cohere             Format = "cohere"              // v2
	OpenRouter         Format = "openrouter"          //
	AISDKv5            Format = "ai_sdk_v5"           // Vercel AI SDK
	AISDKv6            Format = "ai_sdk_v6"           // of a model and of a call
	AISDKv7            Format = "ai_sdk_v7"           // of a model and of a call
	LangChain          Format = "langchain"           // usage_metadata
	OpenAIAgents       Format = "openai_agents"       //
	OpenTelemetry      Format = "opentelemetry"       // attributes gen_ai.usage.*
)

// formats has the reader of each format, and the totals of which an object of that format
// has at least one.
var formats map[Format]formatEntry

type formatEntry struct {
	read     func(*object, *Usage)
	required []string
}

func init() { // not a literal of formats: the AI SDK's reader normalises the object inside and so refers to formats
	formats = map[Format]formatEntry{
		OpenAIChat:         {readChat, []string{"prompt_tokens"}},
		OpenAIResponses:    {readResponses, []string{"input_tokens"}},
		OpenAIRealtime:     {readRealtime, []string{"input_tokens", "output_tokens", "seconds"}},
		OpenAIImages:       {readImages, []string{"input_tokens"}},
		AzureOpenAI:        {readOpenAI, []string{"prompt_tokens", "input_tokens"}},
		Anthropic:          {readAnthropic, []string{"input_tokens"}},
		Gemini:             {readGemini, []string{"promptTokenCount", "candidatesTokenCount", "responseTokenCount", "totalTokenCount"}},
		GeminiInteractions: {readInteractions, []string{"total_input_tokens", "total_output_tokens", "total_tokens"}},
		BedrockConverse:    {readBedrock, []string{"inputTokens"}},
		XAI:                {readXAI, []string{"prompt_tokens", "input_tokens", "billable_audio_seconds"}},
		DeepSeek:           {readDeepSeek, []string{"prompt_tokens"}},
		Groq:               {readChat, []string{"prompt_tokens"}},
		Mistral:            {readMistral, []string{"prompt_tokens", "pages_processed"}},
		Cohere:             {readCohere, []string{"billed_units"}},
		OpenRouter:         {readOpenRouter, []string{"prompt_tokens", "input_tokens"}},
		AISDKv5:            {readAISDKv5, []string{"inputTokens", "tokens"}},
		AISDKv6:            {readAISDK, []string{"inputTokens", "tokens"}},
		AISDKv7:            {readAISDK, []string{"inputTokens", "tokens"}},
		LangChain:          {readLangChain, []string{"input_tokens"}},
		OpenAIAgents:       {readAgents, []string{"inputTokens", "input_tokens"}},
		OpenTelemetry:      {readOpenTelemetry, []string{otelInput, otelOutput, otelOldInput, otelOldOutput}},
	}
}

// Formats returns the names that [Normalize] accepts, in alphabetical order.
func Formats() []Format {
	names := make([]Format, 0, len(formats))
	for name := range formats {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func formatNames() string {
	names := Formats()
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = string(name)
	}
	return strings.Join(all, ", ")
}

// detect finds the format by shape; empty if no format has this shape. It does not
// distinguish formats that read the same counts in the same way: an object with only
// input_tokens and output_tokens means the same in all of them.
func detect(o *object) Format {
	switch { // the most frequent first
	case o.has("prompt_tokens"):
		return detectChat(o)
	case o.has("requests", "requestUsageEntries", "request_usage_entries", "inputTokensDetails"):
		return OpenAIAgents
	case o.has("input_tokens"):
		return detectInputTokens(o)
	case o.has("promptTokenCount", "candidatesTokenCount", "responseTokenCount", "totalTokenCount"):
		return Gemini
	case o.has("total_input_tokens", "total_output_tokens"):
		return GeminiInteractions
	case o.has(otelInput, otelOutput, otelOldInput, otelOldOutput):
		return OpenTelemetry
	case o.has("billed_units"):
		return Cohere
	case o.has("inputTokens", "outputTokens"):
		return detectCamelCase(o)
	case o.has("pages_processed"):
		return Mistral
	case o.has("billable_audio_seconds"):
		return XAI
	case o.has("seconds"):
		return OpenAIRealtime
	case o.has("tokens"):
		return AISDKv6
	}
	return ""
}

func detectChat(o *object) Format {
	cost := o.get("cost")
	switch {
	case o.has("connector_tokens", "connectors", "prompt_audio_seconds", "num_cached_tokens"):
		return Mistral
	case o.has("prompt_cache_hit_tokens", "prompt_cache_miss_tokens"):
		return DeepSeek
	case o.has("cost_details", "is_byok"), len(cost) > 0 && cost[0] != '{':
		return OpenRouter
	case o.has("num_sources_used", "cost_in_usd_ticks"):
		return XAI
	case o.has("queue_time", "prompt_time", "completion_time"):
		return Groq
	}
	return OpenAIChat
}

func detectInputTokens(o *object) Format {
	in, out := o.peek("input_tokens_details"), o.peek("output_tokens_details")
	single, singleOut := o.peek("input_token_details"), o.peek("output_token_details")
	switch {
	case o.has("cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation", "iterations"), out.has("thinking_tokens"):
		return Anthropic
	case in.has("text_tokens", "image_tokens") && !in.has("cached_tokens"):
		return OpenAIImages
	case o.has("input_tokens_details", "output_tokens_details"):
		return OpenAIResponses
	case single.has("text_tokens", "audio_tokens", "image_tokens", "cached_tokens"), singleOut.has("text_tokens", "audio_tokens"):
		return OpenAIRealtime
	case o.has("input_token_details", "output_token_details"):
		return LangChain
	case o.has("total_tokens"):
		return OpenAIResponses
	}
	return Anthropic
}

func detectCamelCase(o *object) Format {
	isObject := func(name string) bool { raw := o.get(name); return len(raw) > 0 && raw[0] == '{' }
	switch {
	case o.has("cacheReadInputTokens", "cacheWriteInputTokens", "cacheDetails"):
		return BedrockConverse
	case o.has("inputTokenDetails", "outputTokenDetails"), isObject("inputTokens"), isObject("outputTokens"):
		return AISDKv6
	}
	return AISDKv5
}
