package postgres_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
)

// ages moves reservations into the past by so many days, with their windows where
// those end.
func (b *env) ages(days int, ids ...string) {
	b.t.Helper()
	_, err := b.pool.Exec(ctx(), `UPDATE earmark.reservations SET created_at = created_at - $1 * interval '1 day', settled_at = settled_at - $1 * interval '1 day',
		expires_at = expires_at - $1 * interval '1 day', refresh_due = false WHERE id = ANY ($2) OR cardinality($2) = 0`, days, append([]string{}, ids...))
	require.NoError(b.t, err)
}

func (b *env) prune(keep time.Duration) postgres.PruneReport {
	b.t.Helper()
	report, err := b.owner.Prune(ctx(), postgres.PruneOptions{Keep: keep, Actor: earmark.OperatorActor("test")})
	require.NoError(b.t, err)
	return report
}

func (b *env) exists(id string) bool {
	b.t.Helper()
	r, err := b.Reservation(ctx(), earmark.DefaultTenant, id)
	require.NoError(b.t, err)
	return r != nil
}

// TestPruneLeavesBalancesAndACheckpoint also shows what a checkpoint says, and
// that a second one takes in the first.
func TestPruneLeavesBalancesAndACheckpoint(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	old := b.held(admission("old", tokens(300), "acme"))
	kept := b.held(admission("kept", tokens(50), "acme"))
	b.commit(old, tokens(200))
	released := b.held(admission("released", tokens(10), "acme"))
	b.release(released)
	require.Equal(t, earmark.OutcomeConflict, b.commit(released, tokens(1)).Outcome) // a note in the journal
	b.ages(40, old.ID, released.ID)

	dry, err := b.owner.Prune(ctx(), postgres.PruneOptions{Keep: postgres.LeastKept, Dry: true, Actor: earmark.OperatorActor("test")})
	require.NoError(t, err)
	require.True(t, b.exists(old.ID), "a dry run removes nothing")
	report := b.prune(postgres.LeastKept)
	require.Equal(t, postgres.PruneReport{Total: 2, LookedAt: 2, Reservations: 2, Entries: 5}, report)
	require.Equal(t, report, dry)
	require.False(t, b.exists(old.ID))
	require.Empty(t, b.entryKinds(old.ID))
	b.requireBalance(budget.ID, 50, 200)

	page, err := b.Entries(ctx(), earmark.DefaultTenant, earmark.EntryFilter{BudgetID: budget.ID})
	require.NoError(t, err)
	require.Len(t, page.Data, 3)
	require.Equal(t, []string{"budget", "reserve", "checkpoint"}, []string{page.Data[0].Kind, page.Data[1].Kind, page.Data[2].Kind})
	checkpoint := page.Data[2]
	require.Equal(t, [2]int64{0, 200}, [2]int64{checkpoint.ReservedDelta, checkpoint.CommittedDelta})
	require.Equal(t, "stands for 4 entries of 2 reservations", checkpoint.Reason)
	require.Equal(t, earmark.OperatorActor("test").String(), checkpoint.Actor)
	require.Equal(t, postgres.PruneReport{}, b.prune(postgres.LeastKept), "twice is once")

	b.commit(kept, tokens(20))
	b.ages(40, kept.ID)
	require.EqualValues(t, 1, b.prune(postgres.LeastKept).Reservations)
	page, err = b.Entries(ctx(), earmark.DefaultTenant, earmark.EntryFilter{BudgetID: budget.ID})
	require.NoError(t, err)
	require.Len(t, page.Data, 2)
	require.Equal(t, "stands for 6 entries of 3 reservations", page.Data[1].Reason)
	b.requireBalance(budget.ID, 0, 220)
	require.Equal(t, earmark.OutcomeDenied, b.reserve(admission("more", tokens(781), "acme")).Outcome, "what was spent stays spent (R1)")
	b.held(admission("rest", tokens(780), "acme"))
}

