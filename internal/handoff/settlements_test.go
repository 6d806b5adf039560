package handoff

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

var usage = earmark.Amounts{"tokens": 5, "usd_micros": 7}

func asked(id, attempt string) earmark.Transition {
	return earmark.Transition{ID: id, Attempt: attempt}
}

func answered(outcome earmark.Outcome) earmark.Result {
	return earmark.Result{Outcome: outcome, Reservation: &earmark.Reservation{}}
}

// What was applied once is the answer to every equal settlement, and to no other.
func TestSettlementAppliedReachesAllWaiters(t *testing.T) {
	t.Parallel()
	for _, outcome := range []earmark.Outcome{earmark.OutcomeApplied, earmark.OutcomeSame} {
		var x Exchange
		first, stopFirst := x.AwaitSettlement(asked("one", "a"), usage)
		second, stopSecond := x.AwaitSettlement(asked("one", "b"), usage)
		differs, stopDiffers := x.AwaitSettlement(asked("one", "c"), earmark.Amounts{"tokens": 6, "usd_micros": 7})
		fewer, stopFewer := x.AwaitSettlement(asked("one", "d"), earmark.Amounts{"tokens": 5})
		release, stopRelease := x.AwaitSettlement(asked("one", ""), nil)
		other, stopOther := x.AwaitSettlement(asked("two", "a"), usage)
		for range 2 { // an activity that runs again does not wait for a receiver
			x.DeliverSettlement(asked("one", "a"), usage, answered(outcome))
		}
		require.Equal(t, outcome, heard(t, first))
		require.Equal(t, outcome, heard(t, second))
		for _, none := range []<-chan earmark.Result{differs, fewer, release, other} {
			require.Empty(t, heard(t, none))
		}
		x.DeliverSettlement(asked("one", ""), nil, answered(outcome))
		require.Equal(t, outcome, heard(t, release))
		for _, stop := range []func(){stopFirst, stopSecond, stopDiffers, stopFewer, stopRelease, stopOther} {
			require.NotEmpty(t, x.settlements)
			stop()
			stop() // twice does no harm
		}
		require.Empty(t, x.settlements)
	}
}

// The ledger refuses one attempt: another one with the same usage may still be applied,
// so that its caller must not be answered with this refusal.
func TestSettlementRefusalReachesItsAttemptAlone(t *testing.T) {
	t.Parallel()
	for _, outcome := range []earmark.Outcome{
		earmark.OutcomeOverageRejected, earmark.OutcomeConflict, earmark.OutcomeUnitsMismatch, earmark.OutcomeOverflow, earmark.OutcomeExpired,
	} {
		t.Run(string(outcome), func(t *testing.T) {
			t.Parallel()
			var x Exchange
			mine, stopMine := x.AwaitSettlement(asked("one", "a"), usage)
			defer stopMine()
			others, stopOthers := x.AwaitSettlement(asked("one", "b"), usage)
			defer stopOthers()
			unnamed, stopUnnamed := x.AwaitSettlement(asked("one", ""), usage)
			defer stopUnnamed()
			x.DeliverSettlement(asked("one", "a"), usage, answered(outcome))
			x.DeliverSettlement(asked("one", ""), usage, answered(outcome)) // as of a signal from another language
			require.Equal(t, outcome, heard(t, mine))
			require.Empty(t, heard(t, others))
			require.Empty(t, heard(t, unnamed))
		})
	}
}

// Usage without a row is not resolved yet: the workflow charges it otherwise.
func TestSettlementWithoutARowIsNotDelivered(t *testing.T) {
	t.Parallel()
	var x Exchange
	answer, stop := x.AwaitSettlement(asked("one", "a"), usage)
	defer stop()
	x.DeliverSettlement(asked("one", "a"), usage, earmark.Result{Outcome: earmark.OutcomeUnknown})
	require.Empty(t, heard(t, answer))

	var none *Exchange
	answer, stop = none.AwaitSettlement(asked("one", "a"), nil)
	stop()
	require.Nil(t, answer)
	none.DeliverSettlement(asked("one", "a"), nil, answered(earmark.OutcomeApplied))
}
