package bench

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/workflowstore"
	"github.com/earmark-dev/earmark/workflows"
)

// The floors: what Temporal alone and Postgres alone cost.

const (
	bareQueue   = "bench-bare"
	bareType    = "Bare"
	indexedType = "BareIndexed"
	instantType = "BareInstant"
	windowType  = "BareWindow"
	bareMessage = "complete"
	// pollers of the bench's own workers, as many as Earmark's has.
	pollers      = 16
	momentPerTry = 1500 * time.Millisecond
	stepLimit    = 10 * time.Second
)

// bare runs bare workflows, and their worker.
type bare struct {
	client client.Client
	worker worker.Worker
	// stepped is closed for a workflow whose first step ran, where somebody waits.
	stepped sync.Map
	open    atomic.Int64 // started, and not yet completed
	// windows has, by workflow id, a channel that is closed when that workflow's first task is to end.
	windows sync.Map
}

// instantWorkflow ends in its first task, and does nothing else: the least that a durable
// workflow costs.
func (b *bare) instantWorkflow(ctx workflow.Context, _ earmark.ReservationRequest) error {
	if !workflow.IsReplaying(ctx) {
		b.open.Add(-1)
	}
	return nil
}

// windowWorkflow does in its first task what a reservation's does within its settle window.
func (b *bare) windowWorkflow(ctx workflow.Context, _ earmark.ReservationRequest) error {
	id := workflow.GetInfo(ctx).WorkflowExecution.ID
	ctx = workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{StartToCloseTimeout: momentPerTry})
	if err := workflow.ExecuteLocalActivity(ctx, b.firstStep, id).Get(ctx, nil); err != nil {
		return err
	}
	return workflow.ExecuteLocalActivity(ctx, b.awaitStep, id).Get(ctx, nil)
}

func (b *bare) awaitStep(ctx context.Context, id string) error {
	end, found := b.windows.Load(id)
	if !found { // a second run of the task
		return nil
	}
	defer b.open.Add(-1)
	defer b.windows.Delete(id)
	select {
	case <-end.(chan struct{}):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// workflow does in Temporal what a reservation does there, and nothing else.
// It is ended by an update or by a signal of the same name.
func (b *bare) workflow(ctx workflow.Context, _ earmark.ReservationRequest) error { return b.live(ctx) }

func (b *bare) indexedWorkflow(ctx workflow.Context, _ workflows.ReservationInput) error {
	return b.live(ctx)
}

func (b *bare) live(ctx workflow.Context) error {
	ctx = workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{StartToCloseTimeout: momentPerTry})
	done := false
	complete := func(ctx workflow.Context) error {
		err := workflow.ExecuteLocalActivity(ctx, b.lastStep).Get(ctx, nil)
		done = true
		return err
	}
	err := workflow.SetUpdateHandler(ctx, bareMessage, func(ctx workflow.Context, _ earmark.Amounts) (string, error) {
		ctx = workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{StartToCloseTimeout: momentPerTry})
		return "done", complete(ctx)
	})
	if err != nil {
		return err
	}
	if err := workflow.ExecuteLocalActivity(ctx, b.firstStep, workflow.GetInfo(ctx).WorkflowExecution.ID).Get(ctx, nil); err != nil {
		return err
	}
	lease := workflow.NewTimer(ctx, time.Duration(leaseSeconds)*time.Second)
	signals := workflow.GetSignalChannel(ctx, bareMessage)
	if err := workflow.Await(ctx, func() bool {
		return done && workflow.AllHandlersFinished(ctx) || signals.Len() > 0 || lease.IsReady()
	}); err != nil || done {
		return err
	}
	signals.Receive(ctx, nil)
	return complete(ctx)
}

// firstStep only reports that it ran.
func (b *bare) firstStep(_ context.Context, id string) error {
	if ran, waits := b.stepped.LoadAndDelete(id); waits {
		close(ran.(chan struct{}))
	}
	return nil
}

func (b *bare) lastStep(context.Context) error {
	b.open.Add(-1)
	return nil
}

