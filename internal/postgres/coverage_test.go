package postgres_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// A unit that no budget counts on one of the scopes would be unlimited there: it is refused, unless
// the request asks for that.
func TestUnitNotCountedOnAScopeIsRefused(t *testing.T) {
	b := setup(t)
	counted := b.budget("acme", "tokens", 1000)
	b.budget("partner", "usd_micros", 1000)
	a := admission("k", tokens(100), "acme/a", "partner/x")
	refusal := earmark.Result{Outcome: earmark.OutcomeUnitNotBudgeted, Subject: "tokens", Scope: "partner/x"}
	require.Equal(t, refusal, b.reserve(a))
	decided, err := b.Decide(ctx(), a.Tenant, a.Request)
	require.NoError(t, err)
	require.Equal(t, refusal, decided)
	preflight, err := b.Preflight(ctx(), a)
	require.NoError(t, err)
	require.Equal(t, refusal, preflight.Result)
	b.requireBalance(counted.ID, 0, 0)

	a.Request.Coverage = earmark.CoverageAnyScope
	require.Equal(t, earmark.OutcomeApplied, b.reserve(a).Outcome)
	b.requireBalance(counted.ID, 100, 0)
	other := admission("l", earmark.Amounts{"requests": 1}, "acme/a", "partner/x")
	other.Request.Coverage = earmark.CoverageAnyScope
	require.Equal(t, earmark.OutcomeUnitNotBudgeted, b.reserve(other).Outcome)

	// Usage that was spent is charged where it is counted.
	charge := earmark.UsageRequest{Scopes: []string{"acme/a", "partner/x"}, Amounts: tokens(5)}
	result, err := b.Charge(ctx(), earmark.Charge{ID: earmark.ReservationID(earmark.DefaultTenant, "u"), Tenant: earmark.DefaultTenant, Request: charge, RequestHash: charge.Hash(), Actor: earmark.ActorAPI})
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, result.Outcome)
}

