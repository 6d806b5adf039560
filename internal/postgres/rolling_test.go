package postgres_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
)

// rolling gives a budget a rolling window of five hours, whose slices have five minutes.
func rolling(r *earmark.BudgetRequest) {
	r.Window = earmark.Window{Period: earmark.PeriodRolling, RollingSeconds: 5 * 60 * 60}
}

func rollingEnv(t *testing.T, at time.Time) *env {
	t.Helper()
	pool := timedPool(t)
	setClock(t, pool, at)
	return &env{Ledger: postgres.New(pool), owner: postgres.New(pool), t: t, pool: pool}
}

// An amount counts for five hours at least, and for five hours and five minutes at most.
func TestRollingWindow(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)
	b := rollingEnv(t, start.Add(2*time.Minute))
	budget := b.budget("acme", "tokens", 100, rolling)
	require.Equal(t, earmark.Window{Period: earmark.PeriodRolling, Timezone: "UTC", RollingSeconds: 18000}, budget.Window)
	first := b.held(admission("first", tokens(60), "acme"))
	require.Equal(t, earmark.OutcomeApplied, b.commit(first, tokens(60)).Outcome)
	setClock(t, b.pool, start.Add(time.Hour))
	second := b.held(admission("second", tokens(40), "acme"))
	require.Equal(t, earmark.OutcomeApplied, b.commit(second, tokens(30)).Outcome)

	firstOut, secondOut := start.Add(5*time.Hour+5*time.Minute), start.Add(6*time.Hour+5*time.Minute)
	for _, c := range []struct {
		at        time.Time
		committed int64
		requested int64
		retryAt   *time.Time
	}{
		{start.Add(time.Hour), 90, 11, &firstOut},
		{start.Add(time.Hour), 90, 70, &firstOut},
		{start.Add(time.Hour), 90, 71, &secondOut},
		{start.Add(time.Hour), 90, 100, &secondOut},
		{start.Add(time.Hour), 90, 101, nil},
		{firstOut.Add(-time.Microsecond), 90, 11, &firstOut},
		{firstOut, 30, 71, &secondOut},
		{secondOut.Add(-time.Microsecond), 30, 71, &secondOut},
	} {
		setClock(t, b.pool, c.at)
		for what, decide := range map[string]func(earmark.Admission) *earmark.Decision{
			"decide": func(a earmark.Admission) *earmark.Decision {
				result, err := b.Decide(ctx(), a.Tenant, a.Request)
				require.NoError(t, err)
				require.Equal(t, earmark.OutcomeDenied, result.Outcome)
				return result.Decision
			},
			"reserve": func(a earmark.Admission) *earmark.Decision {
				result := b.reserve(a)
				require.Equal(t, earmark.OutcomeDenied, result.Outcome)
				return result.Decision
			},
			"preflight": func(a earmark.Admission) *earmark.Decision {
				preflight, err := b.Preflight(ctx(), a)
				require.NoError(t, err)
				require.Equal(t, earmark.OutcomeDenied, preflight.Outcome)
				return preflight.Decision
			},
		} {
			decision := decide(admission("third", tokens(c.requested), "acme"))
			require.Equal(t, stampOf(c.retryAt), stampOf(decision.RetryAt), "%s of %d at %s", what, c.requested, c.at)
			require.Equal(t, c.retryAt != nil, decision.Retryable)
			require.Equal(t, []earmark.Violation{{BudgetID: budget.ID, Scope: "acme", Unit: "tokens", Limit: 100, Committed: c.committed,
				Available: 100 - c.committed, Requested: c.requested}}, decision.Violations, what)
		}
		shown, err := b.Budget(ctx(), earmark.DefaultTenant, budget.ID)
		require.NoError(t, err)
		slice := c.at.Truncate(5 * time.Minute)
		require.Equal(t, earmark.Balance{Limit: 100, EffectiveLimit: 100, Committed: c.committed, Available: 100 - c.committed,
			WindowStart: slice.Add(-5 * time.Hour), WindowEnd: new(slice.Add(5 * time.Minute))}, shown.Balance)
	}
	setClock(t, b.pool, firstOut)
	b.held(admission("third", tokens(70), "acme"))
	setClock(t, b.pool, secondOut)
	require.Equal(t, earmark.OutcomeApplied, b.reserve(admission("fourth", tokens(30), "acme")).Outcome)
	report, err := b.CheckRules(ctx())
	require.NoError(t, err)
	require.Empty(t, report.Mismatches())
}

