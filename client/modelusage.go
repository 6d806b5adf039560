package client

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/earmark-dev/earmark"
)

// counts is what a call used.
type counts struct {
	input, output int64
	exact         bool            // the provider said so, at the end of its answer
	usage         json.RawMessage // the provider's own object; nil if it is not exact
	tier          string          // the service tier of the answer, if it stands beside the object
}

// response returns the counts for Earmark to price: the provider's own object, or numbers in
// the form that OpenAI has.
func (c counts) response() earmark.Response {
	if c.usage == nil {
		raw, _ := json.Marshal(map[string]int64{ //nolint:errchkjson // numbers always encode
			"prompt_tokens": c.input, "completion_tokens": c.output, "total_tokens": c.input + c.output,
		})
		return earmark.Response{ProviderUsage: raw, UsageFormat: "openai_chat"}
	}
	if c.tier == "" {
		return earmark.Response{ProviderUsage: c.usage}
	}
	raw, _ := json.Marshal(map[string]any{"service_tier": c.tier, "usage": c.usage}) //nolint:errchkjson // it was read as JSON
	return earmark.Response{ProviderUsage: raw}
}

// amounts returns the counts in these units.
func (c counts) amounts(units []string, requests int64) earmark.Amounts {
	all := earmark.Amounts{
		earmark.UnitTokens: c.input + c.output, earmark.UnitInputTokens: c.input, earmark.UnitOutputTokens: c.output, earmark.UnitRequests: requests,
	}
	amounts := earmark.Amounts{}
	for _, unit := range units {
		amounts[unit] = all[unit]
	}
	return amounts
}

// countsOf reads the usage of an answer that is not a stream of events; nil if it has none
// that can be read.
func countsOf(api ModelAPI, body []byte) *counts {
	answer, ok := membersOf(body)
	if list := objectsIn(body); !ok && len(list) > 0 {
		answer = list[len(list)-1] // Gemini streams a list if nobody asks for events
	}
	reader := streamReader{call: ModelCall{API: api}}
	reader.readUsage(answer)
	said, ok := reader.said()
	if !ok {
		return nil
	}
	return &said
}

// streamReader reads the usage of a stream of events as it passes.
type streamReader struct {
	call         ModelCall
	usage        members // merged over the events: Anthropic sends it in two parts
	tier         string
	ended        bool
	finished     []int64 // answers that have a reason for their end
	events       int
	outputBytes  int64
	outputEvents int64
}

// push reads the data of one event.
func (s *streamReader) push(data []byte) {
	if string(data) == "[DONE]" {
		s.ended = true
		return
	}
	event, ok := membersOf(data)
	if !ok {
		return
	}
	s.events++
	if n := outputBytes(event); n > 0 {
		s.outputEvents++
		s.outputBytes += n
	}
	s.readUsage(event)
	s.readEnd(event)
}

func (s *streamReader) readUsage(event members) {
	for _, around := range []members{event, event.object("message"), event.object("response")} {
		if tier := textOf(around.get("service_tier")); tier != "" {
			s.tier = tier
		}
	}
	for _, usage := range []members{
		event.object("usage"), event.object("usageMetadata"), event.object("message").object("usage"),
		event.object("response").object("usage"), event.object("x_groq").object("usage"),
	} {
		if usage == nil {
			continue
		}
		for _, m := range usage {
			if string(m.value) == "null" { // the event does not repeat the value
				continue
			}
			s.usage = slices.DeleteFunc(s.usage, func(old member) bool { return old.name == m.name })
			s.usage = append(s.usage, m)
		}
		return
	}
}

func (s *streamReader) readEnd(event members) {
	switch textOf(event.get("type")) {
	case "message_stop", "response.completed", "response.incomplete", "response.failed":
		s.ended = true
	}
	if event.object("promptFeedback").get("blockReason") != nil {
		s.ended = true
	}
	for _, answer := range slices.Concat(event.list("choices"), event.list("candidates")) {
		index := wholeOf(answer.get("index"))
		if (answer.get("finish_reason") != nil || answer.get("finishReason") != nil) && !slices.Contains(s.finished, index) {
			s.finished = append(s.finished, index)
		}
	}
	s.ended = s.ended || len(s.finished) > 0 && int64(len(s.finished)) >= s.call.Answers
}

// counts returns what was used so far; nil if the stream had no event. Without the
// provider's last word it is an estimate.
func (s *streamReader) counts() *counts {
	if s.events == 0 {
		return nil
	}
	said, ok := s.said()
	if ok && s.ended {
		return &said
	}
	if said.input == 0 {
		said.input = estimatedInput(s.call)
	}
	counted := max(s.outputEvents, (s.outputBytes+bytesPerToken-1)/bytesPerToken)
	return &counts{input: said.input, output: max(said.output, counted)}
}

// estimatedInput estimates the input of a call whose provider did not say what it read.
func estimatedInput(call ModelCall) int64 {
	return (call.InputTokens + bytesPerToken - 1) / bytesPerToken
}

