package postgres_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
)

// atNoon is a ledger whose clock stands at a quarter past twelve until setClock.
func atNoon(t *testing.T) (b *env, now time.Time) {
	t.Helper()
	t.Parallel()
	pool := timedPool(t)
	now = time.Date(2026, 5, 20, 12, 15, 0, 0, time.UTC)
	setClock(t, pool, now)
	return &env{Ledger: postgres.New(pool), owner: postgres.New(pool), t: t, pool: pool}, now
}

func period(p earmark.Period) func(*earmark.BudgetRequest) {
	return func(r *earmark.BudgetRequest) { r.Window.Period = p }
}

// leased is an admission with a lease and an expiry policy of its own.
func leased(key string, amounts earmark.Amounts, ttl time.Duration, policy earmark.OnExpiry, scopes ...string) earmark.Admission {
	a := admission(key, amounts, scopes...)
	a.Request.TTLSeconds, a.Request.OnExpiry = int64(ttl/time.Second), policy
	a.RequestHash = a.Request.Hash()
	return a
}

// TestADenialSaysWhenToAskAgain has a request of 500 tokens on acme/ml denied in each case, and
// compares what a decision, the read before an admission and an admission say. The budget on
// acme/ml has 1,000 tokens.
func TestADenialSaysWhenToAskAgain(t *testing.T) {
	t.Parallel()
	const week = 7 * 24 * time.Hour
	hour, month := time.Date(2026, 5, 20, 13, 0, 0, 0, time.UTC), time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name   string
		period earmark.Period
		before func(b *env)
		passes time.Duration // since then
		want   func(now time.Time) time.Time
	}{
		{"a short hold", earmark.PeriodHour, func(b *env) {
			b.held(leased("a", tokens(900), time.Minute, earmark.OnExpiryRelease, "acme/ml"))
		}, 0, func(now time.Time) time.Time { return now.Add(time.Minute) }},
		{"a hold that is longer than the window", earmark.PeriodHour, func(b *env) {
			b.held(leased("a", tokens(900), week, earmark.OnExpiryRelease, "acme/ml"))
		}, 0, func(time.Time) time.Time { return hour }},
		{"a long hold, and no window's end", earmark.PeriodLifetime, func(b *env) {
			b.held(leased("a", tokens(900), week, earmark.OnExpiryRelease, "acme/ml"))
		}, 0, func(now time.Time) time.Time { return now.Add(week) }},
		{"the first of several holds", earmark.PeriodHour, func(b *env) {
			b.held(leased("a", tokens(300), 3*time.Minute, earmark.OnExpiryRelease, "acme/ml"))
			b.held(leased("b", tokens(300), 2*time.Minute, earmark.OnExpiryCommit, "acme/ml"))
			b.held(leased("c", tokens(300), 4*time.Minute, earmark.OnExpiryReview, "acme/ml"))
		}, 0, func(now time.Time) time.Time { return now.Add(2 * time.Minute) }},
		{"a hold that was settled", earmark.PeriodHour, func(b *env) {
			b.release(b.held(leased("a", tokens(100), time.Minute, earmark.OnExpiryCommit, "acme/ml")))
			b.commit(b.held(leased("b", tokens(100), time.Minute, earmark.OnExpiryRelease, "acme/ml")), tokens(1))
			b.held(leased("c", tokens(900), 3*time.Minute, earmark.OnExpiryRelease, "acme/ml"))
		}, 0, func(now time.Time) time.Time { return now.Add(3 * time.Minute) }},
		{"a hold that was extended", earmark.PeriodHour, func(b *env) {
			extended := b.held(leased("a", tokens(900), time.Minute, earmark.OnExpiryCommit, "acme/ml"))
			_, err := b.Extend(ctx(), extended, 5*time.Minute)
			require.NoError(b.t, err)
		}, 0, func(now time.Time) time.Time { return now.Add(5 * time.Minute) }},
		{"a hold of nothing", earmark.PeriodHour, func(b *env) {
			b.held(leased("a", tokens(0), time.Minute, earmark.OnExpiryRelease, "acme/ml"))
			b.held(leased("b", tokens(900), 2*time.Minute, earmark.OnExpiryRelease, "acme/ml"))
		}, 0, func(now time.Time) time.Time { return now.Add(2 * time.Minute) }},
		{"a hold that is charged on expiry", earmark.PeriodLifetime, func(b *env) {
			b.held(leased("a", tokens(900), time.Minute, earmark.OnExpiryCommit, "acme/ml"))
		}, 0, func(now time.Time) time.Time { return now.Add(time.Minute) }},
		{"a hold that is about to be charged", earmark.PeriodLifetime, func(b *env) {
			b.held(leased("a", tokens(900), time.Minute, earmark.OnExpiryCommit, "acme/ml"))
		}, 2 * time.Minute, func(now time.Time) time.Time { return now }},
		{"an overdue hold beside another", earmark.PeriodLifetime, func(b *env) {
			b.held(leased("a", tokens(100), time.Minute, earmark.OnExpiryRelease, "acme/ml"))
			b.held(leased("b", tokens(900), time.Hour, earmark.OnExpiryRelease, "acme/ml"))
		}, 2 * time.Minute, func(now time.Time) time.Time { return now.Add(58 * time.Minute) }},
		{"a review", earmark.PeriodHour, func(b *env) { b.reviewed(tokens(900)) }, 0, func(time.Time) time.Time { return hour }},
		{"a review, and no window's end", earmark.PeriodLifetime, func(b *env) { b.reviewed(tokens(900)) }, 0, nil},
		{"it is spent", earmark.PeriodMonth, func(b *env) {
			b.commit(b.held(admission("a", tokens(600), "acme/ml")), tokens(600))
			b.held(leased("b", tokens(300), time.Minute, earmark.OnExpiryRelease, "acme/ml"))
		}, 0, func(time.Time) time.Time { return month }},
		{"it is spent, and no window's end", earmark.PeriodLifetime, func(b *env) {
			b.commit(b.held(admission("a", tokens(600), "acme/ml")), tokens(600))
			b.held(leased("b", tokens(300), time.Minute, earmark.OnExpiryRelease, "acme/ml"))
		}, 0, nil},
		{"more than the limit", earmark.PeriodHour, func(b *env) {
			b.budget("acme", "tokens", 499, period(earmark.PeriodHour))
		}, 0, nil},
		{"two budgets, a hold in one", earmark.PeriodLifetime, func(b *env) {
			b.budget("acme", "tokens", 1000, period(earmark.PeriodHour))
			b.held(leased("a", tokens(900), time.Minute, earmark.OnExpiryRelease, "acme"))
		}, 0, func(now time.Time) time.Time { return now.Add(time.Minute) }},
		{"two budgets, holds in both", earmark.PeriodLifetime, func(b *env) {
			b.budget("acme", "tokens", 1000, period(earmark.PeriodHour))
			b.held(leased("a", tokens(100), time.Minute, earmark.OnExpiryRelease, "acme"))
			b.held(leased("b", tokens(900), 2*time.Minute, earmark.OnExpiryRelease, "acme/ml"))
		}, 0, func(now time.Time) time.Time { return now.Add(2 * time.Minute) }},
		{"two budgets, of which nothing helps one", earmark.PeriodHour, func(b *env) {
			b.budget("acme", "tokens", 1000, period(earmark.PeriodLifetime))
			b.commit(b.held(admission("a", tokens(900), "acme/ml")), tokens(900))
		}, 0, nil},
		{"a cut that ends before the window", earmark.PeriodDay, func(b *env) { b.overridden(-900, 0, 10*time.Minute) }, 0,
			func(now time.Time) time.Time { return now.Add(10 * time.Minute) }},
		{"a cut that ends, and no window's end", earmark.PeriodLifetime, func(b *env) { b.overridden(-900, 0, 10*time.Minute) }, 0,
			func(now time.Time) time.Time { return now.Add(10 * time.Minute) }},
		{"a cut for good", earmark.PeriodHour, func(b *env) { b.overridden(-900, 0, 0) }, 0, nil},
		{"a cut of two windows", earmark.PeriodHour, func(b *env) { b.overridden(-900, 0, 105*time.Minute) }, 0,
			func(time.Time) time.Time { return hour.Add(time.Hour) }},
		{"a cut that begins with the next window", earmark.PeriodHour, func(b *env) {
			b.commit(b.held(admission("a", tokens(600), "acme/ml")), tokens(600))
			b.overridden(-900, 45*time.Minute, 105*time.Minute)
		}, 0, func(time.Time) time.Time { return hour.Add(time.Hour) }},
		{"a cut that begins before the first lease ends", earmark.PeriodHour, func(b *env) {
			b.held(leased("a", tokens(900), 20*time.Minute, earmark.OnExpiryRelease, "acme/ml"))
			b.overridden(-900, 10*time.Minute, 30*time.Minute)
		}, 0, func(now time.Time) time.Time { return now.Add(30 * time.Minute) }},
		{"a raise that begins", earmark.PeriodLifetime, func(b *env) {
			b.commit(b.held(admission("a", tokens(600), "acme/ml")), tokens(600))
			b.overridden(100, 10*time.Minute, 0)
		}, 0, func(now time.Time) time.Time { return now.Add(10 * time.Minute) }},
		{"a raise that ends before the window", earmark.PeriodHour, func(b *env) {
			_, err := b.patch(b.onML(), earmark.BudgetPatch{Limit: new(int64(100))})
			require.NoError(b.t, err)
			b.overridden(900, 0, 10*time.Minute)
			b.commit(b.held(admission("a", tokens(600), "acme/ml")), tokens(600))
		}, 0, nil},
		{"a cut below 0 that ends", earmark.PeriodLifetime, func(b *env) { b.overridden(-9000, 0, 10*time.Minute) }, 0,
			func(now time.Time) time.Time { return now.Add(10 * time.Minute) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, now := atNoon(t)
			b.budget("acme/ml", "tokens", 1000, period(test.period))
			test.before(b)
			now = now.Add(test.passes)
			setClock(t, b.pool, now)
			asked := admission("asked", tokens(500), "acme/ml")

			decision, err := b.Decide(ctx(), earmark.DefaultTenant, asked.Request)
			require.NoError(t, err)
			preflight, err := b.Preflight(ctx(), asked)
			require.NoError(t, err)
			for source, result := range map[string]earmark.Result{"decision": decision, "preflight": preflight.Result, "admission": b.reserve(asked)} {
				require.Equal(t, earmark.OutcomeDenied, result.Outcome, source)
				require.Equal(t, test.want != nil, result.Decision.Retryable, source)
				if test.want == nil {
					require.Nil(t, result.Decision.RetryAt, source)
					continue
				}
				require.NotNil(t, result.Decision.RetryAt, source)
				require.Equal(t, test.want(now), result.Decision.RetryAt.UTC(), source)
			}
		})
	}
}

