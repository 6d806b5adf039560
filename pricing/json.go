package pricing

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
)

// node is a JSON value whose numbers are text, whose members keep their order, and where no member is there twice.
type node struct {
	value   any // string, json.Number, bool, nil; or the two below
	members []namedNode
	items   []node
	kind    json.Delim // '{', '[', or 0
}

type namedNode struct {
	name string
	node node
}

// parseJSON reads one JSON value.
func parseJSON(data []byte) (node, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	n, err := readNode(decoder, "")
	if err != nil {
		return node{}, err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return node{}, fmt.Errorf("there is more after the JSON value")
	}
	return n, nil
}

func readNode(decoder *json.Decoder, path string) (node, error) {
	token, err := decoder.Token()
	if err != nil {
		return node{}, fmt.Errorf("%s is not valid JSON: %w", orRoot(path), err)
	}
	delim, isDelim := token.(json.Delim)
	if !isDelim {
		return node{value: token}, nil
	}
	n := node{kind: delim}
	seen := map[string]bool{}
	for i := 0; decoder.More(); i++ {
		if delim == '[' {
			item, err := readNode(decoder, fmt.Sprintf("%s[%d]", path, i))
			if err != nil {
				return node{}, err
			}
			n.items = append(n.items, item)
			continue
		}
		token, err := decoder.Token()
		if err != nil {
			return node{}, fmt.Errorf("%s is not valid JSON: %w", orRoot(path), err)
		}
		name := token.(string)
		if seen[name] {
			return node{}, fmt.Errorf("%s is there twice", join(path, name))
		}
		seen[name] = true
		member, err := readNode(decoder, join(path, name))
		if err != nil {
			return node{}, err
		}
		n.members = append(n.members, namedNode{name, member})
	}
	if _, err := decoder.Token(); err != nil {
		return node{}, fmt.Errorf("%s is not valid JSON: %w", orRoot(path), err)
	}
	return n, nil
}

func orRoot(path string) string {
	if path == "" {
		return "the table"
	}
	return path
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// get returns a member, or an empty node.
func (n node) get(name string) node {
	for _, m := range n.members {
		if m.name == name {
			return m.node
		}
	}
	return node{}
}

func (n node) has(name string) bool {
	m := n.get(name)
	return m.kind != 0 || m.value != nil
}

// text returns a string, or empty.
func (n node) text() string {
	s, _ := n.value.(string)
	return s
}

// decimal reads a number or its text.
func (n node) decimal() (Decimal, error) {
	switch v := n.value.(type) {
	case json.Number:
		return ParseDecimal(v.String())
	case string:
		return ParseDecimal(v)
	}
	return Decimal{}, fmt.Errorf("is not a number")
}

// integer reads a number without a fraction.
func (n node) integer() (int64, bool) {
	d, err := n.decimal()
	if err != nil || d.scale != 0 || d.digits > math.MaxInt64 {
		return 0, false
	}
	return int64(d.digits), true
}
