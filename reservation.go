package earmark

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// DefaultTenant owns what is done without a key.
const DefaultTenant = "default"

// Limits of a reservation.
const (
	MinTTL             = time.Second
	MaxTTL             = 7 * 24 * time.Hour // also the latest expiry after creation, even if extended
	DefaultTTL         = 300 * time.Second
	MaxMetadataKeys    = 20
	MaxMetadataBytes   = 512 // of a key, and of a value
	MaxReasonBytes     = 512
	MaxIdempotencyKey  = 255 // bytes, printable ASCII
	reservationPrefix  = "rsv_"
	correctionPrefix   = "cor_"
	budgetPrefix       = "bud_"
	reservationIDBytes = sha256.Size
	budgetIDBytes      = 16
)

// State is the state of a reservation.
type State string

// The states. Only held and review hold amounts.
const (
	StateHeld      State = "held"      // the amounts are set aside, and the lease runs
	StateCommitted State = "committed" // the usage is charged
	StateReleased  State = "released"  // the caller said that nothing was spent
	StateExpired   State = "expired"   // given back, but not by its caller; late usage is still charged
	StateReview    State = "review"    // expired; waits for an operator
)

// OnExpiry is the policy for a reservation whose lease ends.
type OnExpiry string

// The expiry policies.
const (
	OnExpiryRelease OnExpiry = "release" // give the amount back
	OnExpiryCommit  OnExpiry = "commit"  // charge the reserved amount, as an estimate
	OnExpiryReview  OnExpiry = "review"  // keep it set aside until an operator decides
)

// Coverage says how many scopes of a request need a budget that counts each unit.
type Coverage string

// The coverages. On a scope without a budget that counts it, a unit is unlimited.
const (
	CoverageEachScope Coverage = "each_scope" // each scope needs a budget for each unit
	CoverageAnyScope  Coverage = "any_scope"  // one of the scopes needs a budget for each unit
)

// Metadata are the caller's own notes on a reservation.
type Metadata map[string]string

// Keys returns the keys of m, sorted.
//
//workflowcheck:ignore the result does not depend on the order of the map: it is sorted
func (m Metadata) Keys() []string { return slices.Sorted(maps.Keys(m)) }

// ReservationRequest asks to set Amounts aside on every budget that covers one
// of Scopes. It is also the body of a decision, which reserves nothing.
type ReservationRequest struct {
	Scopes  []string `json:"scopes"`
	Amounts Amounts  `json:"amounts,omitempty"` // each at least 0
	// Estimate takes the place of Amounts: the API computes them from it.
	Estimate *Estimate `json:"estimate,omitempty"`
	Coverage Coverage  `json:"coverage,omitempty"` // each_scope if empty
	// RequireBudget refuses a scope that has no budget of its own: one on a scope above it
	// limits the request, but does not cover the scope.
	RequireBudget bool     `json:"require_budget,omitempty"`
	TTLSeconds    int64    `json:"ttl_seconds,omitempty"` // 1 to 604800; 0 means 300
	OnExpiry      OnExpiry `json:"on_expiry,omitempty"`   // release if empty
	Metadata      Metadata `json:"metadata,omitempty"`
}

// WithDefaults fills missing fields and drops repeated scopes.
func (r ReservationRequest) WithDefaults() ReservationRequest {
	r.Scopes = uniqueScopes(r.Scopes)
	if r.TTLSeconds == 0 {
		r.TTLSeconds = int64(DefaultTTL / time.Second)
	}
	if r.OnExpiry == "" {
		r.OnExpiry = OnExpiryRelease
	}
	if r.Coverage == "" {
		r.Coverage = CoverageEachScope
	}
	return r
}

// Validate checks a request whose defaults are filled. The error is CodeInvalidRequest and
// names the field.
func (r ReservationRequest) Validate() error {
	if err := validateScopes(r.Scopes); err != nil {
		return err
	}
	if err := r.validateAmounts(); err != nil {
		return err
	}
	if err := ValidateTTL(r.TTLSeconds); err != nil {
		return err
	}
	if err := oneOf("on_expiry", r.OnExpiry, OnExpiryRelease, OnExpiryCommit, OnExpiryReview); err != nil {
		return err
	}
	if err := oneOf("coverage", r.Coverage, CoverageEachScope, CoverageAnyScope); err != nil {
		return err
	}
	return validateMetadata(r.Metadata)
}

func (r ReservationRequest) validateAmounts() error {
	switch {
	case r.Estimate == nil:
		return validateAmounts("amounts", r.Amounts)
	case len(r.Amounts) > 0:
		return Invalidf("estimate", "is given beside amounts; give one of them")
	}
	return r.Estimate.Validate()
}

