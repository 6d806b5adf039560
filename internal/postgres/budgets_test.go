package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func (b *env) create(r earmark.BudgetRequest) (*earmark.Budget, error) {
	return b.CreateBudget(ctx(), earmark.DefaultTenant, r.WithDefaults(), earmark.ActorAPI)
}

func (b *env) patch(id string, p earmark.BudgetPatch) (*earmark.Budget, error) {
	return b.PatchBudget(ctx(), earmark.DefaultTenant, id, p, earmark.ActorAPI)
}

func requireRefused(t *testing.T, code earmark.Code, field string, err error) {
	t.Helper()
	var refused *earmark.Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, code, refused.Code, refused.Message)
	require.Equal(t, field, refused.Field)
}

func TestNewBudgetHasItsDefaultsAndAnEmptyBalance(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	require.True(t, earmark.IsBudgetID(budget.ID))
	require.WithinDuration(t, time.Now(), budget.CreatedAt, time.Minute)
	require.Equal(t, earmark.Budget{
		ID: budget.ID, Scope: "acme", Unit: "tokens", Limit: 1000, Window: earmark.Window{Period: earmark.PeriodLifetime, Timezone: "UTC"},
		Enforcement: earmark.EnforcementHard, Overage: earmark.OverageAllowWithOverdraft, Allowance: earmark.AllowanceFirst, CreatedAt: budget.CreatedAt,
		Balance: earmark.Balance{Limit: 1000, EffectiveLimit: 1000, Available: 1000, WindowStart: time.Unix(0, 0).UTC()},
	}, *budget)
	require.Equal(t, time.UTC, budget.CreatedAt.Location())
}

func TestOneBudgetForAScopeUnitAndPeriod(t *testing.T) {
	b := setup(t)
	limit := int64(1)
	request := earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit}
	first, err := b.create(request)
	require.NoError(t, err)
	_, err = b.create(request)
	requireRefused(t, earmark.CodeBudgetExists, "", err)
	request.Window = earmark.Window{Timezone: "Asia/Tokyo"}
	_, err = b.create(request)
	requireRefused(t, earmark.CodeBudgetExists, "", err)

	for _, other := range []earmark.BudgetRequest{
		{Scope: "acme", Unit: "tokens", Limit: &limit, Window: earmark.Window{Period: earmark.PeriodDay}},
		{Scope: "acme", Unit: "requests", Limit: &limit},
		{Scope: "acme/ml", Unit: "tokens", Limit: &limit},
	} {
		_, err = b.create(other)
		require.NoError(t, err)
	}
	_, err = b.CreateBudget(ctx(), "other tenant", request.WithDefaults(), earmark.ActorAPI)
	require.NoError(t, err)

	_, err = b.ArchiveBudget(ctx(), earmark.DefaultTenant, first.ID, earmark.ActorAPI)
	require.NoError(t, err)
	second, err := b.create(request)
	require.NoError(t, err, "an archived budget makes room for another")
	require.NotEqual(t, first.ID, second.ID)
}

// TestTimeZoneIsCheckedByPostgres asks for names that Postgres does not have, or has in
// another spelling. It computes with the last three.
func TestTimeZoneIsCheckedByPostgres(t *testing.T) {
	b := setup(t)
	limit := int64(1)
	for _, period := range []earmark.Period{earmark.PeriodHour, earmark.PeriodDay, earmark.PeriodMonth, earmark.PeriodLifetime} {
		for _, name := range []string{"Mars/Olympus_Mons", "Europe/Atlantis", "right/UTC", "Europe/BERLIN", "Etc/Foo5"} {
			_, err := b.create(earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit, Window: earmark.Window{Period: period, Timezone: name}})
			requireRefused(t, earmark.CodeInvalidRequest, "window.timezone", err)
			require.ErrorContains(t, err, name)
		}
	}
	page, err := b.Budgets(ctx(), earmark.DefaultTenant, earmark.BudgetFilter{})
	require.NoError(t, err)
	require.Empty(t, page.Data, "a refused budget leaves nothing behind")
	var zone string
	require.NoError(t, b.pool.QueryRow(ctx(), "SELECT current_setting('timezone')").Scan(&zone))
	require.Equal(t, "UTC", zone, "the session keeps its own")
}

