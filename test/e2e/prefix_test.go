//go:build unix

package e2e_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
	"github.com/earmark-dev/earmark/workflows"
)

// Two installations share a namespace, each with a database and a prefix of its own. The same key
// makes the same reservation id in both; neither settles, adopts or lists what is the other's.
func TestTwoPrefixesInANamespace(t *testing.T) {
	t.Parallel()
	production := setup(t, stack.Options{})
	s := stack.New(t, stack.Options{})
	s.Namespace = production.Namespace
	s.Setenv("EARMARK_TEMPORAL_PREFIX", "staging")
	server := s.Serve().Ready()
	staging := &env{Stack: s, api: api{t: t, base: server.URL}, server: server}

	held := map[*env]earmark.Reservation{}
	budgets := map[*env]string{}
	for _, b := range []*env{production, staging} {
		budgets[b] = b.budget("acme", "tokens", 1000)
		held[b] = b.hold("one", tokens("acme", 100, 120))
	}
	id := held[production].ID
	require.Equal(t, id, held[staging].ID)
	require.Equal(t, "reservation-"+id, held[production].WorkflowID)
	require.Equal(t, "staging-reservation-"+id, held[staging].WorkflowID)
	require.Equal(t, "staging-earmark", staging.queue(held[staging].WorkflowID))
	require.Equal(t, "earmark", production.queue(held[production].WorkflowID))

	// A settlement reaches the installation's own workflow.
	staging.commit(id, 40).status(t, http.StatusOK)
	stack.Eventually(t, moment, "the end of the workflow", func() bool { return staging.gone(held[staging].WorkflowID) })
	staging.requireBalance(budgets[staging], 0, 40)
	require.Equal(t, earmark.StateHeld, production.reservation(id).State)
	require.False(t, production.gone(held[production].WorkflowID))

	// A reconciler takes no other installation's workflow for the one that it looks for.
	require.NoError(t, lose["terminated"](production, held[production].WorkflowID))
	again := staging.hold("two", tokens("acme", 100, 120))
	require.Equal(t, again.ID, production.hold("two", tokens("acme", 100, 120)).ID)
	require.NoError(t, lose["terminated"](staging, again.WorkflowID))
	production.reconcile("earmark-reconcile")
	stack.Eventually(t, moment, "a new workflow", func() bool { return !production.gone(held[production].WorkflowID) })
	require.True(t, staging.gone(again.WorkflowID))
	staging.reconcile("staging-earmark-reconcile")
	stack.Eventually(t, moment, "a new workflow", func() bool { return !staging.gone(again.WorkflowID) })
	require.Equal(t, "staging-earmark", staging.queue(again.WorkflowID))
	for _, b := range []*env{production, staging} {
		require.Equal(t, "ready: postgres, temporal, worker answer\n", b.MustRun("health", "--url", b.base))
	}
}

// What is stuck in one installation is in no other's list, nor found by the searches that its status page links to.
func TestStuckListsOfTwoPrefixes(t *testing.T) {
	t.Parallel()
	production := setup(t, stack.Options{})
	s := stack.New(t, stack.Options{})
	s.Namespace = production.Namespace
	server := s.Serve("--temporal-prefix", "staging", "--without-worker").Ready()
	staging := &env{Stack: s, api: api{t: t, base: server.URL}, server: server}

	// A workflow whose row is lost, marked as one whose settlement keeps failing; no worker takes its tasks.
	request := earmark.ReservationRequest{Scopes: []string{"acme"}, Amounts: earmark.Amounts{"tokens": 100}}.WithDefaults()
	id := earmark.ReservationID(earmark.DefaultTenant, "lost")
	admission := earmark.Admission{ID: id, Tenant: earmark.DefaultTenant, Request: request, RequestHash: request.Hash(), WorkflowID: workflows.Prefix("staging").ReservationWorkflowID(id)}
	_, err := s.Client().ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: admission.WorkflowID, TaskQueue: "staging-earmark",
		TypedSearchAttributes: temporal.NewSearchAttributes(workflows.AttributeState.ValueSet(workflows.StateAttributeSettling), workflows.AttributeTenant.ValueSet(earmark.DefaultTenant)),
	}, workflows.ReservationType, workflows.ReservationInput{Admission: admission, Adopt: true, Unindexed: true})
	require.NoError(t, err)
	search := "EarmarkState = '" + workflows.StateAttributeSettling + "' AND TaskQueue = "
	production.awaitFound(1, search+"'staging-earmark'")
	for title, query := range searches(production.stuck()) {
		require.Zero(t, production.found(query), title)
	}
	require.Empty(t, production.stuck().Data)

	stuck := staging.stuck()
	require.Len(t, stuck.Data, 1)
	require.Equal(t, id, stuck.Data[0].ID)
	require.Equal(t, earmark.StuckSettlementFailing, stuck.Data[0].Stuck.Reason)
	stack.Eventually(t, moment, "Temporal to find it", func() bool { return staging.found(searches(stuck)["settlement keeps failing"]) == 1 })
}

func TestPrefixIsChecked(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{Unmigrated: true})
	for _, prefix := range []string{"Staging", "staging-", "a--b", "a b", "a'", "ä", "abcdefghijklmnopqrstuvwxyz-0123456"} {
		result := s.Run("serve", "--temporal-prefix", prefix)
		require.Equal(t, 2, result.Code, prefix)
		require.Contains(t, result.Stderr, "--temporal-prefix: ")
		require.Contains(t, result.Stderr, "such as staging")
	}
}

// queue is the task queue of a workflow.
func (b *env) queue(workflowID string) string {
	b.t.Helper()
	description, err := b.Client().DescribeWorkflowExecution(b.t.Context(), workflowID, "")
	require.NoError(b.t, err)
	return description.GetExecutionConfig().GetTaskQueue().GetName()
}

func searches(page earmark.StuckPage) map[string]string {
	byTitle := map[string]string{}
	for _, search := range page.Searches {
		byTitle[search.Title] = search.Query
	}
	return byTitle
}
