package tokens

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Error says which part of the messages is wrong, and what is allowed.
type Error struct {
	Path   string // under the messages, for example [2].content[0].type
	Reason string
}

// Error returns the path and the reason.
func (e *Error) Error() string { return e.Path + ": " + e.Reason }

const (
	sendTokens = "count it with the provider and send input_tokens"
	maxDepth   = 8 // of content inside of content
)

// textParts are the types of content whose tokens a text decides.
var textParts = []string{"input_text", "output_text", "refusal", "text", "tool_result", "tool_use"}

// Messages returns the largest number of input tokens of a request to the model with these
// messages: a JSON array of OpenAI's or Anthropic's messages, whose content is a text or a
// list of parts with text. Other members, such as tool calls, count one token for each byte
// of their JSON. The error is an *Error: images, audio and files have no bound here.
func Messages(model string, messages json.RawMessage) (int64, error) {
	list, err := array(messages, "")
	if err != nil {
		return 0, err
	}
	if len(list) == 0 {
		return 0, &Error{Reason: "is empty; at least one message is needed"}
	}
	total := int64(PerRequest)
	for i, message := range list {
		n, err := object(model, message, fmt.Sprintf("[%d]", i), 0)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// object counts a message or a part of its content.
func object(model string, raw json.RawMessage, path string, depth int) (int64, error) {
	if depth > maxDepth {
		return 0, &Error{path, "is nested too deeply; " + sendTokens}
	}
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &members); err != nil || members == nil {
		return 0, &Error{path, "is no object; a message is an object with role and content"}
	}
	if kind, ok := members["type"]; ok {
		if err := checkType(kind, path+".type"); err != nil {
			return 0, err
		}
		delete(members, "type")
	}
	total := int64(PerMessage)
	for _, name := range slices.Sorted(maps.Keys(members)) { // sorted, so that the error is the same each time
		n, err := member(model, name, members[name], path+"."+name, depth)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

func checkType(raw json.RawMessage, path string) error {
	var kind string
	if json.Unmarshal(raw, &kind) != nil || kind != "message" && !slices.Contains(textParts, kind) {
		return &Error{path, "has no bound from text; allowed are " + strings.Join(textParts, ", ") + "; otherwise " + sendTokens}
	}
	return nil
}

func member(model, name string, raw json.RawMessage, path string, depth int) (int64, error) {
	switch name {
	case "content", "text", "refusal":
		return content(model, raw, path, depth)
	case "cache_control": // no token
		return 0, nil
	default: // role, name, tool calls and their arguments
		return other(raw, path)
	}
}

// content counts a text or a list of parts.
func content(model string, raw json.RawMessage, path string, depth int) (int64, error) {
	var text *string
	if json.Unmarshal(raw, &text) == nil {
		if text == nil { // null, of a message that only calls tools
			return 0, nil
		}
		return count(model, *text), nil
	}
	parts, err := array(raw, path)
	if err != nil {
		return 0, &Error{path, "is neither a text nor a list of parts"}
	}
	total := int64(0)
	for i, part := range parts {
		n, err := object(model, part, fmt.Sprintf("%s[%d]", path, i), depth+1)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// other counts a member that the provider writes in a form of its own: a token for each byte
// of its JSON. A picture inside would not be text.
func other(raw json.RawMessage, path string) (int64, error) {
	for _, picture := range []string{`"data:`, `"image_url"`, `"base64"`} {
		if bytes.Contains(raw, []byte(picture)) {
			return 0, &Error{path, "holds data that is no text; " + sendTokens}
		}
	}
	return byteBound(string(raw)), nil
}

func array(raw json.RawMessage, path string) ([]json.RawMessage, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil || list == nil {
		return nil, &Error{path, "is no list"}
	}
	return list, nil
}
