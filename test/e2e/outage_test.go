//go:build unix

package e2e_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

// unready asks /readyz until it does not say ready: its answers stand for half a second.
func (b *env) unready() (x exchange) {
	for end := time.Now().Add(moment); time.Now().Before(end); time.Sleep(50 * time.Millisecond) { //nolint:forbidigo // polls
		if x = b.try("GET", "/readyz", ""); x.code != http.StatusOK {
			break
		}
	}
	return x
}

// requireAway checks that /readyz names what is away, and only that.
func (b *env) requireAway(away string) {
	b.t.Helper()
	var p problem
	stack.Eventually(b.t, moment, away+" to be away", func() bool {
		x := b.do("GET", "/readyz", "")
		if x.code == http.StatusOK {
			return false
		}
		p = x.problem(b.t, http.StatusServiceUnavailable, earmark.CodeUnavailable)
		return true
	})
	for name, check := range p.Checks {
		want := "up"
		switch {
		case name == away:
			want = "down"
		case name == "worker" && away == "temporal":
			want = "unknown"
		}
		require.Equal(b.t, want, check.Status, "%s: %s", name, check.Detail)
	}
	require.Len(b.t, p.Checks, 3)
}

// requireUnavailable checks a 503 that says when to try again.
func (b *env) requireUnavailable(x exchange, codes ...earmark.Code) {
	b.t.Helper()
	x.status(b.t, http.StatusServiceUnavailable)
	require.Contains(b.t, codes, decoded[problem](b.t, x).Code)
	require.NotEmpty(b.t, x.header.Get("Retry-After"))
}

// With Postgres away nothing is admitted, and what is settled meanwhile is kept by
// Temporal until Postgres is back.
func TestPostgresAway(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{OwnPostgres: true})
	budget := b.budget("acme", "tokens", 1000)
	committed, released, expiring := b.hold("commit", tokens("acme", 100, 300)), b.hold("release", tokens("acme", 100, 300)), b.hold("expire", tokens("acme", 100, 3))
	b.Postgres.Stop()

	b.requireAway("postgres")
	b.do("GET", "/healthz", "").status(t, http.StatusOK)
	answers := together(6, func(i int) exchange {
		switch i {
		case 0:
			return b.try("POST", "/v1/reservations", tokens("acme", 100, 60), "Idempotency-Key", "meanwhile")
		case 1:
			return b.try("GET", "/v1/budgets/"+budget, "")
		case 2:
			return b.try("POST", "/v1/usage", `{"scopes":["acme"],"amounts":{"tokens":5}}`, "Idempotency-Key", "usage")
		case 3:
			return b.try("POST", "/v1/reservations/"+committed.ID+"/extend", `{"ttl_seconds":600}`)
		case 4:
			return b.try("POST", "/v1/reservations/"+committed.ID+"/commit", `{"usage":{"tokens":70}}`)
		}
		return b.try("POST", "/v1/reservations/"+released.ID+"/release", `{"reason":"nothing was spent"}`)
	})
	for _, x := range answers[:4] {
		b.requireUnavailable(x, earmark.CodeUnavailable)
		require.Less(t, x.took, moment)
	}
	for _, x := range answers[4:] {
		require.JSONEq(t, `true`, string(mustJSON(t, x.status(t, http.StatusAccepted), "accepted")))
		t.Logf("accepted in %s", x.took)
	}

	b.Postgres.Start()
	b.server.Ready()
	require.Equal(t, earmark.Amounts{"tokens": 70}, b.awaitState(committed.ID, earmark.StateCommitted, 2*moment).Usage)
	b.awaitState(released.ID, earmark.StateReleased, 2*moment)
	b.awaitState(expiring.ID, earmark.StateExpired, 2*moment)
	for _, reservation := range []earmark.Reservation{committed, released, expiring} {
		b.awaitClosed(reservation.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	}
	b.requireBalance(budget, 0, 70)
	b.hold("meanwhile", tokens("acme", 100, 60))
	b.requireBalance(budget, 100, 70)
}

