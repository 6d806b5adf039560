package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func testEvent(id string) earmark.Event {
	return earmark.Event{ID: id, Type: earmark.EventExpired, CreatedAt: testTime, Scopes: []string{"acme"}, ReservationID: testReservationID, Data: json.RawMessage(`{"state":"expired"}`)}
}

func TestListEvents(t *testing.T) {
	t.Parallel()
	f := &fake{events: []earmark.EventPage{{Data: []earmark.Event{testEvent("evt_5_1")}, NextAfter: "evt_9_0"}}}
	b := setup(t, f)
	x := b.do("GET", "/v1/events?after=evt_4_2&type=reservation.expired,reservation.review&budget_id="+testBudgetID+"&limit=7", "")
	require.Equal(t, http.StatusOK, x.resp.StatusCode)
	require.JSONEq(t, `{"data":[{"id":"evt_5_1","type":"reservation.expired","created_at":"2026-03-04T05:06:07Z","scopes":["acme"],"budget_id":"",
		"reservation_id":"`+testReservationID+`","window_start":null,"data":{"state":"expired"}}],"next_after":"evt_9_0"}`, string(x.body))
	require.Equal(t, []call{{"Events", earmark.EventFilter{After: "evt_4_2", Types: []earmark.EventType{earmark.EventExpired, earmark.EventReview},
		BudgetID: testBudgetID, Limit: 7}}}, f.calls)
	require.JSONEq(t, `{"data":[],"next_after":"evt_9_0"}`, string(b.do("GET", "/v1/events", "").body))
}

func TestBadEventFilters(t *testing.T) {
	t.Parallel()
	for query, field := range map[string]string{
		"after=5": "after", "after=evt_1": "after", "after=evt_-1_2": "after", "type=reservation.made": "type", "type=": "type", "type=budget.exhausted,": "type",
		"budget_id=x": "budget_id", "limit=0": "limit", "cursor=x": "cursor",
	} {
		f := &fake{}
		x := setup(t, f).send("GET", "/v1/events?"+query, "")
		require.Equal(t, http.StatusBadRequest, x.resp.StatusCode, query)
		require.Contains(t, string(x.body), `"field":"`+field+`"`, query)
		require.Empty(t, f.calls)
	}
	x := setup(t, &fake{}).send("GET", "/v1/events", "", "Accept", streamType, lastEventIDHeader, "x")
	require.Equal(t, http.StatusBadRequest, x.resp.StatusCode)
	require.Contains(t, string(x.body), `"field":"Last-Event-ID"`)
}

// A stream begins after the last event of its reader, sends what comes, and ends when the server stops.
func TestStreamOfEvents(t *testing.T) {
	t.Parallel()
	stopping := make(chan struct{})
	f := &fake{events: []earmark.EventPage{{Data: []earmark.Event{testEvent("evt_5_1")}, NextAfter: "evt_6_0"}, {Data: []earmark.Event{testEvent("evt_7_2")}, NextAfter: "evt_8_0"}}}
	b := setup(t, f, func(o *Options) { o.Stopping = stopping })
	server := httptest.NewServer(b.handler)
	t.Cleanup(server.Close)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/events", nil)
	require.NoError(t, err)
	request.Header.Set("Accept", streamType)
	request.Header.Set(lastEventIDHeader, "evt_4_2")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Equal(t, streamType, response.Header.Get("Content-Type"))
	lines := bufio.NewScanner(response.Body)
	var text []string
	for lines.Scan() {
		text = append(text, lines.Text())
		if strings.HasPrefix(lines.Text(), "data: ") && strings.Contains(lines.Text(), "evt_7_2") {
			close(stopping)
		}
	}
	require.NoError(t, lines.Err(), "the answer ends in order")
	encoded := func(id string) string {
		data, err := json.Marshal(testEvent(id))
		require.NoError(t, err)
		return "data: " + string(data)
	}
	require.Equal(t, []string{"retry: 1000", "", "id: evt_5_1", "event: reservation.expired", encoded("evt_5_1"), "", "id: evt_7_2", "event: reservation.expired", encoded("evt_7_2"), ""}, text)
	require.Equal(t, "evt_4_2", f.calls[0].arg.(earmark.EventFilter).After)
	require.Equal(t, "evt_6_0", f.calls[1].arg.(earmark.EventFilter).After)
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	c, _ := gin.CreateTestContext(httptest.NewRecorder())
	c.Request = httptest.NewRequest(http.MethodGet, eventsPath, nil)
	full := &server{streams: make(chan struct{})}
	err := full.streamEvents(c, earmark.EventFilter{})
	require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(err))
}