// said returns the provider's usage as input and output. What a total has beyond both, such
// as reasoning, is output. False: there is no count, or one that is no whole number from 0.
func (s *streamReader) said() (c counts, ok bool) {
	known, malformed := false, false
	sum := func(names ...string) (sum int64) {
		for _, name := range names {
			raw := s.usage.get(name)
			if raw == nil {
				continue
			}
			n, ok := countOf(raw)
			known, malformed = true, malformed || !ok
			sum += n
		}
		return sum
	}
	switch s.call.API {
	case GeminiGenerate:
		c.input, c.output = sum("promptTokenCount", "toolUsePromptTokenCount"), sum("candidatesTokenCount", "thoughtsTokenCount")
	case AnthropicMessages:
		c.input, c.output = sum("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"), sum("output_tokens")
	default:
		c.input, c.output = sum("prompt_tokens"), sum("completion_tokens")
		if s.usage.get("prompt_tokens") == nil {
			c.input, c.output = sum("input_tokens"), sum("output_tokens")
		}
	}
	c.output = max(c.output, sum("total_tokens", "totalTokenCount")-c.input)
	if !known || malformed { // mutation: usage-that-counts
		return counts{}, false
	}
	c.exact, c.tier = true, s.tier
	if s.usage.get("service_tier") != nil {
		c.tier = ""
	}
	var raw bytes.Buffer
	for i, m := range s.usage {
		name, _ := json.Marshal(m.name) //nolint:errchkjson // a string always encodes
		raw.WriteByte("{,"[min(i, 1)])
		raw.Write(name)
		raw.WriteByte(':')
		raw.Write(m.value)
	}
	raw.WriteByte('}')
	c.usage = raw.Bytes()
	return c, true
}

// outputBytes returns the length of the text that an event adds to the answer, in any API.
func outputBytes(event members) (n int64) {
	text := func(m members, names ...string) {
		for _, name := range names {
			n += int64(len(textOf(m.get(name))))
		}
	}
	for _, choice := range event.list("choices") {
		delta := choice.object("delta")
		text(choice, "text")
		text(delta, "content", "reasoning_content", "refusal")
		for _, call := range delta.list("tool_calls") {
			text(call.object("function"), "arguments")
		}
	}
	for _, candidate := range event.list("candidates") {
		for _, part := range candidate.object("content").list("parts") {
			text(part, "text")
			n += int64(len(part.get("functionCall")))
		}
	}
	text(event, "delta") // Responses
	if textOf(event.get("type")) == "content_block_delta" {
		text(event.object("delta"), "text", "thinking", "partial_json")
	}
	return n
}

// isUsageEvent reports whether an event is the extra one that askForUsage brings.
func isUsageEvent(data []byte) bool {
	event, ok := membersOf(data)
	return ok && event.object("usage") != nil && strings.TrimSpace(strings.Trim(string(event.get("choices")), "[]")) == "" && event.get("choices") != nil
}

// maxEventBytes bounds an event of a stream. A longer one passes on unread.
const maxEventBytes = 16 << 20

// eventSplitter cuts a stream of server-sent events into events, and keeps every byte.
type eventSplitter struct {
	pending   []byte
	scanned   int // of pending
	lineBytes int // of the line that scanned is in
	afterCR   bool
}

// push returns the events that are complete now, each with the empty line that ends it. They
// are valid until the next push. A line ends with CR, LF or both. A CR in an empty line ends
// the event at once; an LF that follows is returned as an empty line of its own.
func (s *eventSplitter) push(chunk []byte) (events [][]byte) {
	s.pending = append(s.pending, chunk...)
	from := 0
	for i := s.scanned; i < len(s.pending); i++ {
		c := s.pending[i]
		secondHalf := c == '\n' && s.afterCR // of the end of a line
		s.afterCR = c == '\r'
		switch {
		case c != '\r' && c != '\n':
			s.lineBytes++
		case s.lineBytes > 0:
			s.lineBytes = 0
		case !secondHalf || i == from:
			events = append(events, s.pending[from:i+1])
			from = i + 1
		}
	}
	if from == len(s.pending) || len(s.pending)-from > maxEventBytes {
		if from < len(s.pending) {
			events = append(events, s.pending[from:])
		}
		s.pending, s.scanned = nil, 0
		return events
	}
	if from > 0 {
		s.pending = bytes.Clone(s.pending[from:])
	}
	s.scanned = len(s.pending)
	return events
}

// rest returns what came after the last whole event.
func (s *eventSplitter) rest() []byte { return s.pending }

// dataOf returns the data of an event.
func dataOf(event []byte) []byte {
	var data [][]byte
	for _, line := range bytes.FieldsFunc(event, func(r rune) bool { return r == '\r' || r == '\n' }) {
		if rest, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			data = append(data, bytes.TrimSpace(rest))
		}
	}
	return bytes.Join(data, []byte("\n"))
}
