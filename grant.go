package earmark

import (
	"crypto/sha256"
	"time"
)

// Bounds of a grant's priority, and what it is by default.
const (
	MaxGrantPriority     = 100
	DefaultGrantPriority = 50
)

// Allowance is when a window's own limit is used, if a budget has grants.
type Allowance string

const (
	// AllowanceFirst uses the window's own limit before the grants.
	AllowanceFirst Allowance = "first"
	// AllowanceLast uses the grants before the window's own limit.
	AllowanceLast Allowance = "last"
)

// Grant is an amount on top of a budget's limit that is used up once, in whatever windows, such as prepaid credit.
type Grant struct {
	ID       string `json:"id"`
	BudgetID string `json:"budget_id"`
	Amount   int64  `json:"amount"` // in the budget's unit
	// Reserved and Committed are what open holds and charges take of it, Voided what a void took away.
	Reserved  int64 `json:"reserved"`
	Committed int64 `json:"committed"`
	Voided    int64 `json:"voided"`
	// Remaining is what requests can still take; 0 once the grant has ended.
	Remaining   int64      `json:"remaining"`
	Priority    int64      `json:"priority"` // the lower is used first
	EffectiveAt time.Time  `json:"effective_at"`
	ExpiresAt   *time.Time `json:"expires_at"` // null: never
	VoidedAt    *time.Time `json:"voided_at"`  // null: it was not
	// Source is "manual", or "rollover" for what the budget's window at RolledFrom left, see Rollover.
	Source     string     `json:"source"`
	RolledFrom *time.Time `json:"rolled_from"` // null: somebody made the grant
	Reason     string     `json:"reason"`
	CreatedAt  time.Time  `json:"created_at"`
	// Replayed says that an earlier call with the same idempotency key made the grant.
	Replayed bool `json:"replayed,omitempty"`
}

// GrantRequest asks for a grant.
type GrantRequest struct {
	Amount      int64      `json:"amount"`                 // above 0
	EffectiveAt *time.Time `json:"effective_at,omitempty"` // null: now
	ExpiresAt   *time.Time `json:"expires_at,omitempty"`   // null: never
	Priority    *int64     `json:"priority,omitempty"`     // 0 to MaxGrantPriority; null: DefaultGrantPriority
	Reason      string     `json:"reason"`                 // why, for the journal; required
}

// Validate checks a request. The error is CodeInvalidRequest and names the field. Only the ledger knows the time, and
// checks that the grant does not end before it.
func (r GrantRequest) Validate() error {
	switch {
	case r.Amount <= 0:
		return Invalidf("amount", "is missing or not above 0; give a whole number from 1, such as 500")
	case r.Priority != nil && (*r.Priority < 0 || *r.Priority > MaxGrantPriority):
		return Invalidf("priority", "%d is out of range: 0 to %d are allowed, and the lower is used first", *r.Priority, MaxGrantPriority)
	case r.ExpiresAt != nil && r.EffectiveAt != nil && !r.ExpiresAt.After(*r.EffectiveAt):
		return Invalidf("expires_at", "is not after effective_at; a grant ends after it begins")
	}
	return requireReason(r.Reason)
}

// WithDefaults fills a missing priority.
func (r GrantRequest) WithDefaults() GrantRequest {
	if r.Priority == nil {
		r.Priority = new(int64(DefaultGrantPriority))
	}
	return r
}

// Hash identifies the meaning of the request.
func (r GrantRequest) Hash() string { return hashOf("grant", r) }

// Granted is the part of a balance that grants bear, and what they have left.
type Granted struct {
	Reserved  int64 `json:"reserved"`  // the part of the balance's reserved
	Committed int64 `json:"committed"` // the part of the balance's committed
	Remaining int64 `json:"remaining"` // what the grants in force have left
}

const grantPrefix = "grt_"

// GrantID derives a grant's id from its budget and idempotency key: "grt_" and the base32 of the SHA-256 of both.
func GrantID(budgetID, key string) string {
	sum := sha256.Sum256([]byte(budgetID + "\x00" + key))
	return grantPrefix + idEncoding.EncodeToString(sum[:])
}
