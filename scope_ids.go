package earmark

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Ids of users and customers, such as a@b.com, auth0|12 and org:7, have characters that a
// scope does not allow. Earmark encodes such an id as one segment: percent-encoding (RFC
// 3986) with "_" in place of "%", after encodedPrefix, as in "x--a_40b.com". An id that is
// already a valid segment stays unchanged, unless it begins with the prefix. So two ids
// never share a segment, and each segment decodes to its id.
const (
	encodedPrefix = "x--"
	upperHex      = "0123456789ABCDEF"
)

// ScopeOf makes a scope from ids, the widest first: ScopeOf("acme", "a@b.com") is
// "acme/x--a_40b.com". Each id becomes one segment, whatever characters it has; different
// ids become different scopes. ScopeIDs is its inverse.
//
// The error is CodeInvalidRequest: an id is empty or is not UTF-8; its segment is over 63
// bytes (each byte other than A-Z, a-z, 0-9, . and - takes three); or the scope is too deep
// or too long, see ValidateScope. If ids may be that long, use the base64url of their
// SHA-256 (43 bytes) and keep the id yourself.
func ScopeOf(ids ...string) (string, error) {
	segments := make([]string, len(ids))
	for i, id := range ids {
		field := fmt.Sprintf("ids[%d]", i)
		if id == "" {
			return "", Invalidf(field, "is empty; an id has at least one character")
		}
		if !utf8.ValidString(id) {
			return "", Invalidf(field, "%q is no UTF-8", Clip(id))
		}
		segments[i] = encodeSegment(id)
		if n := len(segments[i]); n > MaxSegmentBytes {
			return "", Invalidf(field, "%q takes %d bytes as a segment of a scope; at most %d are allowed", Clip(id), n, MaxSegmentBytes)
		}
	}
	scope := strings.Join(segments, "/")
	if err := ValidateScope("scope", scope); err != nil {
		return "", err
	}
	return scope, nil
}

// ScopeIDs returns the ids from which ScopeOf made a scope. It returns a segment unchanged
// if ScopeOf cannot make it.
func ScopeIDs(scope string) []string {
	ids := strings.Split(scope, "/")
	for i, segment := range ids {
		if id, ok := decodeSegment(segment); ok {
			ids[i] = id
		}
	}
	return ids
}

// DisplayScope returns a scope for people: "acme/a@b.com". It leaves a segment encoded if
// its id has a space, a slash or a character that does not print: the scope stays readable,
// and ParseScope can read it back.
func DisplayScope(scope string) string {
	segments := strings.Split(scope, "/")
	for i, segment := range segments {
		if id, ok := decodeSegment(segment); ok && isReadable(id) {
			segments[i] = id
		}
	}
	return strings.Join(segments, "/")
}

// ParseScope reads a scope that a person wrote, in the form of a scope or of DisplayScope.
// field names the input in the error, which is CodeInvalidRequest.
func ParseScope(field, text string) (string, error) {
	segments := strings.Split(text, "/")
	for i, segment := range segments {
		if isReadable(segment) && !segmentPattern.MatchString(segment) {
			segments[i] = encodeSegment(segment)
		}
	}
	scope := strings.Join(segments, "/")
	if err := ValidateScope(field, scope); err != nil {
		return "", err
	}
	return scope, nil
}

// ParseBudgetScope is ParseScope for the scope of a budget, which may be a template, such as "app/users/*".
func ParseBudgetScope(field, text string) (string, error) {
	parent, isTemplate := cutTemplate(text)
	switch {
	case text == templateSegment:
		return text, nil
	case slices.Contains(strings.Split(parent, "/"), templateSegment):
		return "", ValidateBudgetScope(field, text)
	case !isTemplate:
		return ParseScope(field, text)
	}
	parent, err := ParseScope(field, parent)
	if err != nil {
		return "", err
	}
	scope := parent + "/" + templateSegment
	return scope, ValidateBudgetScope(field, scope)
}

func encodeSegment(id string) string {
	if segmentPattern.MatchString(id) && !strings.HasPrefix(id, encodedPrefix) {
		return id
	}
	segment := []byte(encodedPrefix)
	for _, char := range []byte(id) {
		if isLiteral(char) {
			segment = append(segment, char)
		} else {
			segment = append(segment, '_', upperHex[char>>4], upperHex[char&0xf])
		}
	}
	return string(segment)
}

// decodeSegment returns the id of a segment; ok is true if encodeSegment made the segment
// from another text.
func decodeSegment(segment string) (id string, ok bool) {
	encoded, ok := strings.CutPrefix(segment, encodedPrefix)
	if !ok {
		return "", false
	}
	var decoded []byte
	for i := 0; i < len(encoded); i++ {
		if encoded[i] != '_' {
			decoded = append(decoded, encoded[i])
			continue
		}
		if len(encoded) < i+3 {
			return "", false
		}
		char, err := strconv.ParseUint(encoded[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		decoded = append(decoded, byte(char))
		i += 2
	}
	id = string(decoded)
	return id, id != "" && utf8.ValidString(id) && encodeSegment(id) == segment
}

func isLiteral(char byte) bool {
	return 'A' <= char && char <= 'Z' || 'a' <= char && char <= 'z' || '0' <= char && char <= '9' || char == '.' || char == '-'
}

// isReadable reports whether people can read and write the id in place of its segment. An
// id that begins with the prefix would be decoded.
func isReadable(id string) bool {
	return utf8.ValidString(id) && id != "" && !strings.HasPrefix(id, encodedPrefix) && strings.IndexFunc(id, func(char rune) bool {
		return char == '/' || char == ' ' || !unicode.IsPrint(char)
	}) < 0
}
