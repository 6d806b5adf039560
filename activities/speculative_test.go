package activities

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/handoff"
)

func heard(t *testing.T, answer <-chan earmark.Result) earmark.Outcome {
	t.Helper()
	select {
	case result := <-answer:
		return result.Outcome
	default:
		return ""
	}
}

func attemptAt(moment time.Time) earmark.Admission {
	return earmark.Admission{ID: "one", RequestHash: "h", AdmitBy: moment}
}

// reserving answers a speculative call when the test says so.
func reserving(result earmark.Result, err error) (reserve func(context.Context, earmark.Admission) (earmark.Result, error), proceed func()) {
	until := make(chan struct{})
	return func(context.Context, earmark.Admission) (earmark.Result, error) {
		<-until
		return result, err
	}, func() { close(until) }
}

// The activity waits for the running call, and returns its result; the ledger
// is asked again when it runs again.
func TestReserveTakesTheSpeculation(t *testing.T) {
	t.Parallel()
	l := &ledger{result: earmark.Result{Outcome: earmark.OutcomeSame}}
	r := &Reservations{Ledger: l, Handoff: &handoff.Exchange{}}
	admission := attemptAt(time.Unix(1, 0))
	reserve, proceed := reserving(earmark.Result{Outcome: earmark.OutcomeApplied}, nil)
	answer, stop := r.Handoff.AwaitDecision(admission)
	defer stop()
	speculation := r.Handoff.Speculate(t.Context(), reserve, admission)
	require.Same(t, speculation, r.Handoff.Speculate(t.Context(), reserve, admission), "it is one call")
	time.AfterFunc(20*time.Millisecond, proceed)
	snapshot, err := r.Reserve(t.Context(), admission)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, snapshot.Outcome)
	require.Empty(t, l.call, "the ledger is not asked a second time")
	require.Equal(t, earmark.OutcomeApplied, heard(t, answer))
	<-speculation.Done()
	result, err := speculation.Result()
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, result.Outcome)

	snapshot, err = r.Reserve(t.Context(), admission)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeSame, snapshot.Outcome)
	require.Equal(t, "reserve", l.call)
	_, found := r.Handoff.TakeSpeculation(t.Context(), admission)
	require.False(t, found, "nothing is left behind")
}

// What is not this very attempt's result is not taken, and a failure is not inherited.
func TestReserveAsksTheLedgerItself(t *testing.T) {
	t.Parallel()
	mine := attemptAt(time.Unix(1, 0))
	released := mine
	released.Released = true
	another := mine
	another.RequestHash = "another"
	for name, of := range map[string]struct {
		asks earmark.Admission
		err  error
	}{
		"the call fails":         {mine, errors.New("away")},
		"another deadline":       {attemptAt(time.Unix(2, 0)), nil},
		"another request":        {another, nil},
		"a release came first":   {released, nil},
		"the call has not ended": {mine, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := &ledger{result: earmark.Result{Outcome: earmark.OutcomeDenied}}
			r := &Reservations{Ledger: l, Handoff: &handoff.Exchange{}}
			reserve, proceed := reserving(earmark.Result{Outcome: earmark.OutcomeApplied}, of.err)
			r.Handoff.Speculate(t.Context(), reserve, mine)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if errors.Is(of.err, context.Canceled) { // the activity's time is over before
				cancel()
				defer proceed()
			} else {
				proceed()
			}
			snapshot, err := r.Reserve(ctx, of.asks)
			require.NoError(t, err)
			require.Equal(t, earmark.OutcomeDenied, snapshot.Outcome)
			require.Equal(t, "reserve", l.call)
		})
	}
}
