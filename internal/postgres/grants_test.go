package postgres_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func (b *env) grant(budgetID, key string, r earmark.GrantRequest) *earmark.Grant {
	b.t.Helper()
	r.Reason = "a top-up"
	r = r.WithDefaults()
	require.NoError(b.t, r.Validate())
	grant, err := b.CreateGrant(ctx(), earmark.DefaultTenant, budgetID, key, r, earmark.ActorAPI)
	require.NoError(b.t, err)
	return grant
}

// granted returns, for each grant of a budget, what is reserved, committed and left: "10 20 70".
func (b *env) granted(budgetID string) map[string]string {
	b.t.Helper()
	page, err := b.Grants(ctx(), earmark.DefaultTenant, budgetID, earmark.PageFilter{})
	require.NoError(b.t, err)
	sums := map[string]string{}
	for _, g := range page.Data {
		sums[g.ID] = fmt.Sprint(g.Reserved, g.Committed, g.Remaining)
	}
	return sums
}

func (b *env) void(g *earmark.Grant) *earmark.Grant {
	b.t.Helper()
	voided, err := b.VoidGrant(ctx(), earmark.DefaultTenant, g.BudgetID, g.ID, earmark.ActorAPI, "paid back")
	require.NoError(b.t, err)
	return voided
}

// grantNotes returns what the journal says about grants of a budget.
func (b *env) grantNotes(budgetID string) (notes []string) {
	b.t.Helper()
	page, err := b.Entries(ctx(), earmark.DefaultTenant, earmark.EntryFilter{BudgetID: budgetID})
	require.NoError(b.t, err)
	for _, entry := range page.Data {
		if strings.Contains(entry.Reason, "grant ") {
			notes = append(notes, entry.Reason)
		}
	}
	return notes
}

func allowance(a earmark.Allowance) func(*earmark.BudgetRequest) {
	return func(r *earmark.BudgetRequest) { r.Allowance = a }
}

// monthly makes a budget of 100 a month at a moment in it.
func monthly(t *testing.T, change ...func(*earmark.BudgetRequest)) (b *env, budget *earmark.Budget, now time.Time) {
	t.Helper()
	b, pool := onClock(t)
	now = time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)
	setClock(t, pool, now)
	budget = b.budget("acme", "tokens", 100, append(change, period(earmark.PeriodMonth))...)
	t.Cleanup(func() {
		report, err := b.CheckRules(ctx())
		require.NoError(t, err)
		require.Empty(t, report.Mismatches())
	})
	return b, budget, now
}

func TestGrantsAreUsedInOrder(t *testing.T) {
	for place, want := range map[earmark.Allowance][5]string{
		// What each of the grants bears after 90, 130, 150, 170 and 200.
		earmark.AllowanceFirst: {"0 0 0 0", "0 0 0 30", "10 0 10 30", "30 0 10 30", "30 30 10 30"},
		earmark.AllowanceLast:  {"30 20 10 30", "30 30 10 30", "30 30 10 30", "30 30 10 30", "30 30 10 30"},
	} {
		t.Run(string(place), func(t *testing.T) {
			b, budget, now := monthly(t, allowance(place))
			grants := []*earmark.Grant{
				b.grant(budget.ID, "late", earmark.GrantRequest{Amount: 30, ExpiresAt: new(now.Add(48 * time.Hour))}),
				b.grant(budget.ID, "never", earmark.GrantRequest{Amount: 30}),
				b.grant(budget.ID, "soon", earmark.GrantRequest{Amount: 10, ExpiresAt: new(now.Add(24 * time.Hour))}),
				b.grant(budget.ID, "preferred", earmark.GrantRequest{Amount: 30, Priority: new(int64(1))}),
			}
			require.EqualValues(t, 200, b.balance(budget.ID).EffectiveLimit)
			for i, amount := range []int64{90, 40, 20, 20, 30} {
				b.held(admission(fmt.Sprint(place, i), tokens(amount), "acme"))
				var bears []string
				for _, g := range grants {
					reserved, _, _ := strings.Cut(b.granted(budget.ID)[g.ID], " ")
					bears = append(bears, reserved)
				}
				require.Equal(t, want[i], strings.Join(bears, " "), "%s, step %d", place, i)
			}
			require.Zero(t, b.balance(budget.ID).Available)
			require.Equal(t, &earmark.Granted{Reserved: 100}, b.balance(budget.ID).Granted)
			require.Equal(t, earmark.OutcomeDenied, b.reserve(admission("more", tokens(1), "acme")).Outcome)
		})
	}
}

