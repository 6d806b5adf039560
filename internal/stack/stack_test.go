//go:build unix

package stack_test

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/stack"
)

func TestMain(m *testing.M) { os.Exit(stack.Main(m)) }

// The harness does to processes what it says.
func TestProcessesUnderControl(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	server := s.Serve().Ready()
	worker := s.Worker()
	worker.AwaitLog("Started Worker")
	address := server.URL

	server.Pause()
	require.False(t, server.IsReady())
	server.Resume()
	stack.Eventually(t, 10*time.Second, "an answer", server.IsReady)

	server.Kill()
	require.False(t, server.Alive())
	require.False(t, server.IsReady())
	server.Restart()
	require.Equal(t, address, server.URL)
	server.Ready()
	require.Less(t, server.Stop(), 20*time.Second)
	require.Zero(t, server.Wait(time.Second))
	server.Kill() // of what has ended

	require.Less(t, worker.Stop(), 20*time.Second)
	worker.Start()
	worker.Signal(syscall.SIGKILL)
	require.Equal(t, -1, worker.Wait(10*time.Second))
	require.Contains(t, s.MustRun("migrate", "status"), "APPLIED")
	require.Equal(t, 2, s.Run("frobnicate").Code)
}

// Services of a stack's own keep their addresses and their data over a stop.
func TestServicesUnderControl(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{OwnPostgres: true, OwnTemporal: true})
	server := s.Serve().Ready()
	s.Exec("CREATE TABLE kept (n integer)")
	s.Postgres.Stop()
	s.Temporal.Stop()
	// An answer of /readyz stands for half a second.
	stack.Eventually(t, 10*time.Second, "the server to be unready", func() bool { return !server.IsReady() })
	s.Postgres.Start()
	s.Temporal.Start()
	server.Ready()
	stack.Eventually(t, 10*time.Second, "the pool to be over it", func() bool {
		_, err := s.Pool().Exec(t.Context(), "INSERT INTO kept VALUES (1)")
		return err == nil
	})
	s.Postgres.Pause()
	s.Temporal.Pause()
	stack.Eventually(t, 10*time.Second, "the server to be unready", func() bool { return !server.IsReady() })
	s.Postgres.Resume()
	s.Temporal.Resume()
	server.Ready()
}
