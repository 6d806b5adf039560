package earmark

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Code is the stable name of an error, for programs. The HTTP status of each is
// in api/problem.go.
type Code string

// The codes that callers can meet.
const (
	CodeInvalidRequest       Code = "invalid_request"        // the input breaks a rule; Field says where
	CodeForbidden            Code = "forbidden"              // the call comes from a place that may not make it
	CodeNotFound             Code = "not_found"              // no such budget, reservation or path
	CodeMethodNotAllowed     Code = "method_not_allowed"     // the path exists, not for this method
	CodePayloadTooLarge      Code = "payload_too_large"      // the body is over 64 KiB
	CodeUnsupportedMediaType Code = "unsupported_media_type" // the body is not application/json
	CodeBudgetExists         Code = "budget_exists"          // same scope, unit and period
	CodeBudgetExceeded       Code = "budget_exceeded"        // a denial: Violations says which budgets
	CodeNoBudget             Code = "no_budget"              // a scope meets no budget
	CodeUnitNotBudgeted      Code = "unit_not_budgeted"      // no budget on the scopes counts this unit
	CodeIdempotencyMismatch  Code = "idempotency_mismatch"   // same key, another body
	CodeAlreadySettled       Code = "already_settled"        // committed or released before
	CodeReservationExpired   Code = "reservation_expired"    // the lease ran out before
	CodeOverageRejected      Code = "overage_rejected"       // usage over the reserved amount, and a budget's policy is reject
	CodeAdmissionUnknown     Code = "admission_unknown"      // no decision in time; the same key is safe to retry
	CodeUnavailable          Code = "unavailable"            // Postgres or Temporal is away
	CodeInternal             Code = "internal"               // a bug of ours
)

// Error is an answer that is not what the caller asked for. Code is for
// programs, Message for people, Field names the input to blame, if one is.
type Error struct {
	Code    Code
	Message string
	Field   string

	// RetryAfter says how long to wait before the same call may succeed; 0 where
	// waiting does not help or the time is not known. After a denial it is the time
	// until RetryAt, which can be days.
	RetryAfter time.Duration
	// Violations, Retryable and RetryAt belong to CodeBudgetExceeded and are those of a
	// Decision.
	Violations []Violation
	Retryable  bool
	RetryAt    *time.Time
	// Reservation is what stands, where one exists; ReservationID is set even
	// where its state is not known.
	Reservation   *Reservation
	ReservationID string

	cause error
}

// Error gives the message with its field.
func (e *Error) Error() string {
	if e.Field != "" {
		return e.Field + ": " + e.Message
	}
	return e.Message
}

// Unwrap returns the fault behind the error, if one is known.
func (e *Error) Unwrap() error { return e.cause }

// Errorf makes an Error with a formatted message. A %w verb keeps its cause.
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

// Invalidf makes an Error that blames one input, by its name as the caller knows it; an
// empty field blames the whole body. Its code is CodeInvalidRequest.
func Invalidf(field, format string, args ...any) *Error {
	err := Errorf(CodeInvalidRequest, format, args...)
	err.Field = field
	return err
}

// Clip shortens untrusted input before it is quoted in a message.
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
