package earmark

import (
	"fmt"
	"slices"
)

// MaxThresholds bounds the thresholds of a budget.
const MaxThresholds = 20

// What a threshold is compared with.
const (
	ThresholdOfCommitted = "committed" // what was spent
	ThresholdOfUsed      = "used"      // committed + reserved
)

// Threshold is a part of a budget's limit; an event is written when the balance reaches it, once a window. It has
// either Percent or Amount.
type Threshold struct {
	Percent int64  `json:"percent,omitempty"` // of the limit, 1 to 100
	Amount  int64  `json:"amount,omitempty"`  // in the budget's unit, from 1
	Of      string `json:"of"`                // ThresholdOfCommitted or ThresholdOfUsed
}

// NoRollingThresholds refuses thresholds of a rolling budget: a part of its limit is reached
// again and again while amounts leave the window.
func NoRollingThresholds() error {
	return Invalidf("thresholds", "are not for a rolling window")
}

// ValidateThresholds checks thresholds. The error is CodeInvalidRequest and names the field.
func ValidateThresholds(field string, thresholds []Threshold) error {
	if len(thresholds) > MaxThresholds {
		return Invalidf(field, "are %d; at most %d are allowed", len(thresholds), MaxThresholds)
	}
	for i, t := range thresholds {
		at := fmt.Sprintf("%s[%d]", field, i)
		switch {
		case (t.Percent == 0) == (t.Amount == 0):
			return Invalidf(at, "give either percent, from 1 to 100, or amount, from 1")
		case t.Percent < 0, t.Percent > 100:
			return Invalidf(at+".percent", "%d is out of range: 1 to 100 are allowed", t.Percent)
		case t.Amount < 0:
			return Invalidf(at+".amount", "%d is negative; whole numbers from 1 are allowed", t.Amount)
		}
		if err := oneOf(at+".of", t.Of, ThresholdOfCommitted, ThresholdOfUsed); err != nil {
			return err
		}
		if slices.Contains(thresholds[:i], t) {
			return Invalidf(at, "is given twice")
		}
	}
	return nil
}
