package metrics

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/postgres"
)

const shown = `
# HELP earmark_held_amount What open reservations set aside, in the whole ledger, in the unit of the label.
# TYPE earmark_held_amount gauge
earmark_held_amount{unit="tokens"} 1200
# HELP earmark_ledger_up 1 if Postgres answered the gauges of the ledger, else 0; then they are absent.
# TYPE earmark_ledger_up gauge
earmark_ledger_up 1
# HELP earmark_most_overdue_seconds How long the most overdue reservation is past its expiry, in seconds; 0 without any.
# TYPE earmark_most_overdue_seconds gauge
earmark_most_overdue_seconds 1.5
# HELP earmark_oldest_hold_age_seconds Seconds since the oldest open reservation was made; 0 without any.
# TYPE earmark_oldest_hold_age_seconds gauge
earmark_oldest_hold_age_seconds 60
# HELP earmark_open_reservations Reservations that set budget aside, in the whole ledger, by state.
# TYPE earmark_open_reservations gauge
earmark_open_reservations{state="held"} 3
earmark_open_reservations{state="review"} 2
# HELP earmark_orphan_reservations Open reservations that no open workflow was found to guard, in the whole ledger.
# TYPE earmark_orphan_reservations gauge
earmark_orphan_reservations 1
# HELP earmark_overdue_reservations Held reservations past their expiry, in the whole ledger.
# TYPE earmark_overdue_reservations gauge
earmark_overdue_reservations 1
`

const notShown = `
# HELP earmark_ledger_up 1 if Postgres answered the gauges of the ledger, else 0; then they are absent.
# TYPE earmark_ledger_up gauge
earmark_ledger_up 0
`

// What cannot be read is absent, and what was read before is not shown in its place.
func TestHoldsAreFreshOrAbsent(t *testing.T) {
	t.Parallel()
	var fault error
	reads := 0
	h := newHolds(func(ctx context.Context) (postgres.Holds, error) {
		reads++
		_, bounded := ctx.Deadline()
		require.True(t, bounded)
		return postgres.Holds{Held: 3, Review: 2, Orphans: 1, Overdue: 1, OldestAge: time.Minute, MostOverdue: 1500 * time.Millisecond,
			Amounts: map[string]float64{"tokens": 1200}}, fault
	}, &unitLabels{})
	require.NoError(t, testutil.CollectAndCompare(h, strings.NewReader(shown)))
	fault = errors.New("away")
	require.NoError(t, testutil.CollectAndCompare(h, strings.NewReader(shown)))
	require.Equal(t, 1, reads, "a moment later it is not read again")

	h.readAt = h.readAt.Add(-holdsMaxAge)
	require.NoError(t, testutil.CollectAndCompare(h, strings.NewReader(notShown)))
	fault = nil
	require.NoError(t, testutil.CollectAndCompare(h, strings.NewReader(notShown)))
	require.Equal(t, 2, reads, "one in trouble is not asked more often")

	h.readAt = h.readAt.Add(-holdsMaxAge)
	require.NoError(t, testutil.CollectAndCompare(h, strings.NewReader(shown)))
}

func TestUnitsPastTheBoundShareALabel(t *testing.T) {
	t.Parallel()
	var units unitLabels
	for i := range maxUnits {
		name := fmt.Sprint("unit", i)
		require.Equal(t, name, units.label(name))
	}
	require.Equal(t, otherUnits, units.label("one_more"))
	require.Equal(t, otherUnits, units.label("and_more"))
	require.Equal(t, "unit0", units.label("unit0"), "the first ones keep theirs")

	amounts := map[string]float64{"a": 5, "b": 6, "unit0": 1}
	h := newHolds(func(context.Context) (postgres.Holds, error) { return postgres.Holds{Amounts: amounts}, nil }, &units)
	require.NoError(t, testutil.CollectAndCompare(h, strings.NewReader(`
# HELP earmark_held_amount What open reservations set aside, in the whole ledger, in the unit of the label.
# TYPE earmark_held_amount gauge
earmark_held_amount{unit="other"} 11
earmark_held_amount{unit="unit0"} 1
`), "earmark_held_amount"))
}
