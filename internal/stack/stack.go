//go:build unix

// Package stack runs the real thing for tests: the earmark binary, built once for
// a test binary, as processes of their own on a real Postgres and a real Temporal.
// Every one of them can be killed, frozen, stopped and started again.
//
//	func TestMain(m *testing.M) { os.Exit(stack.Main(m)) }
//
//	func TestSomething(t *testing.T) {
//		t.Parallel()
//		s := stack.New(t, stack.Options{})
//		server := s.Serve().Ready()
//		…
//		server.Kill()
//		server.Restart()
//	}
//
// The stacks of a test binary share one Postgres and one Temporal, each with a
// database and a namespace of its own there, unless a test asks for services that
// it can stop. When a test ends, its processes are killed and its ledger has to
// pass `earmark audit`. What is missing fails the tests; nothing is skipped.
package stack

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
)

const (
	// readyLimit bounds how long a process or a service may take to be ready.
	readyLimit = 30 * time.Second
	// commandLimit bounds a command that is run to its end.
	commandLimit = time.Minute
	pollInterval = 20 * time.Millisecond
	// logTailBytes of each log are shown when a test fails.
	logTailBytes = 24 << 10
	// maxPoolConns of a stack's own pool; what runs under test has pools of its own.
	maxPoolConns = 4
)

// DefaultGrace is how long past its expiry a reservation is left to its workflow,
// unless Options say otherwise: longer than a test, so that what expires is the
// workflow's doing.
const DefaultGrace = time.Minute

// DefaultAdmissionDeadline is how long an admission may take, unless Options say
// otherwise: longer than the product's default, which a machine that is busy with
// other tests may miss without anything being wrong.
const DefaultAdmissionDeadline = 10 * time.Second

// Options say what a stack is like.
type Options struct {
	// OwnPostgres and OwnTemporal start one for this stack alone, whose data survive
	// a stop. Without them the services are shared, and cannot be stopped.
	OwnPostgres bool
	OwnTemporal bool
	// TemporalAddress is that of a Temporal server that the test runs itself, instead of either.
	TemporalAddress string
	// Durable makes an own Postgres as durable, and as slow, as it is in production.
	Durable bool
	// Grace is --grace of every process; DefaultGrace when zero.
	Grace time.Duration
	// AdmissionDeadline is --admission-deadline of every server; DefaultAdmissionDeadline
	// when zero.
	AdmissionDeadline time.Duration
	// Keys makes servers ask for keys.
	Keys bool
	// Unmigrated leaves out `earmark migrate up`, and then the audit.
	Unmigrated bool
	// Unaudited leaves out the audit at the end, for a ledger that was broken on purpose.
	Unaudited bool
}

// Stack is one database and one namespace, and the processes that work on them.
type Stack struct {
	// Postgres and Temporal are what the stack runs on.
	Postgres *Postgres
	Temporal *Temporal
	// DatabaseURL and Namespace are this stack's alone.
	DatabaseURL string
	Namespace   string

	t       testing.TB
	options Options
	dir     string
	binary  string
	logs    int
	env     []string
	pool    *pgxpool.Pool
	client  client.Client
}

var stacks atomic.Int64

// New makes a stack that lives as long as the test.
func New(tb testing.TB, options Options) *Stack {
	tb.Helper()
	if options.Grace == 0 {
		options.Grace = DefaultGrace
	}
	if options.AdmissionDeadline == 0 {
		options.AdmissionDeadline = DefaultAdmissionDeadline
	}
	s := &Stack{t: tb, options: options, binary: Binary(tb), dir: openDir(tb)}
	if options.OwnPostgres {
		s.Postgres = newPostgres(tb, filepath.Join(s.dir, "postgres"), !options.Durable)
	} else {
		s.Postgres = sharedPostgres(tb)
	}
	switch {
	case options.TemporalAddress != "":
		s.Temporal = &Temporal{address: options.TemporalAddress}
	case options.OwnTemporal:
		s.Temporal = newTemporal(tb, filepath.Join(s.dir, "temporal"))
	default:
		s.Temporal = sharedTemporal(tb)
	}
	name := fmt.Sprintf("earmark_%d", stacks.Add(1))
	s.DatabaseURL = s.Postgres.createDatabase(tb, name)
	s.Namespace = client.DefaultNamespace
	if !options.OwnTemporal && options.TemporalAddress == "" {
		s.Namespace = strings.ReplaceAll(name, "_", "-")
		s.Temporal.createNamespace(tb, s.Namespace)
	}
	if !options.Unmigrated {
		s.MustRun("migrate", "up")
	}
	tb.Cleanup(s.end)
	return s
}

// end runs when the processes have been killed. What they left in the ledger has
// to add up, however they died.
func (s *Stack) end() {
	s.Use(Binary(s.t))
	if s.client != nil {
		s.client.Close()
	}
	if s.pool != nil {
		s.pool.Close()
	}
	if s.options.Unmigrated || s.options.Unaudited {
		return
	}
	s.Postgres.Start()
	s.Audit()
}

// Audit runs `earmark audit`, which has to find nothing.
func (s *Stack) Audit() {
	s.t.Helper()
	result := s.Run("audit")
	require.Zero(s.t, result.Code, "the ledger does not add up:\n%s%s", result.Stdout, result.Stderr)
}

