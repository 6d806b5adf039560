package api

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
	"github.com/earmark-dev/earmark/workflows"
)

// DefaultAdmissionDeadline is how long a caller waits for a decision at most.
const DefaultAdmissionDeadline = 2 * time.Second

const (
	// handOver is how long an admission is waited for in this process before the
	// workflow itself is asked: its first task may run in another one.
	handOver = 100 * time.Millisecond
	// settleMoment is how long a settlement may take through the workflow before it
	// is applied to the ledger directly.
	settleMoment = time.Second
	// ledgerMoment is how long the ledger may take to answer, so that time is left
	// to hand the settlement to Temporal.
	ledgerMoment = 1500 * time.Millisecond
	// settleLimit bounds a whole settlement, which goes on when its caller leaves.
	settleLimit = 5 * time.Second
	// updatesAlone bounds the settlements that go on in Temporal: past it their callers
	// wait for them, and so ask for fewer.
	updatesAlone = 256
	// nudgeLimit is short: others find out too.
	nudgeLimit = 2 * time.Second
	// admissionsAtOnce bounds the admissions under way in this process. More would
	// not be decided sooner, and hold up the settlements, which have no bound: at
	// 30 ms each this is 1,000 a second.
	admissionsAtOnce = 32
	// admitTries bounds the attempts at one admission: the first may meet a workflow
	// of an earlier call, whose time is over.
	admitTries = 3
	// attemptPause separates two attempts, and two questions to a workflow whose task
	// has failed and is about to run again.
	attemptPause = 100 * time.Millisecond
	// retryPause is what a caller is told to wait after an unknown or failed call.
	retryPause = time.Second
)

// GuardLedger is what the guard needs of the ledger.
type GuardLedger interface {
	Reserve(ctx context.Context, a earmark.Admission) (earmark.Result, error)
	Commit(ctx context.Context, s earmark.Settlement, usage earmark.Amounts) (earmark.Result, error)
	Release(ctx context.Context, s earmark.Settlement) (earmark.Result, error)
	GiveBack(ctx context.Context, s earmark.Settlement) (earmark.Result, error)
	Reservation(ctx context.Context, tenant, id string) (*earmark.Reservation, error)
}

// TemporalGuard runs reservations' workflows, and goes past them to the ledger
// where they do not answer.
type TemporalGuard struct {
	Client client.Client
	Ledger GuardLedger
	// Admissions hands over what a worker in this process decides; nil when there
	// is none.
	Admissions *activities.Admissions
	// Deadline is how long a decision may take, DefaultAdmissionDeadline when zero.
	Deadline  time.Duration
	Namespace string
	// Unindexed leaves the search attributes alone.
	Unindexed bool
	Logger    *slog.Logger

	initSlots sync.Once
	slots     chan struct{} // one place for each admission under way
	// startsWork says that the last start of a workflow went well.
	startsWork atomic.Bool
	updates    sync.WaitGroup // settlements that go on in Temporal, some of them answered already
	updating   atomic.Int64   // how many they are
}

// Admit starts the reservation's workflow and waits for its decision until the
// deadline. Past that the result is unknown, and the workflow resolves it. AdmitBy
// comes as Postgres' time at the beginning; nothing is reserved a deadline later,
// when the caller has been told.
func (g *TemporalGuard) Admit(ctx context.Context, admission earmark.Admission) (earmark.Result, error) {
	deadline := g.Deadline
	if deadline == 0 {
		deadline = DefaultAdmissionDeadline
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	leave, err := g.enter(ctx, deadline/2)
	if err != nil {
		return earmark.Result{}, err
	}
	defer leave()
	admission.AdmitBy = admission.AdmitBy.Add(deadline) // mutation: postgres-clock
	for late := 0; late < admitTries; {
		result, err := g.attempt(ctx, admission)
		switch {
		case err == nil && result.Outcome != earmark.OutcomeTooLate:
			return result, nil
		case err == nil:
			late++
		case !transient(err) || !pause(ctx, attemptPause):
			return earmark.Result{}, g.unknown(ctx, admission, err)
		}
	}
	return earmark.Result{}, g.unknown(ctx, admission, errTooLate)
}

// enter takes a place among the admissions under way, and waits for one up to
// patience. Nothing has begun when it fails.
func (g *TemporalGuard) enter(ctx context.Context, patience time.Duration) (leave func(), err error) {
	g.initSlots.Do(func() { g.slots = make(chan struct{}, admissionsAtOnce) })
	leave = func() { <-g.slots }
	select {
	case g.slots <- struct{}{}:
		return leave, nil
	default:
	}
	waited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case g.slots <- struct{}{}:
		return leave, nil
	case <-waited.Done():
		busy := earmark.Errorf(earmark.CodeUnavailable, "%d admissions are under way, and none ended in time; nothing was reserved", admissionsAtOnce)
		busy.RetryAfter = retryPause
		return nil, busy
	}
}

