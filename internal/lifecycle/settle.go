package lifecycle

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
	"github.com/earmark-dev/earmark/workflows"
)

// settlement is a commit or a release on its three ways: by an update of the workflow,
// by the ledger directly, and by a signal that Temporal keeps.
type settlement struct {
	earmark.Transition
	usage      earmark.Amounts // nil for a release
	name       string          // of the update and of the signal
	message    any             // their payload
	direct     func(context.Context) (earmark.Result, error)
	workflowID string
}

// Commit charges usage through the workflow, or past it. accepted means that neither
// answered, and that Temporal keeps the message until it is applied.
func (c *Coordinator) Commit(ctx context.Context, t earmark.Transition, usage earmark.Amounts) (result earmark.Result, accepted bool, err error) {
	t.Attempt = rand.Text()
	return c.settle(ctx, settlement{
		Transition: t, usage: usage, name: workflows.MessageCommit,
		message: workflows.CommitMessage{Usage: usage, Operator: t.Actor.Operator(), Reason: t.Reason, Attempt: t.Attempt},
		direct:  func(ctx context.Context) (earmark.Result, error) { return c.Ledger.Commit(ctx, t, usage) },
	})
}

// Release gives everything back through the workflow, or past it; see Commit. An
// operator's is an expiry with a reason.
func (c *Coordinator) Release(ctx context.Context, t earmark.Transition) (result earmark.Result, accepted bool, err error) {
	release := c.Ledger.Release
	if t.Actor.Operator() != "" {
		release = c.Ledger.GiveBack
	}
	return c.settle(ctx, settlement{
		Transition: t, name: workflows.MessageRelease,
		message: workflows.ReleaseMessage{Operator: t.Actor.Operator(), Reason: t.Reason},
		direct:  func(ctx context.Context) (earmark.Result, error) { return release(ctx, t) },
	})
}

// settle continues when its caller leaves: a charge must not depend on a connection.
func (c *Coordinator) settle(ctx context.Context, s settlement) (earmark.Result, bool, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	s.workflowID = workflows.ReservationWorkflowID(s.ID)

	result, gone, err := c.settleByWorkflow(ctx, s)
	if err == nil {
		return result, false, nil
	}
	result, err = within(ctx, ledgerTimeout, s.direct) // mutation: past-the-workflow
	switch {
	case err == nil && gone:
		return result, false, nil
	case err == nil && result.Outcome != earmark.OutcomeUnknown:
		go c.notify(context.WithoutCancel(ctx), s.workflowID) // the caller has its answer
		return result, false, nil
	}
	// Postgres is away, or it does not have the row while a workflow for it may be open
	// and may yet reserve. Temporal keeps the message.
	signalErr := c.Client.SignalWorkflow(ctx, s.workflowID, "", s.name, s.message)
	switch {
	case signalErr == nil: // mutation: kept-by-temporal
		return earmark.Result{}, true, nil
	case err == nil && !isNotFound(signalErr): // mutation: unknown-is-unavailable
		// The row is not there, and only Temporal could say whether a workflow has the
		// reservation.
		away := earmark.Errorf(earmark.CodeUnavailable, "Postgres does not have the reservation, and Temporal did not answer whether a workflow has it: %w", signalErr)
		away.RetryAfter = retryPause
		return earmark.Result{}, false, away
	}
	return result, false, err
}

// settleByWorkflow sends the update and waits up to updateTimeout. gone is true when it
// is known that no workflow is open. A worker in this process delivers the ledger's
// answer as soon as it is durable; then the update continues unawaited.
func (c *Coordinator) settleByWorkflow(ctx context.Context, s settlement) (result earmark.Result, gone bool, err error) {
	local, stop := c.Handoff.AwaitSettlement(s.Transition, s.usage)
	defer stop()
	if c.updating.Load() >= maxUnawaitedUpdates {
		local = nil
	}
	answered := make(chan struct{})
	defer close(answered)
	updated := make(chan updateReply)
	c.updating.Add(1)
	c.updates.Go(func() {
		defer c.updating.Add(-1)
		updateCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), updateTimeout)
		defer cancel()
		var r updateReply
		r.err = c.update(updateCtx, s.workflowID, s.name, s.message, &r.snapshot)
		select {
		case updated <- r:
		case <-answered:
			if r.err != nil && !isNotFound(r.err) { // the workflow may not know that it is settled
				c.notify(context.WithoutCancel(ctx), s.workflowID)
			}
		}
	})
	select {
	case result := <-local:
		return result, false, nil
	case r := <-updated:
		if r.err != nil {
			return earmark.Result{}, isNotFound(r.err), r.err
		}
		result, err := c.settled(ctx, s, r.snapshot)
		return result, false, err
	}
}

type updateReply struct {
	snapshot activities.Snapshot
	err      error
}

// settled completes a workflow's snapshot of a settlement with the reservation itself.
func (c *Coordinator) settled(ctx context.Context, s settlement, snapshot activities.Snapshot) (earmark.Result, error) {
	result := earmark.Result{Outcome: snapshot.Outcome, Subject: snapshot.Subject, Scope: snapshot.Scope}
	if snapshot.State == "" {
		return result, nil
	}
	reservation, err := within(ctx, ledgerTimeout, func(ctx context.Context) (*earmark.Reservation, error) {
		return c.Ledger.Reservation(ctx, s.Tenant, s.ID)
	})
	if err == nil && reservation == nil {
		err = errors.New("the reservation is gone since its workflow settled it")
	}
	result.Reservation = reservation
	return result, err
}

func within[T any](ctx context.Context, timeout time.Duration, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return call(ctx)
}

// notify signals the workflow that the ledger has settled its reservation. If that
// fails, the workflow's timer or the reconciler finds out.
func (c *Coordinator) notify(ctx context.Context, workflowID string) {
	ctx, cancel := context.WithTimeout(ctx, notifyTimeout)
	defer cancel()
	if err := c.workflows().Refresh(ctx, workflowID); err != nil && !isNotFound(err) {
		c.Logger.WarnContext(ctx, "A workflow could not be notified that its reservation is settled.", "workflow_id", workflowID, "error", err)
	}
}
