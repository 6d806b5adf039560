//go:build unix

package chaos_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/ctxtime"
)

const (
	// feedPause is between two reads of the feed, and feedPage what each asks for.
	feedPause = 500 * time.Millisecond
	feedPage  = 7
	// failsOnceIn is for how many events the receiver refuses one, once.
	failsOnceIn = 100
	// deliveredLimit is how long after the end the last events may take to the receiver.
	deliveredLimit = 3 * time.Minute
)

// watcher follows the events of a tenant while everything breaks: it reads the feed, and has a webhook.
type watcher struct {
	*tenant
	server *httptest.Server
	stop   context.CancelFunc
	done   chan struct{}
	feed   []string // ids, as the feed had them

	mu       sync.Mutex
	got      []string // ids, as they were accepted
	refused  map[string]bool
	problems []string
}

// watch follows the events of each tenant from now on.
func (d *driver) watch(c *cluster) []*watcher {
	c.t.Helper()
	var watchers []*watcher
	for _, own := range d.tenants {
		w := &watcher{tenant: own, done: make(chan struct{}), refused: map[string]bool{}}
		w.server = httptest.NewServer(w)
		c.t.Cleanup(w.server.Close)
		_, err := own.clients[0].CreateWebhook(c.t.Context(), earmark.WebhookRequest{URL: w.server.URL})
		require.NoError(c.t, err)
		var ctx context.Context
		ctx, w.stop = context.WithCancel(c.t.Context())
		c.t.Cleanup(w.stop)
		go w.read(ctx)
		watchers = append(watchers, w)
	}
	return watchers
}

// read reads the feed by any server, and goes on where it was after each fault, until it is stopped and at the end.
func (w *watcher) read(ctx context.Context) {
	defer close(w.done)
	after := ""
	for {
		stopped := ctx.Err() != nil
		page, err := w.clients[rand.IntN(len(w.clients))].Events(context.WithoutCancel(ctx), earmark.EventFilter{After: after, Limit: feedPage})
		if err == nil {
			for _, e := range page.Data {
				w.feed = append(w.feed, e.ID)
			}
			if after = page.NextAfter; len(page.Data) == feedPage {
				continue
			}
		}
		if stopped && err == nil {
			return
		}
		ctxtime.Sleep(ctx, feedPause)
	}
}

// ServeHTTP receives a delivery, and refuses some events once.
func (w *watcher) ServeHTTP(answer http.ResponseWriter, request *http.Request) {
	var sent struct {
		Data earmark.Event `json:"data"`
	}
	body, err := io.ReadAll(request.Body)
	if err == nil {
		err = json.Unmarshal(body, &sent)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch id := sent.Data.ID; {
	case err != nil && request.Context().Err() != nil: // the sender was killed
	case err != nil || id != request.Header.Get("webhook-id"):
		w.problems = append(w.problems, fmt.Sprintf("a delivery is malformed: %v: %s", err, body))
	case !w.refused[id] && len(w.got)%failsOnceIn == failsOnceIn-1:
		w.refused[id] = true
		answer.WriteHeader(http.StatusServiceUnavailable)
	default:
		w.got = append(w.got, id)
	}
}

// received are the ids of the deliveries, each at its first arrival.
func (w *watcher) received() (ids []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := map[string]bool{}
	for _, id := range w.got {
		if !seen[id] {
			ids = append(ids, id)
		}
		seen[id] = true
	}
	return ids
}

// written is an event as the database has it.
type written struct {
	ID            string
	Tenant        string
	Type          earmark.EventType
	BudgetID      string
	ReservationID string
	WindowStart   *time.Time
	CreatedAt     time.Time
	Data          json.RawMessage
}

// checkEvents compares the events with the journal, and the feed and the deliveries with the events. It runs when nothing
// changes any more.
func (d *driver) checkEvents(c *cluster, watchers []*watcher) (problems []string) {
	c.t.Helper()
	all := collect[written](c.t, c.Pool(), `SELECT 'evt_' || tx || '_' || e.id AS id, tenant, type, coalesce(budget_id, '') AS budget_id,
		coalesce(reservation_id, '') AS reservation_id, window_start, created_at, data FROM earmark.events e ORDER BY e.tx, e.id`)
	problems = append(problems, judgeReservationEvents(readRows(c.t, c.Pool()), all)...)
	problems = append(problems, d.judgeBudgetEvents(c, all)...)
	count := map[earmark.EventType]int{}
	for _, e := range all {
		count[e.Type]++
	}
	for _, w := range watchers {
		var ids []string
		for _, e := range all {
			if e.Tenant == w.name {
				ids = append(ids, e.ID)
			}
		}
		w.stop()
		<-w.done
		if !slices.Equal(w.feed, ids) {
			problems = append(problems, fmt.Sprintf("the feed of %s had %s", w.name, difference(w.feed, ids)))
		}
		c.await(deliveredLimit, func() bool { return len(w.received()) >= len(ids) })
		if received := w.received(); !slices.Equal(received, ids) {
			problems = append(problems, fmt.Sprintf("the webhook of %s received %s", w.name, difference(received, ids)))
		}
		w.mu.Lock()
		problems = append(problems, w.problems...)
		c.t.Logf("%s: %d events, %d deliveries, %d of them refused once", w.name, len(ids), len(w.got)+len(w.refused), len(w.refused))
		w.mu.Unlock()
	}
	c.t.Logf("events by type: %v", count)
	return problems
}

// difference says where the first difference of two lists is.
func difference(got, want []string) string {
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			at := func(list []string) []string { return list[min(i, len(list)):min(i+3, len(list))] }
			return fmt.Sprintf("%d events instead of %d; the first difference is at %d: %v instead of %v", len(got), len(want), i, at(got), at(want))
		}
	}
	return "the same"
}

