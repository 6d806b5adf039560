package postgres_test

import (
	"math"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
)

func (b *env) override(budgetID, key string, r earmark.OverrideRequest) *earmark.Override {
	b.t.Helper()
	r.Reason = "a launch"
	require.NoError(b.t, r.Validate())
	override, err := b.CreateOverride(ctx(), earmark.DefaultTenant, budgetID, key, r, earmark.ActorAPI)
	require.NoError(b.t, err)
	return override
}

// onClock is a ledger whose clock only the test moves.
func onClock(t *testing.T) (*env, *pgxpool.Pool) {
	t.Helper()
	t.Parallel()
	pool := timedPool(t)
	return &env{Ledger: postgres.New(asApp(t, pool)), owner: postgres.New(pool), t: t, pool: pool}, pool
}

func (b *env) balance(budgetID string) earmark.Balance {
	b.t.Helper()
	budget, err := b.Budget(ctx(), earmark.DefaultTenant, budgetID)
	require.NoError(b.t, err)
	return budget.Balance
}

func TestOverrideIsOnTopOfTheLimit(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 100)
	require.Equal(t, earmark.OutcomeDenied, b.reserve(admission("a", tokens(150), "acme")).Outcome)
	raise := b.override(budget.ID, "raise", earmark.OverrideRequest{Amount: 50})
	require.EqualValues(t, 150, b.balance(budget.ID).EffectiveLimit)
	require.EqualValues(t, 150, b.balance(budget.ID).Available)
	require.EqualValues(t, 100, b.balance(budget.ID).Limit, "the limit itself stays")

	decision, err := b.Decide(ctx(), earmark.DefaultTenant, admission("a", tokens(150), "acme").Request)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, decision.Outcome)
	held := b.held(admission("a", tokens(150), "acme"))
	denied := b.reserve(admission("b", tokens(1), "acme"))
	require.EqualValues(t, 150, denied.Decision.Violations[0].Limit)

	ended, err := b.EndOverride(ctx(), earmark.DefaultTenant, budget.ID, raise.ID, earmark.ActorAPI, "over")
	require.NoError(t, err)
	require.NotNil(t, ended.EndedAt)
	require.EqualValues(t, -50, b.balance(budget.ID).Available, "nothing is taken back")
	again, err := b.EndOverride(ctx(), earmark.DefaultTenant, budget.ID, raise.ID, earmark.ActorAPI, "over")
	require.NoError(t, err)
	require.Equal(t, ended, again)
	require.Equal(t, earmark.OutcomeApplied, b.commit(held, tokens(150)).Outcome)
}

// A cut may leave less than is used; then nothing is admitted, and what is held settles.
func TestCutBelowWhatIsUsed(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 100)
	held := b.held(admission("a", tokens(80), "acme"))
	b.override(budget.ID, "cut", earmark.OverrideRequest{Amount: -math.MaxInt64})
	require.Zero(t, b.balance(budget.ID).EffectiveLimit, "a limit is never below 0")
	preflight, err := b.Preflight(ctx(), admission("b", tokens(1), "acme"))
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeDenied, preflight.Outcome)
	require.Equal(t, earmark.OutcomeDenied, b.reserve(admission("b", tokens(1), "acme")).Outcome)
	require.Equal(t, earmark.OutcomeApplied, b.commit(held, tokens(80)).Outcome)
	b.override(budget.ID, "raise", earmark.OverrideRequest{Amount: math.MaxInt64})
	require.EqualValues(t, 100, b.balance(budget.ID).EffectiveLimit, "cuts and raises add up before the limit is bounded")
}

func TestOverrideAppliesOnce(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 100)
	r := earmark.OverrideRequest{Amount: 50, Reason: "a launch"}
	calls := make([]func() (*earmark.Override, error), 6)
	for i := range calls {
		calls[i] = func() (*earmark.Override, error) {
			return b.CreateOverride(ctx(), earmark.DefaultTenant, budget.ID, "raise", r, earmark.ActorAPI)
		}
	}
	made := 0
	for _, override := range atOnce(t, calls...) {
		if !override.Replayed {
			made++
		}
	}
	require.Equal(t, 1, made)
	require.EqualValues(t, 150, b.balance(budget.ID).EffectiveLimit)
	r.Amount = 51
	_, err := b.CreateOverride(ctx(), earmark.DefaultTenant, budget.ID, "raise", r, earmark.ActorAPI)
	require.Equal(t, earmark.CodeIdempotencyMismatch, earmark.ErrorCode(err))
}

