//go:build unix

package e2e_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

// signal sends a signal to the workflow of a reservation, as any client may.
func (b *env) signal(id, name string, payload any) {
	b.t.Helper()
	require.NoError(b.t, b.Client().SignalWorkflow(b.t.Context(), "reservation-"+id, "", name, payload))
}

func usage(n int64) map[string]any { return map[string]any{"usage": map[string]any{"tokens": n}} }

// posted counts the entries of a reservation that changed a balance, by kind.
func (b *env) posted(id string) map[string]int {
	b.t.Helper()
	kinds := map[string]int{}
	for _, entry := range b.entries(id) {
		if entry.ReservedDelta != 0 || entry.CommittedDelta != 0 {
			kinds[entry.Kind]++
		}
	}
	return kinds
}

// dieAfterTheCommit kills a process that has a transition under way, after Postgres
// has committed it and before the process hears of that: it is frozen while the
// transition waits at the gate, and so never reads the answer.
func dieAfterTheCommit(process *stack.Process, gate stack.Gate, committed func()) {
	gate.Await()
	process.Pause()
	gate.Open()
	committed()
	process.Kill()
}

// A worker that is killed after the database has committed a transition and before
// its task completes: the task runs again elsewhere, and the transition counts once.
func TestWorkerKilledAfterTheCommit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ttlSeconds int64
		act        func(b *env, id string)
		kind       string
		state      earmark.State
		committed  int64
	}{
		"of a commit":  {300, func(b *env, id string) { b.signal(id, "commit", usage(70)) }, "commit", earmark.StateCommitted, 70},
		"of a release": {300, func(b *env, id string) { b.signal(id, "release", map[string]any{"reason": "not called"}) }, "release", earmark.StateReleased, 0},
		"of an expiry": {2, func(*env, string) {}, "expire", earmark.StateExpired, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, stack.Options{}, "--without-worker")
			worker := b.Worker()
			budget := b.budget("acme", "tokens", 1000)
			gate := b.Gate()
			gate.Close(c.kind)
			held := b.hold("one", tokens("acme", 100, c.ttlSeconds))
			c.act(b, held.ID)
			dieAfterTheCommit(worker, gate, func() { b.awaitState(held.ID, c.state, moment) })
			require.Equal(t, enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, b.describe(held.ID).Status, "the task had not completed")
			b.requireBalance(budget, 0, c.committed)

			b.Worker()
			b.awaitClosed(held.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
			require.Equal(t, map[string]int{"reserve": 1, c.kind: 1}, b.posted(held.ID))
			b.requireBalance(budget, 0, c.committed)
		})
	}
}

