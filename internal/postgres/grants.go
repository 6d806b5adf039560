package postgres

import (
	"context"
	_ "embed"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
)

//go:embed sql/grants.sql
var grantsSQL string

const (
	createGrantSQL = "SELECT earmark.create_grant(p_id => @id, p_tenant => @tenant, p_budget_id => @budget, p_hash => @hash, p_amount => @amount, " +
		"p_priority => @priority, p_effective_at => @effective_at, p_expires_at => @expires_at, p_actor => @actor, p_reason => @reason)"
	voidGrantSQL  = "SELECT earmark.void_grant(p_tenant => @tenant, p_budget_id => @budget, p_id => @id, p_actor => @actor, p_reason => @reason)"
	noteGrantsSQL = "SELECT earmark.note_grants(p_max => @max, p_actor => @actor)"
)

// CreateGrant grants an amount on top of a budget's limit. key names the grant of this budget, so that it applies once. The defaults
// of the request are filled. It returns nil if there is no such budget.
func (l *Ledger) CreateGrant(ctx context.Context, tenant, budgetID, key string, r earmark.GrantRequest, by earmark.Actor) (*earmark.Grant, error) {
	var result changeResult
	if err := l.read(ctx, &result, createGrantSQL, namedArgs{
		"id": earmark.GrantID(budgetID, key), "tenant": tenant, "budget": budgetID, "hash": r.Hash(), "amount": r.Amount, "priority": r.Priority,
		"effective_at": r.EffectiveAt, "expires_at": r.ExpiresAt, "actor": by.String(), "reason": r.Reason}); err != nil {
		return nil, err
	}
	if result.Outcome == earmark.OutcomeSame {
		result.Grant.Replayed = true
	}
	if result.Outcome == earmark.OutcomeInvalid {
		switch result.Subject {
		case "template":
			return nil, earmark.Invalidf("scope", "of the budget is a template's, which has no balance; give the grant to the budget of a child")
		case "window":
			return nil, earmark.Invalidf("window", "of the budget is rolling, which takes no grants; give the grant to a budget with another window")
		case "grants":
			return nil, earmark.Invalidf("", "the budget has 100 grants with something left, and no more are allowed; void some, or give fewer larger ones")
		}
	}
	return result.Grant, result.check()
}

// VoidGrant takes away what is left of a grant; one that has ended stays as it is. It returns nil if the budget has no such grant.
func (l *Ledger) VoidGrant(ctx context.Context, tenant, budgetID, id string, by earmark.Actor, reason string) (*earmark.Grant, error) {
	var result changeResult
	err := l.read(ctx, &result, voidGrantSQL, namedArgs{"tenant": tenant, "budget": budgetID, "id": id, "actor": by.String(), "reason": reason})
	return result.Grant, err
}

// NoteGrants writes into the journal what was unused of up to limit grants that have expired, and events of up to limit that soon will. It
// returns how many it looked at.
func (l *Ledger) NoteGrants(ctx context.Context, limit int) (int, error) {
	var seen int
	err := l.pool.QueryRow(ctx, noteGrantsSQL, namedArgs{"max": limit, "actor": earmark.ActorSweeper.String()}).Scan(&seen)
	return seen, fault(err)
}

// Grants lists the grants of a budget, also those that have ended, newest first.
func (l *Ledger) Grants(ctx context.Context, tenant, budgetID string, f earmark.PageFilter) (earmark.Page[earmark.Grant], error) {
	var none earmark.Page[earmark.Grant]
	list := listOf("grants", tenant, budgetID)
	createdAt, lastID, err := list.parse(f.Cursor)
	if err != nil {
		return none, err
	}
	limit := pageSize(f.Limit)
	rows, err := l.lists.Query(ctx, grantsSQL, planAnew, tenant, budgetID, createdAt, lastID, limit+1)
	if err != nil {
		return none, fault(err)
	}
	grants, err := pgx.CollectRows(rows, documentOf[earmark.Grant])
	if err != nil {
		return none, fault(err)
	}
	return page(grants, limit, func(g earmark.Grant) string { return list.cursor(g.CreatedAt, g.ID) }), nil
}
