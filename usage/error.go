package usage

import (
	"errors"
	"fmt"
)

// Root is the first element of every path in an [Error].
const Root = "provider_usage"

// Error says where a usage object is wrong and what is allowed there.
type Error struct {
	// Path names the field, for example provider_usage.completion_tokens_details.reasoning_tokens.
	Path string
	// Reason says what is wrong and what is allowed.
	Reason string
}

func (e *Error) Error() string { return e.Path + ": " + e.Reason }

// ErrNoUsage says that a stream has ended, or was broken off, before a chunk contained
// usage. The usage is unknown, not 0.
var ErrNoUsage = errors.New("no chunk of the stream carries usage: it is unknown, not 0")

func errorAt(path, format string, args ...any) *Error {
	return &Error{Path: path, Reason: fmt.Sprintf(format, args...)}
}
