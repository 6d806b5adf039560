//go:build unix

package e2e_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
	"github.com/earmark-dev/earmark/workflows"
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

// A worker that was started before `earmark migrate up` would fail every task that it takes from those that can do
// it. It takes none, names the command, and begins once the schema is there.
func TestWorkersWaitForTheSchema(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{Unmigrated: true})
	for _, process := range []*stack.Process{s.Worker(), s.Serve().Process, s.Serve("--without-worker").Process} {
		process.AwaitLog("The ledger is not ready")
		require.Contains(t, process.Log(), "schema is at version 0")
		require.Contains(t, process.Log(), "run `earmark migrate up`")
		require.NotContains(t, process.Log(), "Started Worker")
	}
	queue, err := s.Client().DescribeTaskQueue(t.Context(), workflows.TaskQueue, enumspb.TASK_QUEUE_TYPE_WORKFLOW)
	require.NoError(t, err)
	require.Empty(t, queue.GetPollers())

	worker := s.Worker()
	s.MustRun("migrate", "up")
	worker.AwaitLog("Started Worker")
	b := api{t, s.Serve().Ready().URL}
	budget := b.budget("acme", "tokens", 10)
	b.commit(b.hold("one", tokens("acme", 10, 60)).ID, 7).status(t, http.StatusOK)
	b.requireBalance(budget, 0, 7)
}

// The first fault of a drill: all workers are gone, and a caller meets it. Within 10 s of that, everything that an
// operator looks at names the cause.
func TestNoWorkerIsNamedWithinTenSeconds(t *testing.T) {
	t.Parallel()
	const limit = 10 * time.Second
	b := setup(t, stack.Options{AdmissionDeadline: 2 * time.Second}, "--without-worker")
	worker := b.Worker()
	b.budget("acme", "tokens", 1000)
	stack.Eventually(t, moment, "/readyz", func() bool { return b.do("GET", "/readyz", "").code == http.StatusOK })
	b.hold("before", tokens("acme", 100, 60))
	worker.Kill()

	b.do("POST", "/v1/reservations", tokens("acme", 100, 60), "Idempotency-Key", "met").problem(t, http.StatusServiceUnavailable, earmark.CodeAdmissionUnknown)
	met := time.Now()
	stack.Eventually(t, limit, "`earmark health` to name the cause", func() bool {
		health := b.Run("health", "--url", b.base)
		return health.Code == 1 && strings.Contains(health.Stderr, "worker: no worker polls the task queue earmark") &&
			strings.Contains(health.Stderr, "start `earmark worker`")
	})
	b.do("GET", "/readyz", "").requireNoWorker(t, "no worker polls the task queue earmark") // what the status page shows
	require.Less(t, time.Since(met), limit)
}

func (x exchange) requireNoWorker(t *testing.T, nobody string) {
	t.Helper()
	p := x.problem(t, http.StatusServiceUnavailable, earmark.CodeUnavailable)
	require.True(t, strings.HasPrefix(p.Detail, "worker: "+nobody), p.Detail)
	require.Equal(t, "up", p.Checks["temporal"].Status)
	require.Equal(t, "down", p.Checks["worker"].Status)
}
