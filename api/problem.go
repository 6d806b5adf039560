package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/keys"
)

// Values of Retry-After, unless the error itself has one.
const (
	retryUnavailable      = time.Second
	retryAdmissionUnknown = time.Second
	leastRetryExceeded    = time.Second // after a denial for which waiting helps
)

const (
	problemContentType = "application/problem+json"
	problemTypePrefix  = "urn:earmark:problem:"
)

// httpWords is the HTTP form of one error code.
type httpWords struct {
	status int
	title  string
	// detail replaces a message that contains the text of an inner fault, which is for the
	// log and not for the caller. Only 5xx have inner faults.
	detail string
}

// problems is the only table from codes to HTTP. The Go client has its inverse.
var problems = map[earmark.Code]httpWords{
	earmark.CodeInvalidRequest:       {status: http.StatusBadRequest, title: "The request breaks a rule"},
	earmark.CodeBudgetExceeded:       {status: http.StatusPaymentRequired, title: "The request does not fit into a budget"},
	earmark.CodeUnauthenticated:      {status: http.StatusUnauthorized, title: "The call needs a key that works"},
	earmark.CodeForbidden:            {status: http.StatusForbidden, title: "The call is not allowed"},
	earmark.CodeNotFound:             {status: http.StatusNotFound, title: "Not found"},
	earmark.CodeNoBudget:             {status: http.StatusNotFound, title: "A scope meets no budget"},
	earmark.CodeMethodNotAllowed:     {status: http.StatusMethodNotAllowed, title: "The path does not answer this method"},
	earmark.CodeBudgetExists:         {status: http.StatusConflict, title: "The budget exists"},
	earmark.CodeAlreadySettled:       {status: http.StatusConflict, title: "The reservation is settled"},
	earmark.CodeOverageRejected:      {status: http.StatusConflict, title: "The usage is more than was reserved"},
	earmark.CodeNotCharged:           {status: http.StatusConflict, title: "The reservation has no final charge"},
	earmark.CodeBelowZero:            {status: http.StatusConflict, title: "The correction gives back more than was charged"},
	earmark.CodeReservationExpired:   {status: http.StatusGone, title: "The reservation has expired"},
	earmark.CodePayloadTooLarge:      {status: http.StatusRequestEntityTooLarge, title: "The body is too large"},
	earmark.CodeUnsupportedMediaType: {status: http.StatusUnsupportedMediaType, title: "The body is not JSON"},
	earmark.CodeUnitNotBudgeted:      {status: http.StatusUnprocessableEntity, title: "No budget counts this unit"},
	earmark.CodeUnknownModel:         {status: http.StatusUnprocessableEntity, title: "The model has no price"},
	earmark.CodeUnpriced:             {status: http.StatusUnprocessableEntity, title: "The usage has no price"},
	earmark.CodeIdempotencyMismatch:  {status: http.StatusUnprocessableEntity, title: "The key was used for another request"},
	earmark.CodeRateLimited:          {status: http.StatusTooManyRequests, title: "The key makes more calls than it may"},
	earmark.CodeAdmissionUnknown: {
		status: http.StatusServiceUnavailable, title: "There was no decision in time",
		detail: "there was no decision in time; send the same request with the same Idempotency-Key again",
	},
	earmark.CodeUnavailable: {
		status: http.StatusServiceUnavailable, title: "Earmark cannot do this now",
		detail: "Postgres or Temporal is away; try again",
	},
	earmark.CodeInternal: {
		status: http.StatusInternalServerError, title: "Earmark failed",
		detail: "something went wrong inside Earmark; its log says what",
	},
}

// problem is an error in the JSON of RFC 9457.
type problem struct {
	Type          string               `json:"type"`
	Title         string               `json:"title"`
	Status        int                  `json:"status"`
	Detail        string               `json:"detail"`
	Code          earmark.Code         `json:"code"`
	Field         string               `json:"field,omitempty"`
	Nearest       []string             `json:"nearest,omitzero"`
	Queue         string               `json:"queue,omitempty"`
	Violations    []earmark.Violation  `json:"violations,omitzero"`
	Retryable     *bool                `json:"retryable,omitempty"`
	RetryAt       *time.Time           `json:"retry_at,omitempty"`
	Reservation   *earmark.Reservation `json:"reservation,omitempty"`
	ReservationID string               `json:"reservation_id,omitempty"`
	Checks        map[string]check     `json:"checks,omitempty"` // only of /readyz
}

