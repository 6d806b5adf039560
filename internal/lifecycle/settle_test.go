//go:build unix

package lifecycle_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/lifecycle"
	"github.com/earmark-dev/earmark/workflows"
)

// With no worker the ledger settles all the same, and the workflow hears of it later.
func TestCoordinatorSettlesWithoutAWorker(t *testing.T) {
	t.Parallel()
	both(t, func(s *env) {
		stop := s.work()
		a := admissionOf(100)
		s.admitted(a)
		stop()
		result, accepted, err := s.coordinator.Commit(s.ctx, settlementOf(a), usage)
		require.NoError(s, err)
		require.False(s, accepted)
		require.Equal(s, earmark.OutcomeApplied, result.Outcome)
		require.Equal(s, earmark.StateCommitted, s.row(a).State)
		require.Eventually(s, func() bool { return s.signalled(a, workflows.MessageCommit) }, patience, 10*time.Millisecond, "it was not notified")
		s.work()
		require.Equal(s, earmark.StateCommitted, s.ending(a).State)
	})
}

// Postgres does not answer: Temporal keeps the usage.
func TestCoordinatorAccepts(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(context.Context, string) error{
		"Postgres refuses": func(context.Context, string) error { return errAway },
		"Postgres hangs":   func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := apart(t)
			stop := s.work()
			a := admissionOf(100)
			s.admitted(a)
			stop()
			s.here.before = fault
			_, accepted, err := s.coordinator.Commit(s.ctx, settlementOf(a), usage)
			require.NoError(t, err)
			require.True(t, accepted)
			require.Equal(t, earmark.StateHeld, s.row(a).State)
			s.work()
			require.Equal(t, earmark.StateCommitted, s.ending(a).State)
			require.Equal(t, usage, s.row(a).Usage)
		})
	}
	t.Run("the admission is still undecided", func(t *testing.T) {
		t.Parallel()
		s := apart(t)
		s.coordinator.Deadline = 200 * time.Millisecond
		a := admissionOf(100)
		_, err := s.admit(a)
		require.Error(t, err)
		_, accepted, err := s.coordinator.Commit(s.ctx, settlementOf(a), usage)
		require.NoError(t, err)
		require.True(t, accepted, "the caller was told unknown and went ahead")
		s.work()
		require.Equal(t, earmark.StateCommitted, s.ending(a).State)
		require.Equal(t, usage, s.row(a).Usage)
	})
}

func TestCoordinatorFindsNothing(t *testing.T) {
	t.Parallel()
	s := apart(t)
	s.work()
	a := admissionOf(100)
	result, accepted, err := s.coordinator.Commit(s.ctx, settlementOf(a), usage)
	require.NoError(t, err)
	require.False(t, accepted, "nobody would apply it")
	require.Equal(t, earmark.OutcomeUnknown, result.Outcome)

	s.here.before = func(context.Context, string) error { return errAway }
	_, accepted, err = s.coordinator.Release(s.ctx, settlementOf(a))
	require.ErrorIs(t, err, errAway)
	require.False(t, accepted)
}

// Postgres does not have the row, and Temporal does not answer: after the restore of a
// backup a workflow may still have the reservation, so this is no "not found".
func TestCoordinatorRowUnknownWhileTemporalIsAway(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		signal error
		known  bool // that there is no workflow
	}{
		"Temporal is away":           {serviceerror.NewUnavailable("the connection broke"), false},
		"Temporal hangs":             {context.DeadlineExceeded, false},
		"Temporal knows no workflow": {serviceerror.NewNotFound("no workflow"), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := apart(t)
			s.coordinator.Client = &proxy{Client: s.client, signal: func() error { return c.signal }}
			a := admissionOf(100)
			for verb, settle := range map[string]func() (earmark.Result, bool, error){
				"commit":  func() (earmark.Result, bool, error) { return s.coordinator.Commit(s.ctx, settlementOf(a), usage) },
				"release": func() (earmark.Result, bool, error) { return s.coordinator.Release(s.ctx, settlementOf(a)) },
				"extend": func() (earmark.Result, bool, error) {
					return notLeft(s.coordinator.Extend(s.ctx, settlementOf(a), time.Hour))
				},
			} {
				result, accepted, err := settle()
				require.False(t, accepted, verb)
				if c.known {
					require.NoError(t, err, verb)
					require.Equal(t, earmark.OutcomeUnknown, result.Outcome, verb)
					continue
				}
				var e *earmark.Error
				require.ErrorAs(t, err, &e, verb)
				require.Equal(t, earmark.CodeUnavailable, e.Code, verb)
				require.Positive(t, e.RetryAfter, verb)
			}
		})
	}
}

