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

// webhookLoad writes events at a rate twice: without webhooks, and with four that answer and one that does not.
type webhookLoad struct {
	without, with, lags []time.Duration
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
	endpoints := make([]*clocked, 4)
	for i := range endpoints {
		endpoints[i] = newClocked(tb)
		_, err = c.CreateWebhook(ctx, earmark.WebhookRequest{URL: endpoints[i].URL})
		require.NoError(tb, err)
	}
	var events int
	events, l.with = underEvents(tb, s, c, "with", perSecond, lasts)
	var order []string
	for filter := (earmark.EventFilter{After: deadHook.After, Limit: earmark.MaxPageSize}); len(order) < events; {
		page, err := c.Events(ctx, filter)
		require.NoError(tb, err)
		for _, e := range page.Data {
			order = append(order, e.ID)
		}
		filter.After = page.NextAfter
	}
	for _, endpoint := range endpoints {
		require.Eventually(tb, func() bool { return endpoint.count() >= len(order) }, deliveryPatience, 20*time.Millisecond)
		endpoint.mu.Lock()
		require.Equal(tb, slices.Compact(slices.Clone(endpoint.ids)), order, "in the order of the feed")
		l.lags = append(l.lags, endpoint.lags...)
		endpoint.mu.Unlock()
	}
	// The one that does not answer has not moved, and waits.
	shown, err := c.Webhook(ctx, deadHook.ID)
	require.NoError(tb, err)
	require.Equal(tb, deadHook.After, shown.After)
	return l
}

// The short form of BenchmarkWebhooks: every endpoint that answers gets every event in one order, while one does not answer.
func TestDeadWebhookHoldsUpNobody(t *testing.T) {
	t.Parallel()
	loadWebhooks(t, 50, 3*time.Second)
}

// BenchmarkWebhooks writes 10,000 events a minute, with four endpoints that answer and one that does not:
//
//	go test -C test -run '^$' -bench 'Webhooks$' -benchtime 1x ./e2e
func BenchmarkWebhooks(b *testing.B) {
	for b.Loop() {
		l := loadWebhooks(b, 10_000/60, time.Minute)
		for name, times := range map[string][]time.Duration{"admission-without": l.without, "admission-with": l.with, "lag": l.lags} {
			b.ReportMetric(float64(quantile(times, 0.5).Microseconds())/1000, name+"-p50-ms")
			b.ReportMetric(float64(quantile(times, 0.99).Microseconds())/1000, name+"-p99-ms")
		}
	}
}
