//go:build unix

package e2e_test

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

// count counts the answers of each status; a call without an answer fails the test.
func count(t *testing.T, answers []exchange) map[int]int {
	t.Helper()
	counts := map[int]int{}
	for _, x := range answers {
		require.NoError(t, x.err)
		counts[x.code]++
	}
	return counts
}

// The race that Earmark was made for: requests that each saw room together do not
// pass the limit.
func TestLimitHolds(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	budget := b.budget("acme", "tokens", 500)
	answers := together(20, func(i int) exchange {
		return b.try("POST", "/v1/reservations", tokens("acme", 75, 60), "Idempotency-Key", fmt.Sprint("key-", i))
	})
	require.Equal(t, map[int]int{http.StatusCreated: 6, http.StatusPaymentRequired: 14}, count(t, answers))
	b.requireBalance(budget, 450, 0)
	for _, x := range answers {
		if x.code == http.StatusCreated {
			b.commit(decoded[earmark.Reservation](t, x).ID, 75).status(t, http.StatusOK)
		} else {
			x.problem(t, http.StatusPaymentRequired, earmark.CodeBudgetExceeded)
		}
	}
	b.requireBalance(budget, 0, 450)
}

func TestOneKeyHoldsOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	other := api{t, b.Serve().Ready().URL}
	budget := b.budget("acme", "tokens", 1000)
	for round := range 5 {
		key := fmt.Sprint("key-", round)
		answers := together(8, func(i int) exchange {
			return []api{b.api, other}[i%2].try("POST", "/v1/reservations", tokens("acme", 10, 60), "Idempotency-Key", key)
		})
		require.Equal(t, map[int]int{http.StatusCreated: len(answers)}, count(t, answers))
		for _, x := range answers {
			require.Equal(t, earmark.ReservationID(earmark.DefaultTenant, key), decoded[earmark.Reservation](t, x).ID)
		}
		b.requireBalance(budget, int64(round+1)*10, 0)
	}
	// Two bodies under one key at once: one of them is the request, the other gets a mismatch.
	answers := together(8, func(i int) exchange {
		return b.try("POST", "/v1/reservations", tokens("acme", int64(20+i%2), 60), "Idempotency-Key", "two bodies")
	})
	require.Equal(t, map[int]int{http.StatusCreated: 4, http.StatusUnprocessableEntity: 4}, count(t, answers))
	// Many commits at once charge once. They are more than the ten updates that Temporal lets wait on one workflow.
	id := earmark.ReservationID(earmark.DefaultTenant, "key-0")
	require.Equal(t, map[int]int{http.StatusOK: 24}, count(t, together(24, func(i int) exchange {
		return []api{b.api, other}[i%2].try("POST", "/v1/reservations/"+id+"/commit", `{"usage":{"tokens":9}}`)
	})))
	require.EqualValues(t, 9, b.balance(budget).Committed)
}

// Two servers, each with a worker, behind a client that alternates: the limit is
// exact under load, and so is what is charged.
func TestTwoServers(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	servers := []api{b.api, {t, b.Serve().Ready().URL}}
	budget := b.budget("acme", "tokens", 1000)
	const calls, callers = 200, 16
	var next atomic.Int64
	answers := make([]exchange, calls)
	together(callers, func(int) struct{} {
		for i := next.Add(1) - 1; i < calls; i = next.Add(1) - 1 {
			answers[i] = servers[i%2].try("POST", "/v1/reservations", tokens("acme/u"+fmt.Sprint(i%7), 13, 120), "Idempotency-Key", fmt.Sprint("key-", i))
		}
		return struct{}{}
	})
	require.Equal(t, map[int]int{http.StatusCreated: 76, http.StatusPaymentRequired: calls - 76}, count(t, answers)) // 76 × 13 = 988
	b.requireBalance(budget, 988, 0)
	commits := together(callers, func(caller int) (failed error) {
		for i := caller; i < calls; i += callers {
			if answers[i].code == http.StatusCreated { // by the other server than the one that admitted it
				id := earmark.ReservationID(earmark.DefaultTenant, fmt.Sprint("key-", i))
				if x := servers[(i+1)%2].try("POST", "/v1/reservations/"+id+"/commit", `{"usage":{"tokens":11}}`); x.err != nil || x.code != http.StatusOK {
					failed = fmt.Errorf("%d %s: %w", x.code, x.body, x.err)
				}
			}
		}
		return failed
	})
	require.NoError(t, errors.Join(commits...))
	b.requireBalance(budget, 0, 76*11)
}

// A server that is killed between the call and its answer leaves nobody wondering:
// the same keys again give each its one hold.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	budget := b.budget("acme", "tokens", 10_000)
	const calls = 60
	reserve := func(i int) exchange {
		return b.try("POST", "/v1/reservations", tokens("acme", 10, 300), "Idempotency-Key", fmt.Sprint("key-", i))
	}
	answered := make(chan struct{}, calls)
	dead := make(chan struct{})
	go func() {
		defer close(dead)
		for range calls / 3 {
			<-answered
		}
		b.server.Signal(syscall.SIGKILL)
	}()
	first := together(calls, func(i int) exchange {
		x := reserve(i)
		answered <- struct{}{}
		return x
	})
	<-dead
	b.server.Restart()
	b.server.Ready()
	unanswered, begun := 0, time.Now()
	for i, x := range first {
		if x.err != nil {
			unanswered++
		} else {
			require.Equal(t, http.StatusCreated, x.code, "%s", x.body)
		}
		stack.Eventually(t, 2*moment, "an answer", func() bool {
			again := reserve(i)
			require.NoError(t, again.err)
			require.Contains(t, []int{http.StatusCreated, http.StatusServiceUnavailable}, again.code, "%s", again.body)
			require.False(t, x.err == nil && again.code != http.StatusCreated, "what was admitted stays admitted")
			return again.code == http.StatusCreated
		})
	}
	t.Logf("%d of %d calls had no answer; all had one %s after the restart", unanswered, calls, time.Since(begun))
	require.NotZero(t, unanswered)
	b.requireBalance(budget, calls*10, 0)
	for i := range calls {
		b.commit(earmark.ReservationID(earmark.DefaultTenant, fmt.Sprint("key-", i)), 10).status(t, http.StatusOK)
	}
	b.requireBalance(budget, 0, calls*10)
}