func TestGrantCountsFromItsBeginningToItsEnd(t *testing.T) {
	b, budget, now := monthly(t)
	b.grant(budget.ID, "tomorrow", earmark.GrantRequest{Amount: 50, EffectiveAt: new(now.Add(24 * time.Hour)), ExpiresAt: new(now.Add(48 * time.Hour))})
	for _, step := range []struct {
		at    time.Duration
		limit int64
	}{{0, 100}, {24*time.Hour - time.Microsecond, 100}, {24 * time.Hour, 150}, {48*time.Hour - time.Microsecond, 150}, {48 * time.Hour, 100}} {
		setClock(t, b.pool, now.Add(step.at))
		require.Equal(t, step.limit, b.balance(budget.ID).EffectiveLimit, "%s", step.at)
		denied := b.reserve(admission("x", tokens(step.limit+1), "acme"))
		require.Equal(t, earmark.OutcomeDenied, denied.Outcome, "%s", step.at)
		require.Equal(t, step.limit, denied.Decision.Violations[0].Limit)
	}
	setClock(t, b.pool, now)
	for _, result := range b.decided(admission("asked", tokens(150), "acme")) {
		require.Equal(t, now.Add(24*time.Hour), result.Decision.RetryAt.UTC(), "a denial knows when a grant begins")
	}
}

// decided returns what a decision and an admission answer.
func (b *env) decided(a earmark.Admission) []earmark.Result {
	b.t.Helper()
	decision, err := b.Decide(ctx(), earmark.DefaultTenant, a.Request)
	require.NoError(b.t, err)
	return []earmark.Result{decision, b.reserve(a)}
}

// A grant is used up once, in whatever windows; the limit of each window is there again.
func TestGrantOutlivesAWindow(t *testing.T) {
	b, budget, now := monthly(t)
	g := b.grant(budget.ID, "top-up", earmark.GrantRequest{Amount: 50})
	b.commit(b.held(admission("a", tokens(120), "acme")), tokens(120))
	require.Equal(t, "0 20 30", b.granted(budget.ID)[g.ID])
	require.EqualValues(t, 30, b.balance(budget.ID).Available)
	setClock(t, b.pool, now.AddDate(0, 1, 0))
	require.EqualValues(t, 130, b.balance(budget.ID).Available)
	b.commit(b.held(admission("b", tokens(130), "acme")), tokens(130))
	require.Equal(t, "0 50 0", b.granted(budget.ID)[g.ID])
	windows, err := b.BudgetWindows(ctx(), earmark.DefaultTenant, budget.ID, earmark.WindowFilter{})
	require.NoError(t, err)
	require.Equal(t, &earmark.Granted{Committed: 30}, windows.Data[0].Granted)
	require.Equal(t, &earmark.Granted{Committed: 20}, windows.Data[1].Granted)
	require.EqualValues(t, 120, windows.Data[1].EffectiveLimit)
}