// AnyScope reports whether one scope with a budget is enough for each unit.
func (r ReservationRequest) AnyScope() bool { return r.Coverage == CoverageAnyScope }

// TTL returns the length of the lease.
func (r ReservationRequest) TTL() time.Duration { return time.Duration(r.TTLSeconds) * time.Second }

// Hash identifies the meaning of the request: a key with another hash is another request.
// The order of the scopes does not change the hash.
func (r ReservationRequest) Hash() string {
	r.Scopes = slices.Sorted(slices.Values(r.Scopes))
	return hashOf("reservation", r)
}

// UsageRequest asks to charge Amounts that were spent without a reservation, or what a
// Response cost.
type UsageRequest struct {
	Scopes  []string `json:"scopes"`
	Amounts Amounts  `json:"amounts,omitempty"` // each at least 0
	Response
	// RequireBudget refuses a scope without a budget of its own, as in a ReservationRequest.
	RequireBudget bool     `json:"require_budget,omitempty"`
	Metadata      Metadata `json:"metadata,omitempty"`
}

// WithDefaults drops repeated scopes.
func (r UsageRequest) WithDefaults() UsageRequest {
	r.Scopes = uniqueScopes(r.Scopes)
	return r
}

// Validate checks a request without repeated scopes. The error is CodeInvalidRequest and
// names the field.
func (r UsageRequest) Validate() error {
	if err := validateScopes(r.Scopes); err != nil {
		return err
	}
	if err := ValidateSpent("amounts", r.Amounts, r.Response); err != nil {
		return err
	}
	return validateMetadata(r.Metadata)
}

// Hash identifies the meaning of the request. It never equals the hash of a
// ReservationRequest.
func (r UsageRequest) Hash() string {
	r.Scopes = slices.Sorted(slices.Values(r.Scopes))
	return hashOf("usage", r)
}

// CorrectionRequest asks to change a final charge by Amounts: below 0 gives back, above 0 charges more.
type CorrectionRequest struct {
	Amounts  Amounts `json:"amounts"`            // none is 0; the units are among those of the reservation
	Reason   string  `json:"reason"`             // why, for the journal; required
	Operator string  `json:"operator,omitempty"` // the person who corrects; empty if the caller does
}

// Validate checks a request. The error is CodeInvalidRequest and names the field. Only the ledger knows the
// reservation's units and charge, and checks them.
func (r CorrectionRequest) Validate() error {
	if err := validateUnits("amounts", r.Amounts); err != nil {
		return err
	}
	for _, unit := range r.Amounts.Units() {
		if r.Amounts[unit] == 0 {
			return Invalidf("amounts."+unit, "is 0, which corrects nothing; give the difference, such as -200 to give 200 back")
		}
	}
	if r.Reason == "" {
		return Invalidf("reason", "is missing; say why the charge is wrong")
	}
	if err := ValidateReason(r.Reason); err != nil || r.Operator == "" {
		return err
	}
	return ValidateOperator(r.Operator)
}

// Hash identifies the meaning of the request.
func (r CorrectionRequest) Hash() string { return hashOf("correction", r) }

// CorrectionID derives a correction's id from its reservation and idempotency key: "cor_" and the base32 of
// the SHA-256 of both.
func CorrectionID(reservationID, key string) string {
	sum := sha256.Sum256([]byte(reservationID + "\x00" + key))
	return correctionPrefix + idEncoding.EncodeToString(sum[:])
}

