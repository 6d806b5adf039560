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

func (b *env) budgetsOn(scope string) []earmark.Budget {
	b.t.Helper()
	page, err := b.Budgets(ctx(), earmark.DefaultTenant, earmark.BudgetFilter{Scope: scope})
	require.NoError(b.t, err)
	return page.Data
}

func (b *env) requireNoBudget(scope string) {
	b.t.Helper()
	require.Empty(b.t, b.budgetsOn(scope))
}

// only returns the one budget on a scope.
func (b *env) only(scope string) earmark.Budget {
	b.t.Helper()
	budgets := b.budgetsOn(scope)
	require.Len(b.t, budgets, 1)
	return budgets[0]
}

// A call that first meets a child of a template makes the child's budget. Decisions before it count that
// budget and write nothing.
func TestTemplateGivesEachChildABudget(t *testing.T) {
	b := setup(t)
	template := b.budget("app/users/*", "tokens", 100, overage(earmark.OverageReject), func(r *earmark.BudgetRequest) {
		r.Window = earmark.Window{Period: earmark.PeriodDay, Timezone: "Europe/Berlin"}
		r.Thresholds = []earmark.Threshold{{Percent: 80, Of: earmark.ThresholdOfUsed}}
	})
	require.True(t, template.Template)

	a := admission("too much", tokens(101), "app/users/ana/chat")
	a.Request.RequireBudget = false
	decided, err := b.Decide(ctx(), a.Tenant, a.Request)
	require.NoError(t, err)
	preflight, err := b.Preflight(ctx(), a)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeDenied, decided.Outcome)
	require.Equal(t, decided, preflight.Result)
	b.requireNoBudget("app/users/ana")
	promised := decided.Decision.Violations[0]
	require.Equal(t, [3]any{"app/users/ana", int64(100), int64(100)}, [3]any{promised.Scope, promised.Limit, promised.Available})

	a = admission("k", tokens(60), "app/users/ana/chat")
	preflight, err = b.Preflight(ctx(), a)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, preflight.Result.Outcome)
	b.requireNoBudget("app/users/ana")
	b.held(a)
	ana := b.only("app/users/ana")
	require.Equal(t, promised.BudgetID, ana.ID)
	require.True(t, earmark.IsBudgetID(ana.ID))
	b.requireBalance(ana.ID, 60, 0)
	want := *template
	want.ID, want.Scope, want.CreatedAt, want.Balance = ana.ID, ana.Scope, ana.CreatedAt, ana.Balance
	want.Template, want.TemplateID, want.FollowsTemplate = false, template.ID, true
	require.Equal(t, want, ana)
	require.Equal(t, []string{"budget.create"}, b.actions(ana.ID))
	record := b.auditLog(earmark.DefaultTenant, earmark.AuditFilter{Subject: ana.ID})[0]
	require.Equal(t, a.Actor(), record.Actor)
	require.Contains(t, record.Reason, template.ID)
	require.Equal(t, earmark.OutcomeDenied, b.reserve(admission("l", tokens(41), "app/users/ana")).Outcome)

	// Another child has its own, and usage without a reservation makes it too.
	usage := earmark.UsageRequest{Scopes: []string{"app/users/bob"}, Amounts: tokens(99)}
	result, err := b.Charge(ctx(), earmark.Charge{ID: earmark.ReservationID(earmark.DefaultTenant, "u"), Tenant: earmark.DefaultTenant, Request: usage, RequestHash: usage.Hash(), Actor: earmark.ActorAPI})
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, result.Outcome)
	b.requireBalance(b.only("app/users/bob").ID, 0, 99)

	// Scopes beside and above are not children, and the template itself holds nothing.
	require.Equal(t, earmark.OutcomeNoBudget, b.reserve(admission("m", tokens(1), "app/users")).Outcome)
	require.Equal(t, earmark.OutcomeNoBudget, b.reserve(admission("n", tokens(1), "app/usersx/ana")).Outcome)
	b.requireBalance(template.ID, 0, 0)
	windows, err := b.BudgetWindows(ctx(), earmark.DefaultTenant, template.ID, earmark.WindowFilter{})
	require.NoError(t, err)
	require.Empty(t, windows.Data)
	_, err = b.CreateOverride(ctx(), earmark.DefaultTenant, template.ID, "raise", earmark.OverrideRequest{Amount: 5, Reason: "more"}, earmark.ActorAPI)
	requireRefused(t, earmark.CodeInvalidRequest, "", err)

	children, err := b.Budgets(ctx(), earmark.DefaultTenant, earmark.BudgetFilter{TemplateID: template.ID})
	require.NoError(t, err)
	require.Len(t, children.Data, 2)
}

