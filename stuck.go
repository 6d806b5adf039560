package earmark

import "time"

// StuckReason says why a reservation needs somebody to look at it. This is the
// one definition of "stuck"; the ledger's part of it is in
// internal/postgres/sql/stuck.sql, Temporal's in internal/workflowstore/stuck.go.
type StuckReason string

// The reasons. Where several apply, the first in this order is told: a cause
// comes before what it causes.
const (
	// StuckPaused: somebody paused the workflow, so that nothing of it runs. Temporal alone knows.
	StuckPaused StuckReason = "paused"
	// StuckTaskFailing: the workflow's code or its worker fails, so that nothing of
	// it runs. Temporal alone knows.
	StuckTaskFailing StuckReason = "task_failing"
	// StuckSettlementFailing: the workflow asks the ledger again and again and gets
	// no answer, or has usage that no budget takes. Temporal alone knows.
	StuckSettlementFailing StuckReason = "settlement_failing"
	// StuckOrphan: budget is set aside, and no open workflow was found to guard it.
	StuckOrphan StuckReason = "orphan"
	// StuckReview: the lease ran out, and the policy says that a person decides.
	StuckReview StuckReason = "review"
	// StuckOverdue: held, and past its expiry by more than StuckOverdueAfter.
	StuckOverdue StuckReason = "overdue"
)

// StuckReasons lists every reason, in the order in which they are told.
var StuckReasons = []StuckReason{StuckPaused, StuckTaskFailing, StuckSettlementFailing, StuckOrphan, StuckReview, StuckOverdue}

// StuckOverdueAfter is how long past its expiry a held reservation counts as on
// its way: its workflow's timer and one call of the ledger take that long.
const StuckOverdueAfter = 5 * time.Second

// Description says what the reason means, in one clause.
func (r StuckReason) Description() string {
	switch r {
	case StuckPaused:
		return "the workflow is paused, so it does not run"
	case StuckTaskFailing:
		return "the workflow's task fails, so nothing of it runs"
	case StuckSettlementFailing:
		return "the workflow cannot settle it and keeps trying"
	case StuckOrphan:
		return "no open workflow guards it"
	case StuckReview:
		return "it has expired and waits for somebody to decide"
	case StuckOverdue:
		return "its lease has run out and nothing has settled it"
	}
	return string(r)
}

// Stuck says what is wrong with a reservation and what to do about it.
type Stuck struct {
	Reason StuckReason `json:"reason"`
	// Since is when it began, null where that is not known: the expiry of what is
	// overdue or in review, the last look that found no workflow for an orphan, the pause, and
	// when the call or the task was begun that keeps failing.
	Since      *time.Time `json:"since"`
	AgeSeconds int64      `json:"age_seconds"` // since then; 0 where that is not known
	Detail     string     `json:"detail"`      // the last error, what was refused, or who paused it and why; empty where there is none
	Remedy     string     `json:"remedy"`      // the command to paste
}

// StuckPage is a page of stuck reservations.
type StuckPage struct {
	Page[Reservation]
	// Incomplete says what could not be looked at, and is empty when all was. The
	// ledger's reasons are always there; Temporal's three may be missing.
	Incomplete string `json:"incomplete,omitempty"`
	// Searches find the same in Temporal UI.
	Searches []Search `json:"searches"`
}

// Search is a query for the list of workflows in Temporal UI.
type Search struct {
	Title string `json:"title"`
	Query string `json:"query"`
	URL   string `json:"url"` // empty when the address of Temporal UI is not configured
}