func TestGrantsGetBackWhatIsNotUsed(t *testing.T) {
	b, budget, _ := monthly(t)
	g := b.grant(budget.ID, "top-up", earmark.GrantRequest{Amount: 50})
	for name, settle := range map[string]func(earmark.Transition){
		"committed": func(s earmark.Transition) { b.commit(s, tokens(60)) },
		"released":  func(s earmark.Transition) { b.release(s) },
		"expired":   func(s earmark.Transition) { b.due(s.ID); b.expire(s) },
	} {
		s := b.held(admission(name, tokens(b.balance(budget.ID).Available), "acme"))
		require.Equal(t, "50 0 0", b.granted(budget.ID)[g.ID], name)
		settle(s)
		require.Equal(t, "0 0 50", b.granted(budget.ID)[g.ID], name)
		b.correctBack(s, name)
	}
}

// correctBack takes back what a reservation has charged, if it has.
func (b *env) correctBack(s earmark.Transition, key string) {
	b.t.Helper()
	r, err := b.Reservation(ctx(), earmark.DefaultTenant, s.ID)
	require.NoError(b.t, err)
	if r.State == earmark.StateCommitted {
		b.correct(earmark.Correction{ID: earmark.CorrectionID(s.ID, key), ReservationID: s.ID, Tenant: s.Tenant, Actor: s.Actor,
			Request: earmark.CorrectionRequest{Amounts: tokens(-r.Usage["tokens"]), Reason: "taken back"}})
	}
}

// Usage that comes after its lease and after the grant's end is charged to the grant that it was held against, as far as that has room.
func TestLateUsageIsChargedToWhatItWasHeldAgainst(t *testing.T) {
	b, budget, now := monthly(t, allowance(earmark.AllowanceLast))
	first := b.grant(budget.ID, "first", earmark.GrantRequest{Amount: 50, ExpiresAt: new(now.Add(time.Hour))})
	other := b.grant(budget.ID, "other", earmark.GrantRequest{Amount: 500})
	late := b.held(leased("late", tokens(50), time.Second, earmark.OnExpiryRelease, "acme"))
	setClock(t, b.pool, now.Add(2*time.Second))
	b.expire(late)
	b.held(admission("meanwhile", tokens(20), "acme"))
	require.Equal(t, "20 0 30", b.granted(budget.ID)[first.ID])
	setClock(t, b.pool, now.Add(2*time.Hour))
	b.commit(late, tokens(50))
	require.Equal(t, "20 30 0", b.granted(budget.ID)[first.ID], "it has ended, and bears what it has room for")
	require.Equal(t, "0 20 480", b.granted(budget.ID)[other.ID])
	b.requireBalance(budget.ID, 20, 50)
}

func TestUsageBeyondTheHoldTakesGrants(t *testing.T) {
	for policy, want := range map[earmark.OveragePolicy]struct{ committed, shortfall int64 }{
		earmark.OverageAllowWithOverdraft: {300, 0}, earmark.OverageAllowIfAvailable: {150, 150},
	} {
		t.Run(string(policy), func(t *testing.T) {
			b, budget, _ := monthly(t, overage(policy))
			s := b.held(admission("k", tokens(80), "acme"))
			g := b.grant(budget.ID, "meanwhile", earmark.GrantRequest{Amount: 50})
			result := b.commit(s, tokens(300))
			require.Equal(t, want.shortfall, result.Reservation.Shortfall["tokens"], policy)
			b.requireBalance(budget.ID, 0, want.committed)
			require.Equal(t, "0 50 0", b.granted(budget.ID)[g.ID], policy)
		})
	}
}

