package postgres

import (
	"strings"

	"github.com/earmark-dev/earmark"
)

// budgetKey identifies the budgets of a unit on a scope.
func budgetKey(tenant, scope, unit string) string { return tenant + " " + scope + " " + unit }

// batchKey returns the key under which an admission is batched with others: the uppermost
// scope that is known to have a budget for it. If none is known, it is batched with
// admissions of the same scopes and units. An outdated key costs only time: each call locks
// the budgets that apply to it, whatever batch it is in.
func (l *Ledger) batchKey(a earmark.Admission) string {
	units := a.Request.Amounts.Units()
	for _, scope := range a.Request.Scopes {
		for end := 0; end < len(scope); end++ {
			if next := strings.IndexByte(scope[end:], '/'); next >= 0 {
				end += next
			} else {
				end = len(scope)
			}
			for _, unit := range units {
				if key := budgetKey(a.Tenant, scope[:end], unit); l.budgeted.has(key) {
					return key
				}
			}
		}
	}
	return a.Tenant + " " + strings.Join(a.Request.Scopes, " ") + " " + strings.Join(units, " ")
}

// learn stores the uppermost budget that an answer names, forgets a budget that the
// admission was expected to meet and did not, and returns the key of the admissions that
// share that budget.
func (l *Ledger) learn(tenant, key string, result earmark.Result) string {
	top, depth, confirmed := key, -1, false
	meet := func(scope, unit string) {
		met := budgetKey(tenant, scope, unit)
		confirmed = confirmed || met == key
		if d := strings.Count(scope, "/"); depth < 0 || d < depth || d == depth && met < top {
			top, depth = met, d
		}
	}
	switch {
	case result.Outcome == earmark.OutcomeApplied && result.Reservation != nil:
		for _, b := range result.Reservation.Budgets {
			meet(b.Scope, b.Unit)
		}
		if !confirmed {
			l.budgeted.take(key)
		}
	case result.Outcome == earmark.OutcomeDenied && result.Decision != nil: // a denial names only the budgets without room
		for _, v := range result.Decision.Violations {
			meet(v.Scope, v.Unit)
		}
	}
	if depth >= 0 && !l.budgeted.has(top) {
		l.budgeted.add(top, struct{}{})
	}
	return top
}
