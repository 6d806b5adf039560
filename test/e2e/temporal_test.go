//go:build unix

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

// maxEvents is the aim for the history of one lifecycle.
const maxEvents = 14

// describe describes the workflow of a reservation.
func (b *env) describe(id string) *client.WorkflowExecutionDescription {
	b.t.Helper()
	description, err := b.Client().DescribeWorkflow(b.t.Context(), "reservation-"+id, "")
	require.NoError(b.t, err)
	return description
}

// awaitClosed polls until the workflow of a reservation has closed.
func (b *env) awaitClosed(id string, status enumspb.WorkflowExecutionStatus) {
	b.t.Helper()
	stack.Eventually(b.t, moment, "the workflow of "+id+" to be "+status.String(), func() bool { return b.describe(id).Status == status })
}

// awaitGuarded polls until the reservation's workflow has set the lease's timer: its settle window is over.
func (b *env) awaitGuarded(id string) {
	b.t.Helper()
	stack.Eventually(b.t, moment, "the timer of "+id, func() bool {
		return slices.ContainsFunc(b.history(id), func(event *historypb.HistoryEvent) bool {
			return event.GetEventType() == enumspb.EVENT_TYPE_TIMER_STARTED
		})
	})
}

// found counts the workflows that a query of the visibility store finds.
func (b *env) found(query string) int64 {
	b.t.Helper()
	response, err := b.Client().CountWorkflow(b.t.Context(), &workflowservice.CountWorkflowExecutionsRequest{Query: query})
	require.NoError(b.t, err)
	return response.GetCount()
}

func (b *env) awaitFound(count int64, query string) {
	b.t.Helper()
	stack.Eventually(b.t, moment, query, func() bool { return b.found(query) == count })
}

// reconcile runs the reconciler now, as if all reservations had been looked at long ago.
func (b *env) reconcile(schedule string) {
	b.t.Helper()
	b.Exec("UPDATE earmark.reservations SET checked_at = clock_timestamp() - interval '1 hour'")
	stack.Eventually(b.t, moment, "the reconciler's schedule", func() bool {
		return b.Client().ScheduleClient().GetHandle(b.t.Context(), schedule).Trigger(b.t.Context(), client.ScheduleTriggerOptions{}) == nil
	})
}

