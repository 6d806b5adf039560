//go:build unix

package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// postgresStartLimit is generous because a start after a crash replays the log first.
	postgresStartLimit = 60 * time.Second
	// postgresLeftoverLimit is how long the remains of a killed server may take to go away.
	postgresLeftoverLimit = 10 * time.Second
	// postgresMaxConnections leaves room for tests that run in parallel, each with its own pool.
	postgresMaxConnections = 200
	// postgresName is the name of the user and of the database.
	postgresName = "earmark"
	// portFlagPostgres is named in the error when the port is taken.
	portFlagPostgres = "--postgres-port"
)

// PostgresOptions say how to start Postgres.
type PostgresOptions struct {
	// Dir holds the cluster (data) and the log (postgres.log). It is created if need be, and what is in it
	// is used again. For root, its owner becomes the user that Postgres runs as.
	Dir string
	// Port on 127.0.0.1; 0 takes a free one.
	Port int
	// Log gets a line before anything that takes long; nil for none.
	Log io.Writer
	// Fast gives up durability for speed. For tests: a crash of the machine may lose everything.
	Fast bool
}

// Postgres is a running server.
type Postgres struct {
	*process
	port int
}

// StartPostgres starts a server and waits until it answers. It comes with a superuser and a database, both
// called earmark, and lets in any local user without a password. The server lives until Stop: ctx is for
// the start alone.
func StartPostgres(ctx context.Context, opts PostgresOptions) (*Postgres, error) {
	s := &postgresStart{PostgresOptions: opts}
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, postgresStartLimit) // a download, if any, has a limit of its own
	defer cancel()
	leftover, err := s.awaitFormerServer(ctx)
	if err != nil {
		return nil, err
	}
	if s.Port, err = claimPort(ctx, opts.Port, "Postgres", portFlagPostgres); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(postgresLeftoverLimit); ; time.Sleep(10 * pollInterval) {
		server, err := s.launch(ctx)
		// A killed server may leave processes behind that still hold its shared memory. They notice and
		// go, but Postgres refuses to start until they have.
		if err == nil || !leftover || ctx.Err() != nil || time.Now().After(deadline) {
			return server, err
		}
	}
}

// URL is the connection string of the database earmark.
func (p *Postgres) URL() string { return postgresURL(p.port, postgresName) }

func postgresURL(port int, database string) string {
	return fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", postgresName, hostPort(port), database)
}

// postgresStart is what is known about a server that does not run yet.
type postgresStart struct {
	PostgresOptions
	bin   string // where initdb and postgres are
	owner *owner
}

func (s *postgresStart) dataDir() string { return filepath.Join(s.Dir, "data") }

// prepare leaves a cluster in the data directory that the server's user owns and that the binaries fit.
func (s *postgresStart) prepare(ctx context.Context) (err error) {
	if s.Dir, err = filepath.Abs(s.Dir); err != nil {
		return fmt.Errorf("find the Postgres directory: %w", err)
	}
	if err := os.MkdirAll(s.Dir, dirMode); err != nil {
		return fmt.Errorf("create the Postgres directory: %w", err)
	}
	if s.Dir, err = filepath.EvalSymlinks(s.Dir); err != nil {
		return fmt.Errorf("find the Postgres directory: %w", err)
	}
	if s.owner, err = postgresOwner(s.Dir, s.dataDir()); err != nil {
		return err
	}
	version, err := clusterVersion(s.dataDir())
	if err != nil {
		return err
	}
	if s.bin, err = findPostgres(ctx, version, s.Dir, s.Log); err != nil || version != "" {
		return err
	}
	return s.createCluster(ctx)
}

