//go:build unix

package e2e_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

func (b *env) lastEntry(id string) earmark.Entry {
	b.t.Helper()
	journal := b.entries(id)
	return journal[len(journal)-1]
}

func (b *env) stuck() earmark.StuckPage {
	b.t.Helper()
	return decoded[earmark.StuckPage](b.t, b.do("GET", "/v1/reservations?stuck=true", "").status(b.t, http.StatusOK))
}

// The remedies are signals too, for who has Temporal UI alone. The journal names
// who sent them.
func TestOperatorSignals(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	budget := b.budget("acme", "tokens", 1000)
	by := func(more map[string]any) map[string]any {
		message := map[string]any{"operator": "alice", "reason": "its process died"}
		for name, value := range more {
			message[name] = value
		}
		return message
	}
	released := b.hold("release", tokens("acme", 100, 60)).ID
	b.signal(released, "release", map[string]any{"operator": "a person", "reason": "not a name"})
	b.signal(released, "extend", by(map[string]any{"ttl_seconds": 3600}))
	stack.Eventually(t, moment, "the extension", func() bool { return b.lastEntry(released).Kind == "extend" })
	require.Regexp(t, `^expires at \S+: its process died$`, b.lastEntry(released).Reason)
	b.signal(released, "release", by(nil))
	expired := b.awaitState(released, earmark.StateExpired, moment)
	require.Equal(t, "its process died", expired.Reason)
	require.Equal(t, "operator:alice", b.lastEntry(released).Actor)
	b.awaitClosed(released, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	b.commitLate(released, 40)

	review := b.hold("review", `{"scopes":["acme"],"amounts":{"tokens":100},"ttl_seconds":1,"on_expiry":"review"}`).ID
	b.awaitState(review, earmark.StateReview, moment)
	b.signal(review, "commit", by(map[string]any{"usage": map[string]any{"tokens": 30}}))
	b.awaitState(review, earmark.StateCommitted, moment)
	entry := b.lastEntry(review)
	require.Equal(t, []string{"commit", "operator:alice", "late: its process died"}, []string{entry.Kind, entry.Actor, entry.Reason})
	b.requireBalance(budget, 0, 70)
}

// A paused activity is a settlement that is not tried. What goes past it stands, and
// the workflow finds out when it is unpaused.
func TestPausedSettlement(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	budget := b.budget("acme", "tokens", 1000)
	held := b.hold("one", tokens("acme", 100, 300))
	conn, err := pgx.Connect(t.Context(), b.DatabaseURL)
	require.NoError(t, err)
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "SELECT 1 FROM earmark.reservations WHERE id = $1 FOR UPDATE", held.ID)
	require.NoError(t, err)
	b.signal(held.ID, "commit", usage(70))

	service, execution := b.Client().WorkflowService(), &commonpb.WorkflowExecution{WorkflowId: held.WorkflowID}
	pending := func() (id string, state enumspb.PendingActivityState) {
		description, err := b.Client().DescribeWorkflowExecution(t.Context(), held.WorkflowID, "")
		require.NoError(t, err)
		for _, activity := range description.GetPendingActivities() {
			id, state = activity.GetActivityId(), activity.GetState()
		}
		return id, state
	}
	var id string
	stack.Eventually(t, moment, "the activity", func() bool { id, _ = pending(); return id != "" })
	_, err = service.PauseActivity(t.Context(), &workflowservice.PauseActivityRequest{
		Namespace: b.Namespace, Execution: execution, Activity: &workflowservice.PauseActivityRequest_Id{Id: id}, Reason: "a test",
	})
	require.NoError(t, err)
	stack.Eventually(t, moment, "the try under way to end", func() bool {
		_, state := pending()
		return state == enumspb.PENDING_ACTIVITY_STATE_PAUSED
	})
	require.NoError(t, conn.Close(t.Context()))

	x := b.commit(held.ID, 70).status(t, http.StatusOK)
	require.Equal(t, earmark.Amounts{"tokens": 70}, decoded[earmark.Reservation](t, x).Usage)
	b.requireBalance(budget, 0, 70)
	_, err = service.UnpauseActivity(t.Context(), &workflowservice.UnpauseActivityRequest{
		Namespace: b.Namespace, Execution: execution, Activity: &workflowservice.UnpauseActivityRequest_Id{Id: id},
	})
	require.NoError(t, err)
	b.awaitClosed(held.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	b.requireBalance(budget, 0, 70)
}

// Usage of a reservation that Postgres has lost, and that no budget takes any more,
// is in the list although no row is, with what is missing. A budget cures it.
func TestLostReservationIsStuck(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{Unaudited: true})
	budget := b.budget("acme", "tokens", 1000)
	lost := b.hold("lost", tokens("acme/ml", 100, 300))
	b.Exec("DELETE FROM earmark.reservation_budgets WHERE reservation_id = $1", lost.ID)
	b.Exec("DELETE FROM earmark.reservations WHERE id = $1", lost.ID)
	b.do("DELETE", "/v1/budgets/"+budget, "").status(t, http.StatusOK)
	b.signal(lost.ID, "commit", usage(70))

	const marked = 50 * time.Second // the workflow marks itself after 30 s
	stack.Eventually(t, marked, "the lost reservation", func() bool { return len(b.stuck().Data) == 1 })
	r := b.stuck().Data[0]
	require.Equal(t, lost.ID, r.ID)
	require.True(t, r.Lost)
	require.Equal(t, []string{"acme/ml"}, r.Scopes)
	require.Equal(t, earmark.Amounts{"tokens": 100}, r.Amounts)
	require.Equal(t, earmark.StuckSettlementFailing, r.Stuck.Reason)
	require.Contains(t, r.Stuck.Detail, `no budget covers "acme/ml" any more; create one`)
	require.GreaterOrEqual(t, r.Stuck.AgeSeconds, int64(20))
	again := b.budget("acme", "tokens", 1000)
	b.awaitClosed(lost.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	require.Equal(t, earmark.StateCommitted, b.reservation(lost.ID).State)
	b.requireBalance(again, 0, 70)
	stack.Eventually(t, moment, "an empty list", func() bool { return len(b.stuck().Data) == 0 })
}

// With Temporal away the list has what Postgres knows, and says what it lacks.
func TestStuckWithoutTemporal(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{OwnTemporal: true})
	b.budget("acme", "tokens", 1000)
	review := b.hold("review", `{"scopes":["acme"],"amounts":{"tokens":100},"ttl_seconds":1,"on_expiry":"review"}`).ID
	b.awaitState(review, earmark.StateReview, moment)
	require.Empty(t, b.stuck().Incomplete)
	b.Temporal.Stop()
	stack.Eventually(t, moment, "Temporal to be away", func() bool { return b.stuck().Incomplete != "" })
	page := b.stuck()
	require.Contains(t, page.Incomplete, "paused, task_failing and settlement_failing")
	require.Len(t, page.Data, 1)
	require.Equal(t, earmark.StuckReview, page.Data[0].Stuck.Reason)
	result := stack.RunCommand(t, append(b.Env(), "EARMARK_URL="+b.server.URL), stack.Binary(t), "stuck")
	require.Zero(t, result.Code, result.Stderr)
	require.Contains(t, result.Stdout, "Temporal did not answer")
	require.Contains(t, result.Stdout, "earmark release "+review)
	b.Temporal.Start()
	stack.Eventually(t, 2*moment, "Temporal to be back", func() bool { return b.stuck().Incomplete == "" })
}
