package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
)

// during runs sql in a transaction that stays open until call either is done or
// waits for a lock, then commits it, and reports whether call waited.
func (b *env) during(sql string, args []any, call func()) (waited bool) {
	b.t.Helper()
	return b.duringTx(sql, args, call, func(pgx.Tx) error { return nil })
}

// duringTx is during with a last step in the transaction before it commits. call runs
// on the test's goroutine, so that it may require; last runs on another one.
func (b *env) duringTx(sql string, args []any, call func(), last func(pgx.Tx) error) (waited bool) {
	b.t.Helper()
	tx := b.begin()
	_, err := tx.Exec(ctx(), sql, args...)
	require.NoError(b.t, err)
	called, done := context.WithCancel(ctx())
	defer done()
	var group errgroup.Group
	group.Go(func() (err error) {
		if waited, err = b.someoneWaits(called); waited && err == nil {
			err = last(tx)
		}
		return errors.Join(err, tx.Commit(ctx()))
	})
	call()
	done()
	require.NoError(b.t, group.Wait())
	return waited
}

// pollPause is the time between two looks at the sessions that wait for a lock.
const pollPause = 2 * time.Millisecond

// someoneWaits returns true as soon as a session of the test's database waits for a lock,
// and false when the context ends first.
func (b *env) someoneWaits(ctx context.Context) (waits bool, err error) {
	const blocked = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"
	poll := time.NewTicker(pollPause)
	defer poll.Stop()
	for {
		if err := b.pool.QueryRow(context.WithoutCancel(ctx), blocked).Scan(&waits); err != nil || waits {
			return waits, err
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-poll.C:
		}
	}
}

// begin opens a transaction that ends with the test, also where that fails: the
// pool could not be closed over it.
func (b *env) begin() pgx.Tx {
	b.t.Helper()
	tx, err := b.pool.Begin(ctx())
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = tx.Rollback(ctx()) })
	return tx
}

const (
	commitUnderWay  = "SELECT earmark.commit('default', $1, $2, 'api', '')"
	releaseUnderWay = "SELECT earmark.release('default', $1, true, 'api', '')"
	extendUnderWay  = "SELECT earmark.extend('default', $1, 86400000, 'api')"
	reserveUnderWay = "SELECT earmark.reserve($1, 'default', $2, $3, $4, 300000, 'release', '{}', '', NULL, false, 'workflow')"
)

func TestAdmissionWaitsForASettlementUnderWay(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	s := b.held(admission("k", tokens(100), "acme"))
	var result earmark.Result
	require.True(t, b.during(commitUnderWay, []any{s.ID, tokens(300)}, func() { result = b.reserve(admission("l", tokens(900), "acme")) }))
	require.Equal(t, earmark.OutcomeDenied, result.Outcome)
	require.Equal(t, int64(300), result.Decision.Violations[0].Committed)
	b.requireBalance(budget.ID, 0, 300)

	// Late usage asks no policy, and so locks no budget: the window's lock is what counts.
	late := b.held(admission("m", tokens(100), "acme"))
	_, err := b.GiveBack(ctx(), late)
	require.NoError(t, err)
	require.True(t, b.during(commitUnderWay, []any{late.ID, tokens(200)}, func() { result = b.reserve(admission("n", tokens(501), "acme")) }))
	require.Equal(t, earmark.OutcomeDenied, result.Outcome)
	b.requireBalance(budget.ID, 0, 500)
}

func TestAdmissionSeesTheLimitOfAPatchUnderWay(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	const patch = "UPDATE earmark.budgets SET limit_amount = $2 WHERE id = $1"
	var result earmark.Result
	require.True(t, b.during(patch, []any{budget.ID, 899}, func() { result = b.reserve(admission("k", tokens(900), "acme")) }))
	require.Equal(t, earmark.OutcomeDenied, result.Outcome)
	require.Equal(t, int64(899), result.Decision.Violations[0].Limit)
	const archive = "UPDATE earmark.budgets SET archived_at = now() WHERE id = $1"
	require.True(t, b.during(archive, []any{budget.ID}, func() { result = b.reserve(admission("k", tokens(1), "acme")) }))
	require.Equal(t, earmark.OutcomeNoBudget, result.Outcome)
}

// TestAdmissionsOfABudgetTakeTurns has none of a window yet, which the first one makes.
func TestAdmissionsOfABudgetTakeTurns(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	first := admission("k", tokens(600), "acme")
	args := []any{first.ID, first.RequestHash, first.Request.Scopes, first.Request.Amounts}
	var result earmark.Result
	require.True(t, b.during(reserveUnderWay, args, func() { result = b.reserve(admission("l", tokens(600), "acme")) }))
	require.Equal(t, earmark.OutcomeDenied, result.Outcome)
	b.requireBalance(budget.ID, 600, 0)
}