var errTooLate = errors.New("the workflow found the time for the admission over")

func (g *TemporalGuard) attempt(ctx context.Context, admission earmark.Admission) (earmark.Result, error) {
	if g.Admissions == nil {
		return g.attemptElsewhere(ctx, admission)
	}
	return g.attemptHere(ctx, admission)
}

// attemptHere starts the workflow eagerly: its first task runs in this process, and
// so the admission is heard of at once. Meanwhile the ledger reserves, so that the two
// do not wait for one another. A yes needs both: that the ledger has said it, and that
// a workflow of this very attempt has started, which finds what is reserved. Should
// the start come to nothing, what is reserved is confirmed by the next try with the
// same key, or expires; where starts fail, the next admissions reserve by their
// workflow alone, so that no more is left behind.
func (g *TemporalGuard) attemptHere(ctx context.Context, admission earmark.Admission) (earmark.Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends what waits below
	here, stop := g.Admissions.Wait(admission)
	defer stop()

	var ahead *activities.Ahead
	var reserved <-chan struct{}
	if g.startsWork.Load() {
		ahead = g.Admissions.ReserveAhead(ctx, g.Ledger.Reserve, admission)
	}
	run, fresh, err := g.startHere(ctx, admission)
	g.startsWork.Store(err == nil)
	if err != nil {
		return earmark.Result{}, err
	}
	if ahead != nil && fresh {
		reserved = ahead.Done()
	}
	result, err := g.decision(ctx, admission, run, here, ahead, reserved)
	if err != nil || ahead == nil {
		return result, err
	}
	return besideAhead(ctx, ahead, result)
}

// decision waits for what is decided in this process, and asks Temporal for it where a
// decision here does not stand, or takes long.
func (g *TemporalGuard) decision(ctx context.Context, admission earmark.Admission, run client.WorkflowRun,
	here <-chan earmark.Result, ahead *activities.Ahead, reserved <-chan struct{},
) (earmark.Result, error) {
	slow := time.NewTimer(handOver)
	defer slow.Stop()
	var replies <-chan reply // from Temporal, once it is asked
	for {
		var result earmark.Result
		var err error
		select {
		case result = <-here:
		case <-reserved:
			reserved = nil
			if result, err = ahead.Result(); err != nil {
				continue // the workflow asks the ledger itself
			}
		case <-slow.C:
			if replies == nil {
				replies = ask(func() (earmark.Result, error) { return g.asked(ctx, admission, run) })
			}
			continue
		case r := <-replies:
			return r.result, r.err
		case <-ctx.Done():
			return earmark.Result{}, ctx.Err()
		}
		if stands(result) {
			return result, nil
		}
		if replies == nil { // a no stands once the workflow has closed with it
			replies = ask(func() (earmark.Result, error) { return g.closed(ctx, admission, run) })
		}
	}
}

var errAnothers = errors.New("the open workflow is that of another call")

// besideAhead looks at a workflow's decision beside what was found ahead of it. A no of
// another call's workflow is not on what is reserved for this request since: the next
// attempt starts a workflow for it, or meets the one that guards it.
func besideAhead(ctx context.Context, ahead *activities.Ahead, result earmark.Result) (earmark.Result, error) {
	select {
	case <-ahead.Done():
	case <-ctx.Done():
		return earmark.Result{}, ctx.Err()
	}
	own, err := ahead.Result()
	switch {
	case err != nil || own.Reservation == nil:
		return result, nil //nolint:nilerr // the workflow has asked the ledger itself
	case result.Reservation == nil:
		return earmark.Result{}, errAnothers
	case own.Outcome == earmark.OutcomeApplied && result.Reservation.State == earmark.StateHeld:
		result.Outcome = earmark.OutcomeApplied // by this very call
	}
	return result, nil
}

