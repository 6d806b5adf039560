package postgres

import (
	"context"
	_ "embed"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
)

//go:embed sql/overrides.sql
var overridesSQL string

const (
	createOverrideSQL = "SELECT earmark.create_override(p_id => @id, p_tenant => @tenant, p_budget_id => @budget, p_hash => @hash, p_source => @source, " +
		"p_amount => @amount, p_effective_at => @effective_at, p_expires_at => @expires_at, p_windows => @windows, p_actor => @actor, p_reason => @reason)"
	endOverrideSQL = "SELECT earmark.end_override(p_tenant => @tenant, p_budget_id => @budget, p_id => @id, p_actor => @actor, p_reason => @reason)"
)

// changeResult is the answer of a function that changes what a budget allows.
type changeResult struct {
	Outcome    earmark.Outcome   `json:"outcome"`
	Override   *earmark.Override `json:"override"`
	Grant      *earmark.Grant    `json:"grant"`
	Subject    string            `json:"subject"`     // with OutcomeInvalid
	ArchivedAt time.Time         `json:"archived_at"` // with OutcomeConflict
}

// CreateOverride overrides a budget's limit for a time. key names the override of this budget, so that it applies once. It returns nil
// if there is no such budget.
func (l *Ledger) CreateOverride(ctx context.Context, tenant, budgetID, key string, r earmark.OverrideRequest, by earmark.Actor) (*earmark.Override, error) {
	return l.override(ctx, namedArgs{
		"id": earmark.OverrideID(budgetID, key), "tenant": tenant, "budget": budgetID, "hash": r.Hash(), "source": "manual", "amount": r.Amount,
		"effective_at": r.EffectiveAt, "expires_at": r.ExpiresAt, "windows": r.Windows, "actor": by.String(), "reason": r.Reason})
}

// ResetBudget gives the whole limit of a budget's current window again, by an override of what is committed. key is as for
// CreateOverride. It returns nil if there is no such budget.
func (l *Ledger) ResetBudget(ctx context.Context, tenant, budgetID, key string, r earmark.ReasonRequest, by earmark.Actor) (*earmark.Override, error) {
	return l.override(ctx, namedArgs{
		"id": earmark.OverrideID(budgetID, key), "tenant": tenant, "budget": budgetID, "hash": r.ResetHash(), "source": "reset", "amount": nil,
		"effective_at": nil, "expires_at": nil, "windows": nil, "actor": by.String(), "reason": r.Reason})
}

func (l *Ledger) override(ctx context.Context, args namedArgs) (*earmark.Override, error) {
	var result changeResult
	if err := l.read(ctx, &result, createOverrideSQL, args); err != nil {
		return nil, err
	}
	if result.Outcome == earmark.OutcomeSame {
		result.Override.Replayed = true
	}
	return result.Override, result.check()
}

// check returns why nothing was changed.
func (r changeResult) check() error {
	switch r.Outcome {
	case earmark.OutcomeMismatch:
		err := earmark.Errorf(earmark.CodeIdempotencyMismatch, "was used for another change of this budget; use a new key, or send the same body")
		err.Field = "Idempotency-Key"
		return err
	case earmark.OutcomeConflict:
		return archivedBudget(r.ArchivedAt)
	case earmark.OutcomeInvalid:
		switch r.Subject {
		case "template":
			return earmark.Invalidf("", "a template has no balance of its own; change its limit, or override the budget of a child")
		case "windows":
			return earmark.Invalidf("windows", "a budget for a lifetime or with a rolling window has none that ends; give expires_at, or neither")
		case "window":
			return earmark.Invalidf("", "a rolling window cannot be reset; raise the limit for a time instead")
		case "effective_at":
			return earmark.Invalidf("effective_at", "is so long ago that the windows have ended; give a later one, or more windows")
		}
		return earmark.Invalidf("expires_at", "has passed or is not after effective_at; give a later time")
	default: // applied, or unknown: there is no such budget
	}
	return nil
}

// EndOverride ends an override now; one that has ended stays as it is. It returns nil if the budget has no such override.
func (l *Ledger) EndOverride(ctx context.Context, tenant, budgetID, id string, by earmark.Actor, reason string) (*earmark.Override, error) {
	var result changeResult
	err := l.read(ctx, &result, endOverrideSQL, namedArgs{"tenant": tenant, "budget": budgetID, "id": id, "actor": by.String(), "reason": reason})
	return result.Override, err
}

// Overrides lists the overrides of a budget, also those that have ended, newest first.
func (l *Ledger) Overrides(ctx context.Context, tenant, budgetID string, f earmark.PageFilter) (earmark.Page[earmark.Override], error) {
	var none earmark.Page[earmark.Override]
	list := listOf("overrides", tenant, budgetID)
	createdAt, lastID, err := list.parse(f.Cursor)
	if err != nil {
		return none, err
	}
	limit := pageSize(f.Limit)
	rows, err := l.lists.Query(ctx, overridesSQL, planAnew, tenant, budgetID, createdAt, lastID, limit+1)
	if err != nil {
		return none, fault(err)
	}
	overrides, err := pgx.CollectRows(rows, documentOf[earmark.Override])
	if err != nil {
		return none, fault(err)
	}
	return page(overrides, limit, func(o earmark.Override) string { return list.cursor(o.CreatedAt, o.ID) }), nil
}
