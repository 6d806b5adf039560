package postgres_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func rollsOver(r earmark.Rollover) func(*earmark.BudgetRequest) {
	return func(b *earmark.BudgetRequest) { b.Rollover = &r }
}

// rolled returns the rollover grants of a budget, the oldest window first: "March 30: 0 10 20 to May" has what it
// is of, what is reserved, committed and left, and the month in which it expires.
func (b *env) rolled(budgetID string) (grants []string) {
	b.t.Helper()
	page, err := b.Grants(ctx(), earmark.DefaultTenant, budgetID, earmark.PageFilter{})
	require.NoError(b.t, err)
	slices.SortFunc(page.Data, func(x, y earmark.Grant) int { return x.EffectiveAt.Compare(y.EffectiveAt) })
	for _, g := range page.Data {
		if g.Source == "rollover" {
			grants = append(grants, fmt.Sprintf("%s %d: %d %d %d to %s", g.RolledFrom.UTC().Format("January"), g.Amount, g.Reserved, g.Committed, g.Remaining, g.ExpiresAt.UTC().Format("January")))
		}
	}
	return grants
}

var april = time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)

func TestRestRollsOverOnce(t *testing.T) {
	b, budget, _ := monthly(t, rollsOver(earmark.Rollover{Max: 50}))
	require.Equal(t, &earmark.Rollover{Max: 50, Windows: 1}, budget.Rollover)
	b.commit(b.held(admission("march", tokens(70), "acme")), tokens(70))
	require.Empty(t, b.rolled(budget.ID))

	setClock(t, b.pool, april)
	require.EqualValues(t, 130, b.balance(budget.ID).Available, "a read shows it before the window opens")
	require.Empty(t, b.rolled(budget.ID))
	for _, result := range b.decided(admission("too much", tokens(131), "acme")) {
		require.Equal(t, earmark.OutcomeDenied, result.Outcome)
		require.EqualValues(t, 130, result.Decision.Violations[0].Available)
	}
	require.Equal(t, []string{"March 30: 0 0 30 to May"}, b.rolled(budget.ID), "also a denied call opens the window")
	b.held(admission("april", tokens(120), "acme"))
	require.Equal(t, []string{"March 30: 20 0 10 to May"}, b.rolled(budget.ID))
	require.EqualValues(t, 10, b.balance(budget.ID).Available)
	rows, err := b.pool.Query(ctx(), "SELECT (data ->> 'rolled_over')::bigint FROM earmark.events WHERE type = 'budget.window_opened' ORDER BY id")
	require.NoError(t, err)
	opened, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	require.NoError(t, err)
	require.Equal(t, []int64{0, 30}, opened)
	require.Len(t, b.grantNotes(budget.ID), 1)

	setClock(t, b.pool, april.AddDate(0, 1, 0))
	b.held(admission("may", tokens(100), "acme"))
	require.Equal(t, []string{"March 30: 20 0 0 to May", "April 0: 0 0 0 to June"}, b.rolled(budget.ID), "the rest of what rolled over expires")
	require.Zero(t, b.balance(budget.ID).Available)
}

