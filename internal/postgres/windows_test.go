package postgres_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/model"
	"github.com/earmark-dev/earmark/internal/postgres"
)

// Zones whose clocks do what is hard to get right: midnights that are skipped or
// come twice, a day that never was, half an hour of summer time, summer time that
// is winter time by law, offsets of 45 minutes, and rules that changed often.
var zones = []string{
	"UTC", "Europe/Berlin", "Europe/Dublin", "America/New_York", "America/Havana", "America/Sao_Paulo", "America/Santiago", "America/Asuncion",
	"America/St_Johns", "America/Caracas", "Asia/Beirut", "Asia/Tehran", "Asia/Amman", "Asia/Gaza", "Asia/Kathmandu", "Asia/Pyongyang",
	"Africa/Cairo", "Africa/Casablanca", "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Chatham", "Pacific/Kiritimati", "Antarctica/Troll",
}

type bounds struct {
	Start time.Time
	End   *time.Time
}

// boundsOf asks Postgres for the windows of many instants at once.
func boundsOf(t *testing.T, pool *pgxpool.Pool, w earmark.Window, instants []time.Time) []bounds {
	t.Helper()
	const sql = `SELECT b.window_start, b.window_end FROM unnest($3::timestamptz[]) WITH ORDINALITY AS i (at, n),
		LATERAL earmark.window_bounds($1, $2, i.at) b ORDER BY i.n`
	rows, err := pool.Query(ctx(), sql, string(w.Period), w.Timezone, instants)
	require.NoError(t, err)
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[bounds])
	require.NoError(t, err)
	require.Len(t, found, len(instants))
	return found
}

// changesOfClocks lists the instants from 2000 to 2030 at which zone's offset changes.
func changesOfClocks(t *testing.T, zone string) []time.Time {
	t.Helper()
	location, err := time.LoadLocation(zone)
	require.NoError(t, err)
	var changes []time.Time
	at := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	for {
		_, at = at.In(location).ZoneBounds()
		if at.IsZero() || at.Year() > 2030 {
			return changes
		}
		changes = append(changes, at.UTC())
	}
}

// instantsAround picks instants near each change of clocks, to the microsecond,
// and some at any time.
func instantsAround(changes []time.Time, random *rand.Rand) []time.Time {
	var instants []time.Time
	for _, change := range changes {
		for _, off := range []time.Duration{-time.Microsecond, 0, time.Hour - time.Microsecond, time.Hour, -time.Hour} {
			instants = append(instants, change.Add(off))
		}
		for range 4 {
			instants = append(instants, change.Add(time.Duration(random.Int64N(int64(72*time.Hour)))-36*time.Hour).Truncate(time.Microsecond))
		}
	}
	first, last := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	for range 50 {
		instants = append(instants, first.Add(time.Duration(random.Int64N(int64(last.Sub(first))))).Truncate(time.Microsecond))
	}
	return instants
}

// TestEveryInstantHasOneWindow checks window_start <= at < window_end, that a
// window ends where the next begins, and that Postgres and Go, each with date
// functions of its own, agree on both.
func TestEveryInstantHasOneWindow(t *testing.T) {
	pool := setup(t).pool
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, zone := range zones {
		instants := instantsAround(changesOfClocks(t, zone), random)
		for _, period := range []earmark.Period{earmark.PeriodHour, earmark.PeriodDay, earmark.PeriodWeek, earmark.PeriodMonth} {
			w := earmark.Window{Period: period, Timezone: zone}
			found := boundsOf(t, pool, w, instants)
			var ends []time.Time
			for i, at := range instants {
				start, end := model.Bounds(w, at)
				require.True(t, found[i].Start.Equal(start) && found[i].End.Equal(*end), "%s of %s at %s: Postgres has %s to %s, Go %s to %s", period, zone, at, found[i].Start, found[i].End, start, end)
				require.False(t, at.Before(start), "%s of %s at %s starts at %s", period, zone, at, start)
				require.True(t, at.Before(*end), "%s of %s at %s ends at %s", period, zone, at, end)
				ends = append(ends, *end)
			}
			if period == earmark.PeriodHour {
				continue // where clocks change by half an hour, an hour is cut short
			}
			for i, next := range boundsOf(t, pool, w, ends) {
				require.True(t, next.Start.Equal(ends[i]), "%s of %s: one window ends at %s, the next starts at %s", period, zone, ends[i], next.Start)
			}
		}
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
	b := &bundle{Ledger: postgres.New(pool), t: t, pool: pool}
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
	report, err := b.Audit(ctx())
	require.NoError(t, err)
	require.Empty(t, report.Mismatches())
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
	b := &bundle{Ledger: postgres.New(pool), t: t, pool: pool}
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
