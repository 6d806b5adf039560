package earmark

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Limits of tenants and keys.
const (
	MaxTenantBytes  = 63
	MaxKeyNameBytes = 64
	MaxKeyScopes    = 64                        // scopes that one key may be bound to
	MaxKeyLifetime  = 10 * 365 * 24 * time.Hour // from its creation to its expiry
	MaxKeyOverlap   = 30 * 24 * time.Hour       // how long a rotated key may keep working
	KeyIDBytes      = 12                        // length of a key's id
)

// Role is what the holder of a key may do. Each role includes the roles before it.
type Role string

// The roles, the narrowest first.
const (
	RoleRead    Role = "read"    // read budgets, reservations and entries
	RoleSettle  Role = "settle"  // commit, release and extend: for workers
	RoleReserve Role = "reserve" // reserve, decide and charge: for backends
	RoleOperate Role = "operate" // settle in a caller's place, correct, list what is stuck, drain: for operators
	RoleAdmin   Role = "admin"   // change budgets and keys, read the audit log
)

// Roles lists every role, the narrowest first.
var Roles = []Role{RoleRead, RoleSettle, RoleReserve, RoleOperate, RoleAdmin}

// Includes reports whether r may do everything that needed may. An unknown role includes
// nothing and is included in nothing.
func (r Role) Includes(needed Role) bool {
	return slices.Contains(Roles, needed) && slices.Index(Roles, r) >= slices.Index(Roles, needed)
}

// Key is an API key without its secret.
type Key struct {
	ID     string `json:"id"` // 12 of a-z and 0-9
	Tenant string `json:"tenant"`
	Name   string `json:"name"`
	Role   Role   `json:"role"`
	// Scopes bind the key to these scopes and those below them; empty means that it may act
	// on all.
	Scopes     []string   `json:"scopes"`
	CreatedAt  time.Time  `json:"created_at"`
	ExpiresAt  *time.Time `json:"expires_at"`   // null: never
	RevokedAt  *time.Time `json:"revoked_at"`   // null: not revoked
	LastUsedAt *time.Time `json:"last_used_at"` // the start of the hour, in UTC; null: never
	ReplacedBy string     `json:"replaced_by"`  // id of the key that a rotation made; empty: not rotated
	Rate       Rate       `json:"rate"`         // bounds its calls at each server process; zero: no bound
}

// Covers reports whether the key may act on a scope: it is bound to no scope, to this one,
// or to one above it.
func (k Key) Covers(scope string) bool {
	return len(k.Scopes) == 0 || slices.ContainsFunc(k.Scopes, func(own string) bool {
		return scope == own || strings.HasPrefix(scope, own+"/")
	})
}

// KeyRequest asks for a new key.
type KeyRequest struct {
	Name      string     `json:"name,omitempty"` // for people; at most 64 bytes
	Role      Role       `json:"role"`
	Scopes    []string   `json:"scopes,omitempty"`     // empty: all
	ExpiresAt *time.Time `json:"expires_at,omitempty"` // null: never
	Rate      Rate       `json:"rate,omitzero"`        // zero: no bound
}

// Validate checks the request at the time now. The error is CodeInvalidRequest and names the field.
func (r KeyRequest) Validate(now time.Time) error {
	if err := validateText("name", r.Name, MaxKeyNameBytes); err != nil {
		return err
	}
	if err := ValidateName("name", r.Name); err != nil {
		return err
	}
	if err := oneOf("role", r.Role, Roles...); err != nil {
		return err
	}
	if len(r.Scopes) > MaxKeyScopes {
		return Invalidf("scopes", "%d scopes are named; at most %d are allowed", len(r.Scopes), MaxKeyScopes)
	}
	for i, scope := range r.Scopes {
		field := fmt.Sprintf("scopes[%d]", i)
		if err := ValidateScope(field, scope); err != nil {
			return err
		}
		if slices.Contains(r.Scopes[:i], scope) {
			return Invalidf(field, "%q is named twice", Clip(scope))
		}
	}
	if err := r.Rate.validate(); err != nil {
		return err
	}
	if r.ExpiresAt == nil {
		return nil
	}
	if !r.ExpiresAt.After(now) {
		return Invalidf("expires_at", "%s is not in the future", r.ExpiresAt.UTC().Format(time.RFC3339))
	}
	if r.ExpiresAt.After(now.Add(MaxKeyLifetime)) {
		return Invalidf("expires_at", "%s is over 10 years away; give an earlier time, or none for a key that does not expire", r.ExpiresAt.UTC().Format(time.RFC3339))
	}
	return nil
}