// Serve starts `earmark serve` on a free port, without a drain delay unless a flag says
// otherwise. It returns once the server listens; see Ready.
func (s *Stack) Serve(flags ...string) *Server {
	s.t.Helper()
	args := []string{"serve", "--drain-delay", "0s", "--grace", s.options.Grace.String(), "--admission-deadline", s.options.AdmissionDeadline.String()}
	return newServer(s, append(args, flags...))
}

// Worker starts `earmark worker`.
func (s *Stack) Worker(flags ...string) *Process {
	s.t.Helper()
	process := s.process("worker", append([]string{"worker", "--grace", s.options.Grace.String()}, flags...))
	process.Start()
	return process
}

// Process prepares any other earmark command, to be started by its Start.
func (s *Stack) Process(args ...string) *Process {
	s.t.Helper()
	return s.process(args[0], args)
}

func (s *Stack) process(name string, args []string) *Process {
	s.logs++
	name += "-" + strconv.Itoa(s.logs)
	return newProcess(s.t, name, filepath.Join(s.dir, name+".log"), s.Env(), s.binary, args)
}

// Env is the environment that a stack's processes run in, on top of the test's own.
func (s *Stack) Env() []string {
	env := append(bareEnv(), s.env...)
	if !s.options.Keys {
		env = append(env, "EARMARK_WITHOUT_KEYS=true")
	}
	return append(env, "EARMARK_DATABASE_URL="+s.DatabaseURL, "TEMPORAL_ADDRESS="+s.Temporal.Address(), "TEMPORAL_NAMESPACE="+s.Namespace)
}

// Setenv adds to the environment of the processes that are started from now on; the
// last one of a name counts.
func (s *Stack) Setenv(name, value string) { s.env = append(s.env, name+"="+value) }

// bareEnv is the test's environment without what would steer an earmark process.
func bareEnv() []string {
	var env []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "EARMARK_") && !strings.HasPrefix(entry, "TEMPORAL_") && !strings.HasPrefix(entry, "OTEL_") {
			env = append(env, entry)
		}
	}
	return env
}

// Result is what a command that ran to its end said.
type Result struct {
	Code   int
	Stdout string
	Stderr string
}

// Run runs an earmark command on the stack to its end.
func (s *Stack) Run(args ...string) Result {
	s.t.Helper()
	return RunCommand(s.t, s.Env(), s.binary, args...)
}

// MustRun is Run for a command that has to succeed; it returns what it wrote.
func (s *Stack) MustRun(args ...string) string {
	s.t.Helper()
	result := s.Run(args...)
	require.Zero(s.t, result.Code, "earmark %s:\n%s%s", strings.Join(args, " "), result.Stdout, result.Stderr)
	return result.Stdout
}

// RunCommand runs any program to its end.
func RunCommand(tb testing.TB, env []string, program string, args ...string) Result {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &stdout, &stderr
	err := cmd.Run()
	require.NoError(tb, ctx.Err(), "%s %s did not end:\n%s%s", program, strings.Join(args, " "), &stdout, &stderr)
	if cmd.ProcessState == nil {
		require.NoError(tb, err)
	}
	return Result{Code: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}
}

// Pool is a pool on the stack's database, for looking into it past the product.
func (s *Stack) Pool() *pgxpool.Pool {
	s.t.Helper()
	if s.pool == nil {
		config, err := pgxpool.ParseConfig(s.DatabaseURL)
		require.NoError(s.t, err)
		config.MaxConns = maxPoolConns
		s.pool, err = pgxpool.NewWithConfig(context.Background(), config)
		require.NoError(s.t, err)
	}
	return s.pool
}

// Exec runs one SQL statement on the stack's database.
func (s *Stack) Exec(sql string, args ...any) {
	s.t.Helper()
	_, err := s.Pool().Exec(context.Background(), sql, args...)
	require.NoError(s.t, err)
}

// Client is a Temporal client on the stack's namespace, which knows nothing of
// the product. It is made at the first call and connects when it is used.
func (s *Stack) Client() client.Client {
	s.t.Helper()
	if s.client == nil {
		var err error
		s.client, err = client.NewLazyClient(client.Options{HostPort: s.Temporal.Address(), Namespace: s.Namespace, Logger: quiet})
		require.NoError(s.t, err)
	}
	return s.client
}

// Eventually polls until check is true. what says what was waited for.
func Eventually(tb testing.TB, limit time.Duration, what string, check func() bool) {
	tb.Helper()
	deadline := time.Now().Add(limit)
	for !check() {
		if time.Now().After(deadline) {
			require.FailNow(tb, "waited in vain", "%s, for %s", what, limit)
		}
		time.Sleep(pollInterval) //nolint:forbidigo // polls
	}
}

// openDir is a temporary directory that other users may enter, which that of
// t.TempDir is not: as root, Postgres runs as another user.
func openDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "earmark-stack-")
	require.NoError(tb, err)
	require.NoError(tb, os.Chmod(dir, 0o755))
	tb.Cleanup(func() { require.NoError(tb, os.RemoveAll(dir)) })
	return dir
}

func databaseURL(serverURL, database string) (string, error) {
	parsed, err := url.Parse(serverURL)
	if err != nil {
		return "", err
	}
	parsed.Path = "/" + database
	return parsed.String(), nil
}

// execute runs one statement on a server, in a database that always exists.
func execute(ctx context.Context, serverURL, sql string) error {
	conn, err := pgx.Connect(ctx, serverURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, sql)
	return err
}
