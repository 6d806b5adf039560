//go:build unix

package postgres_test

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/postgres/postgrestest"
)

// withParameter adds a parameter to a connection string.
func withParameter(t *testing.T, databaseURL, name, value string) string {
	t.Helper()
	parsed, err := url.Parse(databaseURL)
	require.NoError(t, err)
	query := parsed.Query()
	query.Set(name, value)
	parsed.RawQuery = query.Encode()
	return parsed.String()
}

// lifecycleOn makes a budget, holds, lists and settles on a ledger of the pool.
func lifecycleOn(t *testing.T, pool *pgxpool.Pool) error {
	t.Helper()
	ledger := postgres.New(pool)
	limit := int64(1000)
	request := earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit}.WithDefaults()
	if _, err := ledger.CreateBudget(ctx(), earmark.DefaultTenant, request, earmark.ActorAPI); err != nil {
		return err
	}
	a := admission("a", tokens(10), "acme")
	result, err := ledger.Reserve(ctx(), a)
	if err != nil {
		return err
	}
	require.Equal(t, earmark.OutcomeApplied, result.Outcome)
	page, err := ledger.Reservations(ctx(), earmark.DefaultTenant, earmark.ReservationFilter{Scope: "acme"})
	if err != nil {
		return err
	}
	require.Len(t, page.Data, 1)
	_, err = ledger.Commit(ctx(), earmark.Transition{ID: a.ID, Tenant: a.Tenant, Actor: earmark.ActorWorkflow}, tokens(3))
	return err
}

// What a connection string may say about how statements are sent works; what does not work is refused before the
// first call, by the name of the parameter.
func TestModesOfTheDatabaseURL(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"cache_statement", "cache_describe"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			pool, err := postgres.Open(ctx(), withParameter(t, postgrestest.URL(t, stack.PostgresURL()), "default_query_exec_mode", mode))
			require.NoError(t, err)
			t.Cleanup(pool.Close)
			require.NoError(t, lifecycleOn(t, pool))
		})
	}
	for _, refused := range []struct{ name, value, says string }{
		{"default_query_exec_mode", "exec", "is exec, which Earmark does not work with; leave it out, or set cache_describe"},
		{"default_query_exec_mode", "simple_protocol", "is simple_protocol, which"},
		{"default_query_exec_mode", "describe_exec", "is describe_exec, which"},
		{"statement_cache_capacity", "0", "is 0, with which no statement runs"},
		{"description_cache_capacity", "0", "is 0, with which lists do not run"},
	} {
		t.Run(refused.name+"="+refused.value, func(t *testing.T) {
			t.Parallel()
			_, err := postgres.Open(ctx(), withParameter(t, "postgres://user:secret@127.0.0.1:5432/earmark", refused.name, refused.value))
			require.Equal(t, earmark.CodeInvalidRequest, earmark.ErrorCode(err))
			require.ErrorContains(t, err, refused.name+" in the database URL "+refused.says)
			require.NotContains(t, err.Error(), "secret")
		})
	}
}

// The refusal has a reason: these settings fail on a Postgres that is well. Should a release of pgx mend one, it may be allowed.
func TestRefusedModesDoNotWork(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*pgxpool.Config){
		"exec":            func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec },
		"simple_protocol": func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol },
		"no statements":   func(c *pgxpool.Config) { c.ConnConfig.StatementCacheCapacity = 0 },
		"no descriptions": func(c *pgxpool.Config) { c.ConnConfig.DescriptionCacheCapacity = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool, err := postgres.Open(ctx(), postgrestest.URL(t, stack.PostgresURL()), set)
			require.NoError(t, err)
			t.Cleanup(pool.Close)
			require.Error(t, lifecycleOn(t, pool))
		})
	}
}

// Lists that hold all of their connections leave those of the ledger's calls alone, and the reverse.
func TestListsAndTheLedgerTakeNoConnectionsFromEachOther(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 100)
	open := func(open func(context.Context, string, ...func(*pgxpool.Config)) (*pgxpool.Pool, error)) *pgxpool.Pool {
		pool, err := open(ctx(), b.pool.Config().ConnString())
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		return pool
	}
	pool, lists := open(postgres.Open), open(postgres.OpenLists)
	require.EqualValues(t, 4, lists.Config().MaxConns)
	ledger := postgres.New(pool)
	ledger.ListFrom(lists)
	// takeAll takes all connections of a pool.
	takeAll := func(pool *pgxpool.Pool) (giveBack func()) {
		var taken []*pgxpool.Conn
		for range pool.Config().MaxConns {
			conn, err := pool.Acquire(ctx())
			require.NoError(t, err)
			taken = append(taken, conn)
		}
		giveBack = func() {
			for _, conn := range taken {
				conn.Release()
			}
		}
		t.Cleanup(giveBack) // a pool does not close before
		return giveBack
	}
	list := func(ctx context.Context) error {
		_, err := ledger.Reservations(ctx, earmark.DefaultTenant, earmark.ReservationFilter{})
		return err
	}
	reserve := func(key string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := ledger.Reserve(ctx, admission(key, tokens(1), "acme"))
			return err
		}
	}
	waits := func(call func(context.Context) error) {
		short, cancel := context.WithTimeout(ctx(), 100*time.Millisecond)
		defer cancel()
		require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(call(short)), "it waits for a connection")
	}

	giveBack := takeAll(lists)
	waits(list)
	require.NoError(t, reserve("a")(ctx()))
	giveBack()

	giveBack = takeAll(pool)
	waits(reserve("b"))
	require.NoError(t, list(ctx()))
	_, err := ledger.Overview(ctx(), earmark.DefaultTenant, nil)
	require.NoError(t, err)
	giveBack()
}
