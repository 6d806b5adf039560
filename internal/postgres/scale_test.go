package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
)

// seeding says what seed writes: reservations of one token each on one budget,
// whose window is its lifetime.
type seeding struct {
	budgetID string
	settled  int           // made and committed 100 days ago and later, a second apart
	held     int           // still held
	overdue  time.Duration // how long ago the first of the held expired; negative: how long until
	apart    time.Duration // between the expiries of two
}

// seed writes straight into the tables, as fast as Postgres can: what a ledger
// would have by then.
func (b *env) seed(s seeding) {
	b.t.Helper()
	_, err := b.pool.Exec(ctx(), fmt.Sprintf(`
		SET session_replication_role = replica; -- without the checks of foreign keys
		INSERT INTO earmark.windows (budget_id, window_start, reserved, committed) VALUES ('%[1]s', 'epoch', %[3]d, %[2]d);
		INSERT INTO earmark.reservations (id, tenant, state, request_hash, scopes, amounts, usage, on_expiry, workflow_id, created_at, expires_at, settled_at, checked_at)
		SELECT id, 'default', CASE WHEN held THEN 'held' ELSE 'committed' END, '', '{acme}', '{"tokens": 1}', CASE WHEN NOT held THEN '{"tokens": 1}'::jsonb END, 'release', 'reservation-' || id,
			made, CASE WHEN held THEN now() - %[4]d * interval '1 microsecond' + n * %[5]d * interval '1 microsecond' ELSE made END, CASE WHEN NOT held THEN made END, now() - interval '1 hour'
		FROM (SELECT n, held, '%[1]s_' || held || n AS id, CASE WHEN held THEN now() ELSE now() - interval '100 days' + n * interval '1 second' END AS made
		      FROM (SELECT n, false AS held FROM generate_series(1, %[2]d) AS n UNION ALL SELECT n, true FROM generate_series(1, %[3]d) AS n) AS seeds) AS made;
		INSERT INTO earmark.reservation_budgets (reservation_id, budget_id, window_start, unit, reserved, committed, overdue_at, frees_on_expiry)
		SELECT id, '%[1]s', 'epoch', 'tokens', 1, CASE state WHEN 'held' THEN 0 ELSE 1 END, CASE state WHEN 'held' THEN expires_at END, true FROM earmark.reservations WHERE starts_with(id, '%[1]s');
		INSERT INTO earmark.entries (kind, tenant, reservation_id, budget_id, window_start, reserved_delta, committed_delta, reserved_after, committed_after, actor, reason)
		SELECT kind, 'default', id, '%[1]s', 'epoch', CASE kind WHEN 'reserve' THEN 1 ELSE -1 END, CASE kind WHEN 'reserve' THEN 0 ELSE 1 END,
			CASE WHEN state = 'held' THEN row_number() OVER (PARTITION BY state ORDER BY created_at, id) WHEN kind = 'reserve' THEN 1 ELSE 0 END,
			CASE WHEN state = 'held' THEN %[2]d ELSE row_number() OVER (PARTITION BY state, kind ORDER BY created_at, id) - CASE kind WHEN 'reserve' THEN 1 ELSE 0 END END, 'workflow', ''
		FROM earmark.reservations CROSS JOIN LATERAL (VALUES ('reserve', 1), ('commit', 2)) AS kinds (kind, n)
		WHERE starts_with(id, '%[1]s') AND (state = 'committed' OR kind = 'reserve')
		ORDER BY state, CASE state WHEN 'held' THEN created_at ELSE created_at END, id, n;
		RESET session_replication_role;
		ANALYZE`, s.budgetID, s.settled, s.held, s.overdue.Microseconds(), s.apart.Microseconds()))
	require.NoError(b.t, err)
}

// admitting makes admissions on a scope, one after the other and as often as it
// can, until ctx is done, and returns how long each took.
func (b *env) admitting(until context.Context, scope string) (took []time.Duration, err error) {
	for n := 0; until.Err() == nil; n++ {
		began := time.Now()
		result, err := b.Reserve(ctx(), admission(fmt.Sprintf("%s %d", scope, n), tokens(1), scope))
		if err != nil {
			return nil, err
		}
		if result.Outcome != earmark.OutcomeApplied {
			return nil, fmt.Errorf("%s", result.Outcome)
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}

func p99(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)*99/100]
}

