package workflows_test

import (
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	sdkpb "go.temporal.io/api/sdk/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
	"github.com/earmark-dev/earmark/internal/ledgertest"
	"github.com/earmark-dev/earmark/internal/workflowstore"
	"github.com/earmark-dev/earmark/workflows"
	"github.com/earmark-dev/earmark/workflows/card"
)

// One lifecycle next to its worker: the first task comes with the start, and the
// history stays small, since its length is what a lifecycle costs Temporal.
func TestLifecycleIsEagerAndSmall(t *testing.T) {
	const mostEvents = 14
	r := onTemporal(t)
	r.work()
	r.start(eagerly)
	r.eventually("reserve", 1)
	answer := r.update(workflows.MessageCommit, used(70))
	require.Equal(t, earmark.OutcomeApplied, answer.Outcome)
	r.ends(earmark.OutcomeApplied, earmark.StateCommitted)
	r.holds(0, 70)

	events := r.history()
	require.True(t, events[0].GetWorkflowExecutionStartedEventAttributes().GetEagerExecutionAccepted())
	require.Equal(t, identity, r.events(enumspb.EVENT_TYPE_WORKFLOW_TASK_STARTED)[0].GetWorkflowTaskStartedEventAttributes().GetIdentity())
	require.LessOrEqual(t, len(events), mostEvents)
	require.Empty(t, r.events(enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED))
	require.Zero(t, events[0].GetWorkflowExecutionStartedEventAttributes().GetWorkflowExecutionTimeout().AsDuration(), "it would end without cleanup")
	require.Zero(t, events[0].GetWorkflowExecutionStartedEventAttributes().GetWorkflowRunTimeout().AsDuration())
}

func TestUpdateWithStart(t *testing.T) {
	r := onTemporal(t)
	r.work()
	require.Equal(t, earmark.OutcomeApplied, r.startAndAsk().Outcome)
	require.Equal(t, earmark.OutcomeApplied, r.startAndAsk().Outcome, "the second attempt is attached to the first one's workflow")
	require.Equal(t, 1, r.ledger.count("reserve"))
	require.Equal(t, earmark.StateReleased, r.update(workflows.MessageRelease, workflows.ReleaseMessage{}).State)
	r.ends(earmark.OutcomeApplied, earmark.StateReleased)
	// The id of a closed workflow may be used again: Postgres knows it.
	again := r.startAndAsk()
	require.Equal(t, earmark.OutcomeSame, again.Outcome)
	require.Equal(t, earmark.StateReleased, again.State)
}

// A denial is published with the workflow's end alone. While its last task runs,
// a signal arrives; Temporal drops the task with its no, and the next task decides
// again. Nobody may have heard of the first decision.
func TestNoAdmissionAfterAPublishedNo(t *testing.T) {
	r := onTemporal(t)
	r.admission.Request.Amounts = earmark.Amounts{testUnit: testLimit + 1}
	r.ledger.setBefore(func(verb string, nth int) error {
		if verb != "reserve" || nth != 2 {
			return nil
		}
		limit := int64(2 * testLimit) // by the second try it fits
		r.ledger.past(func(m *ledgertest.Ledger) (earmark.Result, error) {
			page, err := m.Budgets(t.Context(), testTenant, earmark.BudgetFilter{})
			require.NoError(t, err)
			_, err = m.PatchBudget(t.Context(), testTenant, page.Data[0].ID, earmark.BudgetPatch{Limit: &limit}, earmark.ActorAPI)
			return earmark.Result{}, err
		})
		return nil
	})
	r.ledger.after = func(verb string, nth int) {
		if verb == "reserve" && nth == 1 {
			r.signal(workflows.SignalRefresh, nil) // within the task that is about to close the workflow
		}
	}
	r.work()
	require.Equal(t, earmark.OutcomeApplied, r.startAndAsk().Outcome, "the no of the failed task was published")
	require.Equal(t, 2, r.ledger.count("reserve"))
	failed := r.events(enumspb.EVENT_TYPE_WORKFLOW_TASK_FAILED)
	require.Len(t, failed, 1)
	require.Equal(t, enumspb.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND, failed[0].GetWorkflowTaskFailedEventAttributes().GetCause())
	r.holds(testLimit+1, 0)
	r.signal(workflows.MessageRelease, nil)
	r.ends(earmark.OutcomeApplied, earmark.StateReleased)
}