// ValidateOverlap checks how long a rotated key keeps working: 0 to 30 days. The error is
// CodeInvalidRequest.
func ValidateOverlap(overlap time.Duration) error {
	if overlap < 0 || overlap > MaxKeyOverlap {
		return Invalidf("overlap", "%s is out of range: 0 to %d hours are allowed", overlap, int64(MaxKeyOverlap/time.Hour))
	}
	return nil
}

// IssuedKey is a key with its secret, which Earmark shows once: it keeps only a hash.
type IssuedKey struct {
	Key
	Secret string `json:"secret"` // the whole key, emk_…
}

// Credential is what a presented key is compared with.
type Credential struct {
	Key            Key
	Hash           [32]byte // SHA-256 of the secret
	TenantDisabled bool
}

// Caller is the party on whose behalf a call of the API is made.
type Caller struct {
	Tenant  string   `json:"tenant"`
	Role    Role     `json:"role"`
	Scopes  []string `json:"scopes"`   // the scopes of the key; empty: all
	KeyID   string   `json:"key_id"`   // empty on a server without keys
	KeyName string   `json:"key_name"` // empty if the key has no name
}

// KeyFilter selects a page of a tenant's keys, newest first.
type KeyFilter struct {
	Cursor string // NextCursor of the page before
	Limit  int    // keys a page
}

// Tenant owns budgets, reservations, entries and keys. No tenant sees those of another.
type Tenant struct {
	ID         string     `json:"id"`
	CreatedAt  time.Time  `json:"created_at"`
	DisabledAt *time.Time `json:"disabled_at"` // null: its keys work
}

var (
	tenantPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)
	keyIDPattern  = regexp.MustCompile(`^[a-z0-9]{12}$`)
)

// ValidateTenant checks the form of a tenant's id. The error is CodeInvalidRequest.
func ValidateTenant(id string) error {
	if !tenantPattern.MatchString(id) {
		return Invalidf("tenant", "%q is not a tenant's id: 1 to %d of a-z, 0-9, _ and - are allowed, the first a letter or digit", Clip(id), MaxTenantBytes)
	}
	return nil
}

// IsKeyID reports whether id has the form of a key's id.
func IsKeyID(id string) bool { return keyIDPattern.MatchString(id) }

// The actions of the audit log.
const (
	ActionBudgetCreate  = "budget.create"
	ActionBudgetChange  = "budget.change"
	ActionBudgetArchive = "budget.archive"
	ActionKeyCreate     = "key.create"
	ActionKeyRotate     = "key.rotate"
	ActionKeyRevoke     = "key.revoke"
	ActionTenantCreate  = "tenant.create"
	ActionTenantDisable = "tenant.disable"
	ActionTenantEnable  = "tenant.enable"
	ActionPriceAdd      = "price.add"

	ActionOverrideCreate = "override.create"
	ActionOverrideEnd    = "override.end"

	ActionGrantCreate = "grant.create"
	ActionGrantVoid   = "grant.void"

	ActionWebhookCreate = "webhook.create"
	ActionWebhookChange = "webhook.change"
	ActionWebhookRotate = "webhook.rotate"
	ActionWebhookReplay = "webhook.replay"
	ActionWebhookDelete = "webhook.delete"
)

// Actions lists every action of the audit log.
var Actions = []string{
	ActionBudgetCreate, ActionBudgetChange, ActionBudgetArchive, ActionKeyCreate, ActionKeyRotate, ActionKeyRevoke,
	ActionTenantCreate, ActionTenantDisable, ActionTenantEnable, ActionPriceAdd,
	ActionOverrideCreate, ActionOverrideEnd, ActionGrantCreate, ActionGrantVoid,
	ActionWebhookCreate, ActionWebhookChange, ActionWebhookRotate, ActionWebhookReplay, ActionWebhookDelete,
}

// AuditRecord is one change of a budget, a key, a tenant or prices. Records are never changed or deleted.
type AuditRecord struct {
	ID        int64           `json:"id"`
	Tenant    string          `json:"tenant"`
	Actor     Actor           `json:"actor"`
	Action    string          `json:"action"`  // one of Actions
	Subject   string          `json:"subject"` // id of the budget, the key or the tenant; number of the price version
	Reason    string          `json:"reason"`
	Before    json.RawMessage `json:"before"` // the subject before the change; null where it did not exist
	After     json.RawMessage `json:"after"`  // the subject after the change
	CreatedAt time.Time       `json:"created_at"`
}

// AuditFilter selects a page of a tenant's audit log, newest first. Empty fields select everything.
type AuditFilter struct {
	Subject string // id of a budget, a key or a tenant, or number of a price version
	Action  string // one of Actions
	Actor   string // such as "key:abcdefghijkl" or "operator:alice"; either finds "operator:alice key:abcdefghijkl"
	Cursor  string // NextCursor of the page before
	Limit   int    // records a page
}