// onML is the id of the budget on acme/ml.
func (b *env) onML() (id string) {
	b.t.Helper()
	require.NoError(b.t, b.pool.QueryRow(ctx(), "SELECT id FROM earmark.budgets WHERE scope = 'acme/ml'").Scan(&id))
	return id
}

// clock is Postgres' time.
func (b *env) clock() (now time.Time) {
	b.t.Helper()
	require.NoError(b.t, b.pool.QueryRow(ctx(), "SELECT clock_timestamp()").Scan(&now))
	return now
}

// overridden overrides the budget on acme/ml from and until some time after now; 0 is now and never.
func (b *env) overridden(amount int64, from, until time.Duration) {
	b.t.Helper()
	now := b.clock()
	r := earmark.OverrideRequest{Amount: amount, EffectiveAt: new(now.Add(from))}
	if until > 0 {
		r.ExpiresAt = new(now.Add(until))
	}
	b.override(b.onML(), "override", r)
}

// reviewed leaves a reservation in review.
func (b *env) reviewed(amounts earmark.Amounts) {
	b.t.Helper()
	var now time.Time
	require.NoError(b.t, b.pool.QueryRow(ctx(), "SELECT at FROM test.clock").Scan(&now))
	s := b.held(leased("review", amounts, time.Second, earmark.OnExpiryReview, "acme/ml"))
	setClock(b.t, b.pool, now.Add(2*time.Second))
	require.Equal(b.t, earmark.StateReview, b.expire(s).Reservation.State)
	setClock(b.t, b.pool, now)
}