// The same, and the no stands: it is decided twice and published once.
func TestDenialWithASignalInItsLastTask(t *testing.T) {
	t.Parallel()
	for name, send := range map[string]func(*temporalEnv){
		workflows.MessageCommit:  func(r *temporalEnv) { r.signal(workflows.MessageCommit, used(70)) },
		workflows.MessageRelease: func(r *temporalEnv) { r.signal(workflows.MessageRelease, nil) },
		workflows.SignalExtend:   func(r *temporalEnv) { r.signal(workflows.SignalExtend, workflows.ExtendMessage{TTLSeconds: 60}) },
	} {
		t.Run(name, func(t *testing.T) {
			r := onTemporal(t)
			r.admission.Request.Amounts = earmark.Amounts{testUnit: testLimit + 1}
			r.ledger.after = func(verb string, nth int) {
				if verb == "reserve" && nth == 1 {
					send(r)
				}
			}
			r.work()
			r.start()
			ending := r.ending()
			require.Equal(t, 2, r.ledger.count("reserve"))
			require.Len(t, r.events(enumspb.EVENT_TYPE_WORKFLOW_TASK_FAILED), 1)
			r.holds(0, 0)
			if name == workflows.MessageRelease { // the second time it is known that it was released
				require.Equal(t, earmark.StateReleased, ending.State)
				return
			}
			require.Equal(t, earmark.OutcomeDenied, ending.Outcome)
			require.NotNil(t, ending.Decision)
		})
	}
}

// Messages wait in Temporal for a worker, and are applied in the right order.
func TestMessagesBeforeTheWorker(t *testing.T) {
	t.Parallel()
	t.Run("commit and release", func(t *testing.T) {
		r := onTemporal(t)
		r.start()
		r.signal(workflows.MessageRelease, workflows.ReleaseMessage{})
		r.signal(workflows.MessageCommit, used(70))
		r.work()
		r.ends(earmark.OutcomeConflict, earmark.StateCommitted)
		r.holds(0, 70)
		require.Len(t, r.events(enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED), 1)
	})
	t.Run("release", func(t *testing.T) {
		r := onTemporal(t)
		r.start()
		r.signal(workflows.MessageRelease, workflows.ReleaseMessage{})
		r.work()
		r.ends(earmark.OutcomeSame, earmark.StateReleased)
		require.True(t, r.ledger.admitted()[0].Released)
	})
	t.Run("commit, and the reserve is too late", func(t *testing.T) {
		r := onTemporal(t)
		r.admission.AdmitBy = time.Now().Add(-time.Second)
		r.start()
		r.signal(workflows.MessageCommit, used(70))
		r.work()
		r.ends(earmark.OutcomeApplied, earmark.StateCommitted)
		r.holds(0, 70)
	})
}

// A timer runs in Temporal while no worker does. What else came meanwhile is in the
// same task with it, and a completion goes first.
func TestWorkerIsAwayWhenTheLeaseEnds(t *testing.T) {
	t.Parallel()
	t.Run("and nothing else happens", func(t *testing.T) {
		r := onTemporal(t)
		r.admission.Request.TTLSeconds = 1
		stop := r.work()
		r.startAndAsk()
		stop()
		require.Eventually(t, func() bool { return len(r.events(enumspb.EVENT_TYPE_TIMER_FIRED)) == 1 }, patience, 20*time.Millisecond)
		require.Equal(t, earmark.StateHeld, r.ledger.row(r.admission.ID).State)
		r.work()
		r.ends(earmark.OutcomeApplied, earmark.StateExpired)
		require.Equal(t, []string{"reserve", "expire"}, r.ledger.journal())
	})
	t.Run("and the usage arrives", func(t *testing.T) {
		r := onTemporal(t)
		r.admission.Request.TTLSeconds = 1
		stop := r.work()
		r.startAndAsk()
		stop()
		require.Eventually(t, func() bool { return len(r.events(enumspb.EVENT_TYPE_TIMER_FIRED)) == 1 }, patience, 20*time.Millisecond)
		r.signal(workflows.MessageCommit, used(70))
		r.work()
		r.ends(earmark.OutcomeApplied, earmark.StateCommitted)
		require.Equal(t, []string{"reserve", "commit"}, r.ledger.journal())
	})
}

// A workflow that left the worker's cache is rebuilt from its history, without
// asking the ledger again.
func TestCacheIsPurged(t *testing.T) {
	r := onTemporal(t)
	r.work()
	r.startAndAsk()
	r.signal(workflows.SignalExtend, workflows.ExtendMessage{TTLSeconds: 100})
	r.eventually("extend", 1)
	worker.PurgeStickyWorkflowCache()
	r.update(workflows.MessageCommit, used(70))
	r.ends(earmark.OutcomeApplied, earmark.StateCommitted)
	require.Equal(t, []string{"reserve", "extend", "commit"}, r.ledger.journal())
}

