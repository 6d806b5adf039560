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

// webhookLoad has how long admissions took, and the deliveries of four endpoints that answer: without webhooks, with these
// four, and with one more that does not answer.
type webhookLoad struct {
	without, alive, dead []time.Duration
	lags, lagsWithDead   []time.Duration
}

func loadWebhooks(tb testing.TB, perSecond int, lasts time.Duration) (l webhookLoad) {
	tb.Helper()
	s := stack.New(tb, stack.Options{})
	server := s.Serve("--allow-private-webhooks").Ready()
	c, err := client.New(server.URL)
	require.NoError(tb, err)
	ctx, limit := tb.Context(), int64(1_000_000)
	_, err = c.CreateBudget(ctx, earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit})
	require.NoError(tb, err)
	_, l.without = underEvents(tb, s, c, "without", perSecond, lasts)

	endpoints := make([]*clocked, 4)
	var first string
	for i := range endpoints {
		endpoints[i] = newClocked(tb)
		hook, err := c.CreateWebhook(ctx, earmark.WebhookRequest{URL: endpoints[i].URL})
		require.NoError(tb, err)
		first = hook.After
	}
	events, took := underEvents(tb, s, c, "alive", perSecond, lasts)
	l.alive, l.lags = took, delivered(tb, endpoints, idsAfter(tb, c, first, events))

	stop := make(chan struct{})
	dead := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select { // no answer before the sender gives up
		case <-r.Context().Done():
		case <-stop:
		}
	}))
	tb.Cleanup(dead.Close)
	tb.Cleanup(func() { close(stop) })
	deadHook, err := c.CreateWebhook(ctx, earmark.WebhookRequest{URL: dead.URL})
	require.NoError(tb, err)
	events, l.dead = underEvents(tb, s, c, "dead", perSecond, lasts)
	l.lagsWithDead = delivered(tb, endpoints, idsAfter(tb, c, deadHook.After, events))
	// The one that does not answer has not moved, and waits.
	shown, err := c.Webhook(ctx, deadHook.ID)
	require.NoError(tb, err)
	require.Equal(tb, deadHook.After, shown.After)
	return l
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
	loadWebhooks(t, 50, 3*time.Second)
}

// BenchmarkWebhooks writes 10,000 events a minute, for a minute each without endpoints, with four that answer, and with one
// more that does not. A ratio is what the dead one makes of the others' time:
//
//	go test -C test -run '^$' -bench 'Webhooks$' -benchtime 1x ./e2e
func BenchmarkWebhooks(b *testing.B) {
	for b.Loop() {
		l := loadWebhooks(b, 10_000/60, time.Minute)
		for name, times := range map[string][]time.Duration{
			"admission-without": l.without, "admission-alive": l.alive, "admission-dead": l.dead, "lag-alive": l.lags, "lag-dead": l.lagsWithDead,
		} {
			b.ReportMetric(float64(quantile(times, 0.5).Microseconds())/1000, name+"-p50-ms")
			b.ReportMetric(float64(quantile(times, 0.99).Microseconds())/1000, name+"-p99-ms")
		}
		for name, times := range map[string][2][]time.Duration{"admission": {l.dead, l.alive}, "lag": {l.lagsWithDead, l.lags}} {
			for _, part := range []float64{0.5, 0.99} {
				b.ReportMetric(float64(quantile(times[0], part))/float64(quantile(times[1], part)), fmt.Sprintf("%s-p%.0f-ratio", name, 100*part))
			}
		}
	}
}
