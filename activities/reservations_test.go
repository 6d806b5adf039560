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

var errAway = errors.New("Postgres is away")

// ledger answers every call with the same, and notes the last one.
type ledger struct {
	result earmark.Result
	err    error
	call   string
	ttl    time.Duration
}

func (l *ledger) answer(call string) (earmark.Result, error) {
	l.call = call
	return l.result, l.err
}

func (l *ledger) Reserve(context.Context, earmark.Admission) (earmark.Result, error) {
	return l.answer("reserve")
}

func (l *ledger) Commit(context.Context, earmark.Transition, earmark.Amounts) (earmark.Result, error) {
	return l.answer("commit")
}

func (l *ledger) Release(context.Context, earmark.Transition) (earmark.Result, error) {
	return l.answer("release")
}

func (l *ledger) GiveBack(context.Context, earmark.Transition) (earmark.Result, error) {
	return l.answer("give back")
}

func (l *ledger) Expire(context.Context, earmark.Transition) (earmark.Result, error) {
	return l.answer("expire")
}

func (l *ledger) Extend(_ context.Context, _ earmark.Transition, ttl time.Duration) (earmark.Result, error) {
	l.ttl = ttl
	return l.answer("extend")
}

func (l *ledger) Charge(context.Context, earmark.Charge) (earmark.Result, error) {
	return l.answer("charge")
}

func (l *ledger) Inspect(context.Context, string, string) (earmark.Result, error) {
	return l.answer("inspect")
}

// Each activity is the ledger's call of its name, answers how the reservation
// stands, and fails when the ledger does.
func TestActivitiesCallTheLedger(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	created := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	for call, activity := range map[string]func(*Reservations) (Snapshot, error){
		"reserve": func(r *Reservations) (Snapshot, error) { return r.Reserve(ctx, earmark.Admission{}) },
		"commit":  func(r *Reservations) (Snapshot, error) { return r.Commit(ctx, CommitInput{}) },
		"release": func(r *Reservations) (Snapshot, error) { return r.Release(ctx, earmark.Transition{}) },
		"give back": func(r *Reservations) (Snapshot, error) {
			return r.GiveBack(ctx, earmark.Transition{})
		},
		"expire":  func(r *Reservations) (Snapshot, error) { return r.Expire(ctx, earmark.Transition{}) },
		"extend":  func(r *Reservations) (Snapshot, error) { return r.Extend(ctx, ExtendInput{TTLSeconds: 90}) },
		"inspect": func(r *Reservations) (Snapshot, error) { return r.Inspect(ctx, earmark.Transition{}) },
		"charge":  func(r *Reservations) (Snapshot, error) { return r.Charge(ctx, earmark.Charge{}) },
	} {
		l := &ledger{result: earmark.Result{Outcome: earmark.OutcomeApplied, RemainingMS: 5, Subject: "tokens",
			Reservation: &earmark.Reservation{State: earmark.StateHeld, CreatedAt: created}}}
		r := &Reservations{Ledger: l}
		snapshot, err := activity(r)
		require.NoError(t, err)
		require.Equal(t, call, l.call)
		want := Snapshot{Outcome: earmark.OutcomeApplied, State: earmark.StateHeld, RemainingMS: 5, Subject: "tokens"}
		if call == "reserve" || call == "inspect" {
			want.CreatedAt = &created
		}
		require.Equal(t, want, snapshot, call)

		l.result = earmark.Result{Outcome: earmark.OutcomeUnknown}
		snapshot, err = activity(r)
		require.NoError(t, err)
		require.Equal(t, Snapshot{Outcome: earmark.OutcomeUnknown}, snapshot, "%s: no row, no state", call)

		l.err = errAway
		_, err = activity(r)
		require.ErrorIs(t, err, l.err, call)
		if call == "extend" {
			require.Equal(t, 90*time.Second, l.ttl)
		}
	}
}

// No caller gets a decision that may not be in Postgres.
func TestReserveAnnounces(t *testing.T) {
	t.Parallel()
	l := &ledger{err: errAway, result: earmark.Result{Outcome: earmark.OutcomeApplied}}
	r := &Reservations{Ledger: l, Handoff: &handoff.Exchange{}}
	admission := earmark.Admission{ID: "one"}
	answer, stop := r.Handoff.AwaitDecision(admission)
	defer stop()
	_, err := r.Reserve(t.Context(), admission)
	require.Error(t, err)
	require.Empty(t, heard(t, answer))
	l.err = nil
	_, err = r.Reserve(t.Context(), admission)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, heard(t, answer))
}

// A charge that no budget takes is an error, so that it is tried again and seen.
func TestChargeIsNotDropped(t *testing.T) {
	t.Parallel()
	for outcome, fails := range map[earmark.Outcome]bool{
		earmark.OutcomeNoBudget: true, earmark.OutcomeUnitNotBudgeted: true,
		earmark.OutcomeApplied: false, earmark.OutcomeSame: false, earmark.OutcomeMismatch: false, earmark.OutcomeOverflow: false,
	} {
		r := &Reservations{Ledger: &ledger{result: earmark.Result{Outcome: outcome, Subject: "acme/ml"}}}
		_, err := r.Charge(t.Context(), earmark.Charge{ID: "rsv_1"})
		if !fails {
			require.NoError(t, err, outcome)
			continue
		}
		require.Equal(t, earmark.CodeNoBudget, earmark.ErrorCode(err))
		require.ErrorContains(t, err, "rsv_1")
		require.ErrorContains(t, err, "acme/ml")
	}
}

// The workflow's result keeps a caller's estimate, which the expiry policy would not
// restore, but not that of an expiry, which it would.
func TestSnapshotOfAnEstimate(t *testing.T) {
	t.Parallel()
	estimate := &earmark.Reservation{State: earmark.StateCommitted, Usage: earmark.Amounts{"tokens": 60}, Estimated: true}
	l := &ledger{result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: estimate}}
	r := &Reservations{Ledger: l}
	snapshot, err := r.Commit(t.Context(), CommitInput{Transition: earmark.Transition{Estimated: true}, Usage: estimate.Usage})
	require.NoError(t, err)
	require.Equal(t, Snapshot{Outcome: earmark.OutcomeApplied, State: earmark.StateCommitted, Usage: estimate.Usage, Estimated: true}, snapshot)
	snapshot, err = r.Expire(t.Context(), earmark.Transition{})
	require.NoError(t, err)
	require.Nil(t, snapshot.Usage)
	require.False(t, snapshot.Estimated)
}
