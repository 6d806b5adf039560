//go:build unix

package devstack

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func fmtInt(n int) string { return strconv.Itoa(n) }

func startPostgres(t *testing.T, dir string) *Postgres {
	t.Helper()
	server, err := StartPostgres(context.Background(), PostgresOptions{Dir: dir, Fast: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop(context.Background())) })
	return server
}

// query runs one statement and answers the first column of its row.
func query(t *testing.T, url, sql string) (value string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(ctx)) }()
	require.NoError(t, conn.QueryRow(ctx, sql).Scan(&value))
	return value
}

func TestPostgresKeepsItsDataOverARestart(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	var log bytes.Buffer
	first, err := StartPostgres(context.Background(), PostgresOptions{Dir: dir, Log: &log})
	require.NoError(t, err)
	require.Contains(t, log.String(), "creating a Postgres database in "+dir)
	require.Equal(t, "earmark", query(t, first.URL(), "SELECT current_database()"))
	require.Equal(t, "on", query(t, first.URL(), "SHOW fsync"))
	require.Equal(t, "200", query(t, first.URL(), "SHOW max_connections"))
	execute(t, first.URL(), "CREATE TABLE kept AS SELECT 'still here' AS word")
	require.NoError(t, first.Err())
	stop(t, first)
	requireDone(t, first.Done())
	require.NoError(t, first.Err(), "a stop that was asked for is no error")
	stop(t, first)

	second := startPostgres(t, dir)
	require.Equal(t, "still here", query(t, second.URL(), "SELECT word FROM kept"))
	require.Equal(t, "off", query(t, second.URL(), "SHOW fsync"))
}

func execute(t *testing.T, url, sql string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(ctx)) }()
	_, err = conn.Exec(ctx, sql)
	require.NoError(t, err)
}

func TestPostgresStartsAfterKill(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	first, err := StartPostgres(context.Background(), PostgresOptions{Dir: dir})
	require.NoError(t, err)
	execute(t, first.URL(), "CREATE TABLE kept AS SELECT 'still here' AS word")
	require.NoError(t, syscall.Kill(first.PID(), syscall.SIGKILL))
	requireDone(t, first.Done())
	require.ErrorContains(t, first.Err(), "Postgres ended (signal: killed)")

	second := startPostgres(t, dir)
	require.Equal(t, "still here", query(t, second.URL(), "SELECT word FROM kept"))
}

// The process id of a dead server may belong to anybody by the time of the restart; here to another server.
func TestPostgresStartsWhenItsOldProcessIDIsTaken(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	first := startPostgres(t, dir)
	pidFile := filepath.Join(dir, "data", "postmaster.pid")
	content, err := os.ReadFile(pidFile)
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(first.PID(), syscall.SIGKILL))
	requireDone(t, first.Done())

	other := fmtInt(startPostgres(t, openDir(t)).PID())
	_, rest, found := bytes.Cut(content, []byte("\n"))
	require.True(t, found)
	require.NoError(t, os.WriteFile(pidFile, append([]byte(other+"\n"), rest...), 0o600))

	startPostgres(t, dir)
}

func TestPostgresRefusesDataInUse(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	first := startPostgres(t, dir)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, err := StartPostgres(ctx, PostgresOptions{Dir: dir, Fast: true})
	require.EqualError(t, err, "another Postgres (process "+fmtInt(first.PID())+") already runs on "+
		filepath.Join(dir, "data")+"; stop it, or choose another directory with --data-dir")
}

func TestPostgresRefusesATakenPort(t *testing.T) {
	t.Parallel()
	port := occupy(t)
	_, err := StartPostgres(context.Background(), PostgresOptions{Dir: openDir(t), Port: port, Fast: true})
	require.EqualError(t, err, "port "+fmtInt(port)+", wanted for Postgres, is already in use; choose another with --postgres-port")
}

func TestPostgresRefusesDataOfAnotherVersion(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "data"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "data", "PG_VERSION"), []byte("9\n"), 0o600))
	_, err := StartPostgres(context.Background(), PostgresOptions{Dir: dir, Fast: true})
	require.EqualError(t, err, "the data in "+dir+" was made by Postgres 9, which is not installed; install it, or choose another directory with --data-dir")
}

func TestPostgresSaysWhatKeepsItFromStarting(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	stop(t, startPostgres(t, dir))
	conf := filepath.Join(dir, "data", "postgresql.conf")
	require.NoError(t, os.WriteFile(conf, []byte("no_such_setting = 1\n"), 0o600))
	_, err := StartPostgres(context.Background(), PostgresOptions{Dir: dir, Fast: true})
	require.ErrorContains(t, err, "Postgres ended (exit status 1); "+filepath.Join(dir, "postgres.log")+" ends with:\n")
	require.ErrorContains(t, err, "no_such_setting")
}

func TestPostgresAsRootNeedsAWayIn(t *testing.T) {
	t.Parallel()
	closed := openDir(t)
	require.NoError(t, os.Chmod(closed, 0o700))
	dir := filepath.Join(closed, "postgres")
	server, err := StartPostgres(context.Background(), PostgresOptions{Dir: dir, Fast: true})
	if os.Geteuid() != 0 {
		require.NoError(t, err) // an ordinary user's Postgres is the user's own
		stop(t, server)
		return
	}
	require.ErrorContains(t, err, "cannot enter "+closed+"; choose a directory elsewhere with --data-dir, or run this as an ordinary user")
}

func TestDownloadThatFailsSaysHowToInstall(t *testing.T) {
	t.Parallel()
	empty := httptest.NewServer(http.NotFoundHandler())
	defer empty.Close()
	defer http.DefaultClient.CloseIdleConnections()
	err := downloadPostgres(context.Background(), filepath.Join(t.TempDir(), "postgres"), empty.URL)
	require.EqualError(t, err, "no Postgres was found and none could be downloaded (no version found matching 17.5.0); "+installPostgres)
}

func TestDownloadCanBeInterrupted(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(context.Background())
	asked := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		interrupt()
		<-asked
	}))
	err := downloadPostgres(ctx, filepath.Join(t.TempDir(), "postgres"), slow.URL)
	require.ErrorIs(t, err, context.Canceled)
	close(asked)
	slow.Close()
	http.DefaultClient.CloseIdleConnections()
}

func TestVersionsAreRead(t *testing.T) {
	t.Parallel()
	for version, major := range map[string]string{"17.5": "17", "15": "15", "18beta1": "18", "9.6.24": "9"} {
		require.Equal(t, major, majorOf(version))
	}
	require.Equal(t, 15, versionIn("/usr/lib/postgresql/15/bin"))
	require.Equal(t, 17, versionIn("/opt/homebrew/opt/postgresql@17/bin"))
	require.Zero(t, versionIn("/usr/bin"))
}
