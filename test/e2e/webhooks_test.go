//go:build unix

package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/stack"
)

// deliveryPatience is far above the time after which the delivery that a killed worker had under way is tried again.
const deliveryPatience = 2 * time.Minute

// receiver is an endpoint that checks each delivery with the library of Standard Webhooks.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	secrets []string
	down    bool
	loses   int               // the answer to the delivery of this number, counted from 1, gets lost; 0: none
	got     []earmark.Event   // of deliveries that were accepted
	raw     []json.RawMessage // the same, as they came
	bad     []string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, _ := io.ReadAll(request.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	for _, secret := range r.secrets {
		verifier, err := standard.NewWebhook(secret)
		if err == nil {
			err = verifier.Verify(body, request.Header)
		}
		if err != nil {
			r.bad = append(r.bad, err.Error())
		}
	}
	var sent struct {
		Type      earmark.EventType `json:"type"`
		Timestamp time.Time         `json:"timestamp"`
		Data      earmark.Event     `json:"data"`
	}
	var raw struct {
		Data json.RawMessage `json:"data"`
	}
	err := errors.Join(json.Unmarshal(body, &sent), json.Unmarshal(body, &raw))
	if err != nil || sent.Type != sent.Data.Type || !sent.Timestamp.Equal(sent.Data.CreatedAt) || request.Header.Get("webhook-id") != sent.Data.ID {
		r.bad = append(r.bad, fmt.Sprintf("%v: %s", err, body))
	}
	r.got, r.raw = append(r.got, sent.Data), append(r.raw, raw.Data)
	if len(r.got) == r.loses {
		panic(http.ErrAbortHandler)
	}
}

func (r *receiver) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

// ids are the ids of the deliveries; a delivery that came twice in a row counts once.
func (r *receiver) ids() (ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.got {
		ids = append(ids, e.ID)
	}
	return slices.Compact(ids)
}

func (r *receiver) awaitIDs(t *testing.T, want []string) {
	t.Helper()
	require.Eventually(t, func() bool { return slices.Equal(want, r.ids()) }, deliveryPatience, 50*time.Millisecond, "want %v", want)
}

// overrun commits more than was held, which is an event.
func overrun(t *testing.T, c *client.Client, key string) {
	t.Helper()
	ctx := t.Context()
	held, err := c.Reserve(ctx, key, earmark.ReservationRequest{Scopes: []string{"acme"}, Amounts: earmark.Amounts{"tokens": 1}})
	require.NoError(t, err)
	_, err = c.Commit(ctx, held.ID, earmark.Amounts{"tokens": 2})
	require.NoError(t, err)
}

// feed are the ids of all events, in their order.
func feed(t *testing.T, c *client.Client) (ids []string) {
	t.Helper()
	page, err := c.Events(t.Context(), earmark.EventFilter{Limit: earmark.MaxPageSize})
	require.NoError(t, err)
	for _, e := range page.Data {
		ids = append(ids, e.ID)
	}
	return ids
}

