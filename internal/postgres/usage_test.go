package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
)

// clocked is setup on a database whose clock stands still until setClock.
func clocked(t *testing.T) *env {
	t.Helper()
	t.Parallel()
	pool := timedPool(t)
	b := &env{Ledger: postgres.New(pool), owner: postgres.New(pool), t: t, pool: pool}
	t.Cleanup(func() {
		report, err := b.CheckRules(context.Background())
		require.NoError(t, err)
		require.Empty(t, report.Mismatches())
	})
	return b
}

// spend charges usage without a reservation.
func (b *env) spend(key string, amount int64, metadata earmark.Metadata, scopes ...string) {
	b.t.Helper()
	usage := earmark.UsageRequest{Scopes: scopes, Amounts: tokens(amount), Metadata: metadata}
	result, err := b.Charge(ctx(), earmark.Charge{
		ID: earmark.ReservationID(earmark.DefaultTenant, key), Tenant: earmark.DefaultTenant, Request: usage, RequestHash: usage.Hash(), Actor: earmark.ActorAPI,
	})
	require.NoError(b.t, err)
	require.Equal(b.t, earmark.OutcomeApplied, result.Outcome)
}

func (b *env) usage(budgetID string, q earmark.UsageQuery) *earmark.UsageReport {
	b.t.Helper()
	report, err := b.UsageReport(ctx(), earmark.DefaultTenant, budgetID, q.WithDefaults())
	require.NoError(b.t, err)
	require.NotNil(b.t, report)
	return report
}

// rolledUp rolls up until the sums have every entry. Transactions of other tests may keep
// it from going on for a moment.
func (b *env) rolledUp() {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		_, err := b.RollUpUsage(ctx())
		return err == nil && b.behind() == 0
	}, time.Minute, 5*time.Millisecond)
}

// behind returns how many entries the sums do not have yet.
func (b *env) behind() (entries int64) {
	b.t.Helper()
	require.NoError(b.t, b.pool.QueryRow(ctx(), "SELECT count(*) FROM earmark.entries WHERE id > (SELECT entry_id FROM earmark.usage_watermark)").Scan(&entries))
	return entries
}

// parts describes a report's data.
func parts(r *earmark.UsageReport) (lines []string) {
	for _, part := range r.Data {
		name := "none"
		switch {
		case part.Start != nil:
			name = part.Start.Format("01-02T15:04") + " to " + part.End.Format("01-02T15:04")
		case part.Other:
			name = "other"
		case part.Value != nil:
			name = fmt.Sprintf("%q", *part.Value)
		}
		lines = append(lines, fmt.Sprintf("%s: %d in %d", name, part.Committed, part.Charges))
	}
	return lines
}

