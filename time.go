package earmark

import "time"

// The years of the times that Earmark takes. What is computed from such a time, the end of a window or nanoseconds since
// 1970, can still be stored and written.
const (
	minYear = 1970
	maxYear = 2199
)

// ParseTime reads a time in RFC 3339 in the years 1970 to 2199. The error is CodeInvalidRequest and names field.
func ParseTime(field, text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, Invalidf(field, "%q is not a time such as 2027-01-31T00:00:00Z", Clip(text))
	}
	return at, ValidateTime(field, at)
}

// ValidateTime refuses a time that is not in the years 1970 to 2199. The error is CodeInvalidRequest and names field.
func ValidateTime(field string, at time.Time) error {
	if year := at.UTC().Year(); year < minYear || year > maxYear {
		return Invalidf(field, "%s is out of range: the years %d to %d are allowed", at.Format(time.RFC3339), minYear, maxYear)
	}
	return nil
}