// TestADenialBesideManyOverdueHolds has more of them than one admission expires.
func TestADenialBesideManyOverdueHolds(t *testing.T) {
	b, now := atNoon(t)
	const holds = 101
	b.budget("acme", "tokens", holds)
	for i := range holds {
		b.held(leased(fmt.Sprint(i), tokens(1), time.Second, earmark.OnExpiryRelease, "acme"))
	}
	now = now.Add(time.Minute)
	setClock(t, b.pool, now)
	asked := admission("asked", tokens(holds), "acme")
	decision, err := b.Decide(ctx(), earmark.DefaultTenant, asked.Request)
	require.NoError(t, err)
	for source, result := range map[string]earmark.Result{"decision": decision, "admission": b.reserve(asked)} {
		require.Equal(t, earmark.OutcomeDenied, result.Outcome, source)
		require.True(t, result.Decision.Retryable, source)
		require.Equal(t, now, result.Decision.RetryAt.UTC(), source)
	}
	b.held(asked)
}

// TestADenialReadsFewHolds counts the rows that Postgres reads for a denial in a budget with
// many holds, before the tables have statistics and after.
func TestADenialReadsFewHolds(t *testing.T) {
	b := setup(t)
	const holds = 50_000
	budget := b.budget("acme", "tokens", holds)
	b.seed(seeding{budgetID: budget.ID, held: holds, overdue: -time.Hour, apart: time.Millisecond})
	_, err := b.pool.Exec(ctx(), "UPDATE earmark.reservations SET on_expiry = 'commit' WHERE right(id, 1) IN ('1', '3', '5', '7', '9')")
	require.NoError(t, err)
	const (
		decide  = "SELECT earmark.decide('default', '{acme}', '{\"tokens\": 1}') ->> 'outcome'"
		reserve = "SELECT earmark.reserve('rsv_denied', 'default', '', '{acme}', '{\"tokens\": 1}', 1000, 'release', '{}', '', NULL, false, 'api') ->> 'outcome'"
		rows    = "SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relid = 'earmark.reservation_budgets'::regclass"
	)
	for _, statistics := range []string{"DELETE FROM pg_statistic", "ANALYZE"} {
		_, err := b.pool.Exec(ctx(), statistics)
		require.NoError(t, err)
		for name, call := range map[string]string{"decision": decide, "admission": reserve} {
			const times = 12 // more than the executions after which Postgres considers a generic plan
			for range times {
				var outcome string
				var before, after [2]int64 // the view also counts what the session did shortly before
				require.NoError(t, pgx.BeginFunc(ctx(), b.pool, func(tx pgx.Tx) error {
					return errors.Join(
						tx.QueryRow(ctx(), rows).Scan(&before[0], &before[1]),
						tx.QueryRow(ctx(), call).Scan(&outcome),
						tx.QueryRow(ctx(), rows).Scan(&after[0], &after[1]))
				}))
				require.Equal(t, "denied", outcome, name)
				require.Equal(t, before[0], after[0], "rows of a scan: %s", name)
				const most = 4 // the first of each kind, and those of a decision twice
				require.LessOrEqual(t, after[1]-before[1], int64(most), name)
			}
		}
	}
}
