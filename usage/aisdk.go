package usage

// readAISDKv5 reads the Vercel AI SDK 5, whose counts mean what the provider means by them. The total says whether
// reasoning is inside outputTokens; nothing says whether the cache is inside inputTokens.
func readAISDKv5(o *object, u *Usage) {
	in, out := &u.Input, &u.Output
	if o.has("tokens") && !o.has("inputTokens") {
		in.Tokens = o.count("tokens") // an embedding
		return
	}
	in.Tokens, out.Tokens = o.count("inputTokens"), o.count("outputTokens")
	if cached := o.count("cachedInputTokens"); cached > 0 {
		o.fail("cachedInputTokens", "is %d, inside inputTokens or beside them, depending on the provider, and AI SDK 5 does not say which: send the provider's own usage object",
			cached)
		return
	}
	reasoning, sum := o.count("reasoningTokens"), total(in.Tokens, out.Tokens)
	if reasoning > 0 {
		switch n := o.count("totalTokens"); {
		case !o.has("totalTokens"):
			o.fail("reasoningTokens", "is inside outputTokens or on top of them, and totalTokens is missing, which would say it")
			return
		case n == total(sum, reasoning):
			out.Tokens, sum = total(out.Tokens, reasoning), n
		default:
			o.within("reasoningTokens", reasoning, "outputTokens", out.Tokens)
		}
	}
	out.Reasoning = reasoning
	o.sumIs("totalTokens", "inputTokens + outputTokens", sum)
}

// readAISDK reads the Vercel AI SDK 6 and 7, of a model or of a call. Its totals include
// the parts. The provider's own object in raw says more (how long the cache keeps, the
// tools' tokens, iterations) and is preferred if it can be read without ambiguity.
func readAISDK(o *object, u *Usage) {
	if readRaw(o, u) {
		return
	}
	in, out := &u.Input, &u.Output
	inputs, outputs := o.peek("inputTokens"), o.peek("outputTokens")
	switch {
	case o.has("tokens") && !o.has("inputTokens"):
		in.Tokens = o.count("tokens") // an embedding
	case inputs != nil || outputs != nil:
		in.Tokens, in.CacheRead, in.CacheWrite = inputs.count("total"), inputs.count("cacheRead"), inputs.count("cacheWrite")
		out.Tokens, out.Reasoning = outputs.count("total"), outputs.count("reasoning")
		checkAISDK(inputs, outputs, in, out, [...]string{"noCache", "cacheRead", "cacheWrite", "text", "reasoning", "total", "total"})
	default:
		in.Tokens, out.Tokens = o.count("inputTokens"), o.count("outputTokens")
		inputs, outputs = o.object("inputTokenDetails"), o.object("outputTokenDetails")
		in.CacheRead, in.CacheWrite = inputs.count("cacheReadTokens"), inputs.count("cacheWriteTokens")
		out.Reasoning = outputs.count("reasoningTokens")
		checkAISDK(inputs, outputs, in, out, [...]string{"noCacheTokens", "cacheReadTokens", "cacheWriteTokens", "textTokens", "reasoningTokens", "inputTokens", "outputTokens"})
		o.sumIs("totalTokens", "inputTokens + outputTokens", total(in.Tokens, out.Tokens))
	}
}

// checkAISDK checks that parts fit into totals, and add up to them where all parts are there.
func checkAISDK(inputs, outputs *object, in *Input, out *Output, names [7]string) {
	inputs.within(names[1], in.CacheRead, names[5], in.Tokens)
	inputs.within(names[2], in.CacheWrite, names[5], in.Tokens)
	outputs.within(names[4], out.Reasoning, names[6], out.Tokens)
	if sum := total(inputs.count(names[0]), in.CacheRead, in.CacheWrite); inputs.has(names[0]) && sum > in.Tokens {
		inputs.fail(names[0], "makes %d with what was read from and written to the cache, more than %s, %d", sum, names[5], in.Tokens)
	}
	if sum := total(outputs.count(names[3]), out.Reasoning); outputs.has(names[3]) && sum > out.Tokens {
		outputs.fail(names[3], "makes %d with reasoning, more than %s, %d", sum, names[6], out.Tokens)
	}
}

// readRaw reads the provider's own object, if it is there and its format is certain.
func readRaw(o *object, u *Usage) bool {
	raw := o.peek("raw")
	if raw == nil {
		return false
	}
	inner, err := Normalize("", raw.raw)
	if err != nil || inner.Format == AISDKv5 || inner.Format == AISDKv6 {
		return false
	}
	format, text, model, tier := u.Format, u.Raw, u.Model, u.ServiceTier
	*u = inner
	u.Format, u.Raw = format, text
	if model != "" {
		u.Model = model
	}
	if u.ServiceTier == "" {
		u.ServiceTier = tier
	}
	return true
}
