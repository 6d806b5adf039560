//go:build unix

package lifecycle_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/lifecycle"
)

// proxy is Temporal as a guard sees it; a test may stand in its calls.
type proxy struct {
	client.Client
	mu     sync.Mutex
	start  func(client.WorkflowRun, error) (client.WorkflowRun, error)
	refuse error        // instead of a start
	signal func() error // before every look who owns a workflow, and before every signal
	// firstUpdate may change the options of an update-with-start.
	firstUpdate func(*client.UpdateWorkflowOptions)
}

func (p *proxy) WorkflowService() workflowservice.WorkflowServiceClient {
	return histories{p.Client.WorkflowService(), p.signal}
}

// histories is Temporal's API with a fault where the first event of a workflow is read.
type histories struct {
	workflowservice.WorkflowServiceClient
	fault func() error
}

func (h histories) GetWorkflowExecutionHistory(ctx context.Context, request *workflowservice.GetWorkflowExecutionHistoryRequest, options ...grpc.CallOption) (*workflowservice.GetWorkflowExecutionHistoryResponse, error) {
	if h.fault != nil && request.GetMaximumPageSize() == 1 {
		if err := h.fault(); err != nil {
			return nil, err
		}
	}
	return h.WorkflowServiceClient.GetWorkflowExecutionHistory(ctx, request, options...)
}

func (p *proxy) SignalWorkflow(ctx context.Context, workflowID, runID, name string, payload any) error {
	if p.signal != nil {
		if err := p.signal(); err != nil {
			return err
		}
	}
	return p.Client.SignalWorkflow(ctx, workflowID, runID, name, payload)
}

func (p *proxy) ExecuteWorkflow(ctx context.Context, options client.StartWorkflowOptions, workflow any, args ...any) (client.WorkflowRun, error) {
	p.mu.Lock()
	start, refuse := p.start, p.refuse
	p.mu.Unlock()
	if refuse != nil {
		return nil, refuse
	}
	run, err := p.Client.ExecuteWorkflow(ctx, options, workflow, args...)
	if start != nil {
		return start(run, err)
	}
	return run, err
}

func (p *proxy) UpdateWithStartWorkflow(ctx context.Context, options client.UpdateWithStartWorkflowOptions) (client.WorkflowUpdateHandle, error) {
	if p.firstUpdate != nil {
		p.firstUpdate(&options.UpdateOptions)
	}
	return p.Client.UpdateWithStartWorkflow(ctx, options)
}

// closeWhenStarted makes a proxy's start that closes met once Temporal has started the workflow,
// or has answered with the one that is open.
func closeWhenStarted(met chan<- struct{}) func(client.WorkflowRun, error) (client.WorkflowRun, error) {
	closeMet := sync.OnceFunc(func() { close(met) })
	return func(run client.WorkflowRun, err error) (client.WorkflowRun, error) {
		if err == nil {
			closeMet()
		}
		return run, err
	}
}

func (p *proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// speculativeEnv is a guard whose starts work, so that it reserves ahead of them, and the
// counts of what it and its worker ask of the ledger from now on.
type speculativeEnv struct {
	*env
	proxy       *proxy
	here, there atomic.Int64
	stop        func()
}

func reservingAhead(t *testing.T) *speculativeEnv {
	t.Helper()
	a := &speculativeEnv{env: beside(t)}
	a.proxy = &proxy{Client: a.client}
	a.coordinator.Client = a.proxy
	a.stop = a.work()
	a.admitted(admissionOf(1))
	count := func(of *atomic.Int64) func(context.Context, string) error {
		return func(_ context.Context, verb string) error {
			if verb == "reserve" {
				of.Add(1)
			}
			return nil
		}
	}
	a.env.here.before, a.env.there.before = count(&a.here), count(&a.there)
	return a
}

// The guard reserves while the workflow starts, and the workflow takes that result:
// the ledger is asked once.
func TestCoordinatorReservesAhead(t *testing.T) {
	t.Parallel()
	a := reservingAhead(t)
	one := admissionOf(100)
	result, err := a.admit(one)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, result.Outcome)
	_, _, err = a.coordinator.Commit(a.ctx, settlementOf(one), usage) // once the workflow has decided
	require.NoError(t, err)
	require.Equal(t, earmark.StateCommitted, a.ending(one).State)
	require.Equal(t, int64(1), a.here.Load())
	require.Zero(t, a.there.Load())

	// A no is one when the workflow has closed with it.
	two := admissionOf(limit + 1)
	result, err = a.admit(two)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeDenied, result.Outcome)
	require.Equal(t, earmark.OutcomeDenied, a.ending(two).Outcome)
	require.Zero(t, a.there.Load())
}

