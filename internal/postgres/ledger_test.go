package postgres_test

import (
	"context"
	"math"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/devstack/devstacktest"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/postgres/postgrestest"
)

var stack = devstacktest.New(devstacktest.Postgres)

func TestMain(m *testing.M) { os.Exit(stack.Main(m).Run()) }

// env is one test's ledger in a database of its own, with the calls that most
// tests make. When the test ends, the ledger's rules are checked.
type env struct {
	*postgres.Ledger                  // with the rights of `earmark serve`
	owner            *postgres.Ledger // with those of `earmark migrate`, `tenant`, `key` and `prune`
	t                *testing.T
	pool             *pgxpool.Pool // the owner's
}

func setup(t *testing.T) *env {
	t.Helper()
	t.Parallel()
	pool := postgrestest.Pool(t, stack.PostgresURL())
	b := &env{Ledger: postgres.New(asApp(t, pool)), owner: postgres.New(pool), t: t, pool: pool}
	t.Cleanup(func() {
		report, err := b.CheckRules(context.Background())
		require.NoError(t, err)
		require.Empty(t, report.Mismatches())
	})
	return b
}

func ctx() context.Context { return context.Background() }

func (b *env) budget(scope, unit string, limit int64, change ...func(*earmark.BudgetRequest)) *earmark.Budget {
	b.t.Helper()
	request := earmark.BudgetRequest{Scope: scope, Unit: unit, Limit: &limit}
	for _, f := range change {
		f(&request)
	}
	request = request.WithDefaults()
	require.NoError(b.t, request.Validate())
	budget, err := b.CreateBudget(ctx(), earmark.DefaultTenant, request, earmark.ActorAPI)
	require.NoError(b.t, err)
	return budget
}

func admission(key string, amounts earmark.Amounts, scopes ...string) earmark.Admission {
	request := earmark.ReservationRequest{Scopes: scopes, Amounts: amounts}.WithDefaults()
	id := earmark.ReservationID(earmark.DefaultTenant, key)
	return earmark.Admission{ID: id, Tenant: earmark.DefaultTenant, Request: request, RequestHash: request.Hash(), WorkflowID: "reservation-" + id}
}

// atOnce makes all calls at once and returns their results in the order of the calls.
func atOnce[T any](t *testing.T, calls ...func() (T, error)) []T {
	t.Helper()
	results := make([]T, len(calls))
	var group errgroup.Group
	for i, call := range calls {
		group.Go(func() (err error) { results[i], err = call(); return err })
	}
	require.NoError(t, group.Wait())
	return results
}

func tokens(n int64) earmark.Amounts { return earmark.Amounts{"tokens": n} }

func (b *env) reserve(a earmark.Admission) earmark.Result {
	b.t.Helper()
	result, err := b.Reserve(ctx(), a)
	require.NoError(b.t, err)
	return result
}

// held reserves, expects a yes, and returns the name to settle it by.
func (b *env) held(a earmark.Admission) earmark.Transition {
	b.t.Helper()
	require.Equal(b.t, earmark.OutcomeApplied, b.reserve(a).Outcome)
	return earmark.Transition{ID: a.ID, Tenant: a.Tenant, Actor: earmark.ActorWorkflow}
}

func (b *env) commit(s earmark.Transition, usage earmark.Amounts) earmark.Result {
	b.t.Helper()
	result, err := b.Commit(ctx(), s, usage)
	require.NoError(b.t, err)
	return result
}

func (b *env) release(s earmark.Transition) earmark.Result {
	b.t.Helper()
	result, err := b.Release(ctx(), s)
	require.NoError(b.t, err)
	return result
}

// due moves a reservation's expiry into the past.
func (b *env) due(id string) {
	b.t.Helper()
	_, err := b.pool.Exec(ctx(), "UPDATE earmark.reservations SET expires_at = clock_timestamp() - interval '1 minute' WHERE id = $1", id)
	require.NoError(b.t, err)
}

func (b *env) expire(s earmark.Transition) earmark.Result {
	b.t.Helper()
	result, err := b.Expire(ctx(), s)
	require.NoError(b.t, err)
	return result
}