// A server that is killed after it has reserved and before it has answered: the hold
// is there, the same key finds it, and something guards it.
func TestServerKilledAfterTheReserve(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	budget := b.budget("acme", "tokens", 1000)
	gate := b.Gate()
	gate.Close("reserve")
	id := earmark.ReservationID(earmark.DefaultTenant, "one")
	lost := make(chan exchange, 1)
	go func() { lost <- b.try("POST", "/v1/reservations", tokens("acme", 100, 300), "Idempotency-Key", "one") }()
	dieAfterTheCommit(b.server.Process, gate, func() {
		stack.Eventually(t, moment, "the hold", func() bool {
			var holds int
			require.NoError(t, b.Pool().QueryRow(t.Context(), "SELECT count(*) FROM earmark.reservations WHERE id = $1 AND state = 'held'", id).Scan(&holds))
			return holds == 1
		})
	})
	unanswered := <-lost
	require.Error(t, unanswered.err, "it was killed before it answered: %d %s", unanswered.code, unanswered.body)

	b.server.Start()
	b.server.Ready()
	require.Equal(t, id, b.hold("one", tokens("acme", 100, 300)).ID)
	b.requireBalance(budget, 100, 0)
	b.reconcile("earmark-reconcile") // should the workflow not have been started any more
	stack.Eventually(t, moment, "a guardian", func() bool { return !b.gone("reservation-" + id) })
	b.commit(id, 60).status(t, http.StatusOK)
	b.awaitClosed(id, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	require.Equal(t, map[string]int{"reserve": 1, "commit": 1}, b.posted(id))
	b.requireBalance(budget, 0, 60)
}

// Postgres is killed in the middle of a transition: of that nothing is left, and it
// is made again.
func TestPostgresKilledMidTransition(t *testing.T) {
	t.Parallel()
	for kind, act := range map[string]func(b *env, id string){
		"commit": func(b *env, id string) { b.signal(id, "commit", usage(70)) },
		"expire": func(*env, string) {},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := setup(t, stack.Options{OwnPostgres: true, Durable: true})
			budget := b.budget("acme", "tokens", 1000)
			gate := b.Gate()
			gate.Close(kind)
			held := b.hold("one", tokens("acme", 100, map[string]int64{"commit": 300, "expire": 2}[kind]))
			act(b, held.ID)
			gate.Await()
			b.Postgres.Kill()
			b.Postgres.Start()
			b.Pool().Reset()
			require.Equal(t, map[string]int{"reserve": 1}, b.posted(held.ID), "nothing is half done")
			b.requireBalance(budget, 100, 0)
			gate.Open()
			b.awaitClosed(held.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
			require.Equal(t, map[string]int{"reserve": 1, kind: 1}, b.posted(held.ID))
			b.requireBalance(budget, 0, map[string]int64{"commit": 70}[kind])
		})
	}
}

// A reserve that lands after its caller has given up: the caller was told that it is
// not known, the same key finds what landed, and without another call it expires.
func TestReserveLandsAfterItsCallerGaveUp(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{AdmissionDeadline: time.Second, Grace: time.Second})
	budget := b.budget("acme", "tokens", 1000)
	gate := b.Gate()
	gate.Close("reserve")
	keys := []string{"asks again", "does not"}
	answers := make(chan []exchange, 1)
	go func() {
		answers <- together(len(keys), func(i int) exchange {
			return b.try("POST", "/v1/reservations", tokens("acme", 100, 3), "Idempotency-Key", keys[i])
		})
	}()
	for i, x := range <-answers {
		p := x.problem(t, http.StatusServiceUnavailable, earmark.CodeAdmissionUnknown)
		require.Equal(t, earmark.ReservationID(earmark.DefaultTenant, keys[i]), p.ReservationID)
	}
	b.requireBalance(budget, 0, 0) // not committed yet
	gate.Open()

	stack.Eventually(t, moment, "the hold", func() bool {
		x := b.do("POST", "/v1/reservations", tokens("acme", 100, 3), "Idempotency-Key", keys[0])
		require.Contains(t, []int{http.StatusCreated, http.StatusServiceUnavailable}, x.code, "%s", x.body)
		return x.code == http.StatusCreated
	})
	id := earmark.ReservationID(earmark.DefaultTenant, keys[0])
	require.Equal(t, map[string]int{"reserve": 1}, b.posted(id))
	b.commit(id, 60).status(t, http.StatusOK)
	stack.Eventually(t, moment, "the other's expiry, if it landed", func() bool { return b.balance(budget).Reserved == 0 })
	b.requireBalance(budget, 0, 60)
	b.awaitClosed(id, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
}

