package earmark

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Ids of users and customers, such as a@b.com, auth0|12 and org:7, have characters
// that a scope does not allow. Such an id is a segment in percent-encoding
// (RFC 3986) with "_" in place of "%", after encodedPrefix: "x--a_40b.com". An id
// that is a segment already stays as it is, unless it begins with the prefix. So
// two ids never share a segment, and each is read back from its own.
const (
	encodedPrefix = "x--"
	upperHex      = "0123456789ABCDEF"
)

// ScopeOf makes a scope of ids, the widest first: ScopeOf("acme", "a@b.com") is
// "acme/x--a_40b.com". Each id becomes one segment, whatever characters it has, and
// different ids become different scopes. ScopeIDs gives the ids back.
//
// The error is CodeInvalidRequest: an id is empty or no UTF-8, or its segment is
// over 63 bytes, where each byte that is not of A-Z, a-z, 0-9, . and - takes three;
// or the scope is too deep or too long, see ValidateScope. Where ids may be that
// long, use the base64url of their SHA-256 (43 bytes) and keep the id yourself.
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

// ScopeIDs gives the ids that ScopeOf made a scope of. A segment that ScopeOf does
// not make is given as it is.
func ScopeIDs(scope string) []string {
	ids := strings.Split(scope, "/")
	for i, segment := range ids {
		if id, ok := decodeSegment(segment); ok {
			ids[i] = id
		}
	}
	return ids
}

// DisplayScope is a scope for people: "acme/a@b.com". A segment is left encoded
// where its id has a space, a slash or a character that does not print, so that a
// scope still reads as one, and so that ParseScope reads it back.
func DisplayScope(scope string) string {
	segments := strings.Split(scope, "/")
	for i, segment := range segments {
		if id, ok := decodeSegment(segment); ok && isReadable(id) {
			segments[i] = id
		}
	}
	return strings.Join(segments, "/")
}

// ParseScope reads a scope that a person writes, as it is or as DisplayScope shows
// it. field names the input. The error is CodeInvalidRequest.
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

// decodeSegment is true where encodeSegment made the segment of another id.
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

// isReadable reports whether an id can stand for its segment before a person. One
// that begins with the prefix would be read as what it encodes.
func isReadable(id string) bool {
	return utf8.ValidString(id) && id != "" && !strings.HasPrefix(id, encodedPrefix) && strings.IndexFunc(id, func(char rune) bool {
		return char == '/' || char == ' ' || !unicode.IsPrint(char)
	}) < 0
}
