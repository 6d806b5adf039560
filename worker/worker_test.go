//go:build unix

package worker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.uber.org/goleak"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/devstack"
	"github.com/earmark-dev/earmark/internal/devstack/devstacktest"
	"github.com/earmark-dev/earmark/internal/handoff"
	"github.com/earmark-dev/earmark/internal/ledgertest"
	"github.com/earmark-dev/earmark/internal/workflowstore"
	"github.com/earmark-dev/earmark/workflows"
)

var stack = devstacktest.New(devstacktest.Temporal)

func TestMain(m *testing.M) { goleak.VerifyTestMain(stack.Main(m)) }

const patience = 20 * time.Second // with a busy machine

// ledger is the model of the ledger, one call at a time, with rows to check.
type ledger struct {
	ledgertest.Calls
	mu     sync.Mutex
	checks []earmark.Check
	marks  []string
	ready  func() error // nil for always

	endpoints []*endpoint // of webhooks
}

func (l *ledger) Ready(context.Context) error {
	if l.ready == nil {
		return nil
	}
	return l.ready()
}

func newLedger(t *testing.T) *ledger {
	t.Helper()
	l := &ledger{}
	l.Calls = ledgertest.Calls{Model: ledgertest.New(time.Now), Do: l.locked}
	limit := int64(1000)
	_, err := l.Model.CreateBudget(t.Context(), "acme", earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit}.WithDefaults(), earmark.ActorAPI)
	require.NoError(t, err)
	return l
}

func (l *ledger) locked(_ context.Context, _ ledgertest.Call, apply func() (earmark.Result, error)) (earmark.Result, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return apply()
}

func (l *ledger) NoteGrants(ctx context.Context, most int) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Model.NoteGrants(ctx, most)
}

func (l *ledger) Sweep(ctx context.Context, grace time.Duration, most int) (ids []string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Model.Sweep(ctx, grace, most)
}

func (l *ledger) ClaimChecks(_ context.Context, _ time.Duration, _ int) ([]earmark.Check, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	claimed := l.checks
	l.checks = nil
	return claimed, nil
}

func (l *ledger) Adopt(context.Context, earmark.Transition) (earmark.Result, error) {
	return earmark.Result{Outcome: earmark.OutcomeApplied}, nil
}

func (l *ledger) MarkGuarded(context.Context, []string) error { return nil }
func (l *ledger) MarkPaused(context.Context, []string) error  { return nil }
func (l *ledger) RollUpUsage(context.Context) (int64, error)  { return 0, nil }

func (l *ledger) MarkChecked(_ context.Context, _, id string, _, _ bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marks = append(l.marks, id)
	return nil
}

func (l *ledger) marked() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string{}, l.marks...)
}

func lazyClient(t *testing.T, address string) client.Client {
	t.Helper()
	c, err := client.NewLazyClient(client.Options{HostPort: address, Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler))})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// run runs a worker and returns what stops it.
func run(t *testing.T, c client.Client, l Ledger) (stop func()) {
	t.Helper()
	stop, _ = runLogged(t, c, l)
	return stop
}

// runLogged is run with a channel that receives the worker's warnings.
func runLogged(t *testing.T, c client.Client, l Ledger) (stop func(), warnings <-chan string) {
	t.Helper()
	logged := make(chan string, 100)
	w := New(c, Options{Ledger: l, Logger: slog.New(logChannel{slog.DiscardHandler, logged}), Grace: DefaultGrace, Handoff: &handoff.Exchange{}})
	return runWorker(t, w), logged
}

// runWorker runs w and returns what stops it.
func runWorker(t *testing.T, w *Worker) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			require.NoError(t, err)
		case <-time.After(patience):
			require.Fail(t, "the worker did not stop")
		}
	})
	t.Cleanup(stop)
	return stop
}

// logChannel is a slog.Handler that sends the message of each warning to a channel, as
// long as there is room.
type logChannel struct {
	slog.Handler
	warnings chan<- string
}

