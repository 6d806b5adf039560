package earmark

import "slices"

// MaxRolloverWindows is how many windows may use what an earlier one left.
const MaxRolloverWindows = 12

// Rollover says how much of what a window leaves of its limit the next ones may use: it becomes a grant.
type Rollover struct {
	Max      int64  `json:"max"`                 // of each window, from 1
	MaxTotal *int64 `json:"max_total,omitempty"` // of all that is left of such grants, from Max; null: no bound
	Windows  int64  `json:"windows,omitempty"`   // after how many windows it expires, to MaxRolloverWindows; 0: 1
}

// WithDefaults fills a missing number of windows.
func (r Rollover) WithDefaults() Rollover {
	if r.Windows == 0 {
		r.Windows = 1
	}
	return r
}

func (r *Rollover) withDefaults() *Rollover {
	if r == nil {
		return nil
	}
	return new(r.WithDefaults())
}

// Equal reports whether both roll the same over; nil is nothing.
func (r *Rollover) Equal(other *Rollover) bool {
	if r == nil || other == nil {
		return r == other
	}
	a, b := r.withDefaults(), other.withDefaults()
	return a.Max == b.Max && a.Windows == b.Windows && (a.MaxTotal == nil) == (b.MaxTotal == nil) && (a.MaxTotal == nil || *a.MaxTotal == *b.MaxTotal)
}

var rolloverPeriods = []Period{PeriodDay, PeriodWeek, PeriodMonth, PeriodYear}

func validateRollover(r *Rollover, period Period) error {
	switch {
	case r == nil:
		return nil
	case r.Max < 1:
		return Invalidf("rollover.max", "is missing or not above 0; give a whole number from 1, such as half of the limit, or no rollover")
	case r.MaxTotal != nil && *r.MaxTotal < r.Max:
		return Invalidf("rollover.max_total", "%d is below rollover.max %d; give at least that, or leave it out", *r.MaxTotal, r.Max)
	case r.Windows < 1 || r.Windows > MaxRolloverWindows:
		return Invalidf("rollover.windows", "%d is out of range: 1 to %d are allowed", r.Windows, MaxRolloverWindows)
	case period != "" && !slices.Contains(rolloverPeriods, period):
		return Invalidf("rollover", "is not for the period %s; only windows of a day, week, month or year, or of several, roll over", period)
	}
	return nil
}
