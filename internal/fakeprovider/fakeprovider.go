// Package fakeprovider is a provider of models for tests: it answers the calls of OpenAI,
// Anthropic and Gemini with the same words, and counts what it bills.
package fakeprovider

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
)

// What each call uses. In Gemini's and Anthropic's answers it has several parts.
const (
	Input  = 11
	Output = 7
	Text   = "one two three ✓"
)

var words = []string{"one", " two", " three ✓"}

// Behaviour is how a call is answered.
type Behaviour struct {
	Status int // instead of 200
	Header map[string]string
	Raw    string // in place of the answer, or of the events of a stream
	// Cut breaks the connection after CutAfter events; 0 is before the answer.
	Cut      bool
	CutAfter int
	// Gate is received from before each event, so that a reader can leave in between.
	Gate    chan struct{}
	NoUsage bool
}

// Call is a call as the provider received it.
type Call struct {
	Path   string
	Header http.Header
	Body   string
	Billed int64 // tokens
}

// Provider is an http.Handler.
type Provider struct {
	// Behave returns the behaviour for a call; nil means the zero one. Billed is not known yet.
	Behave func(Call) Behaviour

	mu    sync.Mutex
	calls []Call
}

// Serve serves the provider on a free port.
func (p *Provider) Serve() (url string, stop func()) {
	server := httptest.NewServer(p)
	return server.URL, func() {
		server.CloseClientConnections()
		server.Close()
	}
}

// Calls returns the calls so far.
func (p *Provider) Calls() []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Call(nil), p.calls...)
}

// Billed returns the tokens that were billed so far.
func (p *Provider) Billed() (tokens int64) {
	for _, call := range p.Calls() {
		tokens += call.Billed
	}
	return tokens
}

func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	call := Call{Path: r.URL.Path, Header: r.Header.Clone(), Body: string(body)}
	var how Behaviour
	if p.Behave != nil {
		how = p.Behave(call)
	}
	var answer answer
	if how.Status == 0 {
		answer = answerTo(r.URL.Path, body, how.NoUsage)
		call.Billed = answer.billed
	}
	p.mu.Lock()
	p.calls = append(p.calls, call)
	p.mu.Unlock()

	for name, value := range how.Header {
		w.Header().Set(name, value)
	}
	switch {
	case how.Status != 0:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(how.Status)
		_, _ = io.WriteString(w, `{"error":{"message":"no","type":"provider"}}`)
	case how.Cut && (how.CutAfter == 0 || answer.events == nil):
		panic(http.ErrAbortHandler)
	case answer.events == nil:
		w.Header().Set("Content-Type", "application/json")
		if how.Raw != "" {
			_, _ = io.WriteString(w, how.Raw)
			return
		}
		_ = json.NewEncoder(w).Encode(answer.whole)
	default:
		stream(w, r, answer.events, how)
	}
}

func stream(w http.ResponseWriter, r *http.Request, events []string, how Behaviour) {
	if how.Raw != "" {
		events = []string{how.Raw}
	}
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	flusher := http.NewResponseController(w)
	_ = flusher.Flush()
	for i, event := range events {
		if how.Cut && i == how.CutAfter {
			panic(http.ErrAbortHandler)
		}
		if how.Gate != nil {
			select {
			case <-how.Gate:
			case <-r.Context().Done():
				return
			}
		}
		// In two pieces, which come apart, in the middle of a character too.
		middle := min(len(event), max(7, len(event)-9))
		_, _ = io.WriteString(w, event[:middle])
		_ = flusher.Flush()
		_, _ = io.WriteString(w, event[middle:])
		_ = flusher.Flush()
	}
}

type answer struct {
	whole  any
	events []string // nil: the answer is no stream
	billed int64
}

type object = map[string]any

func answerTo(path string, body []byte, noUsage bool) answer {
	var asked struct {
		Model         string `json:"model"`
		Stream        bool   `json:"stream"`
		StreamOptions struct {
			IncludeUsage bool `json:"include_usage"`
		} `json:"stream_options"`
	}
	_ = json.Unmarshal(body, &asked) // what is no JSON gets the answer to {}
	var a answer
	switch {
	case strings.HasSuffix(path, "/chat/completions"):
		a = chat(asked.Model, asked.Stream, asked.StreamOptions.IncludeUsage && !noUsage, noUsage)
	case strings.HasSuffix(path, "/responses"):
		a = responses(asked.Model, asked.Stream)
	case strings.HasSuffix(path, "/messages"):
		a = messages(asked.Model, asked.Stream)
	case strings.Contains(path, "enerateContent"):
		a = gemini(strings.Contains(path, ":stream"))
	case strings.HasSuffix(path, "/embeddings"):
		return answer{billed: Input, whole: object{"object": "list", "model": asked.Model,
			"data": []object{{"object": "embedding", "index": 0, "embedding": []float64{0.5}}}, "usage": object{"prompt_tokens": Input, "total_tokens": Input}}}
	default:
		return answer{whole: object{"ok": true}}
	}
	a.billed = Input + Output
	return a
}