func TestCorrectionGivesBackInReverse(t *testing.T) {
	b, budget, _ := monthly(t)
	first := b.grant(budget.ID, "first", earmark.GrantRequest{Amount: 50, Priority: new(int64(1))})
	second := b.grant(budget.ID, "second", earmark.GrantRequest{Amount: 50})
	id := b.charged("k", tokens(190))
	correct := func(by int64) {
		b.correct(earmark.Correction{ID: earmark.CorrectionID(id, fmt.Sprint(by)), ReservationID: id, Tenant: earmark.DefaultTenant, Actor: earmark.ActorAPI,
			Request: earmark.CorrectionRequest{Amounts: tokens(by), Reason: "the invoice differs"}})
	}
	require.Equal(t, "0 40 10", b.granted(budget.ID)[second.ID])
	correct(-60)
	require.Equal(t, "0 0 50", b.granted(budget.ID)[second.ID])
	require.Equal(t, "0 30 20", b.granted(budget.ID)[first.ID])
	correct(25)
	require.Equal(t, "0 50 0", b.granted(budget.ID)[first.ID])
	require.Equal(t, "0 5 45", b.granted(budget.ID)[second.ID])
}

func TestGrantAppliesOnce(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 100)
	r := earmark.GrantRequest{Amount: 50, Reason: "a top-up"}.WithDefaults()
	calls := make([]func() (*earmark.Grant, error), 6)
	for i := range calls {
		calls[i] = func() (*earmark.Grant, error) {
			return b.CreateGrant(ctx(), earmark.DefaultTenant, budget.ID, "top-up", r, earmark.ActorAPI)
		}
	}
	made := 0
	for _, grant := range atOnce(t, calls...) {
		if !grant.Replayed {
			made++
		}
	}
	require.Equal(t, 1, made)
	require.EqualValues(t, 150, b.balance(budget.ID).EffectiveLimit)
	r.Amount = 51
	_, err := b.CreateGrant(ctx(), earmark.DefaultTenant, budget.ID, "top-up", r, earmark.ActorAPI)
	require.Equal(t, earmark.CodeIdempotencyMismatch, earmark.ErrorCode(err))
	require.Equal(t, []string{"budget.create", "grant.create"}, b.actions(budget.ID))
}

func TestVoidTakesAwayWhatIsLeft(t *testing.T) {
	b, budget, now := monthly(t, allowance(earmark.AllowanceLast))
	g := b.grant(budget.ID, "top-up", earmark.GrantRequest{Amount: 50})
	s := b.held(leased("k", tokens(20), time.Minute, earmark.OnExpiryRelease, "acme"))
	voided := b.void(g)
	require.EqualValues(t, 30, voided.Voided)
	require.NotNil(t, voided.VoidedAt)
	require.EqualValues(t, 100, b.balance(budget.ID).Available, "the grant bears its hold")
	require.Equal(t, voided, b.void(g), "once")
	require.Contains(t, b.grantNotes(budget.ID)[1], "30 unused: paid back")
	setClock(t, b.pool, now.Add(2*time.Minute))
	b.expire(s)
	require.EqualValues(t, 100, b.balance(budget.ID).Available, "what goes back to it is gone too")
	b.commit(s, tokens(60))
	require.Equal(t, "0 20 0", b.granted(budget.ID)[g.ID], "late usage has what it was held against, and no more of it")
	require.EqualValues(t, 60, b.balance(budget.ID).Available)
	none, err := b.VoidGrant(ctx(), earmark.DefaultTenant, budget.ID, earmark.GrantID(budget.ID, "none"), earmark.ActorAPI, "r")
	require.NoError(t, err)
	require.Nil(t, none)
}

func TestExpiredGrantLeavesAnEntryOnce(t *testing.T) {
	b, budget, now := monthly(t)
	b.grant(budget.ID, "unused", earmark.GrantRequest{Amount: 50, ExpiresAt: new(now.Add(time.Hour))})
	b.grant(budget.ID, "used", earmark.GrantRequest{Amount: 5, Priority: new(int64(1)), ExpiresAt: new(now.Add(time.Hour))})
	b.void(b.grant(budget.ID, "voided", earmark.GrantRequest{Amount: 5, ExpiresAt: new(now.Add(time.Hour))}))
	b.commit(b.held(admission("k", tokens(112), "acme")), tokens(112))
	noted := func(want int) {
		t.Helper()
		seen, err := b.NoteGrants(ctx(), 10)
		require.NoError(t, err)
		require.Equal(t, want, seen)
	}
	noted(2) // they will expire soon
	noted(0)
	setClock(t, b.pool, now.Add(time.Hour))
	noted(2)
	noted(0)
	notes := b.grantNotes(budget.ID)
	require.Len(t, notes, 5, "three grants, one void, and one that expired unused")
	require.Contains(t, notes[4], "expired, 43 unused")
}

