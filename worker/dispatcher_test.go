//go:build unix

package worker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/webhook"
)

// endpoint is the row of one endpoint, with the events that wait for it.
type endpoint struct {
	mu     sync.Mutex
	claim  webhook.Claim
	url    string
	events []earmark.Event
	failed []webhook.Attempt
	next   time.Time // of the next attempt, after a failure
	asked  bool
}

func (e *endpoint) claims() []webhook.Claim {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.events) == 0 || e.asked || time.Now().Before(e.next) {
		return nil
	}
	e.asked = true
	return []webhook.Claim{e.claim}
}

func (e *endpoint) failures() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.failed)
}

func (l *ledger) ClaimWebhooks(context.Context, time.Duration, int) (claims []webhook.Claim, err error) {
	for _, e := range l.endpoints {
		claims = append(claims, e.claims()...)
	}
	return claims, nil
}

func (l *ledger) endpoint(id string) *endpoint {
	return l.endpoints[slices.IndexFunc(l.endpoints, func(e *endpoint) bool { return e.claim.ID == id })]
}

func (l *ledger) NextDeliveries(_ context.Context, id string, limit int) (webhook.Batch, error) {
	e := l.endpoint(id)
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.events) == 0 {
		e.asked = false
		return webhook.Batch{State: webhook.StateIdle}, nil
	}
	if wait := time.Until(e.next); wait > 0 {
		return webhook.Batch{State: webhook.StateWaiting, WaitMS: wait.Milliseconds() + 1}, nil
	}
	return webhook.Batch{State: webhook.StateDue, Target: webhook.Target{URL: e.url, Secrets: []webhook.Secret{webhook.NewSecret()}},
		Events: slices.Clone(e.events[:min(limit, len(e.events))]), Attempts: len(e.failed)}, nil
}

func (l *ledger) RecordDeliveries(_ context.Context, id, _ string, attempts []webhook.Attempt, retry time.Duration) (bool, error) {
	e := l.endpoint(id)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range attempts {
		if a.Error != "" {
			e.failed, e.next = append(e.failed, a), time.Now().Add(retry)
			continue
		}
		e.events = e.events[1:]
	}
	return false, nil
}

// Events that wait are delivered in their order by way of Temporal, while another endpoint does not answer.
func TestEventsAreDelivered(t *testing.T) {
	got := make(chan string, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		var body struct {
			Type string        `json:"type"`
			Data earmark.Event `json:"data"`
		}
		_ = json.Unmarshal(text, &body)
		got <- body.Type + " " + r.Header.Get(webhook.HeaderID) + " " + body.Data.BudgetID
	}))
	t.Cleanup(receiver.Close)
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	events := []earmark.Event{{ID: "evt_1_1", Type: earmark.EventExhausted, BudgetID: "bud_a"}, {ID: "evt_1_2", Type: earmark.EventExpired}}
	l := newLedger(t)
	l.endpoints = []*endpoint{
		{claim: webhook.Claim{ID: earmark.NewWebhookID(), Tenant: "acme"}, url: dead.URL, events: slices.Clone(events)},
		{claim: webhook.Claim{ID: earmark.NewWebhookID(), Tenant: "acme"}, url: receiver.URL, events: slices.Clone(events)},
	}
	c := lazyClient(t, stack.TemporalAddress())
	unscheduleAfter(t, c)
	stop := runWorker(t, New(c, Options{
		Ledger: l, Logger: slog.New(slog.DiscardHandler), Grace: DefaultGrace, Unindexed: true, Webhooks: webhook.Allowed{Private: true}}))
	for _, want := range []string{"budget.exhausted evt_1_1 bud_a", "reservation.expired evt_1_2 "} {
		select {
		case text := <-got:
			require.Equal(t, want, text)
		case <-time.After(patience):
			require.Fail(t, "it was not delivered", want)
		}
	}
	require.Eventually(t, func() bool { return l.endpoints[0].failures() == 1 }, patience, 10*time.Millisecond)
	stop()
	require.Equal(t, "evt_1_1", l.endpoints[0].failed[0].EventID)
	require.Len(t, l.endpoints[0].events, 2)
}

// claimsOnce returns two endpoints at the first look, and a fault at the second.
type claimsOnce struct{ looks int }

func (c *claimsOnce) ClaimWebhooks(context.Context, time.Duration, int) ([]webhook.Claim, error) {
	c.looks++
	switch c.looks {
	case 1:
		return []webhook.Claim{{ID: "a"}, {ID: "b"}}, nil
	case 2:
		return nil, errors.New("away")
	}
	return nil, nil
}

func TestDispatcherLooksEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		ledger := &claimsOnce{}
		var mu sync.Mutex
		var asked []string
		d := &Dispatcher{Ledger: ledger, Logger: slog.New(slog.DiscardHandler), Deliver: func(_ context.Context, claim webhook.Claim) error {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, claim.ID)
			return nil
		}}
		require.NoError(t, d.Run(ctx))
		require.ElementsMatch(t, []string{"a", "b"}, asked)
		require.Equal(t, 4, ledger.looks, "at 0 s, 1 s, 2 s and 3 s")
	})
}
