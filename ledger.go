package earmark

import "time"

// Outcome is the result of a ledger transition: one of a closed set of values. Only
// transport faults are errors (rule R5).
type Outcome string

// The outcomes.
const (
	OutcomeApplied         Outcome = "applied"           // this call made the change
	OutcomeSame            Outcome = "same"              // an equal call made it before; nothing changed
	OutcomeConflict        Outcome = "conflict"          // settled in another way before; Reservation is its state
	OutcomeExpired         Outcome = "expired"           // the lease has ended, so it cannot be extended
	OutcomeDenied          Outcome = "denied"            // does not fit; Decision says where
	OutcomeNoBudget        Outcome = "no_budget"         // Subject is the scope that no budget covers
	OutcomeUnitNotBudgeted Outcome = "unit_not_budgeted" // Subject is the unit that no budget on Scope counts
	OutcomeMismatch        Outcome = "mismatch"          // the id was used for another request
	OutcomeTooLate         Outcome = "too_late"          // AdmitBy has passed; nothing was reserved
	OutcomeReleased        Outcome = "released"          // an explicit release came first; nothing was reserved
	OutcomeOverageRejected Outcome = "overage_rejected"  // a budget's policy refused the usage
	OutcomeUnitsMismatch   Outcome = "units_mismatch"    // usage is not in exactly the reserved units
	OutcomeBelowZero       Outcome = "below_zero"        // a correction would give back more of Subject than was charged
	OutcomeOverflow        Outcome = "overflow"          // a sum would exceed int64; nothing was written
	OutcomeNotDue          Outcome = "not_due"           // the lease has not ended; RemainingMS is left
	OutcomeUnknown         Outcome = "unknown"           // there is no such reservation
	OutcomeInvalid         Outcome = "invalid"           // Subject says which rule the admission breaks; nothing was written
)

// Result is the result of a transition of a reservation.
type Result struct {
	Outcome     Outcome      `json:"outcome"`
	Reservation *Reservation `json:"reservation,omitempty"` // its state after the call, if a row exists
	Decision    *Decision    `json:"decision,omitempty"`    // with OutcomeDenied
	Subject     string       `json:"subject,omitempty"`     // with OutcomeNoBudget, OutcomeUnitNotBudgeted, OutcomeUnitsMismatch, OutcomeBelowZero
	Scope       string       `json:"scope,omitempty"`       // with OutcomeUnitNotBudgeted
	// RemainingMS is how long the lease of a held reservation still runs by Postgres'
	// clock, in milliseconds; 0 in every other state.
	RemainingMS int64 `json:"remaining_ms,omitempty"`
}

// Admission asks the ledger to reserve.
type Admission struct {
	ID          string             `json:"id"`
	Tenant      string             `json:"tenant"`
	Request     ReservationRequest `json:"request"`
	RequestHash string             `json:"request_hash"`
	WorkflowID  string             `json:"workflow_id"`
	// AdmitBy is the moment, by Postgres' clock, after which the ledger reserves nothing:
	// by then the API has answered the caller that the outcome is unknown.
	AdmitBy time.Time `json:"admit_by"`
	// KeyID is the API key of the caller, which the journal names; empty without keys.
	KeyID string `json:"key_id,omitempty"`
	// Released says that an explicit release came first: the ledger records the release and
	// reserves nothing.
	Released bool `json:"released,omitempty"`
}

// Validate checks an admission whose request has its defaults filled. The error is
// CodeInvalidRequest and names the field.
func (a Admission) Validate() error {
	if !IsReservationID(a.ID) {
		return Invalidf("id", "%q is not a reservation's id: rsv_ and 52 characters of a-z and 2-7", Clip(a.ID))
	}
	if a.Tenant == "" {
		return Invalidf("tenant", "is missing")
	}
	if a.RequestHash == "" {
		return Invalidf("request_hash", "is missing; give one that is the same for the same request")
	}
	if a.Request.Estimate != nil {
		return Invalidf("request.estimate", "is not possible here; only the API computes amounts from it")
	}
	if a.KeyID != "" && !IsKeyID(a.KeyID) {
		return Invalidf("key_id", "%q is not the id of a key: 12 of a-z and 0-9", Clip(a.KeyID))
	}
	return a.Request.Validate()
}

// Actor returns who makes the reservation: its workflow, for the caller's key.
func (a Admission) Actor() Actor { return ActorWorkflow.WithKey(a.KeyID) }

