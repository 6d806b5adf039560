//go:build pgbouncer && unix

package postgres_test

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/postgres/postgrestest"
)

// pooledSessions is fewer than there are clients, so that they have to share.
const pooledSessions = 4

// pooled starts a PgBouncer in transaction mode before a database of the test's
// own, and returns its URL and the direct one.
func pooled(t *testing.T) (through, direct string) {
	t.Helper()
	t.Parallel()
	bin, err := exec.LookPath("pgbouncer")
	require.NoError(t, err, "there is no PgBouncer; install it (Debian: apt install pgbouncer)")
	direct = postgrestest.URL(t, stack.PostgresURL())
	server, err := url.Parse(direct)
	require.NoError(t, err)
	settings, err := pgx.ParseConfig(direct)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := listener.Addr().(*net.TCPAddr).Port
	require.NoError(t, listener.Close())

	config := filepath.Join(t.TempDir(), "pgbouncer.ini")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `[databases]
* = host=%s port=%s user=%s password=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = %d
max_client_conn = 100
`, server.Hostname(), server.Port(), settings.User, settings.Password, port, pooledSessions), 0o644))
	process := exec.Command(bin, "-q", config)
	if os.Geteuid() == 0 { // which it refuses to run as
		for dir := filepath.Dir(config); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			require.NoError(t, os.Chmod(dir, 0o755))
		}
		nobody, err := user.Lookup("nobody")
		require.NoError(t, err)
		uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
		require.NoError(t, err)
		gid, err := strconv.ParseUint(nobody.Gid, 10, 32)
		require.NoError(t, err)
		process.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	require.NoError(t, process.Start())
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	})
	server.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", server.Host)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, 10*time.Second, 20*time.Millisecond, "PgBouncer does not listen")
	return server.String(), direct
}

// withMode adds the setting that docs/design.md names.
func withMode(t *testing.T, databaseURL string) string {
	t.Helper()
	return withParameter(t, databaseURL, "default_query_exec_mode", "cache_describe")
}

func opened(t *testing.T, databaseURL string) *pgxpool.Pool {
	t.Helper()
	pool, err := postgres.Open(ctx(), databaseURL)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// TestThroughATransactionPooler makes every call that the ledger has, from more
// sides than there are sessions; nothing may depend on a session.
func TestThroughATransactionPooler(t *testing.T) {
	through, _ := pooled(t)
	pool := opened(t, withMode(t, through))
	b := &env{Ledger: postgres.New(pool), owner: postgres.New(pool), t: t, pool: pool}
	budget := b.budget("acme", "tokens", 1_000_000)
	const lifecycles = 400
	var done atomic.Int64
	require.NoError(t, inParallel(lifecycles, func() error {
		n := done.Add(1)
		a := admission(fmt.Sprint(n), tokens(10), "acme")
		if _, err := b.Preflight(ctx(), a); err != nil {
			return err
		}
		if result, err := b.Reserve(ctx(), a); err != nil || result.Outcome != earmark.OutcomeApplied {
			return fmt.Errorf("reserve: %s, %w", result.Outcome, err)
		}
		s := earmark.Transition{ID: a.ID, Tenant: a.Tenant, Actor: earmark.ActorWorkflow}
		if _, err := b.Extend(ctx(), s, time.Hour); err != nil {
			return err
		}
		if n%2 == 0 {
			_, err := b.Release(ctx(), s)
			return err
		}
		_, err := b.Commit(ctx(), s, tokens(3))
		return err
	}))
	b.requireBalance(budget.ID, 0, 3*lifecycles/2)
	require.NoError(t, b.Ready(ctx()))
	_, err := b.PatchBudget(ctx(), earmark.DefaultTenant, budget.ID, earmark.BudgetPatch{Limit: new(int64(2_000_000))}, earmark.ActorAPI)
	require.NoError(t, err)
	held := b.held(admission("held", tokens(1), "acme"))
	b.due(held.ID)
	swept, err := b.Sweep(ctx(), 0, 10)
	require.NoError(t, err)
	require.Equal(t, []string{held.ID}, swept)
	checks, err := b.ClaimChecks(ctx(), 0, 10)
	require.NoError(t, err)
	require.Len(t, checks, 1)
	require.NoError(t, b.MarkChecked(ctx(), earmark.DefaultTenant, held.ID, false, true))
	page, err := b.Reservations(ctx(), earmark.DefaultTenant, earmark.ReservationFilter{Scope: "acme"})
	require.NoError(t, err)
	require.Len(t, page.Data, earmark.DefaultPageSize)
	b.ages(40)
	require.EqualValues(t, lifecycles+1, b.prune(postgres.LeastKept).Reservations)
	report, err := b.CheckRules(ctx())
	require.NoError(t, err)
	require.Empty(t, report.Mismatches())
	_, err = postgres.MigrationStatus(ctx(), pool)
	require.NoError(t, err)
}

// TestPoolerNeedsItsSetting shows the message that says what is missing.
func TestPoolerNeedsItsSetting(t *testing.T) {
	through, _ := pooled(t)
	b := &env{Ledger: postgres.New(opened(t, through)), t: t}
	err := inParallel(200, func() error {
		_, err := b.Budgets(ctx(), earmark.DefaultTenant, earmark.BudgetFilter{})
		return err
	})
	require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(err))
	require.ErrorContains(t, err, "default_query_exec_mode=cache_describe")
}

