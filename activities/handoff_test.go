package activities

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/handoff"
)

// Commit and release deliver the ledger's answer within the process; one that is not
// known is not delivered.
func TestSettlementsAreDelivered(t *testing.T) {
	t.Parallel()
	l := &ledger{result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: &earmark.Reservation{}}}
	r := &Reservations{Ledger: l, Handoff: &handoff.Exchange{}}
	mine, usage := earmark.Transition{ID: "one", Attempt: "a"}, earmark.Amounts{"tokens": 5}
	commit, stopCommit := r.Handoff.AwaitSettlement(mine, usage)
	defer stopCommit()
	release, stopRelease := r.Handoff.AwaitSettlement(mine, nil)
	defer stopRelease()

	l.err = errAway
	_, err := r.Commit(t.Context(), CommitInput{Transition: mine, Usage: usage})
	require.ErrorIs(t, err, errAway)
	_, err = r.Release(t.Context(), mine)
	require.ErrorIs(t, err, errAway)
	require.Empty(t, heard(t, commit))
	require.Empty(t, heard(t, release))

	l.err = nil
	_, err = r.Commit(t.Context(), CommitInput{Transition: mine, Usage: usage})
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, heard(t, commit))
	require.Empty(t, heard(t, release))
	_, err = r.Release(t.Context(), mine)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, heard(t, release))
}