func chat(model string, streams, withUsage, noUsage bool) answer {
	base := func(kind string, choices []object, more object) object {
		all := object{"id": "c1", "object": kind, "created": 1, "model": model, "choices": choices}
		for name, value := range more {
			all[name] = value
		}
		return all
	}
	usage := object{"usage": object{"prompt_tokens": Input, "completion_tokens": Output, "total_tokens": Input + Output}}
	if !streams {
		if noUsage {
			usage = nil
		}
		return answer{whole: base("chat.completion",
			[]object{{"index": 0, "message": object{"role": "assistant", "content": Text}, "finish_reason": "stop"}}, usage)}
	}
	const chunk = "chat.completion.chunk"
	var events []string
	for _, word := range words {
		events = append(events, data(base(chunk, []object{{"index": 0, "delta": object{"content": word}, "finish_reason": nil}}, nil)))
	}
	events = append(events, data(base(chunk, []object{{"index": 0, "delta": object{}, "finish_reason": "stop"}}, nil)))
	if withUsage {
		events = append(events, data(base(chunk, []object{}, usage)))
	}
	return answer{events: append(events, "data: [DONE]\n\n")}
}

func responses(model string, streams bool) answer {
	of := func(status string, usage any) object {
		return object{"id": "r1", "object": "response", "status": status, "model": model, "output": []object{{
			"type": "message", "id": "m", "role": "assistant", "status": "completed",
			"content": []object{{"type": "output_text", "text": Text, "annotations": []object{}}},
		}}, "usage": usage}
	}
	usage := object{"input_tokens": Input, "output_tokens": Output, "total_tokens": Input + Output}
	if !streams {
		return answer{whole: of("completed", usage)}
	}
	events := []string{named("response.created", object{"response": of("in_progress", nil)})}
	for _, word := range words {
		events = append(events, named("response.output_text.delta", object{"delta": word, "output_index": 0, "content_index": 0, "item_id": "i"}))
	}
	return answer{events: append(events, named("response.completed", object{"response": of("completed", usage)}))}
}

func messages(model string, streams bool) answer {
	usage := func(output int) object {
		return object{"input_tokens": 4, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2, "output_tokens": output}
	}
	of := func(content []object, stop any, output int) object {
		return object{"id": "m1", "type": "message", "role": "assistant", "model": model, "content": content, "stop_reason": stop, "usage": usage(output)}
	}
	if !streams {
		return answer{whole: of([]object{{"type": "text", "text": Text}}, "end_turn", Output)}
	}
	events := []string{
		named("message_start", object{"message": of([]object{}, nil, 1)}),
		named("content_block_start", object{"index": 0, "content_block": object{"type": "text", "text": ""}}),
	}
	for _, word := range words {
		events = append(events, named("content_block_delta", object{"index": 0, "delta": object{"type": "text_delta", "text": word}}))
	}
	return answer{events: append(events, named("content_block_stop", object{"index": 0}),
		named("message_delta", object{"delta": object{"stop_reason": "end_turn"}, "usage": object{"output_tokens": Output}}),
		named("message_stop", object{}))}
}

func gemini(streams bool) answer {
	chunk := func(word string, candidates, total int, finish any) object {
		candidate := object{"content": object{"role": "model", "parts": []object{{"text": word}}}}
		if finish != nil {
			candidate["finishReason"] = finish
		}
		return object{"candidates": []object{candidate}, "usageMetadata": object{
			"promptTokenCount": 8, "toolUsePromptTokenCount": 3, "candidatesTokenCount": candidates, "thoughtsTokenCount": 3, "totalTokenCount": total,
		}}
	}
	if !streams {
		return answer{whole: chunk(Text, 4, Input+Output, "STOP")}
	}
	var events []string
	for _, part := range []object{chunk(words[0], 1, 15, nil), chunk(words[1], 1, 15, nil), chunk(words[2], 4, Input+Output, "STOP")} {
		events = append(events, strings.ReplaceAll(data(part), "\n", "\r\n"))
	}
	return answer{events: events}
}

func data(event object) string {
	raw, err := json.Marshal(event)
	if err != nil {
		panic("fakeprovider: " + err.Error())
	}
	return "data: " + string(raw) + "\n\n"
}

func named(kind string, event object) string {
	event["type"] = kind
	return "event: " + kind + "\n" + data(event)
}
