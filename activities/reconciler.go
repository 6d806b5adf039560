package activities

import (
	"context"
	"errors"
	"log/slog"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"golang.org/x/time/rate"

	"github.com/earmark-dev/earmark"
)

// Bounds of one run, so that a large number of open reservations does not flood Temporal.
const (
	describesPerSecond = 50
	listsPerSecond     = 5 // with checksPerClaim: 100,000 open reservations take two minutes
	checksPerClaim     = 200
	rollUpBudget       = 5 * time.Second  // of one run, for usage reports; the next run goes on
	checkLeastAge      = time.Minute      // younger reservations still have their own workflow
	reconcileBudget    = 50 * time.Second // of one run; the schedule starts one every minute
)

// restoredReason is the reason in the journal of a commit that the reconciler restores.
const restoredReason = "restored from the workflow's result"

// adoptedReason is the reason in the journal of a workflow that the reconciler starts.
const adoptedReason = "the reservation had no open workflow"

// unpauseReason is the reason in Temporal of a workflow that the reconciler unpauses.
const unpauseReason = "the reservation is settled, so its workflow has to end"

// CheckLedger is the part of the ledger that the reconciler uses.
type CheckLedger interface {
	ClaimChecks(ctx context.Context, leastAge time.Duration, limit int) ([]earmark.Check, error)
	MarkChecked(ctx context.Context, tenant, id string, orphan, refreshed bool) error
	// MarkGuarded clears the orphan mark of those reservations that have it.
	MarkGuarded(ctx context.Context, ids []string) error
	// MarkPaused makes the settled reservations among ids due for a check: their workflow
	// was notified, but is paused and cannot run.
	MarkPaused(ctx context.Context, ids []string) error
	// Adopt writes a journal entry: the actor starts a new workflow for an open
	// reservation.
	Adopt(ctx context.Context, s earmark.Transition) (earmark.Result, error)
	Commit(ctx context.Context, s earmark.Transition, usage earmark.Amounts) (earmark.Result, error)
	// RollUpUsage adds the next entries to the sums of usage reports, and returns how many; 0
	// if none can be added now.
	RollUpUsage(ctx context.Context) (int64, error)
}

// WorkflowStore is the part of Temporal that the reconciler uses.
type WorkflowStore interface {
	// Open returns those of the workflows that Temporal's visibility lists as open.
	// Visibility lags behind: a workflow that it does not list may still be open.
	Open(ctx context.Context, workflowIDs []string) (map[string]bool, error)
	// Status describes the reservation's latest workflow. Without one, the error is a
	// serviceerror.NotFound.
	Status(ctx context.Context, workflowID string) (enumspb.WorkflowExecutionStatus, error)
	// Result returns the last state from the result of the reservation's latest workflow;
	// zero if the workflow is open or did not complete.
	Result(ctx context.Context, workflowID string) (Snapshot, error)
	// Refresh makes an open workflow read the ledger.
	Refresh(ctx context.Context, workflowID string) error
	// Paused returns the ids of the reservations whose workflow is paused.
	Paused(ctx context.Context) ([]string, error)
	// Unpause lets a paused workflow continue.
	Unpause(ctx context.Context, namespace, workflowID, reason string) error
	// Adopt starts a workflow for an existing reservation.
	Adopt(ctx context.Context, check earmark.Check) error
}

// Reconciler finds reservations that lost their workflow, and commits that Postgres lost.
type Reconciler struct {
	Ledger    CheckLedger
	Workflows WorkflowStore
	Logger    *slog.Logger
	// LeastAge is the minimum time since a reservation's last check; zero means one minute.
	LeastAge time.Duration
}

// ReconcileReport counts what one run did.
type ReconcileReport struct {
	Checked   int `json:"checked"`
	Orphans   int `json:"orphans"` // open reservations without an open workflow
	Adopted   int `json:"adopted"` // orphans that got a new workflow
	Refreshed int `json:"refreshed"`
	Restored  int `json:"restored"` // commits that Postgres had lost and a closed workflow knew
	// RolledUp counts the entries that were added to the sums of usage reports.
	RolledUp int64 `json:"rolled_up"`
}

