//go:build unix

package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/stack"
)

// clocked is an endpoint that notes which events came, and how long after they were written.
type clocked struct {
	*httptest.Server
	mu   sync.Mutex
	ids  []string
	lags []time.Duration
}

func newClocked(tb testing.TB) *clocked {
	tb.Helper()
	c := &clocked{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var sent struct {
			Data earmark.Event `json:"data"`
		}
		body, _ := io.ReadAll(r.Body)
		if json.Unmarshal(body, &sent) != nil {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ids, c.lags = append(c.ids, sent.Data.ID), append(c.lags, time.Since(sent.Data.CreatedAt))
	}))
	tb.Cleanup(c.Close)
	return c
}

func (c *clocked) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ids)
}

// underEvents writes events at a rate for a time, each in a transaction of its own, and admits requests meanwhile, one after the other. It
// returns how long each admission took.
func underEvents(tb testing.TB, s *stack.Stack, c *client.Client, name string, perSecond int, lasts time.Duration) (events int, took []time.Duration) {
	tb.Helper()
	ctx, writers := tb.Context(), errgroup.Group{}
	events = int(lasts.Seconds() * float64(perSecond))
	begun, due := time.Now(), make(chan struct{}, events)
	for range 8 {
		writers.Go(func() error {
			for range due {
				if _, err := s.Pool().Exec(ctx, "SELECT earmark.emit('reservation.expired', 'default', '{acme}', NULL, NULL, NULL, '{}')"); err != nil {
					return err
				}
			}
			return nil
		})
	}
	writers.Go(func() error {
		defer close(due)
		pace := time.NewTicker(time.Second / time.Duration(perSecond))
		defer pace.Stop()
		for range events {
			<-pace.C
			due <- struct{}{}
		}
		return nil
	})
	for i := 0; time.Since(begun) < lasts; i++ {
		asked := time.Now()
		held, err := c.Reserve(ctx, fmt.Sprintf("%s-%d", name, i), earmark.ReservationRequest{Scopes: []string{"acme"}, Amounts: earmark.Amounts{"tokens": 1}})
		require.NoError(tb, err)
		took = append(took, time.Since(asked))
		_, err = c.Release(ctx, held.ID, "over")
		require.NoError(tb, err)
	}
	require.NoError(tb, writers.Wait())
	return events, took
}

func quantile(times []time.Duration, part float64) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[min(len(sorted)-1, int(part*float64(len(sorted))))]
}

// webhookArm is one span of the load: how long admissions took, and the lags of the four endpoints that answer.
type webhookArm struct{ admissions, lags []time.Duration }

// webhookLoad has one span without webhooks, and in each round one with four endpoints that answer and one with a fifth that does not.
type webhookLoad struct {
	without     webhookArm
	alive, dead []webhookArm
}

func loadWebhooks(tb testing.TB, perSecond int, lasts time.Duration, rounds int) (l webhookLoad) {
	tb.Helper()
	s := stack.New(tb, stack.Options{})
	server := s.Serve("--allow-private-webhooks").Ready()
	c, err := client.New(server.URL)
	require.NoError(tb, err)
	ctx, limit := tb.Context(), int64(1_000_000)
	_, err = c.CreateBudget(ctx, earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit})
	require.NoError(tb, err)
	_, l.without.admissions = underEvents(tb, s, c, "without", perSecond, lasts)

	endpoints := make([]*clocked, 4)
	after := ""
	for i := range endpoints {
		endpoints[i] = newClocked(tb)
		hook, err := c.CreateWebhook(ctx, earmark.WebhookRequest{URL: endpoints[i].URL})
		require.NoError(tb, err)
		after = hook.After
	}
	span := func(name string) (arm webhookArm) {
		var events int
		events, arm.admissions = underEvents(tb, s, c, name, perSecond, lasts)
		ids := idsAfter(tb, c, after, events)
		after, arm.lags = ids[len(ids)-1], delivered(tb, endpoints, ids)
		return arm
	}
	for round := range rounds {
		arms := []func(){
			func() { l.alive = append(l.alive, span(fmt.Sprint("alive", round))) },
			func() {
				l.dead = append(l.dead, besideADeadEndpoint(tb, c, func() webhookArm { return span(fmt.Sprint("dead", round)) }))
			},
		}
		if round%2 == 1 { // in changing order, since a span is not like the one before it
			slices.Reverse(arms)
		}
		for _, arm := range arms {
			arm()
		}
	}
	return l
}