func (b *env) requireBalance(budgetID string, reserved, committed int64) {
	b.t.Helper()
	budget, err := b.Budget(ctx(), earmark.DefaultTenant, budgetID)
	require.NoError(b.t, err)
	require.Equal(b.t, [2]int64{reserved, committed}, [2]int64{budget.Balance.Reserved, budget.Balance.Committed}, "reserved, committed of %s", budget.Scope)
}

func (b *env) entryKinds(reservationID string) []string {
	b.t.Helper()
	page, err := b.Entries(ctx(), earmark.DefaultTenant, earmark.EntryFilter{ReservationID: reservationID})
	require.NoError(b.t, err)
	var kinds []string
	for _, entry := range page.Data {
		kinds = append(kinds, entry.Kind)
	}
	return kinds
}

func TestReserveCommitGivesTheRestBack(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	s := b.held(admission("k", tokens(600), "acme/ml/u1"))
	b.requireBalance(budget.ID, 600, 0)

	result := b.commit(s, tokens(450))
	require.Equal(t, earmark.OutcomeApplied, result.Outcome)
	require.Equal(t, earmark.StateCommitted, result.Reservation.State)
	require.Equal(t, tokens(450), result.Reservation.Usage)
	require.Nil(t, result.Reservation.Overage)
	require.False(t, result.Reservation.Late)
	require.NotNil(t, result.Reservation.SettledAt)
	require.Equal(t, int64(450), result.Reservation.Budgets[0].Committed)
	b.requireBalance(budget.ID, 0, 450)

	require.Equal(t, earmark.OutcomeSame, b.commit(s, tokens(450)).Outcome)
	require.Equal(t, earmark.OutcomeConflict, b.commit(s, tokens(451)).Outcome)
	require.Equal(t, earmark.OutcomeConflict, b.release(s).Outcome)
	b.requireBalance(budget.ID, 0, 450)
	require.Equal(t, []string{"reserve", "commit"}, b.entryKinds(s.ID))
}

func TestExactLimitFits(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	b.held(admission("a", tokens(400), "acme"))
	b.held(admission("b", tokens(600), "acme"))
	denied := b.reserve(admission("c", tokens(1), "acme"))
	require.Equal(t, earmark.OutcomeDenied, denied.Outcome)
	require.Equal(t, []earmark.Violation{{BudgetID: budget.ID, Scope: "acme", Unit: "tokens", Limit: 1000, Reserved: 1000, Requested: 1}}, denied.Decision.Violations)
	require.True(t, denied.Decision.Retryable)
	none, err := b.Reservation(ctx(), earmark.DefaultTenant, earmark.ReservationID(earmark.DefaultTenant, "c"))
	require.NoError(t, err)
	require.Nil(t, none, "a denial leaves nothing behind")
}

func TestBurstAdmitsExactlyWhatFits(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 500)
	var holds []func() (earmark.Result, error)
	for i := range 20 {
		holds = append(holds, func() (earmark.Result, error) {
			return b.Reserve(ctx(), admission(string(rune('a'+i)), tokens(75), "acme"))
		})
	}
	admitted := 0
	for _, result := range atOnce(t, holds...) {
		if result.Outcome == earmark.OutcomeApplied {
			admitted++
		} else {
			require.Equal(t, earmark.OutcomeDenied, result.Outcome)
		}
	}
	require.Equal(t, 6, admitted)
	b.requireBalance(budget.ID, 450, 0)
}

func TestSameKeyHoldsOnce(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	const attempts = 8
	reserve := func() (earmark.Result, error) { return b.Reserve(ctx(), admission("one", tokens(600), "acme")) }
	count := map[earmark.Outcome]int{}
	for _, result := range atOnce(t, slices.Repeat([]func() (earmark.Result, error){reserve}, attempts)...) {
		count[result.Outcome]++
	}
	require.Equal(t, map[earmark.Outcome]int{earmark.OutcomeApplied: 1, earmark.OutcomeSame: attempts - 1}, count)
	b.requireBalance(budget.ID, 600, 0)
}

