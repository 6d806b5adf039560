package earmark

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// MaxUnits is the largest number of units that one reservation may name.
const MaxUnits = 8

// Amounts maps a unit, such as "tokens" or "usd_micros", to a whole number of that unit.
// Money is counted in its smallest unit; there are no fractions.
type Amounts map[string]int64

var unitPattern = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)

// Units returns the units of a, sorted.
//
//workflowcheck:ignore the result does not depend on the order of the map: it is sorted
func (a Amounts) Units() []string {
	return slices.Sorted(maps.Keys(a))
}

// Equal reports whether a and b have the same units with the same amounts.
func (a Amounts) Equal(b Amounts) bool {
	return maps.Equal(a, b)
}

// String returns the amounts for people, sorted by unit, such as "1 request + 1,200
// tokens".
func (a Amounts) String() string {
	parts := make([]string, 0, len(a))
	for _, unit := range a.Units() {
		parts = append(parts, FormatQuantity(a[unit], unit))
	}
	return strings.Join(parts, " + ")
}

// plurals are the words whose last letter FormatQuantity drops for one of them: "1
// request". It shows other units, such as "usd_micros" or "gas", as their budgets name
// them.
var plurals = []string{"calls", "characters", "images", "messages", "minutes", "pages", "requests", "seconds", "tokens"}

// FormatQuantity returns n of a unit for people, such as "1 request" or "1,200
// input_tokens".
func FormatQuantity(n int64, unit string) string {
	if n == 1 && slices.Contains(plurals, unit[strings.LastIndexByte(unit, '_')+1:]) {
		unit = strings.TrimSuffix(unit, "s")
	}
	return FormatAmount(n) + " " + unit
}

// FormatAmount returns n with a comma between groups of three digits.
func FormatAmount(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if digits[0] == '-' {
		sign, digits = "-", digits[1:]
	}
	var grouped strings.Builder
	for i, digit := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			grouped.WriteByte(',')
		}
		grouped.WriteRune(digit)
	}
	return sign + grouped.String()
}

// ValidateUnit checks the form of a unit; field names the input in the error, which is
// CodeInvalidRequest.
func ValidateUnit(field, unit string) error {
	if !unitPattern.MatchString(unit) {
		return Invalidf(field, "%q is not a unit: a unit starts with a letter a-z and has at most 32 of a-z, 0-9 and _", Clip(unit))
	}
	return nil
}

// validateAmounts checks rule R8 (amounts): at least one unit, at most MaxUnits, no amount
// below 0. An amount may be 0: a request that is free in usd_micros may still count tokens.
func validateAmounts(field string, amounts Amounts) error {
	if err := validateUnits(field, amounts); err != nil {
		return err
	}
	for _, unit := range amounts.Units() {
		if amounts[unit] < 0 {
			return Invalidf(field+"."+unit, "%d is too small: whole numbers from 0 are allowed", amounts[unit])
		}
	}
	return nil
}

func validateUnits(field string, amounts Amounts) error {
	if len(amounts) == 0 {
		return Invalidf(field, "name at least one unit, such as {\"tokens\": 1200}")
	}
	if len(amounts) > MaxUnits {
		return Invalidf(field, "%d units are named; at most %d are allowed", len(amounts), MaxUnits)
	}
	for _, unit := range amounts.Units() {
		if err := ValidateUnit(field, unit); err != nil {
			return err
		}
	}
	return nil
}

// ValidateUsage checks that usage has at least one unit and no negative amount (rule R8).
// The error is CodeInvalidRequest. The ledger checks that the units are exactly the
// reserved ones, because only it knows them.
func ValidateUsage(usage Amounts) error {
	return validateAmounts("usage", usage)
}