// An extension, unlike a settlement, is not left with Temporal.
func notLeft(result earmark.Result, err error) (earmark.Result, bool, error) {
	return result, false, err
}

// A tenant who knows the id of another's reservation does nothing to it, whatever is away, and learns no
// more than of an id that never was.
func TestCoordinatorLeavesOtherTenantsAlone(t *testing.T) {
	t.Parallel()
	s := apart(t)
	s.work()
	held, never := admissionOf(100), admissionOf(100)
	s.admitted(held)
	for name, fault := range map[string]error{"Postgres has no such row": nil, "Postgres is away": errAway} {
		var answers []error
		var outcomes []earmark.Outcome
		for _, a := range []earmark.Admission{held, never} {
			foreign := settlementOf(a)
			foreign.Tenant = "globex"
			s.here.before = func(context.Context, string) error { return fault }
			for verb, settle := range map[string]func() (earmark.Result, bool, error){
				"commit":  func() (earmark.Result, bool, error) { return s.coordinator.Commit(s.ctx, foreign, usage) },
				"release": func() (earmark.Result, bool, error) { return s.coordinator.Release(s.ctx, foreign) },
				"extend":  func() (earmark.Result, bool, error) { return notLeft(s.coordinator.Extend(s.ctx, foreign, time.Hour)) },
			} {
				begun := time.Now()
				result, accepted, err := settle()
				require.False(t, accepted, "%s, %s", name, verb)
				require.Nil(t, result.Reservation, "%s, %s", name, verb)
				if verb != "extend" || fault == nil { // an extension asks Temporal only where Postgres has answered
					require.GreaterOrEqual(t, time.Since(begun), 100*time.Millisecond, "%s, %s: the time shows whether Temporal has a workflow", name, verb)
				}
				answers, outcomes = append(answers, err), append(outcomes, result.Outcome)
			}
		}
		for i := range answers {
			require.ErrorIs(t, answers[i], fault, name)
			require.Equal(t, outcomes[0], outcomes[i], name)
		}
	}
	s.here.before = nil
	require.False(t, s.signalled(held, workflows.MessageCommit))
	require.False(t, s.signalled(held, workflows.MessageRelease))
	require.Equal(t, earmark.StateHeld, s.row(held).State)
	result, _, err := s.coordinator.Commit(s.ctx, settlementOf(held), usage)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, result.Outcome)
}

// A charge does not depend on its caller's connection.
func TestCoordinatorSettlesWhenItsCallerLeaves(t *testing.T) {
	t.Parallel()
	s := apart(t)
	stop := s.work()
	one, two := admissionOf(100), admissionOf(100)
	s.admitted(one)
	s.admitted(two)
	left, leave := context.WithCancel(s.ctx)
	leave()
	result, _, err := s.coordinator.Commit(left, settlementOf(one), usage)
	require.NoError(t, err)
	require.Equal(t, earmark.StateCommitted, result.Reservation.State)

	stop()
	leaving, leave := context.WithCancel(s.ctx)
	time.AfterFunc(100*time.Millisecond, leave)
	result, _, err = s.coordinator.Commit(leaving, settlementOf(two), usage)
	require.NoError(t, err)
	require.Equal(t, earmark.StateCommitted, result.Reservation.State)
}

// A settlement is one call of the ledger. Nothing waits for Temporal, which hears of it afterwards.
func TestCoordinatorSettlesInTheLedger(t *testing.T) {
	t.Parallel()
	both(t, func(s *env) {
		s.work()
		one, two := admissionOf(100), admissionOf(100)
		s.admitted(one)
		s.admitted(two)
		proceed := make(chan struct{})
		s.coordinator.Client = &proxy{Client: s.client, signal: func() error { <-proceed; return nil }}
		var calls []string
		s.here.before = func(_ context.Context, verb string) error { calls = append(calls, verb); return nil }
		result, accepted, err := s.coordinator.Commit(s.ctx, settlementOf(one), usage)
		require.NoError(s, err)
		require.False(s, accepted)
		require.Equal(s, usage, result.Reservation.Usage)
		release := settlementOf(two)
		release.Reason = "not called"
		result, _, err = s.coordinator.Release(s.ctx, release)
		require.NoError(s, err)
		require.Equal(s, earmark.StateReleased, result.Reservation.State)
		require.Equal(s, []string{"commit", "release"}, calls)
		close(proceed)
		s.coordinator.Close()
		require.Equal(s, earmark.StateCommitted, s.ending(one).State)
		require.Equal(s, usage, s.ending(one).Usage, "which can be charged again after the restore of a backup")
		require.Equal(s, earmark.StateReleased, s.ending(two).State)
	})
}

