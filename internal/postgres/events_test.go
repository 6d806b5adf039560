package postgres_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
)

// events reads the whole feed after a position, in small pages, once it has what is committed: the transactions of
// other tests, on the same server, keep it back while they are open.
func (b *env) events(after string, change ...func(*earmark.EventFilter)) (events []earmark.Event, next string) {
	b.t.Helper()
	var committed string
	require.NoError(b.t, b.pool.QueryRow(ctx(), "SELECT pg_snapshot_xmax(pg_current_snapshot())::text").Scan(&committed))
	require.Eventually(b.t, func() (reached bool) {
		require.NoError(b.t, b.pool.QueryRow(ctx(), "SELECT pg_snapshot_xmin(pg_current_snapshot()) >= $1::xid8", committed).Scan(&reached))
		return reached
	}, 3*time.Minute, 10*time.Millisecond)
	return b.eventsNow(after, change...)
}

// eventsNow reads what the feed has.
func (b *env) eventsNow(after string, change ...func(*earmark.EventFilter)) (events []earmark.Event, next string) {
	b.t.Helper()
	f := earmark.EventFilter{After: after, Limit: 2}
	for _, adjust := range change {
		adjust(&f)
	}
	for {
		page, err := b.Events(ctx(), earmark.DefaultTenant, f)
		require.NoError(b.t, err)
		events, f.After = append(events, page.Data...), page.NextAfter
		if len(page.Data) < f.Limit {
			return events, page.NextAfter
		}
	}
}

func typesOf(events []earmark.Event) (types []earmark.EventType) {
	for _, e := range events {
		types = append(types, e.Type)
	}
	return types
}

func dataOf(t *testing.T, e earmark.Event) map[string]any {
	t.Helper()
	return decodedJSON[map[string]any](t, e.Data)
}

func TestEveryEventOfAReservation(t *testing.T) {
	b := setup(t)
	daily := func(r *earmark.BudgetRequest) { r.Window.Period = earmark.PeriodDay }
	budget := b.budget("acme", "tokens", 1000, daily)

	first := b.held(admission("first", tokens(10), "acme/u1"))
	events, next := b.events("")
	require.Equal(t, []earmark.EventType{earmark.EventWindowOpened}, typesOf(events))
	opened := events[0]
	require.Equal(t, budget.ID, opened.BudgetID)
	require.Empty(t, opened.ReservationID)
	require.Equal(t, []string{"acme"}, opened.Scopes)
	require.Equal(t, budget.Balance.WindowStart, opened.WindowStart.UTC())
	require.Equal(t, budget.Balance.WindowEnd.Format("2006-01-02T15:04:05-07:00"), dataOf(t, opened)["window_end"])

	b.commit(first, tokens(15))
	events, next = b.events(next)
	require.Equal(t, []earmark.EventType{earmark.EventOverage}, typesOf(events))
	require.Equal(t, first.ID, events[0].ReservationID)
	require.Nil(t, events[0].WindowStart)
	require.Equal(t, map[string]any{"tokens": 5.0}, dataOf(t, events[0])["overage"])
	require.Equal(t, false, dataOf(t, events[0])["rejected"])

	result, err := b.Correct(ctx(), earmark.Correction{ID: "c1", ReservationID: first.ID, Tenant: first.Tenant, Actor: alice,
		Request: earmark.CorrectionRequest{Amounts: earmark.Amounts{"tokens": -3}, Reason: "refund"}})
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, result.Outcome)
	events, next = b.events(next)
	require.Equal(t, []earmark.EventType{earmark.EventCorrected}, typesOf(events))
	require.Equal(t, map[string]any{"tokens": -3.0}, dataOf(t, events[0])["amounts"])

	for _, key := range []string{"expires", "swept"} {
		held := b.held(admission(key, tokens(10), "acme"))
		b.due(held.ID)
		if key == "expires" {
			require.Equal(t, earmark.OutcomeApplied, b.expire(held).Outcome)
		} else {
			ids, err := b.Sweep(ctx(), 0, 10)
			require.NoError(t, err)
			require.Equal(t, []string{held.ID}, ids)
		}
		events, next = b.events(next)
		require.Equal(t, []earmark.EventType{earmark.EventExpired}, typesOf(events))
		require.Equal(t, "expired", dataOf(t, events[0])["state"])
		b.commit(held, tokens(4))
		events, next = b.events(next)
		require.Equal(t, []earmark.EventType{earmark.EventCommittedLate}, typesOf(events))
		require.Equal(t, map[string]any{"tokens": 4.0}, dataOf(t, events[0])["usage"])
	}

	review := admission("review", tokens(10), "acme")
	review.Request.OnExpiry = earmark.OnExpiryReview
	review.RequestHash = review.Request.Hash()
	held := b.held(review)
	b.due(held.ID)
	b.expire(held)
	_, err = b.GiveBack(ctx(), held)
	require.NoError(t, err)
	events, _ = b.events(next)
	require.Equal(t, []earmark.EventType{earmark.EventReview, earmark.EventExpired}, typesOf(events))

	all, end := b.events("")
	require.Len(t, all, 9)
	require.NotEmpty(t, end)
	only, _ := b.events("", func(f *earmark.EventFilter) {
		f.Types = []earmark.EventType{earmark.EventReview, earmark.EventCorrected}
	})
	require.Equal(t, []earmark.EventType{earmark.EventCorrected, earmark.EventReview}, typesOf(only))
	only, _ = b.events("", func(f *earmark.EventFilter) { f.BudgetID = budget.ID })
	require.Equal(t, all[:1], only)
	only, _ = b.events("", func(f *earmark.EventFilter) { f.Within = []string{"acme/u1"} })
	require.Equal(t, []earmark.EventType{earmark.EventOverage, earmark.EventCorrected}, typesOf(only))
	none, err := b.Events(ctx(), earmark.DefaultTenant, earmark.EventFilter{After: earmark.AfterNow})
	require.NoError(t, err)
	require.Empty(t, none.Data)
	require.NotEmpty(t, none.NextAfter)
	other, err := b.Events(ctx(), "globex", earmark.EventFilter{})
	require.NoError(t, err)
	require.Empty(t, other.Data)
}

