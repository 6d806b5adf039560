package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark/activities"
)

// The schedule of the Reconcile workflow.
const (
	ReconcileScheduleID = "earmark-reconcile" // after the installation's Prefix
	ReconcileEvery      = time.Minute
	// ReconcilePriority puts the reconciler behind every reservation, which has 3 or firstPriority.
	ReconcilePriority = 5
	// reconcileTimeout bounds one run; the next run continues where it stopped.
	reconcileTimeout   = 10 * time.Minute
	reconcileHeartbeat = 30 * time.Second
	reconcileTries     = 3
)

// Reconcile gives a new workflow to each open reservation without an open workflow, and
// notifies open workflows whose reservation was settled without them. One run checks those
// first that were checked longest ago.
func Reconcile(ctx workflow.Context) (activities.ReconcileReport, error) {
	var reconciler *activities.Reconciler
	var report activities.ReconcileReport
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: reconcileTimeout,
		HeartbeatTimeout:    reconcileHeartbeat,
		RetryPolicy:         &temporal.RetryPolicy{MaximumAttempts: reconcileTries},
		Priority:            temporal.Priority{PriorityKey: ReconcilePriority},
		Summary:             "look for reservations without a workflow",
	})
	err := workflow.ExecuteActivity(ctx, reconciler.Reconcile).Get(ctx, &report)
	return report, err
}
