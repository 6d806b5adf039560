package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
)

// The workflow calls the ledger through a local activity first, which costs one history
// event and no round trip to Temporal. If Postgres does not answer within localTimeout, the
// workflow calls a regular activity with unlimited retries.
const (
	localTryTimeout   = 1500 * time.Millisecond // above the ledger's lock_timeout
	localTimeout      = 3 * time.Second         // well below a workflow task's time-out
	localTries        = 3
	regularTryTimeout = 10 * time.Second
	regularFirstPause = 200 * time.Millisecond
	regularMaxPause   = 10 * time.Second
	// failingAfter is how long a call to the ledger may keep failing before the search
	// attribute says so.
	failingAfter = 30 * time.Second
	// firstPriority puts what has begun before the first tasks of new workflows, which have Temporal's default, 3.
	firstPriority = 1
	// brokenPause is the pause between tries if even that call ends, which only a bug can
	// cause.
	brokenPause = time.Minute
)

var local = workflow.LocalActivityOptions{
	StartToCloseTimeout:    localTryTimeout,
	ScheduleToCloseTimeout: localTimeout,
	RetryPolicy:            &temporal.RetryPolicy{InitialInterval: 50 * time.Millisecond, BackoffCoefficient: 2, MaximumAttempts: localTries},
}

// settleWindow is for an activity that makes no call: it waits in the process that started
// the workflow.
var settleWindow = workflow.LocalActivityOptions{
	ScheduleToCloseTimeout: localTimeout, // longer than any settle window
	RetryPolicy:            &temporal.RetryPolicy{MaximumAttempts: 1},
	Summary:                "await the settlement",
}

var untilAnswered = workflow.ActivityOptions{
	StartToCloseTimeout: regularTryTimeout,
	RetryPolicy:         &temporal.RetryPolicy{InitialInterval: regularFirstPause, BackoffCoefficient: 2, MaximumInterval: regularMaxPause}, // mutation: no-attempt-limit
	Priority:            temporal.Priority{PriorityKey: firstPriority},
}

// ledger is a typed nil pointer: the workflow uses only the names of its methods.
var ledger *activities.Reservations

// reserve requests the admission. It resolves an unknown outcome before it returns, because
// nobody else would free what a lost call may have reserved.
func (r *reservation) reserve(ctx workflow.Context) {
	r.Admission.Released = r.inbox.holdsRelease()
	r.admission = r.call(ctx, "reserve", ledger.Reserve, r.Admission)
	r.snapshot = r.admission
	r.decided = true
	r.admitted = r.snapshot.State != ""
	r.recordCreation(r.admission)
}

// awaitSettlement keeps the first task open for a moment, so that a short request ends
// within it. Messages that arrive meanwhile wait for the end of the task.
func (r *reservation) awaitSettlement(ctx workflow.Context) {
	if !r.SettleWindow || r.snapshot.State != earmark.StateHeld || r.inbox.waiting() {
		return
	}
	ctx = workflow.WithLocalActivityOptions(detached(ctx), settleWindow)
	var awaited activities.Awaited
	if err := workflow.ExecuteLocalActivity(ctx, ledger.AwaitSettlement, r.Admission.ID).Get(ctx, &awaited); err != nil {
		workflow.GetLogger(ctx).Warn("The settlement was not awaited.", "error", err)
	}
	if awaited.Settled == nil {
		r.snapshot.RemainingMS = max(0, r.snapshot.RemainingMS-awaited.WaitedMS)
		return
	}
	r.snapshot = *awaited.Settled
	r.committed.Reason, r.snapshot.Reason = r.snapshot.Reason, ""
	if by := r.snapshot.Actor; by != nil {
		r.committed.Actor, r.snapshot.Actor = *by, nil
	}
}

