package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func TestOverview(t *testing.T) {
	t.Parallel()
	minute := int64(60)
	held := reservationIn(earmark.StateHeld)
	f := &fake{overview: earmark.Overview{
		At: testTime.Add(time.Minute), Held: 2, Review: 1, Overdue: 1, Orphan: 1, Complete: true,
		Ages: []earmark.OverviewAge{
			{ToSeconds: &minute, Amounts: earmark.Amounts{}},
			{FromSeconds: minute, Reservations: 3, Amounts: earmark.Amounts{"tokens": 3600}},
		},
		Oldest: []earmark.Reservation{*held},
	}}
	b := setup(t, f)
	got := decoded[earmark.Overview](b.do("GET", "/v1/overview", "").status(http.StatusOK))
	require.Equal(t, []string{"Overview"}, f.names())
	require.Equal(t, overviewCall{tenant: earmark.DefaultTenant}, f.last())
	require.Equal(t, f.overview.Ages, got.Ages)
	require.Equal(t, uiURL+"namespaces/default/workflows/"+held.WorkflowID, got.Oldest[0].UIURL)

	empty := &fake{overview: earmark.Overview{At: testTime, Complete: true, Ages: []earmark.OverviewAge{}}}
	x := setup(t, empty).do("GET", "/v1/overview", "").status(http.StatusOK)
	require.Contains(t, string(x.body), `"oldest":[]`)
}

func TestOverviewThatFails(t *testing.T) {
	t.Parallel()
	b := setup(t, &fake{err: earmark.Errorf(earmark.CodeUnavailable, "away")})
	b.do("GET", "/v1/overview", "").problem(http.StatusServiceUnavailable, earmark.CodeUnavailable)
	p := b.do("GET", "/v1/overview?limit=1", "").problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
	require.Equal(t, "limit", p.Field)
}

// However many watch, the ledger is asked once in a while; a failure is not reused.
func TestOverviewIsShared(t *testing.T) {
	t.Parallel()
	f := &fake{err: earmark.Errorf(earmark.CodeUnavailable, "away"), overview: earmark.Overview{At: testTime, Held: 7, Ages: []earmark.OverviewAge{}}}
	b := setup(t, f)
	b.do("GET", "/v1/overview", "").status(http.StatusServiceUnavailable)
	f.err = nil
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			b.handler.ServeHTTP(httptest.NewRecorder(), newRequest("GET", "/v1/overview", ""))
		})
	}
	group.Wait()
	require.EqualValues(t, 7, decoded[earmark.Overview](b.do("GET", "/v1/overview", "").status(http.StatusOK)).Held)
	require.Equal(t, []string{"Overview", "Overview"}, f.names())
}

func TestOverviewIsNotKeptForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{overview: earmark.Overview{Held: 7}}
		o := shared[earmark.Overview]{kept: overviewKept, timeout: handlerTimeout}
		held := func() int64 {
			overview, err := o.get(t.Context(), func(ctx context.Context) (earmark.Overview, error) {
				return f.Overview(ctx, earmark.DefaultTenant, nil)
			})
			require.NoError(t, err)
			return overview.Held
		}
		require.EqualValues(t, 7, held())
		f.overview.Held = 1
		time.Sleep(overviewKept - 1) //nolint:forbidigo // fake time
		require.EqualValues(t, 7, held())
		time.Sleep(time.Nanosecond) //nolint:forbidigo // fake time
		require.EqualValues(t, 1, held())
	})
}
