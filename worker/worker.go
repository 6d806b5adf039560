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
	"github.com/earmark-dev/earmark/internal/webhook"
	"github.com/earmark-dev/earmark/internal/workflowstore"
	"github.com/earmark-dev/earmark/workflows"
)

// Settings of the worker.
const (
	stopTimeout     = 10 * time.Second // for running activities when the worker stops
	workflowPollers = 16               // half of them poll for new workflows, at each of a queue's four partitions
	activityPollers = 4
	webhookPollers  = 2   // for workflows, and as many for activities
	webhookTasks    = 200 // endpoints that are sent to at once; one that does not answer takes its place for 15 s
	maxLocalAtOnce  = 500
	retryPause      = time.Second // while Temporal does not answer
	schedulePause   = time.Minute // between checks that the schedule exists
	answerDeadline  = 10 * time.Second
	stickyTimeout   = 5 * time.Second
	// cachedWorkflows is how many open workflows a process keeps in memory, each with its
	// goroutines: about 43 kB. The worker rebuilds every other workflow from its history
	// when it gets a task.
	cachedWorkflows = 3_000
)

// Ledger is the part of the ledger that a worker process uses.
type Ledger interface {
	activities.Ledger
	activities.CheckLedger
	SweepLedger
	ReadyLedger
	activities.DeliveryLedger
	DispatchLedger
}

// Options are the settings of a worker.
type Options struct {
	Ledger  Ledger
	Handoff *handoff.Exchange // to the coordinator in this process; nil if there is none
	Logger  *slog.Logger
	// Grace is how long the sweeper leaves an overdue reservation to its workflow.
	Grace time.Duration
	// Prefix distinguishes this installation from others in the namespace.
	Prefix workflows.Prefix
	// Unindexed says that the namespace has no search attributes of Earmark, so workflows
	// set none.
	Unindexed bool
	// Webhooks says which addresses events are delivered to.
	Webhooks webhook.Allowed

	cached int // number of workflows; cachedWorkflows if zero
}

// Worker runs workflows, activities and the sweeper in one process.
type Worker struct {
	client     client.Client
	prefix     workflows.Prefix
	ledger     ReadyLedger
	builds     []func() (worker.Worker, error) // one for each task queue
	sweeper    *Sweeper
	dispatcher *Dispatcher
	logger     *slog.Logger
}

// New returns a worker for the task queues of the contract.
func New(c client.Client, options Options) *Worker {
	store := &workflowstore.Store{Client: c, Prefix: options.Prefix, Unindexed: options.Unindexed}
	reservations := &activities.Reservations{Ledger: options.Ledger, Handoff: options.Handoff}
	reconciler := &activities.Reconciler{Ledger: options.Ledger, Workflows: store, Logger: options.Logger}
	webhooks := &activities.Webhooks{Ledger: options.Ledger, Sender: webhook.NewSender(options.Webhooks), Logger: options.Logger}
	build := func() (worker.Worker, error) {
		tuner, err := newTuner()
		if err != nil {
			return nil, err
		}
		w := worker.New(c, options.Prefix.TaskQueue(), worker.Options{
			WorkerStopTimeout:                stopTimeout,
			MaxConcurrentWorkflowTaskPollers: workflowPollers,
			MaxConcurrentActivityTaskPollers: activityPollers,
			Tuner:                            tuner,
			StickyScheduleToStartTimeout:     stickyTimeout,
		})
		Register(w, reservations, reconciler)
		return w, nil
	}
	buildWebhooks := func() (worker.Worker, error) {
		w := worker.New(c, options.Prefix.WebhookQueue(), worker.Options{
			WorkerStopTimeout:                  stopTimeout,
			MaxConcurrentWorkflowTaskPollers:   webhookPollers,
			MaxConcurrentActivityTaskPollers:   webhookPollers,
			MaxConcurrentActivityExecutionSize: webhookTasks,
			MaxHeartbeatThrottleInterval:       activities.DeliveryBeat,
			StickyScheduleToStartTimeout:       stickyTimeout,
		})
		RegisterWebhooks(w, webhooks)
		return w, nil
	}
	// Before either of the two is built: the first one makes the cache of the process.
	worker.SetStickyWorkflowCacheSize(cmp.Or(options.cached, cachedWorkflows)) // mutation: cache-bounded
	return &Worker{
		client: c, prefix: options.Prefix, ledger: options.Ledger, builds: []func() (worker.Worker, error){build, buildWebhooks}, logger: options.Logger,
		sweeper:    &Sweeper{Ledger: options.Ledger, Grace: options.Grace, Logger: options.Logger},
		dispatcher: &Dispatcher{Ledger: options.Ledger, Deliver: store.Deliver, Logger: options.Logger},
	}
}