// What is held when the window ends is used. What of it comes free later is given over then.
func TestHoldsOfTheOldWindowRollOverWhenTheySettle(t *testing.T) {
	for name, step := range map[string]struct {
		max    int64
		settle func(*env, earmark.Transition)
		want   string
	}{
		"released":            {100, func(b *env, s earmark.Transition) { b.release(s) }, "March 80: 0 0 80 to May"},
		"committed in part":   {100, func(b *env, s earmark.Transition) { b.commit(s, tokens(25)) }, "March 55: 0 0 55 to May"},
		"committed whole":     {100, func(b *env, s earmark.Transition) { b.commit(s, tokens(60)) }, "March 20: 0 0 20 to May"},
		"committed with more": {100, func(b *env, s earmark.Transition) { b.commit(s, tokens(75)) }, "March 5: 0 0 5 to May"},
		"up to the most":      {50, func(b *env, s earmark.Transition) { b.release(s) }, "March 50: 0 0 50 to May"},
		"expired":             {100, func(b *env, s earmark.Transition) { b.due(s.ID); b.expire(s) }, "March 80: 0 0 80 to May"},
		"committed late": {100, func(b *env, s earmark.Transition) {
			b.due(s.ID)
			b.expire(s)
			b.commit(s, tokens(45))
		}, "March 35: 0 0 35 to May"},
		"corrected": {100, func(b *env, s earmark.Transition) {
			b.commit(s, tokens(60))
			b.correctBack(s, "back")
		}, "March 80: 0 0 80 to May"},
	} {
		t.Run(name, func(t *testing.T) {
			b, budget, _ := monthly(t, rollsOver(earmark.Rollover{Max: step.max}))
			b.commit(b.held(admission("used", tokens(20), "acme")), tokens(20))
			old := b.held(leased("old", tokens(60), 60*24*time.Hour, earmark.OnExpiryRelease, "acme"))
			setClock(t, b.pool, april)
			require.EqualValues(t, 120, b.balance(budget.ID).Available)
			b.held(admission("opens", tokens(100), "acme"))
			require.Equal(t, []string{"March 20: 0 0 20 to May"}, b.rolled(budget.ID))
			step.settle(b, old)
			require.Equal(t, []string{step.want}, b.rolled(budget.ID))
		})
	}
}

// What was used already stays, however much is charged to the old window later; a grant that has ended stays as it is.
func TestLateUsageTakesBackWhatRolledOver(t *testing.T) {
	b, budget, _ := monthly(t, rollsOver(earmark.Rollover{Max: 100}))
	old := b.held(leased("old", tokens(20), time.Hour, earmark.OnExpiryRelease, "acme"))
	setClock(t, b.pool, april)
	b.expire(old)
	b.commit(b.held(admission("more", tokens(140), "acme")), tokens(140))
	require.Equal(t, []string{"March 100: 0 40 60 to May"}, b.rolled(budget.ID))
	b.commit(old, tokens(90))
	require.Equal(t, []string{"March 40: 0 40 0 to May"}, b.rolled(budget.ID))
	more := func(key string, amount int64) {
		b.correct(earmark.Correction{ID: earmark.CorrectionID(old.ID, key), ReservationID: old.ID, Tenant: old.Tenant, Actor: old.Actor,
			Request: earmark.CorrectionRequest{Amounts: tokens(amount), Reason: "again"}})
	}
	more("less", -40) // 50 are left of March
	require.Equal(t, []string{"March 50: 0 40 10 to May"}, b.rolled(budget.ID))
	setClock(t, b.pool, april.AddDate(0, 1, 0))
	more("none", -50)
	require.Equal(t, []string{"March 50: 0 40 0 to May"}, b.rolled(budget.ID))
}

// What a hold has kept from being taken back is taken back when the hold gives it back, and so is a charge of it.
func TestWhatComesBackIsTakenBackToo(t *testing.T) {
	for name, step := range map[string]struct {
		settle func(*env, earmark.Transition)
		want   string
	}{
		"released":          {func(b *env, s earmark.Transition) { b.release(s) }, "March 10: 0 0 10 to May"},
		"committed in part": {func(b *env, s earmark.Transition) { b.commit(s, tokens(130)) }, "March 30: 0 30 0 to May"},
		"expired":           {func(b *env, s earmark.Transition) { b.due(s.ID); b.expire(s) }, "March 10: 0 0 10 to May"},
		"corrected": {func(b *env, s earmark.Transition) {
			b.commit(s, tokens(200))
			b.correct(earmark.Correction{ID: earmark.CorrectionID(s.ID, "back"), ReservationID: s.ID, Tenant: s.Tenant, Actor: s.Actor,
				Request: earmark.CorrectionRequest{Amounts: tokens(-60), Reason: "again"}})
		}, "March 40: 0 40 0 to May"},
		"after its end": {func(b *env, s earmark.Transition) {
			setClock(b.t, b.pool, april.AddDate(0, 1, 0))
			b.release(s)
		}, "March 10: 0 0 0 to May"},
	} {
		t.Run(name, func(t *testing.T) {
			b, budget, _ := monthly(t, rollsOver(earmark.Rollover{Max: 100}))
			old := b.held(leased("old", tokens(20), time.Hour, earmark.OnExpiryRelease, "acme"))
			setClock(t, b.pool, april)
			b.expire(old)
			all := b.held(leased("all", tokens(200), 60*24*time.Hour, earmark.OnExpiryRelease, "acme"))
			b.commit(old, tokens(90))
			require.Equal(t, []string{"March 100: 100 0 0 to May"}, b.rolled(budget.ID))
			step.settle(b, all)
			require.Equal(t, []string{step.want}, b.rolled(budget.ID))
		})
	}
}