// The call ahead fails: the workflow asks the ledger itself.
func TestCoordinatorReservesAheadInVain(t *testing.T) {
	t.Parallel()
	a := reservingAhead(t)
	a.env.here.before = func(_ context.Context, verb string) error {
		if verb == "reserve" {
			return errAway
		}
		return nil
	}
	a.admitted(admissionOf(100))
	require.Equal(t, int64(1), a.there.Load())
}

// A start that fails is no yes, whatever has been reserved; and while starts fail
// nothing more is reserved. The same key confirms it when Temporal is back.
func TestCoordinatorStartFails(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]error{
		"surely": serviceerror.NewInvalidArgument("no such search attribute"),
		"maybe":  serviceerror.NewUnavailable("the connection broke"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := reservingAhead(t)
			a.coordinator.Deadline = 500 * time.Millisecond
			a.proxy.set(func() { a.proxy.refuse = refusal })
			one, two := admissionOf(100), admissionOf(100)
			for _, admission := range []earmark.Admission{one, two} {
				result, err := a.admit(admission)
				require.Equal(t, earmark.CodeAdmissionUnknown, earmark.ErrorCode(err))
				require.Zero(t, result)
			}
			require.Eventually(t, func() bool { return a.row(one) != nil }, patience, time.Millisecond)
			require.Equal(t, int64(1), a.here.Load(), "the second reserves nothing")
			require.Nil(t, a.row(two))

			a.proxy.set(func() { a.proxy.refuse = nil })
			a.coordinator.Deadline = patience
			a.admitted(one)
			a.isOpen(one)
			a.admitted(two)
		})
	}
}

// The start lands, and its answer is lost: the next try meets that workflow.
func TestCoordinatorStartIsNotHeardOf(t *testing.T) {
	t.Parallel()
	a := reservingAhead(t)
	lost := false
	a.proxy.set(func() {
		a.proxy.start = func(run client.WorkflowRun, err error) (client.WorkflowRun, error) {
			if !lost {
				lost = true
				return nil, serviceerror.NewUnavailable("the connection broke")
			}
			return run, err
		}
	})
	one := admissionOf(100)
	a.admitted(one)
	a.isOpen(one)
	require.LessOrEqual(t, a.there.Load(), int64(1))
}

// The caller leaves: what was begun is known to the workflow.
func TestCoordinatorAdmitsWhenItsCallerLeaves(t *testing.T) {
	t.Parallel()
	a := reservingAhead(t)
	ctx, leave := context.WithCancel(a.ctx)
	a.proxy.set(func() {
		a.proxy.start = func(run client.WorkflowRun, err error) (client.WorkflowRun, error) {
			leave()
			return run, errors.Join(err, ctx.Err())
		}
	})
	one := admissionOf(100)
	one.AdmitBy = time.Now()
	_, err := a.coordinator.Admit(ctx, one)
	require.Error(t, err)
	a.proxy.set(func() { a.proxy.start = nil })
	require.Eventually(t, func() bool { return a.row(one) != nil }, patience, time.Millisecond)
	_, _, err = a.coordinator.Commit(a.ctx, settlementOf(one), usage)
	require.NoError(t, err)
	require.Equal(t, earmark.StateCommitted, a.ending(one).State)
}

