package postgres_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/devstack"
	"github.com/earmark-dev/earmark/internal/postgres"
)

// serverDir is a directory for servers of a test's own, which the user that runs Postgres can enter.
func serverDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "earmark-test-")
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, os.RemoveAll(dir)) })
	require.NoError(tb, os.Chmod(dir, 0o755))
	return dir
}

// TestRestartUnderLoad stops Postgres in the middle of admissions and settlements
// and starts it again. Calls say unavailable meanwhile and nothing else; the same
// pool works afterwards, every call can be made again, and nothing is lost or
// counted twice.
func TestRestartUnderLoad(t *testing.T) {
	t.Parallel()
	options := devstack.PostgresOptions{Dir: filepath.Join(serverDir(t), "postgres"), Fast: true, Superuser: true}
	server, err := devstack.StartPostgres(ctx(), options)
	require.NoError(t, err)
	address, err := url.Parse(server.URL())
	require.NoError(t, err)
	options.Port, err = strconv.Atoi(address.Port())
	require.NoError(t, err)

	pool, err := postgres.Open(ctx(), server.URL())
	require.NoError(t, err)
	defer pool.Close()
	_, err = postgres.Migrate(ctx(), pool)
	require.NoError(t, err)
	b := &env{Ledger: postgres.New(pool), owner: postgres.New(pool), t: t, pool: pool}
	budget := b.budget("acme", "tokens", 1_000_000)

	const clients = 6
	var done, outages atomic.Int64
	busy, stop := context.WithCancel(ctx())
	var group errgroup.Group
	for client := range clients {
		group.Go(func() error {
			for i := 0; busy.Err() == nil; i++ {
				if err := untilAvailable(&outages, func() error { return b.oneRequest(fmt.Sprintf("%d-%d", client, i)) }); err != nil {
					return err
				}
				done.Add(1)
			}
			return nil
		})
	}
	wait := func(more int64) {
		for target := done.Load() + more; done.Load() < target; time.Sleep(time.Millisecond) { //nolint:forbidigo // polls
			require.NoError(t, t.Context().Err())
		}
	}
	wait(50)
	require.NoError(t, server.Stop(ctx()))
	require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(b.Ready(ctx())))
	server, err = devstack.StartPostgres(ctx(), options)
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Stop(ctx())) }()
	wait(50)
	stop()
	require.NoError(t, group.Wait())
	require.Positive(t, outages.Load())
	require.NoError(t, b.Ready(ctx()))
	b.requireBalance(budget.ID, 0, 7*done.Load())
	report, err := b.CheckRules(ctx())
	require.NoError(t, err)
	require.Empty(t, report.Mismatches())
}

// oneRequest reserves 10 and uses 7. It may be called again with the same key.
func (b *env) oneRequest(key string) error {
	a := admission(key, tokens(10), "acme")
	if result, err := b.Reserve(ctx(), a); err != nil {
		return err
	} else if result.Outcome != earmark.OutcomeApplied && result.Outcome != earmark.OutcomeSame {
		return fmt.Errorf("reserve: %s", result.Outcome)
	}
	result, err := b.Commit(ctx(), earmark.Transition{ID: a.ID, Tenant: a.Tenant, Actor: earmark.ActorWorkflow}, tokens(7))
	if err == nil && result.Outcome != earmark.OutcomeApplied && result.Outcome != earmark.OutcomeSame {
		return fmt.Errorf("commit: %s", result.Outcome)
	}
	return err
}

// untilAvailable repeats call as long as it says unavailable, and counts that.
func untilAvailable(outages *atomic.Int64, call func() error) error {
	for {
		err := call()
		if earmark.ErrorCode(err) != earmark.CodeUnavailable {
			return err
		}
		outages.Add(1)
		time.Sleep(5 * time.Millisecond) //nolint:forbidigo // between two attempts
	}
}

// TestKilledBackendsLeaveNothingHalfDone terminates the sessions of calls that are
// under way, again and again.
func TestKilledBackendsLeaveNothingHalfDone(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1_000_000)
	killer, err := pgx.ConnectConfig(ctx(), b.pool.Config().ConnConfig)
	require.NoError(t, err)
	defer func() { require.NoError(t, killer.Close(ctx())) }()

	const clients, requestsEach = 4, 100
	var outages, done atomic.Int64
	var group errgroup.Group
	for client := range clients {
		group.Go(func() error {
			for i := range requestsEach {
				if err := untilAvailable(&outages, func() error { return b.oneRequest(fmt.Sprintf("%d-%d", client, i)) }); err != nil {
					return err
				}
				done.Add(1)
			}
			return nil
		})
	}
	for done.Load() < clients*requestsEach*9/10 {
		const kill = `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'active' AND random() < 0.5`
		_, err := killer.Exec(ctx(), kill)
		require.NoError(t, err)
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // between two kills, so that some calls pass
	}
	require.NoError(t, group.Wait())
	require.Positive(t, outages.Load(), "no call was hit")
	b.requireBalance(budget.ID, 0, 7*clients*requestsEach)
}

// TestCallsEndWithTheirContext waits for a lock that another session keeps.
func TestCallsEndWithTheirContext(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	s := b.held(admission("k", tokens(10), "acme"))
	lock := b.begin()
	_, err := lock.Exec(ctx(), "SELECT FROM earmark.budgets FOR UPDATE")
	require.NoError(t, err)
	_, err = lock.Exec(ctx(), "SELECT FROM earmark.reservations FOR UPDATE")
	require.NoError(t, err)

	short, cancel := context.WithTimeout(ctx(), 100*time.Millisecond)
	defer cancel()
	_, err = b.Reserve(short, admission("l", tokens(10), "acme"))
	require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(err))
	canceled, cancelNow := context.WithCancel(ctx())
	cancelNow()
	_, err = b.Commit(canceled, s, tokens(1))
	require.ErrorIs(t, err, context.Canceled)

	// Without a deadline of the caller, the ledger's own is a second.
	long, cancelLong := context.WithTimeout(ctx(), 10*time.Second)
	defer cancelLong()
	for _, call := range []func() error{
		func() error { _, err := b.Commit(long, s, tokens(1)); return err },
		func() error {
			_, err := b.PatchBudget(long, earmark.DefaultTenant, budget.ID, earmark.BudgetPatch{Limit: new(int64(1))}, earmark.ActorAPI)
			return err
		},
	} {
		began := time.Now()
		require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(call()))
		require.InDelta(t, 1, time.Since(began).Seconds(), 0.9)
	}

	require.NoError(t, lock.Rollback(ctx()))
	require.Equal(t, earmark.OutcomeApplied, b.commit(s, tokens(1)).Outcome)
	b.requireBalance(budget.ID, 0, 1)
}