// A workflow that cannot be notified is left to the reconciler.
func TestCoordinatorMarksWhomItCannotNotify(t *testing.T) {
	t.Parallel()
	s := apart(t)
	s.work()
	a, gone := admissionOf(100), admissionOf(100)
	s.admitted(a)
	s.admitted(gone)
	var fault error
	fault = serviceerror.NewUnavailable("the connection broke")
	s.coordinator.Client = &proxy{Client: s.client, signal: func() error { return fault }}
	_, _, err := s.coordinator.Commit(s.ctx, settlementOf(a), usage)
	require.NoError(t, err)
	s.coordinator.Close()
	require.Equal(t, []string{a.ID}, s.rows.unnotified)
	fault = serviceerror.NewNotFound("no workflow") // it has closed
	_, _, err = s.coordinator.Commit(s.ctx, settlementOf(gone), usage)
	require.NoError(t, err)
	s.coordinator.Close()
	require.Equal(t, []string{a.ID}, s.rows.unnotified)
}

// What a refused commit changes is what happens at the end of the lease. Its usage is not sent to
// the workflow, which would charge it in review; each further attempt is answered for itself.
func TestCoordinatorRefusesAnAttempt(t *testing.T) {
	t.Parallel()
	both(t, func(s *env) {
		s.coordinator.SettleWindow = lifecycle.MaxSettleWindow
		s.work()
		most := int64(limit)
		_, err := s.rows.CreateBudget(s.ctx, "acme", earmark.BudgetRequest{Scope: "acme/strict", Unit: "tokens", Limit: &most, Overage: earmark.OverageReject}.WithDefaults(), earmark.ActorAPI)
		require.NoError(s, err)
		a := admissionOf(100)
		a.Request.Scopes, a.Request.TTLSeconds = []string{"acme/strict"}, 1
		a.RequestHash = a.Request.Hash()
		s.admitted(a)
		much := earmark.Amounts{"tokens": 150}
		for range 2 {
			result, _, err := s.coordinator.Commit(s.ctx, settlementOf(a), much)
			require.NoError(s, err)
			require.Equal(s, earmark.OutcomeOverageRejected, result.Outcome)
		}
		require.Eventually(s, func() bool { return s.row(a).State == earmark.StateReview }, patience, 10*time.Millisecond)
		require.False(s, s.signalled(a, workflows.MessageCommit))
		result, _, err := s.coordinator.Commit(s.ctx, settlementOf(a), much) // now it is a decision to charge
		require.NoError(s, err)
		require.Equal(s, earmark.OutcomeApplied, result.Outcome)
		require.Equal(s, earmark.StateCommitted, s.ending(a).State)
	})
}

// windowed is a coordinator with a settle window beside its worker.
func windowed(t *testing.T) *env {
	t.Helper()
	s := beside(t)
	s.coordinator.SettleWindow = lifecycle.MaxSettleWindow
	s.work()
	return s
}

// A short request is one workflow task, and its history the shortest that can be.
func TestCoordinatorEndsTheFirstTask(t *testing.T) {
	t.Parallel()
	s := windowed(t)
	for name, c := range map[string]struct {
		settle func(earmark.Transition) (earmark.Result, bool, error)
		by     earmark.Actor
		state  earmark.State
	}{
		"commit":  {func(t earmark.Transition) (earmark.Result, bool, error) { return s.coordinator.Commit(s.ctx, t, usage) }, earmark.ActorAPI, earmark.StateCommitted},
		"release": {func(t earmark.Transition) (earmark.Result, bool, error) { return s.coordinator.Release(s.ctx, t) }, earmark.ActorAPI, earmark.StateReleased},
		"an operator's commit": {func(t earmark.Transition) (earmark.Result, bool, error) { return s.coordinator.Commit(s.ctx, t, usage) },
			earmark.OperatorActor("alice"), earmark.StateCommitted},
	} {
		a := admissionOf(100)
		s.admitted(a)
		settlement := settlementOf(a)
		settlement.Actor, settlement.Reason = c.by, "why"
		result, accepted, err := c.settle(settlement)
		require.NoError(t, err, name)
		require.False(t, accepted, name)
		require.Equal(t, c.state, result.Reservation.State, name)
		ending := s.ending(a)
		require.Equal(t, c.state, ending.State, name)
		require.Equal(t, []enumspb.EventType{
			enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED,
			enumspb.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED, enumspb.EVENT_TYPE_WORKFLOW_TASK_STARTED, enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED,
			enumspb.EVENT_TYPE_MARKER_RECORDED, enumspb.EVENT_TYPE_MARKER_RECORDED, // reserve, and the wait
			enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
		}, s.eventTypes(a), name)
		if c.state == earmark.StateCommitted { // who and why are known to whoever charges it again
			require.Equal(t, "why", ending.Reason, name)
			require.Equal(t, c.by.Operator() != "", ending.Actor != nil, name)
		}
	}
}

