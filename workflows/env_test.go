package workflows_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
	"github.com/earmark-dev/earmark/workflows"
)

// env runs one Reservation workflow in the SDK's test environment, which skips
// time, on the real activities and a ledger in memory.
type env struct {
	*testing.T
	env     *testsuite.TestWorkflowEnvironment
	ledger  *fakeLedger
	input   workflows.ReservationInput
	start   time.Time
	indexed []string // what the search attribute was set to, "" when it was cleared
}

func setup(t *testing.T) *env {
	t.Helper()
	t.Parallel()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	b := &env{T: t, env: suite.NewTestWorkflowEnvironment(), start: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)}
	b.env.SetStartTime(b.start)
	b.ledger = newLedger(t, b.env.Now)
	b.input = workflows.ReservationInput{Admission: admission()}
	b.env.RegisterWorkflowWithOptions(workflows.Reservation, workflow.RegisterOptions{Name: workflows.ReservationType})
	b.env.RegisterActivity(&activities.Reservations{Ledger: b.ledger})
	b.env.OnUpsertTypedSearchAttributes(mock.Anything).Run(func(args mock.Arguments) {
		attributes := args.Get(0).(temporal.SearchAttributes)
		value, _ := attributes.GetKeyword(workflows.AttributeState)
		b.indexed = append(b.indexed, value)
	}).Return(nil).Maybe()
	return b
}

// admission asks for 100 tokens for 60 s under an id of its own.
func admission() earmark.Admission {
	request := earmark.ReservationRequest{Scopes: []string{testScope}, Amounts: earmark.Amounts{testUnit: 100}, TTLSeconds: 60}.WithDefaults()
	id := earmark.NewReservationID()
	return earmark.Admission{ID: id, Tenant: testTenant, Request: request, RequestHash: request.Hash(),
		WorkflowID: workflows.Prefix("").ReservationWorkflowID(id)}
}

// exists reserves behind the workflow's back, for one that adopts.
func (b *env) exists() {
	_, err := b.ledger.Model.Reserve(b.Context(), b.input.Admission)
	require.NoError(b, err)
	b.input.Adopt = true
}

func (b *env) settlement() earmark.Transition {
	return earmark.Transition{ID: b.input.Admission.ID, Tenant: testTenant, Actor: earmark.ActorAPI}
}

// at runs f that long after the workflow's start.
func (b *env) at(after time.Duration, f func()) { b.env.RegisterDelayedCallback(f, after) }

// run executes the workflow to its end.
func (b *env) run() (workflows.WorkflowResult, error) {
	b.Helper()
	b.env.ExecuteWorkflow(workflows.ReservationType, b.input)
	require.True(b, b.env.IsWorkflowCompleted(), "the workflow is still open")
	var ending workflows.WorkflowResult
	if err := b.env.GetWorkflowError(); err != nil {
		return ending, err
	}
	return ending, b.env.GetWorkflowResult(&ending)
}

// ends runs the workflow, checks its result, and returns how long it was open.
func (b *env) ends(outcome earmark.Outcome, state earmark.State) time.Duration {
	b.Helper()
	ending, err := b.run()
	require.NoError(b, err)
	require.Equal(b, outcome, ending.Outcome)
	require.Equal(b, state, ending.State)
	require.Equal(b, b.input.Admission.RequestHash, ending.RequestHash)
	return b.env.Now().Sub(b.start)
}

// holds checks what the budget has reserved and committed.
func (b *env) holds(reserved, committed int64) {
	b.Helper()
	require.Equal(b, [2]int64{reserved, committed}, b.ledger.balance(), "reserved, committed")
}

func (b *env) signal(name string, payload any) { b.env.SignalWorkflow(name, payload) }

// signalQuietly signals without a task of its own: the workflow finds the signal in
// the task that the next event makes.
func (b *env) signalQuietly(name string, payload any) {
	b.env.SignalWorkflowSkippingWorkflowTask(name, payload)
}

// reply is what an update came to.
type reply struct {
	standing activities.Snapshot
	accepted bool
	rejected error
	err      error
	answered bool
}

func (b *env) update(name string, payload any) *reply {
	r := &reply{}
	b.env.UpdateWorkflow(name, "", &testsuite.TestUpdateCallback{
		OnAccept: func() { r.accepted = true },
		OnReject: func(err error) { r.rejected = err },
		OnComplete: func(value any, err error) {
			r.answered, r.err = true, err
			if standing, ok := value.(activities.Snapshot); ok {
				r.standing = standing
			}
		},
	}, payload)
	return r
}

// is checks the answer of an update.
func (r *reply) is(tb testing.TB, outcome earmark.Outcome, state earmark.State) {
	tb.Helper()
	require.NoError(tb, r.rejected)
	require.True(tb, r.answered, "the update has no answer")
	require.NoError(tb, r.err)
	require.Equal(tb, outcome, r.standing.Outcome)
	require.Equal(tb, state, r.standing.State)
}

func used(tokens int64) workflows.CommitMessage {
	return workflows.CommitMessage{Usage: earmark.Amounts{testUnit: tokens}}
}
