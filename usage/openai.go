package usage

// readOpenAI reads Chat and Responses objects of a vendor that serves both.
func readOpenAI(o *object, u *Usage) {
	if o.has("prompt_tokens") {
		readChat(o, u)
	} else {
		readResponses(o, u)
	}
}

// readChat reads OpenAI's Chat Completions and compatible ones: reasoning is inside
// completion_tokens.
func readChat(o *object, u *Usage) {
	reasoning := readChatParts(o, u)
	if beside := total(u.Input.Tokens, u.Output.Tokens, reasoning); reasoning > 0 && o.count("total_tokens") == beside {
		o.fail("total_tokens", "%d is prompt_tokens + completion_tokens + reasoning_tokens; in the format %s reasoning is inside completion_tokens. xAI counts like this: name the format %s",
			beside, u.Format, XAI)
	}
	o.sumIs("total_tokens", "prompt_tokens + completion_tokens", total(u.Input.Tokens, u.Output.Tokens))
}

// readUnnamedChat reads a Chat object without a named format: reasoning may be inside
// completion_tokens (OpenAI and most others) or in addition to them (xAI). The total
// decides. Without a total it is an error, unless there is no reasoning.
func readUnnamedChat(o *object, u *Usage) {
	completion, reasoning := o.count("completion_tokens"), o.object("completion_tokens_details").count("reasoning_tokens")
	if reasoning > 0 && !o.has("total_tokens") {
		details := o.object("completion_tokens_details")
		if reasoning > completion {
			details.fail("reasoning_tokens", "%d is more than completion_tokens, %d; where reasoning comes on top, name the format %s",
				reasoning, completion, XAI)
		}
		details.fail("reasoning_tokens", "is inside completion_tokens (%s) or on top of them (%s), and total_tokens is missing, which would say it: name the format",
			OpenAIChat, XAI)
		return
	}
	if sum := total(o.count("prompt_tokens"), completion, reasoning); reasoning > 0 && o.count("total_tokens") == sum {
		u.Format = XAI
		readXAIChat(o, u)
		return
	}
	readChat(o, u)
}

// readChatParts reads a Chat object except its total, and returns reasoning, which the
// caller checks.
func readChatParts(o *object, u *Usage) (reasoning int64) {
	in, out := &u.Input, &u.Output
	in.Tokens, out.Tokens = o.count("prompt_tokens"), o.count("completion_tokens")

	details := o.object("prompt_tokens_details")
	readInputDetails(details, in, "prompt_tokens")

	details = o.object("completion_tokens_details")
	reasoning = details.count("reasoning_tokens")
	out.Audio, out.Image, out.Video = details.count("audio_tokens"), details.count("image_tokens"), details.count("video_tokens")
	details.within("audio_tokens", out.Audio, "completion_tokens", out.Tokens)
	details.within("image_tokens", out.Image, "completion_tokens", out.Tokens)
	for _, name := range [...]string{"accepted_prediction_tokens", "rejected_prediction_tokens"} {
		details.within(name, details.count(name), "completion_tokens", out.Tokens)
	}
	if u.Format != XAI {
		details.within("reasoning_tokens", reasoning, "completion_tokens", out.Tokens)
		out.Reasoning = reasoning
	}
	return reasoning
}

// readInputDetails reads the parts of the input in Chat and Responses. All of them are
// inside the whole.
func readInputDetails(details *object, in *Input, whole string) {
	if details == nil {
		return
	}
	in.CacheRead = details.count("cached_tokens")
	in.CacheWrite = details.count("cache_write_tokens")
	in.Audio, in.Image, in.Video = details.count("audio_tokens"), details.count("image_tokens"), details.count("video_tokens")
	for _, part := range [...]struct {
		name string
		n    int64
	}{{"cached_tokens", in.CacheRead}, {"cache_write_tokens", in.CacheWrite}, {"audio_tokens", in.Audio}, {"image_tokens", in.Image}, {"video_tokens", in.Video}} {
		details.within(part.name, part.n, whole, in.Tokens)
	}
	if writes := details.object("cache_write_tokens_details"); writes != nil {
		in.CacheWrite30m, in.CacheWrite12h = writes.count("ttl_30m_tokens"), writes.count("ttl_12h_tokens")
		writes.within("ttl_30m_tokens", in.CacheWrite30m, "cache_write_tokens", in.CacheWrite)
		writes.within("ttl_12h_tokens", in.CacheWrite12h, "cache_write_tokens", in.CacheWrite)
	}
	if reads := details.object("cached_tokens_details"); reads != nil {
		in.CacheReadAudio, in.CacheReadImage = reads.count("audio_tokens"), reads.count("image_tokens")
		reads.within("audio_tokens", in.CacheReadAudio, "cached_tokens", in.CacheRead)
		reads.within("image_tokens", in.CacheReadImage, "cached_tokens", in.CacheRead)
	}
}

