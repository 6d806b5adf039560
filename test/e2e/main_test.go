//go:build unix

// Package e2e_test runs Earmark as its users do: real processes, a real Postgres and
// a real Temporal, over HTTP and Temporal's own clients. Every exchange over HTTP
// is checked against api/openapi.yaml, and every test ends with an audit.
package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

// moment bounds what should happen almost at once, on a busy machine.
const moment = 15 * time.Second

func TestMain(m *testing.M) { os.Exit(stack.Main(m)) }

// env is a stack with one server on it.
type env struct {
	*stack.Stack
	api
	server *stack.Server
}

// setup starts a stack with one server that is ready.
func setup(t *testing.T, options stack.Options, flags ...string) *env {
	t.Helper()
	s := stack.New(t, options)
	server := s.Serve(flags...).Ready()
	return &env{Stack: s, api: api{t: t, base: server.URL}, server: server}
}

// budget makes a budget with defaults and returns its id.
func (a api) budget(scope, unit string, limit int64) string {
	a.t.Helper()
	x := a.do("POST", "/v1/budgets", fmt.Sprintf(`{"scope":%q,"unit":%q,"limit":%d}`, scope, unit, limit))
	return decoded[earmark.Budget](a.t, x.status(a.t, http.StatusCreated)).ID
}

func (a api) balance(budgetID string) earmark.Balance {
	a.t.Helper()
	return decoded[earmark.Budget](a.t, a.do("GET", "/v1/budgets/"+budgetID, "").status(a.t, http.StatusOK)).Balance
}

// requireBalance checks reserved and committed.
func (a api) requireBalance(budgetID string, reserved, committed int64) {
	a.t.Helper()
	balance := a.balance(budgetID)
	require.Equal(a.t, []int64{reserved, committed}, []int64{balance.Reserved, balance.Committed}, "reserved and committed")
	require.Equal(a.t, balance.Limit-reserved-committed, balance.Available)
}

// hold reserves under a key and returns the reservation.
func (a api) hold(key, body string) earmark.Reservation {
	a.t.Helper()
	x := a.do("POST", "/v1/reservations", body, "Idempotency-Key", key)
	return decoded[earmark.Reservation](a.t, x.status(a.t, http.StatusCreated))
}

func (a api) reservation(id string) earmark.Reservation {
	a.t.Helper()
	return decoded[earmark.Reservation](a.t, a.do("GET", "/v1/reservations/"+id, "").status(a.t, http.StatusOK))
}

// awaitState polls until the reservation is in a state, and returns it.
func (a api) awaitState(id string, state earmark.State, limit time.Duration) earmark.Reservation {
	a.t.Helper()
	var reservation earmark.Reservation
	stack.Eventually(a.t, limit, "state "+string(state)+" of "+id, func() bool {
		reservation = a.reservation(id)
		return reservation.State == state
	})
	return reservation
}

func (a api) commit(id string, tokens int64) exchange {
	a.t.Helper()
	return a.do("POST", "/v1/reservations/"+id+"/commit", fmt.Sprintf(`{"usage":{"tokens":%d}}`, tokens))
}

func (a api) entries(id string) []earmark.Entry {
	a.t.Helper()
	return decoded[earmark.Page[earmark.Entry]](a.t, a.do("GET", "/v1/entries?reservation_id="+id, "").status(a.t, http.StatusOK)).Data
}

// commitLate commits what has expired: it is charged in full, and says that it is late.
func (a api) commitLate(id string, tokens int64) {
	a.t.Helper()
	late := decoded[earmark.Reservation](a.t, a.commit(id, tokens).status(a.t, http.StatusOK))
	require.Equal(a.t, earmark.StateCommitted, late.State)
	require.True(a.t, late.Late)
	require.Equal(a.t, earmark.Amounts{"tokens": tokens}, late.Usage)
}

// tokens is the body of a reservation of tokens on one scope.
func tokens(scope string, n, ttlSeconds int64) string {
	return fmt.Sprintf(`{"scopes":[%q],"amounts":{"tokens":%d},"ttl_seconds":%d}`, scope, n, ttlSeconds)
}

// together makes n calls at once and returns their results in order.
func together[T any](n int, call func(i int) T) []T {
	results := make([]T, n)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { results[i] = call(i) })
	}
	group.Wait()
	return results
}
