package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
	"github.com/earmark-dev/earmark/internal/ctxtime"
)

// The same job on the same ledger, as samples and good practice do it.

const (
	textbookQueue   = "bench-textbook"
	queryDecision   = "decision"
	messageCommit   = "commit"
	updateAdmission = "admission"
	// queryEvery is how long a caller waits before it asks again.
	queryEvery    = 10 * time.Millisecond
	activityTry   = 10 * time.Second
	textbookStart = "Textbook"
	practiceStart = "GoodPractice"
)

// textbook runs both, and their worker.
type textbook struct {
	on      *deployment
	worker  worker.Worker
	queries atomic.Int64
}

var ledger *activities.Reservations // for the names of its methods

// textbookWorkflow reserves, answers queries for the decision, waits for a signal
// or the end of the lease, and settles; each step is a regular activity.
func textbookWorkflow(ctx workflow.Context, admission earmark.Admission) error {
	var decision activities.Snapshot
	if err := workflow.SetQueryHandler(ctx, queryDecision, func() (activities.Snapshot, error) { return decision, nil }); err != nil {
		return err
	}
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: activityTry})
	if err := workflow.ExecuteActivity(ctx, ledger.Reserve, admission).Get(ctx, &decision); err != nil {
		return err
	}
	lease := workflow.NewTimer(ctx, admission.Request.TTL())
	settle, usage := "", earmark.Amounts{}
	workflow.NewSelector(ctx).
		AddReceive(workflow.GetSignalChannel(ctx, messageCommit), func(c workflow.ReceiveChannel, _ bool) {
			c.Receive(ctx, &usage)
			settle = messageCommit
		}).
		AddFuture(lease, func(workflow.Future) {}).
		Select(ctx)
	return settleBy(ctx, admission, settle == messageCommit, usage)
}

// practiceWorkflow answers its decision and its settlement by updates.
func practiceWorkflow(ctx workflow.Context, admission earmark.Admission) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: activityTry})
	var decision activities.Snapshot
	decided, done := false, false
	if err := workflow.SetUpdateHandler(ctx, updateAdmission, func(ctx workflow.Context) (activities.Snapshot, error) {
		err := workflow.Await(ctx, func() bool { return decided })
		return decision, err
	}); err != nil {
		return err
	}
	if err := workflow.SetUpdateHandler(ctx, messageCommit, func(ctx workflow.Context, usage earmark.Amounts) (string, error) {
		ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: activityTry})
		err := settleBy(ctx, admission, true, usage)
		done = true
		return "done", err
	}); err != nil {
		return err
	}
	if err := workflow.ExecuteActivity(ctx, ledger.Reserve, admission).Get(ctx, &decision); err != nil {
		return err
	}
	decided = true
	lease := workflow.NewTimer(ctx, admission.Request.TTL())
	if err := workflow.Await(ctx, func() bool { return done && workflow.AllHandlersFinished(ctx) || lease.IsReady() }); err != nil || done {
		return err
	}
	return settleBy(ctx, admission, false, nil)
}

// settleBy commits usage, or expires what nobody settled.
func settleBy(ctx workflow.Context, admission earmark.Admission, commit bool, usage earmark.Amounts) error {
	settlement := earmark.Transition{ID: admission.ID, Tenant: admission.Tenant, Actor: earmark.ActorWorkflow}
	if commit {
		return workflow.ExecuteActivity(ctx, ledger.Commit, activities.CommitInput{Transition: settlement, Usage: usage}).Get(ctx, nil)
	}
	return workflow.ExecuteActivity(ctx, ledger.Expire, settlement).Get(ctx, nil)
}

func startTextbook(on *deployment) (*textbook, error) {
	t := &textbook{on: on, worker: worker.New(on.temporal, textbookQueue, worker.Options{
		MaxConcurrentWorkflowTaskPollers: pollers, MaxConcurrentActivityTaskPollers: pollers,
	})}
	t.worker.RegisterWorkflowWithOptions(textbookWorkflow, workflow.RegisterOptions{Name: textbookStart})
	t.worker.RegisterWorkflowWithOptions(practiceWorkflow, workflow.RegisterOptions{Name: practiceStart})
	t.worker.RegisterActivity(&activities.Reservations{Ledger: on.ledger})
	return t, t.worker.Start()
}

// admission is a request as the API would hand it to a workflow.
func admission(n int64) earmark.Admission {
	asked := request(scopeOf(n), unitAmount)
	id := earmark.NewReservationID()
	return earmark.Admission{ID: id, Tenant: earmark.DefaultTenant, Request: asked, RequestHash: asked.Hash(), WorkflowID: "bench-" + id}
}

// startAndPoll starts the workflow and asks for the decision until it is there.
func (t *textbook) startAndPoll(ctx context.Context, n int64) (string, error) {
	a := admission(n)
	run, err := t.on.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: a.WorkflowID, TaskQueue: textbookQueue}, textbookStart, a)
	if err != nil {
		return "", err
	}
	for {
		t.queries.Add(1)
		answer, err := t.on.temporal.QueryWorkflow(ctx, run.GetID(), "", queryDecision)
		if err != nil {
			return "", err
		}
		var decision activities.Snapshot
		if err := answer.Get(&decision); err != nil {
			return "", err
		}
		if decision.Outcome != "" {
			return a.WorkflowID, admitted(decision)
		}
		if !ctxtime.Sleep(ctx, queryEvery) {
			return "", ctx.Err()
		}
	}
}

func (t *textbook) startWithUpdate(ctx context.Context, n int64) (string, error) {
	a := admission(n)
	// Of a conflict policy, one has to be said; there are no conflicts here.
	start := t.on.temporal.NewWithStartWorkflowOperation(client.StartWorkflowOptions{
		ID: a.WorkflowID, TaskQueue: textbookQueue, WorkflowIDConflictPolicy: useExisting,
	}, practiceStart, a)
	handle, err := t.on.temporal.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
		StartWorkflowOperation: start,
		UpdateOptions:          client.UpdateWorkflowOptions{UpdateName: updateAdmission, WaitForStage: client.WorkflowUpdateStageCompleted},
	})
	if err != nil {
		return "", err
	}
	var decision activities.Snapshot
	if err := handle.Get(ctx, &decision); err != nil {
		return "", err
	}
	return a.WorkflowID, admitted(decision)
}

func admitted(decision activities.Snapshot) error {
	if decision.State != earmark.StateHeld {
		return fmt.Errorf("not admitted: %s", decision.Outcome)
	}
	return nil
}

func (t *textbook) signal(ctx context.Context, id string) error {
	return t.on.temporal.SignalWorkflow(ctx, id, "", messageCommit, earmark.Amounts{unit: unitUsage})
}

func (t *textbook) update(ctx context.Context, id string) error {
	return update(ctx, t.on.temporal, id, messageCommit, earmark.Amounts{unit: unitUsage}, nil)
}

func (t *textbook) ways() []*way {
	same := func(id string) string { return id }
	return []*way{
		{key: "textbook", title: "textbook: activities, query, signal", on: t.on, admit: t.startAndPoll, settle: t.signal, drained: t.on.drained, workflowID: same},
		{key: "practice", title: "good practice: update-with-start, activities", on: t.on, admit: t.startWithUpdate, settle: t.update, workflowID: same},
	}
}

// drained reports whether nothing is held any more but what was before.
func (d *deployment) drained(ctx context.Context) (bool, error) {
	n, err := d.held(ctx)
	return n <= d.standing, err
}