// Usage without a reservation may be of a window that has rolled over, be it one that nobody opened.
func TestUsageOfAWindowThatRolledOver(t *testing.T) {
	b, budget, _ := monthly(t, rollsOver(earmark.Rollover{Max: 100, Windows: 2}))
	setClock(t, b.pool, april.AddDate(0, 1, 0))
	b.held(admission("may", tokens(1), "acme"))
	require.Equal(t, []string{"March 100: 0 0 100 to June", "April 100: 0 0 100 to July"}, b.rolled(budget.ID))
	r := earmark.UsageRequest{Scopes: []string{"acme"}, Amounts: tokens(30)}
	_, err := b.Charge(ctx(), earmark.Charge{ID: "u", Tenant: earmark.DefaultTenant, Request: r, RequestHash: r.Hash(), Actor: earmark.ActorAPI, Reason: "spent", At: april.Add(time.Hour)})
	require.NoError(t, err)
	require.Equal(t, []string{"March 100: 0 0 100 to June", "April 70: 0 0 70 to July"}, b.rolled(budget.ID))
}

func TestRolloverIsBounded(t *testing.T) {
	for name, step := range map[string]struct {
		rollover earmark.Rollover
		months   int // until the next call
		want     []string
	}{
		"most of a window":       {earmark.Rollover{Max: 30}, 1, []string{"March 30: 0 0 30 to May"}},
		"one of many windows":    {earmark.Rollover{Max: 30}, 4, []string{"June 30: 0 0 30 to August"}},
		"several windows":        {earmark.Rollover{Max: 30, Windows: 3}, 2, []string{"March 30: 0 0 30 to July", "April 30: 0 0 30 to August"}},
		"those that can be used": {earmark.Rollover{Max: 30, Windows: 2}, 4, []string{"May 30: 0 0 30 to August", "June 30: 0 0 30 to September"}},
		"total":                  {earmark.Rollover{Max: 30, Windows: 3, MaxTotal: new(int64(50))}, 3, []string{"March 30: 0 0 30 to July", "April 20: 0 0 20 to August", "May 0: 0 0 0 to September"}},
	} {
		t.Run(name, func(t *testing.T) {
			b, budget, _ := monthly(t, rollsOver(step.rollover))
			b.commit(b.held(admission("first", tokens(10), "acme")), tokens(10))
			setClock(t, b.pool, time.Date(2026, 3+time.Month(step.months), 5, 0, 0, 0, 0, time.UTC))
			before := b.balance(budget.ID).Available
			b.held(admission("next", tokens(1), "acme"))
			require.Equal(t, before-1, b.balance(budget.ID).Available)
			require.Equal(t, step.want, b.rolled(budget.ID))
		})
	}
}

