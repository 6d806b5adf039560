//go:build unix

package guarded_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/fakeprovider"
	"github.com/earmark-dev/earmark/internal/stack"
)

var (
	guardedCalls = flag.Int("calls", 200, "how many guarded calls to make")
	guardedSeed  = flag.Uint64("seed", 0, "what happens to them; 0: another each time")
)

// ending is what happens to a call.
type ending struct {
	name      string
	body      string // after the model
	behaviour func(*rand.Rand) []fakeprovider.Behaviour
	// leave is how many bytes of the answer are read; -1 is all. cancel leaves by the context.
	leave  int
	cancel bool
	exact  bool // nothing but an Earmark that is away makes an estimate of it
}

func once(how fakeprovider.Behaviour) func(*rand.Rand) []fakeprovider.Behaviour {
	return func(*rand.Rand) []fakeprovider.Behaviour { return []fakeprovider.Behaviour{how} }
}

const streams = `,"stream":true`

var endings = []ending{
	{name: "whole", behaviour: once(fakeprovider.Behaviour{}), leave: -1, exact: true},
	{name: "stream", body: streams, behaviour: once(fakeprovider.Behaviour{}), leave: -1, exact: true},
	{name: "stream with usage", body: streams + `,"stream_options":{"include_usage":true}`, behaviour: once(fakeprovider.Behaviour{}), leave: -1, exact: true},
	{name: "stream that breaks", body: streams, leave: -1, behaviour: func(random *rand.Rand) []fakeprovider.Behaviour {
		return []fakeprovider.Behaviour{{Cut: true, CutAfter: 1 + random.IntN(5)}}
	}},
	{name: "stream that is closed", body: streams, behaviour: once(fakeprovider.Behaviour{}), leave: 200},
	{name: "stream that is cancelled", body: streams, behaviour: once(fakeprovider.Behaviour{}), leave: 200, cancel: true},
	{name: "refused", behaviour: once(fakeprovider.Behaviour{Status: 400}), leave: -1, exact: true},
	{name: "second attempt", leave: -1, exact: true, behaviour: func(*rand.Rand) []fakeprovider.Behaviour {
		return []fakeprovider.Behaviour{{Status: 503}, {}}
	}},
	{name: "second attempt after a time-out", leave: -1, behaviour: func(*rand.Rand) []fakeprovider.Behaviour {
		return []fakeprovider.Behaviour{{Status: 504}, {}}
	}},
	{name: "second attempt after a break", leave: -1, behaviour: func(*rand.Rand) []fakeprovider.Behaviour {
		return []fakeprovider.Behaviour{{Cut: true}, {}}
	}},
	{name: "break before the answer", behaviour: once(fakeprovider.Behaviour{Cut: true}), leave: -1},
}

// TestGuardedCalls makes calls that end in each way, while Earmark is killed and started
// again. In the end the charges are what the provider bills, call by call; where they are
// not, they say that they are estimated.
func TestGuardedCalls(t *testing.T) {
	t.Parallel()
	seed := *guardedSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d -calls %d", seed, *guardedCalls)
	s := stack.New(t, stack.Options{})
	server := s.Serve().Ready()
	earmarks, err := client.New(server.URL, client.WithLogger(slog.New(slog.DiscardHandler)))
	require.NoError(t, err)
	limit := int64(1_000_000_000_000)
	budget, err := earmarks.CreateBudget(t.Context(), earmark.BudgetRequest{Scope: "guarded", Unit: "tokens", Limit: &limit})
	require.NoError(t, err)

	c := &callers{seed: seed, plans: map[string][]fakeprovider.Behaviour{}}
	provider := &fakeprovider.Provider{Behave: c.behave}
	var stop func()
	c.url, stop = provider.Serve()
	t.Cleanup(stop)
	c.clients = clients(t, earmarks, server.URL)
	c.make(*guardedCalls, func() { server.Kill(); server.Restart(); server.Ready() })
	for _, guarded := range c.clients {
		guarded.close()
	}

	var charges map[string][]earmark.Reservation
	stack.Eventually(t, 2*time.Minute, "the last lease to end", func() bool {
		charges = chargesByModel(t, earmarks)
		for _, all := range charges {
			for _, r := range all {
				if r.Open() {
					return false
				}
			}
		}
		return true
	})
	c.compare(t, provider, charges)

	after, err := earmarks.Budget(t.Context(), budget.ID)
	require.NoError(t, err)
	require.Zero(t, after.Balance.Reserved)
	require.Equal(t, sumOf(charges), after.Balance.Committed)
}