// A child's own budget wins over what a template would give it: one of the same unit and length of window.
func TestOwnBudgetWinsOverATemplate(t *testing.T) {
	b := setup(t)
	b.budget("*", "tokens", 100)
	own := b.budget("ana", "tokens", 1000)
	b.held(admission("k", tokens(500), "ana"))
	require.Equal(t, own.ID, b.only("ana").ID)
	daily := b.budget("*", "tokens", 50, func(r *earmark.BudgetRequest) { r.Window.Period = earmark.PeriodDay })
	denied := b.reserve(admission("l", tokens(51), "ana"))
	require.Equal(t, earmark.OutcomeDenied, denied.Outcome)
	require.Equal(t, int64(50), denied.Decision.Violations[0].Limit)
	require.Len(t, b.budgetsOn("ana"), 2)
	require.Equal(t, daily.ID, b.budgetsOn("ana")[0].TemplateID)
}

// What a template gives is a budget of the scope's own.
func TestTemplateMeetsARequiredBudget(t *testing.T) {
	b := setup(t)
	b.budget("app", "tokens", 1000)
	b.budget("app/users/*", "tokens", 100)
	for n, c := range []struct {
		scope   string
		amounts earmark.Amounts
		want    earmark.Result
	}{
		{"app/users/ana", tokens(1), earmark.Result{Outcome: earmark.OutcomeApplied}},
		{"app/users/ana/chat", tokens(1), earmark.Result{Outcome: earmark.OutcomeNoBudget, Subject: "app/users/ana/chat"}},
		{"app/users", tokens(1), earmark.Result{Outcome: earmark.OutcomeNoBudget, Subject: "app/users"}},
		{"app/users/bob", earmark.Amounts{"requests": 1}, earmark.Result{Outcome: earmark.OutcomeUnitNotBudgeted, Subject: "requests", Scope: "app/users/bob"}},
	} {
		a := admission(fmt.Sprint("k", n), c.amounts, c.scope)
		a.Request.RequireBudget = true
		decided, err := b.Decide(ctx(), a.Tenant, a.Request)
		require.NoError(t, err)
		preflight, err := b.Preflight(ctx(), a)
		require.NoError(t, err)
		for what, result := range map[string]earmark.Result{"decide": decided, "preflight": preflight.Result, "reserve": b.reserve(a)} {
			result.Decision, result.Reservation, result.RemainingMS = nil, nil, 0
			require.Equal(t, c.want, result, "%s %v", what, c)
		}
	}
	counted, err := b.CountedUnits(ctx(), earmark.DefaultTenant, "rsv_none", "", []string{"app/users/cy"})
	require.NoError(t, err)
	require.Equal(t, []string{"tokens"}, counted.Units)
}

func TestFirstCallsOfAChildMakeOneBudget(t *testing.T) {
	b := setup(t)
	b.budget("*", "tokens", 1000)
	first := admission("k", tokens(600), "ana")
	args := []any{first.ID, first.RequestHash, first.Request.Scopes, first.Request.Amounts}
	var result earmark.Result
	require.True(t, b.during(reserveUnderWay, args, func() { result = b.reserve(admission("l", tokens(600), "ana")) }))
	require.Equal(t, earmark.OutcomeDenied, result.Outcome)
	b.requireBalance(b.only("ana").ID, 600, 0)

	// Many at once, each of several children, in whatever order they name them.
	var calls []func() (earmark.Result, error)
	for n := range 30 {
		scopes := []string{"cy", "bob", "dan"}
		if n%2 == 0 {
			scopes = []string{"dan", "bob", "cy"}
		}
		calls = append(calls, func() (earmark.Result, error) {
			return b.Reserve(ctx(), admission(fmt.Sprint("many", n), tokens(1), scopes...))
		})
	}
	for _, result := range atOnce(t, calls...) {
		require.Equal(t, earmark.OutcomeApplied, result.Outcome)
	}
	for _, scope := range []string{"bob", "cy", "dan"} {
		b.requireBalance(b.only(scope).ID, 30, 0)
	}
}

