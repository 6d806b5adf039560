package earmark

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// How a usage report divides what a budget was charged. MetadataKey makes UsageByMetadata
// complete.
const (
	UsageByHour     = "hour" // in the budget's time zone
	UsageByDay      = "day"  // in the budget's time zone
	UsageByScope    = "scope"
	UsageByMetadata = "metadata." // and a key
)

// Bounds of a usage report.
const (
	// MaxUsageRange is the longest time from From to To.
	MaxUsageRange = 400 * 24 * time.Hour
	// DefaultUsageRange is the time up to now that a report covers where the present window is
	// longer than MaxUsageRange, or never ends.
	DefaultUsageRange = 30 * 24 * time.Hour
)

// UsageQuery selects what a usage report covers. Without From and To it is the present
// window, or the last 30 days of a budget without an end or with one of more than 400 days.
type UsageQuery struct {
	From *time.Time // with To
	To   *time.Time // the first moment after it
	By   string     // empty: UsageByDay
}

// WithDefaults fills By.
func (q UsageQuery) WithDefaults() UsageQuery {
	if q.By == "" {
		q.By = UsageByDay
	}
	return q
}

// Validate checks a query whose defaults are filled. The error is CodeInvalidRequest and
// names the field.
func (q UsageQuery) Validate() error {
	switch key, metadata := strings.CutPrefix(q.By, UsageByMetadata); {
	case metadata && key == "":
		return Invalidf("by", "%q lacks the key; give one such as metadata.feature", q.By)
	case metadata && (len(key) > MaxMetadataBytes || strings.ContainsRune(key, 0) || !utf8.ValidString(key)):
		return Invalidf("by", "names no metadata key: a key has 1 to %d bytes of UTF-8, none of them 0", MaxMetadataBytes)
	case !metadata && q.By != UsageByHour && q.By != UsageByDay && q.By != UsageByScope:
		return Invalidf("by", "%q is not allowed; use one of hour, day, scope, metadata.KEY", Clip(q.By))
	}
	switch {
	case q.From == nil && q.To == nil:
		return nil
	case q.From == nil:
		return Invalidf("from", "is missing; give it with to")
	case q.To == nil:
		return Invalidf("to", "is missing; give it with from")
	case !q.From.Before(*q.To):
		return Invalidf("to", "%s is not after from, which is %s", q.To.Format(time.RFC3339), q.From.Format(time.RFC3339))
	case q.To.Sub(*q.From) > MaxUsageRange:
		return Invalidf("to", "is more than %d days after from", MaxUsageRange/(24*time.Hour))
	}
	return cmp.Or(ValidateTime("from", *q.From), ValidateTime("to", *q.To))
}

// UsageReport is what a budget was charged over time, in the budget's unit. It is exact at
// the moment of the answer: for a window as a whole, Total is the window's committed.
type UsageReport struct {
	BudgetID string      `json:"budget_id"`
	Unit     string      `json:"unit"`
	From     time.Time   `json:"from"` // moved outwards, to where a part begins
	To       time.Time   `json:"to"`   // moved outwards, to where a part ends
	By       string      `json:"by"`
	Timezone string      `json:"timezone"` // of hours and days
	Data     []UsagePart `json:"data"`     // hours and days in their order; values by committed, the largest first
	Total    UsageSum    `json:"total"`    // of Data
	Balance  Balance     `json:"balance"`  // of the present window, whatever From and To are
}

// UsagePart is one hour or day of a report, or one scope or metadata value. Hours and days
// without a charge are left out.
type UsagePart struct {
	Start *time.Time `json:"start"` // null for a scope or a value
	End   *time.Time `json:"end"`   // null for a scope or a value
	// Value is the scope or the value. It is null for hours and days, for Other, and for what
	// was charged without such a metadata key.
	Value *string `json:"value"`
	// Other says that this is the sum of all values that have no part of their own.
	Other bool `json:"other"`
	UsageSum
}

// UsageSum is what was charged.
type UsageSum struct {
	Committed int64 `json:"committed"` // negative if corrections gave back more than was charged
	Charges   int64 `json:"charges"`   // journal entries that changed committed: charges, late usage, corrections
}

// CSV returns the report's parts with a line of titles. A value's kind says what an empty
// value means: the value "", none, or the sum of all others.
func (r *UsageReport) CSV() []byte {
	var text bytes.Buffer
	w := csv.NewWriter(&text)
	sums := func(s UsageSum) []string {
		return []string{strconv.FormatInt(s.Committed, 10), strconv.FormatInt(s.Charges, 10)}
	}
	titles := []string{"kind", "value"}
	if r.By == UsageByHour || r.By == UsageByDay {
		titles = []string{"start", "end"}
	}
	_ = w.Write(append(titles, "committed", "charges")) // a buffer refuses nothing
	for _, part := range r.Data {
		names := []string{"none", ""}
		switch {
		case part.Start != nil && part.End != nil:
			names = []string{part.Start.Format(time.RFC3339), part.End.Format(time.RFC3339)}
		case part.Other:
			names = []string{"other", ""}
		case part.Value != nil:
			names = []string{"value", csvText(*part.Value)}
		}
		_ = w.Write(append(names, sums(part.UsageSum)...))
	}
	w.Flush()
	return text.Bytes()
}

// csvText makes control characters visible, and puts an apostrophe before a text that a
// spreadsheet would take for a formula: metadata come from callers.
func csvText(text string) string {
	text = VisibleText(text)
	if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return "'" + text
	}
	return text
}