// Reconcile checks the workflows of open reservations, the longest unchecked first, until
// none is due or the time of the run is over.
func (r *Reconciler) Reconcile(ctx context.Context) (ReconcileReport, error) {
	var report ReconcileReport
	r.rollUp(ctx, &report)
	if err := r.markPaused(ctx); err != nil { // mutation: look-for-paused
		return report, err
	}
	limiter, lists := rate.NewLimiter(describesPerSecond, 1), rate.NewLimiter(listsPerSecond, 1)
	leastAge := r.LeastAge
	if leastAge == 0 {
		leastAge = checkLeastAge
	}
	for end := time.Now().Add(reconcileBudget); time.Now().Before(end); {
		checks, err := r.Ledger.ClaimChecks(ctx, leastAge, checksPerClaim)
		if err != nil || len(checks) == 0 {
			return report, err
		}
		if err := lists.Wait(ctx); err != nil {
			return report, err
		}
		activity.RecordHeartbeat(ctx, report)
		if checks, err = r.suspects(ctx, checks, &report); err != nil {
			return report, err
		}
		for _, check := range checks {
			if err := limiter.Wait(ctx); err != nil {
				return report, err
			}
			activity.RecordHeartbeat(ctx, report)
			if err := r.check(ctx, check, &report); err != nil {
				return report, err
			}
		}
	}
	return report, nil
}

// rollUp adds entries to the sums of usage reports. The first call that adds none notes how
// far the journal is; a second one adds up to there, unless transactions are still open.
// Without the sums a report is slower, but right, so a fault does not end the run.
func (r *Reconciler) rollUp(ctx context.Context, report *ReconcileReport) {
	const callsForNone = 2
	for end, none := time.Now().Add(rollUpBudget), 0; none < callsForNone && time.Now().Before(end); {
		moved, err := r.Ledger.RollUpUsage(ctx) // mutation: usage-rolled-up
		if err != nil {
			r.Logger.WarnContext(ctx, "The sums of usage reports are not up to date; reports are slower until they are.", "error", err)
			return
		}
		if moved == 0 {
			none++
			continue
		}
		report.RolledUp += moved
		activity.RecordHeartbeat(ctx, report)
	}
}

// markPaused finds paused workflows, which the ledger does not know.
func (r *Reconciler) markPaused(ctx context.Context) error {
	ids, err := r.Workflows.Paused(ctx)
	if err != nil {
		r.Logger.WarnContext(ctx, "Temporal does not list paused workflows.", "error", err)
		return nil
	}
	return r.Ledger.MarkPaused(ctx, ids)
}

// suspects returns the reservations that need a check of their own: those for which
// Temporal lists no open workflow, and those past their expiry, whose workflow should have
// acted and whose listing may be out of date. It makes one call for all of them; if that
// call fails, all are suspects.
func (r *Reconciler) suspects(ctx context.Context, checks []earmark.Check, report *ReconcileReport) ([]earmark.Check, error) {
	workflowIDs := make([]string, 0, len(checks))
	for _, check := range checks {
		if check.State == earmark.StateHeld && time.Now().Before(check.ExpiresAt) {
			workflowIDs = append(workflowIDs, check.WorkflowID)
		}
	}
	if len(workflowIDs) == 0 {
		return checks, nil
	}
	open, err := r.Workflows.Open(ctx, workflowIDs)
	if err != nil {
		r.Logger.WarnContext(ctx, "Temporal does not list open workflows; each is looked for.", "error", err)
		return checks, nil
	}
	var suspects []earmark.Check
	var guarded []string
	for _, check := range checks {
		if open[check.WorkflowID] {
			guarded = append(guarded, check.ID)
		} else {
			suspects = append(suspects, check)
		}
	}
	report.Checked += len(guarded)
	return suspects, r.Ledger.MarkGuarded(ctx, guarded)
}

// check checks the workflow of one reservation. A workflow counts as gone only if Temporal
// says that it is closed or not found; every other error ends the run.
func (r *Reconciler) check(ctx context.Context, check earmark.Check, report *ReconcileReport) error {
	report.Checked++
	status, err := r.Workflows.Status(ctx, check.WorkflowID)
	var notFound *serviceerror.NotFound
	missing := errors.As(err, &notFound)
	if err != nil && !missing {
		return err
	}
	guarded := !missing && IsOpen(status)
	holds := check.State == earmark.StateHeld || check.State == earmark.StateReview
	if status == enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED && !missing && mayLackUsage(check) {
		if restored, err := r.restore(ctx, check, report); restored || err != nil {
			return err
		}
	}
	switch {
	case holds && guarded:
		return r.Ledger.MarkChecked(ctx, check.Tenant, check.ID, false, false)
	case holds:
		if err := r.Ledger.MarkChecked(ctx, check.Tenant, check.ID, true, false); err != nil {
			return err
		}
		return r.adopt(ctx, check, report)
	case guarded: // settled without its workflow
		return r.notify(ctx, check, status, report)
	default:
		return r.Ledger.MarkChecked(ctx, check.Tenant, check.ID, false, true)
	}
}

