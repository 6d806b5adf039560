package usage

import (
	"bytes"
	"encoding/json"
)

// Normalize reads a usage object, or a whole response body or event that contains one. With
// an empty format it finds the format by shape. The error is an [*Error] and names the path
// of the field.
//
// Counts must be integers from 0 to [MaxCount]; null is the same as absent. Normalize
// refuses a repeated member, a part that is larger than its whole, and a total that is not
// the sum of its parts.
func Normalize(format Format, raw []byte) (Usage, error) {
	if _, known := formats[format]; format != "" && !known {
		return Usage{}, errorAt("usage_format", "%s is unknown; allowed are %s", shorten([]byte(format)), formatNames())
	}
	d := documents.Get().(*document)
	defer d.release()
	root := d.parse(raw)
	if d.err != nil {
		return Usage{}, d.err
	}
	found := locate(root, maxWrappers)
	found.read(format, &d.usage)
	if d.err != nil {
		return Usage{}, d.err
	}
	return d.usage, nil
}

// located is a usage object and the response around it, which has the model and the service
// tier.
type located struct {
	object   *object
	response *object // the object itself if nothing surrounds it
	shape    Format  // of the object; empty if unknown
}

// wrappers are the members of responses and events that contain a usage object.
var wrappers = [...]string{
	"usage", "usageMetadata", "usage_metadata", "usage_info", "response", "message", "metadata", "x_groq", "interaction", "totalUsage", "meta",
}

// maxWrappers is how deep a usage object may lie; Groq's x_groq.usage and an event's response.usage lie two deep.
const maxWrappers = 3

// locate finds the usage object: root itself, or the one in a response or an event.
func locate(root *object, depth int) located {
	if root == nil || root.doc.err != nil || depth == 0 {
		return located{root, root, ""}
	}
	if shape := detect(root); shape != "" {
		return located{root, root, shape}
	}
	for _, name := range wrappers {
		inner := root.peek(name)
		if inner == nil {
			continue
		}
		switch found := locate(inner, depth-1); {
		case found.object == inner && found.shape != "":
			return located{inner, root, found.shape}
		case found.object != inner:
			if found.response == inner && !inner.has("model", "modelVersion", "service_tier") {
				found.response = root
			}
			return found
		}
	}
	return located{root, root, ""}
}

// read reads the object into an empty u, in the given format or in the format of its shape.
func (l located) read(format Format, u *Usage) {
	o := l.object
	named := format != ""
	if !named {
		if format = l.shape; format == "" {
			o.fail("", "has the shape of no known format; allowed are %s", formatNames())
			return
		}
	}
	entry := formats[format]
	if !o.has(entry.required...) {
		o.fail(entry.required[0], "is missing; the format %s requires it", format)
		return
	}
	u.Format, u.Counts.Requests, u.Raw = format, 1, bytes.Clone(o.raw)
	u.Model = firstText(l.response, "model", "modelVersion", "model_version")
	u.ServiceTier = tierOf(l)
	if !named && format == OpenAIChat {
		readUnnamedChat(o, u)
	} else {
		entry.read(o, u)
	}
	if o.doc.err == nil {
		u.check(o)
	}
}

// tierOf reads the service tier from the usage object or from the response around it.
func tierOf(l located) string {
	for i, o := range [...]*object{l.object, l.response} {
		if i == 1 && o == l.object {
			break
		}
		for _, name := range [...]string{"service_tier", "serviceTier"} {
			if tier := o.peek(name); tier != nil { // Bedrock: {"type": "flex"}
				return tier.lower("type")
			}
			if s := o.lower(name); s != "" {
				return s
			}
		}
	}
	return ""
}

func firstText(o *object, names ...string) string {
	for _, name := range names {
		if raw := o.get(name); len(raw) > 0 && raw[0] == '"' {
			return string(unquote(raw))
		}
	}
	return ""
}

// check checks what is true of every usage, whatever the format: the parts, alone and
// together, fit into their whole.
func (u *Usage) check(o *object) {
	for _, n := range u.counts() {
		if *n > MaxCount || *n < 0 {
			o.fail("", "counts more than %d in sum", int64(MaxCount))
			return
		}
	}
	in, out := u.Input, u.Output
	for _, rule := range [...]struct {
		part  int64
		what  string
		whole int64
		of    string
	}{
		{total(in.CacheRead, in.CacheWrite), "cache reads and writes together", in.Tokens, "input tokens"},
		{total(in.CacheWrite5m, in.CacheWrite30m, in.CacheWrite1h, in.CacheWrite12h), "cache writes by duration", in.CacheWrite, "cache writes"},
		{total(in.CacheReadAudio, in.CacheReadImage, in.CacheReadVideo), "cache reads by modality", in.CacheRead, "cache reads"},
		{total(in.Audio, in.Image, in.Video), "audio, image and video together", in.Tokens, "input tokens"},
		{in.CacheReadAudio, "cached audio", in.Audio, "audio"},
		{in.CacheReadImage, "cached images", in.Image, "images"},
		{in.CacheReadVideo, "cached video", in.Video, "video"},
		{total(out.Reasoning, out.Audio, out.Image, out.Video), "reasoning, audio, image and video together", out.Tokens, "output tokens"},
	} {
		if rule.part > rule.whole {
			o.fail("", "%s, %d, are more than %s, %d", rule.what, rule.part, rule.of, rule.whole)
			return
		}
	}
}

// sumIs checks a total from the provider, if there is one, against the sum of its parts.
func (o *object) sumIs(name string, parts string, sum int64) {
	if o.has(name) {
		if n := o.count(name); n != sum && o.doc.err == nil {
			o.fail(name, "%d is not %s, %d", n, parts, sum)
		}
	}
}

// RawOf returns the usage object inside raw without reading its counts, so that a caller
// can store what Normalize refuses.
func RawOf(raw []byte) (json.RawMessage, error) {
	d := documents.Get().(*document)
	defer d.release()
	root := d.parse(raw)
	if d.err != nil {
		return nil, d.err
	}
	found := locate(root, maxWrappers).object
	if d.err != nil {
		return nil, d.err
	}
	return bytes.Clone(found.raw), nil
}
