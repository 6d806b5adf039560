package client

import (
	"errors"
	"fmt"

	"github.com/earmark-dev/earmark"
)

// What a guarded run wanted to do when it could not settle.
const (
	verbCommit  = "commit"
	verbRelease = "release"
)

var (
	// ErrNothingSent is how the work of Do and DoStream says that no request went
	// out, so that nothing can have been spent. Nothing else gives budget back
	// before the lease runs out. See NothingSent.
	ErrNothingSent = errors.New("nothing was sent")

	// ErrUsageUnknown is why a reservation is left to its expiry policy: the work
	// failed, or ended, without saying what it used, and did not say that nothing
	// was sent.
	ErrUsageUnknown = errors.New("what was used is not known")

	// ErrKeyInUse is why Do and DoStream did not begin: another run with the same
	// key holds its reservation, or held it when it died. Two runs would share one
	// reservation, and only one of them would be charged.
	ErrKeyInUse = errors.New("another run with this key holds its reservation")
)

// NothingSent marks err: no request went out, and the reservation may be given
// back. Use it only where that is certain, such as when a prompt was refused before
// it was sent. A timeout is no such case.
func NothingSent(err error) error {
	if err == nil {
		return ErrNothingSent
	}
	return fmt.Errorf("%w: %w", ErrNothingSent, err)
}

// UnsettledError says that a run is over and its reservation is not settled, or is
// not known to be. It says nothing about the work itself, whose result stands.
type UnsettledError struct {
	ReservationID string
	// Verb is what was tried, "commit" or "release"; empty where nothing was,
	// because the usage is not known.
	Verb string
	// Usage is what a commit was to charge, else nil.
	Usage earmark.Amounts
	// OnExpiry is what happens to the reservation when its lease runs out, as Earmark
	// last said: the request's own, and OnExpiryReview after CodeOverageRejected.
	OnExpiry earmark.OnExpiry
	// Err is ErrUsageUnknown or an *earmark.Error.
	Err error
}

// Refused reports whether Earmark answered with a no, such as CodeOverageRejected,
// CodeAlreadySettled or CodeNotFound: nothing was charged by this run, and trying again will not
// help. Otherwise a commit or release that was tried may have landed or not, and it
// is safe to send again: Commit with the same ReservationID and Usage.
func (e *UnsettledError) Refused() bool {
	if e.Verb == "" || errors.Is(e.Err, errForeign) {
		return false
	}
	switch earmark.ErrorCode(e.Err) {
	case earmark.CodeUnavailable, earmark.CodeAdmissionUnknown, earmark.CodeInternal:
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
		return fmt.Sprintf("reservation %s: %s were not charged: %v", e.ReservationID, e.Usage, e.Err)
	case e.Refused():
		return fmt.Sprintf("reservation %s was not released: %v", e.ReservationID, e.Err)
	case e.Verb == verbCommit:
		return fmt.Sprintf("reservation %s: it is not known whether %s were charged: %v", e.ReservationID, e.Usage, e.Err)
	}
	return fmt.Sprintf("reservation %s: it is not known whether it was released: %v", e.ReservationID, e.Err)
}

// Unwrap returns Err.
func (e *UnsettledError) Unwrap() error { return e.Err }

// bothErrors keeps the work's error and the settlement's, so that errors.Is and
// errors.As find either.
func bothErrors(work, settlement error) error {
	switch {
	case work == nil:
		return settlement
	case settlement == nil:
		return work
	}
	return fmt.Errorf("%w; %w", work, settlement)
}