// The total bounds what is given over later too.
func TestRolloverTotalBoundsWhatComesLater(t *testing.T) {
	b, budget, _ := monthly(t, rollsOver(earmark.Rollover{Max: 50, Windows: 2, MaxTotal: new(int64(60))}))
	setClock(t, b.pool, april)
	old := b.held(leased("old", tokens(150), 60*24*time.Hour, earmark.OnExpiryRelease, "acme")) // 100 of April, 50 of March
	b.release(old)
	old = b.held(leased("older", tokens(100), 60*24*time.Hour, earmark.OnExpiryRelease, "acme"))
	setClock(t, b.pool, april.AddDate(0, 1, 0))
	b.held(admission("may", tokens(1), "acme"))
	require.Equal(t, []string{"March 50: 0 0 50 to June", "April 0: 0 0 0 to July"}, b.rolled(budget.ID))
	b.release(old)
	require.Equal(t, []string{"March 50: 0 0 50 to June", "April 10: 0 0 10 to July"}, b.rolled(budget.ID))
}

// What a window left is of the limit as it was when the window ended, with its overrides.
func TestRestIsOfTheLimitAsItWas(t *testing.T) {
	cases := map[string]func(*env, *earmark.Budget){
		"patched": func(b *env, budget *earmark.Budget) {
			_, err := b.patch(budget.ID, earmark.BudgetPatch{Limit: new(int64(1000))})
			require.NoError(b.t, err)
		},
		"overridden from before": func(b *env, budget *earmark.Budget) {
			b.override(budget.ID, "later", earmark.OverrideRequest{Amount: 900, EffectiveAt: new(april.AddDate(0, 0, -5))})
		},
		"overridden in March": func(b *env, budget *earmark.Budget) {},
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			b, budget, _ := monthly(t, rollsOver(earmark.Rollover{Max: 1000}))
			want := []string{"March 40: 0 0 40 to May"}
			if name == "overridden in March" {
				b.override(budget.ID, "raise", earmark.OverrideRequest{Amount: 20, Windows: new(int64(1))})
				want = []string{"March 60: 0 0 60 to May"}
			}
			b.commit(b.held(admission("march", tokens(60), "acme")), tokens(60))
			setClock(t, b.pool, april)
			change(b, budget)
			b.held(admission("april", tokens(1), "acme"))
			require.Equal(t, want, b.rolled(budget.ID))
		})
	}
}

// A setting begins with the current window. Without it nothing more rolls over, and what did stays.
func TestRolloverIsSetAndRemoved(t *testing.T) {
	b, budget, _ := monthly(t)
	set := func(r *earmark.Rollover) *earmark.Budget {
		t.Helper()
		patch := earmark.BudgetPatch{Rollover: &r}
		require.NoError(t, patch.Validate())
		changed, err := b.patch(budget.ID, patch)
		require.NoError(t, err)
		return changed
	}
	b.commit(b.held(admission("march", tokens(60), "acme")), tokens(60))
	require.Equal(t, &earmark.Rollover{Max: 30, Windows: 1}, set(&earmark.Rollover{Max: 30, Windows: 1}).Rollover)
	setClock(t, b.pool, april)
	require.Nil(t, set(nil).Rollover)
	require.Equal(t, []string{"March 30: 0 0 30 to May"}, b.rolled(budget.ID))
	setClock(t, b.pool, april.AddDate(0, 1, 0))
	require.EqualValues(t, 100, b.balance(budget.ID).Available)
	b.held(admission("may", tokens(60), "acme"))
	set(&earmark.Rollover{Max: 30, Windows: 1})
	require.Len(t, b.rolled(budget.ID), 1, "April had no rollover")

	_, err := b.ArchiveBudget(ctx(), earmark.DefaultTenant, budget.ID, earmark.ActorAPI)
	require.NoError(t, err)
	setClock(t, b.pool, april.AddDate(0, 2, 0))
	require.EqualValues(t, 100, b.balance(budget.ID).Available)
	require.Len(t, b.rolled(budget.ID), 1)
}

