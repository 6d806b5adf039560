package lifecycle

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"go.temporal.io/api/serviceerror"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/ctxtime"
	"github.com/earmark-dev/earmark/internal/handoff"
	"github.com/earmark-dev/earmark/internal/workflowstore"
	"github.com/earmark-dev/earmark/workflows"
)

// missingStep is the step in which the time of an answer grows that says that the tenant has no such reservation. Temporal
// finds sooner that there is no workflow than whose workflow it is: without steps, the time would show another tenant's ids.
const missingStep = 100 * time.Millisecond

var errBacklog = errors.New("too many workflows wait to be notified")

// settlement is a commit or a release: a call to the ledger, and the message that notifies
// the workflow.
type settlement struct {
	earmark.Transition
	apply   func(context.Context) (earmark.Result, error)
	name    string // of the signal
	message any    // its payload
}

// Commit charges usage. accepted is true if the ledger has not charged it yet, and Temporal
// keeps the usage until the workflow has.
func (c *Coordinator) Commit(ctx context.Context, t earmark.Transition, usage earmark.Amounts) (result earmark.Result, accepted bool, err error) {
	t.Attempt = rand.Text()
	return c.settle(ctx, settlement{
		Transition: t,
		apply:      func(ctx context.Context) (earmark.Result, error) { return c.Ledger.Commit(ctx, t, usage) },
		name:       workflows.MessageCommit,
		message: workflows.CommitMessage{Usage: usage, Operator: t.Actor.Operator(), Key: t.Actor.Key, Reason: t.Reason, Attempt: t.Attempt, Estimated: t.Estimated,
			Response: t.Response},
	})
}

// Release gives the whole amount back; see Commit. An operator's release is an expiry with
// a reason.
func (c *Coordinator) Release(ctx context.Context, t earmark.Transition) (result earmark.Result, accepted bool, err error) {
	release := c.Ledger.Release
	if t.Actor.Operator() != "" {
		release = c.Ledger.GiveBack
	}
	return c.settle(ctx, settlement{
		Transition: t,
		apply:      func(ctx context.Context) (earmark.Result, error) { return release(ctx, t) },
		name:       workflows.MessageRelease,
		message:    workflows.ReleaseMessage{Operator: t.Actor.Operator(), Key: t.Actor.Key, Reason: t.Reason},
	})
}

// settle calls the ledger and returns its answer; the workflow is notified afterwards. It
// continues after its caller has left: a charge must not depend on a connection.
func (c *Coordinator) settle(ctx context.Context, s settlement) (earmark.Result, bool, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	begun := time.Now()
	result, err := within(ctx, ledgerTimeout, s.apply)
	if err == nil && result.Outcome != earmark.OutcomeUnknown { // mutation: ledger-first
		c.notify(ctx, s, result) // mutation: notify
		return result, false, nil
	}
	// Postgres is away, or it does not have the row although a workflow for it may be open:
	// that workflow may still reserve, or may know what a restored Postgres has lost.
	// Temporal keeps the message.
	signalErr := c.leave(ctx, s)
	if isNotFound(signalErr) {
		ctxtime.Sleep(ctx, missingStep-time.Since(begun)%missingStep) // mutation: missing-in-steps
	}
	switch {
	case signalErr == nil: // mutation: kept-by-temporal
		return earmark.Result{}, true, nil
	case err == nil && !isNotFound(signalErr): // mutation: unknown-is-unavailable
		return earmark.Result{}, false, unknownWhileAway(signalErr)
	}
	return result, false, err
}

