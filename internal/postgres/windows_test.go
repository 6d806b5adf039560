package postgres_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/ledgertest"
	"github.com/earmark-dev/earmark/internal/postgres"
)

// Windows that Node computes as well.
var periods = []earmark.Period{earmark.PeriodHour, earmark.PeriodDay, earmark.PeriodWeek, earmark.PeriodMonth, earmark.PeriodYear}

// Windows that Postgres and Go compute.
var anchored = []earmark.Window{
	{Period: earmark.PeriodMinute}, {Period: earmark.PeriodMinute, Every: 7, Anchor: "2026-01-31T09:01"},
	{Period: earmark.PeriodHour, Every: 5}, {Period: earmark.PeriodHour, Anchor: "2026-03-29T02:30"},
	{Period: earmark.PeriodDay, Anchor: "2010-11-07T02:30"}, {Period: earmark.PeriodDay, Every: 3, Anchor: "2040-06-01T23:45"},
	{Period: earmark.PeriodWeek, Every: 2}, {Period: earmark.PeriodWeek, Anchor: "2026-01-29T00:15"},
	{Period: earmark.PeriodMonth, Anchor: "2026-01-31T09:00"}, {Period: earmark.PeriodMonth, Every: 3, Anchor: "2012-11-30T00:00"},
	{Period: earmark.PeriodYear, Anchor: "2024-02-29T12:00"}, {Period: earmark.PeriodYear, Every: 2},
}

type bounds struct {
	Start time.Time
	End   *time.Time
}

func (b bounds) String() string { return "[" + stampOf(&b.Start) + ", " + stampOf(b.End) + ")" }

func stampOf(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// boundsOf asks Postgres for the windows of many instants at once.
func boundsOf(t *testing.T, pool *pgxpool.Pool, w earmark.Window, instants []time.Time) []bounds {
	t.Helper()
	const sql = `SELECT b.window_start, b.window_end FROM unnest($3::timestamptz[]) WITH ORDINALITY AS i (at, n),
		LATERAL earmark.window_bounds($1, $2, i.at, $4, nullif($5, '')::timestamp) b ORDER BY i.n`
	rows, err := pool.Query(ctx(), sql, string(w.Period), w.Timezone, instants, max(w.Every, 1), w.Anchor)
	require.NoError(t, err)
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[bounds])
	require.NoError(t, err)
	require.Len(t, found, len(instants))
	return found
}

