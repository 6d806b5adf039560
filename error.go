package earmark

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Code is the stable name of an error, for programs. api/problem.go maps each code to an
// HTTP status.
type Code string

// The codes that callers can meet.
const (
	CodeInvalidRequest       Code = "invalid_request"        // the input breaks a rule; Field says where
	CodeUnauthenticated      Code = "unauthenticated"        // the call has no key, or one that does not work
	CodeForbidden            Code = "forbidden"              // the key may not make this call, or it comes from an origin that may not
	CodeNotFound             Code = "not_found"              // no such budget, reservation or path
	CodeMethodNotAllowed     Code = "method_not_allowed"     // the path exists, but not for this method
	CodePayloadTooLarge      Code = "payload_too_large"      // the body is over 64 KiB
	CodeUnsupportedMediaType Code = "unsupported_media_type" // the body is not application/json
	CodeBudgetExists         Code = "budget_exists"          // same scope, unit and period
	CodeBudgetExceeded       Code = "budget_exceeded"        // a denial: Violations says which budgets
	CodeNoBudget             Code = "no_budget"              // no budget covers a scope
	CodeUnitNotBudgeted      Code = "unit_not_budgeted"      // no budget on a scope counts this unit
	CodeUnknownModel         Code = "unknown_model"          // no price for this model, and no fallback; Nearest has similar names
	CodeUnpriced             Code = "unpriced_usage"         // the model has no price for a part of this usage, or several providers have it
	CodeIdempotencyMismatch  Code = "idempotency_mismatch"   // the key was used with another body
	CodeAlreadySettled       Code = "already_settled"        // committed or released before, or committed by its expiry
	CodeReservationExpired   Code = "reservation_expired"    // the lease has ended
	CodeOverageRejected      Code = "overage_rejected"       // more than the reserved amount, and a budget's policy is reject
	CodeNotCharged           Code = "not_charged"            // a correction of a reservation that has no final charge
	CodeBelowZero            Code = "below_zero"             // a correction would give back more than was charged
	CodeAdmissionUnknown     Code = "admission_unknown"      // no decision in time; repeat with the same key
	CodeRateLimited          Code = "rate_limited"           // more calls than the key's own rate; nothing was done
	CodeUnavailable          Code = "unavailable"            // Postgres or Temporal is away, or too many calls wait
	CodeInternal             Code = "internal"               // a bug in Earmark
)

// Error is an answer other than success. Code is for programs, Message for people, and
// Field names the wrong input, if one is wrong.
type Error struct {
	Code    Code
	Message string
	Field   string

	// Nearest comes with CodeUnknownModel: names of models with a price, the most similar
	// first, as provider/model.
	Nearest []string
	// RetryAfter is how long to wait before the same call may succeed; 0 if waiting does
	// not help or the time is not known. After a denial it is the time until RetryAt, which
	// can be days.
	RetryAfter time.Duration
	// Violations, Retryable and RetryAt come with CodeBudgetExceeded and have the meaning
	// that they have in a Decision.
	Violations []Violation
	Retryable  bool
	RetryAt    *time.Time
	// Queue names the queue of the server that is full, with CodeUnavailable; empty for
	// every other cause.
	Queue string
	// Reservation is the reservation's current state, if it exists. ReservationID is set
	// even if the state is not known.
	Reservation   *Reservation
	ReservationID string

	cause error
}

// Error returns the message with its field.
func (e *Error) Error() string {
	if e.Field != "" {
		return e.Field + ": " + e.Message
	}
	return e.Message
}

// Unwrap returns the cause of the error, nil if none is known.
func (e *Error) Unwrap() error { return e.cause }

// Errorf returns an Error with a formatted message. A %w verb keeps its cause.
func Errorf(code Code, format string, args ...any) *Error {
	formatted := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: formatted.Error(), cause: errors.Unwrap(formatted)}
}

// ErrorCode returns the code of the first *Error in err's chain, CodeInternal
// for any other error, and "" for nil.
func ErrorCode(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// Invalidf returns an Error with CodeInvalidRequest. field is the name of the wrong input
// as the caller knows it; empty means the whole body.
func Invalidf(field, format string, args ...any) *Error {
	err := Errorf(CodeInvalidRequest, format, args...)
	err.Field = field
	return err
}

// Clip shortens untrusted input, so that a message can quote it.
func Clip(s string) string {
	const maxQuotedBytes = 80
	if len(s) <= maxQuotedBytes {
		return s
	}
	cut := maxQuotedBytes
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