// A call is decided by the limit of its own moment. If an override begins while it waits, its denial says that asking again helps at once.
func TestOverrideThatBeginsWhileACallWaits(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 100)
	create := func(key string, amount int64) func(pgx.Tx) error {
		return func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx(), "SELECT earmark.create_override($1, 'default', $2, '', 'manual', $3, NULL, NULL, NULL, 'api', 'a launch')", key, budget.ID, amount)
			return err
		}
	}
	const lock = "SELECT FROM earmark.budgets WHERE id = $1 FOR UPDATE"
	var denied earmark.Result
	require.True(t, b.duringTx(lock, []any{budget.ID}, func() { denied = b.reserve(admission("k", tokens(150), "acme")) }, create("raise", 50)))
	require.Equal(t, earmark.OutcomeDenied, denied.Outcome)
	require.EqualValues(t, 100, denied.Decision.Violations[0].Limit)
	require.True(t, denied.Decision.Retryable)
	require.False(t, denied.Decision.RetryAt.After(b.clock()))

	held := b.held(admission("l", tokens(150), "acme"))
	require.True(t, b.duringTx(lock, []any{budget.ID}, func() { denied = b.reserve(admission("m", tokens(150), "acme")) }, create("cut", -50)))
	require.EqualValues(t, 150, denied.Decision.Violations[0].Limit)
	require.False(t, denied.Decision.Retryable, "the end of the hold gives back less than that now")
	b.release(held)
}

func TestOverrideEnds(t *testing.T) {
	b, pool := onClock(t)
	at := time.Date(2026, 1, 31, 23, 0, 0, 0, time.UTC)
	setClock(t, pool, at)
	budget := b.budget("acme", "tokens", 100, period(earmark.PeriodDay))
	b.override(budget.ID, "tomorrow", earmark.OverrideRequest{Amount: 10, EffectiveAt: new(at.Add(2 * time.Hour)), ExpiresAt: new(at.Add(3 * time.Hour))})
	two := b.override(budget.ID, "two windows", earmark.OverrideRequest{Amount: 7, Windows: new(int64(2))})
	require.Equal(t, time.Date(2026, 2, 2, 0, 0, 0, 0, time.UTC), two.ExpiresAt.UTC())
	for _, step := range []struct {
		at    time.Duration
		limit int64
	}{
		{0, 107}, {2*time.Hour - time.Microsecond, 107}, {2 * time.Hour, 117}, {3*time.Hour - time.Microsecond, 117}, {3 * time.Hour, 107},
		{25*time.Hour - time.Microsecond, 107}, {25 * time.Hour, 100},
	} {
		setClock(t, pool, at.Add(step.at))
		require.Equal(t, step.limit, b.balance(budget.ID).EffectiveLimit, "%s", step.at)
		require.Equal(t, earmark.OutcomeDenied, b.reserve(admission("x", tokens(step.limit+1), "acme")).Outcome, "%s", step.at)
	}
	for field, r := range map[string]earmark.OverrideRequest{
		"expires_at":   {Amount: 1, ExpiresAt: new(at.Add(25 * time.Hour)), Reason: "past"},
		"effective_at": {Amount: 1, EffectiveAt: new(at.Add(-48 * time.Hour)), Windows: new(int64(2)), Reason: "past"},
	} {
		_, err := b.CreateOverride(ctx(), earmark.DefaultTenant, budget.ID, field, r, earmark.ActorAPI)
		var refused *earmark.Error
		require.ErrorAs(t, err, &refused)
		require.Equal(t, field, refused.Field)
	}
	lifetime := b.budget("acme", "tokens", 100)
	_, err := b.CreateOverride(ctx(), earmark.DefaultTenant, lifetime.ID, "k", earmark.OverrideRequest{Amount: 1, Windows: new(int64(1)), Reason: "r"}, earmark.ActorAPI)
	var refused *earmark.Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "windows", refused.Field)
}

// A window that has ended keeps what was in force at its end: usage beyond the reserved amount finds the same room.
func TestEndedWindowKeepsItsOverrides(t *testing.T) {
	b, pool := onClock(t)
	at := time.Date(2026, 1, 31, 23, 0, 0, 0, time.UTC)
	setClock(t, pool, at)
	budget := b.budget("acme", "tokens", 100, period(earmark.PeriodDay), overage(earmark.OverageAllowIfAvailable))
	b.override(budget.ID, "today", earmark.OverrideRequest{Amount: 50, Windows: new(int64(1))})
	a := admission("a", tokens(100), "acme")
	a.Request.TTLSeconds = 86400
	held := b.held(a)
	setClock(t, pool, at.Add(2*time.Hour))
	result := b.commit(held, tokens(170))
	require.Equal(t, tokens(20), result.Reservation.Shortfall)
	require.EqualValues(t, 150, result.Reservation.Budgets[0].Committed)
}