// Temporal hangs while a request is admitted. Whatever was reserved without a
// workflow ends all the same.
func TestNoHoldOutlivesAWorkflowThatWasNotStarted(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{OwnTemporal: true, AdmissionDeadline: time.Second, Grace: time.Second})
	budget := b.budget("acme", "tokens", 1000)
	b.commit(b.hold("before", tokens("acme", 100, 300)).ID, 5).status(t, http.StatusOK) // starts work
	b.Temporal.Pause()
	b.do("POST", "/v1/reservations", tokens("acme", 100, 6), "Idempotency-Key", "one").problem(t, http.StatusServiceUnavailable, earmark.CodeAdmissionUnknown)
	b.requireBalance(budget, 100, 5) // it was reserved, and nobody guards it
	b.do("POST", "/v1/reservations", tokens("acme", 100, 3), "Idempotency-Key", "other").problem(t, http.StatusServiceUnavailable, earmark.CodeAdmissionUnknown)
	b.requireBalance(budget, 100, 5) // once starts fail, nothing more is left behind
	stack.Eventually(t, moment, "nothing to be held", func() bool { return b.balance(budget).Reserved == 0 })
	b.Temporal.Resume()
	b.server.Ready()
	stack.Eventually(t, 2*moment, "an admission", func() bool {
		return b.do("POST", "/v1/reservations", tokens("acme", 100, 60), "Idempotency-Key", "two").code == http.StatusCreated
	})
	b.reconcile("earmark-reconcile")
	b.commit(earmark.ReservationID(earmark.DefaultTenant, "two"), 30).status(t, http.StatusOK)
	b.requireBalance(budget, 0, 35)
	stack.Eventually(t, moment, "no workflow to be open", func() bool {
		return b.found("WorkflowType = 'Reservation' AND ExecutionStatus = 'Running'") == 0
	})
}

// Temporal loses all that it had. The ledger stands: what is short expires, what is
// long is given a workflow again, and usage is charged meanwhile.
func TestTemporalLosesItsData(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{OwnTemporal: true, Grace: time.Second})
	budget := b.budget("acme", "tokens", 1000)
	adopted, expiring, settled := b.hold("adopted", tokens("acme", 100, 300)), b.hold("expiring", tokens("acme", 100, 2)), b.hold("settled", tokens("acme", 100, 300))
	b.Temporal.Forget()

	b.commit(settled.ID, 30).status(t, http.StatusOK) // needs no workflow
	b.awaitState(expiring.ID, earmark.StateExpired, moment)
	b.commitLate(expiring.ID, 20)
	b.requireBalance(budget, 100, 50)
	b.MustRun("migrate", "up") // the search attributes
	b.server.Ready()
	b.Worker() // makes the reconciler's schedule as it starts; the other one looks once a minute
	b.reconcile("earmark-reconcile")
	stack.Eventually(t, 2*moment, "the adoption", func() bool { return !b.gone("reservation-" + adopted.ID) })
	stack.Eventually(t, moment, "the orphan to be none", func() bool { return !b.reservation(adopted.ID).Orphan })
	require.False(t, decoded[earmark.Reservation](t, b.commit(adopted.ID, 10).status(t, http.StatusOK)).Late)
	b.awaitClosed(adopted.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	b.requireBalance(budget, 0, 60)
	stack.Eventually(t, 2*moment, "an admission", func() bool {
		return b.do("POST", "/v1/reservations", tokens("acme", 100, 60), "Idempotency-Key", "after").code == http.StatusCreated
	})
}

// An answer that is lost on its way is given again.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	budget := b.budget("acme", "tokens", 1000)
	gate := b.Gate()
	gate.Close("reserve")
	const calls = 4
	gone := together(calls, func(i int) error {
		return b.leaveEarly("/v1/reservations", tokens("acme", 100, 300), fmt.Sprint("key-", i))
	})
	gate.Open()
	for i, err := range gone {
		require.Error(t, err, "the caller has left")
		var x exchange
		stack.Eventually(t, moment, "an answer", func() bool {
			x = b.do("POST", "/v1/reservations", tokens("acme", 100, 300), "Idempotency-Key", fmt.Sprint("key-", i))
			return x.code == http.StatusCreated
		})
		id := decoded[earmark.Reservation](t, x).ID
		require.Equal(t, map[string]int{"reserve": 1}, b.posted(id))
	}
	b.requireBalance(budget, calls*100, 0)
}
