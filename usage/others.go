package usage

// readBedrock reads Converse: inputTokens exclude what was read from and written to the
// cache.
func readBedrock(o *object, u *Usage) {
	in := &u.Input
	in.CacheRead, in.CacheWrite = o.count("cacheReadInputTokens"), o.count("cacheWriteInputTokens")
	for _, detail := range o.list("cacheDetails") {
		n := detail.count("inputTokens")
		switch ttl := detail.text("ttl"); ttl {
		case "5m":
			in.CacheWrite5m = total(in.CacheWrite5m, n)
		case "1h":
			in.CacheWrite1h = total(in.CacheWrite1h, n)
		default:
			detail.fail("ttl", "is %s; allowed are 5m and 1h", shorten([]byte(ttl)))
		}
	}
	if !o.has("cacheWriteInputTokens") {
		in.CacheWrite = total(in.CacheWrite5m, in.CacheWrite1h)
	}
	fresh := o.count("inputTokens")
	in.Tokens = total(fresh, in.CacheRead, in.CacheWrite)
	u.Output.Tokens = o.count("outputTokens")
	if n := o.count("totalTokens"); o.has("totalTokens") && n != total(in.Tokens, u.Output.Tokens) && n != total(fresh, u.Output.Tokens) {
		o.fail("totalTokens", "%d is neither inputTokens + outputTokens, %d, nor that with the cache, %d",
			n, total(fresh, u.Output.Tokens), total(in.Tokens, u.Output.Tokens))
	}
}

// readMistral reads Mistral: the tokens of connectors are in addition to the prompt; OCR
// counts pages.
func readMistral(o *object, u *Usage) {
	u.Counts.Pages = o.count("pages_processed")
	if !o.has("prompt_tokens") {
		return
	}
	readChatParts(o, u)
	in := &u.Input
	if n := o.count("num_cached_tokens"); in.CacheRead == 0 {
		o.within("num_cached_tokens", n, "prompt_tokens", in.Tokens)
		in.CacheRead = n
	}
	in.Tokens = total(in.Tokens, o.count("connector_tokens"))
	if raw := o.get("prompt_audio_seconds"); len(raw) > 0 && raw[0] != '{' { // {} means unset
		u.Counts.AudioMilliseconds = o.milliseconds("prompt_audio_seconds")
	}
	connectors := o.object("connectors")
	if connectors != nil {
		for i := range connectors.members {
			name := string(connectors.nameOf(&connectors.members[i]))
			n := connectors.count(name)
			if name == "web_search" {
				u.Counts.WebSearches = total(u.Counts.WebSearches, n)
			} else {
				u.Counts.ToolCalls = total(u.Counts.ToolCalls, n)
			}
		}
	}
	o.sumIs("total_tokens", "prompt_tokens + completion_tokens + connector_tokens", total(in.Tokens, u.Output.Tokens))
}

// readCohere reads v2: billed_units are billed, tokens are not.
func readCohere(o *object, u *Usage) {
	billed := o.object("billed_units")
	u.Input.Tokens, u.Output.Tokens = billed.count("input_tokens"), billed.count("output_tokens")
	u.Input.Image = billed.count("image_tokens")
	u.Input.Tokens = total(u.Input.Tokens, u.Input.Image)
	u.Counts.SearchUnits = billed.count("search_units")
	u.Counts.Classifications = billed.count("classifications")
	u.Counts.Images = billed.count("images")
	// cached_tokens are part of tokens, which are not billed. Cohere does not say how many
	// of them are in billed_units, and publishes no price for them.
}

// readLangChain reads usage_metadata: totals include the details.
func readLangChain(o *object, u *Usage) {
	in, out := &u.Input, &u.Output
	in.Tokens, out.Tokens = o.count("input_tokens"), o.count("output_tokens")
	details := o.object("input_token_details")
	in.CacheRead, in.CacheWrite, in.Audio = details.count("cache_read"), details.count("cache_creation"), details.count("audio")
	in.CacheWrite5m, in.CacheWrite1h = details.count("ephemeral_5m_input_tokens"), details.count("ephemeral_1h_input_tokens")
	in.CacheWrite = max(in.CacheWrite, total(in.CacheWrite5m, in.CacheWrite1h))
	details.within("cache_read", in.CacheRead, "input_tokens", in.Tokens)
	details.within("cache_creation", in.CacheWrite, "input_tokens", in.Tokens)
	details.within("audio", in.Audio, "input_tokens", in.Tokens)
	details = o.object("output_token_details")
	out.Reasoning, out.Audio = details.count("reasoning"), details.count("audio")
	details.within("reasoning", out.Reasoning, "output_tokens", out.Tokens)
	details.within("audio", out.Audio, "output_tokens", out.Tokens)
	o.sumIs("total_tokens", "input_tokens + output_tokens", total(in.Tokens, out.Tokens))
}

// The attributes of OpenTelemetry, and the names that two of them had before.
const (
	otelInput      = "gen_ai.usage.input_tokens"
	otelOutput     = "gen_ai.usage.output_tokens"
	otelCacheRead  = "gen_ai.usage.cache_read.input_tokens"
	otelCacheWrite = "gen_ai.usage.cache_creation.input_tokens"
	otelReasoning  = "gen_ai.usage.reasoning.output_tokens"
	otelOldInput   = "gen_ai.usage.prompt_tokens"
	otelOldOutput  = "gen_ai.usage.completion_tokens"
)

// readOpenTelemetry reads the attributes of a span: totals include the parts.
func readOpenTelemetry(o *object, u *Usage) {
	in, out := &u.Input, &u.Output
	in.Tokens, out.Tokens = o.count(otelInput), o.count(otelOutput)
	if !o.has(otelInput) {
		in.Tokens = o.count(otelOldInput)
	}
	if !o.has(otelOutput) {
		out.Tokens = o.count(otelOldOutput)
	}
	in.CacheRead, in.CacheWrite, out.Reasoning = o.count(otelCacheRead), o.count(otelCacheWrite), o.count(otelReasoning)
	o.within(otelCacheRead, in.CacheRead, otelInput, in.Tokens)
	o.within(otelCacheWrite, in.CacheWrite, otelInput, in.Tokens)
	o.within(otelReasoning, out.Reasoning, otelOutput, out.Tokens)
	if model := firstText(o, "gen_ai.response.model", "gen_ai.request.model"); model != "" {
		u.Model = model
	}
	if tier := o.lower("gen_ai.openai.response.service_tier"); tier != "" {
		u.ServiceTier = tier
	}
}
