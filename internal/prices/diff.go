package prices

import (
	"cmp"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/earmark-dev/earmark/pricing"
)

// Difference is one rate that differs between two sets of entries.
type Difference struct {
	Provider string `json:"provider"`
	Model    string `json:"model"`
	// Part is the part whose rate differs; "other" for tiers, variants and names.
	Part pricing.Part `json:"part"`
	// Before and After are US dollars for one unit; null where there is no rate.
	Before *pricing.Decimal `json:"before_usd"`
	After  *pricing.Decimal `json:"after_usd"`
	// Percent is the change, rounded to a tenth, with its sign; empty where one of the two is
	// missing or Before is 0.
	Percent string `json:"percent,omitempty"`
}

// Other is the part of a difference that is not in the rates of a whole request.
const Other pricing.Part = "other"

// Diff returns how the rates at a moment differ, by provider, model and part.
func Diff(before, after []pricing.Entry, at time.Time) []Difference {
	old, now := holdingAt(before, at), holdingAt(after, at)
	var all []Difference
	for model, e := range now {
		all = append(all, compare(old[model], e)...)
	}
	for model, e := range old {
		if now[model] == nil {
			all = append(all, compare(e, nil)...)
		}
	}
	slices.SortFunc(all, func(a, b Difference) int {
		return cmp.Or(strings.Compare(a.Provider, b.Provider), strings.Compare(a.Model, b.Model), strings.Compare(string(a.Part), string(b.Part)))
	})
	return all
}

func holdingAt(entries []pricing.Entry, at time.Time) map[Model]*pricing.Entry {
	found := map[Model]*pricing.Entry{}
	for model, all := range byModel(entries) {
		if e := holding(all, at); e != nil {
			found[model] = e
		}
	}
	return found
}

// compare returns the differences between two entries of a model; either may be nil.
func compare(before, after *pricing.Entry) (all []Difference) {
	one := before
	if after != nil {
		one = after
	}
	parts := map[pricing.Part]bool{}
	for _, e := range []*pricing.Entry{before, after} {
		if e != nil {
			for part, rate := range e.Rates {
				if rate.As == "" { // others change with the part that they name
					parts[part] = true
				}
			}
		}
	}
	for part := range parts {
		d := Difference{Provider: one.Provider, Model: one.Model, Part: part, Before: rateOf(before, part), After: rateOf(after, part)}
		if d.Before != nil && d.After != nil {
			if *d.Before == *d.After {
				continue
			}
			d.Percent = percent(*d.Before, *d.After)
		}
		all = append(all, d)
	}
	if len(all) == 0 && before != nil && after != nil && meaning(*before) != meaning(*after) {
		all = append(all, Difference{Provider: one.Provider, Model: one.Model, Part: Other})
	}
	return all
}

// rateOf returns the rate of a part; nil if there is none.
func rateOf(e *pricing.Entry, part pricing.Part) *pricing.Decimal {
	if e == nil {
		return nil
	}
	rate, found := e.Rates[part]
	if found && rate.As != "" {
		rate, found = e.Rates[rate.As]
	}
	if !found {
		return nil
	}
	return &rate.USD
}

func percent(before, after pricing.Decimal) string {
	if before.IsZero() {
		return ""
	}
	ratio := new(big.Rat).Quo(after.Rat(), before.Rat())
	change := ratio.Sub(ratio, big.NewRat(1, 1))
	text := change.Mul(change, big.NewRat(100, 1)).FloatString(1)
	if change.Sign() > 0 {
		text = "+" + text
	}
	return text
}