// startHere starts the workflow of this attempt. It is not fresh when that of another
// call was open: it may be about to close with a decision of its own.
func (g *TemporalGuard) startHere(ctx context.Context, admission earmark.Admission) (run client.WorkflowRun, fresh bool, err error) {
	options := g.startOptions(admission)
	options.EnableEagerStart = true
	attach := options.WorkflowIDConflictPolicy
	options.WorkflowIDConflictPolicy = enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL
	options.WorkflowExecutionErrorWhenAlreadyStarted = true
	run, err = g.Client.ExecuteWorkflow(ctx, options, workflows.ReservationType, g.input(admission))
	var started *serviceerror.WorkflowExecutionAlreadyStarted
	if !errors.As(err, &started) {
		return run, true, err
	}
	options.WorkflowIDConflictPolicy = attach
	options.WorkflowExecutionErrorWhenAlreadyStarted = false
	run, err = g.Client.ExecuteWorkflow(ctx, options, workflows.ReservationType, g.input(admission))
	return run, false, err
}

type reply struct {
	result earmark.Result
	err    error
}

// ask runs a call that is not waited for alone. It ends with the call's context.
func ask(call func() (earmark.Result, error)) <-chan reply {
	replies := make(chan reply, 1)
	go func() {
		result, err := call()
		replies <- reply{result, err}
	}()
	return replies
}

// asked asks the workflow for its decision.
func (g *TemporalGuard) asked(ctx context.Context, admission earmark.Admission, run client.WorkflowRun) (earmark.Result, error) {
	for {
		var standing activities.Standing
		err := g.update(ctx, admission.WorkflowID, workflows.UpdateAdmission, workflows.AdmissionMessage{RequestHash: admission.RequestHash}, &standing)
		var notReady *serviceerror.WorkflowNotReady
		switch {
		case err == nil:
			return g.resultOf(ctx, admission, standing)
		case !errors.As(err, &notReady): // most likely it closed meanwhile; the server has several words for that
			return g.closed(ctx, admission, run)
		case !pause(ctx, attemptPause):
			return earmark.Result{}, ctx.Err()
		}
	}
}

// closed waits for the workflow's end, whose result is how the reservation stands.
// If that was another request's, ours has not been looked at: too late for it.
func (g *TemporalGuard) closed(ctx context.Context, admission earmark.Admission, run client.WorkflowRun) (earmark.Result, error) {
	var ending workflows.Ending
	if err := run.Get(ctx, &ending); err != nil {
		return earmark.Result{}, err
	}
	if ending.RequestHash != admission.RequestHash {
		return earmark.Result{Outcome: earmark.OutcomeTooLate}, nil
	}
	return g.resultOf(ctx, admission, ending.Standing)
}

// attemptElsewhere starts the workflow and asks for the decision in one call; a
// worker in another process answers.
func (g *TemporalGuard) attemptElsewhere(ctx context.Context, admission earmark.Admission) (earmark.Result, error) {
	start := g.Client.NewWithStartWorkflowOperation(g.startOptions(admission), workflows.ReservationType, g.input(admission))
	handle, err := g.Client.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
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
	var standing activities.Standing
	if err := handle.Get(ctx, &standing); err != nil {
		return earmark.Result{}, err
	}
	return g.resultOf(ctx, admission, standing)
}

// resultOf completes what a workflow knows with the reservation itself.
func (g *TemporalGuard) resultOf(ctx context.Context, admission earmark.Admission, standing activities.Standing) (earmark.Result, error) {
	result := earmark.Result{Outcome: standing.Outcome, Decision: standing.Decision, Subject: standing.Subject}
	if standing.State == "" {
		return result, nil
	}
	reservation, err := g.Ledger.Reservation(ctx, admission.Tenant, admission.ID)
	if err != nil {
		return earmark.Result{}, err
	}
	if reservation == nil { // Postgres has lost it since
		return earmark.Result{Outcome: earmark.OutcomeUnknown}, nil
	}
	if reservation.State != earmark.StateHeld { // settled since, or long before
		result.Outcome = earmark.OutcomeSame
	}
	result.Reservation = reservation
	return result, nil
}

