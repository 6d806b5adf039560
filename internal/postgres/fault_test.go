package postgres_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
)

// What Postgres says to a call decides what its caller gets: to try again, to
// migrate, or that it met a bug.
func TestFaultsAreToldApart(t *testing.T) {
	b := unaudited(t) // it takes a function away
	b.budget("acme", "tokens", 1000)
	a := admission("k", tokens(1), "acme")

	bug := a
	bug.Request.OnExpiry = "never" // validation keeps this out; the table's constraint does, too
	_, err := b.Reserve(ctx(), bug)
	require.Equal(t, earmark.CodeInternal, earmark.ErrorCode(err))
	var refused *pgconn.PgError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "23514", refused.Code)

	_, err = b.pool.Exec(ctx(), "ALTER FUNCTION earmark.decide RENAME TO decided")
	require.NoError(t, err)
	_, err = b.Decide(ctx(), a.Tenant, a.Request)
	require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(err))
	require.ErrorContains(t, err, "earmark migrate up")

	away, err := postgres.Open(ctx(), stack.PostgresURL())
	require.NoError(t, err)
	away.Close()
	_, err = postgres.New(away).Reserve(ctx(), a)
	require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(err))
	require.NotErrorAs(t, err, &refused)
	require.ErrorContains(t, err, "did not answer")
}