// Reservation is amounts set aside for one request, with its state and usage.
type Reservation struct {
	ID            string              `json:"id"`
	State         State               `json:"state"`
	Scopes        []string            `json:"scopes"`
	Amounts       Amounts             `json:"amounts"`
	Usage         Amounts             `json:"usage"`                    // null until committed
	Overage       Amounts             `json:"overage"`                  // usage, corrected, beyond the reserved amount; null if none
	Shortfall     Amounts             `json:"shortfall"`                // usage, corrected, that a policy did not charge; null if none
	Correction    Amounts             `json:"correction"`               // signed sum of its corrections, on top of Usage; null if none
	RejectedUsage Amounts             `json:"rejected_usage,omitempty"` // usage that the policy "reject" refused
	Late          bool                `json:"late"`                     // committed after its expiry
	Estimated     bool                `json:"estimated"`                // charged by the expiry policy "commit" or by a caller's estimate, without real usage yet
	OverLimit     bool                `json:"over_limit"`               // admitted past a soft limit
	CreatedAt     time.Time           `json:"created_at"`
	ExpiresAt     *time.Time          `json:"expires_at"` // null for usage charged without a reservation
	SettledAt     *time.Time          `json:"settled_at"`
	Overdue       bool                `json:"overdue"` // held past expires_at
	Orphan        bool                `json:"orphan"`  // open, and the reconciler found no open workflow for it
	OnExpiry      OnExpiry            `json:"on_expiry"`
	Reason        string              `json:"reason"`
	Metadata      Metadata            `json:"metadata"`
	WorkflowID    string              `json:"workflow_id"`
	UIURL         string              `json:"ui_url"` // of the workflow in Temporal UI; empty if not configured
	Budgets       []ReservationBudget `json:"budgets"`
	// Response is the response from which Usage was computed; nil if the caller gave amounts. Lists leave it out.
	Response *ResponseRecord `json:"response,omitempty"`
	// Stuck says what is wrong with it; only the list of stuck reservations sets it.
	Stuck *Stuck `json:"stuck,omitempty"`
	// Lost says that Postgres has no such row, as after the restore of a backup, and that
	// the workflow has usage to charge. The other fields are what the workflow knows.
	Lost bool `json:"lost,omitempty"`
	// Replayed says that an earlier call with the same idempotency key made the
	// reservation, and that this call set aside or charged nothing: a caller that calls the
	// model now calls it twice. Only answers to calls with a key set it.
	Replayed bool `json:"replayed,omitempty"`
}

// ReservationBudget is a reservation's share in one budget.
type ReservationBudget struct {
	BudgetID    string    `json:"budget_id"`
	Scope       string    `json:"scope"`
	Unit        string    `json:"unit"`
	WindowStart time.Time `json:"window_start"`
	Reserved    int64     `json:"reserved"`  // set aside at admission
	Committed   int64     `json:"committed"` // charged so far
}

// CorrectedUsage returns the usage with all corrections, in each unit; nil until committed.
func (r *Reservation) CorrectedUsage() Amounts {
	corrected := maps.Clone(r.Usage)
	for unit := range corrected {
		corrected[unit] += r.Correction[unit]
	}
	return corrected
}

// Open reports whether the reservation still sets budget aside.
func (r *Reservation) Open() bool { return r.State == StateHeld || r.State == StateReview }

// Violation is one budget that a request does not fit into. All amounts are in Unit.
type Violation struct {
	BudgetID  string `json:"budget_id"`
	Scope     string `json:"scope"`
	Unit      string `json:"unit"`
	Limit     int64  `json:"limit"` // with overrides and grants; of a soft budget its ceiling
	Reserved  int64  `json:"reserved"`
	Committed int64  `json:"committed"`
	Available int64  `json:"available"`
	Requested int64  `json:"requested"`
}

// HoldsAlone reports whether the request would fit if nothing were reserved.
func (v Violation) HoldsAlone() bool { return v.Requested <= v.Limit-v.Committed }

// Decision says whether a request would be admitted now.
type Decision struct {
	Admitted   bool        `json:"admitted"`
	Violations []Violation `json:"violations"`
	// Retryable is true if the request is denied and waiting can help.
	Retryable bool `json:"retryable"`
	// RetryAt is the moment to ask again at the latest; set if Retryable is true. By then
	// each budget that the request does not fit into has changed: its window has ended or,
	// if the request would fit without the holds, the first lease has ended. A settlement
	// can make room earlier, and another request can take the room first.
	RetryAt *time.Time `json:"retry_at,omitempty"`
	// Amounts are those of an estimate, and PriceVersion is that of their prices; 0 if they
	// need none.
	Amounts      Amounts `json:"amounts,omitempty"`
	PriceVersion int64   `json:"price_version,omitempty"`
}

// HoldsAlone reports whether the request would fit into every budget if nothing were
// reserved.
func (d Decision) HoldsAlone() bool {
	return len(d.Violations) > 0 && !slices.ContainsFunc(d.Violations, func(v Violation) bool { return !v.HoldsAlone() })
}

// Entry is one line of the ledger's journal. Entries are append-only (rule R4).
type Entry struct {
	ID             int64      `json:"id"`
	Kind           string     `json:"kind"`
	ReservationID  string     `json:"reservation_id"` // empty for an entry about a budget
	BudgetID       string     `json:"budget_id"`      // empty for a note on a reservation
	WindowStart    *time.Time `json:"window_start"`
	ReservedDelta  int64      `json:"reserved_delta"`
	CommittedDelta int64      `json:"committed_delta"`
	Actor          string     `json:"actor"`
	Reason         string     `json:"reason"`
	CreatedAt      time.Time  `json:"created_at"`
}

