package client

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
)

// problem is an error in the JSON of the API (RFC 9457).
type problem struct {
	Title         string               `json:"title"`
	Detail        string               `json:"detail"`
	Code          earmark.Code         `json:"code"`
	Field         string               `json:"field"`
	Nearest       []string             `json:"nearest"`
	Queue         string               `json:"queue"`
	Violations    []earmark.Violation  `json:"violations"`
	Retryable     bool                 `json:"retryable"`
	RetryAt       *time.Time           `json:"retry_at"`
	Reservation   *earmark.Reservation `json:"reservation"`
	ReservationID string               `json:"reservation_id"`
}

// problem returns the error of an answer other than success.
func (a answer) problem() error {
	var p problem
	if err := json.Unmarshal(a.body, &p); err != nil || p.Code == "" {
		return a.foreign()
	}
	message := strings.TrimPrefix(p.Detail, p.Field+": ") // Error() adds the field again
	if message == "" {
		message = p.Title
	}
	e := earmark.Errorf(p.Code, "%s", message)
	e.Field, e.Nearest, e.Queue = p.Field, p.Nearest, p.Queue
	e.RetryAfter = a.retryAfter()
	e.Violations, e.Retryable, e.RetryAt = p.Violations, p.Retryable, p.RetryAt
	e.Reservation, e.ReservationID = p.Reservation, p.ReservationID
	return e
}

// errForeign marks an answer that Earmark did not write: it says nothing about the outcome
// in Earmark.
var errForeign = errors.New("not in Earmark's words")

// isForeign reports whether the answer is a failure that Earmark did not write.
func (a answer) isForeign() bool {
	return (a.status < 200 || a.status > 299) && errors.Is(a.problem(), errForeign)
}

// foreign returns the error of an answer that Earmark did not write, such as a proxy's.
func (a answer) foreign() error {
	const maxQuotedBytes = 200
	text := strings.TrimSpace(strings.ToValidUTF8(string(a.body[:min(len(a.body), maxQuotedBytes)]), ""))
	e := earmark.Errorf(codeOf(a.status), "%d %s, and %w: %q", a.status, http.StatusText(a.status), errForeign, text)
	e.RetryAfter = a.retryAfter()
	return e
}

// codeOf returns the nearest code for a status without one.
func codeOf(status int) earmark.Code {
	switch status {
	case http.StatusUnauthorized:
		return earmark.CodeUnauthenticated
	case http.StatusForbidden:
		return earmark.CodeForbidden
	case http.StatusNotFound:
		return earmark.CodeNotFound
	case http.StatusMethodNotAllowed:
		return earmark.CodeMethodNotAllowed
	case http.StatusRequestEntityTooLarge:
		return earmark.CodePayloadTooLarge
	case http.StatusUnsupportedMediaType:
		return earmark.CodeUnsupportedMediaType
	case http.StatusRequestTimeout, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return earmark.CodeUnavailable
	}
	if status >= 400 && status <= 499 {
		return earmark.CodeInvalidRequest
	}
	return earmark.CodeInternal
}

// retryAfter reads the header Retry-After, in seconds or as a date; 0 if there is none.
func (a answer) retryAfter() time.Duration {
	text := a.header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

func undecodable(err error) error {
	return earmark.Errorf(earmark.CodeInternal, "Earmark's answer does not decode: %w", err)
}
