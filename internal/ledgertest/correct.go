package ledgertest

import (
	"context"
	"maps"
	"math"
	"math/big"

	"github.com/earmark-dev/earmark"
)

// Correct adds signed amounts to a final charge, in the windows that were charged.
func (l *Ledger) Correct(_ context.Context, c earmark.Correction) (earmark.Result, error) {
	r := l.find(earmark.Transition{ID: c.ReservationID, Tenant: c.Tenant})
	if r == nil {
		return unknown()
	}
	switch hash, known := r.corrections[c.ID]; {
	case known && hash == c.Request.Hash():
		return l.result(earmark.OutcomeSame, r), nil
	case known:
		return earmark.Result{Outcome: earmark.OutcomeMismatch}, nil
	}
	by := c.Request.Amounts
	for _, unit := range by.Units() {
		if _, reserved := r.Amounts[unit]; !reserved {
			result := l.result(earmark.OutcomeUnitsMismatch, r)
			result.Subject = unit
			return result, nil
		}
	}
	if r.State != earmark.StateCommitted || r.Estimated {
		return l.result(earmark.OutcomeConflict, r), nil
	}
	corrected := earmark.Amounts{}
	for _, unit := range r.Usage.Units() {
		charge := new(big.Int)
		for _, part := range []int64{r.Usage[unit], r.Correction[unit], by[unit]} {
			charge.Add(charge, big.NewInt(part))
		}
		switch {
		case charge.Sign() < 0:
			result := l.result(earmark.OutcomeBelowZero, r)
			result.Subject = unit
			return result, nil
		case !charge.IsInt64():
			return earmark.Result{Outcome: earmark.OutcomeOverflow, Subject: unit}, nil
		}
		corrected[unit] = charge.Int64()
	}
	for _, share := range r.Budgets {
		if s := l.budgets[share.BudgetID].at(share.WindowStart); by[share.Unit] > math.MaxInt64-s.reserved-s.committed {
			return earmark.Result{Outcome: earmark.OutcomeOverflow}, nil
		}
	}
	l.correctShares(r, c, corrected)
	r.Correction = maps.Clone(r.Correction)
	if r.corrections == nil {
		r.corrections, r.Correction = map[string]string{}, earmark.Amounts{}
	}
	for unit, amount := range by {
		r.Correction[unit] += amount
	}
	r.corrections[c.ID] = c.Request.Hash()
	r.Overage, r.Shortfall, r.SettledAt = beyond(corrected, r.Amounts), shortfall(r, corrected), new(l.now())
	l.emit(earmark.EventCorrected, r, func(e *Event) { e.Amounts, e.Correction, e.Reason = by, r.Correction, c.Request.Reason })
	return l.result(earmark.OutcomeApplied, r), nil
}

// correctShares charges a correction to each of r's budgets. No budget counts more than corrected, the usage after it.
func (l *Ledger) correctShares(r *reservation, c earmark.Correction, corrected earmark.Amounts) {
	for i := range r.Budgets {
		share := &r.Budgets[i]
		delta, named := c.Request.Amounts[share.Unit]
		if !named {
			continue
		}
		if delta < 0 {
			delta = min(share.Committed, corrected[share.Unit]) - share.Committed
		}
		l.post("correction", r, *share, 0, delta, c.Actor, c.Request.Reason)
		l.settleGrants(r, *share, settlement{share.Committed + delta, 0, c.Actor, true})
		share.Committed += delta
	}
}