// Whoever waits for a child that is being archived meets the one that the template makes in its place.
func TestChildIsMadeAgainWhileItIsArchived(t *testing.T) {
	b := setup(t)
	b.budget("ana", "requests", 1)
	b.budget("*", "tokens", 100)
	b.held(admission("k", tokens(100), "ana"))
	child := b.onlyOf("ana", "tokens")
	const archive = "SELECT earmark.archive_budget('default', $1, 'api')"
	var result earmark.Result
	require.True(t, b.during(archive, []any{child.ID}, func() { result = b.reserve(admission("l", tokens(101), "ana")) }))
	require.Equal(t, earmark.OutcomeDenied, result.Outcome, "without a budget it would be refused, and beside one of another scope be free")
	again := b.onlyOf("ana", "tokens")
	require.NotEqual(t, child.ID, again.ID)
	require.Equal(t, again.ID, result.Decision.Violations[0].BudgetID)
	archived, err := b.Budget(ctx(), earmark.DefaultTenant, child.ID)
	require.NoError(t, err)
	require.False(t, archived.FollowsTemplate)
	b.requireBalance(child.ID, 100, 0)
}

// Calls that meet a child while it is archived, and one that comes next, want the same budgets: the child's successor and another one. None
// locks the other one and then has to make the successor, for which the next call may be waiting for the other one.
func TestCallsOnAChildThatIsArchivedDoNotLockEachOtherOut(t *testing.T) {
	b := setup(t)
	b.budget("*", "tokens", 100)
	b.held(admission("k", tokens(1), "ana"))
	child := b.only("ana")
	var other earmark.Budget // locked after the child
	for n := 0; other.ID <= child.ID; n++ {
		other = *b.budget(fmt.Sprintf("other/%d/team", n), "tokens", 100)
	}
	archiving, lock := b.begin(), b.begin()
	_, err := archiving.Exec(ctx(), "SELECT earmark.archive_budget('default', $1, 'api')", child.ID)
	require.NoError(t, err)
	_, err = lock.Exec(ctx(), "SELECT FROM earmark.budgets WHERE id = $1 FOR UPDATE", other.ID)
	require.NoError(t, err)

	var calls errgroup.Group
	reserve := func(key string) { // past the coalescer, which would make one batch of both
		a := admission(key, tokens(1), "ana", other.Scope)
		calls.Go(func() error {
			var result []byte
			return b.pool.QueryRow(ctx(), reserveUnderWay, a.ID, a.RequestHash, a.Request.Scopes, a.Request.Amounts).Scan(&result)
		})
	}
	reserve("l")
	b.awaitWaiting(1)
	require.NoError(t, archiving.Commit(ctx()))
	b.awaitBlockedBy(lock, 1)
	reserve("m")
	b.awaitWaiting(2)
	require.NoError(t, lock.Rollback(ctx()))
	require.NoError(t, calls.Wait())
	b.requireBalance(b.only("ana").ID, 2, 0)
}

