package usage

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
)

// Limits of the input. A usage object has about a dozen members and three levels; a
// response around it may be large.
const (
	MaxBytes   = 4 << 20 // of the object, or of the response around it
	maxMembers = 256     // of one object
	maxItems   = 1024    // of one list, such as iterations
)

// object is one JSON object whose members are found but not yet read. The text around it is
// valid JSON. The document keeps the first problem, which ends the reading.
type object struct {
	doc     *document
	parent  *object
	key     string // in parent
	index   int    // in a list under key, or -1
	raw     []byte
	members []member
}

// member is one name and its value, as places in the text of the object. It has no pointers, so that the collector of
// garbage does not look at it.
type member struct {
	name, value span
	escaped     bool // the name has an escape
}

type span struct{ from, to uint32 }

// document is the memory of one reading. It is large enough for most usage objects, and is
// reused.
type document struct {
	err     *Error
	usage   Usage
	members [64]member
	objects [12]object
	// membersUsed and objectsUsed count the used elements of both.
	membersUsed, objectsUsed int
}

var documents = sync.Pool{New: func() any { return new(document) }}

// release returns the memory. Nothing that was read may refer to it.
func (d *document) release() {
	clear(d.objects[:d.objectsUsed])
	d.err, d.usage, d.membersUsed, d.objectsUsed = nil, Usage{}, 0, 0
	documents.Put(d)
}

func (d *document) newObject(parent *object, key string, index int, raw []byte) *object {
	var o *object
	if d.objectsUsed < len(d.objects) {
		o = &d.objects[d.objectsUsed]
		d.objectsUsed++
	} else {
		o = new(object)
	}
	*o = object{doc: d, parent: parent, key: key, index: index, raw: raw}
	return o
}

// parse checks that raw is one JSON object, and finds its members.
func (d *document) parse(raw []byte) *object {
	begin := scanSpace(raw, 0)
	switch {
	case len(raw) > MaxBytes:
		d.err = errorAt(Root, "is %d bytes; at most %d are allowed", len(raw), MaxBytes)
		return nil
	case begin < len(raw) && raw[begin] != '{' && valid(raw):
		d.err = errorAt(Root, "is %s; it must be an object", kindOf(raw[begin:]))
		return nil
	}
	o := d.newObject(nil, "", -1, raw[begin:])
	end := o.find()
	if end < 0 || scanSpace(o.raw, end) != len(o.raw) {
		d.err = errorAt(Root, "is not valid JSON, or nests deeper than %d", maxDepth)
		return nil
	}
	o.raw = o.raw[:end]
	return o
}

// find lists the members of the object, and returns the index after it, or -1 if it is not valid JSON.
func (o *object) find() int {
	d := o.doc
	o.members = d.members[d.membersUsed:d.membersUsed:len(d.members)]
	end := -1
	if len(o.raw) > 0 && o.raw[0] == '{' {
		end = scanMembers(o.raw, 1, maxDepth-1, o)
	}
	if len(o.members) <= len(d.members)-d.membersUsed { // append did not move the members
		d.membersUsed += len(o.members)
	}
	return end
}

// add adds the member whose quoted name and value are at these places. After the first problem it adds none.
func (o *object) add(name, value span) {
	if o.doc.err != nil {
		return
	}
	added := member{name: span{name.from + 1, name.to - 1}, value: value}
	added.escaped = bytes.IndexByte(o.raw[added.name.from:added.name.to], '\\') >= 0
	for i := range o.members {
		if bytes.Equal(o.nameOf(&o.members[i]), o.nameOf(&added)) {
			o.fail(string(o.nameOf(&added)), "is there twice; once is allowed")
			return
		}
	}
	if len(o.members) == maxMembers {
		o.fail("", "has more than %d members", maxMembers)
		return
	}
	o.members = append(o.members, added)
}

// nameOf returns the name of a member without escapes.
func (o *object) nameOf(m *member) []byte {
	if m.escaped {
		return unquote(o.raw[m.name.from-1 : m.name.to+1])
	}
	return o.raw[m.name.from:m.name.to]
}

func (o *object) valueOf(m *member) []byte { return o.raw[m.value.from:m.value.to] }

// path returns the path of the member with that name, or of the object itself if name is
// empty.
func (o *object) path(name string) string {
	var parts []string
	if name != "" {
		parts = append(parts, name)
	}
	for p := o; p != nil; p = p.parent {
		switch {
		case p.parent == nil:
			parts = append(parts, Root)
		case p.index >= 0:
			parts = append(parts, p.key+"["+strconv.Itoa(p.index)+"]")
		default:
			parts = append(parts, p.key)
		}
	}
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return strings.Join(parts, ".")
}

func (o *object) fail(name, format string, args ...any) {
	if o.doc.err == nil {
		o.doc.err = errorAt(o.path(name), format, args...)
	}
}

// get returns the value of a member; nil if it is absent or null.
func (o *object) get(name string) []byte {
	if o == nil {
		return nil
	}
	for i := range o.members {
		m := &o.members[i]
		if !m.escaped && m.name.to-m.name.from != uint32(len(name)) || string(o.nameOf(m)) != name { //nolint:gosec // the name of a field
			continue
		}
		if o.raw[m.value.from] == 'n' {
			return nil
		}
		return o.valueOf(m)
	}
	return nil
}

