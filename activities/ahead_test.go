package activities

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func attemptAt(moment time.Time) earmark.Admission {
	return earmark.Admission{ID: "one", RequestHash: "h", AdmitBy: moment}
}

// reserving answers a call ahead once it is told to.
func reserving(result earmark.Result, err error) (reserve func(context.Context, earmark.Admission) (earmark.Result, error), proceed func()) {
	until := make(chan struct{})
	return func(context.Context, earmark.Admission) (earmark.Result, error) {
		<-until
		return result, err
	}, func() { close(until) }
}

// The activity waits for the call that is under way, and tells its result; the ledger
// is asked again when it runs again.
func TestReserveTakesTheCallAhead(t *testing.T) {
	t.Parallel()
	l := &ledger{result: earmark.Result{Outcome: earmark.OutcomeSame}}
	r := &Reservations{Ledger: l, Admissions: &Admissions{}}
	admission := attemptAt(time.Unix(1, 0))
	reserve, proceed := reserving(earmark.Result{Outcome: earmark.OutcomeApplied}, nil)
	answer, stop := r.Admissions.Wait(admission)
	defer stop()
	ahead := r.Admissions.ReserveAhead(t.Context(), reserve, admission)
	require.Same(t, ahead, r.Admissions.ReserveAhead(t.Context(), reserve, admission), "it is one call")
	time.AfterFunc(20*time.Millisecond, proceed)
	standing, err := r.Reserve(t.Context(), admission)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, standing.Outcome)
	require.Empty(t, l.call, "the ledger is not asked a second time")
	require.Equal(t, earmark.OutcomeApplied, heard(t, answer))
	<-ahead.Done()
	result, err := ahead.Result()
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, result.Outcome)

	standing, err = r.Reserve(t.Context(), admission)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeSame, standing.Outcome)
	require.Equal(t, "reserve", l.call)
	require.Empty(t, r.Admissions.ahead, "nothing is left behind")
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
			r := &Reservations{Ledger: l, Admissions: &Admissions{}}
			reserve, proceed := reserving(earmark.Result{Outcome: earmark.OutcomeApplied}, of.err)
			r.Admissions.ReserveAhead(t.Context(), reserve, mine)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if errors.Is(of.err, context.Canceled) { // the activity's time is over before
				cancel()
				defer proceed()
			} else {
				proceed()
			}
			standing, err := r.Reserve(ctx, of.asks)
			require.NoError(t, err)
			require.Equal(t, earmark.OutcomeDenied, standing.Outcome)
			require.Equal(t, "reserve", l.call)
		})
	}
}

// A call goes on without its caller, and its result is not kept for ever.
func TestReserveAheadIsBounded(t *testing.T) {
	t.Parallel()
	var a Admissions
	ctx, leave := context.WithCancel(t.Context())
	leave()
	var deadline bool
	ahead := a.ReserveAhead(ctx, func(ctx context.Context, _ earmark.Admission) (earmark.Result, error) {
		_, deadline = ctx.Deadline()
		return earmark.Result{}, ctx.Err()
	}, attemptAt(time.Unix(1, 0)))
	<-ahead.Done()
	_, err := ahead.Result()
	require.NoError(t, err)
	require.True(t, deadline)
	require.Eventually(t, func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.ahead) == 0
	}, 2*aheadKept, 10*time.Millisecond)
}