// Seven days before the end of a grant, or when it is made if that is later, an event says what is left of it.
func TestGrantIsExpiringOnce(t *testing.T) {
	b, budget, now := monthly(t, allowance(earmark.AllowanceLast))
	week := 7 * 24 * time.Hour
	month := b.grant(budget.ID, "a month", earmark.GrantRequest{Amount: 50, ExpiresAt: new(now.Add(4 * week))})
	b.grant(budget.ID, "for good", earmark.GrantRequest{Amount: 50, Priority: new(int64(99))})
	used := b.grant(budget.ID, "used", earmark.GrantRequest{Amount: 5, Priority: new(int64(1)), ExpiresAt: new(now.Add(4 * week))})
	b.void(b.grant(budget.ID, "voided", earmark.GrantRequest{Amount: 5, ExpiresAt: new(now.Add(4 * week))}))
	b.commit(b.held(admission("k", tokens(12), "acme")), tokens(12))
	b.held(admission("l", tokens(3), "acme"))
	expiring := func() (ids []string) {
		t.Helper()
		_, err := b.NoteGrants(ctx(), 10)
		require.NoError(t, err)
		events, _ := b.events("", func(f *earmark.EventFilter) { f.Types = []earmark.EventType{earmark.EventGrantExpiring} })
		for _, e := range events {
			var data struct {
				GrantID string `json:"grant_id"`
			}
			require.NoError(t, json.Unmarshal(e.Data, &data))
			ids = append(ids, data.GrantID)
			require.Equal(t, budget.ID, e.BudgetID)
			require.Equal(t, []string{"acme"}, e.Scopes)
			require.Nil(t, e.WindowStart)
			if data.GrantID == month.ID {
				require.JSONEq(t, `{"unit": "tokens", "grant_id": "`+month.ID+`", "amount": 50, "reserved": 3, "remaining": 40, "expires_at": "2026-04-01T10:00:00+00:00"}`, string(e.Data))
			}
		}
		return ids
	}
	require.Empty(t, expiring())
	setClock(t, b.pool, now.Add(3*week-time.Second))
	require.Empty(t, expiring())
	setClock(t, b.pool, now.Add(3*week))
	require.Equal(t, []string{month.ID}, expiring(), "and not %s, of which nothing is left", used.ID)
	short := b.grant(budget.ID, "an hour", earmark.GrantRequest{Amount: 5, ExpiresAt: new(now.Add(3*week + time.Hour))})
	require.Equal(t, []string{month.ID, short.ID}, expiring())
	setClock(t, b.pool, now.Add(5*week))
	require.Len(t, expiring(), 2)
}

