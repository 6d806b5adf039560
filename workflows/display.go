package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark/workflows/card"
)

// display is the state that Temporal UI shows. No transition depends on it.
type display struct {
	expiresAt time.Time // roughly when the lease ends, by the workflow's clock
	failing   string    // the call that the ledger does not answer
	failure   string    // its last error
	indexed   string    // the value of the search attribute
}

// show sets the current details: a card with the reservation's state and what to do. It
// adds no event to the history.
func (r *reservation) show(ctx workflow.Context) {
	current := card.Card{ID: r.Admission.ID, Request: r.Admission.Request, Snapshot: r.snapshot,
		ExpiresAt: r.expiresAt, Failing: r.failing, Failure: r.failure, Pending: len(r.inbox.messages)}
	text := current.Markdown(workflow.Now(ctx).UTC())
	if r.Resume { // a continued run has no summary and no details of its own
		text += "\n" + card.Summary(r.Admission.Request) + "\n\n" + card.Details(r.Admission.ID, r.Admission.Request)
	}
	workflow.SetCurrentDetails(ctx, text)
}

// showLease stores when the lease ends, by this workflow's clock, and returns the timer's
// summary.
func (r *reservation) showLease(ctx workflow.Context, remaining time.Duration) string {
	r.expiresAt = workflow.Now(ctx).Add(remaining).UTC()
	return "lease until " + card.Stamp(r.expiresAt) // without the policy, which may still change
}

// showFailure shows that the ledger does not answer a call; with an empty call, that it
// answers again.
func (r *reservation) showFailure(ctx workflow.Context, call string, err error) {
	if call == "" && r.failing == "" {
		return
	}
	r.failing, r.failure = call, ""
	if err != nil {
		r.failure = err.Error()
	}
	r.show(ctx)
}