// A server that freezes in the middle of its calls and wakes up later has been
// replaced meanwhile; what it then still does is done twice, and counts once.
func TestFrozenServer(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{AdmissionDeadline: 2 * time.Second})
	budget := b.budget("acme", "tokens", 10_000)
	const calls = 12
	reserve := func(a api, i int) exchange {
		return a.try("POST", "/v1/reservations", tokens("acme", 10, 300), "Idempotency-Key", fmt.Sprint("key-", i))
	}
	var answered atomic.Int64
	first := make(chan []exchange, 1)
	go func() {
		first <- together(calls, func(i int) exchange {
			defer answered.Add(1)
			return reserve(b.api, i)
		})
	}()
	stack.Eventually(t, moment, "the first answers", func() bool { return answered.Load() > calls/4 })
	b.server.Pause()
	frozen := calls - answered.Load()
	other := api{t, b.Serve().Ready().URL}
	for i := range calls {
		// Temporal hands tasks to the frozen server for as long as its polls are open,
		// and takes each back after ten seconds.
		stack.Eventually(t, 4*moment, "an answer", func() bool {
			x := reserve(other, i)
			require.NoError(t, x.err)
			require.Contains(t, []int{http.StatusCreated, http.StatusServiceUnavailable}, x.code, "%s", x.body)
			return x.code == http.StatusCreated
		})
		if i%2 == 0 {
			other.commit(earmark.ReservationID(earmark.DefaultTenant, fmt.Sprint("key-", i)), 10).status(t, http.StatusOK)
		}
	}
	b.server.Resume()
	t.Logf("%d of %d calls were frozen", frozen, calls)
	for _, x := range <-first {
		if x.err == nil { // else its connection has timed out meanwhile
			require.Contains(t, []int{http.StatusCreated, http.StatusServiceUnavailable, http.StatusConflict}, x.code, "%s", x.body)
		}
	}
	b.requireBalance(budget, calls/2*10, calls/2*10)
	b.server.Ready()
}

// Holds and their workflows outlive the process that made them.
func TestServerKilledWhileHeld(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	budget := b.budget("acme", "tokens", 1000)
	settled, expiring := b.hold("settled", tokens("acme", 100, 300)), b.hold("expiring", tokens("acme", 100, 2))
	b.server.Restart()
	b.server.Ready()
	require.False(t, decoded[earmark.Reservation](t, b.commit(settled.ID, 60).status(t, http.StatusOK)).Late)
	b.awaitState(expiring.ID, earmark.StateExpired, 2*moment)
	journal := b.entries(expiring.ID)
	require.Equal(t, earmark.ActorWorkflow.String(), journal[len(journal)-1].Actor)
	b.awaitClosed(settled.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	b.awaitClosed(expiring.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	b.requireBalance(budget, 0, 60)
}

// A stopping server answers every call that it has taken, and what it has
// answered stands.
func TestGracefulStop(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	budget := b.budget("acme", "tokens", 1_000_000)
	const callers = 8
	var group sync.WaitGroup
	var lifecycles atomic.Int64
	type outcome struct {
		reserved, committed int64
		bad                 error
	}
	outcomes := make([]outcome, callers)
	for caller := range callers {
		group.Go(func() {
			for n := 0; ; n++ {
				x := b.try("POST", "/v1/reservations", tokens("acme", 10, 300), "Idempotency-Key", fmt.Sprint("key-", caller, "-", n))
				if x.err != nil {
					return // the connection is refused
				}
				if x.code != http.StatusCreated {
					outcomes[caller].bad = fmt.Errorf("%d %s", x.code, x.body)
					return
				}
				outcomes[caller].reserved++
				id := earmark.ReservationID(earmark.DefaultTenant, fmt.Sprint("key-", caller, "-", n))
				x = b.try("POST", "/v1/reservations/"+id+"/commit", `{"usage":{"tokens":10}}`)
				if x.err != nil {
					return
				}
				if x.code != http.StatusOK {
					outcomes[caller].bad = fmt.Errorf("%d %s", x.code, x.body)
					return
				}
				outcomes[caller].committed++
				lifecycles.Add(1)
			}
		})
	}
	stack.Eventually(t, moment, "some load", func() bool { return lifecycles.Load() >= 3*callers })
	took := b.server.Stop()
	group.Wait()
	t.Logf("stopped in %s after %d lifecycles", took, lifecycles.Load())
	require.Less(t, took, moment)

	var reserved, committed int64
	for _, o := range outcomes {
		require.NoError(t, o.bad)
		reserved += o.reserved
		committed += o.committed
	}
	b.server.Restart()
	b.server.Ready()
	balance := b.balance(budget)
	// Every answer stands. A call whose connection was refused or cut may stand, too.
	require.GreaterOrEqual(t, balance.Committed, committed*10)
	require.LessOrEqual(t, balance.Committed, (committed+callers)*10)
	require.GreaterOrEqual(t, balance.Committed+balance.Reserved, reserved*10)
	require.LessOrEqual(t, balance.Committed+balance.Reserved, (reserved+callers)*10)
	require.Equal(t, reserved*10, balance.Committed+balance.Reserved, "no admission without an answer")
}