// Once the window is over, the workflow sets its timer, and hears of the settlement by a signal.
func TestCoordinatorOutlivesItsWindow(t *testing.T) {
	t.Parallel()
	s := windowed(t)
	a := admissionOf(100)
	s.admitted(a)
	s.coordinator.Handoff.CloseWindow(a.ID)
	_, accepted, err := s.coordinator.Commit(s.ctx, settlementOf(a), usage)
	require.NoError(t, err)
	require.False(t, accepted)
	require.Equal(t, earmark.StateCommitted, s.ending(a).State)
	require.True(t, s.signalled(a, workflows.MessageCommit))
	require.Contains(t, s.eventTypes(a), enumspb.EVENT_TYPE_TIMER_STARTED)
}

// A message that arrives in the window makes Temporal run the task again: the settlement that the
// first run has taken is not lost.
func TestCoordinatorWindowOfATaskThatRunsAgain(t *testing.T) {
	t.Parallel()
	s := windowed(t)
	a := admissionOf(100)
	s.admitted(a)
	require.NoError(t, s.client.SignalWorkflow(s.ctx, a.WorkflowID, "", workflows.SignalRefresh, nil))
	_, _, err := s.coordinator.Commit(s.ctx, settlementOf(a), usage)
	require.NoError(t, err)
	ending := s.ending(a)
	require.Equal(t, earmark.StateCommitted, ending.State)
	require.Equal(t, usage, ending.Usage)
	require.False(t, s.signalled(a, workflows.MessageCommit), "the first run has taken it")
}

// Whoever asks for the same admission again within the window is answered by the ledger: the workflow
// would answer in its next task.
func TestCoordinatorRetryInTheWindow(t *testing.T) {
	t.Parallel()
	s := windowed(t)
	s.admitted(admissionOf(1)) // now it reserves speculatively
	a := admissionOf(100)
	s.admitted(a)
	s.coordinator.Deadline = lifecycle.MaxSettleWindow / 2 // were it to wait for the window's end, it would be too late
	s.admitted(a)
	another := a
	another.Request.Amounts = earmark.Amounts{"tokens": 1}
	another.RequestHash = another.Request.Hash()
	result, err := s.admit(another)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeMismatch, result.Outcome)
	_, _, err = s.coordinator.Commit(s.ctx, settlementOf(a), usage)
	require.NoError(t, err)
	require.Equal(t, earmark.StateCommitted, s.ending(a).State)
	require.False(t, s.signalled(a, workflows.MessageCommit), "its window is open all the while")
}

// A denial has nothing to wait for.
func TestCoordinatorDenialHasNoWindow(t *testing.T) {
	t.Parallel()
	s := windowed(t)
	a := admissionOf(limit + 1)
	result, err := s.admit(a)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeDenied, result.Outcome)
	require.True(t, s.coordinator.Handoff.OpenWindow(a.ID, time.Millisecond), "none is open")
}

// A process that stops ends its windows, so that its worker need not wait for them.
func TestCoordinatorCloseEndsTheWindows(t *testing.T) {
	t.Parallel()
	s := windowed(t)
	a := admissionOf(100)
	s.admitted(a)
	s.coordinator.Close()
	require.Eventually(t, func() bool { return slices.Contains(s.eventTypes(a), enumspb.EVENT_TYPE_TIMER_STARTED) }, patience, 5*time.Millisecond)
	s.isOpen(a)
	require.NoError(t, s.client.TerminateWorkflow(s.ctx, a.WorkflowID, "", "the test is over"))
}