// notify notifies an open workflow that its reservation is settled, so that it ends. It
// unpauses a paused one: a pause protects nothing any more, and usage that waits in the
// workflow must be charged. The next check finds out whether the workflow has closed.
func (r *Reconciler) notify(ctx context.Context, check earmark.Check, status enumspb.WorkflowExecutionStatus, report *ReconcileReport) error {
	report.Refreshed++
	err := r.Workflows.Refresh(ctx, check.WorkflowID)                     // mutation: notify-settled
	if err == nil && status == enumspb.WORKFLOW_EXECUTION_STATUS_PAUSED { // mutation: unpause-settled
		err = r.Workflows.Unpause(ctx, activity.GetInfo(ctx).Namespace, check.WorkflowID, unpauseReason)
	}
	var notFound *serviceerror.NotFound
	if errors.As(err, &notFound) {
		return nil
	}
	return err
}

// adopt starts a new workflow for an open reservation without one. It writes the journal
// entry first (R4): without the entry it starts no workflow.
func (r *Reconciler) adopt(ctx context.Context, check earmark.Check, report *ReconcileReport) error {
	result, err := r.Ledger.Adopt(ctx, earmark.Transition{ID: check.ID, Tenant: check.Tenant, Actor: earmark.ActorReconciler, Reason: adoptedReason}) // mutation: adoption-entry
	if err != nil {
		return err
	}
	// Between the claim and this check, a workflow may have settled its reservation and
	// ended. Such a reservation is no orphan.
	if result.Outcome == earmark.OutcomeApplied { // mutation: orphan-is-open
		report.Orphans++
		r.Logger.WarnContext(ctx, "A reservation has no open workflow; starting one.", "reservation_id", check.ID, "tenant", check.Tenant)
		if err := r.Workflows.Adopt(ctx, check); err != nil { // mutation: adopt-orphans
			return err
		}
		report.Adopted++
	}
	return r.Ledger.MarkChecked(ctx, check.Tenant, check.ID, false, false)
}

// mayLackUsage reports whether usage that a workflow knows could still be charged.
func mayLackUsage(check earmark.Check) bool {
	switch check.State {
	case earmark.StateHeld, earmark.StateReview, earmark.StateExpired:
		return true // mutation: restored-row
	case earmark.StateCommitted:
		return check.Request.OnExpiry == earmark.OnExpiryCommit // the charge may be an estimate
	default:
		return false
	}
}

// restore repeats a commit that Postgres has lost, as after the restore of a backup: the
// workflow of this row has closed with usage that the row does not have. It ignores a later
// row under the same id.
func (r *Reconciler) restore(ctx context.Context, check earmark.Check, report *ReconcileReport) (bool, error) {
	known, err := r.Workflows.Result(ctx, check.WorkflowID)
	if err != nil || known.Usage == nil || known.CreatedAt == nil || !known.CreatedAt.Equal(check.CreatedAt) { // mutation: same-row
		return false, err
	}
	transition := earmark.Transition{ID: check.ID, Tenant: check.Tenant, Actor: earmark.ActorWorkflow, Reason: restoredReason, Estimated: known.Estimated}
	if known.Actor != nil { // mutation: restored-by
		transition.Actor = *known.Actor
	}
	if known.Reason != "" {
		transition.Reason = known.Reason + " (" + restoredReason + ")"
	}
	result, err := r.Ledger.Commit(ctx, transition, known.Usage)
	if err != nil {
		return false, err
	}
	switch result.Outcome {
	case earmark.OutcomeApplied:
		report.Restored++
		r.Logger.WarnContext(ctx, "A commit that Postgres had lost is charged again, from the result of its workflow.", "reservation_id", check.ID, "tenant", check.Tenant)
	case earmark.OutcomeSame:
	default: // for example an overage accepted in review: an operator decides again
		return false, nil
	}
	return true, r.Ledger.MarkChecked(ctx, check.Tenant, check.ID, false, true)
}

// IsOpen reports whether a workflow with this status is open.
func IsOpen(status enumspb.WorkflowExecutionStatus) bool {
	// A paused workflow is open too. Its status may be missing in this program's
	// enumeration, so the switch lists the closed ones.
	switch status {
	case enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED, enumspb.WORKFLOW_EXECUTION_STATUS_FAILED, enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED,
		enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED, enumspb.WORKFLOW_EXECUTION_STATUS_TIMED_OUT, enumspb.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW:
		return false
	default:
		return true
	}
}
