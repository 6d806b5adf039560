package ledgertest

import (
	"cmp"
	"context"
	"math"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
)

// CreateOverride changes a budget's limit for a time; nil if there is no such budget.
func (l *Ledger) CreateOverride(_ context.Context, tenant, budgetID, key string, r earmark.OverrideRequest, by earmark.Actor) (*earmark.Override, error) {
	b := l.budgets[budgetID]
	if b == nil || b.tenant != tenant {
		return nil, nil
	}
	id := earmark.OverrideID(budgetID, key)
	if done, err := b.repeated(id, r.Hash()); done != nil || err != nil {
		return done, err
	}
	o := earmark.Override{Source: "manual", Amount: r.Amount, EffectiveAt: l.now(), Reason: r.Reason}
	if r.EffectiveAt != nil {
		o.EffectiveAt = r.EffectiveAt.UTC()
	}
	if r.ExpiresAt != nil {
		o.ExpiresAt = new(r.ExpiresAt.UTC())
	}
	if r.Windows != nil && b.rolling() {
		return nil, earmark.Invalidf("windows", "never end")
	}
	if r.Windows != nil {
		end := &o.EffectiveAt
		for range *r.Windows {
			if _, end = b.window(*end); end == nil {
				return nil, earmark.Invalidf("windows", "never end")
			}
		}
		o.ExpiresAt = end
	}
	if o.ExpiresAt != nil && (!o.ExpiresAt.After(o.EffectiveAt) || !o.ExpiresAt.After(l.now())) {
		field := "expires_at"
		if r.Windows != nil {
			field = "effective_at"
		}
		return nil, earmark.Invalidf(field, "has passed")
	}
	return l.override(b, id, r.Hash(), o, by), nil
}

// ResetBudget overrides a budget's limit by what is committed in the current window and no earlier reset made up for.
func (l *Ledger) ResetBudget(_ context.Context, tenant, budgetID, key string, r earmark.ReasonRequest, by earmark.Actor) (*earmark.Override, error) {
	b := l.budgets[budgetID]
	if b == nil || b.tenant != tenant {
		return nil, nil
	}
	id := earmark.OverrideID(budgetID, key)
	if done, err := b.repeated(id, r.ResetHash()); done != nil || err != nil {
		return done, err
	}
	if b.rolling() {
		return nil, earmark.Invalidf("", "rolling")
	}
	start, end := b.window(l.now())
	amount := b.at(start).committed - b.at(start).grantedCommitted
	for _, o := range b.overrides {
		if o.Source == "reset" && o.inForce(l.now()) {
			amount -= o.Amount
		}
	}
	return l.override(b, id, r.ResetHash(), earmark.Override{Source: "reset", Amount: max(0, amount), EffectiveAt: l.now(), ExpiresAt: end, Reason: r.Reason}, by), nil
}

// EndOverride ends an override now; nil if the budget has none with this id.
func (l *Ledger) EndOverride(_ context.Context, tenant, budgetID, id string, by earmark.Actor, reason string) (*earmark.Override, error) {
	b := l.budgets[budgetID]
	if b == nil || b.tenant != tenant {
		return nil, nil
	}
	for _, o := range b.overrides {
		if o.ID != id {
			continue
		}
		if o.EndedAt == nil && (o.ExpiresAt == nil || o.ExpiresAt.After(l.now())) {
			o.EndedAt = new(l.now())
			l.noteBudget(b, by, reason)
		}
		return new(o.Override), nil
	}
	return nil, nil
}

// Overrides lists the overrides of a budget, newest first.
func (l *Ledger) Overrides(_ context.Context, _, budgetID string, _ earmark.PageFilter) (earmark.Page[earmark.Override], error) {
	page := earmark.Page[earmark.Override]{Data: []earmark.Override{}}
	if b := l.budgets[budgetID]; b != nil {
		for _, o := range b.overrides {
			page.Data = append(page.Data, o.Override)
		}
	}
	slices.SortFunc(page.Data, func(a, b earmark.Override) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), strings.Compare(b.ID, a.ID))
	})
	return page, nil
}

// override is an override of a budget with the hash of its request.
type override struct {
	earmark.Override
	hash string
}

func (o *override) inForce(at time.Time) bool {
	return !at.Before(o.EffectiveAt) && (o.ExpiresAt == nil || at.Before(*o.ExpiresAt)) && (o.EndedAt == nil || at.Before(*o.EndedAt))
}

func (l *Ledger) override(b *budget, id, hash string, o earmark.Override, by earmark.Actor) *earmark.Override {
	l.rollOver(b, l.now(), by)
	o.ID, o.BudgetID, o.CreatedAt = id, b.ID, l.now()
	b.overrides = append(b.overrides, &override{o, hash})
	l.noteBudget(b, by, o.Reason)
	return &o
}

// repeated returns the override that an earlier call with this id made, and why a new one is refused.
func (b *budget) repeated(id, hash string) (*earmark.Override, error) {
	for _, o := range b.overrides {
		switch {
		case o.ID == id && o.hash == hash:
			made := o.Override
			made.Replayed = true
			return &made, nil
		case o.ID == id:
			err := earmark.Errorf(earmark.CodeIdempotencyMismatch, "used")
			err.Field = "Idempotency-Key"
			return nil, err
		}
	}
	switch {
	case b.ArchivedAt != nil:
		return nil, earmark.Errorf(earmark.CodeInvalidRequest, "archived")
	case b.Template:
		return nil, earmark.Invalidf("", "a template has no balance")
	}
	return nil, nil
}

// raised returns an amount with the overrides that are in force at a moment.
func (b *budget) raised(amount int64, at time.Time) int64 {
	sum := big.NewInt(amount)
	for _, o := range b.overrides {
		if o.inForce(at) {
			sum.Add(sum, big.NewInt(o.Amount))
		}
	}
	switch {
	case sum.Sign() < 0:
		return 0
	case !sum.IsInt64():
		return math.MaxInt64
	}
	return sum.Int64()
}