// Endpoints get what the feed has, in its order, signed, while another endpoint is down, and after the process was killed.
func TestWebhooksDeliverTheFeed(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	server := s.Serve("--allow-private-webhooks").Ready()
	ctx, limit := t.Context(), int64(1_000_000)
	c, err := client.New(server.URL)
	require.NoError(t, err)
	_, err = c.CreateBudget(ctx, earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit})
	require.NoError(t, err)
	up, down := newReceiver(t), newReceiver(t)
	down.down = true
	hook, err := c.CreateWebhook(ctx, earmark.WebhookRequest{URL: up.URL + "/hooks"})
	require.NoError(t, err)
	up.set(func() { up.secrets = []string{hook.Secret} })
	dead, err := c.CreateWebhook(ctx, earmark.WebhookRequest{URL: down.URL, Types: []earmark.EventType{earmark.EventOverage}})
	require.NoError(t, err)
	down.set(func() { down.secrets = []string{dead.Secret} })

	tested, err := c.TestWebhook(ctx, hook.ID)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, tested.Status)
	up.set(func() { require.Equal(t, earmark.EventWebhookTest, up.got[0].Type); up.got = nil })

	for i := range 5 {
		overrun(t, c, fmt.Sprintf("first-%d", i))
	}
	require.Eventually(t, func() bool { return len(feed(t, c)) == 5 }, deliveryPatience, 50*time.Millisecond)
	up.awaitIDs(t, feed(t, c))
	require.Eventually(t, func() bool { // else the killed worker has a delivery under way, which is tried again after a while
		shown, err := c.Webhook(ctx, hook.ID)
		return err == nil && shown.After == up.ids()[4]
	}, deliveryPatience, 50*time.Millisecond)
	server.Kill()
	server.Restart()
	rotated, err := c.RotateWebhookSecret(ctx, hook.ID)
	require.NoError(t, err)
	up.set(func() { up.secrets = []string{hook.Secret, rotated.Secret} }) // both sign for a day
	for i := range 5 {
		overrun(t, c, fmt.Sprintf("second-%d", i))
	}
	require.Eventually(t, func() bool { return len(feed(t, c)) == 10 }, deliveryPatience, 50*time.Millisecond)
	all := feed(t, c)
	up.awaitIDs(t, all)

	// The other endpoint comes back: it has missed nothing.
	require.Eventually(t, func() bool {
		page, err := c.Deliveries(ctx, dead.ID, earmark.PageFilter{})
		return err == nil && len(page.Data) > 0 && page.Data[0].Status == http.StatusServiceUnavailable && page.Data[0].NextAttemptAt != nil
	}, deliveryPatience, 50*time.Millisecond)
	down.set(func() { down.down = false })
	enabled := true
	_, err = c.PatchWebhook(ctx, dead.ID, earmark.WebhookPatch{Enabled: &enabled})
	require.NoError(t, err)
	down.awaitIDs(t, all)

	up.set(func() { up.got = nil })
	_, err = c.ReplayWebhook(ctx, hook.ID, earmark.WebhookReplay{From: time.Now().Add(-time.Hour)})
	require.NoError(t, err)
	up.awaitIDs(t, all)
	_, err = c.DeleteWebhook(ctx, hook.ID)
	require.NoError(t, err)
	overrun(t, c, "last")
	require.Eventually(t, func() bool { return len(down.ids()) == 11 }, deliveryPatience, 50*time.Millisecond)
	require.Len(t, up.ids(), 10)
	up.set(func() { require.Empty(t, up.bad) })
	down.set(func() { require.Empty(t, down.bad) })
}

// A process is killed while an endpoint lets it wait. The event is sent again once Temporal misses the heartbeat, long before
// the time that a delivery may take.
func TestDeliveryOfAKilledProcessIsMadeSoon(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	server := s.Serve("--allow-private-webhooks").Ready()
	limit := int64(1_000_000)
	c, err := client.New(server.URL)
	require.NoError(t, err)
	_, err = c.CreateBudget(t.Context(), earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit})
	require.NoError(t, err)
	arrived := make(chan time.Time, 2)
	endpoint := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		arrived <- time.Now()
		if len(arrived) == 1 {
			<-r.Context().Done() // until the process is killed
		}
	}))
	t.Cleanup(endpoint.Close)
	_, err = c.CreateWebhook(t.Context(), earmark.WebhookRequest{URL: endpoint.URL})
	require.NoError(t, err)
	overrun(t, c, "one")
	require.Eventually(t, func() bool { return len(arrived) == 1 }, deliveryPatience, 10*time.Millisecond)
	server.Kill()
	server.Restart()
	restarted := time.Now()
	require.Eventually(t, func() bool { return len(arrived) == 2 }, deliveryPatience, 10*time.Millisecond)
	<-arrived
	require.Less(t, (<-arrived).Sub(restarted), 25*time.Second, "it takes 13 s, and 45 s without a heartbeat")
}
