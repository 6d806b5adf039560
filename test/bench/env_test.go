//go:build unix

package bench_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	temporallog "go.temporal.io/sdk/log"
	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
	"github.com/earmark-dev/earmark/api"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/test/stack"
	"github.com/earmark-dev/earmark/worker"
	"github.com/earmark-dev/earmark/workflows"
)

const (
	bareQueue   = "bare"
	bareUpdate  = "complete"
	barePollers = 8 // as many as Earmark's own worker has
	bareLease   = time.Hour
	closeLimit  = 10 * time.Second
)

// env is Earmark's API and worker in this process, wired as `earmark serve` wires
// them, and a bare workflow's worker beside them.
type env struct {
	url      string
	http     *http.Client
	temporal client.Client
	serial   atomic.Int64
}

func setup(b *testing.B) *env {
	b.Helper()
	s := stack.New(b, stack.Options{OwnPostgres: true, OwnTemporal: true, Durable: true})
	quiet := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	pool, err := postgres.Open(ctx, s.DatabaseURL)
	require.NoError(b, err)
	b.Cleanup(pool.Close)
	temporal, err := client.NewLazyClient(client.Options{HostPort: s.Temporal.Address(), Namespace: s.Namespace, Logger: temporallog.NewStructuredLogger(quiet)})
	require.NoError(b, err)
	b.Cleanup(temporal.Close)

	ledger := postgres.New(pool)
	guard := &api.TemporalGuard{Client: temporal, Ledger: ledger, Namespace: s.Namespace, Logger: quiet, Admissions: &activities.Admissions{}}
	server := httptest.NewServer(api.New(api.Options{Ledger: ledger, Guard: guard, Namespace: s.Namespace, Logger: quiet}))
	e := &env{url: server.URL, temporal: temporal, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}}
	done := make(chan error, 1)
	go func() {
		done <- worker.New(temporal, worker.Options{Ledger: ledger, Admissions: guard.Admissions, Logger: quiet, Grace: worker.DefaultGrace}).Run(ctx)
	}()
	bare := sdkworker.New(temporal, bareQueue, sdkworker.Options{MaxConcurrentWorkflowTaskPollers: barePollers})
	bare.RegisterWorkflow(bareReservation)
	bare.RegisterActivity(noOp)
	bare.RegisterActivity(firstStep)
	require.NoError(b, bare.Start())
	b.Cleanup(func() {
		e.http.CloseIdleConnections()
		server.Close()
		bare.Stop()
		cancel()
		require.NoError(b, <-done)
	})
	require.NoError(b, e.post("/v1/budgets", "", http.StatusCreated, `{"scope":"acme","unit":"tokens","limit":1000000000000}`, &struct{}{}))
	stack.Eventually(b, closeLimit, "the worker", func() bool {
		id, err := e.reserve()
		return err == nil && e.commit(id) == nil
	})
	return e
}

// bareReservation does in Temporal what a reservation does there, and nothing else.
func bareReservation(ctx workflow.Context) error {
	done := false
	err := workflow.SetUpdateHandler(ctx, bareUpdate, func(ctx workflow.Context, _ map[string]int64) (string, error) {
		err := workflow.ExecuteLocalActivity(withLocal(ctx), noOp).Get(ctx, nil)
		done = true
		return "done", err
	})
	if err != nil {
		return err
	}
	if err := workflow.ExecuteLocalActivity(withLocal(ctx), firstStep, workflow.GetInfo(ctx).WorkflowExecution.ID).Get(ctx, nil); err != nil {
		return err
	}
	lease := workflow.NewTimer(ctx, bareLease)
	return workflow.Await(ctx, func() bool { return done && workflow.AllHandlersFinished(ctx) || lease.IsReady() })
}

func noOp(context.Context) error { return nil }

// awaited are the bare workflows whose first step somebody waits for.
var awaited sync.Map // of chan struct{}, by workflow id

// firstStep is a local activity that does nothing but tell that it ran.
func firstStep(_ context.Context, id string) error {
	if ran, waits := awaited.LoadAndDelete(id); waits {
		close(ran.(chan struct{}))
	}
	return nil
}

func withLocal(ctx workflow.Context) workflow.Context {
	return workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{StartToCloseTimeout: time.Second})
}

func (e *env) startBare() (id string, err error) {
	id = fmt.Sprint("bare-", e.serial.Add(1))
	_, err = e.temporal.ExecuteWorkflow(context.Background(), client.StartWorkflowOptions{ID: id, TaskQueue: bareQueue, EnableEagerStart: true}, bareReservation)
	return id, err
}

// startBareAndStep starts a bare workflow and waits until its first local activity
// has run: the least that a decision inside a workflow can take.
func (e *env) startBareAndStep() error {
	ran := make(chan struct{})
	awaited.Store(fmt.Sprint("bare-", e.serial.Load()+1), ran)
	if _, err := e.startBare(); err != nil {
		return err
	}
	select {
	case <-ran:
		return nil
	case <-time.After(closeLimit):
		return errors.New("the first step of a bare workflow did not run")
	}
}

func (e *env) decide() error {
	return e.post("/v1/decisions", "", http.StatusOK, `{"scopes":["acme/u1"],"amounts":{"tokens":10}}`, &struct{}{})
}

func (e *env) charge() error {
	return e.post("/v1/usage", fmt.Sprint("usage-", e.serial.Add(1)), http.StatusCreated, `{"scopes":["acme/u1"],"amounts":{"tokens":10}}`, &struct{}{})
}

func (e *env) completeBare(id string) error {
	ctx := context.Background()
	handle, err := e.temporal.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: id, UpdateName: bareUpdate, Args: []any{map[string]int64{"tokens": 7}}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err != nil {
		return err
	}
	return handle.Get(ctx, nil)
}

func (e *env) eventsOfLifecycle(b *testing.B) int {
	b.Helper()
	id, err := e.reserve()
	require.NoError(b, err)
	require.True(b, earmark.IsReservationID(id))
	require.NoError(b, e.commit(id))
	return e.events(b, workflows.ReservationWorkflowID(id))
}

func (e *env) eventsOfBareLifecycle(b *testing.B) int {
	b.Helper()
	id, err := e.startBare()
	require.NoError(b, err)
	require.NoError(b, e.completeBare(id))
	return e.events(b, id)
}

// events counts the events of a workflow that is about to close.
func (e *env) events(b *testing.B, workflowID string) int {
	b.Helper()
	var length int64
	stack.Eventually(b, closeLimit, "the end of "+workflowID, func() bool {
		description, err := e.temporal.DescribeWorkflowExecution(context.Background(), workflowID, "")
		require.NoError(b, err)
		info := description.GetWorkflowExecutionInfo()
		length = info.GetHistoryLength()
		return info.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED
	})
	return int(length)
}
