// Package workflows holds the Reservation workflow, which guards one reservation
// from admission to settlement, and the Reconcile workflow, which finds
// reservations that lost their guardian.
package workflows

import (
	"cmp"
	"strings"

	"go.temporal.io/sdk/temporal"

	"github.com/earmark-dev/earmark"
)

// The names of the contract with workers and clients in any language.
const (
	TaskQueue       = "earmark"
	ReservationType = "Reservation"
	ReconcileType   = "Reconcile"

	// Signals and updates of the same name and payload.
	MessageCommit  = "commit"  // {"usage": {"tokens": 812}}
	MessageRelease = "release" // {"reason": "the model was not called"}
	// Signals.
	SignalExtend  = "extend"  // {"ttl_seconds": 300}
	SignalRefresh = "refresh" // no payload: look at the ledger again
	// Query and update.
	QueryReservation = "reservation" // answers a QueryResult
	UpdateAdmission  = "admission"   // {"request_hash": "…"} answers an activities.Snapshot
)

// ReservationWorkflowID returns the workflow id of a reservation.
func ReservationWorkflowID(reservationID string) string { return workflowIDPrefix + reservationID }

// ReservationOf is its inverse.
func ReservationOf(workflowID string) string { return strings.TrimPrefix(workflowID, workflowIDPrefix) }

const workflowIDPrefix = "reservation-"

// Search attributes of the Reservation workflow.
var (
	AttributeTenant    = temporal.NewSearchAttributeKeyKeyword("EarmarkTenant")
	AttributeScope     = temporal.NewSearchAttributeKeyKeywordList("EarmarkScope")
	AttributeExpiresAt = temporal.NewSearchAttributeKeyTime("EarmarkExpiresAt")
	// AttributeState is set for review and while a settlement keeps failing only:
	// each change of an attribute costs a write.
	AttributeState = temporal.NewSearchAttributeKeyKeyword("EarmarkState")
)

// Values of AttributeState.
const (
	StateAttributeReview   = string(earmark.StateReview)
	StateAttributeSettling = "settlement_failing"
)

// CommitMessage is the payload of MessageCommit. Operator, in each of them, is the
// name of a person who settles in the caller's place, such as alice.
type CommitMessage struct {
	Usage    earmark.Amounts `json:"usage"`
	Operator string          `json:"operator,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	// Attempt is the API's, see earmark.Transition; other senders leave it out.
	Attempt string `json:"attempt,omitempty"`
}

// Validate checks the message; an error names the field.
func (m CommitMessage) Validate() error {
	return cmp.Or(earmark.ValidateUsage(m.Usage), validateBy(m.Operator, m.Reason))
}

// ReleaseMessage is the payload of MessageRelease. With an operator it is an expiry
// with a reason, after which usage is still charged; else it is the caller's own.
type ReleaseMessage struct {
	Reason   string `json:"reason"`
	Operator string `json:"operator,omitempty"`
}

// Validate checks the message; an error names the field.
func (m ReleaseMessage) Validate() error { return validateBy(m.Operator, m.Reason) }

// ExtendMessage is the payload of SignalExtend.
type ExtendMessage struct {
	TTLSeconds int64  `json:"ttl_seconds"`
	Operator   string `json:"operator,omitempty"`
	Reason     string `json:"reason,omitempty"`
}

// Validate checks the message; an error names the field.
func (m ExtendMessage) Validate() error {
	return cmp.Or(earmark.ValidateTTL(m.TTLSeconds), validateBy(m.Operator, m.Reason))
}

// validateBy checks who sent a message and why; the operator is empty where it is the
// caller.
func validateBy(operator, reason string) error {
	if operator == "" {
		return earmark.ValidateReason(reason)
	}
	return cmp.Or(earmark.ValidateOperator(operator), earmark.ValidateReason(reason))
}

// AdmissionMessage is the payload of UpdateAdmission.
type AdmissionMessage struct {
	RequestHash string `json:"request_hash"`
}