// With Temporal away nothing is admitted, and the ledger still settles. The admission
// that meets the outage first is not known, and what it reserved waits for its key.
func TestTemporalAway(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{OwnTemporal: true, Grace: time.Second})
	budget := b.budget("acme", "tokens", 1000)
	committed, released, extended, expiring := b.hold("commit", tokens("acme", 100, 300)), b.hold("release", tokens("acme", 100, 300)),
		b.hold("extend", tokens("acme", 100, 300)), b.hold("expire", tokens("acme", 100, 2))
	b.Temporal.Stop()

	b.requireAway("temporal")
	answers := together(4, func(i int) exchange {
		switch i {
		case 0:
			return b.try("POST", "/v1/reservations", tokens("acme", 100, 60), "Idempotency-Key", "meanwhile")
		case 1:
			return b.try("POST", "/v1/reservations/"+committed.ID+"/commit", `{"usage":{"tokens":70}}`)
		case 2:
			return b.try("POST", "/v1/reservations/"+released.ID+"/release", "")
		}
		return b.try("POST", "/v1/reservations/"+extended.ID+"/extend", `{"ttl_seconds":600}`)
	})
	b.requireUnavailable(answers[0], earmark.CodeUnavailable, earmark.CodeAdmissionUnknown)
	for i, x := range answers {
		t.Logf("answer %d: %d in %s", i, x.code, x.took)
		if i > 0 {
			require.Less(t, x.took, 6*time.Second)
			x.status(t, http.StatusOK)
		}
	}
	require.Less(t, answers[0].took, stack.DefaultAdmissionDeadline+2*time.Second)
	b.awaitState(expiring.ID, earmark.StateExpired, moment) // the sweeper needs no Temporal
	b.requireBalance(budget, 200, 70)
	decision := decoded[earmark.Decision](t, b.do("POST", "/v1/decisions", tokens("acme", 100, 60)).status(t, http.StatusOK))
	require.True(t, decision.Admitted)

	b.Temporal.Start()
	b.server.Ready()
	stack.Eventually(t, 2*moment, "an admission", func() bool {
		return b.do("POST", "/v1/reservations", tokens("acme", 100, 60), "Idempotency-Key", "meanwhile").code == http.StatusCreated
	})
	b.requireBalance(budget, 200, 70)
	b.commit(extended.ID, 10).status(t, http.StatusOK)
	b.awaitClosed(extended.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	b.reconcile("earmark-reconcile") // notifies the workflows whose reservation was settled without them
	for _, reservation := range []earmark.Reservation{committed, released, expiring} {
		b.awaitClosed(reservation.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	}
	b.requireBalance(budget, 100, 80)
	meanwhile := earmark.ReservationID(earmark.DefaultTenant, "meanwhile")
	stack.Eventually(t, moment, "a guardian", func() bool { return !b.gone("reservation-" + meanwhile) })
	b.commit(meanwhile, 20).status(t, http.StatusOK)
	b.awaitClosed(meanwhile, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	b.requireBalance(budget, 0, 100)
}

// A Postgres that hangs is worse than one that is gone: connections stay open and
// nothing answers. Callers still get an answer in time.
func TestPostgresFrozen(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{OwnPostgres: true, AdmissionDeadline: 2 * time.Second})
	budget := b.budget("acme", "tokens", 1000)
	held := b.hold("held", tokens("acme", 100, 300))
	b.Postgres.Pause()
	answers := together(3, func(i int) exchange {
		switch i {
		case 0:
			return b.try("POST", "/v1/reservations", tokens("acme", 100, 60), "Idempotency-Key", "meanwhile")
		case 1:
			return b.try("POST", "/v1/reservations/"+held.ID+"/commit", `{"usage":{"tokens":70}}`)
		}
		return b.unready()
	})
	for i, x := range answers {
		t.Logf("answer %d: %d in %s", i, x.code, x.took)
	}
	b.requireUnavailable(answers[0], earmark.CodeUnavailable, earmark.CodeAdmissionUnknown)
	answers[1].status(t, http.StatusAccepted)
	require.Less(t, answers[1].took, 6*time.Second)
	require.Less(t, answers[2].took, 4*time.Second)
	answers[2].problem(t, http.StatusServiceUnavailable, earmark.CodeUnavailable)
	b.Postgres.Resume()
	b.server.Ready()
	b.awaitState(held.ID, earmark.StateCommitted, 2*moment)
	stack.Eventually(t, 2*moment, "an admission", func() bool {
		return b.do("POST", "/v1/reservations", tokens("acme", 100, 60), "Idempotency-Key", "meanwhile").code == http.StatusCreated
	})
	b.requireBalance(budget, 100, 70)
	b.awaitClosed(held.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
}

func TestTemporalFrozen(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{OwnTemporal: true, AdmissionDeadline: 2 * time.Second})
	budget := b.budget("acme", "tokens", 1000)
	held := b.hold("held", tokens("acme", 100, 300))
	b.Temporal.Pause()
	answers := together(3, func(i int) exchange {
		switch i {
		case 0:
			return b.try("POST", "/v1/reservations", tokens("acme", 100, 60), "Idempotency-Key", "meanwhile")
		case 1:
			return b.try("POST", "/v1/reservations/"+held.ID+"/commit", `{"usage":{"tokens":70}}`)
		}
		return b.unready()
	})
	for i, x := range answers {
		t.Logf("answer %d: %d in %s", i, x.code, x.took)
	}
	b.requireUnavailable(answers[0], earmark.CodeUnavailable, earmark.CodeAdmissionUnknown)
	require.Less(t, answers[0].took, 4*time.Second)
	answers[1].status(t, http.StatusOK)
	require.Less(t, answers[1].took, 6*time.Second)
	answers[2].problem(t, http.StatusServiceUnavailable, earmark.CodeUnavailable)
	b.requireBalance(budget, 100, 70) // waits for its key
	another := b.try("POST", "/v1/reservations", tokens("acme", 100, 60), "Idempotency-Key", "another")
	b.requireUnavailable(another, earmark.CodeUnavailable, earmark.CodeAdmissionUnknown)
	b.requireBalance(budget, 100, 70) // while workflows do not start nothing more is reserved
	b.Temporal.Resume()
	stack.Eventually(t, 2*moment, "an admission", func() bool {
		return b.do("POST", "/v1/reservations", tokens("acme", 100, 60), "Idempotency-Key", "meanwhile").code == http.StatusCreated
	})
	b.requireBalance(budget, 100, 70)
	b.reconcile("earmark-reconcile")
	b.awaitClosed(held.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
}

// A process may be started before what it needs.
func TestStartsBeforeItsServices(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{OwnPostgres: true, OwnTemporal: true})
	s.Temporal.Stop()
	s.Postgres.Stop()
	server := s.Serve()
	listens := time.Now()
	server.AwaitLog("The ledger is not ready") // whoever starts it sees why nothing works
	require.Less(t, time.Since(listens), 10*time.Second)
	require.Contains(t, server.Log(), "Postgres did not answer")
	b := &env{Stack: s, api: api{t, server.URL}, server: server}
	p := b.do("GET", "/readyz", "").problem(t, http.StatusServiceUnavailable, earmark.CodeUnavailable)
	require.Equal(t, "down", p.Checks["postgres"].Status)
	require.Equal(t, "down", p.Checks["temporal"].Status)
	b.requireUnavailable(b.do("POST", "/v1/reservations", tokens("acme", 1, 60)), earmark.CodeUnavailable)
	s.Postgres.Start()
	s.Temporal.Start()
	server.Ready()
	budget := b.budget("acme", "tokens", 10)
	b.commit(b.hold("one", tokens("acme", 10, 60)).ID, 7).status(t, http.StatusOK)
	b.requireBalance(budget, 0, 7)
}