// Extend extends the lease in the ledger alone: the workflow's timer is lazy and reads the ledger when it fires. The
// outcome is unknown only if Temporal says that no workflow has the reservation; otherwise the error is CodeUnavailable.
func (c *Coordinator) Extend(ctx context.Context, t earmark.Transition, ttl time.Duration) (earmark.Result, error) {
	begun := time.Now()
	result, err := c.Ledger.Extend(ctx, t, ttl)
	if err != nil || result.Outcome != earmark.OutcomeUnknown {
		return result, err
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	guarded := false
	workflowID, err := c.owned(ctx, t)
	if err == nil {
		guarded, err = c.Guarded(ctx, workflowID)
	}
	switch {
	case guarded: // it may still reserve, or knows what a restored Postgres has lost
		missing := earmark.Errorf(earmark.CodeUnavailable, "a workflow has the reservation, and Postgres does not; call again when it has")
		missing.RetryAfter = retryPause
		return earmark.Result{}, missing
	case err != nil && !isNotFound(err): // mutation: extend-unknown-is-unavailable
		return earmark.Result{}, unknownWhileAway(err)
	}
	ctxtime.Sleep(ctx, missingStep-time.Since(begun)%missingStep)
	return result, nil
}

// unknownWhileAway is the error where Postgres does not have a reservation: only Temporal knows whether a workflow has it.
func unknownWhileAway(err error) error {
	away := earmark.Errorf(earmark.CodeUnavailable, "Postgres does not have the reservation, and Temporal did not answer whether a workflow has it: %w", err)
	away.RetryAfter = retryPause
	return away
}

// leave signals the workflow, if it guards a reservation of the caller's tenant.
func (c *Coordinator) leave(ctx context.Context, s settlement) error {
	workflowID, err := c.owned(ctx, s.Transition)
	if err != nil {
		return err
	}
	return c.Client.SignalWorkflow(ctx, workflowID, "", s.name, s.message)
}

// owned is the id of the workflow, if it guards a reservation of the caller's tenant. Any other is as good as none:
// an id can be computed from a tenant and a key, and a workflow does what a signal asks.
func (c *Coordinator) owned(ctx context.Context, t earmark.Transition) (workflowID string, err error) {
	workflowID = c.Prefix.ReservationWorkflowID(t.ID)
	owner, err := workflowstore.TenantOf(ctx, c.Client, c.Namespace, workflowID)
	if err == nil && owner != t.Tenant { // mutation: own-tenant
		err = serviceerror.NewNotFound("this tenant has no such workflow")
	}
	return workflowID, err
}

func within[T any](ctx context.Context, timeout time.Duration, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return call(ctx)
}

// notify sends the ledger's answer to the workflow, in the background. If that fails, the
// reconciler notifies it; at the latest the workflow reads the ledger when the lease ends.
func (c *Coordinator) notify(ctx context.Context, s settlement, result earmark.Result) {
	switch result.Outcome {
	case earmark.OutcomeApplied, earmark.OutcomeSame:
	case earmark.OutcomeOverageRejected: // it changes what happens when the lease ends; the workflow must not commit again
		s.name, s.message = workflows.SignalRefresh, nil // mutation: refused-is-not-sent
	default: // nothing changed
		return
	}
	ctx = context.WithoutCancel(ctx)
	c.notifiers.Go(func() {
		if c.Handoff.DeliverSettlement(ctx, handoff.Settlement{Transition: s.Transition, Result: result}) {
			return
		}
		err := c.signal(ctx, s)
		if err == nil || isNotFound(err) {
			return
		}
		c.Logger.WarnContext(ctx, "A workflow could not be notified that its reservation is settled; the reconciler will.", "reservation_id", s.ID, "error", err)
		if _, err := within(ctx, ledgerTimeout, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, c.Ledger.MarkUnnotified(ctx, s.Tenant, s.ID)
		}); err != nil {
			c.Logger.WarnContext(ctx, "The ledger does not know that a workflow is to be notified; its timer finds out.", "reservation_id", s.ID, "error", err)
		}
	})
}

// signal sends the settlement to the workflow, after waiting for its turn.
func (c *Coordinator) signal(ctx context.Context, s settlement) error {
	defer c.unnotified.Add(-1)
	if c.unnotified.Add(1) > maxUnnotified {
		return errBacklog
	}
	c.init()
	turn, cancel := context.WithTimeout(ctx, notifyTimeout)
	defer cancel()
	go func() {
		select {
		case <-c.stopping:
			cancel()
		case <-turn.Done():
		}
	}()
	if err := c.notifying.Acquire(turn, 1); err != nil {
		return err
	}
	defer c.notifying.Release(1)
	_, err := within(turn, signalTimeout, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, c.Client.SignalWorkflow(ctx, c.Prefix.ReservationWorkflowID(s.ID), "", s.name, s.message)
	})
	return err
}