func startBare(c client.Client) (*bare, error) {
	b := &bare{client: c, worker: worker.New(c, bareQueue, worker.Options{MaxConcurrentWorkflowTaskPollers: pollers})}
	b.worker.RegisterWorkflowWithOptions(b.workflow, workflow.RegisterOptions{Name: bareType})
	b.worker.RegisterWorkflowWithOptions(b.indexedWorkflow, workflow.RegisterOptions{Name: indexedType})
	b.worker.RegisterWorkflowWithOptions(b.instantWorkflow, workflow.RegisterOptions{Name: instantType})
	b.worker.RegisterWorkflowWithOptions(b.windowWorkflow, workflow.RegisterOptions{Name: windowType})
	b.worker.RegisterActivity(b.awaitStep)
	b.worker.RegisterActivity(b.firstStep)
	b.worker.RegisterActivity(b.lastStep)
	return b, b.worker.Start()
}

// start starts a bare workflow eagerly: its first task runs in this process.
func (b *bare) start(ctx context.Context, n int64) (id string, err error) {
	return b.startAs(ctx, bareType, fmt.Sprint("bare-", n), n)
}

func (b *bare) startInstant(ctx context.Context, n int64) (id string, err error) {
	return b.startAs(ctx, instantType, fmt.Sprint("instant-", n), n)
}

func (b *bare) startWindow(ctx context.Context, n int64) (id string, err error) {
	id = fmt.Sprint("window-", n)
	b.windows.Store(id, make(chan struct{}))
	return b.startAs(ctx, windowType, id, n)
}

// endWindow ends the first task, which may not have come to wait yet.
func (b *bare) endWindow(_ context.Context, id string) error {
	if end, found := b.windows.Load(id); found {
		close(end.(chan struct{}))
	}
	return nil
}

func (b *bare) startAs(ctx context.Context, workflowType, id string, n int64) (string, error) {
	options := client.StartWorkflowOptions{ID: id, TaskQueue: bareQueue, EnableEagerStart: true}
	b.open.Add(1)
	_, err := b.client.ExecuteWorkflow(ctx, options, workflowType, request(scopeOf(n), unitAmount))
	if err != nil {
		b.open.Add(-1)
	}
	return id, err
}

// startIndexed starts one with what a reservation's workflow carries besides: its
// input, search attributes and summary.
func (b *bare) startIndexed(ctx context.Context, n int64) (id string, err error) {
	a := admission(n)
	options := workflowstore.StartOptions(a, time.Now().Add(a.Request.TTL()), "", false)
	options.ID, options.TaskQueue, options.EnableEagerStart = a.WorkflowID, bareQueue, true
	b.open.Add(1)
	if _, err = b.client.ExecuteWorkflow(ctx, options, indexedType, workflows.ReservationInput{Admission: a}); err != nil {
		b.open.Add(-1)
	}
	return options.ID, err
}

// startAndStep also waits until the workflow's first step has run: the least that a
// decision inside of a workflow can take.
func (b *bare) startAndStep(ctx context.Context, n int64) (string, error) {
	id, ran := fmt.Sprint("stepped-", n), make(chan struct{})
	b.stepped.Store(id, ran)
	if _, err := b.startAs(ctx, bareType, id, n); err != nil {
		return id, err
	}
	limit := time.NewTimer(stepLimit)
	defer limit.Stop()
	select {
	case <-ran:
		return id, nil
	case <-ctx.Done():
		return id, ctx.Err()
	case <-limit.C:
		return id, errors.New("the first step of a bare workflow did not run")
	}
}

func (b *bare) update(ctx context.Context, id string) error {
	return update(ctx, b.client, id, bareMessage, earmark.Amounts{unit: unitUsage}, nil)
}

func (b *bare) signal(ctx context.Context, id string) error {
	return b.client.SignalWorkflow(ctx, id, "", bareMessage, earmark.Amounts{unit: unitUsage})
}

func (b *bare) drained(context.Context) (bool, error) { return b.open.Load() <= 0, nil }