// A repeated call has locked budgets when it meets its row. It must not wait then for a transaction that changes the row: that one may want
// the budgets.
func TestSameKeyWaitsForNobody(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	b.budget("other", "tokens", 1000)
	b.held(admission("k", tokens(600), "acme"))
	tx, err := b.pool.Begin(ctx())
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(ctx())) }()
	_, err = tx.Exec(ctx(), "UPDATE earmark.reservations SET checked_at = clock_timestamp()")
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeSame, b.reserve(admission("k", tokens(600), "acme")).Outcome)
	require.Equal(t, earmark.OutcomeMismatch, b.reserve(admission("k", tokens(600), "other")).Outcome)
}

func TestSameKeyWithAnotherBodyIsAMismatch(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	b.budget("other", "tokens", 1000)
	b.held(admission("k", tokens(600), "acme"))
	require.Equal(t, earmark.OutcomeMismatch, b.reserve(admission("k", tokens(601), "acme")).Outcome)
	require.Equal(t, earmark.OutcomeMismatch, b.reserve(admission("k", tokens(600), "other")).Outcome)

	usage := earmark.UsageRequest{Scopes: []string{"acme"}, Amounts: tokens(600)}
	charge := earmark.Charge{ID: earmark.ReservationID(earmark.DefaultTenant, "k"), Tenant: earmark.DefaultTenant, Request: usage, RequestHash: usage.Hash(), Actor: earmark.ActorAPI}
	result, err := b.Charge(ctx(), charge)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeMismatch, result.Outcome)
}

func TestSeveralBudgetsChangeTogetherOrNotAtAll(t *testing.T) {
	b := setup(t)
	org := b.budget("acme", "tokens", 1000)
	team := b.budget("acme/ml", "tokens", 500)
	money := b.budget("acme", "usd_micros", 10)
	both := earmark.Amounts{"tokens": 400, "usd_micros": 8}
	s := b.held(admission("a", both, "acme/ml/u1", "acme/ml/u2")) // met twice, counted once
	b.requireBalance(org.ID, 400, 0)
	b.requireBalance(team.ID, 400, 0)
	b.requireBalance(money.ID, 8, 0)

	denied := b.reserve(admission("b", both, "acme/ml"))
	require.Equal(t, earmark.OutcomeDenied, denied.Outcome)
	require.Len(t, denied.Decision.Violations, 2, "every budget that is in the way is named")
	b.requireBalance(org.ID, 400, 0)

	require.Equal(t, earmark.OutcomeUnitsMismatch, b.commit(s, tokens(1)).Outcome)
	require.Equal(t, "usd_micros", b.commit(s, tokens(1)).Subject)
	require.Equal(t, "requests", b.commit(s, earmark.Amounts{"tokens": 1, "usd_micros": 1, "requests": 1}).Subject)
	require.Equal(t, earmark.OutcomeApplied, b.commit(s, earmark.Amounts{"tokens": 0, "usd_micros": 8}).Outcome)
	b.requireBalance(org.ID, 0, 0)
	b.requireBalance(money.ID, 0, 8)
}

func TestScopesMatchByWholeSegments(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	result := b.reserve(admission("a", tokens(1), "acme/ml", "acmecorp"))
	require.Equal(t, earmark.OutcomeNoBudget, result.Outcome)
	require.Equal(t, "acmecorp", result.Subject)
	result = b.reserve(admission("b", earmark.Amounts{"tokens": 1, "requests": 1}, "acme"))
	require.Equal(t, earmark.OutcomeUnitNotBudgeted, result.Outcome)
	require.Equal(t, "requests", result.Subject)
}

func TestReleaseIsFinalForItsCaller(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	s := b.held(admission("k", tokens(600), "acme"))
	require.Equal(t, earmark.OutcomeApplied, b.release(s).Outcome)
	require.Equal(t, earmark.OutcomeSame, b.release(s).Outcome)
	for range 2 {
		result := b.commit(s, tokens(5))
		require.Equal(t, earmark.OutcomeConflict, result.Outcome)
		require.Equal(t, earmark.StateReleased, result.Reservation.State)
	}
	require.Equal(t, []string{"reserve", "release", "refuse"}, b.entryKinds(s.ID), "the refused usage is in the journal, once")
	b.requireBalance(budget.ID, 0, 0)
}