func TestPatchChangesWhatItNames(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	b.held(admission("k", tokens(600), "acme"))
	patched, err := b.patch(budget.ID, earmark.BudgetPatch{Limit: new(int64(500))})
	require.NoError(t, err)
	require.Equal(t, int64(-100), patched.Balance.Available, "a limit may fall below what is set aside")
	require.Equal(t, budget.Overage, patched.Overage)
	require.Equal(t, earmark.OutcomeDenied, b.reserve(admission("l", tokens(1), "acme")).Outcome)

	_, err = b.patch(budget.ID, earmark.BudgetPatch{SoftCeiling: new(new(int64(900)))})
	requireRefused(t, earmark.CodeInvalidRequest, "soft_ceiling", err)
	soft := earmark.BudgetPatch{Enforcement: new(earmark.EnforcementSoft), SoftCeiling: new(new(int64(900)))}
	patched, err = b.patch(budget.ID, soft)
	require.NoError(t, err)
	require.Equal(t, int64(900), *patched.SoftCeiling)
	require.True(t, b.reserve(admission("m", tokens(300), "acme")).Reservation.OverLimit)

	_, err = b.patch(budget.ID, earmark.BudgetPatch{Limit: new(int64(901))})
	requireRefused(t, earmark.CodeInvalidRequest, "limit", err)
	patched, err = b.patch(budget.ID, earmark.BudgetPatch{SoftCeiling: new((*int64)(nil))})
	require.NoError(t, err)
	require.Nil(t, patched.SoftCeiling)
	_, err = b.patch(budget.ID, earmark.BudgetPatch{Enforcement: new(earmark.EnforcementHard), Overage: new(earmark.OverageReject)})
	require.NoError(t, err)
	same, err := b.patch(budget.ID, earmark.BudgetPatch{Overage: new(earmark.OverageReject)})
	require.NoError(t, err)
	require.Equal(t, earmark.OverageReject, same.Overage)

	page, err := b.Entries(ctx(), earmark.DefaultTenant, earmark.EntryFilter{BudgetID: budget.ID})
	require.NoError(t, err)
	var reasons []string
	for _, entry := range page.Data {
		if entry.Kind == "budget" {
			reasons = append(reasons, entry.Reason)
		}
	}
	require.Equal(t, []string{
		"created with limit 1000", "limit 1000 to 500", "enforcement hard to soft, soft_ceiling none to 900", "soft_ceiling 900 to none",
		"enforcement soft to hard, overage allow_with_overdraft to reject",
	}, reasons, "every change is in the journal, and what changed nothing is not")
}

func TestNoSuchBudget(t *testing.T) {
	b := setup(t)
	mine := b.budget("acme", "tokens", 1000)
	for _, who := range [][2]string{{earmark.DefaultTenant, earmark.NewBudgetID()}, {"other", mine.ID}} {
		budget, err := b.Budget(ctx(), who[0], who[1])
		require.NoError(t, err)
		require.Nil(t, budget)
		budget, err = b.PatchBudget(ctx(), who[0], who[1], earmark.BudgetPatch{Limit: new(int64(1))}, earmark.ActorAPI)
		require.NoError(t, err)
		require.Nil(t, budget)
		budget, err = b.ArchiveBudget(ctx(), who[0], who[1], earmark.ActorAPI)
		require.NoError(t, err)
		require.Nil(t, budget)
	}
}

