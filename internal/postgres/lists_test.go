package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func TestReservationsAreListedByEachFilterInPages(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	b.budget("acmecorp", "tokens", 1000)
	names := map[string]string{}
	hold := func(name string, scopes ...string) earmark.Transition {
		a := admission(name, tokens(10), scopes...)
		a.Request.OnExpiry = earmark.OnExpiryReview
		names[a.ID] = name
		return b.held(a)
	}
	hold("held", "acme/ml")
	b.commit(hold("committed", "acme/ml/u1"), tokens(5))
	b.release(hold("released", "acme"))
	review := hold("review", "acme/mlops", "acme/ml/u2")
	b.due(review.ID)
	b.expire(review)
	_, err := b.GiveBack(ctx(), hold("expired", "acmecorp"))
	require.NoError(t, err)
	b.due(hold("overdue", "acmecorp").ID)
	lost := hold("lost", "acmecorp/x")
	require.NoError(t, b.MarkChecked(ctx(), lost.Tenant, lost.ID, true, false))

	list := func(f earmark.ReservationFilter) []string {
		found := []string{}
		for {
			page, err := b.Reservations(ctx(), earmark.DefaultTenant, f)
			require.NoError(t, err)
			if f.Limit > 0 {
				require.LessOrEqual(t, len(page.Data), f.Limit)
			}
			for _, r := range page.Data {
				found = append(found, names[r.ID])
			}
			if f.Cursor = page.NextCursor; f.Cursor == "" {
				return found
			}
		}
	}
	newestFirst := []string{"lost", "overdue", "expired", "review", "released", "committed", "held"}
	for _, test := range []struct {
		filter earmark.ReservationFilter
		want   []string
	}{
		{earmark.ReservationFilter{}, newestFirst},
		{earmark.ReservationFilter{Limit: 1}, newestFirst},
		{earmark.ReservationFilter{Limit: 3}, newestFirst},
		{earmark.ReservationFilter{Limit: 7}, newestFirst},
		{earmark.ReservationFilter{State: earmark.StateHeld}, []string{"lost", "overdue", "held"}},
		{earmark.ReservationFilter{State: earmark.StateCommitted}, []string{"committed"}},
		{earmark.ReservationFilter{State: earmark.StateReleased}, []string{"released"}},
		{earmark.ReservationFilter{State: earmark.StateExpired}, []string{"expired"}},
		{earmark.ReservationFilter{State: earmark.StateReview}, []string{"review"}},
		{earmark.ReservationFilter{Scope: "acme"}, []string{"review", "released", "committed", "held"}},
		{earmark.ReservationFilter{Scope: "acme/ml", Limit: 2}, []string{"review", "committed", "held"}},
		{earmark.ReservationFilter{Scope: "acme/ml/u1"}, []string{"committed"}},
		{earmark.ReservationFilter{Scope: "acm"}, []string{}},
		{earmark.ReservationFilter{Overdue: true}, []string{"overdue"}},
		{earmark.ReservationFilter{Within: []string{"acme"}}, []string{"review", "released", "committed", "held"}},
		{earmark.ReservationFilter{Within: []string{"acme/ml"}, Limit: 1}, []string{"committed", "held"}},
		{earmark.ReservationFilter{Within: []string{"acme/ml", "acme/mlops"}}, []string{"review", "committed", "held"}},
		{earmark.ReservationFilter{Within: []string{"acme/mlops"}}, []string{}},
		{earmark.ReservationFilter{Within: []string{"acmecorp", "acme/ml/u1"}, Limit: 2}, []string{"lost", "overdue", "expired", "committed"}},
		{earmark.ReservationFilter{Within: []string{"acm"}}, []string{}},
		{earmark.ReservationFilter{Within: []string{"acmecorp"}, Scope: "acme"}, []string{}},
		{earmark.ReservationFilter{Within: []string{"acmecorp"}, State: earmark.StateHeld, Orphan: true}, []string{"lost"}},
		{earmark.ReservationFilter{Orphan: true}, []string{"lost"}},
		{earmark.ReservationFilter{Orphan: true, Scope: "acme"}, []string{}},
		{earmark.ReservationFilter{State: earmark.StateHeld, Scope: "acmecorp", Limit: 1}, []string{"lost", "overdue"}},
	} {
		require.Equal(t, test.want, list(test.filter), "%+v", test.filter)
	}
	foreign, err := b.Reservations(ctx(), "other", earmark.ReservationFilter{})
	require.NoError(t, err)
	require.Empty(t, foreign.Data)
}

// TestPagesHaveALimit asks for nothing and for too much.
func TestPagesHaveALimit(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1_000_000)
	for i := range earmark.DefaultPageSize + 1 {
		b.held(admission(fmt.Sprint(i), tokens(1), "acme"))
	}
	page, err := b.Reservations(ctx(), earmark.DefaultTenant, earmark.ReservationFilter{})
	require.NoError(t, err)
	require.Len(t, page.Data, earmark.DefaultPageSize)
	require.NotEmpty(t, page.NextCursor)
	page, err = b.Reservations(ctx(), earmark.DefaultTenant, earmark.ReservationFilter{Limit: earmark.MaxPageSize + 1, Cursor: page.NextCursor})
	require.NoError(t, err)
	require.Len(t, page.Data, 1)
}

