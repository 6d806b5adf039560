package client

import (
	"bytes"
	"encoding/json"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// ModelAPI is an API of a provider, which a Transport recognises by the path of its calls.
type ModelAPI string

// The APIs that a Transport knows.
const (
	OpenAIChat        ModelAPI = "openai_chat"
	OpenAICompletions ModelAPI = "openai_completions"
	OpenAIResponses   ModelAPI = "openai_responses"
	OpenAIEmbeddings  ModelAPI = "openai_embeddings"
	AnthropicMessages ModelAPI = "anthropic_messages"
	GeminiGenerate    ModelAPI = "gemini_generate"
)

// ModelCall is what a call of a model asks for.
type ModelCall struct {
	API    ModelAPI
	Model  string
	Stream bool
	// InputTokens is at least as many as the input has: the bytes of the request. It does
	// not know files and texts that the request only names.
	InputTokens int64
	// MaxOutputTokens is the limit that the request sets for each answer; 0 if it sets none.
	MaxOutputTokens int64
	Answers         int64  // how many answers it asks for; 1 or more
	ServiceTier     string // that it asks for, if it has prices of its own; otherwise empty
}

// bytesPerToken estimates the tokens of a text that nobody has counted.
const bytesPerToken = 4

// modelPaths end the paths of the calls that bill. The first that fits counts.
var modelPaths = []struct {
	path *regexp.Regexp
	api  ModelAPI
}{
	{regexp.MustCompile(`/chat/completions$`), OpenAIChat},
	{regexp.MustCompile(`/completions$`), OpenAICompletions},
	{regexp.MustCompile(`/responses$`), OpenAIResponses},
	{regexp.MustCompile(`/embeddings$`), OpenAIEmbeddings},
	{regexp.MustCompile(`/v1/messages$`), AnthropicMessages},
	{regexp.MustCompile(`:(stream)?[gG]enerateContent$`), GeminiGenerate},
}

// freePaths end the paths of calls that bill nothing.
var freePaths = regexp.MustCompile(`(/count_tokens|:countTokens|/input_tokens)$`)

var (
	geminiModel     = regexp.MustCompile(`([^/]+):[^/:]*$`)
	azureDeployment = regexp.MustCompile(`/deployments/([^/]+)/`)
)

// isFree reports whether a call bills nothing.
func isFree(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions, "":
		return true
	}
	return freePaths.MatchString(r.URL.Path)
}

// apiOf returns the API of a call that bills; "" if the call is not known.
func apiOf(r *http.Request) ModelAPI {
	if r.Method != http.MethodPost {
		return ""
	}
	for _, known := range modelPaths {
		if known.path.MatchString(r.URL.Path) {
			return known.api
		}
	}
	return ""
}

// callOf reads a call; false if the body is not the JSON of one.
func callOf(api ModelAPI, u *url.URL, body []byte) (call ModelCall, ok bool) {
	members, ok := membersOf(body)
	if !ok {
		return ModelCall{}, false
	}
	call = ModelCall{API: api, Model: textOf(members.get("model")), Stream: isTrue(members.get("stream")), InputTokens: int64(len(body)), Answers: 1}
	answers := []string{"n", "best_of"}
	limits := []string{"max_completion_tokens", "max_output_tokens", "max_tokens"}
	if api == GeminiGenerate {
		call.Model = inPath(geminiModel, u)
		call.Stream = strings.Contains(u.Path, ":stream")
		members, _ = membersOf(members.get("generationConfig"))
		answers, limits = []string{"candidateCount"}, []string{"maxOutputTokens"}
	} else if call.Model == "" { // Azure names a deployment in the path
		call.Model = inPath(azureDeployment, u)
	}
	for _, name := range answers {
		call.Answers = max(call.Answers, wholeOf(members.get(name)))
	}
	for _, name := range limits {
		if call.MaxOutputTokens = wholeOf(members.get(name)); call.MaxOutputTokens > 0 {
			break
		}
	}
	if tier := textOf(members.get("service_tier")); tier == "flex" || tier == "priority" {
		call.ServiceTier = tier
	}
	return call, true
}