// A report is the same before its entries are rolled up, in between, and afterwards.
func TestUsageReports(t *testing.T) {
	b := clocked(t)
	at := func(text string) {
		moment, err := time.Parse(time.RFC3339, text)
		require.NoError(t, err)
		setClock(t, b.pool, moment)
	}
	at("2026-01-10T08:10:00Z")
	month := b.budget("acme", "tokens", 1_000_000, func(r *earmark.BudgetRequest) {
		r.Window = earmark.Window{Period: earmark.PeriodMonth, Timezone: "Asia/Kathmandu"} // 5:45 ahead
	})
	all := b.budget("acme/ml", "tokens", 1_000_000)
	late := b.held(admission("late", tokens(50), "acme/ml"))
	b.spend("a", 100, earmark.Metadata{"feature": "chat"}, "acme/ml", "acme/web")
	at("2026-01-10T18:14:59Z") // 23:59:59 in Kathmandu
	b.spend("b", 20, earmark.Metadata{"feature": ""}, "acme/web")
	b.rolledUp()
	at("2026-01-10T18:15:00Z") // midnight there
	b.spend("c", 3, nil, "acme/ml/x")
	b.spend("d", 4, earmark.Metadata{"feature": "chat"}, "acme/ml")
	held := b.held(admission("held", tokens(7), "acme"))
	at("2026-02-03T00:00:00Z")
	b.commit(late, tokens(60)) // of January's window: it counts at its end
	b.spend("e", 500, nil, "acme/ml")
	b.release(held)

	january := earmark.UsageQuery{From: ptr(parse(t, "2026-01-01T00:00:00+05:45")), To: ptr(parse(t, "2026-02-01T00:00:00+05:45"))}
	by := func(by string) []string {
		q := january
		q.By = by
		r := b.usage(month.ID, q)
		require.Equal(t, earmark.UsageSum{Committed: 187, Charges: 5}, r.Total)
		require.Equal(t, []any{*q.From, *q.To}, []any{r.From.In(q.From.Location()), r.To.In(q.From.Location())})
		require.Equal(t, "Asia/Kathmandu", r.Timezone)
		budget, err := b.Budget(ctx(), earmark.DefaultTenant, month.ID)
		require.NoError(t, err)
		require.EqualValues(t, 500, budget.Balance.Committed)
		require.Equal(t, budget.Balance, r.Balance, "the present window's")
		return parts(r)
	}
	check := func() {
		t.Helper()
		require.Equal(t, []string{"01-09T18:15 to 01-10T18:15: 120 in 2", "01-10T18:15 to 01-11T18:15: 7 in 2", "01-30T18:15 to 01-31T18:15: 60 in 1"}, by("day"))
		require.Equal(t, []string{"01-10T07:15 to 01-10T08:15: 100 in 1", "01-10T17:15 to 01-10T18:15: 20 in 1", "01-10T18:15 to 01-10T19:15: 7 in 2", "01-31T17:15 to 01-31T18:15: 60 in 1"}, by("hour"))
		require.Equal(t, []string{`"acme/ml": 164 in 3`, `"acme/web": 20 in 1`, `"acme/ml/x": 3 in 1`}, by("scope"))
		require.Equal(t, []string{`"chat": 104 in 2`, `"": 20 in 1`, "none: 63 in 2"}, by("metadata.feature"))
		require.Equal(t, []string{"none: 187 in 5"}, by("metadata.unused"))

		present := b.usage(month.ID, earmark.UsageQuery{})
		require.Equal(t, []string{"02-02T18:15 to 02-03T18:15: 500 in 1"}, parts(present))
		lifetime := b.usage(all.ID, earmark.UsageQuery{})
		require.Equal(t, []string{"01-10T00:00 to 01-11T00:00: 107 in 3", "02-03T00:00 to 02-03T00:15: 560 in 2"}, parts(lifetime))
		require.Equal(t, parse(t, "2026-01-04T00:00:00Z"), lifetime.From, "30 days")
	}
	check()
	_, err := b.pool.Exec(ctx(), "SELECT earmark.roll_up_usage(1)")
	require.NoError(t, err)
	check()
	b.rolledUp()
	check()
	at("2026-07-01T00:00:00Z")
	require.Positive(t, b.prune(postgres.LeastKept).Reservations)
	b.rolledUp()
	require.Equal(t, []string{`"chat": 104 in 2`, `"": 20 in 1`, "none: 63 in 2"}, parts(b.usage(month.ID, earmark.UsageQuery{From: january.From, To: january.To, By: "metadata.feature"})),
		"what was pruned is still in the report")
	none, err := b.UsageReport(ctx(), "other", month.ID, earmark.UsageQuery{}.WithDefaults())
	require.NoError(t, err)
	require.Nil(t, none, "of another tenant")
}

func ptr[T any](v T) *T { return &v }

func parse(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	require.NoError(t, err)
	if _, offset := at.Zone(); offset == 0 {
		at = at.UTC()
	}
	return at
}

// From and to move outwards to where quarters, or days, begin and end; never past the window.
func TestUsageRangeMovesOutwards(t *testing.T) {
	b := clocked(t)
	setClock(t, b.pool, parse(t, "2026-01-10T08:40:00Z"))
	hourly := b.budget("acme", "tokens", 1000, func(r *earmark.BudgetRequest) { r.Window.Period = earmark.PeriodHour })
	lifetime := b.budget("acme/ml", "tokens", 1000)
	b.spend("a", 1, nil, "acme/ml")
	setClock(t, b.pool, parse(t, "2026-01-10T09:10:00Z"))
	b.spend("b", 2, nil, "acme/ml")
	b.rolledUp()
	for _, test := range []struct {
		budget           string
		by, from, to     string
		wantFrom, wantTo string
		committed        int64
	}{
		{lifetime.ID, "day", "08:59:59", "09:00:01", "08:45:00", "09:15:00", 2},
		{lifetime.ID, "day", "08:30:00", "08:45:00", "08:30:00", "08:45:00", 1},
		{lifetime.ID, "scope", "09:00:00", "09:00:01", "00:00:00", "00:00:00+1", 3},
		{hourly.ID, "scope", "09:00:00", "09:00:01", "09:00:00", "10:00:00", 2},
		{hourly.ID, "scope", "08:00:00", "09:00:00", "08:00:00", "09:00:00", 1},
		{hourly.ID, "hour", "08:59:00", "09:01:00", "08:45:00", "09:15:00", 2},
	} {
		q := earmark.UsageQuery{From: ptr(parse(t, "2026-01-10T"+test.from+"Z")), To: ptr(parse(t, "2026-01-10T"+test.to+"Z")), By: test.by}
		r := b.usage(test.budget, q)
		day := "2026-01-10T"
		if test.wantTo == "00:00:00+1" {
			day, test.wantTo = "2026-01-11T", "00:00:00"
		}
		require.Equal(t, []time.Time{parse(t, "2026-01-10T"+test.wantFrom+"Z"), parse(t, day+test.wantTo+"Z")}, []time.Time{r.From, r.To}, "%+v", test)
		require.Equal(t, test.committed, r.Total.Committed, "%+v", test)
	}
}