// createCluster runs initdb. It works on a directory of another name, so that an interrupted run leaves
// nothing behind that looks like a cluster.
func (s *postgresStart) createCluster(ctx context.Context) error {
	logTo(s.Log, "creating a Postgres database in %s", s.dataDir())
	unfinished := s.dataDir() + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		return fmt.Errorf("remove an unfinished Postgres data directory: %w", err)
	}
	args := []string{"--pgdata", unfinished, "--username", postgresName, "--auth", "reject", "--encoding", "UTF8", "--locale", "C"}
	if s.Fast {
		args = append(args, "--no-sync")
	}
	if output, err := s.command(ctx, "initdb", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("create a Postgres database in %s: %w\n%s", s.dataDir(), err, output)
	}
	// No password, but only for whoever is on this machine, and only over TCP.
	hba := "host all all " + loopback + "/32 trust\n"
	if err := os.WriteFile(filepath.Join(unfinished, "pg_hba.conf"), []byte(hba), 0o600); err != nil {
		return fmt.Errorf("write pg_hba.conf: %w", err)
	}
	if err := os.Rename(unfinished, s.dataDir()); err != nil {
		return fmt.Errorf("put the Postgres data directory in place: %w", err)
	}
	return nil
}

// command runs one of the Postgres programs as the user that owns the data.
func (s *postgresStart) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, program), args...)
	cmd.Dir = s.Dir // the current one may be closed to that user
	// Nothing from the environment: PGDATA, PGPORT and the rest would speak against the arguments.
	cmd.Env = []string{"PATH=" + s.bin + ":" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner.credential}
	return cmd
}

func (s *postgresStart) launch(ctx context.Context) (*Postgres, error) {
	settings := []string{
		"port=" + strconv.Itoa(s.Port),
		"listen_addresses=" + loopback,
		"unix_socket_directories=", // none: the path of a socket is limited to 107 bytes
		"max_connections=" + strconv.Itoa(postgresMaxConnections),
		"timezone=UTC",
		"log_timezone=UTC",
	}
	if s.Fast {
		settings = append(settings, "fsync=off", "synchronous_commit=off", "full_page_writes=off")
	}
	args := []string{"-D", s.dataDir()}
	for _, setting := range settings {
		args = append(args, "-c", setting)
	}
	// The server outlives ctx. SIGINT is its fast shutdown. SIGQUIT, for when nobody is left to stop it, is
	// the one without a checkpoint: a restart may come at once, and the log makes up for it.
	cmd := s.command(context.WithoutCancel(ctx), "postgres", args...)
	child, err := startProcess("Postgres", cmd, filepath.Join(s.Dir, "postgres.log"), syscall.SIGINT, syscall.SIGQUIT)
	if err != nil {
		return nil, err
	}
	if err := createDatabase(ctx, child, s.Port); err != nil {
		return nil, errors.Join(err, child.kill())
	}
	return &Postgres{process: child, port: s.Port}, nil
}

// createDatabase waits until the server answers and makes sure that the database exists.
func createDatabase(ctx context.Context, child *process, port int) error {
	conn, err := connect(ctx, child, port)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()

	var exists bool
	const find = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)"
	if err := conn.QueryRow(ctx, find, postgresName).Scan(&exists); err != nil {
		return fmt.Errorf("look for the database: %w", err)
	}
	if exists {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+postgresName); err != nil {
		return fmt.Errorf("create the database: %w", err)
	}
	return nil
}

func connect(ctx context.Context, child *process, port int) (*pgx.Conn, error) {
	for {
		conn, err := pgx.Connect(ctx, postgresURL(port, "postgres"))
		if err == nil {
			return conn, nil
		}
		select {
		case <-child.Done():
			return nil, child.Err()
		case <-ctx.Done():
			return nil, fmt.Errorf("Postgres does not answer: %w%s", err, child.lastWords())
		case <-time.After(pollInterval):
		}
	}
}

// clusterVersion is the major version that the data directory was made by, or "" if there is none yet.
func clusterVersion(dataDir string) (string, error) {
	content, err := os.ReadFile(filepath.Join(dataDir, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the version of the Postgres data: %w", err)
	}
	return firstField(string(content)), nil
}