func inPath(pattern *regexp.Regexp, u *url.URL) string {
	found := pattern.FindStringSubmatch(u.EscapedPath())
	if found == nil {
		return ""
	}
	name, err := url.PathUnescape(found[1])
	if err != nil {
		return found[1]
	}
	return name
}

// askForUsage asks for the usage at the end of a chat stream, which OpenAI and compatible
// servers send only on request. It returns the new body, with every other byte as it was;
// nil if the caller asks for it already, or need not ask.
func askForUsage(call ModelCall, body []byte) []byte {
	if !call.Stream || call.API != OpenAIChat && call.API != OpenAICompletions {
		return nil
	}
	const ask = `"include_usage":true`
	members, _ := membersOf(body)
	given := members.find("stream_options")
	if given == nil {
		open := bytes.IndexByte(body, '{') + 1
		return slices.Concat(body[:open], []byte(`"stream_options":{`+ask+`},`), body[open:])
	}
	options := []byte("{" + ask + "}")
	if inside, ok := membersOf(given.value); ok {
		if isTrue(inside.get("include_usage")) {
			return nil
		}
		for _, m := range inside {
			if m.name != "include_usage" {
				name, _ := json.Marshal(m.name) //nolint:errchkjson // a string always encodes
				options = slices.Concat(options[:len(options)-1], []byte(","), name, []byte(":"), m.value, []byte("}"))
			}
		}
	}
	return slices.Concat(body[:given.end-len(given.value)], options, body[given.end:])
}

// member is a member of a JSON object. end is the offset after its value.
type member struct {
	name  string
	value []byte
	end   int
}

type members []member

// membersOf lists the members of a JSON object; false if raw is none. Names are compared as
// they are written: encoding/json alone would take Model for model.
func membersOf(raw []byte) (members, bool) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	if open, err := decoder.Token(); err != nil || open != json.Delim('{') {
		return nil, false
	}
	var all members
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return nil, false
		}
		var value json.RawMessage
		if decoder.Decode(&value) != nil {
			return nil, false
		}
		text, _ := name.(string)
		all = append(all, member{text, value, int(decoder.InputOffset())})
	}
	if _, err := decoder.Token(); err != nil || len(bytes.TrimSpace(raw[decoder.InputOffset():])) > 0 {
		return nil, false
	}
	return all, true
}

// find returns the last member of that name, which readers of JSON take; nil if there is none.
func (m members) find(name string) *member {
	for i := len(m) - 1; i >= 0; i-- {
		if m[i].name == name {
			return &m[i]
		}
	}
	return nil
}

// get returns the value of a member; nil if it is absent or null.
func (m members) get(name string) []byte {
	if found := m.find(name); found != nil && string(found.value) != "null" {
		return found.value
	}
	return nil
}

// object returns the members of a member that is an object; nil if it is none.
func (m members) object(name string) members {
	inside, _ := membersOf(m.get(name))
	return inside
}

// list returns the objects in a member that is a list.
func (m members) list(name string) []members {
	return objectsIn(m.get(name))
}

func objectsIn(raw []byte) (objects []members) {
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil {
		return nil
	}
	for _, item := range items {
		object, _ := membersOf(item)
		objects = append(objects, object)
	}
	return objects
}

func textOf(raw []byte) string {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return ""
	}
	return text
}

func isTrue(raw []byte) bool { return string(raw) == "true" }

// maxCount is the largest whole number that every JSON library reads exactly.
const maxCount = 1<<53 - 1

// countOf reads a whole number from 0 to maxCount; false if it is none.
func countOf(raw []byte) (n int64, ok bool) {
	var number float64
	if json.Unmarshal(raw, &number) != nil || number < 0 || number > maxCount || number != math.Trunc(number) {
		return 0, false
	}
	return int64(number), true
}

// wholeOf is countOf where another value is as good as none.
func wholeOf(raw []byte) int64 {
	n, _ := countOf(raw)
	return n
}