// update sends an update and waits for its result.
func update(ctx context.Context, c client.Client, workflowID, name string, payload, result any) error {
	handle, err := c.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: workflowID, UpdateName: name, Args: []any{payload}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err != nil {
		return err
	}
	return handle.Get(ctx, result)
}

func (b *bare) ways(on *deployment) []*way {
	same := func(id string) string { return id }
	nothing := func(context.Context, string) error { return nil }
	return []*way{
		{key: "bare_update", title: "bare workflow, ended by update", on: on, admit: b.start, settle: b.update, workflowID: same},
		{key: "bare_signal", title: "bare workflow, ended by signal", on: on, admit: b.start, settle: b.signal, drained: b.drained, workflowID: same},
		{key: "bare_indexed", title: "the same by update, with input, search attributes, summary", on: on, admit: b.startIndexed, settle: b.update, workflowID: same},
		{key: "bare_instant", title: "bare workflow that starts and ends at once", on: on, admit: b.startInstant, settle: nothing, drained: b.drained, workflowID: same},
		{key: "bare_window", title: "bare workflow, two local activities, one task", on: on, admit: b.startWindow, settle: b.endWindow, drained: b.drained, workflowID: same},
	}
}

//go:embed sql/statements.sql
var statementsSQL string

// statements is the floor of Postgres: the rows of a lifecycle, written with plain
// statements and two commits into tables of the same form as the ledger's.
type statements struct{ on *deployment }

func newStatements(ctx context.Context, on *deployment) (*statements, error) {
	_, err := on.pool.Exec(ctx, statementsSQL, pgx.QueryExecModeSimpleProtocol)
	return &statements{on}, err
}

const (
	floorReservation = `INSERT INTO bench.reservations (id, tenant, state, request_hash, scopes, amounts, on_expiry, expires_at)
		VALUES ($1, 'default', 'held', 'hash', ARRAY[$2], jsonb_build_object('tokens', $3::bigint), 'release', now() + interval '1 hour')`
	floorShare   = `INSERT INTO bench.reservation_budgets (reservation_id, budget_id, window_start, unit, reserved) VALUES ($1, $2, 'epoch', 'tokens', $3)`
	floorBalance = `UPDATE bench.windows SET reserved = reserved + $2, committed = committed + $3 WHERE budget_id = $1`
	floorEntry   = `INSERT INTO bench.entries (kind, tenant, reservation_id, budget_id, window_start, reserved_delta, committed_delta, reserved_after, committed_after, actor, reason)
		VALUES ($1, 'default', $2, $3, 'epoch', $4, $5, 0, 0, 'bench', '')`
	floorSettled = `UPDATE bench.reservations SET state = 'committed', usage = jsonb_build_object('tokens', $2::bigint), settled_at = now() WHERE id = $1`
	floorUsed    = `UPDATE bench.reservation_budgets SET committed = $2 WHERE reservation_id = $1`
)

func (s *statements) reserve(ctx context.Context, n int64) (string, error) {
	id, budget := earmark.NewReservationID(), scopeOf(n)
	batch := &pgx.Batch{}
	batch.Queue(floorReservation, id, budget, unitAmount)
	batch.Queue(floorShare, id, budget, unitAmount)
	batch.Queue(floorBalance, budget, unitAmount, 0)
	batch.Queue(floorEntry, "reserve", id, budget, unitAmount, 0)
	return id + " " + budget, s.on.pool.SendBatch(ctx, batch).Close() // one round trip, one commit
}

func (s *statements) commit(ctx context.Context, ref string) error {
	var id, budget string
	if _, err := fmt.Sscan(ref, &id, &budget); err != nil {
		return err
	}
	batch := &pgx.Batch{}
	batch.Queue(floorSettled, id, unitUsage)
	batch.Queue(floorUsed, id, unitUsage)
	batch.Queue(floorBalance, budget, -unitAmount, unitUsage)
	batch.Queue(floorEntry, "commit", id, budget, -unitAmount, unitUsage)
	return s.on.pool.SendBatch(ctx, batch).Close()
}

func (s *statements) way() *way {
	return &way{key: "statements", title: "bare Postgres statements", on: s.on, admit: s.reserve, settle: s.commit}
}
