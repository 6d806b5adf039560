package lifecycle

import (
	"context"
	"errors"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
	"github.com/earmark-dev/earmark/internal/ctxtime"
	"github.com/earmark-dev/earmark/internal/fairqueue"
	"github.com/earmark-dev/earmark/internal/handoff"
	"github.com/earmark-dev/earmark/internal/workflowstore"
	"github.com/earmark-dev/earmark/workflows"
)

var (
	errTooLate  = errors.New("the workflow found that the deadline of the admission had passed")
	errAnothers = errors.New("the open workflow belongs to another call")
	errDeadline = errors.New("the deadline of the admission has passed")
)

// Admit starts the reservation's workflow and waits for its decision until the deadline.
// After the deadline the outcome is unknown, and the workflow resolves it. The caller sets
// AdmitBy to Postgres' time at the beginning of the call; Admit adds the deadline, after
// which the ledger reserves nothing.
func (c *Coordinator) Admit(ctx context.Context, admission earmark.Admission) (earmark.Result, error) {
	deadline := c.Deadline
	if deadline == 0 {
		deadline = DefaultDeadline
	}
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, errDeadline)
	defer cancel()
	leave, err := c.enter(ctx, admission, deadline/2)
	if err != nil {
		return earmark.Result{}, err
	}
	defer leave()
	admission.AdmitBy = admission.AdmitBy.Add(deadline) // mutation: postgres-clock
	begun := time.Now()
	for late := 0; late < maxAttempts; {
		result, err := c.attempt(ctx, admission)
		switch {
		case err == nil && result.Outcome != earmark.OutcomeTooLate:
			c.resize(c.places.decide(time.Since(begun), c.admissions.Full(), time.Now()))
			return result, nil
		case err == nil:
			late++
		case !transient(err) || !ctxtime.Sleep(ctx, attemptPause):
			return earmark.Result{}, c.unknown(ctx, admission, err)
		}
	}
	return earmark.Result{}, c.unknown(ctx, admission, errTooLate)
}

// queueName is what an error calls the queue of the admissions under way.
const queueName = "admissions"

// enter takes a place among the running admissions, and waits for one up to timeout, in fair turns
// with other tenants and scopes. If it returns an error, nothing has begun.
func (c *Coordinator) enter(ctx context.Context, admission earmark.Admission, timeout time.Duration) (leave func(), err error) {
	c.init()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	leave, err = c.admissions.Enter(ctx, fairqueue.Caller{Tenant: admission.Tenant, Scope: admission.Request.Scopes[0]})
	if err != nil {
		busy := earmark.Errorf(earmark.CodeUnavailable, "the queue of %s is full: %d are under way, and none of them ended in time; nothing was reserved", queueName, c.admissions.Size())
		busy.RetryAfter, busy.Queue = retryPause, queueName
		return nil, busy
	}
	return leave, nil
}

// resize sets how many admissions are under way at once; no more than notifications, while many of those
// wait.
func (c *Coordinator) resize(places int) {
	if c.unnotified.Load() > maxUnnotified/2 {
		places = min(places, maxNotifying)
	}
	c.admissions.Resize(places)
}

func (c *Coordinator) attempt(ctx context.Context, admission earmark.Admission) (earmark.Result, error) {
	if c.Handoff == nil {
		return c.admitRemote(ctx, admission)
	}
	return c.admitLocal(ctx, admission)
}

// admitRemote starts the workflow and sends it the update that waits for the decision, in
// one call; a worker in another process answers.
func (c *Coordinator) admitRemote(ctx context.Context, admission earmark.Admission) (earmark.Result, error) {
	start := c.Client.NewWithStartWorkflowOperation(c.startOptions(admission), workflows.ReservationType, c.input(admission))
	handle, err := c.Client.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
		StartWorkflowOperation: start,
		UpdateOptions: client.UpdateWorkflowOptions{
			UpdateName:   workflows.UpdateAdmission,
			Args:         []any{workflows.AdmissionMessage{RequestHash: admission.RequestHash}},
			WaitForStage: client.WorkflowUpdateStageCompleted,
		},
	})
	if err != nil {
		return earmark.Result{}, err
	}
	var snapshot activities.Snapshot
	if err := handle.Get(ctx, &snapshot); err != nil {
		return earmark.Result{}, err
	}
	return c.resultOf(ctx, admission, snapshot)
}