func readResponses(o *object, u *Usage) {
	in, out := &u.Input, &u.Output
	in.Tokens, out.Tokens = o.count("input_tokens"), o.count("output_tokens")
	readInputDetails(o.object("input_tokens_details"), in, "input_tokens")
	details := o.object("output_tokens_details")
	out.Reasoning, out.Audio, out.Image = details.count("reasoning_tokens"), details.count("audio_tokens"), details.count("image_tokens")
	details.within("reasoning_tokens", out.Reasoning, "output_tokens", out.Tokens)
	o.sumIs("total_tokens", "input_tokens + output_tokens", total(in.Tokens, out.Tokens))
}

// readRealtime reads Realtime and transcriptions, whose details are called input_token_details, or which count seconds.
func readRealtime(o *object, u *Usage) {
	u.Counts.AudioMilliseconds = o.milliseconds("seconds")
	in, out := &u.Input, &u.Output
	in.Tokens, out.Tokens = o.count("input_tokens"), o.count("output_tokens")
	readInputDetails(o.object("input_token_details"), in, "input_tokens")
	details := o.object("output_token_details")
	out.Audio = details.count("audio_tokens")
	details.within("audio_tokens", out.Audio, "output_tokens", out.Tokens)
	o.sumIs("total_tokens", "input_tokens + output_tokens", total(in.Tokens, out.Tokens))
}

// readImages reads the Images API: its output is images, except the text in the details.
func readImages(o *object, u *Usage) {
	readResponses(o, u)
	if details := o.object("output_tokens_details"); details == nil {
		u.Output.Image = u.Output.Tokens
	} else {
		details.within("image_tokens", u.Output.Image, "output_tokens", u.Output.Tokens)
	}
}

// readXAI reads xAI. In Chat reasoning is in addition to completion_tokens, in Responses
// inside output_tokens.
func readXAI(o *object, u *Usage) {
	switch {
	case o.has("prompt_tokens"):
		readXAIChat(o, u)
	case o.has("billable_audio_seconds"):
		readRealtime(o, u)
		u.Counts.AudioMilliseconds = o.milliseconds("billable_audio_seconds")
	default:
		readResponses(o, u)
	}
	u.Counts.SearchSources = o.count("num_sources_used")
}

func readXAIChat(o *object, u *Usage) {
	reasoning := readChatParts(o, u)
	if old := o.count("cached_prompt_text_tokens"); old > 0 && u.Input.CacheRead == 0 {
		o.within("cached_prompt_text_tokens", old, "prompt_tokens", u.Input.Tokens)
		u.Input.CacheRead = old
	}
	if old := o.count("reasoning_tokens"); reasoning == 0 {
		reasoning = old
	}
	u.Output.Reasoning = reasoning
	u.Output.Tokens = total(u.Output.Tokens, reasoning)
	o.sumIs("total_tokens", "prompt_tokens + completion_tokens + reasoning_tokens", total(u.Input.Tokens, u.Output.Tokens))
}

// readDeepSeek reads DeepSeek: prompt_tokens are the sum of cache hits and misses.
func readDeepSeek(o *object, u *Usage) {
	readChat(o, u)
	hit := o.count("prompt_cache_hit_tokens")
	o.within("prompt_cache_hit_tokens", hit, "prompt_tokens", u.Input.Tokens)
	switch details := o.object("prompt_tokens_details"); {
	case !o.has("prompt_cache_hit_tokens"):
	case details.has("cached_tokens") && u.Input.CacheRead != hit:
		o.fail("prompt_cache_hit_tokens", "%d is not prompt_tokens_details.cached_tokens, %d", hit, u.Input.CacheRead)
	default:
		u.Input.CacheRead = hit
	}
	if o.has("prompt_cache_miss_tokens") {
		if miss := o.count("prompt_cache_miss_tokens"); total(u.Input.CacheRead, miss) != u.Input.Tokens {
			o.fail("prompt_cache_miss_tokens", "%d and prompt_cache_hit_tokens, %d, are not prompt_tokens, %d", miss, u.Input.CacheRead, u.Input.Tokens)
		}
	}
	readServerTools(o, u)
}