// What is reserved ahead is no yes while the open workflow is that of an earlier call,
// which is about to close with its own decision.
func TestCoordinatorMeetsAWorkflowThatCloses(t *testing.T) {
	t.Parallel()
	a := reservingAhead(t)
	a.stop()
	one := admissionOf(100)
	elsewhere := &lifecycle.Coordinator{Client: a.client, Ledger: a.env.here, Unindexed: true, Logger: a.coordinator.Logger, Deadline: 100 * time.Millisecond}
	_, err := elsewhere.Admit(a.ctx, one)
	require.Equal(t, earmark.CodeAdmissionUnknown, earmark.ErrorCode(err))

	answered := make(chan error, 1)
	var once sync.Once
	a.env.there.after = func(verb string) {
		if verb != "reserve" {
			return
		}
		once.Do(func() { // the earlier call was too late, and its workflow has not closed yet
			reserved, met := make(chan struct{}), make(chan struct{})
			closeReserved := sync.OnceFunc(func() { close(reserved) })
			a.env.here.after = func(string) { closeReserved() }
			a.proxy.set(func() { a.proxy.start = closeWhenStarted(met) })
			go func() {
				result, err := a.admit(one)
				if err == nil && result.Reservation == nil {
					err = errors.New(string(result.Outcome))
				}
				answered <- err
			}()
			for _, event := range []<-chan struct{}{reserved, met} {
				select {
				case <-event:
				case <-a.ctx.Done():
				}
			}
			if len(answered) > 0 {
				t.Error("answered before the earlier workflow has closed")
			}
		})
	}
	a.work()
	require.NoError(t, <-answered)
	a.isOpen(one)
	require.Equal(t, earmark.StateHeld, a.row(one).State)
	require.Equal(t, int64(1), a.here.Load())
}

// Two bodies under one key at once, whichever's workflow starts first: those with the
// body that is reserved are admitted, the others get a mismatch.
func TestCoordinatorTwoBodiesAtOnce(t *testing.T) {
	t.Parallel()
	a := reservingAhead(t)
	for range 5 {
		bodies := [2]earmark.Admission{admissionOf(20), admissionOf(21)}
		bodies[1].ID, bodies[1].WorkflowID = bodies[0].ID, bodies[0].WorkflowID
		var group errgroup.Group
		var admitted, told atomic.Int64
		for i := range 8 {
			group.Go(func() error {
				result, err := a.admit(bodies[i%2])
				switch {
				case err != nil:
					return err
				case result.Outcome == earmark.OutcomeMismatch:
					told.Add(1)
				case result.Reservation != nil && result.Reservation.State == earmark.StateHeld:
					admitted.Add(1)
				}
				return nil
			})
		}
		require.NoError(t, group.Wait())
		require.Equal(t, [2]int64{4, 4}, [2]int64{admitted.Load(), told.Load()}, "admitted, told")
		a.isOpen(bodies[0])
		require.NoError(t, a.client.TerminateWorkflow(a.ctx, bodies[0].WorkflowID, "", "the next round needs its budget"))
		_, _, err := a.coordinator.Commit(a.ctx, settlementOf(bodies[0]), earmark.Amounts{"tokens": 1})
		require.NoError(t, err)
	}
}

// A caller who leaves during the start of his own workflow says nothing about Temporal:
// the next admissions reserve speculatively as before.
func TestCoordinatorSpeculatesAfterACallerLeft(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(context.Context) (context.Context, context.CancelFunc){
		"cancelled": context.WithCancel,
		"late": func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 500*time.Millisecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := reservingAhead(t)
			leaving, leave := end(a.ctx)
			defer leave()
			a.proxy.set(func() {
				a.proxy.start = func(run client.WorkflowRun, err error) (client.WorkflowRun, error) {
					leave()
					<-leaving.Done()
					return run, errors.Join(err, leaving.Err())
				}
			})
			one := admissionOf(100)
			one.AdmitBy = time.Now()
			_, err := a.coordinator.Admit(leaving, one)
			require.Error(t, err)
			a.proxy.set(func() { a.proxy.start = nil })
			before := a.here.Load()
			a.admitted(admissionOf(100))
			require.Equal(t, before+1, a.here.Load(), "the coordinator has reserved itself")
		})
	}
}