func TestRolloverNeedsWindowsOfDays(t *testing.T) {
	b := setup(t)
	for _, period := range earmark.Periods {
		r := earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: new(int64(1)), Window: earmark.Window{Period: period}, Rollover: &earmark.Rollover{Max: 1}}
		if period == earmark.PeriodRolling {
			r.Window.RollingSeconds = 60
		}
		r = r.WithDefaults()
		request := r.Validate()
		r.Rollover = nil
		budget, err := b.create(r)
		require.NoError(t, err)
		_, err = b.patch(budget.ID, earmark.BudgetPatch{Rollover: new(&earmark.Rollover{Max: 1})})
		if rolls(r.Window) {
			require.NoError(t, request)
			require.NoError(t, err)
			continue
		}
		for _, refused := range []error{request, err} {
			var known *earmark.Error
			require.ErrorAs(t, refused, &known, "%s", period)
			require.Equal(t, [2]string{string(earmark.CodeInvalidRequest), "rollover"}, [2]string{string(known.Code), known.Field})
		}
	}
}

// The first calls of a window make one grant.
func TestFirstCallsOfAWindowRollOverOnce(t *testing.T) {
	b, budget, _ := monthly(t, rollsOver(earmark.Rollover{Max: 50}))
	b.held(admission("march", tokens(70), "acme"))
	setClock(t, b.pool, april)
	var calls sync.WaitGroup
	for i := range 8 {
		calls.Go(func() { b.reserve(admission(fmt.Sprint("april ", i), tokens(10), "acme")) })
	}
	calls.Wait()
	require.Equal(t, []string{"March 30: 0 0 30 to May"}, b.rolled(budget.ID))

	// One that waits for the call that opens the window.
	setClock(t, b.pool, april.AddDate(0, 1, 0))
	a := admission("may", tokens(10), "acme")
	require.True(t, b.during(reserveUnderWay, []any{a.ID, a.RequestHash, a.Request.Scopes, a.Request.Amounts}, func() {
		b.held(admission("may too", tokens(10), "acme"))
	}))
	require.Equal(t, []string{"March 30: 0 0 0 to May", "April 20: 0 0 20 to June"}, b.rolled(budget.ID))
}

// A settlement of an old hold and the call that opens the next window take turns: nothing of the hold is lost or there twice.
func TestRolloverAndSettlementsTakeTurns(t *testing.T) {
	b, budget, _ := monthly(t, rollsOver(earmark.Rollover{Max: 100}))
	old := b.held(leased("old", tokens(70), 60*24*time.Hour, earmark.OnExpiryRelease, "acme"))
	setClock(t, b.pool, april)
	require.True(t, b.during(commitUnderWay, []any{old.ID, tokens(20)}, func() { b.held(admission("april", tokens(1), "acme")) }))
	require.Equal(t, []string{"March 80: 0 0 80 to May"}, b.rolled(budget.ID))

	old = b.held(leased("april too", tokens(70), 60*24*time.Hour, earmark.OnExpiryRelease, "acme"))
	setClock(t, b.pool, april.AddDate(0, 1, 0))
	a := admission("may", tokens(1), "acme")
	require.True(t, b.during(reserveUnderWay, []any{a.ID, a.RequestHash, a.Request.Scopes, a.Request.Amounts}, func() { b.release(old) }))
	require.Equal(t, []string{"March 80: 0 0 0 to May", "April 99: 0 0 99 to June"}, b.rolled(budget.ID))
}

// A call of the old window that had to wait, and reserves after the next one has opened, takes back what it holds.
func TestHoldAfterTheRollover(t *testing.T) {
	b, budget, _ := monthly(t, rollsOver(earmark.Rollover{Max: 100}))
	setClock(t, b.pool, april)
	b.held(admission("opens", tokens(1), "acme"))
	require.Equal(t, []string{"March 100: 0 0 100 to May"}, b.rolled(budget.ID))
	a := leased("late", tokens(60), 60*24*time.Hour, earmark.OnExpiryRelease, "acme")
	_, err := b.pool.Exec(ctx(), "SELECT earmark.reserve($1, 'default', $2, $3, $4, 1000000, 'release', '{}', $1, NULL, false, 'api', p_at => $5)",
		a.ID, a.RequestHash, a.Request.Scopes, a.Request.Amounts, april.Add(-time.Second))
	require.NoError(t, err)
	require.Equal(t, []string{"March 40: 0 0 40 to May"}, b.rolled(budget.ID))
	b.commit(earmark.Transition{ID: a.ID, Tenant: a.Tenant, Actor: earmark.ActorAPI}, tokens(25))
	require.Equal(t, []string{"March 75: 0 0 75 to May"}, b.rolled(budget.ID))
}

