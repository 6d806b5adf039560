// Package choice checks what every guard leaves to its caller to choose.
package choice

import "github.com/earmark-dev/earmark"

// CheckOnExpiry refuses a guarded request without an expiry policy: by the API's
// default, release, a run that dies after the model was called is free.
func CheckOnExpiry(request earmark.ReservationRequest) error {
	if request.OnExpiry != "" {
		return nil
	}
	return earmark.Invalidf("on_expiry", "is missing; a guard needs %q (a run that dies is charged what it reserved), %q (it is free) or %q (a person decides)",
		earmark.OnExpiryCommit, earmark.OnExpiryRelease, earmark.OnExpiryReview)
}