// A report on a rolling budget has the hours and days of one on a lifetime budget, and as few
// rows: slices do not cut them. It gives the time that it covers.
func TestUsageOfARollingBudget(t *testing.T) {
	b := clocked(t)
	start := parse(t, "2026-01-10T08:00:00Z")
	setClock(t, b.pool, start)
	budget := b.budget("acme", "tokens", 1000, rolling)
	for minute := range 40 {
		setClock(t, b.pool, start.Add(time.Duration(minute)*time.Minute))
		b.spend(fmt.Sprint(minute), 1, earmark.Metadata{"feature": "chat"}, "acme")
	}
	for range 2 {
		report := b.usage(budget.ID, earmark.UsageQuery{By: "hour"})
		require.Equal(t, []string{"01-10T08:00 to 01-10T08:45: 40 in 40"}, parts(report))
		require.Equal(t, parse(t, "2026-01-10T03:30:00Z"), report.From, "the window starts at 03:35")
		require.Equal(t, parse(t, "2026-01-10T08:45:00Z"), report.To)
		require.Equal(t, []string{`"chat": 40 in 40`}, parts(b.usage(budget.ID, earmark.UsageQuery{By: "metadata.feature"})))
		b.rolledUp()
	}
	var rows int
	require.NoError(t, b.pool.QueryRow(ctx(), "SELECT count(*) FROM earmark.usage_rollups").Scan(&rows))
	require.Equal(t, 3+1+1, rows, "quarters, and a day of the scope and of the feature")
}

// A window of two years is longer than a report may be.
func TestUsageOfALongWindow(t *testing.T) {
	b := clocked(t)
	setClock(t, b.pool, parse(t, "2026-01-10T08:00:00Z"))
	budget := b.budget("acme", "tokens", 1000, func(r *earmark.BudgetRequest) { r.Window = earmark.Window{Period: earmark.PeriodYear, Every: 2} })
	b.spend("a", 1, nil, "acme")
	report := b.usage(budget.ID, earmark.UsageQuery{})
	require.Equal(t, parse(t, "2025-12-11T08:00:00Z"), report.From)
	require.EqualValues(t, 1, report.Total.Committed)
}

// A transaction may have taken an id before another one and commit after it.
func TestUsageRollUpWaitsForOpenTransactions(t *testing.T) {
	b := setup(t)
	one, two := b.budget("one", "tokens", 1000), b.budget("two", "tokens", 1000)
	b.spend("before", 1, nil, "one")
	b.rolledUp()

	first := b.held(admission("a", tokens(10), "one"))
	tx := b.begin()
	_, err := tx.Exec(ctx(), "SELECT earmark.commit(p_tenant => 'default', p_id => $1, p_usage => '{\"tokens\": 10}', p_actor => 'api', p_reason => '')", first.ID)
	require.NoError(t, err)
	for n := range 10 { // as often as it is asked, and with later entries
		b.spend(fmt.Sprint("later ", n), 100, nil, "two")
		_, err = b.RollUpUsage(ctx())
		require.NoError(t, err)
		require.Equal(t, [2]int64{1, int64(n+1) * 100}, [2]int64{b.usage(one.ID, earmark.UsageQuery{}).Total.Committed, b.usage(two.ID, earmark.UsageQuery{}).Total.Committed})
	}
	require.GreaterOrEqual(t, b.behind(), int64(10), "what came after the open transaction waits for it")
	require.NoError(t, tx.Commit(ctx()))
	require.EqualValues(t, 11, b.usage(one.ID, earmark.UsageQuery{}).Total.Committed)
	b.rolledUp()
	require.EqualValues(t, 11, b.usage(one.ID, earmark.UsageQuery{}).Total.Committed)
}