// fail answers with err as a problem and logs the inner fault, which the caller does not
// get.
func (s *server) fail(c *gin.Context, err error) {
	e := asError(err)
	words := problems[e.Code]
	s.metrics.refused(e)
	if words.status >= http.StatusInternalServerError {
		s.logFault(c, e, words)
	}
	if c.Writer.Written() {
		return // the answer has begun and cannot be replaced
	}
	if e.Code == earmark.CodeUnauthenticated {
		c.Header("WWW-Authenticate", challenge)
	}
	if wait := retryAfter(e); wait > 0 {
		c.Header("Retry-After", wholeSeconds(wait))
	}
	writeJSON(c, words.status, problemContentType, s.problemOf(e, words))
}

// asError returns the *earmark.Error in err's chain. The end of a context means that
// something did not answer in time.
func asError(err error) *earmark.Error {
	var e *earmark.Error
	switch {
	case errors.As(err, &e):
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return earmark.Errorf(earmark.CodeUnavailable, "the call was not finished: %w", err)
	default:
		return earmark.Errorf(earmark.CodeInternal, "%w", err)
	}
	if _, known := problems[e.Code]; !known {
		return earmark.Errorf(earmark.CodeInternal, "no HTTP words for code %q: %w", e.Code, err)
	}
	return e
}

func (s *server) problemOf(e *earmark.Error, words httpWords) problem {
	p := problem{
		Type:          problemTypePrefix + string(e.Code),
		Title:         words.title,
		Status:        words.status,
		Detail:        keys.WithoutSecrets(e.Error()),
		Code:          e.Code,
		Field:         keys.WithoutSecrets(e.Field),
		Queue:         e.Queue,
		ReservationID: e.ReservationID,
	}
	if words.detail != "" && (e.Code == earmark.CodeInternal || e.Unwrap() != nil) {
		p.Detail = words.detail
	}
	if e.Code == earmark.CodeUnknownModel {
		p.Nearest = orEmpty(e.Nearest)
	}
	if e.Code == earmark.CodeBudgetExceeded {
		p.Violations = orEmpty(e.Violations)
		p.Retryable = &e.Retryable
		p.RetryAt = e.RetryAt
	}
	if e.Reservation != nil {
		shown := s.show(e.Reservation)
		p.Reservation, p.ReservationID = &shown, shown.ID
	}
	return p
}

func (s *server) logFault(c *gin.Context, e *earmark.Error, words httpWords) {
	level := slog.LevelWarn
	if e.Code == earmark.CodeInternal {
		level = slog.LevelError
	}
	s.log.LogAttrs(c.Request.Context(), level, "call failed",
		slog.String("method", c.Request.Method),
		slog.String("route", c.FullPath()),
		slog.Int("status", words.status),
		slog.String("code", string(e.Code)),
		slog.String("reservation_id", cmp.Or(e.ReservationID, subjectOf(c).reservationID)),
		slog.String("tenant", callerOf(c).tenant),
		slog.String("error", keys.WithoutSecrets(e.Error())))
}

// retryAfter returns how long the caller should wait, or 0 if waiting is not known to help.
func retryAfter(e *earmark.Error) time.Duration {
	if e.RetryAfter > 0 {
		return e.RetryAfter
	}
	switch e.Code {
	case earmark.CodeUnavailable:
		return retryUnavailable
	case earmark.CodeAdmissionUnknown:
		return retryAdmissionUnknown
	case earmark.CodeBudgetExceeded:
		if e.RetryAt != nil {
			return max(leastRetryExceeded, time.Until(*e.RetryAt))
		}
		return 0
	default:
		return 0
	}
}

// wholeSeconds rounds up, so that a caller waits long enough.
func wholeSeconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// writeJSON answers with value. Every type of the API encodes.
func writeJSON(c *gin.Context, status int, contentType string, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		panic("api: an answer did not encode: " + err.Error())
	}
	c.Data(status, contentType, append(body, '\n'))
}

func answer(c *gin.Context, status int, value any) error {
	writeJSON(c, status, "application/json", value)
	return nil
}

// orEmpty makes JSON show a nil list as [] and not as null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
