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
	// Adopt guards a reservation that exists already; such a workflow never reserves.
	Adopt bool `json:"adopt,omitempty"`
	// Unindexed says that the search attributes are not to be touched, because the
	// namespace does not have them.
	Unindexed bool `json:"unindexed,omitempty"`
}

// View is what the query "reservation" answers.
type View struct {
	ReservationID string              `json:"reservation_id"`
	Scopes        []string            `json:"scopes"`
	Amounts       earmark.Amounts     `json:"amounts"`
	OnExpiry      earmark.OnExpiry    `json:"on_expiry"`
	Standing      activities.Standing `json:"standing"`
	// Pending counts messages that have arrived and are not yet applied.
	Pending int `json:"pending"`
}

// minLease is the shortest time that the lease's timer is set to.
const minLease = time.Second

// Reservation guards one reservation: it reserves, waits for the completion, and
// commits, releases or expires. Postgres decides every transition; the workflow
// sees to it that the next one happens. It ends when the reservation is settled,
// and never before. Its result is how the reservation stands.
func Reservation(ctx workflow.Context, input ReservationInput) (activities.Standing, error) {
	r := &reservation{ReservationInput: input}
	if err := r.setup(ctx); err != nil {
		return activities.Standing{}, err
	}
	return r.run(ctx)
}

// reservation is the state of one Reservation workflow. The ledger's calls are in
// settle.go, the messages in messages.go, what people see in display.go.
type reservation struct {
	ReservationInput
	inbox     inbox
	admission activities.Standing // the decision on the admission
	standing  activities.Standing // the ledger's last answer
	admitted  bool                // a row exists, or existed before Postgres lost it
	createdAt time.Time           // of the reservation, by Postgres' clock
	decided   bool                // the admission has its decision
	indexed   string              // what the search attribute says
	lease     workflow.Future     // fires when the lease may have run out
}

// run reads like the state diagram. Completions that have arrived come before the
// timer, and a commit before a release.
func (r *reservation) run(ctx workflow.Context) (activities.Standing, error) {
	r.inbox.collect()
	if r.Adopt {
		r.guard(ctx)
	} else {
		r.reserve(ctx)
	}
	cancelled := false
	for {
		r.inbox.collect()
		r.show(ctx)
		switch {
		case !r.inbox.empty():
			r.apply(ctx, r.inbox.next())
		case !r.open():
			if err := r.leave(ctx); err != nil {
				return r.standing, err
			}
			if r.inbox.empty() {
				return r.standing, cancellation(ctx, cancelled)
			}
		case ctx.Err() != nil && !cancelled:
			cancelled = true
			r.giveBack(ctx, "the workflow was cancelled")
		case r.standing.State == earmark.StateHeld && r.lease.IsReady():
			r.expire(ctx)
		default:
			r.await(ctx)
		}
	}
}

// open reports whether budget is set aside.
func (r *reservation) open() bool {
	return r.standing.State == earmark.StateHeld || r.standing.State == earmark.StateReview
}

// await waits for a message, the end of the lease, or a cancellation.
func (r *reservation) await(ctx workflow.Context) {
	leaseOver := func() bool { return r.standing.State == earmark.StateHeld && r.lease.IsReady() }
	// The one error is the cancellation, which run looks at itself.
	_ = workflow.Await(ctx, func() bool { return r.inbox.waiting() || leaseOver() })
}

// leave waits until every handler has answered, and collects what came meanwhile.
func (r *reservation) leave(ctx workflow.Context) error {
	err := workflow.Await(detached(ctx), func() bool { return r.inbox.waiting() || workflow.AllHandlersFinished(ctx) })
	r.inbox.collect()
	return err
}

// arm sets the lease's timer to what Postgres says remains. No clocks are
// subtracted, so it does not matter how far they are apart.
func (r *reservation) arm(ctx workflow.Context) {
	if r.standing.State != earmark.StateHeld {
		return
	}
	remaining := max(time.Duration(r.standing.RemainingMS)*time.Millisecond, minLease)
	r.lease = workflow.NewTimerWithOptions(detached(ctx), remaining, workflow.TimerOptions{Summary: "lease"})
}

// cancellation closes the workflow as cancelled if that is what settled it.
func cancellation(ctx workflow.Context, cancelled bool) error {
	if cancelled {
		return ctx.Err()
	}
	return nil
}

// detached returns a context that a cancellation does not reach, for whatever
// must happen all the same.
func detached(ctx workflow.Context) workflow.Context {
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	return ctx
}
