package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// flood sends n equal calls at once, and counts the answers by status.
type flood struct {
	mu      sync.Mutex
	answers map[int]int
	refused exchange // one of those with 503
	done    sync.WaitGroup
}

func (b *env) flood(n int, method, target, body string, header ...string) *flood {
	f := &flood{answers: map[int]int{}}
	for range n {
		f.done.Go(func() {
			recorder := httptest.NewRecorder()
			b.handler.ServeHTTP(recorder, newRequest(method, target, body, header...))
			f.mu.Lock()
			defer f.mu.Unlock()
			f.answers[recorder.Code]++
			if recorder.Code == http.StatusServiceUnavailable {
				f.refused = exchange{t: b.t, resp: recorder.Result(), body: recorder.Body.Bytes()}
			}
		})
	}
	return f
}

// A flood of one kind of call is refused early by a queue that the answer names, is bounded at the
// ledger, and holds up no other kind.
func TestFloodsAreRefusedEarly(t *testing.T) {
	const many = 100
	held := func() *fake {
		return &fake{
			preflight: fits(), result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: reservationIn(earmark.StateHeld)},
			reservation: reservationIn(earmark.StateHeld), budget: testBudget(),
		}
	}
	kinds := []struct {
		queue, call  string
		atOnce       int
		method, path string
		body         string
		header       []string
	}{
		{"lists", "Budgets", maxLists, "GET", "/v1/budgets", "", nil},
		{"lists", "Reservations", maxLists, "GET", "/v1/reservations", "", nil},
		{"lists", "Stuck", maxLists, "GET", "/v1/reservations?stuck=true", "", nil},
		{"lists", "Entries", maxLists, "GET", "/v1/entries", "", nil},
		{"reads", "Budget", maxReads, "GET", "/v1/budgets/" + testBudgetID, "", nil},
		{"reads", "Reservation", maxReads, "GET", "/v1/reservations/" + testReservationID, "", nil},
		{"reads", "Decide", maxReads, "POST", "/v1/decisions", reserveBody, nil},
		{"admissions", "Preflight", maxPreflights, "POST", "/v1/reservations", reserveBody, nil},
		{"charges", "Charge", maxCharges, "POST", "/v1/usage", `{"scopes":["acme"],"amounts":{"tokens":5}}`, []string{"Idempotency-Key", "k"}},
		{"charges", "Correct", maxCharges, "POST", settlePath("corrections"), correctBody, []string{"Idempotency-Key", "k"}},
		{"changes", "CreateBudget", maxChanges, "POST", "/v1/budgets", `{"scope":"acme","unit":"tokens","limit":1}`, nil},
		{"changes", "PatchBudget", maxChanges, "PATCH", "/v1/budgets/" + testBudgetID, `{"limit":1}`, nil},
		{"changes", "ArchiveBudget", maxChanges, "DELETE", "/v1/budgets/" + testBudgetID, "", nil},
	}
	for _, kind := range kinds {
		t.Run(kind.call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := held()
				gate := make(chan struct{})
				f.gates = map[string]chan struct{}{kind.call: gate}
				b := setup(t, f)
				begun := time.Now()
				flood := b.flood(many, kind.method, kind.path, kind.body, kind.header...)
				synctest.Wait()
				require.Equal(t, kind.atOnce, f.count(kind.call), "at once at the ledger")

				for _, other := range kinds { // meanwhile
					if other.queue != kind.queue {
						recorder := httptest.NewRecorder()
						b.handler.ServeHTTP(recorder, newRequest(other.method, other.path, other.body, other.header...))
						require.Less(t, recorder.Code, 300, "%s %s: %s", other.method, other.path, recorder.Body)
					}
				}
				b.do("POST", settlePath("commit"), `{"usage":{"tokens":1}}`).status(http.StatusOK)
				require.Zero(t, time.Since(begun), "nobody else waits")

				time.Sleep(maxQueueWait) //nolint:forbidigo // fake time
				synctest.Wait()
				flood.mu.Lock()
				require.Equal(t, map[int]int{http.StatusServiceUnavailable: many - kind.atOnce}, flood.answers)
				refused := flood.refused
				flood.mu.Unlock()
				p := refused.problem(http.StatusServiceUnavailable, earmark.CodeUnavailable)
				require.True(t, strings.HasPrefix(p.Detail, "the queue of "+kind.queue+" is full:"), p.Detail)
				require.Equal(t, kind.queue, p.Queue)
				require.InDelta(t, many-kind.atOnce, b.counter("earmark_refused_calls_total", "queue_"+kind.queue), 0)
				require.Equal(t, "1", refused.resp.Header.Get("Retry-After"))
				close(gate)
				flood.done.Wait()
				require.Equal(t, kind.atOnce, f.count(kind.call), "what was refused never reached the ledger")
			})
		})
	}
}

// However many ask for the overview, the ledger is asked once; each waits within its own time.
func TestOverviewIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		f := &fake{gates: map[string]chan struct{}{"Overview": gate}}
		b := setup(t, f)
		flood := b.flood(100, "GET", "/v1/overview", "")
		synctest.Wait()
		require.Equal(t, 1, f.count("Overview"))
		time.Sleep(handlerTimeout) //nolint:forbidigo // fake time
		synctest.Wait()
		flood.mu.Lock()
		require.Equal(t, map[int]int{http.StatusServiceUnavailable: 100}, flood.answers, "no caller waits past its own time")
		flood.mu.Unlock()
		close(gate)
		flood.done.Wait()
		synctest.Wait()
	})
}