// TestPruneKeepsWhatMayStillBeAskedFor goes through the reasons to stay.
func TestPruneKeepsWhatMayStillBeAskedFor(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	b.budget("monthly", "tokens", 1000, func(r *earmark.BudgetRequest) { r.Window.Period = earmark.PeriodMonth })
	review := admission("review", tokens(1), "acme")
	review.Request.OnExpiry = earmark.OnExpiryReview
	names := map[string]string{}
	aged := func(name string, s earmark.Transition, days int) {
		b.ages(days, s.ID)
		names[s.ID] = name
	}
	aged("held", b.held(admission("held", tokens(1), "acme")), 400)
	waits := b.held(review)
	b.due(waits.ID)
	b.expire(waits)
	aged("review", waits, 400)
	young := b.held(admission("young", tokens(1), "acme"))
	b.commit(young, tokens(1))
	aged("young", young, 29)
	monthly := b.held(admission("monthly", tokens(1), "monthly", "acme"))
	b.commit(monthly, tokens(1))
	aged("in a window that runs", monthly, 400)
	_, err := b.pool.Exec(ctx(), "UPDATE earmark.reservations SET created_at = clock_timestamp() WHERE id = $1", monthly.ID) // as its window is
	require.NoError(t, err)
	unaware := b.held(admission("unaware", tokens(1), "acme"))
	unaware.Actor = earmark.OperatorActor("test")
	b.release(unaware)
	aged("its workflow may not know", unaware, 400)
	_, err = b.pool.Exec(ctx(), "UPDATE earmark.reservations SET refresh_due = true WHERE id = $1", unaware.ID)
	require.NoError(t, err)
	late := b.held(admission("late", tokens(1), "acme"))
	b.due(late.ID)
	b.expire(late)
	aged("late", late, 400)
	require.True(t, b.commit(late, tokens(1)).Reservation.Late, "it was expired long ago, and has usage now")

	require.Zero(t, b.prune(postgres.LeastKept).Reservations)
	for id, name := range names {
		require.True(t, b.exists(id), name)
	}
	require.Equal(t, earmark.OutcomeSame, b.reserve(admission("young", tokens(1), "acme")).Outcome, "its key answers")

	for _, keep := range []time.Duration{0, postgres.LeastKept - time.Second} {
		_, err = b.owner.Prune(ctx(), postgres.PruneOptions{Keep: keep, Actor: earmark.OperatorActor("test")})
		require.Equal(t, earmark.CodeInvalidRequest, earmark.ErrorCode(err))
	}
	_, err = b.pool.Exec(ctx(), "SELECT earmark.prune('default', 2591999000, '-infinity', '', 10, false, 'operator')")
	requireSQLState(t, "22023", err)
}

// TestPrunedIsUnknown shows what a caller sees who comes after the keep period.
func TestPrunedIsUnknown(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	s := b.held(admission("k", tokens(10), "acme"))
	b.due(s.ID)
	b.expire(s)
	b.ages(31)
	require.EqualValues(t, 1, b.prune(postgres.LeastKept).Reservations)
	require.Equal(t, earmark.OutcomeUnknown, b.commit(s, tokens(10)).Outcome)
	require.Equal(t, earmark.OutcomeUnknown, b.release(s).Outcome)
	b.requireBalance(budget.ID, 0, 0)
	b.held(admission("k", tokens(10), "acme")) // its key is free again
}

// TestOnlyPruneDeletesEntries tries around it, as the table's owner: with the
// setting that prune has, and with checkpoints that do not add up.
func TestOnlyPruneDeletesEntries(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	old := b.held(admission("old", tokens(10), "acme"))
	b.commit(old, tokens(7))
	b.held(admission("held", tokens(10), "acme"))
	b.ages(40)
	const ofOld = "(SELECT id FROM earmark.entries WHERE reservation_id = (SELECT id FROM earmark.reservations WHERE state = 'committed'))"
	for name, sql := range map[string]string{
		"no checkpoint":      "DELETE FROM earmark.entries WHERE id IN " + ofOld,
		"one of two":         "DELETE FROM earmark.entries WHERE id = (SELECT min(x.id) FROM " + ofOld + " AS x)",
		"what is held":       "DELETE FROM earmark.entries WHERE kind = 'reserve'",
		"about a budget":     "DELETE FROM earmark.entries WHERE kind = 'budget'",
		"everything":         "DELETE FROM earmark.entries",
		"a change":           "UPDATE earmark.entries SET reason = 'other'",
		"all at once":        "TRUNCATE earmark.entries",
		"another checkpoint": checkpointOf("sum(committed_delta) - 1"),
	} {
		err := pgx.BeginFunc(ctx(), b.pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx(), "SET LOCAL earmark.pruning = 'on'")
			require.NoError(t, err)
			_, err = tx.Exec(ctx(), sql)
			return err
		})
		require.Error(t, err, name)
		requireSQLState(t, restrictViolation, err)
	}
	_, err := b.pool.Exec(ctx(), checkpointOf("sum(committed_delta)"))
	requireSQLState(t, restrictViolation, err) // without the setting
	require.EqualValues(t, 1, b.prune(postgres.LeastKept).Reservations)
}