// admitLocal starts the workflow eagerly: its first task runs in this process, which
// delivers the decision at once. Meanwhile the ledger reserves speculatively, so that
// neither waits for the other. An admission needs both: reserved amounts, and a workflow
// that was started for this attempt, which then finds the reservation. If the start fails,
// the hold remains until the caller retries with the same key or its lease ends. While
// starts fail, the next admissions leave the reserve to their workflow, so that no further
// holds remain.
func (c *Coordinator) admitLocal(ctx context.Context, admission earmark.Admission) (earmark.Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the calls that wait below
	local, stop := c.Handoff.AwaitDecision(admission)
	defer stop()

	s := sources{local: local}
	if c.startsWork.Load() {
		s.speculation = c.Handoff.Speculate(ctx, c.Ledger.Reserve, admission)
	}
	window := c.Handoff.OpenWindow(admission.ID, c.SettleWindow)
	run, fresh, err := c.startEagerly(ctx, admission, window)
	if err == nil || !callerLeft(ctx) {
		c.startsWork.Store(err == nil)
	}
	if window && (err != nil || !fresh) {
		c.Handoff.CloseWindow(admission.ID)
	}
	if err != nil {
		return earmark.Result{}, err
	}
	if s.speculation != nil {
		s.speculative, s.fresh = s.speculation.Done(), fresh
	}
	result, err := c.decision(ctx, admission, run, s)
	if window && err == nil && result.Reservation == nil {
		c.Handoff.CloseWindow(admission.ID)
	}
	if err != nil || s.speculation == nil {
		return result, err
	}
	return reconcileResults(ctx, s.speculation, result)
}

// callerLeft reports whether the caller of Admit cancelled it or its own deadline passed.
func callerLeft(ctx context.Context) bool { return ctx.Err() != nil && !ranOut(ctx) }

// ranOut reports whether the deadline of the admission ended it. If Temporal refuses a
// start or the caller leaves, that does not show that Temporal is slow.
func ranOut(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errDeadline) }

// sources are the places from which a decision may come. A nil channel is an unused source.
type sources struct {
	local       <-chan earmark.Result // the workflow's activity in this process
	speculation *handoff.Speculation
	speculative <-chan struct{} // closed when the speculation has its result
	fresh       bool            // the workflow was started for this attempt
	remote      <-chan reply    // Temporal
}

// decision waits for the first final result:
//
//	local, speculative ── a yes ──────────────────────────> final
//	        │
//	        ├── a no ── remote: the workflow's result ────> final
//	        └── after handoffTimeout ── remote: the query ─> final
func (c *Coordinator) decision(ctx context.Context, admission earmark.Admission, run client.WorkflowRun, s sources) (earmark.Result, error) {
	slow := time.NewTimer(handoffTimeout)
	defer slow.Stop()
	for {
		var result earmark.Result
		var err error
		select {
		case result = <-s.local:
		case <-s.speculative:
			s.speculative = nil
			if result, err = s.speculation.Result(); err != nil || !s.fresh && !stood(result) { // mutation: retry-by-ledger
				continue // the workflow calls the ledger itself
			}
		case <-slow.C:
			if s.remote == nil {
				s.remote = queryAsync(func() (earmark.Result, error) { return c.queryWorkflow(ctx, admission, run) })
			}
			continue
		case r := <-s.remote:
			return r.result, r.err
		case <-ctx.Done():
			return earmark.Result{}, ctx.Err()
		}
		if isFinal(result) {
			return result, nil
		}
		if s.remote == nil {
			s.remote = queryAsync(func() (earmark.Result, error) { return c.awaitResult(ctx, admission, run) })
		}
	}
}

