package postgres

import (
	"strings"

	"github.com/earmark-dev/earmark"
)

// budgetKey names the budgets of a unit on a scope.
func budgetKey(tenant, scope, unit string) string { return tenant + " " + scope + " " + unit }

// batchKey names what an admission waits for others on: the uppermost scope on which it is known to meet a
// budget. Where none is known, it goes with those that have the same scopes and units. A key that is out of
// date costs time only: whatever brought calls together, each locks the budgets that apply to it.
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

// learn remembers from an answer the uppermost budget that an admission met, forgets the budget that it was
// thought to meet and did not, and returns the key of those that meet on it.
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
	case result.Outcome == earmark.OutcomeDenied && result.Decision != nil: // it names only those that are short
		for _, v := range result.Decision.Violations {
			meet(v.Scope, v.Unit)
		}
	}
	if depth >= 0 && !l.budgeted.has(top) {
		l.budgeted.add(top, struct{}{})
	}
	return top
}