// What an operator sees of a reservation in Temporal, and what it costs there.
func TestWorkflowIsVisible(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	b.budget("acme", "tokens", 1000)
	held := b.hold("one", tokens("acme", 600, 120))
	b.hold("other", tokens("acme/ml/u1", 100, 120))

	description := b.describe(held.ID)
	require.Equal(t, "reservation-"+held.ID, held.WorkflowID)
	require.Equal(t, "Reservation", description.WorkflowType.Name)
	require.Equal(t, enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, description.Status)
	summary, err := description.GetStaticSummary()
	require.NoError(t, err)
	require.Equal(t, "acme · 600 tokens", summary)
	details, err := description.GetStaticDetails()
	require.NoError(t, err)
	require.Contains(t, details, held.ID)
	b.awaitFound(2, "EarmarkScope = 'acme' AND ExecutionStatus = 'Running'") // on it and under it
	b.awaitFound(1, "EarmarkScope = 'acme/ml'")
	b.awaitFound(1, "EarmarkScope = 'acme/ml/u1'")
	require.EqualValues(t, 2, b.found("EarmarkTenant = 'default' AND EarmarkExpiresAt > '"+time.Now().UTC().Format(time.RFC3339)+"'"))
	require.Zero(t, b.found("EarmarkScope = 'acm'"))

	b.commit(held.ID, 430).status(t, http.StatusOK)
	b.awaitClosed(held.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	require.LessOrEqual(t, b.describe(held.ID).HistoryLength, maxEvents)
}

// The longest request that validation lets through has a workflow, which is found by the parents of its scopes.
func TestLongestRequestIsAdmitted(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	request := earmark.ReservationRequest{TTLSeconds: 120, Amounts: earmark.Amounts{}, Metadata: earmark.Metadata{}, Coverage: earmark.CoverageAnyScope}
	for n := range earmark.MaxScopes {
		scope := fmt.Sprint("longest", n)
		for depth := range earmark.MaxScopeDepth - 1 {
			scope += fmt.Sprintf("/%d%d", n, depth) + strings.Repeat("x", 31)
		}
		scope += strings.Repeat("y", earmark.MaxScopeBytes-len(scope))
		request.Scopes = append(request.Scopes, scope)
		b.budget(scope, fmt.Sprintf("u%031d", n), 10)
		request.Amounts[fmt.Sprintf("u%031d", n)] = 1
	}
	for n := range earmark.MaxMetadataKeys {
		request.Metadata[strings.Repeat("<", earmark.MaxMetadataBytes-2)+fmt.Sprintf("%02d", n)] = strings.Repeat("|", earmark.MaxMetadataBytes)
	}
	require.NoError(t, request.WithDefaults().Validate())
	body, err := json.Marshal(request)
	require.NoError(t, err)
	held := b.hold("one", strings.ReplaceAll(string(body), `\u003c`, "<"))
	b.awaitFound(1, "EarmarkScope = 'longest7' AND ExecutionStatus = 'Running'")
	b.do("POST", "/v1/reservations/"+held.ID+"/release", `{}`).status(t, http.StatusOK)
	b.awaitClosed(held.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
}

// Clients that know nothing of Go or of Earmark's types send plain JSON.
func TestPlainMessages(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	budget := b.budget("acme", "tokens", 1000)
	update := func(id, name string, payload, answer any) error {
		ctx, cancel := context.WithTimeout(t.Context(), moment)
		defer cancel()
		handle, err := b.Client().UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
			WorkflowID: "reservation-" + id, UpdateName: name, Args: []any{payload}, WaitForStage: client.WorkflowUpdateStageCompleted,
		})
		if err != nil {
			return err
		}
		return handle.Get(ctx, answer)
	}
	signal := func(id, name string, payload any) {
		require.NoError(t, b.Client().SignalWorkflow(t.Context(), "reservation-"+id, "", name, payload))
	}

	updated := b.hold("update", tokens("acme", 100, 60)).ID
	var answer map[string]any
	require.Error(t, update(updated, "commit", map[string]any{"usage": map[string]any{"tokens": -1}}, &answer))
	require.Error(t, update(updated, "commit", "nonsense", &answer))
	require.Error(t, update(updated, "explode", usage(1), &answer))
	value, err := b.Client().QueryWorkflow(t.Context(), "reservation-"+updated, "", "reservation")
	require.NoError(t, err)
	var view map[string]any
	require.NoError(t, value.Get(&view))
	require.Equal(t, updated, view["reservation_id"])
	require.Equal(t, "held", view["standing"].(map[string]any)["state"])
	require.NoError(t, update(updated, "commit", usage(81), &answer))
	require.Equal(t, "applied", answer["outcome"])
	require.Equal(t, "committed", answer["state"])

	signalled := b.hold("signal", tokens("acme", 100, 60)).ID
	signal(signalled, "commit", "nonsense")
	signal(signalled, "commit", map[string]any{"usage": map[string]any{}})
	signal(signalled, "commit", map[string]any{"usage": map[string]any{"tokens": 1.5}})
	signal(signalled, "extend", map[string]any{"ttl_seconds": -1})
	signal(signalled, "unheard_of", nil)
	signal(signalled, "extend", map[string]any{"ttl_seconds": 3600})
	stack.Eventually(t, moment, "the extension", func() bool { return b.reservation(signalled).ExpiresAt.After(time.Now().Add(50 * time.Minute)) })
	signal(signalled, "commit", usage(7))
	require.Equal(t, earmark.Amounts{"tokens": 7}, b.awaitState(signalled, earmark.StateCommitted, moment).Usage)

	byHand := b.hold("cli", tokens("acme", 100, 60)).ID
	result := stack.RunCommand(t, b.Env(), temporalCLI(t), "workflow", "signal", "--workflow-id", "reservation-"+byHand, "--name", "commit",
		"--input", `{"usage":{"tokens":3}}`, "--address", b.Temporal.Address(), "--namespace", b.Namespace)
	require.Zero(t, result.Code, result.Stderr)
	b.awaitState(byHand, earmark.StateCommitted, moment)

	released := b.hold("release", tokens("acme", 100, 60)).ID
	signal(released, "release", map[string]any{"reason": "not called"})
	require.Equal(t, "not called", b.awaitState(released, earmark.StateReleased, moment).Reason)
	for _, id := range []string{updated, signalled, byHand, released} {
		b.awaitClosed(id, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	}
	b.requireBalance(budget, 0, 81+7+3)
}

// An operator's cancellation is an expiry with a reason: what turns up later is
// charged all the same.
func TestCancelledWorkflow(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	budget := b.budget("acme", "tokens", 100)
	held := b.hold("one", tokens("acme", 60, 120))
	require.NoError(t, b.Client().CancelWorkflow(t.Context(), held.WorkflowID, ""))
	expired := b.awaitState(held.ID, earmark.StateExpired, moment)
	require.Equal(t, "the workflow was cancelled", expired.Reason)
	b.requireBalance(budget, 0, 0)
	b.awaitClosed(held.ID, enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED)
	b.do("POST", "/v1/reservations", tokens("acme", 60, 120), "Idempotency-Key", "one").problem(t, http.StatusGone, earmark.CodeReservationExpired)
	b.commitLate(held.ID, 150)
	b.requireBalance(budget, 0, 150)
}

// lose are the ways to lose a workflow whose reservation is held.
var lose = map[string]func(*env, string) error{
	"terminated": func(b *env, workflowID string) error {
		return b.Client().TerminateWorkflow(b.t.Context(), workflowID, "", "a test")
	},
	"deleted": func(b *env, workflowID string) error {
		_, err := b.Client().WorkflowService().DeleteWorkflowExecution(b.t.Context(), &workflowservice.DeleteWorkflowExecutionRequest{
			Namespace: b.Namespace, WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: workflowID},
		})
		return err
	},
}

