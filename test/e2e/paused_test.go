//go:build unix && paused

package e2e_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

// Somebody pauses workflows on a Temporal that can. The reservations go on without them: what is committed, released or
// runs out is settled in the ledger, the list of what is stuck says who paused and why, and the reconciler lets each
// workflow end once its reservation is settled.
func TestPausedWorkflow(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{Grace: time.Second})
	budget := b.budget("acme", "tokens", 10_000)
	pause := func(held earmark.Reservation) earmark.Reservation {
		_, err := b.Client().WorkflowService().PauseWorkflowExecution(t.Context(), &workflowservice.PauseWorkflowExecutionRequest{
			Namespace: b.Namespace, WorkflowId: held.WorkflowID, Identity: "alice", Reason: "the bill is wrong", RequestId: held.ID,
		})
		require.NoError(t, err)
		require.Equal(t, enumspb.WORKFLOW_EXECUTION_STATUS_PAUSED, b.describe(held.ID).Status)
		return held
	}
	open := pause(b.hold("open", tokens("acme", 100, 300)))
	committed := pause(b.hold("committed", tokens("acme", 100, 300)))
	released := pause(b.hold("released", tokens("acme", 100, 300)))
	expiring := pause(b.hold("expiring", tokens("acme", 100, 3)))
	paused := []earmark.Reservation{open, committed, released, expiring}

	stack.Eventually(t, moment, "all paused workflows in the list", func() bool { return len(b.stuck().Data) == len(paused) })
	for _, r := range b.stuck().Data {
		require.Equal(t, earmark.StuckPaused, r.Stuck.Reason)
		require.Equal(t, "paused by alice: the bill is wrong", r.Stuck.Detail)
		require.NotNil(t, r.Stuck.Since)
		require.Equal(t, "temporal workflow unpause --workflow-id "+r.WorkflowID+" --reason <why>", r.Stuck.Remedy)
	}

	// A signal is kept and does not run, a query is refused.
	require.NoError(t, b.Client().SignalWorkflow(t.Context(), open.WorkflowID, "", "commit", usage(7)))
	_, err := b.Client().QueryWorkflow(t.Context(), open.WorkflowID, "", "reservation")
	t.Logf("a query of a paused workflow: %v", err)

	b.commit(committed.ID, 60).status(t, http.StatusOK)
	b.do("POST", "/v1/reservations/"+released.ID+"/release", `{}`).status(t, http.StatusOK)
	b.awaitState(expiring.ID, earmark.StateExpired, moment)
	b.requireBalance(budget, 100, 60)
	require.Equal(t, earmark.StateHeld, b.reservation(open.ID).State, "the signal waits")
	for _, r := range paused {
		require.Equal(t, enumspb.WORKFLOW_EXECUTION_STATUS_PAUSED, b.describe(r.ID).Status)
	}

	// What is settled has no use of a pause any more; what is open stays as somebody left it.
	for _, r := range []earmark.Reservation{committed, released, expiring} {
		b.reconcileUntilClosed(r.ID)
	}
	require.Equal(t, enumspb.WORKFLOW_EXECUTION_STATUS_PAUSED, b.describe(open.ID).Status)
	stack.Eventually(t, moment, "the one that is still paused in the list", func() bool { return len(b.stuck().Data) == 1 })

	_, err = b.Client().WorkflowService().UnpauseWorkflowExecution(t.Context(), &workflowservice.UnpauseWorkflowExecutionRequest{
		Namespace: b.Namespace, WorkflowId: open.WorkflowID, Reason: "it is right",
	})
	require.NoError(t, err)
	b.awaitState(open.ID, earmark.StateCommitted, moment)
	b.awaitClosed(open.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	b.requireBalance(budget, 0, 67)
	stack.Eventually(t, moment, "an empty list", func() bool { return len(b.stuck().Data) == 0 })
}

// Temporal from 1.31 on reports workflows whose tasks fail. So the list of what is stuck has one whose reservation is settled,
// which the ledger has no reason to suspect.
func TestFailingTaskIsReported(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	s.Use(stack.Variant(t, stack.Edit{File: "workflows/reservation.go", Old: "case !r.inbox.empty():", New: "case !r.inbox.empty():\n\t\t\tpanic(\"broken on purpose\")\n\t\tcase false:"}))
	server := s.Serve("--without-worker").Ready() // so that the workflow learns of the commit by a signal
	s.Worker()
	b := &env{Stack: s, api: api{t: t, base: server.URL}, server: server}
	b.budget("acme", "tokens", 10_000)
	held := b.hold("k", tokens("acme", 100, 3600))
	b.commit(held.ID, 60).status(t, http.StatusOK)

	stack.Eventually(t, 2*time.Minute, "the workflow in the list", func() bool { return len(b.stuck().Data) == 1 }) // Temporal reports the fifth failure
	stuck := b.stuck().Data[0]
	require.Equal(t, held.ID, stuck.ID)
	require.Equal(t, earmark.StateCommitted, stuck.State)
	require.Equal(t, earmark.StuckTaskFailing, stuck.Stuck.Reason)
	require.Contains(t, stuck.Stuck.Detail, "broken on purpose")
}