func TestGrantsThatAreRefused(t *testing.T) {
	b, budget, now := monthly(t)
	rolling := b.budget("rolling", "tokens", 100, period(earmark.PeriodRolling), func(r *earmark.BudgetRequest) { r.Window.RollingSeconds = 3600 })
	refused := func(budgetID string, r earmark.GrantRequest) *earmark.Error {
		t.Helper()
		r.Reason = "r"
		grant, err := b.CreateGrant(ctx(), earmark.DefaultTenant, budgetID, "k", r.WithDefaults(), earmark.ActorAPI)
		require.Nil(t, grant)
		var known *earmark.Error
		require.ErrorAs(t, err, &known)
		require.Equal(t, earmark.CodeInvalidRequest, known.Code)
		return known
	}
	require.Equal(t, "expires_at", refused(budget.ID, earmark.GrantRequest{Amount: 1, ExpiresAt: &now}).Field)
	require.Equal(t, "window", refused(rolling.ID, earmark.GrantRequest{Amount: 1}).Field)
	require.Equal(t, "scope", refused(b.budget("users/*", "tokens", 100).ID, earmark.GrantRequest{Amount: 1}).Field)
	_, err := b.patch(rolling.ID, earmark.BudgetPatch{Allowance: new(earmark.AllowanceLast)})
	var known *earmark.Error
	require.ErrorAs(t, err, &known)
	require.Equal(t, "allowance", known.Field)
	for i := range 100 {
		b.grant(budget.ID, fmt.Sprint("of many ", i), earmark.GrantRequest{Amount: 1})
	}
	require.Contains(t, refused(budget.ID, earmark.GrantRequest{Amount: 1}).Error(), "100 grants")
	_, err = b.ArchiveBudget(ctx(), earmark.DefaultTenant, budget.ID, earmark.ActorAPI)
	require.NoError(t, err)
	require.Contains(t, refused(budget.ID, earmark.GrantRequest{Amount: 1}).Error(), "archived")
}

// A grant that waits for the budget's lock begins when it has it.
func TestGrantIsMadeUnderItsLock(t *testing.T) {
	b, budget, now := monthly(t)
	after := now.Add(time.Minute)
	late := func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx(), "UPDATE test.clock SET at = $1", after)
		return err
	}
	var made *earmark.Grant
	require.True(t, b.duringTx("SELECT FROM earmark.budgets FOR UPDATE", nil, func() { made = b.grant(budget.ID, "k", earmark.GrantRequest{Amount: 1}) }, late))
	require.Equal(t, after, made.EffectiveAt.UTC())
	setClock(t, b.pool, now)
	var err error
	require.True(t, b.duringTx("SELECT FROM earmark.budgets FOR UPDATE", nil, func() {
		r := earmark.GrantRequest{Amount: 1, ExpiresAt: &after, Reason: "r"}.WithDefaults()
		_, err = b.CreateGrant(ctx(), earmark.DefaultTenant, budget.ID, "past", r, earmark.ActorAPI)
	}, late))
	require.Equal(t, earmark.CodeInvalidRequest, earmark.ErrorCode(err))
}

const (
	grantUnderWay = "SELECT earmark.create_grant($2, 'default', $1, '', 50, 50, NULL, NULL, 'api', 'a top-up')"
	voidUnderWay  = "SELECT earmark.void_grant('default', $1, $2, 'api', 'paid back')"
)

func TestGrantsAndAdmissionsTakeTurns(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 100)
	id := earmark.GrantID(budget.ID, "k")
	var result earmark.Result
	reserve := func(key string, amount int64) func() {
		return func() { result = b.reserve(admission(key, tokens(amount), "acme")) }
	}
	b.held(admission("allowance", tokens(100), "acme"))
	require.True(t, b.during(grantUnderWay, []any{budget.ID, id}, reserve("a", 20)))
	require.Equal(t, earmark.OutcomeApplied, result.Outcome)
	require.True(t, b.during(voidUnderWay, []any{budget.ID, id}, reserve("b", 20)))
	require.Equal(t, earmark.OutcomeDenied, result.Outcome)

	// The other way round: a void sees what an admission under way takes.
	g := b.grant(budget.ID, "another", earmark.GrantRequest{Amount: 50})
	a := admission("c", tokens(20), "acme")
	var voided *earmark.Grant
	require.True(t, b.during(reserveUnderWay, []any{a.ID, a.RequestHash, a.Request.Scopes, a.Request.Amounts}, func() { voided = b.void(g) }))
	require.EqualValues(t, 30, voided.Voided)
	require.EqualValues(t, 20, voided.Reserved)

	// Also one that has locked the budget, and comes to its grants only then.
	g = b.grant(budget.ID, "a third", earmark.GrantRequest{Amount: 50})
	a = admission("d", tokens(20), "acme")
	require.True(t, b.duringTx("SELECT FROM earmark.budgets WHERE id = $1 FOR NO KEY UPDATE", []any{budget.ID}, func() { voided = b.void(g) }, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx(), reserveUnderWay, a.ID, a.RequestHash, a.Request.Scopes, a.Request.Amounts)
		return err
	}))
	require.EqualValues(t, 30, voided.Voided)
	require.EqualValues(t, 20, voided.Reserved)
}