// A settled reservation whose workflow is paused is due, so that the reconciler unpauses it.
func TestSettledPastAPausedWorkflowIsDue(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	settled, other := b.held(admission("paused", tokens(1), "acme")), b.held(admission("runs", tokens(1), "acme"))
	b.commit(settled, tokens(1))
	b.commit(other, tokens(1))
	require.NoError(t, b.MarkPaused(ctx(), nil))
	due, err := b.ClaimChecks(ctx(), 0, 10)
	require.NoError(t, err)
	require.Empty(t, due)
	require.NoError(t, b.MarkPaused(ctx(), []string{settled.ID, earmark.NewReservationID()}))
	due, err = b.ClaimChecks(ctx(), 0, 10)
	require.NoError(t, err)
	require.Len(t, due, 1)
	require.Equal(t, settled.ID, due[0].ID)
}

// TestChecksAreClaimedOldestFirst follows the reconciler: it claims open
// reservations, and settled ones whose workflow may not know it, each once in a while.
func TestChecksAreClaimedOldestFirst(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	var want []string
	for i := range 3 {
		want = append(want, b.held(admission(fmt.Sprint(i), tokens(int64(i+1)), "acme")).ID)
	}
	b.commit(b.held(admission("by its workflow", tokens(1), "acme")), tokens(1))
	told := b.held(admission("past its workflow", tokens(1), "acme"))
	b.commit(told, tokens(1))
	require.NoError(t, b.MarkUnnotified(ctx(), told.Tenant, told.ID))
	require.NoError(t, b.MarkUnnotified(ctx(), earmark.DefaultTenant, want[0]), "one that is open is looked at as such")
	want = append(want, told.ID)

	none, err := b.ClaimChecks(ctx(), time.Hour, 10)
	require.NoError(t, err)
	require.Empty(t, none, "all were made just now")
	for i, id := range want {
		_, err := b.pool.Exec(ctx(), "UPDATE earmark.reservations SET checked_at = clock_timestamp() - $2 * interval '1 hour' WHERE id = $1", id, 10-i)
		require.NoError(t, err)
	}
	first, err := b.ClaimChecks(ctx(), time.Hour, 2)
	require.NoError(t, err)
	require.Len(t, first, 3, "two open ones and a settled one")
	require.Equal(t, earmark.Check{
		ID: want[0], Tenant: earmark.DefaultTenant, WorkflowID: "reservation-" + want[0], State: earmark.StateHeld,
		Request:     earmark.ReservationRequest{Scopes: []string{"acme"}, Amounts: tokens(1), OnExpiry: earmark.OnExpiryRelease},
		RequestHash: admission("0", tokens(1), "acme").RequestHash, CreatedAt: first[0].CreatedAt, ExpiresAt: first[0].ExpiresAt,
	}, first[0])
	row, err := b.Reservation(ctx(), earmark.DefaultTenant, want[0])
	require.NoError(t, err)
	require.True(t, row.CreatedAt.Equal(first[0].CreatedAt))
	require.Equal(t, []string{want[1], told.ID}, []string{first[1].ID, first[2].ID})
	require.Equal(t, earmark.StateCommitted, first[2].State)
	second, err := b.ClaimChecks(ctx(), time.Hour, 2)
	require.NoError(t, err)
	require.Len(t, second, 1)
	require.Equal(t, want[2], second[0].ID)

	require.NoError(t, b.MarkChecked(ctx(), earmark.DefaultTenant, want[0], true, false))
	require.NoError(t, b.MarkChecked(ctx(), earmark.DefaultTenant, told.ID, true, true))
	found, err := b.ClaimChecks(ctx(), 0, 10)
	require.NoError(t, err)
	require.Len(t, found, 3, "the settled one need not be told again")
	orphans, err := b.Reservations(ctx(), earmark.DefaultTenant, earmark.ReservationFilter{Orphan: true})
	require.NoError(t, err)
	require.Len(t, orphans.Data, 1)
	require.Equal(t, want[0], orphans.Data[0].ID)
	b.release(earmark.Transition{ID: want[0], Tenant: earmark.DefaultTenant, Actor: earmark.ActorWorkflow})
	orphans, err = b.Reservations(ctx(), earmark.DefaultTenant, earmark.ReservationFilter{Orphan: true})
	require.NoError(t, err)
	require.Empty(t, orphans.Data)
}

// TestChecksAreSharedByReconcilers claims from many sides at once: each check goes
// to one of them.
func TestChecksAreSharedByReconcilers(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	const open, reconcilers = 40, 4
	for i := range open {
		b.held(admission(fmt.Sprint(i), tokens(1), "acme"))
	}
	_, err := b.pool.Exec(ctx(), "UPDATE earmark.reservations SET checked_at = clock_timestamp() - interval '1 day'")
	require.NoError(t, err)
	claimed := make(chan []earmark.Check, reconcilers)
	for range reconcilers {
		go func() {
			var mine []earmark.Check
			for range open {
				checks, err := b.ClaimChecks(ctx(), time.Hour, 3)
				if err != nil {
					break
				}
				mine = append(mine, checks...)
			}
			claimed <- mine
		}()
	}
	seen := map[string]int{}
	for range reconcilers {
		for _, check := range <-claimed {
			seen[check.ID]++
		}
	}
	require.Len(t, seen, open)
	for id, times := range seen {
		require.Equal(t, 1, times, id)
	}
}
