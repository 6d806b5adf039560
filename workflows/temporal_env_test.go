package workflows_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
	"github.com/earmark-dev/earmark/internal/devstack/devstacktest"
	"github.com/earmark-dev/earmark/internal/workflowstore"
	"github.com/earmark-dev/earmark/workflows"
)

var stack = devstacktest.New(devstacktest.Temporal)

func TestMain(m *testing.M) { os.Exit(stack.Main(m).Run()) }

const (
	identity = "the test's worker"
	patience = 10 * time.Second // with a busy machine
)

// temporalEnv runs Reservation workflows on a real Temporal, on a task queue of its own,
// with real workers and a ledger in memory.
type temporalEnv struct {
	*testing.T
	ctx       context.Context
	client    client.Client
	queue     string
	ledger    *fakeLedger
	admission earmark.Admission
	adopt     bool
	run       string // whose history is read; the latest when empty
}

func onTemporal(t *testing.T) *temporalEnv {
	t.Helper()
	t.Parallel()
	return newRig(t)
}

func newRig(t *testing.T) *temporalEnv {
	t.Helper()
	return newRigOn(t, stack.TemporalAddress())
}

func newRigOn(t *testing.T, address string) *temporalEnv {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	c, err := client.Dial(client.Options{HostPort: address, Identity: identity,
		Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler))})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	r := &temporalEnv{T: t, ctx: ctx, client: c, ledger: newLedger(t, time.Now), admission: admission()}
	r.queue = "queue-of-" + r.admission.ID
	return r
}

// work starts a worker and returns what stops it, which the end of the test does too.
func (r *temporalEnv) work() (stop func()) {
	w := worker.New(r.client, r.queue, worker.Options{StickyScheduleToStartTimeout: time.Second})
	w.RegisterWorkflowWithOptions(workflows.Reservation, workflow.RegisterOptions{Name: workflows.ReservationType})
	w.RegisterActivity(&activities.Reservations{Ledger: r.ledger})
	require.NoError(r, w.Start())
	r.Cleanup(w.Stop) // a second stop does nothing
	return w.Stop
}

func (r *temporalEnv) options() client.StartWorkflowOptions {
	options := workflowstore.StartOptions(r.admission, time.Now().Add(r.admission.Request.TTL()), "", false)
	options.TaskQueue = r.queue
	return options
}

func (r *temporalEnv) input() workflows.ReservationInput {
	return workflows.ReservationInput{Admission: r.admission, Adopt: r.adopt}
}

func (r *temporalEnv) start(change ...func(*client.StartWorkflowOptions)) client.WorkflowRun {
	options := r.options()
	for _, f := range change {
		f(&options)
	}
	run, err := r.client.ExecuteWorkflow(r.ctx, options, workflows.ReservationType, r.input())
	require.NoError(r, err)
	return run
}

func eagerly(options *client.StartWorkflowOptions) { options.EnableEagerStart = true }

// startAndAsk starts the workflow and waits for the decision in one call. A task
// that fails takes the question with it: then it is asked again, as a caller who
// got "unknown" does.
func (r *temporalEnv) startAndAsk() activities.Snapshot {
	for {
		standing, err := r.tryToStartAndAsk()
		var notReady *serviceerror.WorkflowNotReady
		if errors.As(err, &notReady) {
			continue
		}
		require.NoError(r, err)
		return standing
	}
}

func (r *temporalEnv) tryToStartAndAsk() (standing activities.Snapshot, err error) {
	handle, err := r.client.UpdateWithStartWorkflow(r.ctx, client.UpdateWithStartWorkflowOptions{
		StartWorkflowOperation: r.client.NewWithStartWorkflowOperation(r.options(), workflows.ReservationType, r.input()),
		UpdateOptions: client.UpdateWorkflowOptions{UpdateName: workflows.UpdateAdmission, WaitForStage: client.WorkflowUpdateStageCompleted,
			Args: []any{workflows.AdmissionMessage{RequestHash: r.admission.RequestHash}}},
	})
	if err != nil {
		return standing, err
	}
	return standing, handle.Get(r.ctx, &standing)
}

func (r *temporalEnv) runID() string {
	description, err := r.client.DescribeWorkflowExecution(r.ctx, r.admission.WorkflowID, "")
	require.NoError(r, err)
	return description.GetWorkflowExecutionInfo().GetExecution().GetRunId()
}

func (r *temporalEnv) signal(name string, payload any) {
	require.NoError(r, r.client.SignalWorkflow(r.ctx, r.admission.WorkflowID, "", name, payload))
}

func (r *temporalEnv) update(name string, payload any) activities.Snapshot {
	handle, err := r.client.UpdateWorkflow(r.ctx, client.UpdateWorkflowOptions{
		WorkflowID: r.admission.WorkflowID, UpdateName: name, Args: []any{payload}, WaitForStage: client.WorkflowUpdateStageCompleted})
	require.NoError(r, err)
	var standing activities.Snapshot
	require.NoError(r, handle.Get(r.ctx, &standing))
	return standing
}

func (r *temporalEnv) ending() workflows.WorkflowResult {
	var ending workflows.WorkflowResult
	require.NoError(r, r.client.GetWorkflow(r.ctx, r.admission.WorkflowID, "").Get(r.ctx, &ending))
	return ending
}

func (r *temporalEnv) ends(outcome earmark.Outcome, state earmark.State) {
	r.Helper()
	ending := r.ending()
	require.Equal(r, outcome, ending.Outcome)
	require.Equal(r, state, ending.State)
}

func (r *temporalEnv) holds(reserved, committed int64) {
	r.Helper()
	require.Equal(r, [2]int64{reserved, committed}, r.ledger.balance(), "reserved, committed")
}

// eventually waits until the ledger was called that often.
func (r *temporalEnv) eventually(verb string, times int) {
	r.Helper()
	require.Eventually(r, func() bool { return r.ledger.count(verb) >= times }, patience, 5*time.Millisecond, "%s was not called %d times", verb, times)
}

// history returns the events of one run.
func (r *temporalEnv) history() []*historypb.HistoryEvent {
	var events []*historypb.HistoryEvent
	iterator := r.client.GetWorkflowHistory(r.ctx, r.admission.WorkflowID, r.run, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for iterator.HasNext() {
		event, err := iterator.Next()
		require.NoError(r, err)
		events = append(events, event)
	}
	return events
}

func (r *temporalEnv) events(kind enumspb.EventType) []*historypb.HistoryEvent {
	var events []*historypb.HistoryEvent
	for _, event := range r.history() {
		if event.GetEventType() == kind {
			events = append(events, event)
		}
	}
	return events
}
