//go:build unix

package e2e_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

// While Postgres is away, somebody pauses the activities that repeat a settlement. The list of what is stuck says who and
// why. One is unpaused by hand, and its usage is charged. The other's reservation is settled past its workflow, so the
// reconciler unpauses it.
func TestPausedActivity(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{OwnPostgres: true})
	budget := b.budget("acme", "tokens", 1000)
	committed, released := b.hold("commit", tokens("acme", 100, 300)), b.hold("release", tokens("acme", 100, 300))
	b.awaitGuarded(committed.ID)
	b.awaitGuarded(released.ID)
	b.Postgres.Stop()
	b.do("POST", "/v1/reservations/"+committed.ID+"/commit", `{"usage":{"tokens":70}}`).status(t, http.StatusAccepted)
	b.do("POST", "/v1/reservations/"+released.ID+"/release", `{"reason":"nothing was spent"}`).status(t, http.StatusAccepted)
	pause := func(r earmark.Reservation) (activityID string) {
		stack.Eventually(t, moment, "an activity that repeats the call of "+r.ID, func() bool {
			description, err := b.Client().DescribeWorkflowExecution(t.Context(), r.WorkflowID, "")
			require.NoError(t, err)
			if len(description.GetPendingActivities()) == 0 {
				return false
			}
			activityID = description.GetPendingActivities()[0].GetActivityId()
			_, err = b.Client().WorkflowService().PauseActivity(t.Context(), &workflowservice.PauseActivityRequest{
				Namespace: b.Namespace, Execution: &commonpb.WorkflowExecution{WorkflowId: r.WorkflowID}, Identity: "alice", Reason: "the bill is wrong",
				Activity: &workflowservice.PauseActivityRequest_Id{Id: activityID},
			})
			return err == nil
		})
		return activityID
	}
	activityID := pause(committed)
	pause(released)
	b.awaitFound(2, "ExecutionStatus = 'Running' AND TemporalPauseInfo IS NOT NULL")
	b.Postgres.Start()
	b.server.Ready()

	stack.Eventually(t, 2*moment, "both in the list", func() bool { return len(b.stuck().Data) == 2 })
	for _, r := range b.stuck().Data {
		require.Equal(t, earmark.StateHeld, r.State)
		require.Equal(t, earmark.StuckPaused, r.Stuck.Reason)
		require.Contains(t, r.Stuck.Detail, "paused by alice: the bill is wrong; its last error: ")
		require.NotNil(t, r.Stuck.Since)
		if r.ID == committed.ID {
			require.Equal(t, "temporal activity unpause --workflow-id "+r.WorkflowID+" --activity-id "+activityID+" --identity <you>", r.Stuck.Remedy)
		}
	}
	b.requireBalance(budget, 200, 0)

	_, err := b.Client().WorkflowService().UnpauseActivity(t.Context(), &workflowservice.UnpauseActivityRequest{
		Namespace: b.Namespace, Execution: &commonpb.WorkflowExecution{WorkflowId: committed.WorkflowID}, Activity: &workflowservice.UnpauseActivityRequest_Id{Id: activityID},
	})
	require.NoError(t, err)
	b.awaitState(committed.ID, earmark.StateCommitted, moment)
	b.awaitClosed(committed.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)

	b.do("POST", "/v1/reservations/"+released.ID+"/release", `{"reason":"nothing was spent"}`).status(t, http.StatusOK)
	b.reconcileUntilClosed(released.ID)
	b.requireBalance(budget, 0, 70)
	stack.Eventually(t, moment, "an empty list", func() bool { return len(b.stuck().Data) == 0 })
}

// reconcileUntilClosed runs the reconciler until the workflow of a reservation has completed: one run notes that it is
// due, another one has it.
func (b *env) reconcileUntilClosed(id string) {
	b.t.Helper()
	stack.Eventually(b.t, moment, "the workflow of "+id+" to end", func() bool {
		b.reconcile("earmark-reconcile")
		return b.describe(id).Status == enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED
	})
}