// Settlements in an earlier window charge the same grants as admissions in the current one, so they lock the budget.
func TestSettlementsLockTheBudgetsOfGrants(t *testing.T) {
	b, budget, now := monthly(t)
	g := b.grant(budget.ID, "top-up", earmark.GrantRequest{Amount: 50})
	late := b.held(leased("late", tokens(100), time.Second, earmark.OnExpiryRelease, "acme"))
	setClock(t, b.pool, now.Add(2*time.Second))
	b.expire(late)
	setClock(t, b.pool, now.AddDate(0, 1, 0))
	b.held(admission("allowance", tokens(100), "acme"))
	var result earmark.Result
	require.True(t, b.during(commitUnderWay, []any{late.ID, tokens(140)}, func() { result = b.reserve(admission("k", tokens(20), "acme")) }))
	require.Equal(t, earmark.OutcomeDenied, result.Outcome)
	require.EqualValues(t, 10, result.Decision.Violations[0].Available)
	require.Equal(t, "0 40 10", b.granted(budget.ID)[g.ID])

	// And a settlement waits for an admission under way.
	a := admission("l", tokens(10), "acme")
	require.True(t, b.during(reserveUnderWay, []any{a.ID, a.RequestHash, a.Request.Scopes, a.Request.Amounts}, func() {
		b.correct(earmark.Correction{ID: earmark.CorrectionID(late.ID, "more"), ReservationID: late.ID, Tenant: late.Tenant, Actor: late.Actor,
			Request: earmark.CorrectionRequest{Amounts: tokens(5), Reason: "more"}})
	}))
	require.Equal(t, "10 40 0", b.granted(budget.ID)[g.ID])
}

// An admission that expires what is in its way waits for nobody, also where that is held against grants of other budgets.
func TestBlockingHoldsOnGrantsAreLeftToOthers(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 100)
	other := b.budget("other", "tokens", 0)
	g := b.grant(other.ID, "top-up", earmark.GrantRequest{Amount: 100})
	b.due(b.held(admission("m", tokens(60), "acme", "other")).ID)
	const patch = "UPDATE earmark.budgets SET overage = 'reject' WHERE id = $1"
	var result earmark.Result
	require.False(t, b.during(patch, []any{other.ID}, func() { result = b.reserve(admission("o", tokens(60), "acme")) }))
	require.Equal(t, earmark.OutcomeDenied, result.Outcome)
	require.Equal(t, earmark.OutcomeApplied, b.reserve(admission("o", tokens(60), "acme")).Outcome)
	require.Equal(t, "0 0 100", b.granted(other.ID)[g.ID])
}

// A hold of an earlier window has a grant; a denial says when its lease ends.
func TestDenialKnowsHoldsOnGrants(t *testing.T) {
	b, budget, _ := monthly(t)
	b.grant(budget.ID, "top-up", earmark.GrantRequest{Amount: 50})
	end := time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	setClock(t, b.pool, end.Add(-time.Hour))
	b.held(leased("old", tokens(150), 24*time.Hour, earmark.OnExpiryRelease, "acme"))
	setClock(t, b.pool, end.Add(time.Hour))
	for _, result := range b.decided(admission("k", tokens(150), "acme")) {
		require.Equal(t, earmark.OutcomeDenied, result.Outcome)
		require.Equal(t, end.Add(23*time.Hour), result.Decision.RetryAt.UTC())
	}
}

