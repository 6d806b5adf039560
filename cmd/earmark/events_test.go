package main

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func (l *cannedLedger) Events(_ context.Context, _ string, f earmark.EventFilter) (earmark.EventPage, error) {
	l.eventFilter = f
	return earmark.EventPage{Data: l.events, NextAfter: "evt_9_0"}, nil
}

func (l *cannedLedger) CountDenials(context.Context, string, []earmark.Denials) (time.Duration, error) {
	return 0, nil
}

func TestEvents(t *testing.T) {
	t.Parallel()
	ledger := &cannedLedger{events: []earmark.Event{{ID: "evt_5_1", Type: earmark.EventReview, ReservationID: "rsv_k3jd8fh2qz07aaaaaaaaaaaaaa", Scopes: []string{"acme"},
		CreatedAt: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Data: json.RawMessage(`{"state":"review"}`)}}}
	url := serveCanned(t, ledger)
	table := earmarkPipe(t, url, "events", "--after", "evt_4_1", "--type", "reservation.review,budget.exhausted").ok(t)
	for _, words := range []string{"WHEN", "reservation.review", "rsv_k3jd8fh2qz07", "acme", `{"state":"review"}`, "Continue with --after evt_9_0"} {
		require.Contains(t, table, words)
	}
	require.Equal(t, earmark.EventFilter{After: "evt_4_1", Types: []earmark.EventType{earmark.EventReview, earmark.EventExhausted}, Limit: earmark.DefaultPageSize}, ledger.eventFilter)
	var page earmark.EventPage
	require.NoError(t, json.Unmarshal([]byte(earmarkPipe(t, url, "events", "--json").ok(t)), &page))
	require.Equal(t, "evt_9_0", page.NextAfter)
	require.Equal(t, ledger.events[0].ID, page.Data[0].ID)

	line, err := eventLine(ledger.events[0], false)
	require.NoError(t, err)
	require.Equal(t, `2026-03-04T05:06:07Z  reservation.review  rsv_k3jd8fh2qz07aaaaaaaaaaaaaa  {"state":"review"}`, line)

	wrong := earmarkPipe(t, url, "events", "--type", "reservation.made")
	require.Equal(t, exitUsage, wrong.code)
	require.Contains(t, wrong.stderr, "budget.exhausted")
	require.Equal(t, exitUsage, earmarkPipe(t, url, "events", "--limit", "0").code)
}
