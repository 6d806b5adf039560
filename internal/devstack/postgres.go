//go:build unix

package devstack

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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
	// postgresName is the name of the role and of the database.
	postgresName = "earmark"
	// postgresSuperuser owns the cluster. pg_hba.conf lets nobody in by this name.
	postgresSuperuser = "postgres"
	// passwordBytes of randomness are in the role's password.
	passwordBytes = 24
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
	// Superuser makes the role a superuser in a new cluster. For tests and measurements.
	Superuser bool
}

// Postgres is a running server.
type Postgres struct {
	*process
	url string
}

// StartPostgres starts a server and waits until it answers. It has one database and one role, both called
// earmark. The role owns the database, and its password is in a file that only the owner of Dir can read.
// The server lives until Stop: ctx is for the start alone.
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

// URL is the connection string of the database earmark. It names the file that holds the password.
func (p *Postgres) URL() string { return p.url }

// PostgresURL is the connection string of the server that StartPostgres starts for dir and port.
func PostgresURL(dir string, port int) string {
	// libpq takes a plus for a plus.
	file := strings.ReplaceAll(url.QueryEscape(passwordFile(dir)), "+", "%20")
	return fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable&passfile=%s", postgresName, hostPort(port), postgresName, file)
}

// passwordFile has the form of libpq's password files.
func passwordFile(dir string) string { return filepath.Join(dir, "pgpass") }

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
	if err := os.MkdirAll(s.Dir, passableDirMode()); err != nil {
		return fmt.Errorf("create the Postgres directory: %w", err)
	}
	if s.Dir, err = filepath.EvalSymlinks(s.Dir); err != nil {
		return fmt.Errorf("find the Postgres directory: %w", err)
	}
	if s.owner, err = postgresOwner(s.Dir, s.dataDir()); err != nil {
		return err
	}
	if err := os.Chmod(s.Dir, privateDirMode); err != nil {
		return fmt.Errorf("close the Postgres directory to others: %w", err)
	}
	version, err := clusterVersion(s.dataDir())
	if err != nil {
		return err
	}
	if s.bin, err = findPostgres(ctx, version, s.Dir, s.Log); err != nil {
		return err
	}
	if version == "" {
		return s.createCluster(ctx)
	}
	if _, err := os.Stat(passwordFile(s.Dir)); err != nil {
		return fmt.Errorf("the Postgres data in %s has no password (%w): an earlier version of earmark dev made it and let everyone on this machine in; choose another directory with --data-dir, or remove this one", s.Dir, err)
	}
	return nil
}

// createCluster runs initdb. It works on a directory of another name, so that an interrupted run leaves
// nothing behind that looks like a cluster.
func (s *postgresStart) createCluster(ctx context.Context) error {
	logTo(s.Log, "creating a Postgres database in %s", s.dataDir())
	unfinished := s.dataDir() + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		return fmt.Errorf("remove an unfinished Postgres data directory: %w", err)
	}
	args := []string{"--pgdata", unfinished, "--username", postgresSuperuser, "--auth", "reject", "--encoding", "UTF8", "--locale", "C"}
	if s.Fast {
		args = append(args, "--no-sync")
	}
	if output, err := s.command(ctx, "initdb", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("create a Postgres database in %s: %w\n%s", s.dataDir(), err, output)
	}
	if err := s.createRole(ctx, unfinished); err != nil {
		return err
	}
	hba := "# Only this role, with its password, and only over TCP from this machine.\n" +
		"host all " + postgresName + " " + loopback + "/32 scram-sha-256\n"
	if err := os.WriteFile(filepath.Join(unfinished, "pg_hba.conf"), []byte(hba), 0o600); err != nil {
		return fmt.Errorf("write pg_hba.conf: %w", err)
	}
	if err := os.Rename(unfinished, s.dataDir()); err != nil {
		return fmt.Errorf("put the Postgres data directory in place: %w", err)
	}
	return nil
}

// createRole makes the role and its database in a cluster that does not run, and leaves the password in
// its file. Nobody needs the superuser's name for that, and so nobody needs to connect by it.
func (s *postgresStart) createRole(ctx context.Context, dataDir string) error {
	random := make([]byte, passwordBytes)
	if _, err := rand.Read(random); err != nil {
		return fmt.Errorf("make a password: %w", err)
	}
	password := hex.EncodeToString(random)
	line := loopback + ":*:*:" + postgresName + ":" + password + "\n"
	if err := writePrivate(passwordFile(s.Dir), line); err != nil {
		return fmt.Errorf("write the password of Postgres: %w", err)
	}
	attributes := ""
	if s.Superuser {
		attributes = " SUPERUSER"
	}
	create := s.command(ctx, "postgres", "--single", "-D", dataDir, "-c", "exit_on_error=on", "postgres")
	create.Stdin = strings.NewReader("CREATE ROLE " + postgresName + " LOGIN" + attributes + " PASSWORD '" + password + "'\n" +
		"CREATE DATABASE " + postgresName + " OWNER " + postgresName + "\n")
	if output, err := create.CombinedOutput(); err != nil {
		return fmt.Errorf("create the role and the database %s: %w\n%s", postgresName, err, output)
	}
	return nil
}

// writePrivate writes a file that nobody but its owner can read, not even for a moment.
func writePrivate(path, content string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, privateFileMode)
	if err != nil {
		return err
	}
	_, err = file.WriteString(content)
	return errors.Join(err, file.Sync(), file.Close())
}

// command runs one of the Postgres programs as the user that owns the data.
func (s *postgresStart) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, program), args...) //nolint:gosec // the Postgres that was found, or that the user named
	cmd.Dir = s.Dir                                                         // the current one may be closed to that user
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
	server := &Postgres{process: child, url: PostgresURL(s.Dir, s.Port)}
	if err := awaitPostgres(ctx, server); err != nil {
		return nil, errors.Join(err, child.kill())
	}
	return server, nil
}

// awaitPostgres waits until the server lets the role in.
func awaitPostgres(ctx context.Context, server *Postgres) error {
	for {
		conn, err := pgx.Connect(ctx, server.URL())
		if err == nil {
			return conn.Close(context.WithoutCancel(ctx))
		}
		select {
		case <-server.Done():
			return server.Err()
		case <-ctx.Done():
			return fmt.Errorf("Postgres does not answer: %w%s", err, server.lastWords())
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
