package middleware

import (
	"bytes"
	"errors"
	"io"
	"net/http"

	"github.com/earmark-dev/earmark"
)

// PeekBody reads a request's body, at most maxBytes, and restores it for the next reader.
// Use it in an AskFunc whose amounts depend on the body. The error is CodePayloadTooLarge
// or CodeInvalidRequest.
func PeekBody(r *http.Request, maxBytes int64) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBytes+1))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge), int64(len(body)) > maxBytes:
		return nil, earmark.Errorf(earmark.CodePayloadTooLarge, "the body is over %d bytes", maxBytes)
	case err != nil:
		return nil, earmark.Errorf(earmark.CodeInvalidRequest, "the body broke off: %w", err)
	}
	r.Body = readAgain{bytes.NewReader(body), r.Body}
	return body, nil
}

// readAgain returns bytes that were read before, and closes their source.
type readAgain struct {
	io.Reader
	io.Closer
}
