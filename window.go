package earmark

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Bounds of a window's settings.
const (
	// MaxEvery is how many periods a window may have.
	MaxEvery = 1000
	// MaxRollingSeconds is the length of the longest rolling window, 366 days.
	MaxRollingSeconds = 366 * 24 * 60 * 60
	// RollingSlices is how many slices a rolling window has: an amount counts for its
	// length, and for at most one slice longer.
	RollingSlices = 60
)

// AnchorLayout is the form of an anchor, for time.Parse.
const AnchorLayout = "2006-01-02T15:04"

var anchorForm = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}$`)

// Window is what a limit is for: one period or several of them, in an IANA time zone; or
// the last seconds at any time.
type Window struct {
	Period Period `json:"period"`
	// Timezone is UTC or a name of the form Area/City, such as Europe/Berlin.
	Timezone string `json:"timezone,omitempty"`
	// Every is how many periods one window has, up to MaxEvery; 0 means 1, and a budget
	// shows 1 as 0.
	Every int64 `json:"every,omitempty"`
	// Anchor is the start of one window, before or after the current one, in local time and
	// of the form of AnchorLayout. Windows start at its time of day, and at its weekday, its
	// day of the month, or its date. A month without that day takes its last one. "" means
	// 2001-01-01T00:00, a Monday.
	Anchor string `json:"anchor,omitempty"`
	// RollingSeconds is the length of a rolling window, in seconds: whole minutes up to
	// MaxRollingSeconds. It is only for PeriodRolling.
	RollingSeconds int64 `json:"rolling_seconds,omitempty"`
}

// Length returns the length in words: month, 2 weeks, rolling 5h.
func (w Window) Length() string {
	switch {
	case w.Period == PeriodRolling:
		length := (time.Duration(w.RollingSeconds) * time.Second).String()
		length = strings.TrimSuffix(length, "0s") // whole minutes
		if strings.HasSuffix(length, "h0m") {
			length = strings.TrimSuffix(length, "0m")
		}
		return "rolling " + length
	case w.Every > 1:
		return fmt.Sprintf("%d %ss", w.Every, w.Period)
	}
	return string(w.Period)
}

// validate checks a window whose defaults are filled.
func (w Window) validate() error {
	if err := oneOf("window.period", w.Period, Periods...); err != nil {
		return err
	}
	if err := ValidateTimezone("window.timezone", w.Timezone); err != nil {
		return err
	}
	switch {
	case w.Every < 1 || w.Every > MaxEvery:
		return Invalidf("window.every", "%d is out of range: 1 to %d are allowed", w.Every, MaxEvery)
	case w.Every > 1 && w.Period == PeriodLifetime:
		return Invalidf("window.every", "is not for the period lifetime, which never ends")
	case w.Every > 1 && w.Period == PeriodRolling:
		return Invalidf("window.every", "is not for the period rolling; give its length in rolling_seconds")
	case w.Anchor != "" && w.Period == PeriodRolling:
		return Invalidf("window.anchor", "is not for the period rolling, which has no start")
	case w.Period == PeriodRolling && (w.RollingSeconds < RollingSlices || w.RollingSeconds > MaxRollingSeconds || w.RollingSeconds%RollingSlices != 0):
		return Invalidf("window.rolling_seconds", "%d is not allowed: use whole minutes from %d to %d seconds", w.RollingSeconds, RollingSlices, MaxRollingSeconds)
	case w.Period != PeriodRolling && w.RollingSeconds != 0:
		return Invalidf("window.rolling_seconds", "is only for the period rolling")
	case w.Anchor == "":
		return nil
	case w.Period == PeriodLifetime:
		return Invalidf("window.anchor", "is not for the period lifetime, which never starts again")
	}
	return validateAnchor("window.anchor", w.Anchor)
}

func validateAnchor(field, anchor string) error {
	if !anchorForm.MatchString(anchor) {
		return Invalidf(field, "%q is not a local time of the form 2026-01-31T09:00, without seconds and offset", Clip(anchor))
	}
	at, err := time.Parse(AnchorLayout, anchor)
	if err != nil {
		return Invalidf(field, "%q is in no calendar", anchor)
	}
	if at.Year() < minYear || at.Year() > maxYear {
		return Invalidf(field, "%q is out of range: the years %d to %d are allowed", anchor, minYear, maxYear)
	}
	return nil
}
