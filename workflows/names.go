// Package workflows holds the Reservation workflow, which guards one reservation from
// admission to settlement, and the Reconcile workflow, which finds reservations that lost
// their workflow.
package workflows

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"

	"go.temporal.io/sdk/temporal"

	"github.com/earmark-dev/earmark"
)

// The names of the contract with workers and clients in any language.
const (
	TaskQueue       = "earmark" // after the installation's Prefix
	ReservationType = "Reservation"
	ReconcileType   = "Reconcile"

	// Signals and updates of the same name and payload.
	MessageCommit  = "commit"  // {"usage": {"tokens": 812}}
	MessageRelease = "release" // {"reason": "the model was not called"}
	// Signals.
	SignalExtend  = "extend"  // {"ttl_seconds": 300}
	SignalRefresh = "refresh" // no payload: the workflow reads the ledger again
	// Query and update.
	QueryReservation = "reservation" // returns a QueryResult
	UpdateAdmission  = "admission"   // {"request_hash": "…"} returns an activities.Snapshot
)

// Prefix distinguishes the installations that share a Temporal namespace. It comes before the
// names of an installation's task queue, schedule and workflows: staging-earmark is the task
// queue of the prefix staging. The empty prefix leaves the names as they are.
type Prefix string

// MaxPrefixBytes bounds a prefix, so that every name fits into Temporal's limits.
const MaxPrefixBytes = 32

var validPrefix = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// Validate checks the prefix. The error says what is allowed.
func (p Prefix) Validate() error {
	if p != "" && (len(p) > MaxPrefixBytes || !validPrefix.MatchString(string(p))) {
		return fmt.Errorf("%q is not a prefix; lower-case letters and digits with single hyphens between them are allowed, %d characters at most, such as staging",
			earmark.Clip(string(p)), MaxPrefixBytes)
	}
	return nil
}

func (p Prefix) name(plain string) string {
	if p == "" {
		return plain
	}
	return string(p) + "-" + plain
}

// TaskQueue returns the name of the task queue.
func (p Prefix) TaskQueue() string { return p.name(TaskQueue) }

// ReconcileScheduleID returns the id of the reconciler's schedule and of its workflows.
func (p Prefix) ReconcileScheduleID() string { return p.name(ReconcileScheduleID) }

// ReservationWorkflowID returns the workflow id of a reservation.
func (p Prefix) ReservationWorkflowID(reservationID string) string {
	return p.name(workflowIDPrefix + reservationID) // mutation: prefixed-workflow
}

// ReservationOf returns the reservation id of a workflow id; the inverse of
// ReservationWorkflowID.
func (p Prefix) ReservationOf(workflowID string) string {
	return strings.TrimPrefix(workflowID, p.name(workflowIDPrefix))
}

// PrefixOf returns the prefix of a task queue of ours; empty for any other name.
func PrefixOf(taskQueue string) Prefix {
	prefix, found := strings.CutSuffix(taskQueue, "-"+TaskQueue)
	if !found {
		return ""
	}
	return Prefix(prefix)
}

const workflowIDPrefix = "reservation-"

// Search attributes of the Reservation workflow.
var (
	AttributeTenant    = temporal.NewSearchAttributeKeyKeyword("EarmarkTenant")
	AttributeScope     = temporal.NewSearchAttributeKeyKeywordList("EarmarkScope")
	AttributeExpiresAt = temporal.NewSearchAttributeKeyTime("EarmarkExpiresAt")
	// AttributeState is set only for review and while a settlement keeps failing, because
	// each change of an attribute costs a write.
	AttributeState = temporal.NewSearchAttributeKeyKeyword("EarmarkState")
)

// Values of AttributeState.
const (
	StateAttributeReview   = string(earmark.StateReview)
	StateAttributeSettling = "settlement_failing"
)

// CommitMessage is the payload of MessageCommit. Operator, in each message, is the name of
// a person who settles in the caller's place, such as alice; Key is the id of the API key
// with which the message was sent, which the API alone sets.
type CommitMessage struct {
	Usage    earmark.Amounts `json:"usage"`
	Operator string          `json:"operator,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Key      string          `json:"key,omitempty"`
	// Attempt is set only by the API, see earmark.Transition.
	Attempt string `json:"attempt,omitempty"`
	// Estimated says that the usage is an estimate, which the first real usage corrects.
	Estimated bool `json:"estimated,omitempty"`
	// Response is the one from which the usage was computed; only the API sets it.
	Response *earmark.ResponseRecord `json:"response,omitempty"`
}

// Validate checks the message. The error is CodeInvalidRequest and names the field.
func (m CommitMessage) Validate() error {
	return cmp.Or(earmark.ValidateUsage(m.Usage), validateBy(m.Operator, m.Key, m.Reason), m.Response.Validate())
}

// ReleaseMessage is the payload of MessageRelease. With an operator it is an expiry with a
// reason, after which usage is still charged; otherwise it is the caller's own release.
type ReleaseMessage struct {
	Reason   string `json:"reason"`
	Operator string `json:"operator,omitempty"`
	Key      string `json:"key,omitempty"`
}

// Validate checks the message. The error is CodeInvalidRequest and names the field.
func (m ReleaseMessage) Validate() error { return validateBy(m.Operator, m.Key, m.Reason) }

// ExtendMessage is the payload of SignalExtend.
type ExtendMessage struct {
	TTLSeconds int64  `json:"ttl_seconds"`
	Operator   string `json:"operator,omitempty"`
	Reason     string `json:"reason,omitempty"`
}

// Validate checks the message. The error is CodeInvalidRequest and names the field.
func (m ExtendMessage) Validate() error {
	return cmp.Or(earmark.ValidateTTL(m.TTLSeconds), validateBy(m.Operator, "", m.Reason))
}

// validateBy checks the sender and the reason of a message; operator is empty if the caller
// sent it, and key if it came without one.
func validateBy(operator, key, reason string) error {
	if key != "" && !earmark.IsKeyID(key) {
		return earmark.Invalidf("key", "%q is not the id of a key: 12 of a-z and 0-9", earmark.Clip(key))
	}
	if operator == "" {
		return earmark.ValidateReason(reason)
	}
	return cmp.Or(earmark.ValidateOperator(operator), earmark.ValidateReason(reason))
}

// AdmissionMessage is the payload of UpdateAdmission.
type AdmissionMessage struct {
	RequestHash string `json:"request_hash"`
}