// A hold, a commit and a release within the limits write no event.
func TestPlainReservationWritesNoEvent(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	b.commit(b.held(admission("one", tokens(10), "acme")), tokens(7))
	b.release(b.held(admission("two", tokens(10), "acme")))
	b.due(b.held(admission("three", tokens(10), "acme")).ID)
	var events int
	require.NoError(t, b.pool.QueryRow(ctx(), "SELECT count(*) FROM earmark.events").Scan(&events))
	require.Zero(t, events)
}

func TestRejectedOverageIsOneEvent(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000, func(r *earmark.BudgetRequest) { r.Overage = earmark.OverageReject })
	held := b.held(admission("one", tokens(10), "acme"))
	for range 2 {
		require.Equal(t, earmark.OutcomeOverageRejected, b.commit(held, tokens(15)).Outcome)
	}
	events, _ := b.events("")
	require.Equal(t, []earmark.EventType{earmark.EventOverage}, typesOf(events))
	require.Equal(t, true, dataOf(t, events[0])["rejected"])
	require.Equal(t, map[string]any{"tokens": 15.0}, dataOf(t, events[0])["usage"])
}

// A reader that continues where it stopped misses no event of a transaction that was open when it read, however
// the transactions end.
func TestFeedMissesNothingWhileTransactionsAreOpen(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	one, two := b.held(admission("one", tokens(10), "acme")), b.held(admission("two", tokens(10), "acme"))
	b.due(one.ID)
	b.due(two.ID)
	var seen []string
	read := func(after string, read func(string, ...func(*earmark.EventFilter)) ([]earmark.Event, string)) string {
		events, next := read(after)
		for _, e := range events {
			seen = append(seen, e.ReservationID)
		}
		return next
	}
	tx, err := b.pool.Begin(ctx())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(ctx()) }()
	// The first transaction writes its event first and ends last.
	_, err = tx.Exec(ctx(), "SELECT earmark.emit('reservation.review', 'default', '{acme}', NULL, $1, NULL, '{}')", one.ID)
	require.NoError(t, err)
	b.expire(two)
	next := read("", b.eventsNow)
	require.Empty(t, seen, "an event could still appear before that of the second")
	next = read(next, b.eventsNow)
	require.NoError(t, tx.Commit(ctx()))
	next = read(next, b.events)
	require.Equal(t, []string{one.ID, two.ID}, seen)
	read(next, b.events)
	require.Len(t, seen, 2)
}

// Positions of a database that is further than this one, such as the one that it was restored from.
func TestFeedRefusesAPositionThatItHasNotReached(t *testing.T) {
	b := setup(t)
	_, err := b.Events(ctx(), earmark.DefaultTenant, earmark.EventFilter{After: "evt_999999999999_1"})
	requireRefused(t, earmark.CodeInvalidRequest, "after", err)
	_, err = b.Events(ctx(), earmark.DefaultTenant, earmark.EventFilter{After: "evt_9999999999999999999_1"})
	requireRefused(t, earmark.CodeInvalidRequest, "after", err)
}

func (b *env) deny(denials ...earmark.Denials) time.Duration {
	b.t.Helper()
	due, err := b.CountDenials(ctx(), earmark.DefaultTenant, denials)
	require.NoError(b.t, err)
	return due
}

