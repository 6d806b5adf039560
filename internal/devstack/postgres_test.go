//go:build unix

package devstack

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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

// portOf is the port that a server listens on.
func portOf(server *Postgres) int {
	config, err := pgx.ParseConfig(server.URL())
	if err != nil {
		panic(err)
	}
	return int(config.Port)
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

// Another account of the machine reaches the port, too.
func TestPostgresAsksForThePassword(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	server := startPostgres(t, dir)
	for name, connection := range map[string]string{
		"no password":       fmt.Sprintf("postgres://earmark@127.0.0.1:%d/earmark?passfile=/dev/null", portOf(server)),
		"a wrong password":  fmt.Sprintf("postgres://earmark:earmark@127.0.0.1:%d/earmark", portOf(server)),
		"the superuser":     fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?passfile=/dev/null", portOf(server)),
		"another user":      fmt.Sprintf("postgres://nobody@127.0.0.1:%d/postgres?passfile=/dev/null", portOf(server)),
		"superuser with it": strings.Replace(server.URL(), "//earmark@", "//postgres@", 1),
	} {
		_, err := pgx.Connect(t.Context(), connection)
		require.Error(t, err, name)
		var refused *pgconn.PgError
		require.ErrorAs(t, err, &refused, name)
		require.Contains(t, []string{pgerrInvalidAuthorization, pgerrInvalidPassword}, refused.Code, name)
	}
	require.Equal(t, "false", query(t, server.URL(), "SELECT rolsuper::text FROM pg_roles WHERE rolname = current_user"))
	require.Equal(t, "earmark", query(t, server.URL(), "SELECT datdba::regrole::text FROM pg_database WHERE datname = 'earmark'"))
	conn, err := pgx.Connect(t.Context(), server.URL())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	_, err = conn.Exec(t.Context(), "COPY (SELECT 1) TO PROGRAM 'cat'")
	var denied *pgconn.PgError
	require.ErrorAs(t, err, &denied)
	require.Equal(t, "42501", denied.Code, "insufficient_privilege")

	// The path goes into the connection string whatever it holds.
	require.Equal(t, PostgresURL(dir, portOf(server)), server.URL())
	require.Contains(t, PostgresURL("/a b/c&d+e", 5433), "passfile=%2Fa%20b%2Fc%26d%2Be%2Fpgpass")
}

// SQLSTATE of a refused login.
const (
	pgerrInvalidAuthorization = "28000"
	pgerrInvalidPassword      = "28P01"
)

func TestPostgresKeepsItsFilesToItself(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "postgres.log"), nil, 0o644)) // as an earlier version left it
	first, err := StartPostgres(context.Background(), PostgresOptions{Dir: dir, Fast: true})
	require.NoError(t, err)
	requireClosed(t, dir)
	password, err := os.ReadFile(passwordFile(dir))
	require.NoError(t, err)
	stop(t, first)

	startPostgres(t, dir)
	again, err := os.ReadFile(passwordFile(dir))
	require.NoError(t, err)
	require.Equal(t, string(password), string(again), "a restart keeps the password")
	other := startPostgres(t, openDir(t))
	otherPassword, err := pgx.ParseConfig(other.URL())
	require.NoError(t, err)
	require.NotContains(t, string(password), otherPassword.Password, "each cluster has a password of its own")
}

// requireClosed checks that nobody but the owner can read anything in dir.
func requireClosed(t *testing.T, dir string) {
	t.Helper()
	seen := 0
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		seen++
		require.Zero(t, info.Mode().Perm()&0o077, "%s has mode %s", path, info.Mode())
		return nil
	}))
	require.Greater(t, seen, 1)
}

// Data of a version that let everybody in is left alone.
func TestPostgresWithoutAPasswordIsRefused(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	server, err := StartPostgres(context.Background(), PostgresOptions{Dir: dir, Fast: true})
	require.NoError(t, err)
	stop(t, server)
	require.NoError(t, os.Remove(passwordFile(dir)))
	_, err = StartPostgres(context.Background(), PostgresOptions{Dir: dir, Fast: true})
	require.ErrorContains(t, err, "the Postgres data in "+dir+" has no password")
	require.ErrorContains(t, err, "choose another directory with --data-dir, or remove this one")
	require.FileExists(t, filepath.Join(dir, "data", "PG_VERSION"))
}