func (l logChannel) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (l logChannel) Handle(_ context.Context, record slog.Record) error {
	select {
	case l.warnings <- record.Message:
	default:
	}
	return nil
}

// awaitWarning waits until the worker has logged this warning.
func awaitWarning(t *testing.T, warnings <-chan string, message string) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		select {
		case logged := <-warnings:
			if logged == message {
				return
			}
		case <-limit.C:
			require.FailNow(t, "the worker did not log it", message)
		}
	}
}

func admission() earmark.Admission {
	request := earmark.ReservationRequest{Scopes: []string{"acme/ml"}, Amounts: earmark.Amounts{"tokens": 100}}.WithDefaults()
	id := earmark.NewReservationID()
	return earmark.Admission{ID: id, Tenant: "acme", Request: request, RequestHash: request.Hash(), WorkflowID: workflows.Prefix("").ReservationWorkflowID(id)}
}

// lifecycle admits and releases by way of Temporal.
func lifecycle(t *testing.T, c client.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a := admission()
	run, err := c.ExecuteWorkflow(ctx, workflowstore.StartOptions(a, time.Now(), "", true), workflows.ReservationType,
		workflows.ReservationInput{Admission: a, Unindexed: true})
	require.NoError(t, err)
	require.NoError(t, c.SignalWorkflow(ctx, a.WorkflowID, "", workflows.MessageRelease, nil))
	var ending workflows.WorkflowResult
	require.NoError(t, run.Get(ctx, &ending))
	require.Equal(t, earmark.StateReleased, ending.State)
}

// cacheGauge records the most workflows that the SDK says it has cached.
type cacheGauge struct {
	client.MetricsHandler
	name string
	most *atomic.Int64
}

func (g cacheGauge) WithTags(map[string]string) client.MetricsHandler { return g }

func (g cacheGauge) Gauge(name string) client.MetricsGauge {
	g.name = name
	return g
}

func (g cacheGauge) Update(value float64) {
	if g.name != "temporal_sticky_cache_size" {
		return
	}
	n := int64(value)
	for most := g.most.Load(); n > most && !g.most.CompareAndSwap(most, n); most = g.most.Load() {
	}
}

// Memory does not grow with the open holds: a worker keeps a bounded number of workflows, and goes on with any other from
// its history.
func TestCachedWorkflowsAreBounded(t *testing.T) {
	const cached, open = 5, 25
	gauge := cacheGauge{MetricsHandler: client.MetricsNopHandler, most: &atomic.Int64{}}
	measured, err := client.NewLazyClient(client.Options{HostPort: stack.TemporalAddress(), MetricsHandler: gauge,
		Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler))})
	require.NoError(t, err)
	t.Cleanup(measured.Close)
	t.Cleanup(func() { worker.SetStickyWorkflowCacheSize(cachedWorkflows) })
	unscheduleAfter(t, measured)
	stop := runWorker(t, New(measured, Options{Ledger: newLedger(t), Logger: slog.New(slog.DiscardHandler), Grace: DefaultGrace, cached: cached}))

	c, runs, ids := lazyClient(t, stack.TemporalAddress()), [open]client.WorkflowRun{}, [open]string{}
	for n := range open {
		a := admission()
		a.Request.Amounts = earmark.Amounts{"tokens": 1}
		a.RequestHash, ids[n] = a.Request.Hash(), a.WorkflowID
		runs[n], err = c.ExecuteWorkflow(t.Context(), workflowstore.StartOptions(a, time.Now(), "", true), workflows.ReservationType,
			workflows.ReservationInput{Admission: a, Unindexed: true})
		require.NoError(t, err)
		update, err := c.UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{WorkflowID: a.WorkflowID, UpdateName: workflows.UpdateAdmission,
			Args: []any{workflows.AdmissionMessage{RequestHash: a.RequestHash}}, WaitForStage: client.WorkflowUpdateStageCompleted})
		require.NoError(t, err)
		require.NoError(t, update.Get(t.Context(), nil)) // it is admitted, and open
	}
	require.LessOrEqual(t, gauge.most.Load(), int64(cached+1), "the SDK counts before it evicts")
	require.Positive(t, gauge.most.Load())

	for n := range open {
		require.NoError(t, c.SignalWorkflow(t.Context(), ids[n], "", workflows.MessageRelease, nil))
		var ending workflows.WorkflowResult
		require.NoError(t, runs[n].Get(t.Context(), &ending))
		require.Equal(t, earmark.StateReleased, ending.State)
	}
	require.LessOrEqual(t, gauge.most.Load(), int64(cached+1))
	stop()
}

