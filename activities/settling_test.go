package activities

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func TestSettlementsTellAllWhoWait(t *testing.T) {
	t.Parallel()
	l := &ledger{result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: &earmark.Reservation{}}}
	r := &Reservations{Ledger: l, Admissions: &Admissions{}}
	mine, usage := earmark.Settlement{ID: "one"}, earmark.Amounts{"tokens": 5}
	first, stopFirst := r.Admissions.WaitSettled(mine, usage)
	second, stopSecond := r.Admissions.WaitSettled(mine, usage)
	differs, stopDiffers := r.Admissions.WaitSettled(mine, earmark.Amounts{"tokens": 6})
	release, stopRelease := r.Admissions.WaitSettled(mine, nil)
	other, stopOther := r.Admissions.WaitSettled(earmark.Settlement{ID: "two"}, usage)

	for range 2 { // an activity that runs again does not wait for those who have their answer
		_, err := r.Commit(t.Context(), CommitInput{Settlement: mine, Usage: usage})
		require.NoError(t, err)
	}
	require.Equal(t, earmark.OutcomeApplied, heard(t, first))
	require.Equal(t, earmark.OutcomeApplied, heard(t, second))
	require.Empty(t, heard(t, differs))
	require.Empty(t, heard(t, release))
	require.Empty(t, heard(t, other))
	_, err := r.Release(t.Context(), mine)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, heard(t, release))
	for _, stop := range []func(){stopFirst, stopSecond, stopDiffers, stopRelease, stopOther} {
		require.NotEmpty(t, r.Admissions.settling)
		stop()
		stop() // twice does no harm
	}
	require.Empty(t, r.Admissions.settling)
}

// Usage without a row is not at its end: the workflow charges it otherwise.
func TestSettlementsDoNotTellWhatFoundNoRow(t *testing.T) {
	t.Parallel()
	r := &Reservations{Ledger: &ledger{result: earmark.Result{Outcome: earmark.OutcomeUnknown}}, Admissions: &Admissions{}}
	answer, stop := r.Admissions.WaitSettled(earmark.Settlement{ID: "one"}, earmark.Amounts{"tokens": 5})
	defer stop()
	_, err := r.Commit(t.Context(), CommitInput{Settlement: earmark.Settlement{ID: "one"}, Usage: earmark.Amounts{"tokens": 5}})
	require.NoError(t, err)
	require.Empty(t, heard(t, answer))

	var none *Admissions
	answer, stop = none.WaitSettled(earmark.Settlement{ID: "one"}, nil)
	stop()
	require.Nil(t, answer)
	none.settled(settlingBy(earmark.Settlement{ID: "one"}, nil), earmark.Result{Reservation: &earmark.Reservation{}})
}