// minutesPass moves the last event of denials into the past.
func (b *env) minutesPass() {
	b.t.Helper()
	_, err := b.pool.Exec(ctx(), "UPDATE earmark.denials SET emitted_at = emitted_at - interval '61 seconds'")
	require.NoError(b.t, err)
}

func TestDenialsAreSampled(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000, func(r *earmark.BudgetRequest) { r.Window.Period = earmark.PeriodMonth })
	other := b.budget("globex", "tokens", 1000)
	tooLarge := earmark.Denials{BudgetID: budget.ID, Count: 3, Requested: 2000, Limit: 1000, Available: 1000}

	require.Zero(t, b.deny(tooLarge, earmark.Denials{BudgetID: "bud_unknown", Count: 1}))
	due := b.deny(tooLarge)
	require.Greater(t, due, 50*time.Second)
	require.LessOrEqual(t, due, time.Minute)
	require.Positive(t, b.deny(tooLarge, earmark.Denials{BudgetID: other.ID, Count: 1, Requested: 2000, Limit: 1000, Available: 1000}))
	events, next := b.events("")
	require.Equal(t, []earmark.EventType{earmark.EventDenied, earmark.EventDenied}, typesOf(events))
	require.Equal(t, budget.ID, events[0].BudgetID)
	require.Equal(t, 3.0, dataOf(t, events[0])["count"])
	require.Equal(t, budget.Balance.WindowStart, events[0].WindowStart.UTC())
	require.Equal(t, other.ID, events[1].BudgetID)

	b.minutesPass()
	require.Zero(t, b.deny(), "without new denials it writes what is due")
	events, next = b.events(next)
	require.Equal(t, []earmark.EventType{earmark.EventDenied}, typesOf(events))
	require.Equal(t, 6.0, dataOf(t, events[0])["count"])
	b.minutesPass()
	require.Zero(t, b.deny())
	events, _ = b.events(next)
	require.Empty(t, events)
}

func TestExhaustedIsOnceAWindow(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	exhausted := func(after string) (count int, next string) {
		events, next := b.events(after, func(f *earmark.EventFilter) { f.Types = []earmark.EventType{earmark.EventExhausted} })
		return len(events), next
	}
	b.deny(earmark.Denials{BudgetID: budget.ID, Count: 1, Requested: 1001, Limit: 1000, Available: 1000})
	count, next := exhausted("")
	require.Zero(t, count, "the whole limit is too small for the request")
	for range 2 {
		b.deny(earmark.Denials{BudgetID: budget.ID, Count: 1, Requested: 10, Limit: 1000, Available: 9})
	}
	count, next = exhausted(next)
	require.Equal(t, 1, count)
	_, err := b.PatchBudget(ctx(), earmark.DefaultTenant, budget.ID, earmark.BudgetPatch{Limit: new(int64(500))}, earmark.ActorAPI)
	require.NoError(t, err)
	b.deny(earmark.Denials{BudgetID: budget.ID, Count: 1, Requested: 600, Limit: 500, Available: 0})
	count, next = exhausted(next)
	require.Zero(t, count)
	_, err = b.PatchBudget(ctx(), earmark.DefaultTenant, budget.ID, earmark.BudgetPatch{Limit: new(int64(2000))}, earmark.ActorAPI)
	require.NoError(t, err)
	b.deny(earmark.Denials{BudgetID: budget.ID, Count: 1, Requested: 9000, Limit: 2000, Available: 0})
	count, _ = exhausted(next)
	require.Equal(t, 1, count, "after a raise it can be exhausted again")
}

func TestPruneRemovesOldEvents(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	b.deny(earmark.Denials{BudgetID: budget.ID, Count: 1, Requested: 10, Limit: 1000, Available: 9})
	_, err := b.pool.Exec(ctx(), "UPDATE earmark.events SET created_at = created_at - interval '31 days' WHERE type = 'budget.exhausted'")
	require.NoError(t, err)
	prune := func(o postgres.PruneOptions) (postgres.PruneReport, error) {
		o.Keep, o.Actor = postgres.LeastKept, alice
		return b.owner.Prune(ctx(), o)
	}
	_, err = prune(postgres.PruneOptions{KeepEvents: time.Hour})
	requireRefused(t, earmark.CodeInvalidRequest, "keep_events", err)
	report, err := prune(postgres.PruneOptions{Dry: true})
	require.NoError(t, err)
	require.Zero(t, report.Events)
	report, err = prune(postgres.PruneOptions{})
	require.NoError(t, err)
	require.Equal(t, int64(1), report.Events)
	events, _ := b.events("")
	require.Equal(t, []earmark.EventType{earmark.EventDenied}, typesOf(events))
	_, err = b.Ledger.Prune(ctx(), postgres.PruneOptions{Keep: postgres.LeastKept, Actor: alice})
	require.Error(t, err, "the role of serve removes nothing")
	require.True(t, json.Valid(events[0].Data))
}
