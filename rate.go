package earmark

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MaxRateCalls bounds the calls of a rate.
const MaxRateCalls = 1_000_000

// Rate is how many calls a key may make in a time. Its text, also in JSON, is "50/s" or
// "3000/m"; the zero Rate sets no bound, and its text is empty.
type Rate struct {
	Calls  int           // 1 to MaxRateCalls
	Window time.Duration // a second or a minute
}

var rateWindows = map[string]time.Duration{"s": time.Second, "m": time.Minute}

// ParseRate reads the text of a rate. The error is CodeInvalidRequest and names the field "rate".
func ParseRate(text string) (Rate, error) {
	if text == "" {
		return Rate{}, nil
	}
	calls, unit, _ := strings.Cut(text, "/")
	n, err := strconv.ParseUint(calls, 10, 31)
	rate := Rate{Calls: int(n), Window: rateWindows[unit]}
	if err != nil || rate.String() != text || rate.validate() != nil {
		return Rate{}, Invalidf("rate", "%q is not a rate: write the calls a second or a minute, such as 50/s or 3000/m; 1 to %d calls are allowed", Clip(text), MaxRateCalls)
	}
	return rate, nil
}

func (r Rate) validate() error {
	if r == (Rate{}) || r.Calls >= 1 && r.Calls <= MaxRateCalls && (r.Window == time.Second || r.Window == time.Minute) {
		return nil
	}
	return Invalidf("rate", "%d calls in %s are out of range: 1 to %d calls a second or a minute are allowed", r.Calls, r.Window, MaxRateCalls)
}

// String returns the rate as ParseRate reads it.
func (r Rate) String() string {
	if r == (Rate{}) {
		return ""
	}
	unit := "s"
	if r.Window == time.Minute {
		unit = "m"
	}
	return fmt.Sprintf("%d/%s", r.Calls, unit)
}

// MarshalText is String.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is ParseRate.
func (r *Rate) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRate(string(text))
	return err
}