// An admission whose moment is in one slice counts what others admitted in the next one while
// it waited.
func TestRollingWindowCountsLaterSlices(t *testing.T) {
	t.Parallel()
	end := time.Date(2026, 3, 4, 10, 5, 0, 0, time.UTC)
	b := rollingEnv(t, end.Add(-time.Second))
	b.budget("acme", "tokens", 100, rolling)
	var waited earmark.Result
	require.True(t, b.duringTx("SELECT FROM earmark.budgets FOR NO KEY UPDATE", nil, func() { waited = b.reserve(admission("first", tokens(60), "acme")) },
		func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx(), "UPDATE test.clock SET at = $1", end.Add(time.Second)); err != nil {
				return err
			}
			_, err := tx.Exec(ctx(), `SELECT earmark.reserve(p_id => 'rsv_second', p_tenant => 'default', p_hash => '', p_scopes => '{acme}', p_amounts => '{"tokens": 60}',
				p_ttl_ms => 60000, p_on_expiry => 'release', p_metadata => '{}', p_workflow_id => '', p_admit_by => NULL, p_released => false, p_actor => 'workflow')`)
			return err
		}))
	require.Equal(t, earmark.OutcomeDenied, waited.Outcome)
	require.Equal(t, int64(60), waited.Decision.Violations[0].Reserved)
}

// Overdue holds in earlier slices make way, and a denial knows when the first lease ends.
func TestRollingWindowHolds(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)
	b := rollingEnv(t, start)
	b.budget("acme", "tokens", 100, rolling)
	held := b.held(admission("held", tokens(100), "acme"))
	lease := start.Add(earmark.DefaultTTL)
	setClock(t, b.pool, lease) // in the next slice
	denied := b.reserve(admission("next", tokens(100), "acme"))
	require.Equal(t, earmark.OutcomeDenied, denied.Outcome)
	require.Equal(t, stampOf(&lease), stampOf(denied.Decision.RetryAt))
	setClock(t, b.pool, lease.Add(time.Microsecond))
	decided, err := b.Decide(ctx(), earmark.DefaultTenant, admission("next", tokens(100), "acme").Request)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, decided.Outcome)
	require.Equal(t, earmark.OutcomeApplied, b.reserve(admission("next", tokens(100), "acme")).Outcome)
	expired, err := b.Reservation(ctx(), earmark.DefaultTenant, held.ID)
	require.NoError(t, err)
	require.Equal(t, earmark.StateExpired, expired.State)
}

// Usage over the reserved amount is charged as far as the whole rolling window has room.
func TestRollingWindowOverage(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)
	b := rollingEnv(t, start)
	b.budget("acme", "tokens", 100, rolling, func(r *earmark.BudgetRequest) { r.Overage = earmark.OverageAllowIfAvailable })
	first := b.held(admission("first", tokens(10), "acme"))
	setClock(t, b.pool, start.Add(5*time.Minute-time.Second))
	b.held(admission("second", tokens(20), "acme"))
	setClock(t, b.pool, start.Add(5*time.Minute-time.Second))
	_, err := b.Extend(ctx(), first, time.Hour)
	require.NoError(t, err)
	setClock(t, b.pool, start.Add(10*time.Minute))
	b.held(admission("third", tokens(60), "acme"))
	committed := b.commit(first, tokens(50)).Reservation
	require.Equal(t, earmark.Amounts{"tokens": 30}, committed.Shortfall, "10 were reserved, and 10 had room")
	require.Equal(t, int64(20), committed.Budgets[0].Committed)
}

// A scope may have rolling windows of several lengths, and one of each.
func TestRollingWindowsOfAScope(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 100, rolling)
	b.budget("acme", "tokens", 900, func(r *earmark.BudgetRequest) {
		r.Window = earmark.Window{Period: earmark.PeriodRolling, RollingSeconds: 7 * 24 * 60 * 60}
	})
	request := earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: new(int64(5))}.WithDefaults()
	rolling(&request)
	_, err := b.CreateBudget(ctx(), earmark.DefaultTenant, request.WithDefaults(), earmark.ActorAPI)
	require.Equal(t, earmark.CodeBudgetExists, earmark.ErrorCode(err))
	require.ErrorContains(t, err, "rolling 5h")
}

func TestRollingWindowHasNoThresholds(t *testing.T) {
	b := setup(t)
	half := []earmark.Threshold{{Percent: 50, Of: earmark.ThresholdOfUsed}}
	request := earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: new(int64(5)), Thresholds: half}
	rolling(&request)
	var refused *earmark.Error
	require.ErrorAs(t, request.WithDefaults().Validate(), &refused)
	require.Equal(t, "thresholds", refused.Field)
	budget := b.budget("acme", "tokens", 100, rolling)
	_, err := b.PatchBudget(ctx(), earmark.DefaultTenant, budget.ID, earmark.BudgetPatch{Thresholds: &half}, earmark.ActorAPI)
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "thresholds", refused.Field)
	_, err = b.PatchBudget(ctx(), earmark.DefaultTenant, budget.ID, earmark.BudgetPatch{Limit: new(int64(7)), Thresholds: &[]earmark.Threshold{}}, earmark.ActorAPI)
	require.NoError(t, err)
}