// A worker may start before Temporal does, outlives its end, and stops all the same.
func TestRunWaitsForTemporal(t *testing.T) {
	port := freePort(t)
	c := lazyClient(t, net.JoinHostPort("127.0.0.1", port))
	stop, warnings := runLogged(t, c, newLedger(t))
	awaitWarning(t, warnings, "The worker waits for Temporal.")
	temporal, err := devstack.StartTemporal(t.Context(), devstack.TemporalOptions{
		Dir: filepath.Join(t.TempDir(), "temporal"), Port: number(t, port), Headless: true, InMemory: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, temporal.Stop(context.Background())) })
	lifecycle(t, lazyClient(t, temporal.Address())) // of its own: the other one's connection may still pause
	require.Eventually(t, func() bool { return scheduled(t, c) == nil }, patience, 50*time.Millisecond, "there is no schedule")
	stop()
}

// A worker whose database is not migrated would fail every task; it leaves them to others, says why, and begins once it is.
func TestRunTakesNoTasksUntilTheLedgerIsReady(t *testing.T) {
	c := lazyClient(t, stack.TemporalAddress())
	unscheduleAfter(t, c)
	l := newLedger(t)
	var migrated atomic.Bool
	asked := make(chan struct{}, 100)
	l.ready = func() error {
		asked <- struct{}{}
		if migrated.Load() {
			return nil
		}
		return errors.New("the database's schema is at version 0")
	}
	logged := make(chan string, 100)
	w := New(c, Options{Ledger: l, Logger: slog.New(logChannel{slog.DiscardHandler, logged}), Grace: DefaultGrace})
	var builds atomic.Int64
	build := w.builds[0]
	w.builds[0] = func() (worker.Worker, error) {
		builds.Add(1)
		return build()
	}
	stop := runWorker(t, w)
	awaitWarning(t, logged, ledgerWords)
	<-asked
	<-asked // looked twice, so that whatever begins beside has begun
	require.Zero(t, builds.Load())
	require.Error(t, scheduled(t, c))
	require.Empty(t, logged, "said once")

	migrated.Store(true)
	lifecycle(t, c)
	require.EqualValues(t, 1, builds.Load())
	require.Eventually(t, func() bool { return scheduled(t, c) == nil }, patience, 50*time.Millisecond)
	stop()
}

// AwaitLedger says at once what is missing, and again when that changes; one that does not answer counts as missing.
func TestAwaitLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []error{errors.New("refused"), errors.New("refused"), errors.New("version 0"), nil}
		logged := make(chan string, 10)
		began := time.Now()
		l := &ledger{ready: func() error {
			err := answers[0]
			answers = answers[1:]
			return err
		}}
		require.True(t, AwaitLedger(t.Context(), l, slog.New(logChannel{slog.DiscardHandler, logged})))
		require.Equal(t, 3*retryPause, time.Since(began))
		require.Len(t, logged, 2)

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.False(t, AwaitLedger(ctx, hangs{}, slog.New(logChannel{slog.DiscardHandler, logged})))
		require.Len(t, logged, 3)
	})
}

// hangs never answers.
type hangs struct{}

