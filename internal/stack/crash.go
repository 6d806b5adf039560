//go:build unix

package stack

import (
	"syscall"
	"time"

	"github.com/stretchr/testify/require"
)

// StopAtOnce is Postgres' own immediate shutdown: without a checkpoint, in the middle
// of whatever it does. Start recovers from that.
func (p *Postgres) StopAtOnce() {
	p.requireOwn()
	server := p.server
	p.server = nil
	require.NoError(p.t, syscall.Kill(server.PID(), syscall.SIGQUIT))
	<-server.Done()
	p.stopped = time.Now()
}

// Kill ends the server as a crash does, by kill -9. Its file outlives that.
func (s *Temporal) Kill() {
	s.requireOwn()
	server := s.server
	s.server = nil
	require.NoError(s.t, syscall.Kill(server.PID(), syscall.SIGKILL))
	<-server.Done()
}

// Dir holds the logs of the stack's processes, and the data of services of its own.
func (s *Stack) Dir() string { return s.dir }

// PID is that of the postmaster, whose children do the work.
func (p *Postgres) PID() int { return p.server.PID() }