// readOpenRouter reads OpenRouter: its cost is what it charged; with the caller's own key
// the provider's cost is additional.
func readOpenRouter(o *object, u *Usage) {
	readOpenAI(o, u)
	u.Cost.USD = o.usd("cost")
	if raw := o.get("is_byok"); len(raw) > 0 && raw[0] == 't' {
		u.Cost.UpstreamUSD = o.object("cost_details").usd("upstream_inference_cost")
	}
	tools := o.object("server_tool_use_details")
	u.Counts.WebSearches = tools.count("web_search_requests")
}

// readAgents reads the OpenAI Agents SDK: a sum over the requests of a run and, if present,
// the list of requests.
func readAgents(o *object, u *Usage) {
	u.Counts.Requests = 1
	if o.has("requests") {
		u.Counts.Requests = o.count("requests")
	}
	list := "requestUsageEntries"
	if o.has("request_usage_entries") {
		list = "request_usage_entries"
	}
	readAgentsPart(o, u)
	entries := o.list(list)
	if len(entries) == 0 {
		return
	}
	sum := Usage{}
	for _, entry := range entries {
		part := Usage{Format: u.Format, Model: firstText(entry, "model"), ServiceTier: u.ServiceTier, Counts: Counts{Requests: 1}}
		readAgentsPart(entry, &part)
		part.check(entry)
		if !sum.add(&part) {
			entry.fail("", "counts more than %d in sum", int64(MaxCount))
		}
		u.Each = append(u.Each, part)
	}
	if o.doc.err == nil && !sameTokens(&sum, u) {
		o.fail(list, "do not add up to the run: in sum %d input (%d of them from the cache) and %d output tokens; the run has %d (%d) and %d",
			sum.Input.Tokens, sum.Input.CacheRead, sum.Output.Tokens, u.Input.Tokens, u.Input.CacheRead, u.Output.Tokens)
	}
	u.Input, u.Output, u.Counts = sum.Input, sum.Output, sum.Counts
}

// readAgentsPart reads a run or a request. The details of a run are a list, one for each request.
func readAgentsPart(o *object, u *Usage) {
	camel := o.has("inputTokens")
	pick := func(camelCase, snakeCase string) string {
		if camel {
			return camelCase
		}
		return snakeCase
	}
	in, out := &u.Input, &u.Output
	in.Tokens, out.Tokens = o.count(pick("inputTokens", "input_tokens")), o.count(pick("outputTokens", "output_tokens"))
	for _, details := range o.oneOrList(pick("inputTokensDetails", "input_tokens_details")) {
		var part Input
		part.Tokens = in.Tokens
		readInputDetails(details, &part, "input_tokens")
		in.CacheRead = total(in.CacheRead, part.CacheRead)
		in.CacheWrite = total(in.CacheWrite, part.CacheWrite)
		in.CacheWrite30m = total(in.CacheWrite30m, part.CacheWrite30m)
		in.CacheWrite12h = total(in.CacheWrite12h, part.CacheWrite12h)
		in.Audio, in.Image = total(in.Audio, part.Audio), total(in.Image, part.Image)
	}
	for _, details := range o.oneOrList(pick("outputTokensDetails", "output_tokens_details")) {
		reasoning := details.count("reasoning_tokens")
		details.within("reasoning_tokens", reasoning, "output_tokens", out.Tokens)
		out.Reasoning = total(out.Reasoning, reasoning)
		out.Audio = total(out.Audio, details.count("audio_tokens"))
	}
	o.sumIs(pick("totalTokens", "total_tokens"), "input and output tokens", total(in.Tokens, out.Tokens))
}

// oneOrList returns the member's object, or the objects of its list.
func (o *object) oneOrList(name string) []*object {
	if raw := o.get(name); raw == nil {
		return nil
	} else if raw[0] == '[' {
		return o.list(name)
	}
	if one := o.object(name); one != nil {
		return []*object{one}
	}
	return nil
}
