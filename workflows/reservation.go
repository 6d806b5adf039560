package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
)

// ReservationInput starts a Reservation workflow.
type ReservationInput struct {
	Admission earmark.Admission `json:"admission"`
	// Adopt says that the workflow replaces a lost one: it guards an existing reservation
	// and never reserves.
	Adopt bool `json:"adopt,omitempty"`
	// Resume says that the workflow continues its earlier run, whose reservation exists.
	Resume bool `json:"resume,omitempty"`
	// Unindexed says that the namespace does not have the search attributes, so the
	// workflow sets none.
	Unindexed bool `json:"unindexed,omitempty"`
	// SettleWindow says that the process that starts the workflow keeps a settle window:
	// the first task waits in it for the settlement. Histories of earlier releases do not
	// have it.
	SettleWindow bool `json:"settle_window,omitempty"`
}

// QueryResult is the answer to the query "reservation".
type QueryResult struct {
	ReservationID string              `json:"reservation_id"`
	Scopes        []string            `json:"scopes"`
	Amounts       earmark.Amounts     `json:"amounts"`
	OnExpiry      earmark.OnExpiry    `json:"on_expiry"`
	Snapshot      activities.Snapshot `json:"standing"`
	// Pending counts messages that have arrived and are not yet applied.
	Pending int `json:"pending"`
}

// WorkflowResult is the workflow's result: the reservation's last state, and the hash of
// the request, because callers may have sent several requests under one id.
type WorkflowResult struct {
	activities.Snapshot
	RequestHash string `json:"request_hash"`
}

// minLease is the shortest duration of the lease's timer.
const minLease = time.Second

// Reservation guards one reservation: it reserves, waits for the settlement, and commits,
// releases or expires. Postgres decides every transition; the workflow makes sure that the
// next one happens. It ends only after the reservation is settled.
func Reservation(ctx workflow.Context, input ReservationInput) (WorkflowResult, error) {
	r := &reservation{ReservationInput: input}
	if err := r.setup(ctx); err != nil {
		return WorkflowResult{}, err
	}
	err := r.run(ctx)
	return r.result(), err
}

// reservation is the state of one Reservation workflow. The ledger's calls are in
// settle.go, the messages in messages.go.
type reservation struct {
	ReservationInput
	display
	inbox     inbox
	admission activities.Snapshot // the decision on the admission
	snapshot  activities.Snapshot // the ledger's last answer
	admitted  bool                // a row exists, or existed before Postgres lost it
	createdAt time.Time           // of the reservation, by Postgres' clock
	decided   bool                // the admission has its decision
	committed earmark.Transition  // who committed, and why; zero before a commit
	lease     workflow.Future     // fires when the lease may have ended
}

// run reads like the state diagram. The ledger decides each transition.
//
//	            reserve ── no, or invalid input ─────────> end: nothing reserved
//	               │   └── a release came first ─────────> end: released
//	               │ yes          adopt, resume
//	               v                    │
//	extend ┌───> held <─────────────────┘
//	       └─────┤ │ │
//	             │ │ └──── commit ───────────────────────> end: committed
//	             │ └────── release by the caller ────────> end: released
//	             │         release by an operator,
//	             │         or the workflow is cancelled ─> end: expired
//	             │ the lease ends
//	             ├──────── on_expiry release ────────────> end: expired
//	             ├──────── on_expiry commit ─────────────> end: committed, an estimate
//	             v on_expiry review, or a refused commit before
//	           review
//	             ├──────── commit ───────────────────────> end: committed
//	             └──────── release ──────────────────────> end: released, or by an operator: expired
//
// run handles messages that have arrived before it handles the end of the lease, and a
// commit before a release. Before the workflow ends, run handles the messages that have
// arrived meanwhile: usage that arrives after an expiry is charged.
func (r *reservation) run(ctx workflow.Context) error {
	r.inbox.collect()
	switch {
	case r.Adopt, r.Resume:
		r.guard(ctx)
	case r.refuse(ctx): // mutation: refuse-invalid-input
	default:
		r.reserve(ctx)
		r.awaitSettlement(ctx)
		r.arm(ctx) // mutation: order-of-events
	}
	var cancelled error
	for {
		r.inbox.collect() // mutation: drain-before-end
		r.show(ctx)
		switch {
		case !r.inbox.empty(): // mutation: messages-before-timer
			r.handle(ctx, r.inbox.next())
		case !r.open():
			if r.drain(ctx) {
				return cancelled
			}
		case ctx.Err() != nil:
			cancelled = ctx.Err()
			ctx = detached(ctx)
			r.giveBack(ctx, r.settlement("the workflow was cancelled")) // mutation: cancel
		case r.leaseOver():
			r.expire(ctx)
		case workflow.GetInfo(ctx).GetContinueAsNewSuggested(): // mutation: continue-as-new
			if r.drain(ctx) {
				return r.continueAsNew(ctx)
			}
		default:
			r.await(ctx)
		}
	}
}

// result returns the workflow's result. If the workflow knows charged usage, the result
// also identifies its row, so that the reconciler can charge it again after the restore of
// a backup.
func (r *reservation) result() WorkflowResult {
	result := WorkflowResult{Snapshot: r.snapshot, RequestHash: r.Admission.RequestHash}
	if result.Usage != nil && !r.createdAt.IsZero() {
		result.CreatedAt = &r.createdAt
		result.Reason = r.committed.Reason
		if r.committed.Actor.Named() {
			result.Actor = &r.committed.Actor
		}
	}
	return result
}

// open reports whether the reservation holds its amounts.
func (r *reservation) open() bool {
	return r.snapshot.State == earmark.StateHeld || r.snapshot.State == earmark.StateReview
}

// leaseOver reports whether the lease may have ended.
func (r *reservation) leaseOver() bool {
	return r.snapshot.State == earmark.StateHeld && r.lease.IsReady()
}

// await waits for a message, the end of the lease, or a cancellation.
func (r *reservation) await(ctx workflow.Context) {
	// The only error is the cancellation, which run checks itself.
	_ = workflow.Await(ctx, func() bool { return r.inbox.waiting() || r.leaseOver() })
}

// drain waits until every handler has returned. It returns false if more messages have
// arrived meanwhile, which run must apply first.
func (r *reservation) drain(ctx workflow.Context) bool {
	// A detached context is never cancelled, so Await returns no error.
	_ = workflow.Await(detached(ctx), func() bool { return r.inbox.waiting() || workflow.AllHandlersFinished(ctx) })
	r.inbox.collect()      // mutation: drain-before-end
	return r.inbox.empty() // mutation: drain-before-end
}

// continueAsNew continues with an empty history. A lease that is extended every 30 s for 7
// days costs about 120,000 events; Temporal ends a workflow at 51,200.
func (r *reservation) continueAsNew(ctx workflow.Context) error {
	next := r.ReservationInput
	next.Resume = true
	return workflow.NewContinueAsNewError(ctx, ReservationType, next)
}

// arm sets the lease's timer to the remaining time that Postgres reports. It subtracts no
// clocks, so their difference does not matter.
func (r *reservation) arm(ctx workflow.Context) {
	if r.snapshot.State != earmark.StateHeld {
		return
	}
	remaining := max(time.Duration(r.snapshot.RemainingMS)*time.Millisecond, minLease)
	r.lease = workflow.NewTimerWithOptions(detached(ctx), remaining, workflow.TimerOptions{Summary: r.showLease(ctx, remaining)})
}

// detached returns a context that a cancellation does not reach, for calls that must
// complete.
func detached(ctx workflow.Context) workflow.Context {
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	return ctx
}
