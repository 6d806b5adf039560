//go:build unix

package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

// balancer sends calls to the replicas that were ready when it last looked, in turn. It
// looks once a second, and does not try a call again.
type balancer struct {
	replicas []*replica
	turn     atomic.Int64
	failed   atomic.Int64
}

type replica struct {
	base  string
	proxy *httputil.ReverseProxy
	ready atomic.Bool
}

const (
	balancerLooksEvery  = time.Second
	balancerLooksAtMost = 3 * time.Second
	callersAtOnce       = 6
	answersBetweenRolls = 20
	defaultDrainDelay   = "5s" // of the product
)

func newBalancer(t *testing.T, servers ...*stack.Server) (b *balancer, base string) {
	t.Helper()
	b = &balancer{}
	for _, server := range servers {
		target, err := url.Parse(server.URL)
		require.NoError(t, err)
		r := &replica{base: server.URL, proxy: httputil.NewSingleHostReverseProxy(target)}
		r.proxy.ErrorHandler = func(w http.ResponseWriter, request *http.Request, err error) {
			b.failed.Add(1)
			http.Error(w, request.Method+" "+request.URL.Path+": "+err.Error(), http.StatusBadGateway)
		}
		r.ready.Store(true)
		b.replicas = append(b.replicas, r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var looking sync.WaitGroup
	for _, r := range b.replicas {
		looking.Go(func() { r.look(ctx) })
	}
	server := httptest.NewServer(b)
	t.Cleanup(func() {
		server.Close()
		cancel()
		looking.Wait()
	})
	return b, server.URL
}

func (r *replica) look(ctx context.Context) {
	ticker := time.NewTicker(balancerLooksEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.ready.Store(r.isReady(ctx))
		}
	}
}

func (r *replica) isReady(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, balancerLooksAtMost)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+"/readyz", nil)
	if err != nil {
		return false
	}
	response, err := httpClient.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

func (b *balancer) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	turn := int(b.turn.Add(1)) // once a call: calls at the same time would take each other's turns
	for i := range b.replicas {
		r := b.replicas[(turn+i)%len(b.replicas)]
		if r.ready.Load() {
			r.proxy.ServeHTTP(w, request)
			return
		}
	}
	b.failed.Add(1)
	http.Error(w, "no replica is ready", http.StatusBadGateway)
}

// Two replicas are replaced one after the other behind a balancer, while callers reserve and
// commit: no call is refused.
func TestRollingRestartRefusesNoCall(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{}, "--drain-delay", defaultDrainDelay)
	budget := b.budget("acme", "tokens", 1_000_000_000)
	first, second := b.server, b.Serve("--drain-delay", defaultDrainDelay).Ready()
	balancer, base := newBalancer(t, first, second)
	calls := api{t: t, base: base}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var answered atomic.Int64
	failures := make(chan string, callersAtOnce)
	var callers sync.WaitGroup
	for caller := range callersAtOnce {
		callers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				key := fmt.Sprintf("caller-%d-%d", caller, n)
				held := calls.try("POST", "/v1/reservations", tokens("acme", 10, 300), "Idempotency-Key", key)
				if held.err != nil || held.code != http.StatusCreated {
					failures <- fmt.Sprintf("reserve: %d %s %v", held.code, held.body, held.err)
					return
				}
				id := earmark.ReservationID(earmark.DefaultTenant, key)
				settled := calls.try("POST", "/v1/reservations/"+id+"/commit", `{"usage":{"tokens":7}}`)
				if settled.err != nil || settled.code != http.StatusOK {
					failures <- fmt.Sprintf("commit: %d %s %v", settled.code, settled.body, settled.err)
					return
				}
				answered.Add(1)
			}
		})
	}
	more := func() {
		t.Helper()
		goal := answered.Load() + answersBetweenRolls
		stack.Eventually(t, 2*moment, "answers", func() bool { return answered.Load() >= goal || len(failures) > 0 })
	}
	more()
	for _, server := range []*stack.Server{first, second} {
		took := server.Stop()
		require.Greater(t, took, balancerLooksEvery, "it answered until the balancer had turned away")
		more() // by the other one alone
		server.Start()
		server.Ready()
		stack.Eventually(t, moment, "the balancer to send calls to both", func() bool {
			return balancer.replicas[0].ready.Load() && balancer.replicas[1].ready.Load()
		})
		more()
	}
	cancel()
	callers.Wait()
	close(failures)
	for failure := range failures {
		require.Fail(t, "a call failed", failure)
	}
	require.Zero(t, balancer.failed.Load(), "refused connections")
	b.requireBalance(budget, 0, 7*answered.Load())
}