func TestGivenBackByAnOperatorStillChargesLateUsage(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	s := b.held(admission("k", tokens(600), "acme"))
	s.Actor, s.Reason = earmark.OperatorActor("alice"), "stuck"
	result, err := b.GiveBack(ctx(), s)
	require.NoError(t, err)
	require.Equal(t, earmark.StateExpired, result.Reservation.State)
	require.Equal(t, "stuck", result.Reservation.Reason)
	b.held(admission("other", tokens(1000), "acme"))

	late := b.commit(s, tokens(700))
	require.Equal(t, earmark.OutcomeApplied, late.Outcome)
	require.True(t, late.Reservation.Late)
	require.Equal(t, tokens(100), late.Reservation.Overage)
	b.requireBalance(budget.ID, 1000, 700) // past the limit: the money is gone
}

func TestLateUsageIsChargedWhateverTheOveragePolicies(t *testing.T) {
	t.Parallel()
	for _, policy := range []earmark.OveragePolicy{earmark.OverageAllowIfAvailable, earmark.OverageReject} {
		t.Run(string(policy), func(t *testing.T) {
			b := setup(t)
			budget := b.budget("acme", "tokens", 1000, overage(policy))
			s := b.held(admission("k", tokens(600), "acme"))
			b.due(s.ID)
			b.expire(s)

			late := b.commit(s, tokens(1500))
			require.Equal(t, earmark.OutcomeApplied, late.Outcome)
			require.Equal(t, tokens(900), late.Reservation.Overage)
			require.Nil(t, late.Reservation.Shortfall)
			b.requireBalance(budget.ID, 0, 1500)
		})
	}
}

func TestExpiryPolicies(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		policy              earmark.OnExpiry
		state               earmark.State
		reserved, committed int64
	}{
		{earmark.OnExpiryRelease, earmark.StateExpired, 0, 0},
		{earmark.OnExpiryCommit, earmark.StateCommitted, 0, 600},
		{earmark.OnExpiryReview, earmark.StateReview, 600, 0},
	} {
		t.Run(string(test.policy), func(t *testing.T) {
			b := setup(t)
			budget := b.budget("acme", "tokens", 1000)
			a := admission("k", tokens(600), "acme")
			a.Request.OnExpiry = test.policy
			s := b.held(a)

			early := b.expire(s)
			require.Equal(t, earmark.OutcomeNotDue, early.Outcome)
			require.InDelta(t, earmark.DefaultTTL.Milliseconds(), early.RemainingMS, 60_000)

			b.due(s.ID)
			result := b.expire(s)
			require.Equal(t, earmark.OutcomeApplied, result.Outcome)
			require.Equal(t, test.state, result.Reservation.State)
			require.Equal(t, test.policy == earmark.OnExpiryCommit, result.Reservation.Estimated)
			b.requireBalance(budget.ID, test.reserved, test.committed)
			require.Equal(t, earmark.OutcomeSame, b.expire(s).Outcome)

			late := b.commit(s, tokens(200))
			require.Equal(t, earmark.OutcomeApplied, late.Outcome)
			require.True(t, late.Reservation.Late)
			require.False(t, late.Reservation.Estimated)
			b.requireBalance(budget.ID, 0, 200)
			require.Equal(t, earmark.OutcomeSame, b.commit(s, tokens(200)).Outcome)
			require.Equal(t, earmark.OutcomeConflict, b.commit(s, tokens(600)).Outcome)
		})
	}
}

func TestReviewIsReleasedByItsCaller(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	a := admission("k", tokens(600), "acme")
	a.Request.OnExpiry = earmark.OnExpiryReview
	s := b.held(a)
	b.due(s.ID)
	b.expire(s)
	result := b.release(s)
	require.Equal(t, earmark.StateReleased, result.Reservation.State)
	b.requireBalance(budget.ID, 0, 0)
}

