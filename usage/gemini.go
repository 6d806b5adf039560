package usage

import "strings"

// readGemini reads usageMetadata: neither prompt nor candidates include thoughts and the
// prompts that tools made.
func readGemini(o *object, u *Usage) {
	in, out := &u.Input, &u.Output
	prompt, tools := o.count("promptTokenCount"), o.count("toolUsePromptTokenCount")
	answer, thoughts := o.count("candidatesTokenCount"), o.count("thoughtsTokenCount")
	answers := "candidatesTokensDetails"
	if o.has("responseTokenCount") { // Live
		answer, answers = o.count("responseTokenCount"), "responseTokensDetails"
	}
	in.CacheRead = o.count("cachedContentTokenCount")
	o.within("cachedContentTokenCount", in.CacheRead, "promptTokenCount", prompt)
	in.Tokens = total(prompt, tools)
	out.Reasoning = thoughts
	out.Tokens = total(answer, thoughts)

	names := modalityNames{"modality", "tokenCount"}
	fromPrompt, fromTools := names.read(o, "promptTokensDetails", prompt), names.read(o, "toolUsePromptTokensDetails", tools)
	in.Audio, in.Image, in.Video = fromPrompt.audio+fromTools.audio, fromPrompt.image+fromTools.image, fromPrompt.video+fromTools.video
	cached := names.read(o, "cacheTokensDetails", in.CacheRead)
	in.CacheReadAudio, in.CacheReadImage, in.CacheReadVideo = cached.audio, cached.image, cached.video
	wrote := names.read(o, answers, answer)
	out.Audio, out.Image, out.Video = wrote.audio, wrote.image, wrote.video

	o.sumIs("totalTokenCount", "the sum of prompt, tool use, candidates and thoughts", total(in.Tokens, out.Tokens))
	switch traffic := strings.ToLower(o.text("trafficType")); traffic {
	case "", "traffic_type_unspecified":
	case "on_demand":
		u.ServiceTier = "standard"
	default:
		u.ServiceTier = strings.TrimPrefix(traffic, "on_demand_")
	}
}

// readInteractions reads the Interactions API: the same counts under other names.
func readInteractions(o *object, u *Usage) {
	in, out := &u.Input, &u.Output
	prompt, tools := o.count("total_input_tokens"), o.count("total_tool_use_tokens")
	answer, thoughts := o.count("total_output_tokens"), o.count("total_thought_tokens")
	in.CacheRead = o.count("total_cached_tokens")
	o.within("total_cached_tokens", in.CacheRead, "total_input_tokens", prompt)
	in.Tokens = total(prompt, tools)
	out.Reasoning = thoughts
	out.Tokens = total(answer, thoughts)

	names := modalityNames{"modality", "tokens"}
	fromPrompt, fromTools := names.read(o, "input_tokens_by_modality", prompt), names.read(o, "tool_use_tokens_by_modality", tools)
	in.Audio, in.Image, in.Video = fromPrompt.audio+fromTools.audio, fromPrompt.image+fromTools.image, fromPrompt.video+fromTools.video
	cached := names.read(o, "cached_tokens_by_modality", in.CacheRead)
	in.CacheReadAudio, in.CacheReadImage, in.CacheReadVideo = cached.audio, cached.image, cached.video
	wrote := names.read(o, "output_tokens_by_modality", answer)
	out.Audio, out.Image, out.Video = wrote.audio, wrote.image, wrote.video

	for _, tool := range o.list("grounding_tool_count") {
		n := tool.count("count")
		switch kind := tool.text("type"); kind {
		case "google_search":
			u.Counts.WebSearches = total(u.Counts.WebSearches, n)
		case "google_maps":
			u.Counts.MapSearches = total(u.Counts.MapSearches, n)
		default:
			u.Counts.ToolCalls = total(u.Counts.ToolCalls, n)
		}
	}
	o.sumIs("total_tokens", "the sum of input, tool use, output and thoughts", total(in.Tokens, out.Tokens))
}

// modalityNames are the names of the members in one list of counts by modality.
type modalityNames struct{ modality, count string }

type modalities struct{ audio, image, video int64 }

// read adds up a list of counts by modality; their sum must not exceed whole.
func (n modalityNames) read(o *object, list string, whole int64) modalities {
	var m modalities
	var sum int64
	for _, item := range o.list(list) {
		count := item.count(n.count)
		sum = total(sum, count)
		switch strings.ToUpper(item.text(n.modality)) {
		case "AUDIO":
			m.audio = total(m.audio, count)
		case "IMAGE", "DOCUMENT":
			m.image = total(m.image, count)
		case "VIDEO":
			m.video = total(m.video, count)
		}
	}
	if sum > whole {
		o.fail(list, "are %d tokens in sum, more than the %d that they are part of", sum, whole)
	}
	return m
}