// Commit charges usage through the workflow, or past it. accepted means that
// neither could tell, and that Temporal keeps the message until it is applied.
func (g *TemporalGuard) Commit(ctx context.Context, s earmark.Settlement, usage earmark.Amounts) (result earmark.Result, accepted bool, err error) {
	s.Attempt = rand.Text()
	message := workflows.CommitMessage{Usage: usage, Operator: s.Operator(), Reason: s.Reason, Attempt: s.Attempt}
	return g.settle(ctx, s, usage, workflows.MessageCommit, message, func(ctx context.Context) (earmark.Result, error) {
		return g.Ledger.Commit(ctx, s, usage)
	})
}

// Release gives everything back through the workflow, or past it; see Commit. An
// operator's is an expiry with a reason.
func (g *TemporalGuard) Release(ctx context.Context, s earmark.Settlement) (result earmark.Result, accepted bool, err error) {
	return g.settle(ctx, s, nil, workflows.MessageRelease, workflows.ReleaseMessage{Operator: s.Operator(), Reason: s.Reason}, func(ctx context.Context) (earmark.Result, error) {
		if s.Operator() != "" {
			return g.Ledger.GiveBack(ctx, s)
		}
		return g.Ledger.Release(ctx, s)
	})
}

// settle goes on when its caller leaves: a charge must not depend on a connection.
func (g *TemporalGuard) settle(ctx context.Context, s earmark.Settlement, usage earmark.Amounts, name string, message any,
	direct func(context.Context) (earmark.Result, error),
) (earmark.Result, bool, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleLimit)
	defer cancel()
	workflowID := workflows.ReservationWorkflowID(s.ID)

	result, gone, err := g.settleByWorkflow(ctx, s, usage, name, message)
	if err == nil {
		return result, false, nil
	}
	result, err = within(ctx, ledgerMoment, direct) // mutation: past-the-workflow
	switch {
	case err == nil && gone:
		return result, false, nil
	case err == nil && result.Outcome != earmark.OutcomeUnknown:
		go g.nudge(context.WithoutCancel(ctx), workflowID) // the caller has its answer
		return result, false, nil
	}
	// Postgres is away, or it does not have the row while a workflow for it is open
	// and may yet reserve. Temporal keeps the message.
	if signalErr := g.Client.SignalWorkflow(ctx, workflowID, "", name, message); signalErr == nil { // mutation: kept-by-temporal
		return earmark.Result{}, true, nil
	}
	return result, false, err
}

// settleByWorkflow asks the workflow, for a moment. gone is true when it is known
// that no workflow is open. A workflow in this process hands over what the ledger
// answered as soon as that is durable; then the update goes on alone.
func (g *TemporalGuard) settleByWorkflow(ctx context.Context, s earmark.Settlement, usage earmark.Amounts, name string, message any) (result earmark.Result, gone bool, err error) {
	here, stop := g.Admissions.WaitSettled(s, usage)
	defer stop()
	if g.updating.Load() >= updatesAlone {
		here = nil
	}
	answered := make(chan struct{})
	defer close(answered)
	updated := make(chan standingReply)
	g.updating.Add(1)
	g.updates.Go(func() {
		defer g.updating.Add(-1)
		moment, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleMoment)
		defer cancel()
		var r standingReply
		r.err = g.update(moment, workflows.ReservationWorkflowID(s.ID), name, message, &r.standing)
		select {
		case updated <- r:
		case <-answered:
			if r.err != nil && !isNotFound(r.err) { // the workflow may not know that it is over
				g.nudge(context.WithoutCancel(ctx), workflows.ReservationWorkflowID(s.ID))
			}
		}
	})
	select {
	case result := <-here:
		return result, false, nil
	case r := <-updated:
		if r.err != nil {
			return earmark.Result{}, isNotFound(r.err), r.err
		}
		result, err := g.settled(ctx, s, r.standing)
		return result, false, err
	}
}

type standingReply struct {
	standing activities.Standing
	err      error
}

