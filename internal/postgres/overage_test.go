package postgres_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// TestShortfallIsTheLargestOfAllBudgets has several scopes, since the order of
// budgets is that of their ids, which are random.
func TestShortfallIsTheLargestOfAllBudgets(t *testing.T) {
	b := setup(t)
	limits := map[earmark.Period]int64{earmark.PeriodLifetime: 150, earmark.PeriodHour: 120, earmark.PeriodDay: 140, earmark.PeriodMonth: 130}
	for i := range 4 {
		scope := fmt.Sprintf("acme%d", i)
		budgets := map[earmark.Period]*earmark.Budget{}
		for period, limit := range limits {
			budgets[period] = b.budget(scope, "tokens", limit, overage(earmark.OverageAllowIfAvailable), func(r *earmark.BudgetRequest) { r.Window.Period = period })
		}
		result := b.commit(b.held(admission(scope, tokens(100), scope)), tokens(200))
		require.Equal(t, earmark.OutcomeApplied, result.Outcome)
		require.Equal(t, tokens(100), result.Reservation.Overage)
		require.Equal(t, tokens(80), result.Reservation.Shortfall)
		for period, limit := range limits {
			require.Equal(t, int64(0), limit-committedOn(result, budgets[period].ID), "each charges what fits into it")
		}
	}
}

func committedOn(result earmark.Result, budgetID string) int64 {
	for _, share := range result.Reservation.Budgets {
		if share.BudgetID == budgetID {
			return share.Committed
		}
	}
	return -1
}
