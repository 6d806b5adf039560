//go:build unix

package postgres_test

import (
	"net/url"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/devstack"
	"github.com/earmark-dev/earmark/internal/postgres"
)

// twoPrimaries are two servers of one cluster that both could take writes: the second one follows nobody, and becomes a
// primary when it is promoted.
func twoPrimaries(t *testing.T) (former, second *url.URL) {
	t.Helper()
	dir := serverDir(t)
	start := func(name string) *devstack.Postgres {
		server, err := devstack.StartPostgres(ctx(), devstack.PostgresOptions{Dir: filepath.Join(dir, name), Fast: true, Superuser: true})
		require.NoError(t, err)
		return server
	}
	require.NoError(t, start("former").Stop(ctx()))
	for _, files := range [][2]string{{"former", "second"}, {"second/data/PG_VERSION", "second/data/standby.signal"}} {
		output, err := exec.Command("cp", "-a", filepath.Join(dir, files[0]), filepath.Join(dir, files[1])).CombinedOutput()
		require.NoError(t, err, "%s", output)
	}
	var urls []*url.URL
	for _, name := range []string{"former", "second"} {
		server := start(name)
		t.Cleanup(func() { require.NoError(t, server.Stop(ctx())) })
		parsed, err := url.Parse(server.URL())
		require.NoError(t, err)
		urls = append(urls, parsed)
	}
	return urls[0], urls[1]
}

// Two servers of one cluster take writes: a standby that was promoted, and the primary from before. A pool that has seen
// the new one uses no connection to the old one any more, old or new, wherever the connection string names it.
func TestFormerPrimaryIsNotUsed(t *testing.T) {
	t.Parallel()
	former, second := twoPrimaries(t)
	both := *former
	both.Host += "," + second.Host
	both.RawQuery += "&target_session_attrs=read-write"

	open := func(databaseURL string) *pgxpool.Pool {
		pool, err := postgres.Open(ctx(), databaseURL)
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		return pool
	}
	port := func(pool *pgxpool.Pool) (port string) {
		require.NoError(t, pool.QueryRow(ctx(), "SELECT current_setting('port')").Scan(&port))
		return port
	}
	pool := open(both.String())
	require.Equal(t, former.Port(), port(pool))

	conn, err := pgx.Connect(ctx(), second.String())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(ctx())) }()
	_, err = conn.Exec(ctx(), "SELECT pg_promote(true, 60)")
	require.NoError(t, err)
	require.Equal(t, former.Port(), port(pool), "nobody has seen the new primary yet")

	require.Equal(t, second.Port(), port(open(second.String())))
	require.Equal(t, second.Port(), port(pool), "the old connection is dropped, and a new one goes to the second host")
	_, err = open(former.String()).Exec(ctx(), "SELECT 1")
	require.ErrorContains(t, err, "a former primary")
}
