//go:build linux

package stack

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/devstack"
)

// Standby starts a server that follows this one by streaming replication. It reaches it at upstream, a host and a port.
func (p *Postgres) Standby(tb testing.TB, upstream *url.URL) *Postgres {
	tb.Helper()
	p.requireOwn()
	ctx := context.Background()
	hba, err := os.OpenFile(filepath.Join(p.options.Dir, "data", "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(tb, err)
	_, err = hba.WriteString("host replication all 127.0.0.1/32 scram-sha-256\n")
	require.NoError(tb, err)
	require.NoError(tb, hba.Close())
	require.NoError(tb, execute(ctx, p.url, "SELECT pg_reload_conf()"))

	postgres, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.server.PID()))
	require.NoError(tb, err)
	dir := p.options.Dir + "-standby"
	require.NoError(tb, os.Mkdir(dir, 0o755))
	tb.Cleanup(func() { showLog(tb, "the standby", filepath.Join(dir, "postgres.log")) })
	backup := exec.Command(filepath.Join(filepath.Dir(postgres), "pg_basebackup"), "--pgdata", filepath.Join(dir, "data"), "--checkpoint", "fast",
		"--write-recovery-conf", "--host", upstream.Hostname(), "--port", upstream.Port(), "--username", upstream.User.Username(), "--no-password")
	backup.Env = append(bareEnv(), "PGPASSFILE="+filepath.Join(p.options.Dir, "pgpass"))
	output, err := backup.CombinedOutput()
	require.NoError(tb, err, "%s", output)
	password := filepath.Join(dir, "pgpass")
	copyFiles(tb, filepath.Join(p.options.Dir, "pgpass"), password)
	settings, err := os.OpenFile(filepath.Join(dir, "data", "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(tb, err)
	_, err = fmt.Fprintf(settings, "primary_conninfo = 'host=%s port=%s user=%s passfile=%s'\n", upstream.Hostname(), upstream.Port(), upstream.User.Username(), password)
	require.NoError(tb, err)
	require.NoError(tb, settings.Close())
	output, err = exec.Command("chown", "-R", "--reference", filepath.Join(p.options.Dir, "data"), dir).CombinedOutput()
	require.NoError(tb, err, "%s", output)

	standby := &Postgres{t: tb}
	require.NoError(tb, onFreePort(func(port int) (err error) {
		standby.options = devstack.PostgresOptions{Dir: dir, Port: port, Fast: p.options.Fast, Superuser: true}
		standby.server, err = devstack.StartPostgres(ctx, standby.options)
		return err
	}))
	standby.url = standby.server.URL()
	p.standby = standby
	return standby
}

// AwaitStandby waits until a standby has all that this server has.
func (p *Postgres) AwaitStandby(tb testing.TB) {
	tb.Helper()
	Eventually(tb, readyLimit, "the standby", func() bool {
		return execute(context.Background(), p.url, "SELECT 1 / count(*) FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn = pg_current_wal_lsn()") == nil
	})
}

// Configure sets a server's setting, for good.
func (p *Postgres) Configure(tb testing.TB, name, value string) {
	tb.Helper()
	require.NoError(tb, execute(context.Background(), p.url, "ALTER SYSTEM SET "+name+" = '"+value+"'"))
	require.NoError(tb, execute(context.Background(), p.url, "SELECT pg_reload_conf()"))
}

// Promote makes a standby a primary.
func (p *Postgres) Promote(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, execute(context.Background(), p.url, "SELECT pg_promote(true, 60)"))
}

// URL is the connection string of a database of the server.
func (p *Postgres) URL(tb testing.TB, database string) string {
	tb.Helper()
	result, err := databaseURL(p.url, database)
	require.NoError(tb, err)
	return result
}

// UseDatabase makes the stack look into another database, and its commands run on it, from now on.
func (s *Stack) UseDatabase(databaseURL string) {
	s.t.Helper()
	s.DatabaseURL = databaseURL
	if s.pool != nil {
		s.pool.Close()
		s.pool = nil
	}
}