// TestMassExpiryDoesNotStarveAdmissions lets ten thousand holds of one budget
// become due at one second, and sweeps them as the sweeper does while others are
// admitted to the same budget.
func TestMassExpiryDoesNotStarveAdmissions(t *testing.T) {
	b := setup(t)
	const holds, batch = 10_000, 100
	const breath = 20 * time.Millisecond // as worker.Sweeper has them
	budget := b.budget("acme", "tokens", 1_000_000)
	b.seed(seeding{budgetID: budget.ID, held: holds, overdue: time.Minute, apart: time.Microsecond})

	sweeping, done := context.WithCancel(ctx())
	defer done()
	var admissions errgroup.Group
	var took []time.Duration
	admissions.Go(func() (err error) { took, err = b.admitting(sweeping, "acme"); return err })
	began, swept := time.Now(), 0
	for {
		ids, err := b.Sweep(ctx(), 30*time.Second, batch)
		require.NoError(t, err)
		swept += len(ids)
		if len(ids) < batch {
			break
		}
		time.Sleep(breath) //nolint:forbidigo // the pause between two rounds of the sweeper
	}
	elapsed := time.Since(began)
	done()
	require.NoError(t, admissions.Wait())
	require.Equal(t, holds, swept)
	b.requireBalance(budget.ID, int64(len(took)), 0)
	t.Logf("%d expired in %s; meanwhile %d admissions, p99 %s", holds, elapsed, len(took), p99(took))
	require.Less(t, elapsed, 20*time.Second)
	require.Less(t, p99(took), time.Second, "of an admission while others expire")
}

// TestManyOpenHoldsCostNothing has a hundred thousand open holds, of which half
// are overdue, on other budgets; and looks at what an admission, a denial, the
// sweeper and the reconciler then read.
func TestManyOpenHoldsCostNothing(t *testing.T) {
	b := setup(t)
	const holds = 100_000
	crowd, mine := b.budget("acme", "tokens", 1_000_000), b.budget("mine", "tokens", 10)
	b.seed(seeding{budgetID: crowd.ID, held: holds, overdue: 50 * time.Second, apart: time.Millisecond})
	full := b.held(admission("full", tokens(10), "mine"))

	for name, call := range map[string]func(){
		"denial": func() {
			require.Equal(t, earmark.OutcomeDenied, b.reserve(admission("denied", tokens(1), "mine")).Outcome)
		},
		"decision": func() {
			result, err := b.Decide(ctx(), earmark.DefaultTenant, admission("denied", tokens(1), "mine").Request)
			require.NoError(t, err)
			require.Equal(t, earmark.OutcomeDenied, result.Outcome)
		},
		"sweep of none": func() {
			ids, err := b.Sweep(ctx(), time.Hour, 200)
			require.NoError(t, err)
			require.Empty(t, ids)
		},
		"claim of none": func() {
			checks, err := b.ClaimChecks(ctx(), 24*time.Hour, 200)
			require.NoError(t, err)
			require.Empty(t, checks)
		},
		"claim": func() {
			checks, err := b.ClaimChecks(ctx(), time.Minute, 20)
			require.NoError(t, err)
			require.Len(t, checks, 20)
		},
		"list of orphans": func() {
			page, err := b.Reservations(ctx(), earmark.DefaultTenant, earmark.ReservationFilter{Orphan: true})
			require.NoError(t, err)
			require.Empty(t, page.Data)
		},
		"list of reviews": func() {
			page, err := b.Reservations(ctx(), earmark.DefaultTenant, earmark.ReservationFilter{State: earmark.StateReview})
			require.NoError(t, err)
			require.Empty(t, page.Data)
		},
		"entries of a budget": func() {
			page, err := b.Entries(ctx(), earmark.DefaultTenant, earmark.EntryFilter{BudgetID: mine.ID})
			require.NoError(t, err)
			require.Len(t, page.Data, 2)
		},
	} {
		const longest = 50 * time.Millisecond // a look at each of the holds takes several times that
		const times = 12                      // more than the executions after which Postgres considers a generic plan
		var took []time.Duration
		for range times {
			began := time.Now()
			call()
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		t.Logf("%s: %s", name, took[times/2])
		require.Less(t, took[times/2], longest, name)
	}

	// What is overdue in its own way is found among all the others.
	b.due(full.ID)
	require.Equal(t, earmark.OutcomeApplied, b.reserve(admission("fits", tokens(10), "mine")).Outcome)
	require.Equal(t, earmark.OutcomeDenied, b.reserve(admission("denied", tokens(1), "mine")).Outcome)
	b.requireBalance(crowd.ID, holds, 0)
}
