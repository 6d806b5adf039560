//go:build unix

package e2e_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

// While no worker runs, no check is green: /readyz, `earmark health` and the 503 say what to start.
// A worker makes them green, and one that is killed does not stay there for long.
func TestChecksSayThatNoWorkerPolls(t *testing.T) {
	t.Parallel()
	const nobody = "no worker polls the task queue earmark"
	b := setup(t, stack.Options{AdmissionDeadline: 2 * time.Second}, "--without-worker")
	b.budget("acme", "tokens", 1000)
	b.do("GET", "/readyz", "").requireNoWorker(t, nobody)
	health := b.Run("health", "--url", b.base)
	require.Equal(t, 1, health.Code)
	require.Contains(t, health.Stderr, "worker: "+nobody)
	require.Contains(t, health.Stderr, "start `earmark worker`")

	x := b.do("POST", "/v1/reservations", tokens("acme", 100, 60), "Idempotency-Key", "nobody")
	p := x.problem(t, http.StatusServiceUnavailable, earmark.CodeAdmissionUnknown)
	require.Contains(t, p.Detail, nobody)
	require.Contains(t, p.Detail, "Idempotency-Key is safe to try again")

	worker := b.Worker()
	stack.Eventually(t, moment, "/readyz", func() bool { return b.do("GET", "/readyz", "").code == http.StatusOK })
	b.hold("somebody", tokens("acme", 100, 60))
	worker.Kill()

	// What asks for a worker shows that it is gone.
	b.try("POST", "/v1/reservations", tokens("acme", 100, 60), "Idempotency-Key", "gone")
	stack.Eventually(t, 2*moment, "/readyz to see that the worker is gone", func() bool {
		return b.do("GET", "/readyz", "").code == http.StatusServiceUnavailable
	})
	b.do("GET", "/readyz", "").requireNoWorker(t, nobody)
}

func (x exchange) requireNoWorker(t *testing.T, nobody string) {
	t.Helper()
	p := x.problem(t, http.StatusServiceUnavailable, earmark.CodeUnavailable)
	require.True(t, strings.HasPrefix(p.Detail, "worker: "+nobody), p.Detail)
	require.Equal(t, "up", p.Checks["temporal"].Status)
	require.Equal(t, "down", p.Checks["worker"].Status)
}