// TestSameKeyWaitsForTheAttemptUnderWay fits only once, so that a second decision
// would be a denial.
func TestSameKeyWaitsForTheAttemptUnderWay(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	b.budget("other", "tokens", 1000)
	a := admission("k", tokens(600), "acme")
	args := []any{a.ID, a.RequestHash, a.Request.Scopes, a.Request.Amounts}
	var result earmark.Result
	require.True(t, b.during(reserveUnderWay, args, func() { result = b.reserve(a) }))
	require.Equal(t, earmark.OutcomeSame, result.Outcome)

	a = admission("l", tokens(1), "acme")
	args[0], args[1], args[3] = a.ID, a.RequestHash, a.Request.Amounts
	require.True(t, b.during(reserveUnderWay, args, func() { result = b.reserve(admission("l", tokens(1), "other")) }))
	require.Equal(t, earmark.OutcomeMismatch, result.Outcome, "with other budgets it is the key itself that both want")

	usage := earmark.UsageRequest{Scopes: []string{"acme"}, Amounts: tokens(1)}
	charge := earmark.Charge{ID: earmark.ReservationID(earmark.DefaultTenant, "u"), Tenant: earmark.DefaultTenant, Request: usage, RequestHash: usage.Hash(), Actor: earmark.ActorAPI}
	const chargeUnderWay = "SELECT earmark.charge($1, 'default', $2, $3, $4, '{}', NULL, 'api', '')"
	require.True(t, b.during(chargeUnderWay, []any{charge.ID, charge.RequestHash, usage.Scopes, usage.Amounts}, func() {
		var err error
		result, err = b.Charge(ctx(), charge)
		require.NoError(t, err)
	}))
	require.Equal(t, earmark.OutcomeSame, result.Outcome)
}

// TestTimeSpentWaitingCounts lets AdmitBy pass while the admission waits for locks.
func TestTimeSpentWaitingCounts(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	a := admission("k", tokens(600), "acme")
	preflight, err := b.Preflight(ctx(), a)
	require.NoError(t, err)
	a.AdmitBy = preflight.Now.Add(300 * time.Millisecond)
	lock := b.begin()
	_, err = lock.Exec(ctx(), "SELECT FROM earmark.budgets FOR UPDATE")
	require.NoError(t, err)
	var result earmark.Result
	var group errgroup.Group
	group.Go(func() (err error) { result, err = b.Reserve(ctx(), a); return err })
	waits, err := b.someoneWaits(t.Context())
	require.NoError(t, err)
	require.True(t, waits)
	_, err = lock.Exec(ctx(), "SELECT pg_sleep_until($1::timestamptz + interval '1 millisecond')", a.AdmitBy)
	require.NoError(t, err)
	require.NoError(t, lock.Rollback(ctx()))
	require.NoError(t, group.Wait())
	require.Equal(t, earmark.OutcomeTooLate, result.Outcome)
	b.requireBalance(budget.ID, 0, 0)
}

func TestSettlementsOfAReservationTakeTurns(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	s := b.held(admission("k", tokens(100), "acme"))
	var result earmark.Result
	require.True(t, b.during(releaseUnderWay, []any{s.ID}, func() { result = b.commit(s, tokens(50)) }))
	require.Equal(t, earmark.OutcomeConflict, result.Outcome)
	s = b.held(admission("l", tokens(100), "acme"))
	b.due(s.ID)
	require.True(t, b.during(extendUnderWay, []any{s.ID}, func() { result = b.expire(s) }))
	require.Equal(t, earmark.OutcomeNotDue, result.Outcome)
	b.requireBalance(budget.ID, 100, 0)
}

func TestOverageIsDecidedUnderLocks(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000, overage(earmark.OverageAllowIfAvailable))
	first := b.held(admission("k", tokens(100), "acme"))
	second := b.held(admission("l", tokens(100), "acme"))
	var result earmark.Result
	require.True(t, b.during(commitUnderWay, []any{first.ID, tokens(700)}, func() { result = b.commit(second, tokens(700)) }))
	require.Equal(t, tokens(400), result.Reservation.Shortfall)
	b.requireBalance(budget.ID, 0, 1000)

	// Late usage locks the window alone.
	late := b.budget("late", "tokens", 1000, overage(earmark.OverageAllowIfAvailable))
	given := b.held(admission("given", tokens(100), "late"))
	_, err := b.GiveBack(ctx(), given)
	require.NoError(t, err)
	fourth := b.held(admission("n", tokens(100), "late"))
	require.True(t, b.during(commitUnderWay, []any{given.ID, tokens(700)}, func() { result = b.commit(fourth, tokens(700)) }))
	require.Equal(t, tokens(400), result.Reservation.Shortfall)
	b.requireBalance(late.ID, 0, 1000)

	soon := b.budget("soon", "tokens", 1000)
	third := b.held(admission("m", tokens(100), "soon"))
	const patch = "UPDATE earmark.budgets SET overage = 'reject' WHERE id = $1"
	require.True(t, b.during(patch, []any{soon.ID}, func() { result = b.commit(third, tokens(101)) }))
	require.Equal(t, earmark.OutcomeOverageRejected, result.Outcome)
}

