package client

import (
	"errors"
	"fmt"

	"github.com/earmark-dev/earmark"
)

// What a guarded run tried when it could not settle.
const (
	verbCommit  = "commit"
	verbRelease = "release"
)

var (
	// ErrNothingSent is how the work of Do and DoStream says that no request was sent, so
	// that nothing can have been spent. Nothing else releases the reservation before its
	// lease ends. See NothingSent.
	ErrNothingSent = errors.New("nothing was sent")

	// ErrUsageUnknown is why a reservation is left to its expiry policy: the work ended,
	// with or without an error, without reporting its usage, and did not say that nothing
	// was sent.
	ErrUsageUnknown = errors.New("what was used is not known")

	// ErrKeyInUse is why Do and DoStream did not start: another run with the same key holds
	// its reservation, or held it when it died. Two runs would share one reservation, and
	// only one of them would be charged.
	ErrKeyInUse = errors.New("another run with this key holds its reservation")
)

// NothingSent marks err: no request was sent, and the reservation may be released. Use it
// only if that is certain, for example if a prompt was refused before it was sent. After a
// timeout it is not certain.
func NothingSent(err error) error {
	if err == nil {
		return ErrNothingSent
	}
	return fmt.Errorf("%w: %w", ErrNothingSent, err)
}

// UnsettledError says that a run has ended and that its reservation is not settled, or may
// not be. The result of the work stands.
type UnsettledError struct {
	ReservationID string
	// Verb is what was tried, "commit" or "release"; empty if nothing was tried because the
	// usage is not known.
	Verb string
	// Usage is the usage to commit; nil if there is none, or if a Response is committed in
	// its place.
	Usage    earmark.Amounts
	Response earmark.Response
	// Estimated says that the usage is an estimate.
	Estimated bool
	// OnExpiry is the reservation's expiry policy as Earmark last reported it: the
	// request's own, or OnExpiryReview after CodeOverageRejected.
	OnExpiry earmark.OnExpiry
	// Err is ErrUsageUnknown or an *earmark.Error.
	Err error
}

// Refused reports whether Earmark refused the settlement, for example with
// CodeOverageRejected, CodeAlreadySettled or CodeNotFound: this run charged nothing, and a
// retry will not help. Otherwise a commit or release may or may not have succeeded, and it
// is safe to send it again: Commit with the same ReservationID and Usage, or CommitResponse
// with Response.
func (e *UnsettledError) Refused() bool {
	if e.Verb == "" || errors.Is(e.Err, errForeign) {
		return false
	}
	switch earmark.ErrorCode(e.Err) {
	case earmark.CodeUnavailable, earmark.CodeRateLimited, earmark.CodeAdmissionUnknown, earmark.CodeInternal:
		return false
	default:
		return true
	}
}

// Error names the reservation, the attempted transition, and the failure.
func (e *UnsettledError) Error() string {
	switch {
	case e.Verb == "":
		return fmt.Sprintf("reservation %s is left to its expiry policy (%s): %v", e.ReservationID, e.OnExpiry, e.Err)
	case e.Refused() && e.Verb == verbCommit:
		return fmt.Sprintf("reservation %s: %s not charged: %v", e.ReservationID, e.spent(), e.Err)
	case e.Refused():
		return fmt.Sprintf("reservation %s was not released: %v", e.ReservationID, e.Err)
	case e.Verb == verbCommit:
		return fmt.Sprintf("reservation %s: it is not known whether %s charged: %v", e.ReservationID, e.spent(), e.Err)
	}
	return fmt.Sprintf("reservation %s: it is not known whether it was released: %v", e.ReservationID, e.Err)
}

func (e *UnsettledError) spent() string {
	if e.Response.Given() {
		return "the provider's usage was"
	}
	return e.Usage.String() + " were"
}

// Unwrap returns Err.
func (e *UnsettledError) Unwrap() error { return e.Err }

// bothErrors joins the work's error and the settlement's, so that errors.Is and errors.As
// find either.
func bothErrors(work, settlement error) error {
	switch {
	case work == nil:
		return settlement
	case settlement == nil:
		return work
	}
	return fmt.Errorf("%w; %w", work, settlement)
}
