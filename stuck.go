package earmark

import "time"

// StuckReason says why a reservation needs a person. This file defines "stuck";
// internal/postgres/sql/stuck.sql finds the reasons that the ledger knows,
// internal/workflowstore/stuck.go those that only Temporal knows.
type StuckReason string

// The reasons. If several apply, Earmark reports the first in this order: a cause
// comes before its effects.
const (
	// StuckPaused: somebody paused the workflow, or its activity, so it does not run. Only Temporal knows.
	StuckPaused StuckReason = "paused"
	// StuckTaskFailing: the workflow's code or its worker fails, so the workflow
	// does not run. Only Temporal knows.
	StuckTaskFailing StuckReason = "task_failing"
	// StuckSettlementFailing: the workflow repeats its call to the ledger and gets no
	// answer, or it has usage that no budget covers. Only Temporal knows.
	StuckSettlementFailing StuckReason = "settlement_failing"
	// StuckOrphan: the reservation is open, and the reconciler found no open workflow for it.
	StuckOrphan StuckReason = "orphan"
	// StuckReview: the lease has ended, and the policy leaves the decision to a person.
	StuckReview StuckReason = "review"
	// StuckExpiryMissed: the reservation has been overdue (held past its expiry) for
	// more than ExpiryMissedAfter, and nothing has expired it.
	StuckExpiryMissed StuckReason = "expiry_missed"
)

// StuckReasons lists every reason in the order in which Earmark reports them.
var StuckReasons = []StuckReason{StuckPaused, StuckTaskFailing, StuckSettlementFailing, StuckOrphan, StuckReview, StuckExpiryMissed}

// ExpiryMissedAfter is how long a reservation may be overdue before it is stuck: its
// workflow's timer and one call to the ledger may take that long.
const ExpiryMissedAfter = 5 * time.Second

// Description returns one clause that explains the reason.
func (r StuckReason) Description() string {
	switch r {
	case StuckPaused:
		return "the workflow or its activity is paused, so it does not run"
	case StuckTaskFailing:
		return "the workflow's task fails, so the workflow does not run"
	case StuckSettlementFailing:
		return "the workflow cannot settle it and keeps trying"
	case StuckOrphan:
		return "no open workflow guards it"
	case StuckReview:
		return "it has expired and waits for a decision"
	case StuckExpiryMissed:
		return "its lease has ended and nothing has expired it"
	}
	return string(r)
}

// Stuck says what is wrong with a reservation and what to do about it.
type Stuck struct {
	Reason StuckReason `json:"reason"`
	// Since is when the trouble began, or null if that is not known. For expiry_missed and
	// review it is the expiry; for an orphan, the check that found no workflow; for a paused
	// workflow, the pause; otherwise the start of the call or task that keeps failing.
	Since      *time.Time `json:"since"`
	AgeSeconds int64      `json:"age_seconds"` // seconds since then; 0 if that is not known
	Detail     string     `json:"detail"`      // the last error, what a budget refused, or who paused it and why; empty if there is none
	Remedy     string     `json:"remedy"`      // the command to paste
}

// StuckPage is a page of stuck reservations.
type StuckPage struct {
	Page[Reservation]
	// Incomplete says what Earmark could not check; empty if it checked everything. The
	// page always has the ledger's reasons; Temporal's three may be missing.
	Incomplete string `json:"incomplete,omitempty"`
	// Searches are queries that find the same reservations in Temporal UI.
	Searches []Search `json:"searches"`
}

// Search is a query for the list of workflows in Temporal UI.
type Search struct {
	Title string `json:"title"`
	Query string `json:"query"`
	URL   string `json:"url"` // empty when the address of Temporal UI is not configured
}