func TestPatchesTakeTurns(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	const patch = "UPDATE earmark.budgets SET limit_amount = 5 WHERE id = $1"
	var patched *earmark.Budget
	require.True(t, b.during(patch, []any{budget.ID}, func() {
		var err error
		patched, err = b.patch(budget.ID, earmark.BudgetPatch{Overage: new(earmark.OverageReject)})
		require.NoError(t, err)
	}))
	require.Equal(t, int64(5), patched.Limit, "what the other patch set is not set back")
	require.Equal(t, earmark.OverageReject, patched.Overage)
}

// TestWhatOthersWorkOnIsLeftToThem holds the sweeper and an admission's own
// expiries to waiting for nobody.
func TestWhatOthersWorkOnIsLeftToThem(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	b.budget("other", "tokens", 1000)
	extended := b.held(admission("k", tokens(600), "acme"))
	b.due(extended.ID)
	var swept []string
	var err error
	require.False(t, b.during(extendUnderWay, []any{extended.ID}, func() { swept, err = b.Sweep(ctx(), time.Second, 10) }))
	require.NoError(t, err)
	require.Empty(t, swept)

	b.due(extended.ID)
	var result earmark.Result
	require.False(t, b.during(extendUnderWay, []any{extended.ID}, func() { result = b.reserve(admission("l", tokens(600), "acme")) }))
	require.Equal(t, earmark.OutcomeDenied, result.Outcome)
	b.release(extended)

	// Overdue and in the way, but also in a window that a settlement has locked.
	overdue := b.held(admission("m", tokens(600), "acme", "other"))
	b.due(overdue.ID)
	settled := b.held(admission("n", tokens(1), "other"))
	require.False(t, b.during(commitUnderWay, []any{settled.ID, tokens(1)}, func() { result = b.reserve(admission("o", tokens(600), "acme")) }))
	require.Equal(t, earmark.OutcomeDenied, result.Outcome)
	require.True(t, result.Decision.Retryable)
	require.Equal(t, earmark.OutcomeApplied, b.reserve(admission("o", tokens(600), "acme")).Outcome)
}

// TestSweepLocksWindowsInOrder has it wait for the first window in that order. It
// must not keep the second one meanwhile, although the reservation there is
// overdue for longer: whoever has the first may want that next.
func TestSweepLocksWindowsInOrder(t *testing.T) {
	b := setup(t)
	ids := []string{b.budget("one", "tokens", 1000).ID, b.budget("two", "tokens", 1000).ID}
	scopes := []string{"one", "two"}
	if ids[0] > ids[1] {
		ids[0], ids[1], scopes[0], scopes[1] = ids[1], ids[0], scopes[1], scopes[0]
	}
	for _, scope := range []string{scopes[1], scopes[0]} {
		b.due(b.held(admission(scope, tokens(1), scope)).ID)
	}
	const lock = "SELECT FROM earmark.windows WHERE budget_id = $1 FOR UPDATE"
	var swept []string
	var err error
	require.True(t, b.duringTx(lock, []any{ids[0]}, func() { swept, err = b.Sweep(ctx(), time.Second, 10) }, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx(), lock+" NOWAIT", ids[1])
		return err
	}))
	require.NoError(t, err)
	require.Len(t, swept, 2)
}

func TestClaimsWaitForNobody(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	busy := b.held(admission("k", tokens(1), "acme"))
	idle := b.held(admission("l", tokens(1), "acme"))
	_, err := b.pool.Exec(ctx(), "UPDATE earmark.reservations SET checked_at = clock_timestamp() - interval '1 day'")
	require.NoError(t, err)
	var checks []earmark.Check
	require.False(t, b.during(extendUnderWay, []any{busy.ID}, func() { checks, err = b.ClaimChecks(ctx(), time.Hour, 10) }))
	require.NoError(t, err)
	require.Len(t, checks, 1)
	require.Equal(t, idle.ID, checks[0].ID)
}