func TestCommitAndExtendWorkPastTheExpiryWhileHeld(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	s := b.held(admission("k", tokens(600), "acme"))
	b.due(s.ID)
	extended, err := b.Extend(ctx(), s, time.Hour)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, extended.Outcome)
	require.InDelta(t, time.Hour.Milliseconds(), extended.RemainingMS, 60_000)
	require.Equal(t, earmark.OutcomeNotDue, b.expire(s).Outcome)
	shorter, err := b.Extend(ctx(), s, time.Minute)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeSame, shorter.Outcome, "an extension never shortens")
	longest, err := b.Extend(ctx(), s, earmark.MaxTTL)
	require.NoError(t, err)
	require.Equal(t, longest.Reservation.CreatedAt.Add(earmark.MaxTTL), *longest.Reservation.ExpiresAt)

	b.due(s.ID)
	result := b.commit(s, tokens(1))
	require.Equal(t, earmark.OutcomeApplied, result.Outcome)
	require.False(t, result.Reservation.Late)
	settled, err := b.Extend(ctx(), s, time.Hour)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeConflict, settled.Outcome)
}

func overage(policy earmark.OveragePolicy) func(*earmark.BudgetRequest) {
	return func(r *earmark.BudgetRequest) { r.Overage = policy }
}

func TestOverageIsChargedByDefault(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	s := b.held(admission("k", tokens(600), "acme"))
	result := b.commit(s, tokens(1500))
	require.Equal(t, tokens(900), result.Reservation.Overage)
	require.Nil(t, result.Reservation.Shortfall)
	b.requireBalance(budget.ID, 0, 1500)
}

func TestOverageIfAvailableChargesWhatFits(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000, overage(earmark.OverageAllowIfAvailable))
	wide := b.budget("acme", "tokens", 5000, func(r *earmark.BudgetRequest) { r.Window.Period = earmark.PeriodDay })
	b.held(admission("other", tokens(100), "acme"))
	s := b.held(admission("k", tokens(600), "acme"))
	result := b.commit(s, tokens(1500))
	require.Equal(t, earmark.OutcomeApplied, result.Outcome)
	require.Equal(t, tokens(1500), result.Reservation.Usage)
	require.Equal(t, tokens(900), result.Reservation.Overage)
	require.Equal(t, tokens(600), result.Reservation.Shortfall)
	b.requireBalance(budget.ID, 100, 900)
	b.requireBalance(wide.ID, 100, 1500)
}

func TestOverageRejectedWaitsForReview(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000, overage(earmark.OverageReject))
	b.budget("acme/ml", "tokens", 1000)
	s := b.held(admission("k", tokens(600), "acme/ml"))
	for range 2 {
		result := b.commit(s, tokens(700))
		require.Equal(t, earmark.OutcomeOverageRejected, result.Outcome)
		require.Equal(t, earmark.StateHeld, result.Reservation.State)
		require.Equal(t, tokens(700), result.Reservation.RejectedUsage)
		require.Equal(t, earmark.OnExpiryReview, result.Reservation.OnExpiry)
	}
	b.requireBalance(budget.ID, 600, 0)
	b.due(s.ID)
	require.Equal(t, earmark.StateReview, b.expire(s).Reservation.State)
	require.Equal(t, earmark.OutcomeApplied, b.commit(s, tokens(700)).Outcome, "late usage is charged in full")
	b.requireBalance(budget.ID, 0, 700)
	require.Equal(t, []string{"reserve", "reserve", "reject", "review", "commit", "commit"}, b.entryKinds(s.ID))
}

func TestSoftLimitAdmitsUpToItsCeiling(t *testing.T) {
	b := setup(t)
	ceiling := int64(1500)
	soft := func(r *earmark.BudgetRequest) { r.Enforcement, r.SoftCeiling = earmark.EnforcementSoft, &ceiling }
	b.budget("acme", "tokens", 1000, soft)
	free := b.budget("free", "tokens", 10, func(r *earmark.BudgetRequest) { r.Enforcement = earmark.EnforcementSoft })
	require.False(t, b.reserve(admission("a", tokens(1000), "acme")).Reservation.OverLimit)
	require.True(t, b.reserve(admission("b", tokens(500), "acme")).Reservation.OverLimit)
	require.Equal(t, earmark.OutcomeDenied, b.reserve(admission("c", tokens(1), "acme")).Outcome)
	require.Equal(t, earmark.OutcomeApplied, b.reserve(admission("d", tokens(math.MaxInt64), "free")).Outcome)
	require.Equal(t, earmark.OutcomeOverflow, b.reserve(admission("e", tokens(1), "free")).Outcome)
	b.grant(free.ID, "a grant is no ceiling", earmark.GrantRequest{Amount: 1})
	require.Equal(t, earmark.OutcomeOverflow, b.reserve(admission("e", tokens(1), "free")).Outcome)
}

