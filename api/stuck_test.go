package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/workflowstore"
	"github.com/earmark-dev/earmark/workflows"
)

// fakeFinder finds what a test sets.
type fakeFinder struct {
	found    workflowstore.Findings
	suspects []string
	asked    atomic.Int64
	err      error
	lostErr  error
	lost     func() *earmark.Reservation // what Lost finds; a held one when nil
	search   func(context.Context)       // runs in each search
}

func (f *fakeFinder) Find(ctx context.Context, _ string, suspects []string) (workflowstore.Findings, error) {
	f.asked.Add(1)
	f.suspects = suspects
	if f.search != nil {
		f.search(ctx)
	}
	return f.found, f.err
}

func (f *fakeFinder) Lost(_ context.Context, _, workflowID string) (*earmark.Reservation, error) {
	if f.lost != nil {
		return f.lost(), f.lostErr
	}
	r := reservationIn(earmark.StateHeld)
	r.ID, r.WorkflowID, r.Lost, r.Budgets = workflows.Prefix("").ReservationOf(workflowID), workflowID, true, nil
	return r, f.lostErr
}

func (f *fakeFinder) Searches(tenant string, now time.Time) []earmark.Search {
	return (&workflowstore.StuckFinder{}).Searches(tenant, now)
}

func setupFinder(t *testing.T, f *fake, finder *fakeFinder) *env {
	t.Helper()
	b := setup(t, f)
	b.handler = New(Options{WithoutKeys: true, Ledger: f, Coordinator: fakeCoordinator{f}, StuckFinder: finder, UIURL: uiURL, Logger: slog.New(slog.DiscardHandler)})
	return b
}

func TestStuckReservationsTellWhyAndWhatToDo(t *testing.T) {
	t.Parallel()
	stuck := func(state earmark.State, reason earmark.StuckReason) earmark.Reservation {
		r := reservationIn(state)
		r.ID, r.Stuck = earmark.NewReservationID(), &earmark.Stuck{Reason: reason, Since: &testTime, AgeSeconds: 60}
		return *r
	}
	overdue, orphan, review := stuck(earmark.StateHeld, earmark.StuckExpiryMissed), stuck(earmark.StateHeld, earmark.StuckOrphan), stuck(earmark.StateReview, earmark.StuckReview)
	review.RejectedUsage = earmark.Amounts{"tokens": 1500}
	failing := stuck(earmark.StateHeld, earmark.StuckSettlementFailing)
	failing.Stuck.Since, failing.Stuck.AgeSeconds = nil, 0
	lostID := earmark.NewReservationID()
	since := time.Now().Add(-time.Minute)
	f := &fake{suspects: []string{overdue.ID}, known: []string{failing.ID},
		reservations: earmark.Page[earmark.Reservation]{Data: []earmark.Reservation{overdue, orphan, review, failing}}}
	finder := &fakeFinder{found: workflowstore.Findings{Workflows: []workflowstore.StuckWorkflow{
		{WorkflowID: workflows.Prefix("").ReservationWorkflowID(failing.ID), Reason: earmark.StuckSettlementFailing, Since: &since, Detail: "no route to host"},
		{WorkflowID: workflows.Prefix("").ReservationWorkflowID(lostID), Reason: earmark.StuckSettlementFailing, Detail: "no budget"},
	}}}
	b := setupFinder(t, f, finder)
	page := decoded[earmark.StuckPage](b.do(http.MethodGet, "/v1/reservations?stuck=true&scope=acme&limit=7", "").status(http.StatusOK))

	require.Empty(t, page.Incomplete)
	require.Equal(t, []string{workflows.Prefix("").ReservationWorkflowID(overdue.ID)}, finder.suspects)
	asked := f.last().(stuckCall)
	require.Equal(t, earmark.ReservationFilter{Scope: "acme", Stuck: true, Limit: 7}, asked.filter)
	require.ElementsMatch(t, []string{failing.ID, lostID}, asked.reported.SettlementFailing)
	require.Len(t, page.Data, 5)
	lost := page.Data[0]
	require.True(t, lost.Lost)
	require.Equal(t, lostID, lost.ID)
	require.Equal(t, "no budget", lost.Stuck.Detail)
	require.Contains(t, lost.Stuck.Remedy, "earmark budget create")
	require.Contains(t, page.Data[1].Stuck.Remedy, "earmark release "+overdue.ID)
	require.Contains(t, page.Data[2].Stuck.Remedy, "earmark adopt "+orphan.ID)
	require.Contains(t, page.Data[3].Stuck.Remedy, "earmark commit "+review.ID+" tokens=1,500")
	require.Contains(t, page.Data[3].Stuck.Detail, "1,500 tokens")
	require.Equal(t, "no route to host", page.Data[4].Stuck.Detail)
	require.GreaterOrEqual(t, page.Data[4].Stuck.AgeSeconds, int64(60))
	for _, search := range page.Searches {
		require.Contains(t, search.URL, "http://127.0.0.1:8233/namespaces/default/workflows?query=WorkflowType")
	}
	require.NotEmpty(t, page.Searches)

	b.do(http.MethodGet, "/v1/reservations?stuck=true&stuck_reason=review", "").status(http.StatusOK)
	require.Equal(t, int64(1), finder.asked.Load(), "many who watch ask Temporal once")
	require.Equal(t, earmark.StuckReview, f.last().(stuckCall).filter.StuckReason)
}

