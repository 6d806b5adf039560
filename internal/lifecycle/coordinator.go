// Package lifecycle takes a reservation through its life: it starts the workflow and
// waits for its decision, settles in the ledger, and then notifies the workflow. What an answer means in HTTP is in package
// api, and the order of events in a workflow is in package workflows.
package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/semaphore"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/handoff"
	"github.com/earmark-dev/earmark/internal/workflowstore"
)

// Ledger is what the coordinator needs of the ledger. An error means that the outcome
// is not known.
type Ledger interface {
	Reserve(ctx context.Context, a earmark.Admission) (earmark.Result, error)
	Commit(ctx context.Context, t earmark.Transition, usage earmark.Amounts) (earmark.Result, error)
	Release(ctx context.Context, t earmark.Transition) (earmark.Result, error)
	GiveBack(ctx context.Context, t earmark.Transition) (earmark.Result, error)
	Reservation(ctx context.Context, tenant, id string) (*earmark.Reservation, error)
	// MarkUnnotified leaves it to the reconciler to notify the workflow of a settlement.
	MarkUnnotified(ctx context.Context, tenant, id string) error
}

// Coordinator runs the workflows of reservations. Its methods are safe for concurrent
// use. Client, Ledger and Logger are required.
type Coordinator struct {
	Client client.Client
	Ledger Ledger
	// Handoff brings the results of the worker in this process; nil where there is none.
	Handoff *handoff.Exchange
	// Deadline is how long a decision may take, DefaultDeadline when zero.
	Deadline time.Duration
	// SettleWindow is how long the first task of a workflow that starts in this process
	// stays open for the settlement, at most MaxSettleWindow; zero is not at all.
	SettleWindow time.Duration
	Namespace    string
	// Unindexed leaves the search attributes alone.
	Unindexed bool
	Logger    *slog.Logger

	once        sync.Once
	admissions  *semaphore.Weighted // under way, each with its weight
	pace        pace
	notifying   *semaphore.Weighted // under way
	unnotified  atomic.Int64        // workflows that wait to be notified, or are being notified
	notifiers   sync.WaitGroup      // one for each settlement, after its caller has the answer
	stopping    chan struct{}       // closed when notifications are not to be waited for any more
	stopWaiting func()
	// startsWork says that the last start of a workflow succeeded.
	startsWork atomic.Bool
	polls      polls // of the task queue, by any worker
}

// Close ends the settle windows and waits until the workflows of all settlements were
// notified; after closeTimeout it leaves the rest to the reconciler. Call it after the last
// settlement, and before the worker stops.
func (c *Coordinator) Close() {
	c.Handoff.CloseWindows()
	c.init()
	defer time.AfterFunc(closeTimeout, c.stopWaiting).Stop()
	c.notifiers.Wait()
}

func (c *Coordinator) init() {
	c.once.Do(func() {
		c.admissions, c.notifying = semaphore.NewWeighted(maxAdmissions), semaphore.NewWeighted(maxNotifying)
		c.stopping = make(chan struct{})
		c.stopWaiting = sync.OnceFunc(func() { close(c.stopping) })
	})
}

func (c *Coordinator) workflows() *workflowstore.Store {
	return &workflowstore.Store{Client: c.Client, Unindexed: c.Unindexed}
}

// update sends an update to the workflow and waits for its result.
func (c *Coordinator) update(ctx context.Context, workflowID, name string, message, result any) error {
	handle, err := c.Client.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: workflowID, UpdateName: name, Args: []any{message}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err != nil {
		return err
	}
	return handle.Get(ctx, result)
}

func isNotFound(err error) bool {
	var notFound *serviceerror.NotFound
	return errors.As(err, &notFound)
}