// A denial knows what the next windows will roll over.
func TestDenialKnowsWhatRollsOver(t *testing.T) {
	b, budget, _ := monthly(t, rollsOver(earmark.Rollover{Max: 50, Windows: 2}))
	b.commit(b.held(admission("march", tokens(60), "acme")), tokens(60))
	for amount, retryAt := range map[int64]time.Time{
		100: april, 140: april, 150: april.AddDate(0, 1, 0), 190: april.AddDate(0, 1, 0),
	} {
		for _, result := range b.decided(admission(fmt.Sprint(amount), tokens(amount), "acme")) {
			require.Equal(t, earmark.OutcomeDenied, result.Outcome)
			require.True(t, result.Decision.Retryable, "%d", amount)
			require.Equal(t, retryAt, result.Decision.RetryAt.UTC(), "%d", amount)
		}
	}
	for _, result := range b.decided(admission("never", tokens(201), "acme")) {
		require.False(t, result.Decision.Retryable)
	}
	b.held(leased("hold", tokens(30), 24*time.Hour, earmark.OnExpiryRelease, "acme"))
	for _, result := range b.decided(admission("freed", tokens(140), "acme")) {
		require.Equal(t, april, result.Decision.RetryAt.UTC(), "%s: the hold will have ended", budget.ID)
	}
}

// What rolls over for a day or a week ends with each of them: no event says so. What is there for longer is announced as other grants are.
func TestExpiringRollover(t *testing.T) {
	for name, step := range map[string]struct {
		window  earmark.Window
		windows int64
		events  int
	}{
		"a day":     {earmark.Window{Period: earmark.PeriodDay}, 1, 0},
		"a week":    {earmark.Window{Period: earmark.PeriodWeek}, 1, 0},
		"two weeks": {earmark.Window{Period: earmark.PeriodWeek}, 2, 1},
		"a month":   {earmark.Window{Period: earmark.PeriodMonth}, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b, _, _ := monthly(t)
			budget := b.budget("globex", "tokens", 100, func(r *earmark.BudgetRequest) { r.Window = step.window }, rollsOver(earmark.Rollover{Max: 50, Windows: step.windows}))
			setClock(t, b.pool, *budget.Balance.WindowEnd)
			b.held(admission("opens", tokens(1), "globex"))
			g := b.only("globex")
			require.EqualValues(t, 149, g.Balance.Available)
			page, err := b.Grants(ctx(), earmark.DefaultTenant, budget.ID, earmark.PageFilter{})
			require.NoError(t, err)
			seen := func(at time.Time) int {
				t.Helper()
				setClock(t, b.pool, at)
				_, err := b.NoteGrants(ctx(), 10)
				require.NoError(t, err)
				events, _ := b.events("", func(f *earmark.EventFilter) { f.Types = []earmark.EventType{earmark.EventGrantExpiring} })
				return len(events)
			}
			end := *page.Data[0].ExpiresAt
			require.Zero(t, seen(*budget.Balance.WindowEnd))
			if early := end.Add(-7*24*time.Hour - time.Second); early.After(*budget.Balance.WindowEnd) {
				require.Zero(t, seen(early))
			}
			require.Equal(t, step.events, seen(end.Add(-time.Hour)))
			require.Equal(t, step.events, seen(end))
		})
	}
}