// TestArchivedBudgetSettlesAndHoldsNoMore also lets usage be charged to it late.
func TestArchivedBudgetSettlesAndHoldsNoMore(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	open := b.held(admission("open", tokens(400), "acme"))
	late := b.held(admission("late", tokens(100), "acme"))
	archived, err := b.ArchiveBudget(ctx(), earmark.DefaultTenant, budget.ID, earmark.ActorAPI)
	require.NoError(t, err)
	require.NotNil(t, archived.ArchivedAt)
	require.Equal(t, int64(500), archived.Balance.Reserved)
	again, err := b.ArchiveBudget(ctx(), earmark.DefaultTenant, budget.ID, earmark.ActorAPI)
	require.NoError(t, err)
	require.Equal(t, archived.ArchivedAt, again.ArchivedAt)
	_, err = b.patch(budget.ID, earmark.BudgetPatch{Limit: new(int64(1))})
	requireRefused(t, earmark.CodeInvalidRequest, "", err)
	require.Equal(t, earmark.OutcomeNoBudget, b.reserve(admission("next", tokens(1), "acme")).Outcome)

	require.Equal(t, earmark.OutcomeApplied, b.commit(open, tokens(450)).Outcome)
	b.due(late.ID)
	b.expire(late)
	require.Equal(t, earmark.OutcomeApplied, b.commit(late, tokens(120)).Outcome)
	b.requireBalance(budget.ID, 0, 570)

	successor := b.budget("acme", "tokens", 1000)
	b.held(admission("next", tokens(1000), "acme"))
	b.requireBalance(successor.ID, 1000, 0)
	b.requireBalance(budget.ID, 0, 570)
}

func TestBudgetsAreListedByScopeOrPathInPages(t *testing.T) {
	b := setup(t)
	for _, scope := range []string{"acme", "acme/ml", "acme/ml/u1", "acme/mlops", "acmecorp", "other"} {
		b.budget(scope, "tokens", 1)
		b.budget(scope, "requests", 1)
	}
	gone := b.budget("acme/ml", "usd_micros", 1)
	_, err := b.ArchiveBudget(ctx(), earmark.DefaultTenant, gone.ID, earmark.ActorAPI)
	require.NoError(t, err)
	list := func(f earmark.BudgetFilter) (found []string) {
		for {
			page, err := b.Budgets(ctx(), earmark.DefaultTenant, f)
			require.NoError(t, err)
			if f.Limit > 0 {
				require.LessOrEqual(t, len(page.Data), f.Limit)
			}
			for _, budget := range page.Data {
				found = append(found, budget.Scope+" "+budget.Unit)
			}
			if f.Cursor = page.NextCursor; f.Cursor == "" {
				return found
			}
		}
	}
	newestFirst := []string{
		"other requests", "other tokens", "acmecorp requests", "acmecorp tokens", "acme/mlops requests", "acme/mlops tokens",
		"acme/ml/u1 requests", "acme/ml/u1 tokens", "acme/ml requests", "acme/ml tokens", "acme requests", "acme tokens",
	}
	require.Equal(t, newestFirst, list(earmark.BudgetFilter{}))
	for _, limit := range []int{1, 5, 12} {
		require.Equal(t, newestFirst, list(earmark.BudgetFilter{Limit: limit}), "pages of %d", limit)
	}
	require.Equal(t, []string{"acme/ml requests", "acme/ml tokens"}, list(earmark.BudgetFilter{Scope: "acme/ml"}))
	path := []string{"acme/ml/u1 requests", "acme/ml/u1 tokens", "acme/ml requests", "acme/ml tokens", "acme requests", "acme tokens"}
	require.Equal(t, path, list(earmark.BudgetFilter{Covering: "acme/ml/u1/deeper", Limit: 4}))
	require.Equal(t, path[4:], list(earmark.BudgetFilter{Covering: "acme/mlo"}))
	require.Empty(t, list(earmark.BudgetFilter{Scope: "acm"}))
}

