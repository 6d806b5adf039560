package middleware

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
)

// retryAway is the Retry-After if Earmark itself sent none.
const retryAway = time.Second

const problemTypePrefix = "urn:earmark:problem:"

// codeKeyInUse is a code of this package.
const codeKeyInUse earmark.Code = "key_in_use"

type httpWords struct {
	status int
	title  string
	detail string // instead of the error's own text, if that is written for this service and not for its caller
}

// problems are the refusals that a caller can get. Every other error is a 500.
var problems = map[earmark.Code]httpWords{
	earmark.CodeInvalidRequest: {status: http.StatusBadRequest, title: "The request breaks a rule"},
	earmark.CodeBudgetExceeded: {
		status: http.StatusPaymentRequired, title: "The spending limit is reached", detail: "the request does not fit into its spending limit",
	},
	earmark.CodeNotFound:             {status: http.StatusNotFound, title: "Not found"},
	earmark.CodeMethodNotAllowed:     {status: http.StatusMethodNotAllowed, title: "The path does not answer this method"},
	earmark.CodePayloadTooLarge:      {status: http.StatusRequestEntityTooLarge, title: "The body is too large"},
	earmark.CodeUnsupportedMediaType: {status: http.StatusUnsupportedMediaType, title: "The body is of another kind"},
	earmark.CodeAlreadySettled: {
		status: http.StatusConflict, title: "The request was made before", detail: "a request with this key is over; use another key",
	},
	earmark.CodeReservationExpired: {
		status: http.StatusConflict, title: "The request was made before", detail: "a request with this key was cut off; use another key",
	},
	codeKeyInUse: {
		status: http.StatusConflict, title: "The request is being made already",
		detail: "a request with this key is being made, or was cut off; use another key",
	},
	earmark.CodeIdempotencyMismatch: {
		status: http.StatusUnprocessableEntity, title: "The key was used for another request", detail: "this key was used for another request; use another key",
	},
	earmark.CodeAdmissionUnknown: {
		status: http.StatusServiceUnavailable, title: "There was no decision in time", detail: "the budget could not be checked in time; try again",
	},
	earmark.CodeUnavailable: {
		status: http.StatusServiceUnavailable, title: "Budgets cannot be checked", detail: "the budget cannot be checked now; try again",
	},
	earmark.CodeRateLimited: { // of this service's key, not of the caller
		status: http.StatusServiceUnavailable, title: "Budgets cannot be checked", detail: "the budget cannot be checked now; try again",
	},
	earmark.CodeInternal: {
		status: http.StatusInternalServerError, title: "The guard failed", detail: "something went wrong; the log says what",
	},
}

type problem struct {
	Type       string              `json:"type"`
	Title      string              `json:"title"`
	Status     int                 `json:"status"`
	Detail     string              `json:"detail"`
	Code       earmark.Code        `json:"code"`
	Field      string              `json:"field,omitempty"`
	Violations []earmark.Violation `json:"violations,omitempty"`
	Retryable  *bool               `json:"retryable,omitempty"`
	RetryAt    *time.Time          `json:"retry_at,omitempty"`
}

// WriteProblem answers a request that did not reach its handler, as
// application/problem+json: 402 for a denial, with Earmark's retryable, retry_at and
// Retry-After; 409 for a key that ran before or is running; 503 with Retry-After if Earmark
// is away; 500 for a fault of this service. It logs the cause of the last two to
// slog.Default() and does not send it to the caller.
//
// The answer names no budget, scope or amount, because they may belong to somebody other
// than the caller, such as a reseller. WithViolations adds them.
func WriteProblem(w http.ResponseWriter, r *http.Request, err error) {
	write(w, r, err, false)
}

// writeWithViolations is WriteProblem with Earmark's own text of a denial and the budgets
// that the request does not fit into.
func writeWithViolations(w http.ResponseWriter, r *http.Request, err error) {
	write(w, r, err, true)
}

func write(w http.ResponseWriter, r *http.Request, err error, withViolations bool) {
	e := asError(err)
	words := problems[e.Code]
	if words.status >= http.StatusInternalServerError {
		slog.ErrorContext(r.Context(), "request refused by the guard",
			slog.String("code", string(e.Code)), slog.Any("error", err))
	}
	p := problem{
		Type: problemTypePrefix + string(e.Code), Title: words.title, Status: words.status,
		Detail: e.Error(), Code: e.Code, Field: e.Field,
	}
	denied := e.Code == earmark.CodeBudgetExceeded
	if denied {
		p.Retryable, p.RetryAt = &e.Retryable, e.RetryAt
	}
	switch {
	case denied && withViolations:
		p.Violations = e.Violations
	case words.detail != "":
		p.Detail, p.Field = words.detail, ""
	}
	body, err := json.Marshal(p)
	if err != nil {
		panic("middleware: a problem did not encode: " + err.Error()) // plain fields always encode
	}
	if wait := retryAfter(e); wait > 0 {
		w.Header().Set("Retry-After", wholeSeconds(wait))
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(words.status)
	_, _ = w.Write(append(body, '\n'))
}

func asError(err error) *earmark.Error {
	if errors.Is(err, client.ErrKeyInUse) {
		return earmark.Errorf(codeKeyInUse, "%w", err)
	}
	var e *earmark.Error
	var misasked *misaskedError
	if errors.As(err, &e) && !errors.As(err, &misasked) {
		if _, known := problems[e.Code]; known {
			return e
		}
	}
	return earmark.Errorf(earmark.CodeInternal, "%w", err)
}

func retryAfter(e *earmark.Error) time.Duration {
	if e.RetryAfter == 0 && problems[e.Code].status == http.StatusServiceUnavailable {
		return retryAway
	}
	return e.RetryAfter
}

// wholeSeconds rounds up, so that a caller waits long enough.
func wholeSeconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}
