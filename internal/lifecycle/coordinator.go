// Package lifecycle runs reservations from outside their workflows: it starts a workflow
// and waits for its decision, settles in the ledger, and then notifies the workflow.
// Package api maps its answers to HTTP; package workflows has the order of events in a
// workflow.
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
	"github.com/earmark-dev/earmark/internal/fairqueue"
	"github.com/earmark-dev/earmark/internal/handoff"
	"github.com/earmark-dev/earmark/internal/workflowstore"
	"github.com/earmark-dev/earmark/workflows"
)

// Ledger is the part of the ledger that the coordinator uses. An error means that the
// outcome is unknown.
type Ledger interface {
	Reserve(ctx context.Context, a earmark.Admission) (earmark.Result, error)
	Commit(ctx context.Context, t earmark.Transition, usage earmark.Amounts) (earmark.Result, error)
	Release(ctx context.Context, t earmark.Transition) (earmark.Result, error)
	GiveBack(ctx context.Context, t earmark.Transition) (earmark.Result, error)
	Extend(ctx context.Context, t earmark.Transition, ttl time.Duration) (earmark.Result, error)
	Reservation(ctx context.Context, tenant, id string) (*earmark.Reservation, error)
	// MarkUnnotified makes the reconciler notify the workflow of a settlement.
	MarkUnnotified(ctx context.Context, tenant, id string) error
}

// Coordinator admits and settles reservations. Its methods are safe for concurrent use.
// Client, Ledger and Logger are required.
type Coordinator struct {
	Client client.Client
	Ledger Ledger
	// Handoff connects the worker in this process; nil if there is none.
	Handoff *handoff.Exchange
	// Deadline is how long a decision may take; zero means DefaultDeadline.
	Deadline time.Duration
	// SettleWindow is how long the first task of a workflow that starts in this process
	// stays open for the settlement, at most MaxSettleWindow; zero means not at all.
	SettleWindow time.Duration
	Namespace    string
	// Prefix distinguishes this installation from others in the namespace.
	Prefix workflows.Prefix
	// Unindexed says that the namespace has no search attributes of Earmark, so workflows
	// set none.
	Unindexed bool
	Logger    *slog.Logger

	once        sync.Once
	admissions  *fairqueue.Queue    // running
	places      places              // of admissions
	notifying   *semaphore.Weighted // running
	unnotified  atomic.Int64        // workflows that wait for a notification or are being notified
	notifiers   sync.WaitGroup      // one for each settlement, after its caller has the answer
	stopping    chan struct{}       // closed when nothing waits for notifications any more
	stopWaiting func()
	// startsWork says that the last start of a workflow succeeded.
	startsWork atomic.Bool
	polls      polls // of the task queue, by any worker
}

// Close ends the settle windows and waits until the workflows of all settlements have been
// notified; after closeTimeout it leaves the rest to the reconciler. Call it after the last
// settlement and before the worker stops.
func (c *Coordinator) Close() {
	c.Handoff.CloseWindows()
	c.init()
	defer time.AfterFunc(closeTimeout, c.stopWaiting).Stop()
	c.notifiers.Wait()
}

func (c *Coordinator) init() {
	c.once.Do(func() {
		c.places.count = firstAdmissions
		c.admissions, c.notifying = fairqueue.New(firstAdmissions), semaphore.NewWeighted(maxNotifying)
		c.stopping = make(chan struct{})
		c.stopWaiting = sync.OnceFunc(func() { close(c.stopping) })
	})
}

func (c *Coordinator) workflows() *workflowstore.Store {
	return &workflowstore.Store{Client: c.Client, Prefix: c.Prefix, Unindexed: c.Unindexed}
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