// Several processes roll up at once while others charge, and each entry counts once.
func TestUsageIsRolledUpOnce(t *testing.T) {
	b := setup(t)
	budgets := []*earmark.Budget{b.budget("acme", "tokens", 1_000_000), b.budget("acme/a", "tokens", 1_000_000), b.budget("acme/b", "tokens", 1_000_000)}
	const writers, each = 4, 50
	var charging, rolling errgroup.Group
	done, end := context.WithCancel(ctx())
	for w := range writers {
		charging.Go(func() error {
			for n := range each {
				usage := earmark.UsageRequest{Scopes: []string{[]string{"acme/a", "acme/b"}[w%2]}, Amounts: tokens(1)}
				charge := earmark.Charge{ID: earmark.ReservationID(earmark.DefaultTenant, fmt.Sprint(w, " ", n)), Tenant: earmark.DefaultTenant,
					Request: usage, RequestHash: usage.Hash(), Actor: earmark.ActorAPI}
				_, err := b.Charge(ctx(), charge)
				for earmark.ErrorCode(err) == earmark.CodeUnavailable { // the lock was not free in time
					_, err = b.Charge(ctx(), charge)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	for range 3 {
		rolling.Go(func() error {
			for done.Err() == nil {
				if _, err := b.RollUpUsage(ctx()); err != nil {
					return err
				}
				report, err := b.UsageReport(ctx(), earmark.DefaultTenant, budgets[0].ID, earmark.UsageQuery{}.WithDefaults())
				if err != nil {
					return err
				}
				if report.Total.Committed != report.Balance.Committed {
					return fmt.Errorf("the report says %d, and the balance of the same moment %d", report.Total.Committed, report.Balance.Committed)
				}
			}
			return nil
		})
	}
	err := charging.Wait()
	end()
	require.NoError(t, errors.Join(err, rolling.Wait()))
	b.rolledUp()
	for n, want := range []int64{writers * each, writers * each / 2, writers * each / 2} {
		require.Equal(t, earmark.UsageSum{Committed: want, Charges: want}, b.usage(budgets[n].ID, earmark.UsageQuery{}).Total)
	}
}

func TestUsageRollUpIsATransactionOfItsOwn(t *testing.T) {
	b := setup(t)
	tx := b.begin()
	_, err := tx.Exec(ctx(), "SELECT pg_current_xact_id()")
	require.NoError(t, err)
	_, err = tx.Exec(ctx(), "SELECT earmark.roll_up_usage(1)")
	require.ErrorContains(t, err, "has to be the first change of its transaction")
}

// A dump that was read into another cluster brings the transaction id of the first.
func TestUsageGoesOnInACopy(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	b.spend("a", 1, nil, "acme")
	_, err := b.RollUpUsage(ctx())
	require.NoError(t, err)
	_, err = b.pool.Exec(ctx(), "UPDATE earmark.usage_watermark SET next_xid = '9000000000000'")
	require.NoError(t, err)
	b.spend("b", 2, nil, "acme")
	b.rolledUp()
	require.Equal(t, earmark.UsageSum{Committed: 3, Charges: 2}, b.usage(budget.ID, earmark.UsageQuery{}).Total)
}

// Beyond 200 values a day, the rest has one sum, in the table as in the answer.
func TestUsageValuesAreBounded(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1_000_000)
	spend := func(from, to int) {
		for n := from; n < to; n++ {
			b.spend(fmt.Sprint(n), int64(1000+n), earmark.Metadata{"request": fmt.Sprint(n), "even": fmt.Sprint(n % 2)}, "acme")
		}
	}
	query := earmark.UsageQuery{By: "metadata.request"}
	check := func() {
		t.Helper()
		r := b.usage(budget.ID, query)
		require.Len(t, r.Data, 201)
		require.True(t, r.Data[200].Other)
		var sum earmark.UsageSum
		for _, part := range r.Data {
			sum.Committed, sum.Charges = sum.Committed+part.Committed, sum.Charges+part.Charges
		}
		require.Equal(t, earmark.UsageSum{Committed: 210*1000 + 210*209/2, Charges: 210}, sum)
		require.Equal(t, r.Total, sum)
		even := b.usage(budget.ID, earmark.UsageQuery{By: "metadata.even"})
		require.Equal(t, []int64{105, 105}, []int64{even.Data[0].Charges, even.Data[1].Charges})
	}
	spend(0, 205)
	b.rolledUp()
	spend(205, 210)
	check()
	b.rolledUp()
	check()
	var rows int
	require.NoError(t, b.pool.QueryRow(ctx(), "SELECT count(*) FROM earmark.usage_rollups WHERE dimension = 'metadata.request'").Scan(&rows))
	require.Contains(t, []int{201, 402}, rows, "201 a day; the test may run at midnight")
}

// What is not in the sums yet stays in the journal, whoever removes it.
func TestPruneKeepsWhatIsNotRolledUp(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	s := b.held(admission("a", tokens(10), "acme"))
	b.commit(s, tokens(10))
	b.ages(400, s.ID)
	_, err := b.pool.Exec(ctx(), "SELECT earmark.prune('default', $1, 'epoch', '', 100, false, 'test')", postgres.LeastKept.Milliseconds())
	require.NoError(t, err)
	require.True(t, b.exists(s.ID))

	require.EqualValues(t, 1, b.prune(postgres.LeastKept).Reservations, "a prune rolls up first")
	require.Equal(t, earmark.UsageSum{Committed: 10, Charges: 1}, b.usage(budget.ID, earmark.UsageQuery{}).Total)
	require.Equal(t, []string{`"acme": 10 in 1`}, parts(b.usage(budget.ID, earmark.UsageQuery{By: "scope"})))
}

// An installation that pruned before it had usage reports has the sums of what is gone.
func TestUsageOfFormerCheckpoints(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	s := b.held(admission("a", tokens(10), "acme"))
	b.commit(s, tokens(10))
	b.ages(400, s.ID)
	b.prune(postgres.LeastKept)
	_, err := b.pool.Exec(ctx(), "TRUNCATE earmark.usage_rollups; UPDATE earmark.usage_watermark SET entry_id = 0, final_entry_id = 0, next_entry_id = 0, next_xid = '0'")
	require.NoError(t, err)
	for range 2 {
		require.Equal(t, earmark.UsageSum{Committed: 10, Charges: 1}, b.usage(budget.ID, earmark.UsageQuery{}).Total)
		require.Equal(t, []string{"none: 10 in 1"}, parts(b.usage(budget.ID, earmark.UsageQuery{By: "scope"})))
		b.rolledUp()
	}
}

// Charges at random moments around changes of clocks, summed a second time from the journal
// with Go's time zones.
func TestUsageAgainstASecondSum(t *testing.T) {
	b := clocked(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	from := time.Date(2026, 10, 20, 0, 0, 0, 0, berlin)
	setClock(t, b.pool, from)
	budget := b.budget("acme", "tokens", 1_000_000, func(r *earmark.BudgetRequest) {
		r.Window = earmark.Window{Period: earmark.PeriodWeek, Timezone: "Europe/Berlin"}
	})
	days, hours := map[string]int64{}, map[string]int64{}
	for n, at := 0, from; n < 150; n++ {
		at = at.Add(time.Duration(random.Int64N(int64(2 * time.Hour)))).Truncate(time.Microsecond)
		setClock(t, b.pool, at)
		amount := random.Int64N(100) + 1
		b.spend(fmt.Sprint(n), amount, nil, "acme")
		days[at.Format(time.DateOnly)] += amount
		hours[at.Truncate(time.Hour).UTC().Format(time.RFC3339)] += amount
		if n%40 == 0 {
			b.rolledUp()
		}
	}
	query := earmark.UsageQuery{From: &from, To: ptr(from.AddDate(0, 0, 20))}
	byDay, byHour := map[string]int64{}, map[string]int64{}
	for _, part := range b.usage(budget.ID, query).Data {
		byDay[part.Start.In(berlin).Format(time.DateOnly)] += part.Committed
	}
	query.By = earmark.UsageByHour
	for _, part := range b.usage(budget.ID, query).Data {
		byHour[part.Start.Format(time.RFC3339)] += part.Committed
	}
	require.Equal(t, days, byDay)
	require.Equal(t, hours, byHour)
}