func TestCancelOnTemporal(t *testing.T) {
	r := onTemporal(t)
	r.work()
	r.startAndAsk()
	require.NoError(t, r.client.CancelWorkflow(r.ctx, r.admission.WorkflowID, ""))
	err := r.client.GetWorkflow(r.ctx, r.admission.WorkflowID, "").Get(r.ctx, nil)
	var canceled *temporal.CanceledError
	require.ErrorAs(t, err, &canceled)
	require.Len(t, r.events(enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED), 1)
	require.Equal(t, earmark.StateExpired, r.ledger.row(r.admission.ID).State)
	r.holds(0, 0)
}

// What the reconciler sees of a workflow, and what it does about it.
func TestGuardians(t *testing.T) {
	r := onTemporal(t)
	g := &workflowstore.Store{Client: r.client}
	var notFound *serviceerror.NotFound
	_, err := g.Status(r.ctx, r.admission.WorkflowID)
	require.ErrorAs(t, err, &notFound)
	require.ErrorAs(t, g.Refresh(r.ctx, r.admission.WorkflowID), &notFound)

	status := func(want enumspb.WorkflowExecutionStatus) {
		t.Helper()
		is, err := g.Status(r.ctx, r.admission.WorkflowID)
		require.NoError(t, err)
		require.Equal(t, want, is)
	}
	ends := func(want activities.Snapshot) {
		t.Helper()
		is, err := g.Result(r.ctx, r.admission.WorkflowID)
		require.NoError(t, err)
		require.Equal(t, want, is)
	}
	_, err = g.Result(r.ctx, r.admission.WorkflowID)
	require.ErrorAs(t, err, &notFound)
	stop := r.work()
	created := r.startAndAsk().CreatedAt
	status(enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING)
	lists := func(want map[string]bool) {
		t.Helper()
		require.Eventually(t, func() bool { // visibility lags behind
			is, err := g.Open(r.ctx, []string{r.admission.WorkflowID, "reservation-none", "it's"})
			return err == nil && maps.Equal(want, is)
		}, 10*time.Second, 50*time.Millisecond)
	}
	lists(map[string]bool{r.admission.WorkflowID: true})
	ends(activities.Snapshot{})
	r.update(workflows.MessageCommit, used(70))
	lists(map[string]bool{})
	r.ends(earmark.OutcomeApplied, earmark.StateCommitted)
	status(enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	ends(activities.Snapshot{Outcome: earmark.OutcomeApplied, State: earmark.StateCommitted, OnExpiry: earmark.OnExpiryRelease, Usage: used(70).Usage, CreatedAt: created})
	r.ledger.lose()
	r.startAndAsk() // the id of a closed workflow may be used again
	require.NoError(t, r.client.TerminateWorkflow(r.ctx, r.admission.WorkflowID, "", "test"))
	status(enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED)
	ends(activities.Snapshot{})
	r.holds(100, 0)
	stop()

	// The adopting workflow is on the product's own task queue, where nobody works here.
	check := earmark.Check{ID: r.admission.ID, Tenant: testTenant, WorkflowID: r.admission.WorkflowID, State: earmark.StateHeld,
		Request: r.admission.Request, RequestHash: r.admission.RequestHash, ExpiresAt: time.Now()}
	require.NoError(t, g.Adopt(r.ctx, check))
	require.NoError(t, g.Adopt(r.ctx, check), "one that is open is as good")
	status(enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING)
	require.NoError(t, g.Refresh(r.ctx, r.admission.WorkflowID))
	ends(activities.Snapshot{}) // it is open
	started := r.history()[0].GetWorkflowExecutionStartedEventAttributes()
	require.Equal(t, workflows.TaskQueue, started.GetTaskQueue().GetName())
	require.Len(t, started.GetSearchAttributes().GetIndexedFields(), 3)
	require.NoError(t, r.client.TerminateWorkflow(r.ctx, r.admission.WorkflowID, "", "test"))
}

// Calls by hand often come with no payload at all, which the Go SDK never sends.
func TestNoPayloadAtAll(t *testing.T) {
	r := onTemporal(t)
	r.work()
	r.startAndAsk()
	bare := func(name string) {
		_, err := r.client.WorkflowService().SignalWorkflowExecution(r.ctx, &workflowservice.SignalWorkflowExecutionRequest{
			Namespace: client.DefaultNamespace, WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: r.admission.WorkflowID}, SignalName: name})
		require.NoError(t, err)
	}
	bare(workflows.MessageCommit)
	bare(workflows.SignalExtend)
	bare(workflows.SignalRefresh)
	r.eventually("inspect", 1)
	for _, name := range []string{workflows.MessageCommit, workflows.UpdateAdmission} {
		_, err := r.client.UpdateWorkflow(r.ctx, client.UpdateWorkflowOptions{WorkflowID: r.admission.WorkflowID, UpdateName: name, WaitForStage: client.WorkflowUpdateStageCompleted})
		require.NoError(t, err, "the refusal comes with the result")
	}
	bare(workflows.MessageRelease)
	r.ends(earmark.OutcomeApplied, earmark.StateReleased)
	require.Equal(t, []string{"reserve", "inspect", "release"}, r.ledger.journal())
	require.Empty(t, r.events(enumspb.EVENT_TYPE_WORKFLOW_TASK_FAILED))
}