func TestStuckReservationsAreListedWithoutTemporal(t *testing.T) {
	t.Parallel()
	r := reservationIn(earmark.StateReview)
	r.Stuck = &earmark.Stuck{Reason: earmark.StuckReview}
	b := setupFinder(t, &fake{reservations: earmark.Page[earmark.Reservation]{Data: []earmark.Reservation{*r}}}, &fakeFinder{err: errors.New("away")})
	page := decoded[earmark.StuckPage](b.do(http.MethodGet, "/v1/reservations?stuck=true", "").status(http.StatusOK))
	require.Len(t, page.Data, 1)
	require.Contains(t, page.Incomplete, "Temporal did not answer")
}

// The list says what could not be looked at, whichever look-up it was.
func TestStuckListSaysThatItIsIncomplete(t *testing.T) {
	t.Parallel()
	away := errors.New("away")
	for name, c := range map[string]struct {
		f      *fake
		finder *fakeFinder
		says   string
	}{
		"more than Temporal lists":    {&fake{}, &fakeFinder{found: workflowstore.Findings{Incomplete: "more than 10000"}}, "more than 10000"},
		"which rows are lost":         {&fake{knownErr: away}, &fakeFinder{}, "Postgres has lost"},
		"one of the lost ones":        {&fake{}, &fakeFinder{lostErr: away}, "Postgres has lost"},
		"what Temporal alone knows":   {&fake{}, &fakeFinder{err: away}, "Temporal did not answer"},
		"nothing, for all was looked": {&fake{}, &fakeFinder{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.finder.found.Workflows = []workflowstore.StuckWorkflow{{WorkflowID: workflows.Prefix("").ReservationWorkflowID(testReservationID), Reason: earmark.StuckSettlementFailing}}
			page := decoded[earmark.StuckPage](setupFinder(t, c.f, c.finder).do(http.MethodGet, "/v1/reservations?stuck=true", "").status(http.StatusOK))
			if c.says == "" {
				require.Empty(t, page.Incomplete)
				require.Len(t, page.Data, 1)
				return
			}
			require.Contains(t, page.Incomplete, c.says)
		})
	}
}

// A search takes long: who waits for it leaves when his own time is over, and the
// search goes on for the others.
func TestStuckSearchKeepsNobody(t *testing.T) {
	t.Parallel()
	begun, proceed := make(chan struct{}), make(chan struct{})
	finder := &fakeFinder{search: func(context.Context) { close(begun); <-proceed }}
	l := &lookout{finder: finder, ledger: &fake{}, log: slog.New(slog.DiscardHandler), findings: sharedBy[finding]{kept: findingsKept, timeout: findTimeout}}
	var group errgroup.Group
	group.Go(func() error { _, err := l.look(t.Context(), earmark.DefaultTenant); return err })
	<-begun
	leaving, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { _, err := l.look(leaving, earmark.DefaultTenant); left <- err }()
	leave()
	require.ErrorIs(t, <-left, context.Canceled)
	close(proceed)
	require.NoError(t, group.Wait())
	_, err := l.look(t.Context(), earmark.DefaultTenant)
	require.NoError(t, err)
	require.Equal(t, int64(1), finder.asked.Load())
}

func TestStuckQueryIsRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ query, field, allowed string }{
		{"stuck=yes", "stuck", "true or false"},
		{"stuck=true&stuck_reason=bored", "stuck_reason", "task_failing, settlement_failing, orphan, review, expiry_missed"},
		{"stuck=true&stuck_reason=", "stuck_reason", "expiry_missed"},
		{"stuck_reason=review", "stuck_reason", "stuck=true"},
		{"stuck=true&state=held", "state", "stuck_reason"},
		{"stuck=true&overdue=true", "overdue", "stuck_reason"},
		{"stuck=true&orphan=false", "orphan", "stuck_reason"},
	} {
		f := &fake{}
		p := setup(t, f).do(http.MethodGet, "/v1/reservations?"+c.query, "").problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
		require.Equal(t, c.field, p.Field, c.query)
		require.Contains(t, p.Detail, c.allowed, c.query)
		require.Empty(t, f.names(), "nothing was asked for")
	}
}