// checkpointOf deletes what is committed and puts a checkpoint of so much there.
func checkpointOf(committed string) string {
	return fmt.Sprintf(`WITH gone AS (DELETE FROM earmark.entries e USING earmark.reservations r WHERE r.id = e.reservation_id AND r.state = 'committed' RETURNING e.*)
		INSERT INTO earmark.entries (id, kind, tenant, budget_id, window_start, committed_delta, reserved_after, committed_after, pruned_entries, pruned_reservations, actor, reason)
		OVERRIDING SYSTEM VALUE SELECT max(id), 'checkpoint', 'default', budget_id, window_start, %s, 10, 7, count(*), 1, 'operator', 'by hand' FROM gone GROUP BY budget_id, window_start`, committed)
}

// TestAuditFindsAWrongCheckpoint puts one in, past what guards the journal.
func TestAuditFindsAWrongCheckpoint(t *testing.T) {
	t.Parallel()
	for rule, change := range map[string]string{"R3": "committed_delta = committed_delta + 1", "R4": "committed_after = committed_after + 1"} {
		t.Run(rule, func(t *testing.T) {
			b := unaudited(t)
			b.budget("acme", "tokens", 1000)
			b.commit(b.held(admission("old", tokens(10), "acme")), tokens(7))
			b.ages(40)
			b.prune(postgres.LeastKept)
			b.held(admission("new", tokens(10), "acme"))
			clean, err := b.CheckRules(ctx())
			require.NoError(t, err)
			require.Empty(t, clean.Mismatches())
			_, err = b.pool.Exec(ctx(), "ALTER TABLE earmark.entries DISABLE TRIGGER entries_append_only; UPDATE earmark.entries SET "+change+
				" WHERE kind = 'checkpoint'; ALTER TABLE earmark.entries ENABLE ALWAYS TRIGGER entries_append_only")
			require.NoError(t, err)
			report, err := b.CheckRules(ctx())
			require.NoError(t, err)
			broken := map[string]int64{}
			for _, check := range report.Checks {
				broken[check.Rule] += check.Mismatched
			}
			require.Positive(t, broken[rule], "%v", report.Mismatches())
		})
	}
}

// TestPruneUnderLoad prunes several thousand from two sides at once, with
// interruptions, while others hold and settle on the same budget.
func TestPruneUnderLoad(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1_000_000)
	const settled = 3000
	b.seed(seeding{budgetID: budget.ID, settled: settled})
	loadCtx, stop := context.WithCancel(ctx())
	var load errgroup.Group
	for client := range 3 {
		load.Go(func() error {
			for n := 0; loadCtx.Err() == nil; n++ {
				a := admission(fmt.Sprintf("load %d %d", client, n), tokens(2), "acme")
				if _, err := b.Reserve(ctx(), a); err != nil {
					return err
				}
				if _, err := b.Commit(ctx(), earmark.Transition{ID: a.ID, Tenant: a.Tenant, Actor: earmark.ActorWorkflow}, tokens(1)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	var removed int64
	for rest := int64(1); rest > 0; {
		pruneCtx, interrupt := context.WithCancel(ctx())
		batches, busy := 0, 0
		report, err := b.owner.Prune(pruneCtx, postgres.PruneOptions{Keep: postgres.LeastKept, Actor: earmark.OperatorActor("test"), Progress: func(postgres.PruneReport) {
			if batches++; batches == 2 {
				interrupt()
			}
			if _, err := b.owner.Prune(ctx(), postgres.PruneOptions{Keep: postgres.LeastKept, Dry: true, Actor: earmark.OperatorActor("test")}); err != nil {
				busy++
			}
		}})
		interrupt()
		if err != nil {
			require.ErrorIs(t, err, context.Canceled)
		}
		require.Zero(t, busy, "between two batches there is room for another")
		removed += report.Reservations
		require.NoError(t, b.pool.QueryRow(ctx(), "SELECT count(*) FROM earmark.reservations WHERE settled_at < now() - interval '30 days'").Scan(&rest))
	}
	stop()
	require.NoError(t, load.Wait())
	require.EqualValues(t, settled, removed)
}

// TestTwoPrunesAreNotAtWorkAtOnce holds the lock that one has for its batch.
func TestTwoPrunesAreNotAtWorkAtOnce(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	err := pgx.BeginFunc(ctx(), b.pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx(), "SELECT earmark.prune('default', 7776000000, '-infinity', '', 10, false, 'operator')")
		require.NoError(t, err)
		_, err = b.owner.Prune(ctx(), postgres.PruneOptions{Keep: postgres.DefaultKept, Actor: earmark.OperatorActor("test")})
		require.ErrorContains(t, err, "another prune")
		return nil
	})
	require.NoError(t, err)
}