// isFinal reports whether the API may answer with a result of this process. It may if a row
// exists in Postgres, or if the id belongs to another request, which is no admission in
// either case. A denial becomes final when the workflow has closed with it.
func isFinal(result earmark.Result) bool {
	return result.Reservation != nil || result.Outcome == earmark.OutcomeMismatch // mutation: durable-no
}

// stood reports whether the ledger found a reservation that an earlier call made under the
// id. That is the answer, because a workflow is open. If that workflow is about to close
// with the denial of another call, the reservation has no workflow until its own call, or
// the reconciler, starts one.
func stood(result earmark.Result) bool {
	return result.Outcome == earmark.OutcomeSame || result.Outcome == earmark.OutcomeMismatch
}

// reconcileResults compares the workflow's decision with the result of the speculation. The
// denial of another call's workflow does not cover what was reserved for this request
// since: the next attempt starts a workflow for it, or finds the one that guards it.
func reconcileResults(ctx context.Context, speculation *handoff.Speculation, result earmark.Result) (earmark.Result, error) {
	select {
	case <-speculation.Done():
	case <-ctx.Done():
		return earmark.Result{}, ctx.Err()
	}
	own, err := speculation.Result()
	switch {
	case err != nil || own.Reservation == nil:
		return result, nil //nolint:nilerr // the workflow has called the ledger itself
	case result.Reservation == nil:
		return earmark.Result{}, errAnothers
	case own.Outcome == earmark.OutcomeApplied && result.Reservation.State == earmark.StateHeld:
		result.Outcome = earmark.OutcomeApplied // by this call
	}
	return result, nil
}

// startEagerly starts the workflow of this attempt. fresh is false if the workflow of
// another call was open, which may be about to close with a decision of its own.
func (c *Coordinator) startEagerly(ctx context.Context, admission earmark.Admission, window bool) (run client.WorkflowRun, fresh bool, err error) {
	options := c.startOptions(admission)
	options.EnableEagerStart = true
	attach := options.WorkflowIDConflictPolicy
	options.WorkflowIDConflictPolicy = enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL
	options.WorkflowExecutionErrorWhenAlreadyStarted = true
	input := c.input(admission)
	input.SettleWindow = window
	run, err = c.Client.ExecuteWorkflow(ctx, options, workflows.ReservationType, input)
	var started *serviceerror.WorkflowExecutionAlreadyStarted
	if !errors.As(err, &started) {
		return run, true, err
	}
	options.WorkflowIDConflictPolicy = attach
	options.WorkflowExecutionErrorWhenAlreadyStarted = false
	run, err = c.Client.ExecuteWorkflow(ctx, options, workflows.ReservationType, c.input(admission))
	return run, false, err
}

type reply struct {
	result earmark.Result
	err    error
}

// queryAsync runs a call whose reply is one of several sources. The call ends with its
// context.
func queryAsync(call func() (earmark.Result, error)) <-chan reply {
	replies := make(chan reply, 1)
	go func() {
		result, err := call()
		replies <- reply{result, err}
	}()
	return replies
}

// queryWorkflow sends the workflow the update that waits for its decision.
func (c *Coordinator) queryWorkflow(ctx context.Context, admission earmark.Admission, run client.WorkflowRun) (earmark.Result, error) {
	for {
		var snapshot activities.Snapshot
		err := c.update(ctx, admission.WorkflowID, workflows.UpdateAdmission, workflows.AdmissionMessage{RequestHash: admission.RequestHash}, &snapshot)
		var notReady *serviceerror.WorkflowNotReady
		switch {
		case err == nil:
			return c.resultOf(ctx, admission, snapshot)
		case !errors.As(err, &notReady): // it has probably closed meanwhile, for which the server has several errors
			return c.awaitResult(ctx, admission, run)
		case !ctxtime.Sleep(ctx, attemptPause):
			return earmark.Result{}, ctx.Err()
		}
	}
}