func (hangs) Ready(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

const ledgerWords = "The ledger is not ready: calls fail and no worker of this process takes tasks until it is."

func TestRunStopsWhileItWaitsForTemporal(t *testing.T) {
	c := lazyClient(t, net.JoinHostPort("127.0.0.1", freePort(t)))
	stop, warnings := runLogged(t, c, newLedger(t))
	awaitWarning(t, warnings, "The worker waits for Temporal.")
	begun := time.Now()
	stop()
	require.Less(t, time.Since(begun), 10*time.Second)
}

// The schedule is made once, whoever makes it, and made again when it is lost.
func TestSchedule(t *testing.T) {
	c := lazyClient(t, stack.TemporalAddress())
	w := New(c, Options{Ledger: newLedger(t), Logger: slog.New(slog.DiscardHandler), Grace: DefaultGrace})
	ctx := t.Context()
	handle := c.ScheduleClient().GetHandle(ctx, workflows.ReconcileScheduleID)
	for range 2 {
		require.NoError(t, w.ensureSchedule(ctx))
		require.NoError(t, w.ensureSchedule(ctx), "it exists, which is as good")
		description, err := handle.Describe(ctx)
		require.NoError(t, err)
		require.Equal(t, workflows.ReconcileEvery, description.Schedule.Spec.Intervals[0].Every)
		action := description.Schedule.Action.(*client.ScheduleWorkflowAction)
		require.Equal(t, workflows.TaskQueue, action.TaskQueue)
		require.Equal(t, workflows.ReconcileType, action.Workflow)

		require.NoError(t, handle.Delete(ctx))
		var notFound *serviceerror.NotFound
		require.ErrorAs(t, scheduled(t, c), &notFound)
	}
}

// The whole way of the reconciler: the schedule starts the workflow, that runs the
// activity, which finds an orphan and starts its guardian.
func TestScheduleReconciles(t *testing.T) {
	c := lazyClient(t, stack.TemporalAddress())
	l := newLedger(t)
	a := admission()
	_, err := l.Reserve(t.Context(), a)
	require.NoError(t, err)
	l.checks = []earmark.Check{{ID: a.ID, Tenant: a.Tenant, WorkflowID: a.WorkflowID, State: earmark.StateHeld, Request: a.Request, RequestHash: a.RequestHash, ExpiresAt: time.Now()}}
	unscheduleAfter(t, c)
	stop := run(t, c, l)
	require.Eventually(t, func() bool { return scheduled(t, c) == nil }, patience, 50*time.Millisecond)
	require.NoError(t, c.ScheduleClient().GetHandle(t.Context(), workflows.ReconcileScheduleID).Trigger(t.Context(), client.ScheduleTriggerOptions{}))
	require.Eventually(t, func() bool { return len(l.marked()) == 2 }, patience, 50*time.Millisecond, "marked an orphan, then guarded")
	require.NoError(t, c.SignalWorkflow(t.Context(), a.WorkflowID, "", workflows.MessageRelease, nil))
	var ending workflows.WorkflowResult
	require.NoError(t, c.GetWorkflow(t.Context(), a.WorkflowID, "").Get(t.Context(), &ending))
	require.Equal(t, earmark.StateReleased, ending.State)
	stop()
}

func scheduled(t *testing.T, c client.Client) error {
	t.Helper()
	_, err := c.WorkflowService().DescribeSchedule(t.Context(), &workflowservice.DescribeScheduleRequest{
		Namespace: client.DefaultNamespace, ScheduleId: workflows.ReconcileScheduleID})
	return err
}

// unscheduleAfter deletes the schedule once the test and its worker, which starts later, have ended.
func unscheduleAfter(t *testing.T, c client.Client) {
	t.Helper()
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := c.ScheduleClient().GetHandle(ctx, workflows.ReconcileScheduleID).Delete(ctx); err != nil {
			var notFound *serviceerror.NotFound
			require.ErrorAs(t, err, &notFound)
		}
	})
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, listener.Close()) }()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	return port
}

func number(t *testing.T, port string) int {
	t.Helper()
	n, err := net.LookupPort("tcp", port)
	require.NoError(t, err)
	return n
}
