// Package choice checks the choices that a guarded request must make.
package choice

import "github.com/earmark-dev/earmark"

// CheckOnExpiry refuses a guarded request without an expiry policy: with release, the API's
// default, a run that dies after it called the model would be free.
func CheckOnExpiry(request earmark.ReservationRequest) error {
	if request.OnExpiry != "" {
		return nil
	}
	return earmark.Invalidf("on_expiry", "is missing; a guard needs %q (a run that dies is charged what it reserved), %q (it is free) or %q (a person decides)",
		earmark.OnExpiryCommit, earmark.OnExpiryRelease, earmark.OnExpiryReview)
}