// callers make the calls. Each call has a model of its own, by which it is found again.
type callers struct {
	url     string
	seed    uint64
	clients []guardedClient

	mu    sync.Mutex
	plans map[string][]fakeprovider.Behaviour // by model: what the provider does to each attempt
}

func modelOf(body string) string {
	var asked struct {
		Model string `json:"model"`
	}
	_ = json.Unmarshal([]byte(body), &asked)
	return asked.Model
}

func (c *callers) behave(call fakeprovider.Call) fakeprovider.Behaviour {
	c.mu.Lock()
	defer c.mu.Unlock()
	model := modelOf(call.Body)
	plan := c.plans[model]
	c.plans[model] = plan[min(1, len(plan)-1):]
	return plan[0]
}

func endingOf(i int) ending { return endings[i%len(endings)] }

// make makes n calls, 16 at a time, and breaks Earmark after a third and two thirds of them.
func (c *callers) make(n int, breakEarmark func()) {
	const atOnce = 16
	var next atomic.Int64
	var group, breaks sync.WaitGroup
	for range atOnce {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if i == n/3 || i == 2*n/3 {
					breaks.Wait()
					breaks.Go(breakEarmark)
				}
				c.call(i)
			}
		})
	}
	group.Wait()
	breaks.Wait()
}

func (c *callers) call(i int) {
	random := rand.New(rand.NewPCG(c.seed, uint64(i)))
	how := endingOf(i)
	model := fmt.Sprintf("m-%d", i)
	plan := how.behaviour(random)
	c.mu.Lock()
	c.plans[model] = plan
	c.mu.Unlock()
	c.clientOf(i).make(guardedCall{
		Number: i, URL: c.url + "/v1/chat/completions", Body: fmt.Sprintf(`{"model":%q,"max_tokens":20%s}`, model, how.body),
		Attempts: len(plan), FailOpen: random.IntN(2) == 1, Leave: how.leave, Cancel: how.cancel,
	})
}

func (c *callers) clientOf(i int) guardedClient { return c.clients[i%len(c.clients)] }

func chargesByModel(t *testing.T, earmarks *client.Client) map[string][]earmark.Reservation {
	t.Helper()
	charges := map[string][]earmark.Reservation{}
	filter := earmark.ReservationFilter{Scope: "guarded", Limit: 500}
	for {
		page, err := earmarks.Reservations(t.Context(), filter)
		require.NoError(t, err)
		for _, r := range page.Data {
			charges[r.Metadata["model"]] = append(charges[r.Metadata["model"]], r)
		}
		if filter.Cursor = page.NextCursor; filter.Cursor == "" {
			return charges
		}
	}
}

func sumOf(charges map[string][]earmark.Reservation) (sum int64) {
	for _, all := range charges {
		for _, r := range all {
			sum += r.Usage["tokens"]
		}
	}
	return sum
}

// compare compares each call's charge with its bill.
func (c *callers) compare(t *testing.T, provider *fakeprovider.Provider, charges map[string][]earmark.Reservation) {
	t.Helper()
	bills := map[string]int64{}
	for _, call := range provider.Calls() {
		bills[modelOf(call.Body)] += call.Billed
	}
	exact, estimated := map[string]int{}, map[string]int{}
	for i := range *guardedCalls {
		model, how := fmt.Sprintf("m-%d", i), endingOf(i)
		charged, isEstimate := int64(0), false
		for _, r := range charges[model] {
			charged += r.Usage["tokens"]
			isEstimate = isEstimate || r.Estimated || r.Metadata["estimated"] == "true"
		}
		if isEstimate {
			estimated[how.name]++
			continue
		}
		exact[c.clientOf(i).name()]++
		require.Equal(t, bills[model], charged, "call %d by %s: %s", i, c.clientOf(i).name(), how.name)
	}
	t.Logf("charged to the token are %v, estimated are %v", exact, estimated)
	for _, guarded := range c.clients {
		require.Positive(t, exact[guarded.name()], guarded.name())
	}
	for _, how := range endings {
		if of := *guardedCalls / len(endings); how.exact {
			require.Less(t, estimated[how.name], max(of/2, 1), "%s: an outage explains a few", how.name)
		}
	}
}