func TestPruneKeepsWhatGrantsBear(t *testing.T) {
	b, budget, now := monthly(t)
	g := b.grant(budget.ID, "top-up", earmark.GrantRequest{Amount: 50})
	for i, amount := range []int64{100, 20, 10} {
		s := b.held(admission(fmt.Sprint(i), tokens(amount), "acme"))
		setClock(t, b.pool, now.AddDate(0, 0, i))
		b.commit(s, tokens(amount))
	}
	_, err := b.pool.Exec(ctx(), "UPDATE earmark.reservations SET refresh_due = false")
	require.NoError(t, err)
	for _, days := range []int{61, 62, 63} {
		setClock(t, b.pool, now.AddDate(0, 0, days))
		_, err = b.owner.RollUpUsage(ctx())
		require.NoError(t, err)
		require.EqualValues(t, 1, b.prune(60*24*time.Hour+time.Hour).Reservations)
	}
	require.Equal(t, "0 30 20", b.granted(budget.ID)[g.ID])
	var rows int
	require.NoError(t, b.pool.QueryRow(ctx(), "SELECT count(*) FROM earmark.reservation_grants").Scan(&rows))
	require.Equal(t, 1, rows, "one for all that were pruned")
}

// A reset gives the limit of the window again, not what grants bear.
func TestResetLeavesGrantsAlone(t *testing.T) {
	b, budget, _ := monthly(t)
	b.grant(budget.ID, "top-up", earmark.GrantRequest{Amount: 50})
	b.commit(b.held(admission("k", tokens(120), "acme")), tokens(120))
	reset, err := b.ResetBudget(ctx(), earmark.DefaultTenant, budget.ID, "k", earmark.ReasonRequest{Reason: "an outage"}, earmark.ActorAPI)
	require.NoError(t, err)
	require.EqualValues(t, 100, reset.Amount)
	require.EqualValues(t, 130, b.balance(budget.ID).Available)
}

// The place of the allowance is one of a template's settings. A grant is one child's alone.
func TestChildOfATemplateHasItsAllowanceAndItsOwnGrants(t *testing.T) {
	b := setup(t)
	template := b.budget("users/*", "tokens", 100, allowance(earmark.AllowanceLast))
	b.held(admission("ana 1", tokens(10), "users/ana"))
	b.held(admission("ben 1", tokens(10), "users/ben"))
	ana := b.only("users/ana")
	require.Equal(t, earmark.AllowanceLast, ana.Allowance)
	g := b.grant(ana.ID, "g", earmark.GrantRequest{Amount: 50})

	b.held(admission("ana 2", tokens(20), "users/ana/chat"))
	require.Equal(t, map[string]string{g.ID: "20 0 30"}, b.granted(ana.ID))
	require.True(t, b.only("users/ana").FollowsTemplate)

	_, err := b.patch(template.ID, earmark.BudgetPatch{Allowance: new(earmark.AllowanceFirst), Limit: new(int64(40))})
	require.NoError(t, err)
	require.Equal(t, earmark.AllowanceFirst, b.only("users/ana").Allowance)
	last := b.held(admission("ana 3", tokens(35), "users/ana")) // 30 of the limit, and 5 of the grant
	require.Equal(t, map[string]string{g.ID: "25 0 25"}, b.granted(ana.ID))

	// A settlement goes by what the template says now, also before the child has taken it over.
	_, err = b.patch(template.ID, earmark.BudgetPatch{Allowance: new(earmark.AllowanceLast)})
	require.NoError(t, err)
	b.commit(last, tokens(10))
	require.Equal(t, map[string]string{g.ID: "20 5 25"}, b.granted(ana.ID))
	require.Equal(t, earmark.OutcomeDenied, b.reserve(admission("ben 2", tokens(31), "users/ben")).Outcome)
}