// Page is one page of a list. NextCursor is empty on the last page.
type Page[T any] struct {
	Data       []T    `json:"data"`
	NextCursor string `json:"next_cursor"`
}

// ValidateTTL checks the length of a lease in seconds. The error is CodeInvalidRequest.
func ValidateTTL(seconds int64) error {
	if seconds < int64(MinTTL/time.Second) || seconds > int64(MaxTTL/time.Second) {
		return Invalidf("ttl_seconds", "%d is out of range: 1 to %d seconds are allowed", seconds, int64(MaxTTL/time.Second))
	}
	return nil
}

// ValidateReason checks the reason of a settlement. The error is CodeInvalidRequest.
func ValidateReason(reason string) error {
	return validateText("reason", reason, MaxReasonBytes)
}

// ValidateIdempotencyKey checks an Idempotency-Key. The error is CodeInvalidRequest.
func ValidateIdempotencyKey(key string) error {
	if len(key) == 0 || len(key) > MaxIdempotencyKey {
		return Invalidf("Idempotency-Key", "is %d bytes long; 1 to %d are allowed", len(key), MaxIdempotencyKey)
	}
	for _, char := range []byte(key) {
		if char < ' ' || char > '~' {
			return Invalidf("Idempotency-Key", "holds a character that is not printable ASCII")
		}
	}
	return nil
}

func validateMetadata(metadata Metadata) error {
	if len(metadata) > MaxMetadataKeys {
		return Invalidf("metadata", "has %d keys; at most %d are allowed", len(metadata), MaxMetadataKeys)
	}
	for _, key := range metadata.Keys() { // sorted, so that the error is the same each time
		value := metadata[key]
		if key == "" {
			return Invalidf("metadata", "has an empty key")
		}
		if err := validateText("metadata", key, MaxMetadataBytes); err != nil {
			return err
		}
		if err := validateText("metadata."+Clip(key), value, MaxMetadataBytes); err != nil {
			return err
		}
	}
	return nil
}

// validateText refuses text that Postgres cannot store: NUL and invalid UTF-8.
func validateText(field, text string, maxBytes int) error {
	if len(text) > maxBytes {
		return Invalidf(field, "is %d bytes long; at most %d are allowed", len(text), maxBytes)
	}
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return Invalidf(field, "holds a NUL character or broken UTF-8")
	}
	return nil
}

func uniqueScopes(scopes []string) []string {
	var unique []string
	for _, scope := range scopes {
		if !slices.Contains(unique, scope) {
			unique = append(unique, scope)
		}
	}
	return unique
}

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// ReservationID derives a reservation's id from its tenant and idempotency key: "rsv_" and
// the base32 of the SHA-256 of both.
func ReservationID(tenant, key string) string {
	sum := sha256.Sum256([]byte(tenant + "\x00" + key))
	return reservationPrefix + idEncoding.EncodeToString(sum[:])
}

// NewReservationID returns a random id for a reservation without a key, in the form of
// ReservationID.
func NewReservationID() string { return reservationPrefix + randomID(reservationIDBytes) }

// NewBudgetID returns a random id for a budget.
func NewBudgetID() string { return budgetPrefix + randomID(budgetIDBytes) }

// IsReservationID reports whether id has the form of a reservation's id.
func IsReservationID(id string) bool { return hasIDForm(id, reservationPrefix, reservationIDBytes) }

// IsBudgetID reports whether id has the form of a budget's id.
func IsBudgetID(id string) bool { return hasIDForm(id, budgetPrefix, budgetIDBytes) }

func hasIDForm(id, prefix string, size int) bool {
	encoded, ok := strings.CutPrefix(id, prefix)
	if !ok {
		return false
	}
	raw, err := idEncoding.DecodeString(encoded)
	return err == nil && len(raw) == size
}

func randomID(size int) string {
	raw := make([]byte, size)
	_, _ = rand.Read(raw) // never fails, see crypto/rand
	return idEncoding.EncodeToString(raw)
}

func hashOf(kind string, request any) string {
	encoded, err := json.Marshal(request) // the keys of maps are written in order
	if err != nil {
		panic(fmt.Sprintf("earmark: a request did not encode: %v", err)) // strings and whole numbers always encode
	}
	sum := sha256.Sum256(append([]byte(kind+"\x00"), encoded...))
	return hex.EncodeToString(sum[:])
}
