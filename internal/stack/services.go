//go:build unix

package stack

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	temporallog "go.temporal.io/sdk/log"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/earmark-dev/earmark/internal/devstack"
)

// retention of closed workflows: the shortest that Temporal takes.
const retention = 24 * time.Hour

var quiet = temporallog.NewStructuredLogger(slog.New(slog.DiscardHandler))

// Postgres is a server that can be stopped and started again on the same port.
type Postgres struct {
	t       testing.TB // nil: shared
	options devstack.PostgresOptions
	server  *devstack.Postgres // nil while stopped
	stopped time.Time          // when it last was; the zero time if never
	url     string
	standby *Postgres
}

// pingedAfter is how long a connection has to be idle before pgx's pool asks whether it is still there. One that broke
// sooner fails one call, which a test of a server that is back again does not expect.
const pingedAfter = time.Second

func startPostgres(dir string, fast bool) (*Postgres, error) {
	p := &Postgres{}
	err := onFreePort(func(port int) (err error) {
		p.options = devstack.PostgresOptions{Dir: dir, Port: port, Fast: fast, Superuser: true}
		p.server, err = devstack.StartPostgres(context.Background(), p.options)
		return err
	})
	if err == nil {
		p.url = p.server.URL()
	}
	return p, err
}

func newPostgres(tb testing.TB, dir string, fast bool) *Postgres {
	tb.Helper()
	p, err := startPostgres(dir, fast)
	require.NoError(tb, err)
	p.t = tb
	tb.Cleanup(func() {
		if p.standby != nil {
			p.standby.Stop()
		}
		p.Stop()
	})
	tb.Cleanup(func() { showLog(tb, "postgres", filepath.Join(dir, "postgres.log")) })
	return p
}

// Stop shuts the server down in order, which ends every connection.
func (p *Postgres) Stop() {
	if p.server != nil {
		p.requireOwn()
		p.Resume() // in case it is frozen
		server := p.server
		p.server = nil
		require.NoError(p.t, server.Stop(context.Background()))
		p.stopped = time.Now()
	}
}

// Start starts a stopped server; one that runs already is left alone. Every connection that broke has been idle for
// pingedAfter by then.
func (p *Postgres) Start() {
	if p.server == nil {
		time.Sleep(time.Until(p.stopped.Add(pingedAfter))) //nolint:forbidigo // nothing tells that pools have lost their connections
		var err error
		p.server, err = devstack.StartPostgres(context.Background(), p.options)
		require.NoError(p.t, err)
	}
}

// Pause freezes the server and everybody's connections to it: they stay open, and
// nothing answers. Resume lets it go on.
func (p *Postgres) Pause() {
	p.requireOwn()
	// The postmaster first, so that it makes no more children.
	require.NoError(p.t, syscall.Kill(p.server.PID(), syscall.SIGSTOP))
	awaitStill(p.t, p.server.PID())
	awaitStill(p.t, p.signalChildren(syscall.SIGSTOP)...)
}

// Resume lets a frozen server go on.
func (p *Postgres) Resume() {
	p.requireOwn()
	require.NoError(p.t, syscall.Kill(p.server.PID(), syscall.SIGCONT))
	p.signalChildren(syscall.SIGCONT)
}

// signalChildren is for the server's processes, which lead groups of their own.
func (p *Postgres) signalChildren(signal syscall.Signal) []int {
	children, err := Descendants(p.server.PID())
	require.NoError(p.t, err)
	for _, pid := range children {
		_ = syscall.Kill(pid, signal) // it may just have ended
	}
	return children
}

func (p *Postgres) requireOwn() {
	if p.t == nil {
		panic("stack: a shared Postgres cannot be stopped; ask for one with Options.OwnPostgres")
	}
}

func (p *Postgres) createDatabase(tb testing.TB, name string) string {
	tb.Helper()
	require.NoError(tb, execute(context.Background(), p.url, "CREATE DATABASE "+name))
	created, err := databaseURL(p.url, name)
	require.NoError(tb, err)
	return created
}

// Temporal is a server that can be stopped and started again on the same port.
type Temporal struct {
	t       testing.TB // nil: shared, or run by the test itself
	options devstack.TemporalOptions
	server  *devstack.Temporal // nil while stopped
	address string
}

func startTemporal(dir string, inMemory bool) (*Temporal, error) {
	s := &Temporal{}
	err := onFreePort(func(port int) (err error) {
		s.options = devstack.TemporalOptions{Dir: dir, Port: port, Headless: true, InMemory: inMemory}
		s.server, err = devstack.StartTemporal(context.Background(), s.options)
		return err
	})
	if err == nil {
		s.address = s.server.Address()
	}
	return s, err
}

func newTemporal(tb testing.TB, dir string) *Temporal {
	tb.Helper()
	s, err := startTemporal(dir, false)
	require.NoError(tb, err)
	s.t = tb
	tb.Cleanup(s.Stop)
	tb.Cleanup(func() { showLog(tb, "temporal", filepath.Join(dir, "temporal.log")) })
	return s
}

// Address is the host and port of the frontend, running or not.
func (s *Temporal) Address() string { return s.address }

// Stop shuts the server down in order.
func (s *Temporal) Stop() {
	if s.server != nil {
		s.requireOwn()
		s.Resume() // in case it is frozen
		server := s.server
		s.server = nil
		require.NoError(s.t, server.Stop(context.Background()))
	}
}

// Start starts a stopped server; one that runs already is left alone.
func (s *Temporal) Start() {
	if s.server == nil && s.t != nil {
		var err error
		s.server, err = devstack.StartTemporal(context.Background(), s.options)
		require.NoError(s.t, err)
	}
}

// Pause freezes the server: connections stay open, and nothing answers.
func (s *Temporal) Pause() {
	s.requireOwn()
	require.NoError(s.t, syscall.Kill(s.server.PID(), syscall.SIGSTOP))
	awaitStill(s.t, s.server.PID())
}

// Resume lets a frozen server go on.
func (s *Temporal) Resume() {
	s.requireOwn()
	require.NoError(s.t, syscall.Kill(s.server.PID(), syscall.SIGCONT))
}

func (s *Temporal) requireOwn() {
	if s.t == nil {
		panic("stack: a shared Temporal cannot be stopped; ask for one with Options.OwnTemporal")
	}
}

// createNamespace registers a namespace and waits until every part of the server
// knows it.
func (s *Temporal) createNamespace(tb testing.TB, name string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), readyLimit)
	defer cancel()
	c, err := client.NewLazyClient(client.Options{HostPort: s.address, Namespace: name, Logger: quiet})
	require.NoError(tb, err)
	defer c.Close()
	_, err = c.WorkflowService().RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace: name, WorkflowExecutionRetentionPeriod: durationpb.New(retention),
	})
	require.NoError(tb, err)
	Eventually(tb, readyLimit, "namespace "+name, func() bool {
		_, err := c.DescribeWorkflowExecution(ctx, "none", "")
		var unknownNamespace *serviceerror.NamespaceNotFound
		var notFound *serviceerror.NotFound
		return errors.As(err, &notFound) && !errors.As(err, &unknownNamespace)
	})
}

// showLog shows the end of a log when the test has failed.
func showLog(tb testing.TB, name, path string) {
	tb.Helper()
	if !tb.Failed() {
		return
	}
	content, err := os.ReadFile(path)
	if err != nil {
		tb.Logf("the log of %s: %v", name, err)
		return
	}
	omitted := max(0, len(content)-logTailBytes)
	tb.Logf("the log of %s, %d bytes left out:\n%s", name, omitted, content[omitted:])
}