func TestResetGivesTheWholeLimitAgain(t *testing.T) {
	b, pool := onClock(t)
	at := time.Date(2026, 1, 31, 23, 0, 0, 0, time.UTC)
	setClock(t, pool, at)
	budget := b.budget("acme", "tokens", 100, period(earmark.PeriodDay))
	reset := func(key string) *earmark.Override {
		override, err := b.ResetBudget(ctx(), earmark.DefaultTenant, budget.ID, key, earmark.ReasonRequest{Reason: "an outage"}, earmark.ActorAPI)
		require.NoError(t, err)
		return override
	}
	b.commit(b.held(admission("a", tokens(60), "acme")), tokens(60))
	b.held(admission("b", tokens(30), "acme"))
	require.EqualValues(t, 60, reset("1").Amount)
	require.EqualValues(t, 70, b.balance(budget.ID).Available, "what is reserved stays reserved")
	require.True(t, reset("1").Replayed)
	b.commit(b.held(admission("c", tokens(70), "acme")), tokens(50))
	require.EqualValues(t, 50, reset("2").Amount, "an earlier reset made up for the rest")
	require.EqualValues(t, 70, b.balance(budget.ID).Available)
	require.EqualValues(t, 0, reset("3").Amount)
	b.requireBalance(budget.ID, 30, 110)
	setClock(t, pool, at.Add(time.Hour))
	require.EqualValues(t, 100, b.balance(budget.ID).EffectiveLimit, "it ends with the window")
}

// An override that waits for a lock past the end of its window is made in the window after it.
func TestOverrideIsMadeUnderItsLocks(t *testing.T) {
	end := time.Date(2026, 3, 4, 11, 0, 0, 0, time.UTC)
	before, after := end.Add(-time.Second), end.Add(time.Second)
	b, pool := onClock(t)
	for name, c := range map[string]struct {
		lock string
		made func(budgetID, key string) (*earmark.Override, error)
	}{
		"create": {"SELECT FROM earmark.budgets FOR UPDATE", func(budgetID, key string) (*earmark.Override, error) {
			r := earmark.OverrideRequest{Amount: 1, Windows: new(int64(1)), Reason: "a launch"}
			return b.CreateOverride(ctx(), earmark.DefaultTenant, budgetID, key, r, earmark.ActorAPI)
		}},
		"reset": {"SELECT FROM earmark.budgets FOR UPDATE", func(budgetID, key string) (*earmark.Override, error) {
			return b.ResetBudget(ctx(), earmark.DefaultTenant, budgetID, key, earmark.ReasonRequest{Reason: "an outage"}, earmark.ActorAPI)
		}},
		"reset-of-a-window-in-use": {"SELECT FROM earmark.windows FOR UPDATE", func(budgetID, key string) (*earmark.Override, error) {
			return b.ResetBudget(ctx(), earmark.DefaultTenant, budgetID, key, earmark.ReasonRequest{Reason: "an outage"}, earmark.ActorAPI)
		}},
	} {
		setClock(t, pool, before)
		budget := b.budget(name, "tokens", 100, period(earmark.PeriodHour))
		b.commit(b.held(admission(name, tokens(60), name)), tokens(60))
		var override *earmark.Override
		var err error
		waited := b.duringTx(c.lock, nil, func() { override, err = c.made(budget.ID, name) }, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx(), "UPDATE test.clock SET at = $1", after)
			return err
		})
		require.True(t, waited, name)
		require.NoError(t, err, name)
		require.Equal(t, after, override.EffectiveAt.UTC(), name)
		require.Equal(t, after, override.CreatedAt.UTC(), name)
		require.Equal(t, end.Add(time.Hour), override.ExpiresAt.UTC(), name)
		if override.Source == "reset" {
			require.Zero(t, override.Amount, "nothing is committed in the window after it: %s", name)
		}
	}

	// An end that passes meanwhile is refused, and nothing is written.
	setClock(t, pool, before)
	budget := b.budget("past", "tokens", 100)
	var err error
	waited := b.duringTx("SELECT FROM earmark.budgets FOR UPDATE", nil, func() {
		_, err = b.CreateOverride(ctx(), earmark.DefaultTenant, budget.ID, "past", earmark.OverrideRequest{Amount: 1, ExpiresAt: &end, Reason: "r"}, earmark.ActorAPI)
	}, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx(), "UPDATE test.clock SET at = $1", after)
		return err
	})
	require.True(t, waited)
	var refused *earmark.Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "expires_at", refused.Field)
}