// Register registers the workflows and activities of reservations under the names of the contract.
func Register(registry worker.Registry, reservations *activities.Reservations, reconciler *activities.Reconciler) {
	registry.RegisterWorkflowWithOptions(workflows.Reservation, workflow.RegisterOptions{Name: workflows.ReservationType})
	registry.RegisterWorkflowWithOptions(workflows.Reconcile, workflow.RegisterOptions{Name: workflows.ReconcileType})
	registry.RegisterActivity(reservations)
	registry.RegisterActivity(reconciler)
}

// RegisterWebhooks registers the workflow and the activity of webhooks.
func RegisterWebhooks(registry worker.Registry, webhooks *activities.Webhooks) {
	registry.RegisterWorkflowWithOptions(workflows.Webhook, workflow.RegisterOptions{Name: workflows.WebhookType})
	registry.RegisterActivity(webhooks)
}

// Run works until ctx is done, and then lets running work finish. It takes no tasks until
// the ledger is ready, so that other workers on the queue can take them. It waits for
// Temporal if that does not answer yet; the sweeper runs meanwhile.
func (w *Worker) Run(ctx context.Context) error {
	if !AwaitLedger(ctx, w.ledger, w.logger) {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return w.sweeper.Run(ctx) })    // mutation: sweeper
	group.Go(func() error { return w.dispatcher.Run(ctx) }) // mutation: dispatcher
	for _, build := range w.builds {
		group.Go(func() error { w.keepWorking(ctx, build); return nil })
	}
	group.Go(func() error { w.keepSchedule(ctx); return nil }) // mutation: schedule
	return group.Wait()
}

// keepWorking serves a task queue. The SDK cannot restart a worker, so keepWorking
// replaces one that gave up.
func (w *Worker) keepWorking(ctx context.Context, build func() (worker.Worker, error)) {
	interrupt := make(chan any)
	defer context.AfterFunc(ctx, func() { close(interrupt) })()
	for ctx.Err() == nil {
		if err := w.serve(ctx, build, interrupt); err != nil && ctx.Err() == nil {
			w.logger.WarnContext(ctx, "The worker waits for Temporal.", "error", err)
			ctxtime.Sleep(ctx, retryPause)
		}
	}
}

// serve builds a worker and runs it until it is interrupted or gives up. It builds none before Temporal answers: one that
// does not start keeps the process's cache of workflows from being emptied, until the runtime collects it.
func (w *Worker) serve(ctx context.Context, build func() (worker.Worker, error), interrupt <-chan any) error {
	asked, cancel := context.WithTimeout(ctx, answerDeadline)
	_, err := w.client.CheckHealth(asked, &client.CheckHealthRequest{})
	cancel()
	if err != nil {
		return err
	}
	built, err := build()
	if err != nil {
		return err
	}
	return built.Run(interrupt)
}

// keepSchedule creates the reconciler's schedule, and creates it again if the namespace
// loses it.
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
	ctx, cancel := context.WithTimeout(ctx, answerDeadline)
	defer cancel()
	id := w.prefix.ReconcileScheduleID()
	_, err := w.client.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID:   id,
		Spec: client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: workflows.ReconcileEvery}}},
		Action: &client.ScheduleWorkflowAction{
			ID:        id,
			Workflow:  workflows.ReconcileType,
			TaskQueue: w.prefix.TaskQueue(),
			Priority:  temporal.Priority{PriorityKey: workflows.ReconcilePriority},
		},
		Note: "Looks for open reservations whose workflow is gone, and starts it again.",
	})
	if err != nil && !errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		return fmt.Errorf("create schedule %s: %w", id, err)
	}
	return nil
}