// awaitWaiting waits until so many sessions of the test's database wait for a lock.
func (b *env) awaitWaiting(sessions int) {
	b.t.Helper()
	b.await(sessions, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
}

// awaitBlockedBy waits until so many sessions wait for a lock of tx.
func (b *env) awaitBlockedBy(tx pgx.Tx, sessions int) {
	b.t.Helper()
	b.await(sessions, "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))", tx.Conn().PgConn().PID())
}

func (b *env) await(sessions int, count string, args ...any) {
	b.t.Helper()
	within, done := context.WithTimeout(ctx(), time.Minute)
	defer done()
	poll := time.NewTicker(pollPause)
	defer poll.Stop()
	for found := -1; found != sessions; <-poll.C {
		require.NoError(b.t, b.pool.QueryRow(within, count, args...).Scan(&found))
	}
}

func (b *env) onlyOf(scope, unit string) (found earmark.Budget) {
	b.t.Helper()
	for _, budget := range b.budgetsOn(scope) {
		if budget.Unit == unit {
			require.Empty(b.t, found.ID)
			found = budget
		}
	}
	require.NotEmpty(b.t, found.ID)
	return found
}

// A change of a template holds for every call that begins after it. Calls wait for none.
func TestTemplateChangesDoNotHoldAdmissionsUp(t *testing.T) {
	b := setup(t)
	template := b.budget("*", "tokens", 100)
	b.held(admission("k", tokens(1), "ana"))
	const change = "SELECT earmark.change_budget('default', $1, 5, 'hard', NULL, 'reject', 'api', 'less')"
	var first, known earmark.Result
	require.False(t, b.during(change, []any{template.ID}, func() {
		known = b.reserve(admission("l", tokens(10), "ana"))
		first = b.reserve(admission("m", tokens(10), "bob"))
	}))
	require.Equal(t, earmark.OutcomeApplied, known.Outcome)
	require.Equal(t, earmark.OutcomeApplied, first.Outcome)
	for n, scope := range []string{"ana", "bob", "cy"} {
		require.Equal(t, earmark.OutcomeDenied, b.reserve(admission(fmt.Sprint("n", n), tokens(10), scope)).Outcome, scope)
		require.Equal(t, int64(5), b.only(scope).Limit)
	}
	const archive = "SELECT earmark.archive_budget('default', $1, 'api')"
	require.False(t, b.during(archive, []any{template.ID}, func() { first = b.reserve(admission("o", tokens(5), "dan")) }))
	require.Equal(t, earmark.OutcomeApplied, first.Outcome)
	require.Equal(t, earmark.OutcomeNoBudget, b.reserve(admission("p", tokens(1), "eve")).Outcome)
	require.Equal(t, earmark.OutcomeDenied, b.reserve(admission("q", tokens(1), "dan")).Outcome, "children stay")
}

// Children follow their template until they are changed by hand, and again when they are told to.
func TestChildrenFollowTheirTemplate(t *testing.T) {
	b := setup(t)
	template := b.budget("*", "tokens", 100, overage(earmark.OverageAllowIfAvailable))
	held := b.held(admission("k", tokens(50), "ana"))
	ana, bob := b.only("ana"), b.held(admission("l", tokens(1), "bob"))
	_, err := b.patch(b.only("bob").ID, earmark.BudgetPatch{Limit: new(int64(70))})
	require.NoError(t, err)
	require.False(t, b.only("bob").FollowsTemplate)
	b.release(bob)

	_, err = b.patch(template.ID, earmark.BudgetPatch{Limit: new(int64(60)), Overage: new(earmark.OverageReject), Thresholds: &[]earmark.Threshold{{Amount: 40, Of: earmark.ThresholdOfUsed}}})
	require.NoError(t, err)
	require.Equal(t, int64(70), b.only("bob").Limit)
	shown := b.only("ana")
	require.Equal(t, [3]int64{60, 60, 10}, [3]int64{shown.Limit, shown.Balance.EffectiveLimit, shown.Balance.Available}, "before any call of its own")
	require.Len(t, shown.Thresholds, 1)
	require.Equal(t, earmark.OutcomeOverageRejected, b.commit(held, tokens(51)).Outcome, "the template's policy of now")
	decided, err := b.Decide(ctx(), earmark.DefaultTenant, admission("m", tokens(11), "ana").Request)
	require.NoError(t, err)
	require.Equal(t, int64(60), decided.Decision.Violations[0].Limit)
	require.Equal(t, []string{"budget.create"}, b.actions(ana.ID), "nothing has been written for it")
	_, next := b.events("")
	require.Equal(t, earmark.OutcomeDenied, b.reserve(admission("n", tokens(11), "ana")).Outcome)
	require.Equal(t, []string{"budget.create", "budget.change"}, b.actions(ana.ID))
	crossed, _ := b.crossings(next)
	require.Len(t, crossed, 1, "the change put the threshold below what is used")

	// A change by hand starts from the template's settings of now, and ends the following.
	_, err = b.patch(template.ID, earmark.BudgetPatch{Limit: new(int64(61))})
	require.NoError(t, err)
	patched, err := b.patch(ana.ID, earmark.BudgetPatch{Overage: new(earmark.OverageAllowIfAvailable)})
	require.NoError(t, err)
	require.Equal(t, int64(61), patched.Limit)
	require.Equal(t, [2]any{false, template.ID}, [2]any{patched.FollowsTemplate, patched.TemplateID})
	_, err = b.patch(template.ID, earmark.BudgetPatch{Limit: new(int64(62))})
	require.NoError(t, err)
	require.Equal(t, int64(61), b.only("ana").Limit)
	patched, err = b.patch(ana.ID, earmark.BudgetPatch{FollowsTemplate: new(true)})
	require.NoError(t, err)
	require.Equal(t, [3]any{true, int64(62), earmark.OverageReject}, [3]any{patched.FollowsTemplate, patched.Limit, patched.Overage})
	patched, err = b.patch(ana.ID, earmark.BudgetPatch{FollowsTemplate: new(false)})
	require.NoError(t, err)
	require.Equal(t, [2]any{false, int64(62)}, [2]any{patched.FollowsTemplate, patched.Limit})

	own := b.budget("zoe", "requests", 5)
	_, err = b.patch(own.ID, earmark.BudgetPatch{FollowsTemplate: new(true)})
	requireRefused(t, earmark.CodeInvalidRequest, "follows_template", err)
	for field, patch := range map[string]earmark.BudgetPatch{
		"effective":        {Limit: new(int64(1)), Effective: new(earmark.EffectiveNextWindow)},
		"follows_template": {FollowsTemplate: new(false)},
	} {
		_, err = b.patch(template.ID, patch)
		requireRefused(t, earmark.CodeInvalidRequest, field, err)
	}
	_, err = b.patch(own.ID, earmark.BudgetPatch{Limit: new(int64(1)), Effective: new(earmark.EffectiveNow)})
	requireRefused(t, earmark.CodeInvalidRequest, "effective", err)
}

// A change may wait for each child's next window.
func TestTemplateChangeForTheNextWindow(t *testing.T) {
	t.Parallel()
	pool := timedPool(t)
	l := postgres.New(pool)
	at := func(clock string) {
		moment, err := time.Parse(time.RFC3339, "2026-03-"+clock)
		require.NoError(t, err)
		setClock(t, pool, moment)
	}
	reserve := func(key string, amount int64, scope string) earmark.Result {
		result, err := l.Reserve(ctx(), admission(key, tokens(amount), scope))
		require.NoError(t, err)
		return result
	}
	limit := func(scope string) int64 {
		page, err := l.Budgets(ctx(), earmark.DefaultTenant, earmark.BudgetFilter{Scope: scope})
		require.NoError(t, err)
		require.Len(t, page.Data, 1)
		return page.Data[0].Limit
	}
	at("10T09:00:00Z")
	request := earmark.BudgetRequest{Scope: "*", Unit: "tokens", Limit: new(int64(100)), Window: earmark.Window{Period: earmark.PeriodDay}}.WithDefaults()
	template, err := l.CreateBudget(ctx(), earmark.DefaultTenant, request, earmark.ActorAPI)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, reserve("k", 60, "ana").Outcome)
	change := func(limit int64, effective earmark.Effective) {
		_, err := l.PatchBudget(ctx(), earmark.DefaultTenant, template.ID, earmark.BudgetPatch{Limit: &limit, Effective: &effective}, earmark.ActorAPI)
		require.NoError(t, err)
	}
	change(200, earmark.EffectiveNextWindow)
	require.Equal(t, int64(100), limit("ana"))
	denied := reserve("l", 150, "ana")
	require.Equal(t, earmark.OutcomeDenied, denied.Outcome)
	require.Equal(t, time.Date(2026, 3, 11, 0, 0, 0, 0, time.UTC), denied.Decision.RetryAt.UTC(), "it fits into the next window's limit")
	require.Equal(t, earmark.OutcomeApplied, reserve("m", 150, "bob").Outcome, "a child that is made afterwards has the new limit")
	at("10T23:59:59Z")
	require.Equal(t, int64(100), limit("ana"))
	at("11T00:00:00Z")
	require.Equal(t, int64(200), limit("ana"))
	require.Equal(t, earmark.OutcomeApplied, reserve("l", 150, "ana").Outcome)

	change(10, earmark.EffectiveNextWindow)
	change(300, earmark.EffectiveNow)
	require.Equal(t, int64(300), limit("ana"), "and no longer waits for the change before it")
	at("12T00:00:00Z")
	require.Equal(t, int64(300), limit("ana"))
	report, err := l.CheckRules(ctx())
	require.NoError(t, err)
	require.Empty(t, report.Mismatches())

	for _, window := range []earmark.Window{{Period: earmark.PeriodLifetime}, {Period: earmark.PeriodRolling, RollingSeconds: 3600}} {
		request.Window = window
		template, err = l.CreateBudget(ctx(), earmark.DefaultTenant, request.WithDefaults(), earmark.ActorAPI)
		require.NoError(t, err)
		_, err = l.PatchBudget(ctx(), earmark.DefaultTenant, template.ID, earmark.BudgetPatch{Limit: new(int64(1)), Effective: new(earmark.EffectiveNextWindow)}, earmark.ActorAPI)
		requireRefused(t, earmark.CodeInvalidRequest, "effective", err)
	}
}

func TestAuditFindsAChildThatDoesNotHaveItsTemplatesSettings(t *testing.T) {
	b := setup(t)
	b.budget("*", "tokens", 100)
	b.held(admission("k", tokens(1), "ana"))
	child := b.only("ana")
	mismatches := func(limit int64) []string {
		_, err := b.pool.Exec(ctx(), "UPDATE earmark.budgets SET limit_amount = $2 WHERE id = $1", child.ID, limit)
		require.NoError(t, err)
		report, err := b.CheckRules(ctx())
		require.NoError(t, err)
		return report.Mismatches()
	}
	require.Len(t, mismatches(101), 1)
	require.Empty(t, mismatches(100))
}