// TestWindowsWhereClocksChange has the right values worked out by hand.
func TestWindowsWhereClocksChange(t *testing.T) {
	pool := setup(t).pool
	for _, c := range []struct {
		what       string
		period     earmark.Period
		zone       string
		at         string
		start, end string
	}{
		{"midnight comes twice: its first hour", "day", "Atlantic/Azores", "2026-10-25T00:30:00Z", "2026-10-25T00:00:00Z", "2026-10-26T01:00:00Z"},
		{"midnight comes twice: its second hour", "day", "Atlantic/Azores", "2026-10-25T01:00:00Z", "2026-10-25T00:00:00Z", "2026-10-26T01:00:00Z"},
		{"the day before ends at the first midnight", "day", "Atlantic/Azores", "2026-10-24T23:59:59Z", "2026-10-24T00:00:00Z", "2026-10-25T00:00:00Z"},
		{"the first of a month comes twice", "month", "America/Havana", "2026-11-01T04:00:00Z", "2026-11-01T04:00:00Z", "2026-12-01T05:00:00Z"},
		{"clocks go back from one date to the one before", "day", "America/St_Johns", "2010-11-07T02:45:00Z", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z"},
		{"clocks go back by three hours", "day", "Antarctica/Casey", "2010-03-04T15:30:00Z", "2010-03-04T13:00:00Z", "2010-03-05T16:00:00Z"},
		{"midnight is skipped", "day", "America/Sao_Paulo", "2018-11-04T03:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"},
		{"clocks go forward over midnight", "day", "America/Toronto", "1919-03-31T04:30:00Z", "1919-03-31T04:30:00Z", "1919-04-01T04:00:00Z"},
		{"clocks go forward over midnight: the day before", "day", "America/Toronto", "1919-03-31T04:29:59Z", "1919-03-30T05:00:00Z", "1919-03-31T04:30:00Z"},
		{"a date is skipped: the day before", "day", "Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"},
		{"a date is skipped: the day after", "day", "Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"},
		{"a date is skipped: the day before", "day", "Pacific/Kwajalein", "1993-08-21T11:59:59Z", "1993-08-20T12:00:00Z", "1993-08-21T12:00:00Z"},
		{"a date is skipped: the day after", "day", "Pacific/Kwajalein", "1993-08-21T12:00:00Z", "1993-08-21T12:00:00Z", "1993-08-22T12:00:00Z"},
		{"half an hour back: before", "hour", "Australia/Lord_Howe", "2026-04-04T14:45:00Z", "2026-04-04T14:00:00Z", "2026-04-04T15:00:00Z"},
		{"half an hour back: what is repeated", "hour", "Australia/Lord_Howe", "2026-04-04T15:00:00Z", "2026-04-04T15:00:00Z", "2026-04-04T15:30:00Z"},
		{"half an hour back: after", "hour", "Australia/Lord_Howe", "2026-04-04T15:30:00Z", "2026-04-04T15:30:00Z", "2026-04-04T16:30:00Z"},
		{"half an hour forward: before", "hour", "Australia/Lord_Howe", "2026-10-03T15:29:59Z", "2026-10-03T14:30:00Z", "2026-10-03T15:30:00Z"},
		{"half an hour forward: what is left", "hour", "Australia/Lord_Howe", "2026-10-03T15:45:00Z", "2026-10-03T15:30:00Z", "2026-10-03T16:00:00Z"},
		{"half an hour forward: after", "hour", "Australia/Lord_Howe", "2026-10-03T16:00:00Z", "2026-10-03T16:00:00Z", "2026-10-03T17:00:00Z"},
		{"whole hours do not cut an hour", "hour", "America/St_Johns", "2010-11-07T02:31:00Z", "2010-11-07T02:30:00Z", "2010-11-07T03:30:00Z"},
		{"an hour that clocks read twice is two", "hour", "Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"},
		{"the offset has seconds: before", "hour", "Africa/Monrovia", "1972-01-07T00:44:29Z", "1972-01-06T23:44:30Z", "1972-01-07T00:44:30Z"},
		{"the offset has seconds: after", "hour", "Africa/Monrovia", "1972-01-07T00:44:30Z", "1972-01-07T00:44:30Z", "1972-01-07T01:00:00Z"},
		{"the offset has seconds: day", "day", "Africa/Monrovia", "1972-01-07T12:00:00Z", "1972-01-07T00:44:30Z", "1972-01-08T00:00:00Z"},
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		require.NoError(t, err)
		w := earmark.Window{Period: c.period, Timezone: c.zone}
		right := "[" + c.start + ", " + c.end + ")"
		require.Equal(t, right, boundsOf(t, pool, w, []time.Time{at})[0].String(), "Postgres: %s of %s at %s (%s)", c.period, c.zone, c.at, c.what)
		start, end := ledgertest.Bounds(w, at)
		require.Equal(t, right, bounds{start, end}.String(), "Go: %s of %s at %s (%s)", c.period, c.zone, c.at, c.what)
	}
}

// TestWindowsFromAnAnchor has the right values worked out by hand.
func TestWindowsFromAnAnchor(t *testing.T) {
	pool := setup(t).pool
	const berlin = "Europe/Berlin"
	for _, c := range []struct {
		what       string
		window     earmark.Window
		at         string
		start, end string
	}{
		{"a month from the 31st", earmark.Window{Period: "month", Timezone: "UTC", Anchor: "2026-01-31T09:00"}, "2026-02-28T08:59:59Z", "2026-01-31T09:00:00Z", "2026-02-28T09:00:00Z"},
		{"the last day of a shorter month", earmark.Window{Period: "month", Timezone: "UTC", Anchor: "2026-01-31T09:00"}, "2026-02-28T09:00:00Z", "2026-02-28T09:00:00Z", "2026-03-31T09:00:00Z"},
		{"the 31st again afterwards", earmark.Window{Period: "month", Timezone: "UTC", Anchor: "2026-01-31T09:00"}, "2026-03-31T09:00:00Z", "2026-03-31T09:00:00Z", "2026-04-30T09:00:00Z"},
		{"the last day of February in a leap year", earmark.Window{Period: "month", Timezone: "UTC", Anchor: "2026-01-31T09:00"}, "2028-03-01T00:00:00Z", "2028-02-29T09:00:00Z", "2028-03-31T09:00:00Z"},
		{"years before the anchor", earmark.Window{Period: "month", Timezone: "UTC", Anchor: "2026-01-31T09:00"}, "2023-02-28T09:00:00Z", "2023-02-28T09:00:00Z", "2023-03-31T09:00:00Z"},
		{"summer time keeps the hour", earmark.Window{Period: "month", Timezone: berlin, Anchor: "2026-01-31T09:00"}, "2026-04-01T00:00:00Z", "2026-03-31T07:00:00Z", "2026-04-30T07:00:00Z"},
		{"29 February in another year", earmark.Window{Period: "year", Timezone: "UTC", Anchor: "2024-02-29T12:00"}, "2026-01-01T00:00:00Z", "2025-02-28T12:00:00Z", "2026-02-28T12:00:00Z"},
		{"29 February in the next leap year", earmark.Window{Period: "year", Timezone: "UTC", Anchor: "2024-02-29T12:00"}, "2028-02-29T12:00:00Z", "2028-02-29T12:00:00Z", "2029-02-28T12:00:00Z"},
		{"a year", earmark.Window{Period: "year", Timezone: berlin}, "2026-07-01T00:00:00Z", "2025-12-31T23:00:00Z", "2026-12-31T23:00:00Z"},
		{"quarters", earmark.Window{Period: "month", Every: 3, Timezone: "UTC"}, "2026-11-28T00:00:00Z", "2026-10-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"a week from Thursday noon", earmark.Window{Period: "week", Timezone: berlin, Anchor: "2026-01-29T12:00"}, "2026-10-25T12:00:00Z", "2026-10-22T10:00:00Z", "2026-10-29T11:00:00Z"},
		{"two weeks from a Monday", earmark.Window{Period: "week", Every: 2, Timezone: "UTC"}, "2026-11-28T00:00:00Z", "2026-11-16T00:00:00Z", "2026-11-30T00:00:00Z"},
		{"a day from 02:30, which clocks skip", earmark.Window{Period: "day", Timezone: berlin, Anchor: "2026-01-01T02:30"}, "2026-03-29T12:00:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"},
		{"a day from 02:30, which comes twice", earmark.Window{Period: "day", Timezone: berlin, Anchor: "2026-01-01T02:30"}, "2026-10-25T01:45:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"},
		{"five hours where clocks change", earmark.Window{Period: "hour", Every: 5, Timezone: berlin, Anchor: "2026-03-28T22:00"}, "2026-03-29T03:00:00Z", "2026-03-29T02:00:00Z", "2026-03-29T07:00:00Z"},
		{"an hour from half past, read twice", earmark.Window{Period: "hour", Timezone: berlin, Anchor: "2026-01-01T00:30"}, "2026-10-25T01:15:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"},
		{"a minute", earmark.Window{Period: "minute", Timezone: "Asia/Kathmandu"}, "2026-01-01T00:00:59.999999Z", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"},
		{"fifteen minutes", earmark.Window{Period: "minute", Every: 15, Timezone: "UTC"}, "2026-01-01T00:44:00Z", "2026-01-01T00:30:00Z", "2026-01-01T00:45:00Z"},
		{"minutes before the anchor", earmark.Window{Period: "minute", Every: 7, Timezone: "UTC", Anchor: "2026-01-01T00:00"}, "2025-12-31T23:52:59Z", "2025-12-31T23:46:00Z", "2025-12-31T23:53:00Z"},
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		require.NoError(t, err)
		right := "[" + c.start + ", " + c.end + ")"
		require.Equal(t, right, boundsOf(t, pool, c.window, []time.Time{at})[0].String(), "Postgres: %s", c.what)
		start, end := ledgertest.Bounds(c.window, at)
		require.Equal(t, right, bounds{start, end}.String(), "Go: %s", c.what)
	}
}

// TestLimitIsGrantedOnceAWindowWhereClocksChange uses a limit up whenever it is there, and
// looks at the budget as the API shows it.
func TestLimitIsGrantedOnceAWindowWhereClocksChange(t *testing.T) {
	t.Parallel()
	pool := timedPool(t)
	b := &env{Ledger: postgres.New(pool), owner: postgres.New(pool), t: t, pool: pool}
	for zone, c := range map[string]struct {
		period  earmark.Period
		moments []string
		granted []string
	}{
		"Atlantic/Azores": {
			earmark.PeriodDay,
			[]string{"2026-10-24T23:59:59Z", "2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-26T00:30:00Z", "2026-10-26T01:00:00Z"},
			[]string{"2026-10-24T23:59:59Z", "2026-10-25T00:00:00Z", "2026-10-26T01:00:00Z"},
		},
		"America/St_Johns": {
			earmark.PeriodDay,
			[]string{"2010-11-07T02:29:59Z", "2010-11-07T02:30:00Z", "2010-11-07T02:31:00Z", "2010-11-07T03:30:00Z", "2010-11-08T03:30:00Z"},
			[]string{"2010-11-07T02:29:59Z", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z"},
		},
		"Pacific/Apia": {
			earmark.PeriodDay,
			[]string{"2011-12-30T09:59:59Z", "2011-12-30T10:00:00Z", "2011-12-31T09:59:59Z", "2011-12-31T10:00:00Z"},
			[]string{"2011-12-30T09:59:59Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"},
		},
		"Australia/Lord_Howe": {
			earmark.PeriodHour,
			[]string{"2026-04-04T14:00:00Z", "2026-04-04T14:45:00Z", "2026-04-04T15:00:00Z", "2026-04-04T15:29:59Z", "2026-04-04T15:30:00Z", "2026-04-04T16:29:59Z", "2026-04-04T16:30:00Z"},
			[]string{"2026-04-04T14:00:00Z", "2026-04-04T15:00:00Z", "2026-04-04T15:30:00Z", "2026-04-04T16:30:00Z"},
		},
	} {
		scope := strings.ReplaceAll(zone, "/", "-")
		budget := b.budget(scope, "tokens", 100, func(r *earmark.BudgetRequest) {
			r.Window = earmark.Window{Period: c.period, Timezone: zone}
		})
		var granted []string
		for _, moment := range c.moments {
			at, err := time.Parse(time.RFC3339, moment)
			require.NoError(t, err)
			setClock(t, pool, at)
			a := admission(scope+moment, tokens(100), scope)
			decided, err := b.Decide(ctx(), a.Tenant, a.Request)
			require.NoError(t, err)
			reserved := b.reserve(a)
			require.Equal(t, decided.Outcome, reserved.Outcome, "%s at %s", zone, moment)
			if reserved.Outcome == earmark.OutcomeApplied {
				granted = append(granted, moment)
				require.Equal(t, earmark.OutcomeApplied, b.commit(earmark.Transition{ID: a.ID, Tenant: a.Tenant, Actor: earmark.ActorWorkflow}, tokens(100)).Outcome)
			}
			start, end := ledgertest.Bounds(budget.Window, at)
			page, err := b.Budgets(ctx(), earmark.DefaultTenant, earmark.BudgetFilter{Scope: scope})
			require.NoError(t, err)
			require.Equal(t, earmark.Balance{Limit: 100, EffectiveLimit: 100, Committed: 100, WindowStart: start, WindowEnd: end}, page.Data[0].Balance, "%s at %s", zone, moment)
		}
		require.Equal(t, c.granted, granted, zone)
		// A window without a reservation is shown as well, empty.
		last, err := time.Parse(time.RFC3339, c.moments[len(c.moments)-1])
		require.NoError(t, err)
		setClock(t, pool, last.Add(48*time.Hour))
		start, end := ledgertest.Bounds(budget.Window, last.Add(48*time.Hour))
		shown, err := b.Budget(ctx(), earmark.DefaultTenant, budget.ID)
		require.NoError(t, err)
		require.Equal(t, earmark.Balance{Limit: 100, EffectiveLimit: 100, Available: 100, WindowStart: start, WindowEnd: end}, shown.Balance)
	}
}

// TestWindowsDoNotDependOnTheSessionsTimeZone sets zones in which intervals of days
// are not of 24 hours.
func TestWindowsDoNotDependOnTheSessionsTimeZone(t *testing.T) {
	pool := setup(t).pool
	for _, zone := range []string{"America/New_York", "Pacific/Apia", "Australia/Lord_Howe"} {
		_, err := pool.Exec(ctx(), "SELECT set_config('timezone', $1, false)", zone)
		require.NoError(t, err)
		for _, w := range []string{"UTC", "America/New_York", "Pacific/Apia", "Australia/Lord_Howe", "Europe/Berlin"} {
			random := rand.New(rand.NewPCG(1, 1))
			instants := append(samples(clockChanges(t, w), random), samples(clockChanges(t, zone), random)...)
			requireModelsBounds(t, pool, w, instants)
		}
		pool.Reset()
	}
}

func TestLifetimeHasNoEnd(t *testing.T) {
	pool := setup(t).pool
	found := boundsOf(t, pool, earmark.Window{Period: earmark.PeriodLifetime, Timezone: "Asia/Tokyo"}, []time.Time{time.Now()})
	require.Equal(t, int64(0), found[0].Start.Unix())
	require.Nil(t, found[0].End)
}

// TestReservationSettlesInItsOwnWindow holds R7: what was reserved before a
// window's end is charged to that window after it, and the new one starts at zero.
func TestReservationSettlesInItsOwnWindow(t *testing.T) {
	t.Parallel()
	pool := timedPool(t)
	// Berlin's 31 March 2024 has 23 hours and begins at 23:00 UTC.
	evening := time.Date(2024, 3, 30, 22, 59, 59, 0, time.UTC)
	setClock(t, pool, evening)
	b := &env{Ledger: postgres.New(pool), owner: postgres.New(pool), t: t, pool: pool}
	day := func(r *earmark.BudgetRequest) {
		r.Window = earmark.Window{Period: earmark.PeriodDay, Timezone: "Europe/Berlin"}
	}
	budget := b.budget("acme", "tokens", 1000, day)
	committed := b.held(admission("committed", tokens(600), "acme"))
	released := b.held(admission("released", tokens(300), "acme"))
	expired := b.held(admission("expired", tokens(100), "acme"))
	denied := b.reserve(admission("denied", tokens(1), "acme"))
	require.Equal(t, earmark.OutcomeDenied, denied.Outcome)

	midnight := time.Date(2024, 3, 30, 23, 0, 0, 0, time.UTC)
	setClock(t, pool, midnight)
	b.requireBalance(budget.ID, 0, 0)
	b.held(admission("today", tokens(1000), "acme"))
	require.Equal(t, earmark.OutcomeApplied, b.commit(committed, tokens(650)).Outcome)
	require.Equal(t, earmark.OutcomeApplied, b.release(released).Outcome)
	setClock(t, pool, evening.Add(earmark.DefaultTTL))
	require.Equal(t, earmark.OutcomeApplied, b.expire(expired).Outcome)
	late := b.commit(expired, tokens(40))
	require.Equal(t, earmark.OutcomeApplied, late.Outcome)
	require.Equal(t, midnight.Add(-24*time.Hour), late.Reservation.Budgets[0].WindowStart.UTC())
	b.requireBalance(budget.ID, 1000, 0)

	today, err := b.Budget(ctx(), earmark.DefaultTenant, budget.ID)
	require.NoError(t, err)
	require.Equal(t, midnight, today.Balance.WindowStart)
	require.Equal(t, midnight.Add(23*time.Hour), *today.Balance.WindowEnd)
	var reservedYesterday, committedYesterday int64
	const yesterday = "SELECT reserved, committed FROM earmark.windows WHERE window_start = $1"
	require.NoError(t, pool.QueryRow(ctx(), yesterday, midnight.Add(-24*time.Hour)).Scan(&reservedYesterday, &committedYesterday))
	require.Equal(t, [2]int64{0, 690}, [2]int64{reservedYesterday, committedYesterday})
	report, err := b.CheckRules(ctx())
	require.NoError(t, err)
	require.Empty(t, report.Mismatches())
}

// Balances of past windows are listed in pages, newest first.
func TestPastWindows(t *testing.T) {
	t.Parallel()
	pool := timedPool(t)
	b := &env{Ledger: postgres.New(pool), owner: postgres.New(pool), t: t, pool: pool}
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	setClock(t, pool, start)
	budget := b.budget("acme", "tokens", 100, func(r *earmark.BudgetRequest) { r.Window = earmark.Window{Period: earmark.PeriodDay} })
	other := b.budget("acme", "tokens", 100)
	var want []earmark.Balance
	for _, day := range []int{0, 1, 4} { // nothing on the days between
		at := start.AddDate(0, 0, day)
		setClock(t, pool, at.Add(time.Hour))
		used := int64(10 * (day + 1))
		settled := b.commit(b.held(admission(at.String(), tokens(used), "acme")), tokens(used))
		require.Equal(t, earmark.OutcomeApplied, settled.Outcome)
		want = slices.Insert(want, 0, earmark.Balance{Limit: 100, EffectiveLimit: 100, Committed: used, Available: 100 - used, WindowStart: at, WindowEnd: new(at.AddDate(0, 0, 1))})
	}
	b.held(admission("open", tokens(7), "acme"))
	want[0].Reserved, want[0].Available = 7, want[0].Available-7
	var found []earmark.Balance
	filter := earmark.WindowFilter{Limit: 2}
	for {
		page, err := b.BudgetWindows(ctx(), earmark.DefaultTenant, budget.ID, filter)
		require.NoError(t, err)
		found = append(found, page.Data...)
		if filter.Cursor = page.NextCursor; filter.Cursor == "" {
			break
		}
		_, err = b.BudgetWindows(ctx(), earmark.DefaultTenant, other.ID, filter)
		require.Equal(t, earmark.CodeInvalidRequest, earmark.ErrorCode(err), "the cursor is of another list")
	}
	require.Equal(t, want, found)
	lifetime, err := b.BudgetWindows(ctx(), earmark.DefaultTenant, other.ID, earmark.WindowFilter{})
	require.NoError(t, err)
	require.Len(t, lifetime.Data, 1)
	require.Equal(t, int64(87), lifetime.Data[0].Committed+lifetime.Data[0].Reserved)
	strangers, err := b.BudgetWindows(ctx(), "stranger", budget.ID, earmark.WindowFilter{})
	require.NoError(t, err)
	require.Empty(t, strangers.Data)
}

// TestTimesAreInUTCWhateverTheServersTimeZone also extends over a change of
// clocks of the zone that a session has: seven days are 168 hours.
func TestTimesAreInUTCWhateverTheServersTimeZone(t *testing.T) {
	t.Parallel()
	pool := timedPool(t)
	_, err := pool.Exec(ctx(), "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''America/New_York''', current_database()); END $$")
	require.NoError(t, err)
	pool.Reset()
	setClock(t, pool, time.Date(2024, 3, 8, 12, 0, 0, 0, time.UTC))
	b := &env{Ledger: postgres.New(pool), owner: postgres.New(pool), t: t, pool: pool}
	b.budget("acme", "tokens", 1000)
	s := b.held(admission("k", tokens(1), "acme"))

	conn, err := pool.Acquire(ctx())
	require.NoError(t, err)
	defer conn.Release()
	_, err = conn.Exec(ctx(), "SET timezone = 'America/New_York'")
	require.NoError(t, err)
	_, err = conn.Exec(ctx(), "SELECT earmark.extend($1, $2, $3, 'operator')", s.Tenant, s.ID, earmark.MaxTTL.Milliseconds()+1)
	require.NoError(t, err)

	extended, err := b.Reservation(ctx(), s.Tenant, s.ID)
	require.NoError(t, err)
	require.Equal(t, "2024-03-08T12:00:00Z", extended.CreatedAt.Format(time.RFC3339))
	require.Equal(t, "2024-03-15T12:00:00Z", extended.ExpiresAt.Format(time.RFC3339))
}

// An admission that waits for a lock past the end of its window is counted where its moment is.
func TestReservationIsMadeInItsWindow(t *testing.T) {
	t.Parallel()
	pool := timedPool(t)
	b := &env{Ledger: postgres.New(pool), owner: postgres.New(pool), t: t, pool: pool}
	start := time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)
	end := start.Add(time.Hour)
	setClock(t, pool, end.Add(-time.Second))
	b.budget("acme", "tokens", 100, func(r *earmark.BudgetRequest) { r.Window = earmark.Window{Period: earmark.PeriodHour} })
	b.held(admission("first", tokens(1), "acme"))
	for what, reserved := range map[string]func() *earmark.Reservation{
		"reserve": func() *earmark.Reservation { return b.reserve(admission("second", tokens(1), "acme")).Reservation },
		"charge": func() *earmark.Reservation {
			result, err := b.Charge(ctx(), earmark.Charge{ID: "third", Tenant: earmark.DefaultTenant, RequestHash: "third", Actor: earmark.ActorAPI,
				Request: earmark.UsageRequest{Scopes: []string{"acme"}, Amounts: tokens(1)}})
			require.NoError(t, err)
			return result.Reservation
		},
	} {
		setClock(t, pool, end.Add(-time.Second))
		var made *earmark.Reservation
		waited := b.duringTx("SELECT FROM earmark.windows FOR UPDATE", nil, func() { made = reserved() }, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx(), "UPDATE test.clock SET at = $1", end.Add(time.Second))
			return err
		})
		require.True(t, waited, what)
		require.Equal(t, start, made.Budgets[0].WindowStart.UTC(), what)
		require.Equal(t, end.Add(-time.Second), made.CreatedAt.UTC(), what)
	}
	report, err := b.CheckRules(ctx())
	require.NoError(t, err)
	require.Empty(t, report.Mismatches())
}

// Windows that were made under older time-zone data keep their bounds, and the windows around them are
// bounded by them: a decision, an admission, a charge and the budget's balance agree on it.
func TestWindowsOfOlderTimeZoneData(t *testing.T) {
	t.Parallel()
	const kept = `INSERT INTO earmark.windows (budget_id, window_start, window_end) VALUES ($1, $2, $3)`
	// Clocks in Berlin are an hour ahead of UTC: its 5 March starts at 23:00Z. Under the older data they were two
	// hours ahead, or level with UTC.
	for _, c := range []struct {
		what       string
		kept       [][2]string
		at         string
		start, end string
	}{
		{"the stored window holds the moment", [][2]string{{"2024-03-04T22:00:00Z", "2024-03-05T22:00:00Z"}}, "2024-03-05T12:00:00Z", "2024-03-04T22:00:00Z", "2024-03-05T22:00:00Z"},
		{"its first moment, which now is of the day before", [][2]string{{"2024-03-04T22:00:00Z", "2024-03-05T22:00:00Z"}}, "2024-03-04T22:00:00Z", "2024-03-04T22:00:00Z", "2024-03-05T22:00:00Z"},
		{"its last moment, which now is of the day after", [][2]string{{"2024-03-05T00:00:00Z", "2024-03-06T00:00:00Z"}}, "2024-03-05T23:59:59.999999Z", "2024-03-05T00:00:00Z", "2024-03-06T00:00:00Z"},
		{"the one before ends later", [][2]string{{"2024-03-05T00:00:00Z", "2024-03-06T00:00:00Z"}}, "2024-03-06T00:00:00Z", "2024-03-06T00:00:00Z", "2024-03-06T23:00:00Z"},
		{"the one before ends earlier", [][2]string{{"2024-03-04T22:00:00Z", "2024-03-05T22:00:00Z"}}, "2024-03-05T22:30:00Z", "2024-03-05T22:00:00Z", "2024-03-05T23:00:00Z"},
		{"the next one starts earlier", [][2]string{{"2024-03-05T22:00:00Z", "2024-03-06T22:00:00Z"}}, "2024-03-05T12:00:00Z", "2024-03-04T23:00:00Z", "2024-03-05T22:00:00Z"},
		{"the next one starts later", [][2]string{{"2024-03-06T00:00:00Z", "2024-03-07T00:00:00Z"}}, "2024-03-05T23:00:00Z", "2024-03-05T23:00:00Z", "2024-03-06T00:00:00Z"},
		{"between two", [][2]string{{"2024-03-04T00:00:00Z", "2024-03-05T00:00:00Z"}, {"2024-03-05T22:00:00Z", "2024-03-06T22:00:00Z"}}, "2024-03-05T12:00:00Z", "2024-03-05T00:00:00Z", "2024-03-05T22:00:00Z"},
		{"far from others", [][2]string{{"2024-03-01T22:00:00Z", "2024-03-02T22:00:00Z"}, {"2024-03-08T22:00:00Z", "2024-03-09T22:00:00Z"}}, "2024-03-05T12:00:00Z", "2024-03-04T23:00:00Z", "2024-03-05T23:00:00Z"},
	} {
		for _, call := range []string{"reserve", "batch", "charge"} {
			t.Run(c.what+", "+call, func(t *testing.T) {
				t.Parallel()
				pool := timedPool(t)
				b := &env{Ledger: postgres.New(pool), owner: postgres.New(pool), t: t, pool: pool}
				at, err := time.Parse(time.RFC3339Nano, c.at)
				require.NoError(t, err)
				setClock(t, pool, at)
				budget := b.budget("acme", "tokens", 100, func(r *earmark.BudgetRequest) {
					r.Window = earmark.Window{Period: earmark.PeriodDay, Timezone: "Europe/Berlin"}
				})
				for _, k := range c.kept {
					_, err := pool.Exec(ctx(), kept, budget.ID, k[0], k[1])
					require.NoError(t, err)
				}
				right := "[" + c.start + ", " + c.end + ")"
				requireShown := func(used int64) {
					shown, err := b.Budget(ctx(), earmark.DefaultTenant, budget.ID)
					require.NoError(t, err)
					require.Equal(t, right, bounds{shown.Balance.WindowStart, shown.Balance.WindowEnd}.String())
					require.Equal(t, 100-used, shown.Balance.Available)
				}
				requireShown(0)
				var made *earmark.Reservation
				switch call {
				case "reserve":
					made = b.reserve(admission("k", tokens(60), "acme")).Reservation
				case "batch":
					const batch = `SELECT result -> 'reservation' ->> 'id' FROM earmark.reserve_batch('default', '[{"id": "rsv_k", "hash": "", "scopes": ["acme"], "amounts": {"tokens": 60},
						"ttl_ms": 60000, "on_expiry": "release", "metadata": {}, "workflow_id": "", "released": false}]', 'workflow') AS result`
					var id string
					require.NoError(t, pool.QueryRow(ctx(), batch).Scan(&id))
					made, err = b.Reservation(ctx(), earmark.DefaultTenant, id)
					require.NoError(t, err)
				case "charge":
					result, err := b.Charge(ctx(), earmark.Charge{ID: "rsv_k", Tenant: earmark.DefaultTenant, RequestHash: "k", Actor: earmark.ActorAPI,
						Request: earmark.UsageRequest{Scopes: []string{"acme"}, Amounts: tokens(60)}})
					require.NoError(t, err)
					made = result.Reservation
				}
				require.Equal(t, c.start, stampOf(&made.Budgets[0].WindowStart))
				requireShown(60)
				if made.State == earmark.StateHeld { // else its lease would end sooner than the window
					settled := b.commit(earmark.Transition{ID: made.ID, Tenant: earmark.DefaultTenant, Actor: earmark.ActorWorkflow}, tokens(60))
					require.Equal(t, c.start, stampOf(&settled.Reservation.Budgets[0].WindowStart))
				}
				decided, err := b.Decide(ctx(), earmark.DefaultTenant, admission("l", tokens(41), "acme").Request)
				require.NoError(t, err)
				require.Equal(t, earmark.OutcomeDenied, decided.Outcome)
				require.Equal(t, c.end, stampOf(decided.Decision.RetryAt))
				preflight, err := b.Preflight(ctx(), admission("l", tokens(40), "acme"))
				require.NoError(t, err)
				require.Equal(t, earmark.OutcomeApplied, preflight.Outcome)
				report, err := b.CheckRules(ctx())
				require.NoError(t, err)
				require.Empty(t, report.Mismatches())
			})
		}
	}
}
