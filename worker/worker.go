// Package worker runs the workflows and activities of Earmark, and the sweeper.
package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark/activities"
	"github.com/earmark-dev/earmark/internal/ctxtime"
	"github.com/earmark-dev/earmark/internal/handoff"
	"github.com/earmark-dev/earmark/internal/workflowstore"
	"github.com/earmark-dev/earmark/workflows"
)

// How the worker is tuned.
const (
	stopTimeout      = 10 * time.Second // for activities that run when the worker stops
	workflowPollers  = 16               // half of them look for new workflows, at any of a queue's four partitions
	activityPollers  = 4
	maxLocalAtOnce   = 500
	retryPause       = time.Second // while Temporal does not answer
	schedulePause    = time.Minute // between looks whether the schedule is still there
	scheduleDeadline = 10 * time.Second
	stickyTimeout    = 5 * time.Second
	// cachedWorkflows is how many open workflows a process keeps in memory, each with its goroutines: some 43 kB. The
	// worker reads any other from its history when something happens to it.
	cachedWorkflows = 3_000
)

// Ledger is what a worker process needs of the ledger.
type Ledger interface {
	activities.Ledger
	activities.CheckLedger
	SweepLedger
	ReadyLedger
}

// Options say what a worker works with.
type Options struct {
	Ledger  Ledger
	Handoff *handoff.Exchange // to the coordinator in this process; nil where there is none
	Logger  *slog.Logger
	// Grace is how long past its expiry a reservation is left to its workflow.
	Grace time.Duration
	// Unindexed leaves the search attributes alone.
	Unindexed bool

	cached int // workflows; cachedWorkflows when zero
}

// Worker is one worker process' part of the work.
type Worker struct {
	client  client.Client
	ledger  ReadyLedger
	build   func() worker.Worker
	sweeper *Sweeper
	logger  *slog.Logger
}

// New makes a worker on the task queue of the contract.
func New(c client.Client, options Options) *Worker {
	reservations := &activities.Reservations{Ledger: options.Ledger, Handoff: options.Handoff}
	reconciler := &activities.Reconciler{
		Ledger: options.Ledger, Workflows: &workflowstore.Store{Client: c, Unindexed: options.Unindexed}, Logger: options.Logger,
	}
	build := func() worker.Worker {
		worker.SetStickyWorkflowCacheSize(cmp.Or(options.cached, cachedWorkflows)) // mutation: cache-bounded
		w := worker.New(c, workflows.TaskQueue, worker.Options{
			WorkerStopTimeout:                       stopTimeout,
			MaxConcurrentWorkflowTaskPollers:        workflowPollers,
			MaxConcurrentActivityTaskPollers:        activityPollers,
			MaxConcurrentLocalActivityExecutionSize: maxLocalAtOnce,
			StickyScheduleToStartTimeout:            stickyTimeout,
		})
		Register(w, reservations, reconciler)
		return w
	}
	return &Worker{client: c, ledger: options.Ledger, build: build, logger: options.Logger, sweeper: &Sweeper{Ledger: options.Ledger, Grace: options.Grace, Logger: options.Logger}}
}

// Register registers every workflow and activity, by the names of the contract.
func Register(registry worker.Registry, reservations *activities.Reservations, reconciler *activities.Reconciler) {
	registry.RegisterWorkflowWithOptions(workflows.Reservation, workflow.RegisterOptions{Name: workflows.ReservationType})
	registry.RegisterWorkflowWithOptions(workflows.Reconcile, workflow.RegisterOptions{Name: workflows.ReconcileType})
	registry.RegisterActivity(reservations)
	registry.RegisterActivity(reconciler)
}

// Run works until ctx is done, and then lets what runs finish. Until the ledger is ready it takes no tasks, which
// other workers on the queue may be able to do. It waits for a Temporal that does not answer yet; the sweeper does
// not depend on it.
func (w *Worker) Run(ctx context.Context) error {
	if !AwaitLedger(ctx, w.ledger, w.logger) {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return w.sweeper.Run(ctx) }) // mutation: sweeper
	group.Go(func() error { w.keepWorking(ctx); return nil })
	group.Go(func() error { w.keepSchedule(ctx); return nil }) // mutation: schedule
	return group.Wait()
}

// keepWorking serves the task queue. The SDK starts a worker once and never
// again: one that did not find Temporal, or that gave up on it, is replaced.
func (w *Worker) keepWorking(ctx context.Context) {
	interrupt := make(chan any)
	defer context.AfterFunc(ctx, func() { close(interrupt) })()
	for ctx.Err() == nil {
		if err := w.build().Run(interrupt); err != nil {
			w.logger.WarnContext(ctx, "The worker waits for Temporal.", "error", err)
			ctxtime.Sleep(ctx, retryPause)
		}
	}
}

// keepSchedule makes the reconciler's schedule, and makes it again should the
// namespace lose it.
func (w *Worker) keepSchedule(ctx context.Context) {
	for pause := time.Duration(0); ctxtime.Sleep(ctx, pause); {
		pause = schedulePause
		if err := w.ensureSchedule(ctx); err != nil && ctx.Err() == nil {
			w.logger.WarnContext(ctx, "The reconciler's schedule was not made; trying again.", "error", err)
			pause = retryPause
		}
	}
}

func (w *Worker) ensureSchedule(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, scheduleDeadline)
	defer cancel()
	_, err := w.client.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID:   workflows.ReconcileScheduleID,
		Spec: client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: workflows.ReconcileEvery}}},
		Action: &client.ScheduleWorkflowAction{
			ID:        workflows.ReconcileScheduleID,
			Workflow:  workflows.ReconcileType,
			TaskQueue: workflows.TaskQueue,
		},
		Note: "Looks for open reservations whose workflow is gone, and starts it again.",
	})
	if err != nil && !errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		return fmt.Errorf("create schedule %s: %w", workflows.ReconcileScheduleID, err)
	}
	return nil
}