// A client of another language starts a workflow with an input that no reservation can
// have: the workflow ends with the reason, and nothing is tried again and again.
func TestInvalidInputEndsTheWorkflow(t *testing.T) {
	r := onTemporal(t)
	r.work()
	negative := map[string]any{"id": r.admission.ID, "tenant": "acme", "request_hash": "h", "workflow_id": r.admission.WorkflowID,
		"request": map[string]any{"scopes": []string{testScope}, "amounts": map[string]any{testUnit: -5}}}
	for subject, input := range map[string]any{
		`id: "" is not a reservation's id`: map[string]any{},
		"amounts.tokens: -5 is too small":  map[string]any{"admission": negative},
	} {
		run, err := r.client.ExecuteWorkflow(r.ctx, r.options(), workflows.ReservationType, input)
		require.NoError(t, err)
		var result workflows.WorkflowResult
		require.NoError(t, run.Get(r.ctx, &result))
		require.Equal(t, earmark.OutcomeInvalid, result.Outcome)
		require.Contains(t, result.Subject, subject)
	}
	require.Empty(t, r.ledger.journal())
}

// A settlement is tried without an end, and search finds it meanwhile.
func TestPatientSettlementHasNoLimits(t *testing.T) {
	r := onTemporal(t)
	r.work()
	r.startAndAsk()
	r.ledger.away("commit")
	r.signal(workflows.MessageCommit, used(70))
	r.eventually("commit", 5) // three local tries come first
	scheduled := r.events(enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED)
	require.Len(t, scheduled, 1)
	attributes := scheduled[0].GetActivityTaskScheduledEventAttributes()
	require.Zero(t, attributes.GetRetryPolicy().GetMaximumAttempts())
	require.Zero(t, attributes.GetScheduleToCloseTimeout().AsDuration())
	require.Empty(t, attributes.GetRetryPolicy().GetNonRetryableErrorTypes())
	require.EqualValues(t, 1, attributes.GetPriority().GetPriorityKey(), "before the first tasks of new workflows")
	r.ledger.back()
	r.ends(earmark.OutcomeApplied, earmark.StateCommitted)
	r.holds(0, 70)
}

// More signals than one history should hold, and more than Temporal lets one run
// receive: the guard goes on in a new run, under the same id and in sight.
func TestFloodOfSignals(t *testing.T) {
	const suggestedAt = 4096 // events, Temporal's default
	r := onTemporal(t)
	first := r.start()
	var senders errgroup.Group
	for range 8 {
		senders.Go(func() error {
			for range suggestedAt / 2 / 8 { // each is one event, and applying it another
				if err := r.client.SignalWorkflow(r.ctx, r.admission.WorkflowID, "", workflows.SignalRefresh, nil); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, senders.Wait())
	r.work()
	r.eventually("inspect", suggestedAt/2)
	r.signal(workflows.SignalRefresh, nil) // the suggestion comes with a task
	require.Eventually(t, func() bool { return r.runID() != first.GetRunID() }, patience, 10*time.Millisecond, "the history was not begun anew")
	description, err := r.client.DescribeWorkflowExecution(r.ctx, r.admission.WorkflowID, "")
	require.NoError(t, err)
	for _, attribute := range []string{"EarmarkTenant", "EarmarkScope", "EarmarkExpiresAt"} {
		require.Contains(t, description.GetWorkflowExecutionInfo().GetSearchAttributes().GetIndexedFields(), attribute)
	}
	// The new run has no summary and no details; what they said is in its current details.
	answer, err := r.client.QueryWorkflow(r.ctx, r.admission.WorkflowID, "", "__temporal_workflow_metadata")
	require.NoError(t, err)
	var metadata sdkpb.WorkflowMetadata
	require.NoError(t, answer.Get(&metadata))
	require.Contains(t, metadata.GetCurrentDetails(), card.Summary(r.admission.Request))
	require.Contains(t, metadata.GetCurrentDetails(), card.Details(r.admission.ID, r.admission.Request))
	r.holds(100, 0)
	require.Equal(t, earmark.StateCommitted, r.update(workflows.MessageCommit, used(70)).State)
	var ending workflows.WorkflowResult
	require.NoError(t, first.Get(r.ctx, &ending), "whoever waits for the first run hears of the end")
	require.Equal(t, earmark.StateCommitted, ending.State)
	r.holds(0, 70)
	require.Equal(t, 1, r.ledger.count("reserve"))
}