// besideADeadEndpoint has one more endpoint for a while, which does not answer. It does not move.
func besideADeadEndpoint(tb testing.TB, c *client.Client, span func() webhookArm) webhookArm {
	tb.Helper()
	stop := make(chan struct{})
	dead := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select { // no answer before the sender gives up
		case <-r.Context().Done():
		case <-stop:
		}
	}))
	defer dead.Close()
	defer close(stop)
	hook, err := c.CreateWebhook(tb.Context(), earmark.WebhookRequest{URL: dead.URL})
	require.NoError(tb, err)
	arm := span()
	shown, err := c.Webhook(tb.Context(), hook.ID)
	require.NoError(tb, err)
	require.Equal(tb, hook.After, shown.After)
	_, err = c.DeleteWebhook(tb.Context(), hook.ID)
	require.NoError(tb, err)
	return arm
}

// idsAfter reads at least so many events of the feed.
func idsAfter(tb testing.TB, c *client.Client, after string, least int) (ids []string) {
	tb.Helper()
	for filter := (earmark.EventFilter{After: after, Limit: earmark.MaxPageSize}); len(ids) < least; {
		page, err := c.Events(tb.Context(), filter)
		require.NoError(tb, err)
		for _, e := range page.Data {
			ids = append(ids, e.ID)
		}
		filter.After = page.NextAfter
	}
	return ids
}

// delivered waits until each endpoint has got these events, in their order and none since the last call besides, and returns
// their lags.
func delivered(tb testing.TB, endpoints []*clocked, order []string) (lags []time.Duration) {
	tb.Helper()
	for _, endpoint := range endpoints {
		require.Eventually(tb, func() bool { return endpoint.count() >= len(order) }, deliveryPatience, 20*time.Millisecond)
		endpoint.mu.Lock()
		require.Equal(tb, slices.Compact(slices.Clone(endpoint.ids)), order, "in the order of the feed")
		lags = append(lags, endpoint.lags...)
		endpoint.ids, endpoint.lags = nil, nil
		endpoint.mu.Unlock()
	}
	return lags
}

// The short form of BenchmarkWebhooks: every endpoint that answers gets every event in one order, while one does not answer.
func TestDeadWebhookHoldsUpNobody(t *testing.T) {
	t.Parallel()
	loadWebhooks(t, 50, 3*time.Second, 1)
}

// BenchmarkWebhooks writes 10,000 events a minute: 20 s without endpoints, and three rounds of 20 s with four that answer and 20 s
// with one more that does not. It reports medians over the rounds, and of the ratios, which are what the dead one makes of the others' time, the least
// and the largest too:
//
//	go test -C test -run '^$' -bench 'Webhooks$' -benchtime 1x ./e2e
func BenchmarkWebhooks(b *testing.B) {
	const rounds = 3
	admissions := func(a webhookArm) []time.Duration { return a.admissions }
	lags := func(a webhookArm) []time.Duration { return a.lags }
	for b.Loop() {
		l := loadWebhooks(b, 10_000/60, 20*time.Second, rounds)
		for round := range rounds {
			for name, arm := range map[string]webhookArm{"alive": l.alive[round], "dead": l.dead[round]} {
				b.Logf("round %d, %s: lags at p50, p90, p99, max: %.0f, %.0f, %.0f, %.0f ms", round, name,
					milliseconds(arm.lags, 0.5), milliseconds(arm.lags, 0.9), milliseconds(arm.lags, 0.99), milliseconds(arm.lags, 1))
			}
		}
		for _, part := range []float64{0.5, 0.99} {
			b.ReportMetric(milliseconds(l.without.admissions, part), fmt.Sprintf("admission-without-p%.0f-ms", 100*part))
			for what, times := range map[string]func(webhookArm) []time.Duration{"admission": admissions, "lag": lags} {
				var alive, dead, ratios []float64
				for round := range rounds {
					alive = append(alive, milliseconds(times(l.alive[round]), part))
					dead = append(dead, milliseconds(times(l.dead[round]), part))
					ratios = append(ratios, dead[round]/alive[round])
				}
				for name, figures := range map[string][]float64{"alive": alive, "dead": dead, "ratio": ratios} {
					slices.Sort(figures)
					b.ReportMetric(figures[rounds/2], fmt.Sprintf("%s-%s-p%.0f", what, name, 100*part))
				}
				b.ReportMetric(ratios[0], fmt.Sprintf("%s-least-ratio-p%.0f", what, 100*part))
				b.ReportMetric(ratios[rounds-1], fmt.Sprintf("%s-largest-ratio-p%.0f", what, 100*part))
			}
		}
	}
}

func milliseconds(times []time.Duration, part float64) float64 {
	return float64(quantile(times, part).Microseconds()) / 1000
}
