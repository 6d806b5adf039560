//go:build unix

// Package examples_test runs the examples as their readers do, against real
// processes.
package examples_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/stack"
)

func TestMain(m *testing.M) { os.Exit(stack.Main(m)) }

// run runs a program in dir against the stack and returns what it printed.
func run(t *testing.T, s *stack.Stack, server *stack.Server, dir, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = dir
	cmd.Env = append(s.Env(), "EARMARK_URL="+server.URL)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %v:\n%s", program, args, out)
	return string(out)
}

// setup starts a server that asks for keys. Programs that run on the stack find one in EARMARK_API_KEY.
func setup(t *testing.T) (*stack.Stack, *stack.Server, string) {
	t.Helper()
	s := stack.New(t, stack.Options{Keys: true})
	key := strings.TrimSpace(s.MustRun("key", "create", "--role", "admin", "--reason", "test"))
	s.Setenv("EARMARK_API_KEY", key)
	return s, s.Serve().Ready(), key
}

// requireCommitted waits until the newest reservation is charged with usage.
func requireCommitted(t *testing.T, server *stack.Server, key string, usage earmark.Amounts) {
	t.Helper()
	earmarks, err := client.New(server.URL, client.WithAPIKey(key))
	require.NoError(t, err)
	stack.Eventually(t, 15*time.Second, "the reservation is committed", func() bool {
		page, err := earmarks.Reservations(t.Context(), earmark.ReservationFilter{Limit: 1})
		return err == nil && len(page.Data) == 1 && page.Data[0].State == earmark.StateCommitted && page.Data[0].Usage.Equal(usage)
	})
}

func TestTemporalActivityExample(t *testing.T) {
	t.Parallel()
	s, server, key := setup(t)
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	out := run(t, s, server, root, "go", "run", "./examples/temporal", "--earmark", server.URL)
	require.Contains(t, out, "answer: It depends.")
	requireCommitted(t, server, key, earmark.Amounts{"tokens": 12})
}

// The TypeScript example needs Node.js and npm, and fails without them.
func TestSignalFromTypeScript(t *testing.T) {
	t.Parallel()
	s, server, key := setup(t)
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "tsconfig.json", "signal.ts"} {
		content, err := os.ReadFile(filepath.Join(root, "examples", "signal", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	run(t, s, server, dir, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	out := run(t, s, server, dir, "npm", "start", "--silent")
	require.Contains(t, out, "committed: 412 tokens")
	requireCommitted(t, server, key, earmark.Amounts{"tokens": 412})
}