// TestDescribeExecMixesUpCallersBehindAPooler shows why that mode is refused: callers who share a session run and read each
// other's statements.
func TestDescribeExecMixesUpCallersBehindAPooler(t *testing.T) {
	through, _ := pooled(t)
	refused := withParameter(t, through, "default_query_exec_mode", "describe_exec")
	_, err := postgres.Open(ctx(), refused)
	require.ErrorContains(t, err, "default_query_exec_mode in the database URL is describe_exec")

	pool, err := postgres.Open(ctx(), through, func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec })
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	var called atomic.Int64
	err = inParallel(5000, func() error {
		n := called.Add(1) % 7
		var answer int64
		if err := pool.QueryRow(ctx(), fmt.Sprintf("SELECT %d", n)).Scan(&answer); err != nil {
			return err
		}
		if answer != n {
			return fmt.Errorf("asked for %d, got %d", n, answer)
		}
		return nil
	})
	t.Log(err)
	require.Error(t, err)
}

func TestMigrationsRefuseAPooler(t *testing.T) {
	through, _ := pooled(t)
	_, err := postgres.Migrate(ctx(), opened(t, withMode(t, through)))
	require.ErrorContains(t, err, "goes through a pooler")
}

// TestPoolerCosts says by how much a pooler, and its setting, slow down a call. The
// ways take turns, so that noise hits them alike.
func TestPoolerCosts(t *testing.T) {
	through, direct := pooled(t)
	ways := []struct {
		name string
		pool *pgxpool.Pool
		took []time.Duration
	}{{name: "direct", pool: opened(t, direct)}, {name: "direct, as for a pooler", pool: opened(t, withMode(t, direct))}, {name: "pooled", pool: opened(t, withMode(t, through))}}
	b := &env{Ledger: postgres.New(ways[0].pool), t: t, pool: ways[0].pool}
	b.budget("acme", "tokens", 1_000_000)
	const rounds, lifecycles = 15, 40
	for round := range rounds {
		for i := range ways {
			ledger := postgres.New(ways[i].pool)
			began := time.Now()
			for n := range lifecycles {
				a := admission(fmt.Sprintf("%d %d %d", round, i, n), tokens(1), "acme")
				_, err := ledger.Reserve(ctx(), a)
				require.NoError(t, err)
				_, err = ledger.Commit(ctx(), earmark.Transition{ID: a.ID, Tenant: a.Tenant, Actor: earmark.ActorWorkflow}, tokens(1))
				require.NoError(t, err)
			}
			ways[i].took = append(ways[i].took, time.Since(began)/lifecycles)
		}
	}
	for _, way := range ways {
		var ratios []float64
		for i := range way.took {
			ratios = append(ratios, float64(way.took[i])/float64(ways[0].took[i]))
		}
		slices.Sort(ratios)
		slices.Sort(way.took)
		t.Logf("%-24s %s a hold and its settlement, %.2f times direct (%.2f to %.2f)", way.name, way.took[rounds/2], ratios[rounds/2], ratios[0], ratios[rounds-1])
	}
}

// inParallel calls f that many times, from more sides than there are sessions.
func inParallel(times int64, f func() error) error {
	const sides = 16
	var group errgroup.Group
	var taken atomic.Int64
	for range sides {
		group.Go(func() error {
			for taken.Add(1) <= times {
				if err := f(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}