// refuse ends an admission that breaks a rule, which only a client other than the API can
// start: the ledger would fail on it again and again.
func (r *reservation) refuse(ctx workflow.Context) bool {
	r.Admission.Request = r.Admission.Request.WithDefaults()
	err := r.Admission.Validate()
	id := PrefixOf(workflow.GetInfo(ctx).TaskQueueName).ReservationWorkflowID(r.Admission.ID)
	if err == nil && r.Admission.WorkflowID != id {
		err = earmark.Invalidf("workflow_id", "%q is not the id of the reservation's workflow; use %s", earmark.Clip(r.Admission.WorkflowID), id)
	}
	// Only a workflow with such an input asks for the version, which costs an event.
	if err == nil || workflow.GetVersion(ctx, "refuse-invalid-input", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return false
	}
	workflow.GetLogger(ctx).Warn("The workflow's input breaks a rule; nothing is reserved.", "error", err)
	r.admission = activities.Snapshot{Outcome: earmark.OutcomeInvalid, Subject: err.Error()}
	r.snapshot = r.admission
	r.decided = true
	return true
}

// commit charges usage. If Postgres has lost the reservation, as after the restore of a
// backup, commit charges the usage from the workflow's own state; the same applies to usage
// that was accepted before it was known whether the row exists.
func (r *reservation) commit(ctx workflow.Context, settlement earmark.Transition, usage earmark.Amounts) activities.Snapshot {
	answer := r.call(ctx, "commit", ledger.Commit, activities.CommitInput{Transition: settlement, Usage: usage})
	if answer.Outcome == earmark.OutcomeUnknown && (r.admitted || r.admission.Outcome == earmark.OutcomeTooLate) { // mutation: lost-row
		answer = r.call(ctx, "charge", ledger.Charge, r.lostCharge(settlement, usage))
		r.admitted = true
	}
	if answer.Outcome == earmark.OutcomeApplied || answer.Outcome == earmark.OutcomeSame && r.open() { // the API committed, and this message says so
		r.committed = settlement
	}
	return r.apply(ctx, answer)
}

func (r *reservation) release(ctx workflow.Context, settlement earmark.Transition) activities.Snapshot {
	return r.apply(ctx, r.call(ctx, "release", ledger.Release, settlement))
}

func (r *reservation) giveBack(ctx workflow.Context, settlement earmark.Transition) activities.Snapshot {
	return r.apply(ctx, r.call(ctx, "give back", ledger.GiveBack, settlement))
}

func (r *reservation) extend(ctx workflow.Context, settlement earmark.Transition, ttlSeconds int64) activities.Snapshot {
	return r.observe(ctx, r.call(ctx, "extend", ledger.Extend, activities.ExtendInput{Transition: settlement, TTLSeconds: ttlSeconds}))
}

// expire applies the expiry policy. The timer is lazy: after an extension it fires early,
// the ledger reports the remaining time, and the workflow sets it again.
func (r *reservation) expire(ctx workflow.Context) {
	r.apply(ctx, r.call(ctx, "expire", ledger.Expire, r.settlement("the lease ran out")))
	r.arm(ctx) // mutation: lazy-timer
}

// inspect reads the reservation's state after another actor changed it.
func (r *reservation) inspect(ctx workflow.Context) activities.Snapshot {
	return r.observe(ctx, r.call(ctx, "look", ledger.Inspect, r.settlement("")))
}

// guard takes over an existing reservation from a lost workflow.
func (r *reservation) guard(ctx workflow.Context) {
	r.admitted = true
	r.admission = r.inspect(ctx)
	r.decided = true
	r.recordCreation(r.admission)
}

// recordCreation stores when the reservation was created: it settles in that window (R7).
func (r *reservation) recordCreation(answer activities.Snapshot) {
	if answer.CreatedAt != nil {
		r.createdAt = *answer.CreatedAt
	}
}

// apply sets the reservation's state from an answer of the ledger.
func (r *reservation) apply(ctx workflow.Context, answer activities.Snapshot) activities.Snapshot {
	if !r.admitted || answer.Outcome == earmark.OutcomeOverflow {
		return answer // there was no row, or the ledger refused the whole call: nothing changed
	}
	before := r.snapshot.State
	r.snapshot = answer
	if r.snapshot.State != before {
		r.indexState(ctx)
		r.arm(ctx)
	}
	return answer
}

