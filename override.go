package earmark

import (
	"crypto/sha256"
	"math"
	"time"
)

// MaxOverrideWindows bounds for how many windows an override lasts.
const MaxOverrideWindows = 400

// Override changes a budget's limit, and its soft ceiling, for a time. It is added on top: the limit itself stays.
type Override struct {
	ID       string `json:"id"`
	BudgetID string `json:"budget_id"`
	// Source is "manual", or "reset" if a reset of the budget made it.
	Source      string     `json:"source"`
	Amount      int64      `json:"amount"` // in the budget's unit; below 0 lowers the limit
	EffectiveAt time.Time  `json:"effective_at"`
	ExpiresAt   *time.Time `json:"expires_at"` // null: never
	EndedAt     *time.Time `json:"ended_at"`   // when it was ended by hand; null: it was not
	Reason      string     `json:"reason"`
	CreatedAt   time.Time  `json:"created_at"`
	// Replayed says that an earlier call with the same idempotency key made the override.
	Replayed bool `json:"replayed,omitempty"`
}

// OverrideRequest asks to change a budget's limit for a time. At most one of ExpiresAt and Windows is set.
type OverrideRequest struct {
	Amount      int64      `json:"amount"`                 // added to the limit; below 0 lowers it; not 0
	EffectiveAt *time.Time `json:"effective_at,omitempty"` // null: now
	ExpiresAt   *time.Time `json:"expires_at,omitempty"`   // null: never
	// Windows is for how many windows it lasts: the one of EffectiveAt and those after it.
	Windows *int64 `json:"windows,omitempty"`
	Reason  string `json:"reason"` // why, for the journal; required
}

// Validate checks a request. The error is CodeInvalidRequest and names the field. Only the ledger knows the time, and
// checks that the override does not end before it.
func (r OverrideRequest) Validate() error {
	switch {
	case r.Amount == 0:
		return Invalidf("amount", "is missing or 0, which changes nothing; give what to add to the limit, such as 500 or -200")
	case r.Amount == math.MinInt64:
		return Invalidf("amount", "is too small; whole numbers from %d are allowed", int64(-math.MaxInt64))
	case r.ExpiresAt != nil && r.Windows != nil:
		return Invalidf("windows", "does not go with expires_at; give one of them, or none for an override that stays")
	case r.Windows != nil && (*r.Windows < 1 || *r.Windows > MaxOverrideWindows):
		return Invalidf("windows", "%d is out of range: 1 to %d are allowed", *r.Windows, MaxOverrideWindows)
	case r.ExpiresAt != nil && r.EffectiveAt != nil && !r.ExpiresAt.After(*r.EffectiveAt):
		return Invalidf("expires_at", "is not after effective_at; an override ends after it begins")
	}
	return requireReason(r.Reason)
}

// Hash identifies the meaning of the request.
func (r OverrideRequest) Hash() string { return hashOf("override", r) }

// ReasonRequest says why a call is made.
type ReasonRequest struct {
	Reason string `json:"reason"` // for the journal; required
}

// Validate checks a request. The error is CodeInvalidRequest and names the field.
func (r ReasonRequest) Validate() error { return requireReason(r.Reason) }

// ResetHash identifies the meaning of a reset.
func (r ReasonRequest) ResetHash() string { return hashOf("reset", r) }

func requireReason(reason string) error {
	if reason == "" {
		return Invalidf("reason", "is missing; say why, for the journal")
	}
	return ValidateReason(reason)
}

// PageFilter selects a page of a list.
type PageFilter struct {
	Cursor string // NextCursor of the page before
	Limit  int    // items in one page
}

const overridePrefix = "ovr_"

// OverrideID derives an override's id from its budget and idempotency key: "ovr_" and the base32 of the SHA-256 of
// both.
func OverrideID(budgetID, key string) string {
	sum := sha256.Sum256([]byte(budgetID + "\x00" + key))
	return overridePrefix + idEncoding.EncodeToString(sum[:])
}
