package postgres_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func TestStuckReservationsAreListedWithTheirReason(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	b.budget("acmecorp", "tokens", 1000)
	names := map[string]string{}
	hold := func(name string, scope string) earmark.Transition {
		a := admission(name, tokens(10), scope)
		a.Request.OnExpiry = earmark.OnExpiryReview
		names[a.ID] = name
		return b.held(a)
	}
	late := func(s earmark.Transition, by time.Duration) {
		_, err := b.pool.Exec(ctx(), "UPDATE earmark.reservations SET expires_at = clock_timestamp() - $2 * interval '1 second' WHERE id = $1", s.ID, by.Seconds())
		require.NoError(t, err)
	}
	orphan := func(s earmark.Transition) { require.NoError(t, b.MarkChecked(ctx(), s.Tenant, s.ID, true, false)) }

	hold("held", "acme")
	late(hold("just overdue", "acme"), earmark.ExpiryMissedAfter/2)
	late(hold("overdue", "acme/ml"), time.Minute)
	review := hold("review", "acme")
	late(review, time.Second)
	b.expire(review)
	orphan(hold("orphan", "acmecorp"))
	lost := hold("orphan in review", "acme")
	late(lost, time.Second)
	b.expire(lost)
	orphan(lost)
	settling := hold("settlement failing", "acme")
	task := hold("task failing", "acme")
	late(task, time.Hour)
	gone := hold("workflow gone", "acme")
	_, err := b.pool.Exec(ctx(), "UPDATE earmark.reservations SET created_at = created_at - interval '10 seconds' WHERE id = $1", gone.ID)
	require.NoError(t, err)
	goneSettled := hold("workflow gone, settled", "acme")
	b.commit(goneSettled, tokens(3))
	settled := hold("settled past its failing workflow", "acme")
	b.commit(settled, tokens(3))

	paused := hold("paused", "acme")
	pausedSettled := hold("settled past its paused workflow", "acme")
	b.commit(pausedSettled, tokens(3))

	reported := earmark.StuckIDs{Paused: []string{paused.ID, pausedSettled.ID}, TaskFailing: []string{task.ID, settled.ID}, SettlementFailing: []string{settling.ID, earmark.NewReservationID()}, Unguarded: []string{gone.ID, goneSettled.ID}}
	list := func(f earmark.ReservationFilter, reported earmark.StuckIDs) (found []string) {
		for {
			page, err := b.Stuck(ctx(), earmark.DefaultTenant, f, reported)
			require.NoError(t, err)
			for _, r := range page.Data {
				require.NotNil(t, r.Stuck)
				found = append(found, names[r.ID]+": "+string(r.Stuck.Reason))
				if names[r.ID] == "overdue" {
					require.Equal(t, *r.ExpiresAt, *r.Stuck.Since)
					require.InDelta(t, 60, r.Stuck.AgeSeconds, 20)
				}
			}
			if f.Cursor = page.NextCursor; f.Cursor == "" {
				return found
			}
		}
	}
	all := []string{
		"settled past its paused workflow: paused", "paused: paused",
		"settled past its failing workflow: task_failing", "task failing: task_failing", "settlement failing: settlement_failing",
		"orphan in review: orphan", "orphan: orphan", "review: review", "overdue: expiry_missed", "workflow gone: orphan",
	}
	require.Equal(t, all, list(earmark.ReservationFilter{}, reported))
	require.Equal(t, all, list(earmark.ReservationFilter{Limit: 2}, reported))
	require.Equal(t, all[6:7], list(earmark.ReservationFilter{Scope: "acmecorp"}, reported))
	require.Equal(t, all[6:7], list(earmark.ReservationFilter{Within: []string{"acmecorp"}}, reported))
	require.Equal(t, all[8:9], list(earmark.ReservationFilter{Within: []string{"acme/ml"}, Limit: 1}, reported))
	require.Equal(t, all, list(earmark.ReservationFilter{Within: []string{"acme", "acmecorp"}, Limit: 3}, reported))
	require.Equal(t, []string{all[5], all[6], all[9]}, list(earmark.ReservationFilter{StuckReason: earmark.StuckOrphan, Limit: 1}, reported))
	require.Equal(t, []string{"task failing: expiry_missed", "orphan in review: orphan", "orphan: orphan", "review: review", "overdue: expiry_missed"},
		list(earmark.ReservationFilter{}, earmark.StuckIDs{}), "what Postgres knows alone")
	foreign, err := b.Stuck(ctx(), "other", earmark.ReservationFilter{}, reported)
	require.NoError(t, err)
	require.Empty(t, foreign.Data)

	suspects, err := b.Suspects(ctx(), earmark.DefaultTenant, 2)
	require.NoError(t, err)
	require.Equal(t, "task failing", names[suspects[0]])
	require.Equal(t, "overdue", names[suspects[1]])
	known, err := b.Known(ctx(), earmark.DefaultTenant, []string{review.ID, earmark.NewReservationID()})
	require.NoError(t, err)
	require.Equal(t, []string{review.ID}, known)
}