// settled completes what a workflow knows of a settlement with the reservation itself.
func (g *TemporalGuard) settled(ctx context.Context, s earmark.Settlement, standing activities.Standing) (earmark.Result, error) {
	result := earmark.Result{Outcome: standing.Outcome, Subject: standing.Subject}
	if standing.State == "" {
		return result, nil
	}
	reservation, err := within(ctx, ledgerMoment, func(ctx context.Context) (*earmark.Reservation, error) {
		return g.Ledger.Reservation(ctx, s.Tenant, s.ID)
	})
	if err == nil && reservation == nil {
		err = errors.New("the reservation is gone since its workflow settled it")
	}
	result.Reservation = reservation
	return result, err
}

// Wait returns once every settlement that was answered early has ended in Temporal as
// well, which takes a few seconds at most. Call it when no more are asked for.
func (g *TemporalGuard) Wait() { g.updates.Wait() }

func within[T any](ctx context.Context, limit time.Duration, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return call(ctx)
}

// nudge tells the workflow that the ledger has moved past it. If that fails, its
// timer or the reconciler finds out.
func (g *TemporalGuard) nudge(ctx context.Context, workflowID string) {
	ctx, cancel := context.WithTimeout(ctx, nudgeLimit)
	defer cancel()
	if err := g.Client.SignalWorkflow(ctx, workflowID, "", workflows.SignalRefresh, nil); err != nil && !isNotFound(err) {
		g.Logger.WarnContext(ctx, "A workflow could not be told that its reservation is settled.", "workflow_id", workflowID, "error", err)
	}
}

// update sends an update and waits for its result.
func (g *TemporalGuard) update(ctx context.Context, workflowID, name string, message, result any) error {
	handle, err := g.Client.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: workflowID, UpdateName: name, Args: []any{message}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err != nil {
		return err
	}
	return handle.Get(ctx, result)
}

func (g *TemporalGuard) startOptions(admission earmark.Admission) client.StartWorkflowOptions {
	// Postgres will set the real expiry; for finding workflows this is near enough.
	return workflows.StartOptions(admission, time.Now().Add(admission.Request.TTL()), g.Unindexed)
}

func (g *TemporalGuard) input(admission earmark.Admission) workflows.ReservationInput {
	return workflows.ReservationInput{Admission: admission, Unindexed: g.Unindexed}
}

// unknown says that the decision on an admission did not arrive.
func (g *TemporalGuard) unknown(ctx context.Context, admission earmark.Admission, err error) error {
	unknown := earmark.Errorf(earmark.CodeAdmissionUnknown, "no decision arrived in time; the same Idempotency-Key is safe to try again, and what was reserved meanwhile expires by itself")
	unknown.ReservationID = admission.ID
	unknown.RetryAfter = retryPause
	g.Logger.WarnContext(ctx, "An admission is not known yet.", "reservation_id", admission.ID, "tenant", admission.Tenant, "error", err)
	return unknown
}

// stands reports whether an answer in this process can be acted on: whatever rests
// on a row in Postgres can, and another request's id is no admission either way.
func stands(result earmark.Result) bool {
	return result.Reservation != nil || result.Outcome == earmark.OutcomeMismatch // mutation: durable-no
}

// Ready reports whether Temporal answers and has the search attributes.
func (g *TemporalGuard) Ready(ctx context.Context) error {
	if _, err := g.Client.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		return earmark.Errorf(earmark.CodeUnavailable, "Temporal does not answer: %w", err)
	}
	if g.Unindexed {
		return nil
	}
	missing, err := workflows.MissingSearchAttributes(ctx, g.Client, g.Namespace)
	if err != nil {
		return earmark.Errorf(earmark.CodeUnavailable, "Temporal does not tell its search attributes: %w", err)
	}
	if len(missing) > 0 {
		return earmark.Errorf(earmark.CodeUnavailable, "the Temporal namespace %s lacks the search attributes %s; run `earmark migrate up`, or use --without-search-attributes",
			g.Namespace, strings.Join(missing, ", "))
	}
	return nil
}

// transient reports whether the same call may succeed in a moment. The SDK gives a
// call half of the time that is left, and does not repeat it when that is over.
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

// pause waits; false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func isNotFound(err error) bool {
	var notFound *serviceerror.NotFound
	return errors.As(err, &notFound)
}