// Denials are written together, in the background: at once, then after a pause, and once more when counts are due.
func TestDenialsAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{denialsDue: time.Minute}
		d := newDenials(f, nil, slog.New(slog.DiscardHandler))
		violations := []earmark.Violation{{BudgetID: "b", Requested: 10, Limit: 100, Available: 9}, {BudgetID: "a", Requested: 10, Limit: 100, Available: 1}}
		d.add(t.Context(), "default", violations)
		synctest.Wait()
		require.Equal(t, [][]earmark.Denials{{{BudgetID: "a", Count: 1, Requested: 10, Limit: 100, Available: 1}, {BudgetID: "b", Count: 1, Requested: 10, Limit: 100, Available: 9}}}, f.counts())
		for range 3 {
			d.add(t.Context(), "default", violations[:1])
		}
		synctest.Wait()
		require.Len(t, f.counts(), 1)
		time.Sleep(denialPause) //nolint:forbidigo // fake time
		synctest.Wait()
		require.Equal(t, []earmark.Denials{{BudgetID: "b", Count: 3, Requested: 10, Limit: 100, Available: 9}}, f.counts()[1])
		f.mu.Lock()
		f.denialsDue = 0
		f.mu.Unlock()
		time.Sleep(2 * time.Minute) //nolint:forbidigo // fake time
		synctest.Wait()
		require.Len(t, f.counts(), 3)
		require.Empty(t, f.counts()[2], "what was due")
		require.False(t, d.running)

		f.mu.Lock()
		f.denialsErr = errors.New("away")
		f.mu.Unlock()
		d.add(t.Context(), "default", violations[:1])
		synctest.Wait()
		d.add(t.Context(), "default", violations[:1])
		f.mu.Lock()
		f.denialsErr = nil
		f.mu.Unlock()
		time.Sleep(2 * denialPause) //nolint:forbidigo // fake time
		synctest.Wait()
		require.Len(t, f.counts(), 5)
		require.Equal(t, int64(2), f.counts()[4][0].Count, "a write that failed is made again")
	})
}

// A server that stops writes what it has counted.
func TestDenialsAreWrittenBeforeTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, stopping := &fake{}, make(chan struct{})
		d := newDenials(f, stopping, slog.New(slog.DiscardHandler))
		violations := []earmark.Violation{{BudgetID: "b"}}
		d.add(context.Background(), "default", violations)
		synctest.Wait()
		d.add(context.Background(), "default", violations)
		close(stopping)
		synctest.Wait()
		require.Len(t, f.counts(), 2)
	})
}

func TestDenialReachesTheCount(t *testing.T) {
	t.Parallel()
	f := &fake{preflight: earmark.Preflight{Result: earmark.Result{Outcome: earmark.OutcomeDenied, Decision: &earmark.Decision{
		Violations: []earmark.Violation{{BudgetID: testBudgetID, Scope: "acme", Unit: "tokens", Limit: 5, Available: 5, Requested: 10}}}}}}
	b := setup(t, f)
	x := b.do("POST", "/v1/reservations", `{"scopes":["acme"],"amounts":{"tokens":10}}`)
	require.Equal(t, http.StatusPaymentRequired, x.resp.StatusCode)
	require.Eventually(t, func() bool {
		counts := f.counts()
		return len(counts) == 1 && counts[0][0].BudgetID == testBudgetID
	}, 10*time.Second, time.Millisecond)
}