// A denial knows what comes free of the windows that rolled over, before and after the next one has opened.
func TestDenialKnowsWhatAddsToARollover(t *testing.T) {
	b, budget, now := monthly(t, rollsOver(earmark.Rollover{Max: 70}))
	b.commit(b.held(admission("march", tokens(20), "acme")), tokens(20))
	lease := april.AddDate(0, 0, 4)
	b.held(leased("old", tokens(60), lease.Sub(now), earmark.OnExpiryRelease, "acme"))
	setClock(t, b.pool, april)
	retry := func(amount int64, want time.Time) {
		t.Helper()
		for _, result := range b.decided(admission(fmt.Sprint(amount), tokens(amount), "acme")) {
			require.Equal(t, earmark.OutcomeDenied, result.Outcome)
			require.Equal(t, want, result.Decision.RetryAt.UTC(), "%d", amount)
		}
	}
	for range 2 {
		retry(121, lease)
		retry(170, lease)
		require.Equal(t, []string{"March 20: 0 0 20 to May"}, b.rolled(budget.ID))
	}
	for _, result := range b.decided(admission("never", tokens(171), "acme")) {
		require.False(t, result.Decision.Retryable)
	}

	// What a hold keeps from being taken back does not come free with it.
	all := b.held(leased("all", tokens(120), 7*24*time.Hour, earmark.OnExpiryRelease, "acme"))
	r := earmark.UsageRequest{Scopes: []string{"acme"}, Amounts: tokens(15)}
	_, err := b.Charge(ctx(), earmark.Charge{ID: "u", Tenant: earmark.DefaultTenant, Request: r, RequestHash: r.Hash(), Actor: earmark.ActorAPI, Reason: "spent", At: now})
	require.NoError(t, err)
	require.Equal(t, []string{"March 20: 20 0 0 to May"}, b.rolled(budget.ID))
	setClock(t, b.pool, lease)
	b.expire(earmark.Transition{ID: earmark.ReservationID(earmark.DefaultTenant, "old"), Tenant: earmark.DefaultTenant, Actor: earmark.ActorWorkflow})
	require.Equal(t, []string{"March 65: 20 0 45 to May"}, b.rolled(budget.ID))
	retry(165, april.AddDate(0, 0, 7))
	retry(166, april.AddDate(0, 1, 0))
	b.release(all)
}

// The child of a template has its template's rollover, also when that changes, and what is left is of the limit until the change.
func TestChildOfATemplateRollsOver(t *testing.T) {
	b, pool := onClock(t)
	setClock(t, pool, april.AddDate(0, 0, -7))
	template := b.budget("users/*", "tokens", 100, period(earmark.PeriodMonth), rollsOver(earmark.Rollover{Max: 50}))
	b.commit(b.held(admission("ana 1", tokens(80), "users/ana")), tokens(80))
	ana := b.only("users/ana")
	setClock(t, pool, april)
	require.EqualValues(t, 120, b.balance(ana.ID).Available)
	_, err := b.patch(template.ID, earmark.BudgetPatch{Limit: new(int64(500)), Effective: new(earmark.EffectiveNow)})
	require.NoError(t, err)
	require.EqualValues(t, 520, b.balance(ana.ID).Available)
	b.held(admission("ana 2", tokens(1), "users/ana"))
	require.Equal(t, []string{"March 20: 0 0 20 to May"}, b.rolled(ana.ID))
	require.EqualValues(t, 519, b.balance(ana.ID).Available)
	require.Empty(t, b.rolled(template.ID))

	none := (*earmark.Rollover)(nil)
	_, err = b.patch(template.ID, earmark.BudgetPatch{Rollover: &none, Effective: new(earmark.EffectiveNextWindow)})
	require.NoError(t, err)
	setClock(t, pool, april.AddDate(0, 1, 0))
	b.held(admission("ana 3", tokens(1), "users/ana"))
	require.Equal(t, []string{"March 20: 0 0 0 to May", "April 50: 0 0 50 to June"}, b.rolled(ana.ID), "April rolled over still")
	require.Nil(t, b.only("users/ana").Rollover)
	setClock(t, pool, april.AddDate(0, 2, 0))
	b.held(admission("ana 4", tokens(1), "users/ana"))
	require.Len(t, b.rolled(ana.ID), 2)
	report, err := b.CheckRules(ctx())
	require.NoError(t, err)
	require.Empty(t, report.Mismatches())
}