// gone reports whether a workflow is closed or not there at all.
func (b *env) gone(workflowID string) bool {
	description, err := b.Client().DescribeWorkflow(b.t.Context(), workflowID, "")
	return err != nil || description.Status != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
}

// The row of a lost workflow expires by itself.
func TestLostWorkflowIsSwept(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{Grace: time.Second})
	budget := b.budget("acme", "tokens", 1000)
	held := map[string]earmark.Reservation{}
	for how, loseWorkflow := range lose {
		held[how] = b.hold(how, tokens("acme", 100, 2))
		require.NoError(t, loseWorkflow(b, held[how].WorkflowID), how)
	}
	for how, reservation := range held {
		b.awaitState(reservation.ID, earmark.StateExpired, moment)
		journal := b.entries(reservation.ID)
		require.Equal(t, earmark.ActorSweeper.String(), journal[len(journal)-1].Actor, how)
	}
	b.requireBalance(budget, 0, 0)
	for _, reservation := range held {
		b.commitLate(reservation.ID, 40)
	}
	b.requireBalance(budget, 0, 80)
}

// The reconciler gives a lost workflow's reservation a new one, which guards it as
// the first did.
func TestLostWorkflowIsAdopted(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	budget := b.budget("acme", "tokens", 1000)
	var held []earmark.Reservation
	for how, loseWorkflow := range lose {
		for _, then := range []string{"commit", "expire"} {
			reservation := b.hold(how+then, tokens("acme", 100, 300))
			held = append(held, reservation)
			b.awaitGuarded(reservation.ID)
			require.NoError(t, loseWorkflow(b, reservation.WorkflowID), how)
			stack.Eventually(t, moment, how, func() bool { return b.gone(reservation.WorkflowID) })
		}
	}
	untouched := b.hold("untouched", tokens("acme", 100, 300))
	run := b.describe(untouched.ID).WorkflowExecution.RunID
	b.reconcile("earmark-reconcile")
	for i, reservation := range held {
		stack.Eventually(t, moment, "the adoption", func() bool { return !b.gone(reservation.WorkflowID) })
		adoption := b.entries(reservation.ID)
		require.Equal(t, "adopt", adoption[len(adoption)-1].Kind)
		require.Equal(t, earmark.ActorReconciler.String(), adoption[len(adoption)-1].Actor)
		if i%2 == 0 {
			settled := decoded[earmark.Reservation](t, b.commit(reservation.ID, 40).status(t, http.StatusOK))
			require.False(t, settled.Late)
			b.awaitClosed(reservation.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
			continue
		}
		require.NoError(t, b.Client().CancelWorkflow(t.Context(), reservation.WorkflowID, ""))
		b.awaitState(reservation.ID, earmark.StateExpired, moment)
		b.commitLate(reservation.ID, 5)
	}
	require.Equal(t, run, b.describe(untouched.ID).WorkflowExecution.RunID, "what has a guardian keeps it")
	b.requireBalance(budget, 100, 90)
}

// A run that is reset begins again, and finds the reservation as it is.
func TestResetWorkflow(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	budget := b.budget("acme", "tokens", 1000)
	const firstTaskCompleted = 4 // after started, scheduled, started
	reset := func(held earmark.Reservation) {
		_, err := b.Client().ResetWorkflowExecution(t.Context(), &workflowservice.ResetWorkflowExecutionRequest{
			Namespace: b.Namespace, WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: held.WorkflowID},
			Reason: "a test", WorkflowTaskFinishEventId: firstTaskCompleted, RequestId: held.ID,
		})
		require.NoError(t, err)
	}
	open, settled := b.hold("open", tokens("acme", 100, 300)), b.hold("settled", tokens("acme", 100, 300))
	b.commit(settled.ID, 30).status(t, http.StatusOK)
	b.awaitClosed(settled.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	b.awaitGuarded(open.ID)
	reset(open)
	reset(settled)
	b.awaitClosed(settled.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	b.requireBalance(budget, 100, 30)
	require.False(t, decoded[earmark.Reservation](t, b.commit(open.ID, 50).status(t, http.StatusOK)).Late)
	b.awaitClosed(open.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	b.requireBalance(budget, 0, 80)
}

// Histories are readable for clients and people without Go.
func TestHistoryIsPlainJSON(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	b.budget("acme", "tokens", 1000)
	held := b.hold("one", tokens("acme", 600, 120))
	b.commit(held.ID, 430).status(t, http.StatusOK)
	b.awaitClosed(held.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	history := b.Client().GetWorkflowHistory(t.Context(), held.WorkflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	var payloads int
	for history.HasNext() {
		event, err := history.Next()
		require.NoError(t, err)
		var input *commonpb.Payloads
		if started := event.GetWorkflowExecutionStartedEventAttributes(); started != nil {
			input = started.GetInput()
			require.True(t, started.GetEagerExecutionAccepted(), "the first task ran in the server itself")
		} else if closed := event.GetWorkflowExecutionCompletedEventAttributes(); closed != nil {
			input = closed.GetResult()
		}
		for _, payload := range input.GetPayloads() {
			payloads++
			require.Equal(t, converter.MetadataEncodingJSON, string(payload.GetMetadata()[converter.MetadataEncoding]))
			require.True(t, json.Valid(payload.GetData()))
		}
	}
	require.Equal(t, 2, payloads)
}

// temporalCLI finds the binary that runs the server, too.
func temporalCLI(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("temporal"); err == nil {
		return path
	}
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	path, err := exec.LookPath(filepath.Join(root, "bin", "temporal"))
	require.NoError(t, err, "run `make build`")
	return path
}

// A reservation that lasts does not wait for its workflow: with no worker alive a
// commit goes past it, and it closes when a worker is back.
func TestCommitWithoutWorker(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{}, "--without-worker")
	worker := b.Worker()
	budget := b.budget("acme", "tokens", 1000)
	committed, released := b.hold("commit", tokens("acme", 100, 300)), b.hold("release", tokens("acme", 100, 300))
	worker.Kill()
	answers := together(2, func(i int) exchange {
		if i == 0 {
			return b.try("POST", "/v1/reservations/"+committed.ID+"/commit", `{"usage":{"tokens":70}}`)
		}
		return b.try("POST", "/v1/reservations/"+released.ID+"/release", "")
	})
	for i, state := range []earmark.State{earmark.StateCommitted, earmark.StateReleased} {
		reservation := decoded[earmark.Reservation](t, answers[i].status(t, http.StatusOK))
		require.Equal(t, state, reservation.State)
		require.Less(t, answers[i].took, 4*time.Second, "about a second for the workflow, then the ledger")
		journal := b.entries(reservation.ID)
		require.Equal(t, earmark.ActorAPI.String(), journal[len(journal)-1].Actor)
	}
	b.requireBalance(budget, 0, 70)
	worker.Start()
	b.awaitClosed(committed.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	b.awaitClosed(released.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	b.requireBalance(budget, 0, 70)
}

// With no worker alive there is no decision, and none is made later behind the
// caller's back.
func TestReserveWithoutWorker(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{AdmissionDeadline: 2 * time.Second}, "--without-worker")
	budget := b.budget("acme", "tokens", 1000)
	body := tokens("acme", 100, 300)
	const calls = 3
	for i, x := range together(calls, func(i int) exchange {
		return b.try("POST", "/v1/reservations", body, "Idempotency-Key", fmt.Sprint("key-", i))
	}) {
		p := x.problem(t, http.StatusServiceUnavailable, earmark.CodeAdmissionUnknown)
		require.Equal(t, earmark.ReservationID(earmark.DefaultTenant, fmt.Sprint("key-", i)), p.ReservationID)
		require.Equal(t, "1", x.header.Get("Retry-After"))
		require.InDelta(t, 2, x.took.Seconds(), 1, "the admission deadline")
	}
	worker := b.Worker()
	for i := range calls {
		b.awaitClosed(earmark.ReservationID(earmark.DefaultTenant, fmt.Sprint("key-", i)), enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	}
	b.requireBalance(budget, 0, 0)
	held := b.hold("key-0", body)
	b.requireBalance(budget, 100, 0)
	b.commit(held.ID, 100).status(t, http.StatusOK)

	// A retry may come while the first attempt's workflow still waits for a worker,
	// and Temporal may take ten seconds to see that a worker was killed.
	worker.Kill()
	b.do("POST", "/v1/reservations", body, "Idempotency-Key", "retried").problem(t, http.StatusServiceUnavailable, earmark.CodeAdmissionUnknown)
	worker.Start()
	stack.Eventually(t, 2*moment, "the retry", func() bool {
		x := b.do("POST", "/v1/reservations", body, "Idempotency-Key", "retried")
		require.Contains(t, []int{http.StatusCreated, http.StatusServiceUnavailable}, x.code, "%s", x.body)
		return x.code == http.StatusCreated
	})
	b.requireBalance(budget, 100, 100)
}