// awaitResult waits for the workflow's end. A workflow of another request has not decided
// on this one, for which it is then too late.
func (c *Coordinator) awaitResult(ctx context.Context, admission earmark.Admission, run client.WorkflowRun) (earmark.Result, error) {
	var ended workflows.WorkflowResult
	if err := run.Get(ctx, &ended); err != nil {
		return earmark.Result{}, err
	}
	if ended.RequestHash != admission.RequestHash {
		return earmark.Result{Outcome: earmark.OutcomeTooLate}, nil
	}
	return c.resultOf(ctx, admission, ended.Snapshot)
}

// resultOf completes a workflow's snapshot with the reservation from the ledger.
func (c *Coordinator) resultOf(ctx context.Context, admission earmark.Admission, snapshot activities.Snapshot) (earmark.Result, error) {
	result := earmark.Result{Outcome: snapshot.Outcome, Decision: snapshot.Decision, Subject: snapshot.Subject, Scope: snapshot.Scope}
	if snapshot.State == "" {
		return result, nil
	}
	reservation, err := c.Ledger.Reservation(ctx, admission.Tenant, admission.ID)
	if err != nil {
		return earmark.Result{}, err
	}
	if reservation == nil { // Postgres has lost it since
		return earmark.Result{Outcome: earmark.OutcomeUnknown}, nil
	}
	if reservation.State != earmark.StateHeld { // settled meanwhile, or long ago
		result.Outcome = earmark.OutcomeSame
	}
	result.Reservation = reservation
	return result, nil
}

func (c *Coordinator) startOptions(admission earmark.Admission) client.StartWorkflowOptions {
	// An estimate for searches; Postgres sets the real expiry.
	return workflowstore.StartOptions(admission, time.Now().Add(admission.Request.TTL()), c.Prefix, c.Unindexed)
}

func (c *Coordinator) input(admission earmark.Admission) workflows.ReservationInput {
	return workflows.ReservationInput{Admission: admission, Unindexed: c.Unindexed}
}

// unknown returns the error of an admission whose decision did not arrive.
func (c *Coordinator) unknown(ctx context.Context, admission earmark.Admission, err error) error {
	if ranOut(ctx) {
		c.resize(c.places.undecided())
	}
	cause := "no decision arrived in time"
	looking, cancel := context.WithTimeout(context.WithoutCancel(ctx), workersTimeout)
	defer cancel()
	if missing, lookErr := c.missingWorker(looking); lookErr == nil && missing != "" {
		cause += ": " + missing
	}
	unknown := earmark.Errorf(earmark.CodeAdmissionUnknown, "%s; the same Idempotency-Key is safe to try again, and what was reserved meanwhile expires by itself", cause)
	unknown.ReservationID = admission.ID
	unknown.RetryAfter = retryPause
	c.Logger.WarnContext(ctx, "An admission is not known yet.", "reservation_id", admission.ID, "tenant", admission.Tenant, "error", err)
	return unknown
}

// transient reports whether the same call may soon succeed. The SDK gives a call half of
// the remaining time and does not repeat it after that.
func transient(err error) bool {
	var (
		slow        *serviceerror.DeadlineExceeded
		away        *serviceerror.Unavailable
		busy        *serviceerror.ResourceExhausted
		notReady    *serviceerror.WorkflowNotReady
		updateState *client.WorkflowUpdateServiceTimeoutOrCanceledError
	)
	return errors.Is(err, errAnothers) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &slow) || errors.As(err, &away) ||
		errors.As(err, &busy) || errors.As(err, &notReady) || errors.As(err, &updateState)
}
