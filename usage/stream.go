package usage

import (
	"bytes"
	"encoding/json"
	"strings"
)

// Stream collects the usage of a streamed response from its events.
//
// Anthropic sends the input with message_start and then cumulative counts with each
// message_delta: Stream merges them field by field, and the last value wins. All others
// send a whole object, once or with every chunk: the last object counts, never the sum.
type Stream struct {
	format  Format
	last    json.RawMessage
	fields  map[string]json.RawMessage // Anthropic's, merged
	model   string
	tier    string
	seen    bool
	isFinal bool
}

// NewStream returns a stream of the given format; with an empty format it finds the format
// by shape.
func NewStream(format Format) *Stream { return &Stream{format: format} }

// Add reads the data of one event as JSON. It ignores events without usage, empty ones and
// [DONE].
func (s *Stream) Add(event []byte) error {
	event = bytes.TrimSpace(event)
	if len(event) == 0 || string(event) == "[DONE]" {
		return nil
	}
	d := documents.Get().(*document)
	defer d.release()
	root := d.parse(event)
	if d.err != nil {
		return d.err
	}
	for _, o := range [...]*object{root, root.peek("message"), root.peek("response")} {
		if model := firstText(o, "model", "modelVersion"); model != "" {
			s.model = model
		}
		if tier := firstText(o, "service_tier", "serviceTier"); tier != "" {
			s.tier = tier
		}
	}
	found := locate(root, maxWrappers)
	if d.err != nil {
		return d.err
	}
	if kind := firstText(root, "type"); kind == "message_start" || kind == "message_delta" {
		return s.merge(root, kind == "message_delta")
	}
	if found.shape == "" {
		return nil
	}
	s.seen = true
	s.isFinal = found.shape != Gemini || hasFinishReason(root)
	s.last = bytes.Clone(found.object.raw)
	return nil
}

// merge merges an event of Anthropic. null means that the event does not repeat the value.
func (s *Stream) merge(root *object, delta bool) error {
	o := root.object("usage")
	if !delta {
		o = root.object("message").object("usage")
	}
	if root.doc.err != nil {
		return root.doc.err
	}
	if o == nil {
		return nil
	}
	if s.fields == nil {
		s.fields = make(map[string]json.RawMessage, len(o.members))
	}
	for i := range o.members {
		m := &o.members[i]
		if value := o.valueOf(m); value[0] != 'n' {
			s.fields[string(o.nameOf(m))] = bytes.Clone(value)
		}
	}
	s.seen, s.isFinal = true, delta
	return nil
}

func hasFinishReason(root *object) bool {
	for _, candidate := range root.list("candidates") {
		if candidate.has("finishReason") {
			return true
		}
	}
	return root.has("turnComplete")
}

// Final reports whether the provider has sent its final counts. Before that the output is
// only a part of what will be billed; the rest needs an estimate.
func (s *Stream) Final() bool { return s.isFinal }

// Usage returns the usage of the stream so far. The error is [ErrNoUsage] before a chunk
// with usage.
func (s *Stream) Usage() (Usage, error) {
	if !s.seen {
		return Usage{}, ErrNoUsage
	}
	raw, format := s.last, s.format
	if s.fields != nil {
		merged, err := json.Marshal(s.fields)
		if err != nil {
			return Usage{}, errorAt(Root, "cannot be merged: %v", err)
		}
		raw = merged
		if format == "" {
			format = Anthropic
		}
	}
	u, err := Normalize(format, raw)
	if err != nil {
		return Usage{}, err
	}
	if u.Model == "" {
		u.Model = s.model
	}
	if u.ServiceTier == "" {
		u.ServiceTier = strings.ToLower(s.tier)
	}
	return u, nil
}