func (o *object) has(names ...string) bool {
	for _, name := range names {
		if o.get(name) != nil {
			return true
		}
	}
	return false
}

// object returns the member with that name; nil if it is absent or null. Every method of a
// nil object finds nothing.
func (o *object) object(name string) *object {
	raw := o.get(name)
	if raw == nil {
		return nil
	}
	if raw[0] != '{' {
		o.fail(name, "is %s; it must be an object", kindOf(raw))
		return nil
	}
	for i := range o.doc.objects[:o.doc.objectsUsed] { // read before
		if known := &o.doc.objects[i]; known.parent == o && known.key == name {
			return known
		}
	}
	child := o.doc.newObject(o, name, -1, raw)
	child.find()
	return child
}

// peek is object for a member that may be of another kind, for which it returns nil without
// an error.
func (o *object) peek(name string) *object {
	if raw := o.get(name); len(raw) == 0 || raw[0] != '{' {
		return nil
	}
	return o.object(name)
}

// list returns the objects of a list; none if it is absent or null.
func (o *object) list(name string) []*object {
	raw := o.get(name)
	if raw == nil {
		return nil
	}
	if raw[0] != '[' {
		o.fail(name, "is %s; it must be a list of objects", kindOf(raw))
		return nil
	}
	var items []*object
	for i := scanSpace(raw, 1); raw[i] != ']'; {
		end := scanValue(raw, i, maxDepth)
		value := raw[i:end]
		if i = scanSpace(raw, end); raw[i] == ',' {
			i = scanSpace(raw, i+1)
		}
		item := o.doc.newObject(o, name, len(items), value)
		switch {
		case len(items) == maxItems:
			o.fail(name, "has more than %d items", maxItems)
			return nil
		case value[0] != '{':
			item.fail("", "is %s; it must be an object", kindOf(value))
			return nil
		}
		item.find()
		items = append(items, item)
	}
	return items
}

// count reads an integer from 0 to MaxCount; 0 if it is absent or null.
func (o *object) count(name string) int64 {
	raw := o.get(name)
	if raw == nil {
		return 0
	}
	if raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') {
		o.fail(name, "is %s; it must be an integer from 0 to %d", kindOf(raw), int64(MaxCount))
		return 0
	}
	digits := raw
	if whole, fraction, found := bytes.Cut(raw, []byte{'.'}); found && len(bytes.Trim(fraction, "0")) == 0 {
		digits = whole // some libraries write 12 as 12.0
	}
	var n int64
	for _, c := range digits {
		if c < '0' || c > '9' {
			o.fail(name, "is %s; it must be an integer from 0 to %d", shorten(raw), int64(MaxCount))
			return 0
		}
		if n = n*10 + int64(c-'0'); n > MaxCount {
			o.fail(name, "is %s; it must be an integer from 0 to %d", shorten(raw), int64(MaxCount))
			return 0
		}
	}
	return n
}

// milliseconds reads seconds that may have a fraction, and rounds half up.
func (o *object) milliseconds(name string) int64 {
	raw := o.get(name)
	if raw == nil {
		return 0
	}
	whole, fraction, _ := bytes.Cut(raw, []byte{'.'})
	digits := append(append(make([]byte, 0, len(raw)+4), whole...), fraction...)
	for range 4 - min(len(fraction), 4) {
		digits = append(digits, '0')
	}
	digits = digits[:len(whole)+4] // tenths of milliseconds
	n, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil || n < 0 || n > MaxCount*10 || raw[0] == '-' || bytes.ContainsAny(fraction, "eE+-") {
		o.fail(name, "is %s; it must be a number of seconds, 0 or more, without an exponent", shorten(raw))
		return 0
	}
	return (n + 5) / 10
}

// usd reads an amount and keeps its text.
func (o *object) usd(name string) json.Number {
	raw := o.get(name)
	if raw == nil {
		return ""
	}
	if raw[0] < '0' || raw[0] > '9' {
		o.fail(name, "is %s; it must be a number of US dollars, 0 or more", shorten(raw))
		return ""
	}
	return json.Number(raw)
}

// text reads a string; "" if it is absent or null.
func (o *object) text(name string) string {
	raw := o.get(name)
	if raw == nil {
		return ""
	}
	if raw[0] != '"' {
		o.fail(name, "is %s; it must be a string", kindOf(raw))
		return ""
	}
	return string(unquote(raw))
}

func (o *object) lower(name string) string { return strings.ToLower(o.text(name)) }

// within checks that a part is at most its whole.
func (o *object) within(name string, part int64, whole string, n int64) {
	if part > n {
		o.fail(name, "%d is more than %s, %d", part, whole, n)
	}
}

func kindOf(raw []byte) string {
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}

// shorten keeps errors readable, whatever the object contains.
func shorten(raw []byte) string {
	const most = 40
	if len(raw) > most {
		return string(raw[:most]) + "…"
	}
	return string(raw)
}

// unquote returns the text of a valid JSON string.
func unquote(raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1]
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return raw
	}
	return []byte(s)
}
