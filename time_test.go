package earmark_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func TestTimesAreInARangeThatCanBeStored(t *testing.T) {
	t.Parallel()
	for text, accepted := range map[string]bool{
		"1970-01-01T00:00:00Z": true, "2199-12-31T23:59:59.999999Z": true, "2200-01-01T00:30:00+01:00": true,
		"1969-12-31T23:59:59Z": false, "2200-01-01T00:00:00Z": false, "2199-12-31T23:30:00-01:00": false,
		"9999-12-31T23:59:59-12:00": false, "0000-01-01T00:00:00Z": false, "0001-01-01T00:00:00+14:00": false, "2027-01-31": false, "": false,
	} {
		at, err := earmark.ParseTime("expires_at", text)
		if accepted {
			require.NoError(t, err, text)
			require.False(t, at.IsZero())
			continue
		}
		var refused *earmark.Error
		require.ErrorAs(t, err, &refused, text)
		require.Equal(t, "expires_at", refused.Field)
	}
	last := time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
	query := earmark.UsageQuery{From: new(last.Add(-time.Hour)), To: &last, By: earmark.UsageByDay}
	require.ErrorContains(t, query.Validate(), "to: 2200-01-01T00:00:00Z is out of range: the years 1970 to 2199 are allowed")
}