func TestInt64Extremes(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", math.MaxInt64)
	first := b.held(admission("a", tokens(math.MaxInt64-1), "acme"))
	second := b.held(admission("b", tokens(1), "acme"))
	denied := b.reserve(admission("c", tokens(math.MaxInt64), "acme"))
	require.Equal(t, earmark.OutcomeDenied, denied.Outcome)
	require.Equal(t, int64(math.MaxInt64), denied.Decision.Violations[0].Requested)

	require.Equal(t, earmark.OutcomeApplied, b.commit(first, tokens(math.MaxInt64-1)).Outcome)
	overflow := b.commit(second, tokens(2))
	require.Equal(t, earmark.OutcomeOverflow, overflow.Outcome)
	b.requireBalance(budget.ID, 1, math.MaxInt64-1)
	require.Equal(t, []string{"reserve", "refuse"}, b.entryKinds(second.ID))
	require.Equal(t, earmark.OutcomeOverflow, b.commit(second, tokens(2)).Outcome)
	require.Equal(t, []string{"reserve", "refuse"}, b.entryKinds(second.ID), "the same usage is refused once")
	require.Equal(t, earmark.OutcomeApplied, b.commit(second, tokens(1)).Outcome)
	b.requireBalance(budget.ID, 0, math.MaxInt64)
}

// Late usage that does not fit leaves an entry too: who, and what was not charged.
func TestOverflowOfLateUsageIsWrittenDown(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", math.MaxInt64)
	late := b.held(admission("late", tokens(1), "acme"))
	b.due(late.ID)
	require.Equal(t, earmark.StateExpired, b.expire(late).Reservation.State)
	full := b.held(admission("full", tokens(math.MaxInt64), "acme"))
	require.Equal(t, earmark.OutcomeOverflow, b.commit(late, tokens(1)).Outcome)
	require.Equal(t, []string{"reserve", "expire", "refuse"}, b.entryKinds(late.ID))
	entries, err := b.Entries(ctx(), late.Tenant, earmark.EntryFilter{ReservationID: late.ID})
	require.NoError(t, err)
	refusal := entries.Data[len(entries.Data)-1]
	require.Equal(t, late.Actor.String(), refusal.Actor)
	require.Equal(t, `usage {"tokens": 1} would make a sum larger than 9223372036854775807 and was not charged`, refusal.Reason)
	b.requireBalance(budget.ID, math.MaxInt64, 0)
	require.Equal(t, earmark.OutcomeApplied, b.commit(full, tokens(0)).Outcome)
}

func TestTooLateReservesNothing(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	a := admission("k", tokens(600), "acme")
	preflight, err := b.Preflight(ctx(), a)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, preflight.Outcome)
	a.AdmitBy = preflight.Now
	require.Equal(t, earmark.OutcomeTooLate, b.reserve(a).Outcome)
	b.requireBalance(budget.ID, 0, 0)

	a.AdmitBy = preflight.Now.Add(time.Hour)
	b.held(a)
	a.AdmitBy = preflight.Now
	require.Equal(t, earmark.OutcomeSame, b.reserve(a).Outcome, "what was admitted in time stands")
}

func TestReleaseThatCameFirstWins(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	a := admission("k", tokens(600), "acme")
	a.Released = true
	result := b.reserve(a)
	require.Equal(t, earmark.OutcomeReleased, result.Outcome)
	require.Equal(t, earmark.StateReleased, result.Reservation.State)
	a.Released = false
	again := b.reserve(a)
	require.Equal(t, earmark.OutcomeSame, again.Outcome)
	require.Equal(t, earmark.StateReleased, again.Reservation.State)
	b.requireBalance(budget.ID, 0, 0)
}

