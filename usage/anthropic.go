package usage

// readAnthropic reads the Messages API: input_tokens exclude what was read from and written
// to the cache.
func readAnthropic(o *object, u *Usage) {
	readAnthropicPart(o, u)
	details := o.object("output_tokens_details")
	u.Output.Reasoning = details.count("thinking_tokens")
	details.within("thinking_tokens", u.Output.Reasoning, "output_tokens", u.Output.Tokens)
	readServerTools(o, u)
	u.Speed = o.lower("speed")
	if u.Region = o.lower("inference_geo"); u.Region == "not_available" {
		u.Region = ""
	}
	readIterations(o, u)
}

// readAnthropicPart reads the counts that the message and each of its iterations have.
func readAnthropicPart(o *object, u *Usage) {
	in := &u.Input
	read, written := o.count("cache_read_input_tokens"), o.count("cache_creation_input_tokens")
	if split := o.object("cache_creation"); split != nil {
		in.CacheWrite5m, in.CacheWrite1h = split.count("ephemeral_5m_input_tokens"), split.count("ephemeral_1h_input_tokens")
		if sum := total(in.CacheWrite5m, in.CacheWrite1h); !o.has("cache_creation_input_tokens") {
			written = sum
		} else if sum > written {
			o.fail("cache_creation", "5 minutes and 1 hour together, %d, are more than cache_creation_input_tokens, %d", sum, written)
		}
	}
	in.CacheRead, in.CacheWrite = read, written
	in.Tokens = total(o.count("input_tokens"), read, written)
	u.Output.Tokens = o.count("output_tokens")
}

func readServerTools(o *object, u *Usage) {
	tools := o.object("server_tool_use")
	u.Counts.WebSearches, u.Counts.WebFetches = tools.count("web_search_requests"), tools.count("web_fetch_requests")
}

// readIterations reads the beta's iterations. The top-level counts are the sum of the
// message entries; compaction and advisor entries are additional; advisor and fallback
// entries belong to other models. A declined hop before a fallback is a message entry of
// its own model, and may or may not be in the top-level counts.
func readIterations(o *object, u *Usage) {
	const list = "iterations"
	entries := o.list(list)
	if len(entries) == 0 {
		return
	}
	var messages, extra []Usage
	serving, fallback := u.Model, false
	for _, entry := range entries {
		part := Usage{
			Format: u.Format, Model: firstText(entry, "model"), ServiceTier: u.ServiceTier, Speed: u.Speed, Region: u.Region,
			Counts: Counts{Requests: 1},
		}
		readAnthropicPart(entry, &part)
		part.check(entry)
		switch kind := entry.text("type"); kind {
		case "fallback_message":
			serving, fallback = part.Model, true
			messages = append(messages, part)
		case "message":
			messages = append(messages, part)
		case "compaction", "advisor_message":
			extra = append(extra, part)
		default:
			entry.fail("type", "is %s; allowed are message, compaction, advisor_message and fallback_message", shorten([]byte(kind)))
		}
	}
	if o.doc.err != nil {
		return
	}
	declined, ok := splitDeclined(u, messages, serving, fallback)
	if !ok {
		o.fail(list, "the message entries do not add up to the counts beside them: input, output, cache reads and cache writes must each be equal")
		return
	}
	main := *u
	main.Raw, main.Model = nil, serving
	if main.Model == "" && len(messages) > 0 {
		main.Model = messages[0].Model
	}
	u.Each = append(append([]Usage{main}, declined...), extra...)
	sum := Usage{}
	for i := range u.Each {
		if !sum.add(&u.Each[i]) {
			o.fail(list, "count more than %d in sum", int64(MaxCount))
			return
		}
	}
	u.Input, u.Output, u.Counts = sum.Input, sum.Output, sum.Counts
	if len(u.Each) == 1 {
		u.Model, u.Each = main.Model, nil
	}
}

// splitDeclined checks the message entries against the top-level counts, and returns the
// entries of models other than the one that served. If u includes them, it subtracts them.
func splitDeclined(u *Usage, messages []Usage, serving string, fallback bool) (declined []Usage, ok bool) {
	if len(messages) == 0 {
		return nil, true
	}
	var all, served Usage
	for i := range messages {
		all.add(&messages[i])
		if !fallback || messages[i].Model == serving {
			served.add(&messages[i])
		} else {
			declined = append(declined, messages[i])
		}
	}
	switch {
	case sameTokens(u, &served):
		return declined, true
	case !sameTokens(u, &all):
		return nil, false
	}
	reasoning := u.Output.Reasoning
	u.Input, u.Output = served.Input, served.Output
	u.Output.Reasoning = min(reasoning, served.Output.Tokens)
	return declined, true
}

func sameTokens(a, b *Usage) bool {
	return a.Input.Tokens == b.Input.Tokens && a.Output.Tokens == b.Output.Tokens &&
		a.Input.CacheRead == b.Input.CacheRead && a.Input.CacheWrite == b.Input.CacheWrite
}