// Charge asks the ledger to charge usage that has no reservation.
type Charge struct {
	ID          string       `json:"id"`
	Tenant      string       `json:"tenant"`
	Request     UsageRequest `json:"request"`
	RequestHash string       `json:"request_hash"`
	Actor       Actor        `json:"actor"`
	Reason      string       `json:"reason"`
	// Response is the one from which the amounts were computed, if they were.
	Response *ResponseRecord `json:"response,omitempty"`
	// At selects the windows (rule R7); zero means now, by Postgres' clock.
	At time.Time `json:"at,omitzero"`
}

// Transition names a reservation, the actor that changes its state, and why.
type Transition struct {
	ID     string `json:"id"`
	Tenant string `json:"tenant"`
	Actor  Actor  `json:"actor"`
	Reason string `json:"reason,omitempty"`
	// Attempt names one attempt of a caller at a commit. Its message may arrive more than
	// once; a refused attempt stays refused. Empty if no caller waits for the answer.
	Attempt string `json:"attempt,omitempty"`
	// Estimated says that the usage of a commit is an estimate. The first commit with real
	// usage corrects it.
	Estimated bool `json:"estimated,omitempty"`
	// Response is the one from which the usage of a commit was computed, if it was.
	Response *ResponseRecord `json:"response,omitempty"`
}

// Correction asks the ledger to change a charge that is final.
type Correction struct {
	// ID names the correction of this reservation, so that it applies once; see CorrectionID.
	ID            string
	ReservationID string
	Tenant        string
	Request       CorrectionRequest
	Actor         Actor
}

// Preflight is the result of the one read before an admission: the existing reservation, a
// denial that needs no workflow, or OutcomeApplied, after which the admission may be tried.
type Preflight struct {
	// Now is Postgres' clock; AdmitBy is counted from it.
	Now time.Time `json:"now"`
	// Result has one of OutcomeSame (the row exists), OutcomeMismatch, OutcomeNoBudget,
	// OutcomeUnitNotBudgeted, OutcomeOverflow, OutcomeDenied, and OutcomeApplied if the
	// request would fit.
	Result
}

// Counted is the result of the read before an estimate: the existing reservation of the same
// id, a scope that no budget covers, or the units to estimate.
type Counted struct {
	// Result has one of OutcomeSame (the row exists), OutcomeMismatch, OutcomeNoBudget, and
	// OutcomeApplied with Units.
	Result
	Units []string `json:"units"` // that a budget on one of the scopes or above counts, sorted
}

// BudgetFilter selects budgets. At most one of Scope and Covering is set.
type BudgetFilter struct {
	Scope    string // exactly this scope
	Covering string // every budget that covers this scope
	// TemplateID selects the budgets that this template made, or that follow it.
	TemplateID string
	// Within selects the budgets of these scopes and of those below them; empty for all.
	Within []string
	Cursor string // NextCursor of the page before
	Limit  int    // budgets in one page
}

// WindowFilter selects a page of the windows of a budget.
type WindowFilter struct {
	Cursor string // NextCursor of the page before
	Limit  int    // windows in one page
}

// ReservationFilter selects reservations. Empty fields select everything.
type ReservationFilter struct {
	State   State
	Scope   string // reservations with a scope at or under this one
	Overdue bool   // only those that are held past their expiry
	Orphan  bool   // only those for which the reconciler found no open workflow
	// Stuck selects those that need a person, for StuckReason if it is set.
	Stuck       bool
	StuckReason StuckReason
	// Within selects reservations all of whose scopes are one of these or below one; empty for all.
	Within []string
	Cursor string
	Limit  int
}

// StuckIDs are the reservations that Temporal reports as stuck, by reason.
type StuckIDs struct {
	Paused            []string // ids
	TaskFailing       []string // ids
	SettlementFailing []string // ids
	Unguarded         []string // ids of open reservations without an open workflow
}

// EntryFilter selects entries. Empty fields select everything.
type EntryFilter struct {
	BudgetID      string
	ReservationID string
	// Within selects entries of budgets, and of reservations, that are Within in their own filters.
	Within []string
	Cursor string
	Limit  int
}

// DefaultPageSize and MaxPageSize bound the lists.
const (
	DefaultPageSize = 50
	MaxPageSize     = 500
)

// Check is a reservation whose workflow the reconciler looks for.
type Check struct {
	ID          string
	Tenant      string
	WorkflowID  string
	State       State
	Request     ReservationRequest // without TTL and metadata
	RequestHash string
	CreatedAt   time.Time
	ExpiresAt   time.Time
}

// Open reports whether the reservation still holds its amounts.
func (c Check) Open() bool { return c.State == StateHeld || c.State == StateReview }