// A request may require that each of its scopes has a budget of its own. One above it limits the
// request, and does not cover the scope.
func TestRequiredBudget(t *testing.T) {
	b := setup(t)
	above := b.budget("acme", "tokens", 1000)
	b.budget("acme/u1", "tokens", 100)
	b.budget("acme/u2", "requests", 100)
	money := b.budget("partner", "usd_micros", 100)
	both := earmark.Amounts{"tokens": 1, "usd_micros": 1}
	noBudget := func(scope string) earmark.Result {
		return earmark.Result{Outcome: earmark.OutcomeNoBudget, Subject: scope}
	}
	uncounted := func(scope, unit string) earmark.Result {
		return earmark.Result{Outcome: earmark.OutcomeUnitNotBudgeted, Subject: unit, Scope: scope}
	}
	for n, c := range []struct {
		amounts  earmark.Amounts
		coverage earmark.Coverage
		scopes   []string
		want     earmark.Result
	}{
		{tokens(1), earmark.CoverageEachScope, []string{"acme/u1"}, earmark.Result{Outcome: earmark.OutcomeApplied}},
		{tokens(1), earmark.CoverageEachScope, []string{"acme"}, earmark.Result{Outcome: earmark.OutcomeApplied}},
		{tokens(1), earmark.CoverageEachScope, []string{"acme/u3"}, noBudget("acme/u3")},
		{tokens(1), earmark.CoverageEachScope, []string{"acme/u1/chat"}, noBudget("acme/u1/chat")},
		{tokens(1), earmark.CoverageEachScope, []string{"acme/u1", "acme/u3"}, noBudget("acme/u3")},
		{tokens(1), earmark.CoverageAnyScope, []string{"acme/u1", "acme/u3"}, noBudget("acme/u3")},
		{tokens(1), earmark.CoverageEachScope, []string{"acme/u2"}, uncounted("acme/u2", "tokens")},
		{tokens(1), earmark.CoverageAnyScope, []string{"acme/u2"}, uncounted("acme/u2", "tokens")},
		{tokens(1), earmark.CoverageAnyScope, []string{"acme/u1", "acme/u2"}, earmark.Result{Outcome: earmark.OutcomeApplied}},
		{both, earmark.CoverageEachScope, []string{"acme/u1", "partner"}, uncounted("acme/u1", "usd_micros")},
		{both, earmark.CoverageAnyScope, []string{"acme/u1", "partner"}, earmark.Result{Outcome: earmark.OutcomeApplied}},
		{tokens(101), earmark.CoverageEachScope, []string{"acme/u1"}, earmark.Result{Outcome: earmark.OutcomeDenied}},
	} {
		a := admission(fmt.Sprint("k", n), c.amounts, c.scopes...)
		a.Request.Coverage, a.Request.RequireBudget = c.coverage, true
		decided, err := b.Decide(ctx(), a.Tenant, a.Request)
		require.NoError(t, err)
		preflight, err := b.Preflight(ctx(), a)
		require.NoError(t, err)
		for what, result := range map[string]earmark.Result{"decide": decided, "preflight": preflight.Result, "reserve": b.reserve(a)} {
			result.Decision, result.Reservation, result.RemainingMS = nil, nil, 0
			require.Equal(t, c.want, result, "%s %v", what, c)
		}
	}
	b.requireBalance(above.ID, 4, 0)
	b.requireBalance(money.ID, 1, 0)

	charge := func(required bool) earmark.Result {
		usage := earmark.UsageRequest{Scopes: []string{"acme/u3"}, Amounts: tokens(5), RequireBudget: required}
		result, err := b.Charge(ctx(), earmark.Charge{ID: earmark.ReservationID(earmark.DefaultTenant, "u"), Tenant: earmark.DefaultTenant, Request: usage, RequestHash: usage.Hash(), Actor: earmark.ActorAPI})
		require.NoError(t, err)
		return result
	}
	require.Equal(t, noBudget("acme/u3"), charge(true))
	b.requireBalance(above.ID, 4, 0)
	require.Equal(t, earmark.OutcomeApplied, charge(false).Outcome)
	b.requireBalance(above.ID, 4, 5)

	// Several calls in one transaction, of which one requires it.
	calls := []map[string]any{}
	for _, required := range []bool{false, true} {
		calls = append(calls, map[string]any{"id": fmt.Sprint("rsv_", required), "hash": "h", "scopes": []string{"acme/u9"}, "amounts": tokens(1), "ttl_ms": 60_000,
			"on_expiry": "release", "metadata": map[string]string{}, "workflow_id": "w", "released": false, "require_budget": required})
	}
	results := b.together("SELECT earmark.reserve_batch('default', $1, 'test')", calls)
	require.Equal(t, earmark.OutcomeApplied, results[0].Outcome)
	require.Equal(t, noBudget("acme/u9"), *results[1])
}

// Nothing is an amount: a model that is free in one unit needs no branch in its caller.
func TestNothingIsAnAmount(t *testing.T) {
	b := setup(t)
	money := b.budget("acme", "usd_micros", 100)
	b.budget("acme", "tokens", 100)
	s := b.held(admission("k", earmark.Amounts{"usd_micros": 0, "tokens": 10}, "acme"))
	b.requireBalance(money.ID, 0, 0)
	require.Equal(t, earmark.OutcomeApplied, b.commit(s, earmark.Amounts{"usd_micros": 0, "tokens": 7}).Outcome)
	s = b.held(admission("l", earmark.Amounts{"usd_micros": 0}, "acme"))
	b.due(s.ID)
	require.Equal(t, earmark.StateExpired, b.expire(s).Reservation.State)
	b.held(admission("m", earmark.Amounts{"usd_micros": 100}, "acme"))
	b.held(admission("n", earmark.Amounts{"usd_micros": 0}, "acme"))
}

// A batch leaves usage beyond the reserved amount to its caller: a policy needs locks that come
// before those that the batch has taken.
func TestCommitBatchLeavesOverageAlone(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 100, overage(earmark.OverageAllowIfAvailable))
	over, within := b.held(admission("over", tokens(10), "acme")), b.held(admission("within", tokens(10), "acme"))
	call := func(s earmark.Transition, used int64) map[string]any {
		return map[string]any{"tenant": s.Tenant, "id": s.ID, "usage": tokens(used), "actor": "workflow", "reason": ""}
	}
	results := b.together("SELECT earmark.commit_batch($1)", []map[string]any{call(over, 11), call(within, 10)})
	require.Len(t, results, 2)
	require.Nil(t, results[0])
	require.Equal(t, earmark.OutcomeApplied, results[1].Outcome)
	b.requireBalance(budget.ID, 10, 10)
}