// observe is apply for calls that settle nothing. It ignores that Postgres has lost the
// row: the lease runs on, because usage may still arrive that must be charged.
func (r *reservation) observe(ctx workflow.Context, answer activities.Snapshot) activities.Snapshot {
	if answer.Outcome == earmark.OutcomeUnknown && r.open() {
		return answer
	}
	return r.apply(ctx, answer)
}

func (r *reservation) settlement(reason string) earmark.Transition {
	return earmark.Transition{ID: r.Admission.ID, Tenant: r.Admission.Tenant, Actor: earmark.ActorWorkflow, Reason: reason}
}

// lostReason is added in the journal to the reason of the commit.
const lostReason = "the reservation was lost by Postgres"

// lostCharge returns a commit without its row as a charge: same actor, same reason (R4).
func (r *reservation) lostCharge(by earmark.Transition, usage earmark.Amounts) earmark.Charge {
	reason := lostReason
	if by.Reason != "" {
		reason = by.Reason + " (" + lostReason + ")"
	}
	return earmark.Charge{
		ID: r.Admission.ID, Tenant: r.Admission.Tenant, RequestHash: r.Admission.RequestHash,
		Request: earmark.UsageRequest{Scopes: r.Admission.Request.Scopes, Amounts: usage, Metadata: r.Admission.Request.Metadata},
		Actor:   by.Actor, Reason: reason, Response: by.Response, At: r.createdAt, // mutation: lost-row-by
	}
}

// call repeats a call until the ledger answers. It runs on a detached context: a cancelled
// workflow still resolves what it has begun.
func (r *reservation) call(ctx workflow.Context, what string, activity, input any) activities.Snapshot {
	ctx = detached(ctx) // mutation: detached
	var answer activities.Snapshot
	options := local
	options.Summary = what
	err := workflow.ExecuteLocalActivity(workflow.WithLocalActivityOptions(ctx, options), activity, input).Get(ctx, &answer)
	for err != nil {
		workflow.GetLogger(ctx).Warn("The ledger did not answer; trying until it does.", "call", what, "error", err)
		r.showFailure(ctx, what, err)
		if err = r.callUntilAnswered(ctx, what, activity, input, &answer); err != nil {
			_ = workflow.Sleep(ctx, brokenPause) // a detached context is never cancelled
		}
	}
	r.showFailure(ctx, "", nil)
	return answer
}

// callUntilAnswered runs a regular activity with unlimited retries. Temporal UI shows it
// with its last error. If that takes long, the search attribute says so.
func (r *reservation) callUntilAnswered(ctx workflow.Context, what string, activity, input, answer any) error {
	options := untilAnswered
	options.Summary = what + ", until the ledger answers"
	future := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), activity, input)
	inTime, err := workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{
		Timeout: failingAfter, TimerOptions: workflow.TimerOptions{Summary: "until it is marked " + StateAttributeSettling},
	}, future.IsReady)
	if err != nil {
		return err
	}
	if !inTime {
		r.index(ctx, StateAttributeSettling)
	}
	err = future.Get(ctx, answer)
	if !inTime {
		r.indexState(ctx)
	}
	return err
}

// indexState sets the search attribute for review, and clears it for every other state.
func (r *reservation) indexState(ctx workflow.Context) {
	if r.snapshot.State == earmark.StateReview {
		r.index(ctx, StateAttributeReview)
		return
	}
	r.index(ctx, "")
}

// index writes the search attribute if its value has changed.
func (r *reservation) index(ctx workflow.Context, value string) {
	if r.Unindexed || value == r.indexed {
		return
	}
	r.indexed = value
	update := AttributeState.ValueSet(value)
	if value == "" {
		update = AttributeState.ValueUnset()
	}
	if err := workflow.UpsertTypedSearchAttributes(ctx, update); err != nil {
		workflow.GetLogger(ctx).Warn("The search attribute was not written.", "error", err)
	}
}
