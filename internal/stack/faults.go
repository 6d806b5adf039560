//go:build unix

package stack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/ledgertest"
)

// Kill ends the server as a crash does: every process of it by kill -9, in the
// middle of whatever it does. Start recovers from that.
func (p *Postgres) Kill() {
	p.requireOwn()
	server := p.server
	// The postmaster stands still before its children are listed: one that it made after that would survive, and keep
	// the next server from starting.
	require.NoError(p.t, syscall.Kill(server.PID(), syscall.SIGSTOP))
	awaitStill(p.t, server.PID())
	children, err := Descendants(server.PID())
	require.NoError(p.t, err)
	for _, pid := range append([]int{server.PID()}, children...) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may just have ended
	}
	<-server.Done()
	p.server, p.stopped = nil, time.Now()
}

// Backup stops the server, copies its files, and starts it again. It returns what
// puts them back the same way: everything since is lost then.
func (p *Postgres) Backup() (restore func()) {
	p.requireOwn()
	data := filepath.Join(p.options.Dir, "data")
	backup := data + ".backup"
	p.Stop()
	copyFiles(p.t, data, backup)
	p.Start()
	return func() {
		p.Stop()
		require.NoError(p.t, os.RemoveAll(data))
		copyFiles(p.t, backup, data)
		p.Start()
	}
}

// copyFiles copies a directory with the owners and the modes of all that is in it.
func copyFiles(tb testing.TB, from, to string) {
	tb.Helper()
	output, err := exec.Command("cp", "-a", from, to).CombinedOutput()
	require.NoError(tb, err, "%s", output)
}

// Forget stops the server and starts it with nothing: no history, no schedule, no
// search attribute is left.
func (s *Temporal) Forget() {
	s.Stop()
	files, err := filepath.Glob(filepath.Join(s.options.Dir, "temporal.db*"))
	require.NoError(s.t, err)
	require.NotEmpty(s.t, files)
	for _, file := range files {
		require.NoError(s.t, os.Remove(file))
	}
	s.Start()
}

// gateSQL makes a transition wait in the middle, after its balances have changed and
// before it is committed, while test.gate names its kind of entry.
const gateSQL = `
CREATE SCHEMA test;
CREATE TABLE test.gate (kind text NOT NULL);
CREATE FUNCTION test.wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WHILE EXISTS (SELECT FROM test.gate WHERE kind = NEW.kind) LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER test_gate AFTER INSERT ON earmark.entries FOR EACH ROW EXECUTE FUNCTION test.wait_at_gate()`

// Gate holds transitions up in Postgres, each within its transaction, so that a test
// can do its worst at a known point.
type Gate struct{ s *Stack }

// Gate puts a gate into the ledger of the stack. It is open.
func (s *Stack) Gate() Gate {
	s.t.Helper()
	s.Exec(gateSQL)
	return Gate{s}
}

// Close makes every transition wait that writes an entry of this kind.
func (g Gate) Close(kind string) { g.s.t.Helper(); g.s.Exec("INSERT INTO test.gate VALUES ($1)", kind) }

// Open lets all go on.
func (g Gate) Open() { g.s.t.Helper(); g.s.Exec("DELETE FROM test.gate") }

// Await waits until somebody waits at the gate.
func (g Gate) Await() {
	g.s.t.Helper()
	Eventually(g.s.t, readyLimit, "somebody at the gate", func() bool {
		var waiting bool
		err := g.s.Pool().QueryRow(context.Background(),
			"SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep')").Scan(&waiting)
		require.NoError(g.s.t, err)
		return waiting
	})
}

// shiftSQL makes a clock that runs ahead of Postgres' own.
const shiftSQL = `
CREATE SCHEMA clock;
CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS
    $$ BEGIN RETURN pg_catalog.clock_timestamp() + interval '%d seconds'; END $$;`

// ShiftPostgres sets the clock of the stack's ledger ahead of everybody else's, for
// connections that are made from now on.
func (s *Stack) ShiftPostgres(ahead time.Duration) {
	s.t.Helper()
	s.Exec(fmt.Sprintf(shiftSQL, int64(ahead/time.Second)) + ledgertest.ReplaceClock("clock"))
	s.Pool().Reset()
}