// A cursor belongs to one list with one filter.
func TestCursorsBelongToTheirList(t *testing.T) {
	b := setup(t)
	for _, scope := range []string{"acme", "acme/ml", "other"} {
		b.budget(scope, "tokens", 1000)
		b.held(admission(scope, tokens(1), scope))
	}
	budgets, err := b.Budgets(ctx(), earmark.DefaultTenant, earmark.BudgetFilter{Limit: 1})
	require.NoError(t, err)
	reservations, err := b.Reservations(ctx(), earmark.DefaultTenant, earmark.ReservationFilter{Limit: 1})
	require.NoError(t, err)
	entries, err := b.Entries(ctx(), earmark.DefaultTenant, earmark.EntryFilter{Limit: 1})
	require.NoError(t, err)
	cursors := []string{budgets.NextCursor, reservations.NextCursor, entries.NextCursor}
	for list, read := range []func(cursor string, filtered bool) error{
		func(cursor string, filtered bool) (err error) {
			filter := earmark.BudgetFilter{Cursor: cursor}
			if filtered {
				filter.Covering = "acme/ml"
			}
			_, err = b.Budgets(ctx(), earmark.DefaultTenant, filter)
			return err
		},
		func(cursor string, filtered bool) (err error) {
			_, err = b.Reservations(ctx(), earmark.DefaultTenant, earmark.ReservationFilter{Cursor: cursor, Overdue: filtered})
			return err
		},
		func(cursor string, filtered bool) (err error) {
			filter := earmark.EntryFilter{Cursor: cursor}
			if filtered {
				filter.BudgetID = budgets.Data[0].ID
			}
			_, err = b.Entries(ctx(), earmark.DefaultTenant, filter)
			return err
		},
		func(cursor string, _ bool) (err error) {
			_, err = b.Stuck(ctx(), earmark.DefaultTenant, earmark.ReservationFilter{Cursor: cursor}, earmark.StuckIDs{})
			return err
		},
	} {
		for of, cursor := range cursors {
			require.NotEmpty(t, cursor)
			if of == list {
				require.NoError(t, read(cursor, false))
			} else {
				requireRefused(t, earmark.CodeInvalidRequest, "cursor", read(cursor, false))
			}
			requireRefused(t, earmark.CodeInvalidRequest, "cursor", read(cursor, true))
		}
	}
}

// A soft budget becomes hard by its enforcement alone: the ceiling goes.
func TestPatchToHardTakesTheCeilingAway(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000, func(r *earmark.BudgetRequest) {
		r.Enforcement, r.SoftCeiling = earmark.EnforcementSoft, new(int64(1200))
	})
	patched, err := b.PatchBudget(ctx(), earmark.DefaultTenant, budget.ID, earmark.BudgetPatch{Enforcement: new(earmark.EnforcementHard)}, earmark.ActorAPI)
	require.NoError(t, err)
	require.Equal(t, earmark.EnforcementHard, patched.Enforcement)
	require.Nil(t, patched.SoftCeiling)
	ceiling := new(int64(1200))
	_, err = b.PatchBudget(ctx(), earmark.DefaultTenant, budget.ID, earmark.BudgetPatch{Enforcement: new(earmark.EnforcementHard), SoftCeiling: &ceiling}, earmark.ActorAPI)
	requireRefused(t, earmark.CodeInvalidRequest, "soft_ceiling", err)
}

// TestCursorsOfOtherListsAreRefused holds for what was made up, too.
func TestCursorsOfOtherListsAreRefused(t *testing.T) {
	b := setup(t)
	for i, cursor := range []string{"x", "!", "MjAyNA", "MjAyNC0wMS0wMVQwMDowMDowMFogAA", "MjAyNC0wMS0wMVQwMDowMDowMFog_w"} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			_, err := b.Budgets(ctx(), earmark.DefaultTenant, earmark.BudgetFilter{Cursor: cursor})
			requireRefused(t, earmark.CodeInvalidRequest, "cursor", err)
			_, err = b.Reservations(ctx(), earmark.DefaultTenant, earmark.ReservationFilter{Cursor: cursor})
			requireRefused(t, earmark.CodeInvalidRequest, "cursor", err)
			_, err = b.Entries(ctx(), earmark.DefaultTenant, earmark.EntryFilter{Cursor: cursor})
			requireRefused(t, earmark.CodeInvalidRequest, "cursor", err)
		})
	}
}