func TestOverdueHoldsMakeWay(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	b.budget("acme/ml", "tokens", 1000)
	s := b.held(admission("old", tokens(900), "acme/ml"))
	next := admission("new", tokens(900), "acme")
	require.Equal(t, earmark.OutcomeDenied, b.reserve(next).Outcome)
	b.due(s.ID)
	decision, err := b.Decide(ctx(), earmark.DefaultTenant, next.Request)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, decision.Outcome)
	b.held(next)
	b.requireBalance(budget.ID, 900, 0)
	old, err := b.Reservation(ctx(), earmark.DefaultTenant, s.ID)
	require.NoError(t, err)
	require.Equal(t, earmark.StateExpired, old.State)
}

func TestDirectChargeIgnoresLimits(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 100)
	usage := earmark.UsageRequest{Scopes: []string{"acme"}, Amounts: tokens(600)}
	charge := earmark.Charge{ID: earmark.ReservationID(earmark.DefaultTenant, "u"), Tenant: earmark.DefaultTenant, Request: usage, RequestHash: usage.Hash(), Actor: earmark.ActorAPI}
	for _, want := range []earmark.Outcome{earmark.OutcomeApplied, earmark.OutcomeSame} {
		result, err := b.Charge(ctx(), charge)
		require.NoError(t, err)
		require.Equal(t, want, result.Outcome)
		require.Equal(t, earmark.StateCommitted, result.Reservation.State)
		require.Nil(t, result.Reservation.ExpiresAt)
	}
	b.requireBalance(budget.ID, 0, 600)
	charge.ID, charge.Request.Scopes = earmark.ReservationID(earmark.DefaultTenant, "v"), []string{"nobody"}
	result, err := b.Charge(ctx(), charge)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeNoBudget, result.Outcome)
}

func TestUnknownReservation(t *testing.T) {
	b := setup(t)
	s := earmark.Transition{ID: earmark.NewReservationID(), Tenant: earmark.DefaultTenant, Actor: earmark.ActorAPI}
	require.Equal(t, earmark.OutcomeUnknown, b.commit(s, tokens(1)).Outcome)
	require.Equal(t, earmark.OutcomeUnknown, b.release(s).Outcome)
	require.Equal(t, earmark.OutcomeUnknown, b.expire(s).Outcome)
	result, err := b.Extend(ctx(), s, time.Hour)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeUnknown, result.Outcome)
	result, err = b.Inspect(ctx(), s.Tenant, s.ID)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeUnknown, result.Outcome)
}

func TestTenantsDoNotCross(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	s := b.held(admission("k", tokens(600), "acme"))
	s.Tenant = "other"
	require.Equal(t, earmark.OutcomeUnknown, b.commit(s, tokens(1)).Outcome)
	none, err := b.Reservation(ctx(), "other", s.ID)
	require.NoError(t, err)
	require.Nil(t, none)
	a := admission("x", tokens(1), "acme")
	a.Tenant = "other"
	require.Equal(t, earmark.OutcomeNoBudget, b.reserve(a).Outcome)
}

func TestSweepExpiresPastTheGrace(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	overdue := b.held(admission("a", tokens(100), "acme"))
	fresh := b.held(admission("b", tokens(200), "acme"))
	b.due(overdue.ID)
	ids, err := b.Sweep(ctx(), time.Hour, 10)
	require.NoError(t, err)
	require.Empty(t, ids)
	ids, err = b.Sweep(ctx(), time.Second, 10)
	require.NoError(t, err)
	require.Equal(t, []string{overdue.ID}, ids)
	b.requireBalance(budget.ID, 200, 0)
	page, err := b.Reservations(ctx(), earmark.DefaultTenant, earmark.ReservationFilter{State: earmark.StateHeld})
	require.NoError(t, err)
	require.Len(t, page.Data, 1)
	require.Equal(t, fresh.ID, page.Data[0].ID)
}
