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

// A caller who got "refused" must not be charged by the same message when it
// arrives once more, after nothing refuses it any longer. A new attempt is a new
// decision.
func TestRefusedAttemptStaysRefused(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000, overage(earmark.OverageReject))
	s := b.held(admission("k", tokens(600), "acme"))
	s.Attempt = "the first"
	require.Equal(t, earmark.OutcomeOverageRejected, b.commit(s, tokens(700)).Outcome)
	second := s
	second.Attempt = "the second"
	require.Equal(t, earmark.OutcomeOverageRejected, b.commit(second, tokens(700)).Outcome)
	b.due(s.ID)
	require.Equal(t, earmark.StateReview, b.expire(s).Reservation.State)
	for _, again := range []earmark.Transition{s, second} {
		require.Equal(t, earmark.OutcomeOverageRejected, b.commit(again, tokens(700)).Outcome)
	}
	b.requireBalance(budget.ID, 600, 0)
	require.Equal(t, []string{"reserve", "reject", "review"}, b.entryKinds(s.ID))

	decided := s
	decided.Attempt = "by somebody who looked"
	require.Equal(t, earmark.OutcomeApplied, b.commit(decided, tokens(700)).Outcome)
	b.requireBalance(budget.ID, 0, 700)
}

// In review a workflow has no timer. If its process dies with the settlement, nobody
// but the reconciler notifies the next one.
func TestSettledOutOfReviewIsLookedAt(t *testing.T) {
	t.Parallel()
	for name, settle := range map[string]func(*env, earmark.Transition) earmark.Result{
		"commit":  func(b *env, s earmark.Transition) earmark.Result { return b.commit(s, tokens(1)) },
		"release": func(b *env, s earmark.Transition) earmark.Result { return b.release(s) },
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.budget("acme", "tokens", 1000)
			a := admission("k", tokens(1), "acme")
			a.Request.OnExpiry = earmark.OnExpiryReview
			s := b.held(a)
			b.due(s.ID)
			require.Equal(t, earmark.StateReview, b.expire(s).Reservation.State)
			require.Equal(t, earmark.OutcomeApplied, settle(b, s).Outcome, "by the workflow itself")
			checks, err := b.ClaimChecks(ctx(), 0, 10)
			require.NoError(t, err)
			require.Len(t, checks, 1)
			require.Equal(t, s.ID, checks[0].ID)
		})
	}
}