// judgeReservationEvents compares the events of each reservation with its entries: each cause has one.
func judgeReservationEvents(rows map[string]*row, all []written) (problems []string) {
	got := map[string]map[string]int{}
	for _, e := range all {
		if e.ReservationID == "" {
			continue
		}
		if got[e.ReservationID] == nil {
			got[e.ReservationID] = map[string]int{}
		}
		name := string(e.Type)
		var data struct {
			Rejected bool `json:"rejected"`
		}
		if json.Unmarshal(e.Data, &data) == nil && data.Rejected {
			name += " rejected"
		}
		got[e.ReservationID][name]++
	}
	for id, r := range rows {
		if want := r.causes(); !maps.Equal(want, got[id]) {
			problems = append(problems, fmt.Sprintf("%s: it has the events %v instead of %v\n  ledger:  %s", id, got[id], want, r.evidence()))
		}
		delete(got, id)
	}
	for id := range got {
		problems = append(problems, fmt.Sprintf("%s: it has events and is not there", id))
	}
	return problems
}

// causes are the events that the entries of a reservation ask for. Entries of several budgets are of one transition.
func (r *row) causes() map[string]int {
	want := map[string]int{}
	over := false
	for _, e := range r.entries {
		switch e.Kind {
		case "expire":
			want[string(earmark.EventExpired)] = 1
		case "review":
			want[string(earmark.EventReview)]++
		case "reject":
			want[string(earmark.EventOverage)+" rejected"]++
		case "correction":
			want[string(earmark.EventCorrected)] = 1 // the driver corrects once
		case "commit":
			if want[string(earmark.EventExpired)]+want[string(earmark.EventReview)] > 0 {
				want[string(earmark.EventCommittedLate)] = 1
			}
			over = true
		}
	}
	for unit, used := range r.Usage {
		if over && used > r.Amounts[unit] {
			want[string(earmark.EventOverage)] = 1
		}
	}
	return want
}

// judgeBudgetEvents compares the events of budgets with the balances that the entries show: each window opened once, each
// threshold of a budget whose limit stays was crossed once in each window that reached it, and denials are sampled.
func (d *driver) judgeBudgetEvents(c *cluster, all []written) (problems []string) {
	type crossed struct {
		threshold earmark.Threshold
		window    string
	}
	at := func(budgetID string, start time.Time) string {
		return budgetID + " " + start.UTC().Format(time.RFC3339)
	}
	opened, crossings, denied := map[string]int{}, map[crossed]int{}, map[string]time.Time{}
	for _, e := range all {
		if e.BudgetID == "" || e.WindowStart == nil {
			continue
		}
		w := at(e.BudgetID, *e.WindowStart)
		switch e.Type { //nolint:exhaustive // these three are about windows
		case earmark.EventWindowOpened:
			opened[w]++
		case earmark.EventThreshold:
			var data struct {
				Threshold earmark.Threshold `json:"threshold"`
			}
			if err := json.Unmarshal(e.Data, &data); err != nil {
				problems = append(problems, fmt.Sprintf("event %s: %v", e.ID, err))
			}
			crossings[crossed{data.Threshold, w}]++
		case earmark.EventDenied:
			if last, before := denied[e.BudgetID]; before && e.CreatedAt.Sub(last) < time.Minute {
				problems = append(problems, fmt.Sprintf("%s has two events of denials within a minute", e.BudgetID))
			}
			denied[e.BudgetID] = e.CreatedAt
		}
	}
	wantOpened, wantCrossings := map[string]int{}, map[crossed]int{}
	for _, w := range collect[struct {
		BudgetID    string
		WindowStart time.Time
	}](c.t, c.Pool(), "SELECT budget_id, window_start FROM earmark.windows WHERE window_end IS NOT NULL") {
		wantOpened[at(w.BudgetID, w.WindowStart)] = 1
	}
	for _, e := range readEntries(c.t, c.Pool()) {
		if e.BudgetID == nil || e.WindowStart == nil {
			continue
		}
		for _, t := range d.budget(*e.BudgetID).Thresholds {
			reached := *e.CommittedAfter
			if t.Of == earmark.ThresholdOfUsed {
				reached += *e.ReservedAfter
			}
			if reached >= t.Amount {
				wantCrossings[crossed{t, at(*e.BudgetID, *e.WindowStart)}] = 1
			}
		}
	}
	if !maps.Equal(opened, wantOpened) {
		problems = append(problems, fmt.Sprintf("windows opened: %v instead of %v", opened, wantOpened))
	}
	if len(wantCrossings) == 0 || !maps.Equal(crossings, wantCrossings) {
		problems = append(problems, fmt.Sprintf("thresholds were crossed: %v instead of %v", crossings, wantCrossings))
	}
	return problems
}
