package postgres_test

import (
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
)

func correction(id, key string, amounts earmark.Amounts) earmark.Correction {
	return earmark.Correction{
		ID: earmark.CorrectionID(id, key), ReservationID: id, Tenant: earmark.DefaultTenant, Actor: earmark.OperatorActor("alice"),
		Request: earmark.CorrectionRequest{Amounts: amounts, Reason: "the invoice differs"},
	}
}

func (b *env) correct(c earmark.Correction) earmark.Result {
	b.t.Helper()
	result, err := b.Correct(ctx(), c)
	require.NoError(b.t, err)
	return result
}

// charged charges amounts to acme without a reservation and returns the id.
func (b *env) charged(key string, amounts earmark.Amounts) string {
	b.t.Helper()
	usage := earmark.UsageRequest{Scopes: []string{"acme"}, Amounts: amounts}
	result, err := b.Charge(ctx(), earmark.Charge{
		ID: earmark.ReservationID(earmark.DefaultTenant, key), Tenant: earmark.DefaultTenant, Request: usage, RequestHash: usage.Hash(), Actor: earmark.ActorAPI,
	})
	require.NoError(b.t, err)
	require.Equal(b.t, earmark.OutcomeApplied, result.Outcome)
	return result.Reservation.ID
}

// A commit and a charge without a reservation are corrected alike. The usage stays what was reported.
func TestCorrectionChangesAFinalCharge(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	s := b.held(admission("k", tokens(600), "acme"))
	b.commit(s, tokens(400))
	for id, kinds := range map[string][]string{
		s.ID:                        {"reserve", "commit", "correction", "correction"},
		b.charged("u", tokens(400)): {"charge", "correction", "correction"},
	} {
		before, err := b.Budget(ctx(), earmark.DefaultTenant, budget.ID)
		require.NoError(t, err)
		back := b.correct(correction(id, "refund", tokens(-150)))
		require.Equal(t, earmark.OutcomeApplied, back.Outcome)
		require.Equal(t, tokens(400), back.Reservation.Usage)
		require.Equal(t, tokens(-150), back.Reservation.Correction)
		require.EqualValues(t, 250, back.Reservation.Budgets[0].Committed)
		b.requireBalance(budget.ID, 0, before.Balance.Committed-150)

		more := b.correct(correction(id, "priced too low", tokens(50)))
		require.Equal(t, tokens(-100), more.Reservation.Correction)
		b.requireBalance(budget.ID, 0, before.Balance.Committed-100)
		require.Equal(t, kinds, b.entryKinds(id))

		entries, err := b.Entries(ctx(), earmark.DefaultTenant, earmark.EntryFilter{ReservationID: id})
		require.NoError(t, err)
		last := entries.Data[len(entries.Data)-1]
		require.Equal(t, earmark.Entry{
			ID: last.ID, Kind: "correction", ReservationID: id, BudgetID: budget.ID, WindowStart: last.WindowStart, CommittedDelta: 50,
			Actor: "operator:alice", Reason: "the invoice differs", CreatedAt: last.CreatedAt,
		}, last)
	}
	require.Equal(t, earmark.OutcomeSame, b.commit(s, tokens(400)).Outcome, "a repeated commit answers as the first did")
	b.requireBalance(budget.ID, 0, 600)
}

func TestCorrectionAppliesOnce(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	id := b.charged("u", tokens(400))
	other := b.charged("v", tokens(400))
	calls := make([]func() (earmark.Result, error), 8)
	for i := range calls {
		calls[i] = func() (earmark.Result, error) { return b.Correct(ctx(), correction(id, "refund", tokens(-100))) }
	}
	outcomes := map[earmark.Outcome]int{}
	for _, result := range atOnce(t, calls...) {
		outcomes[result.Outcome]++
		require.Equal(t, tokens(-100), result.Reservation.Correction)
	}
	require.Equal(t, map[earmark.Outcome]int{earmark.OutcomeApplied: 1, earmark.OutcomeSame: 7}, outcomes)
	b.requireBalance(budget.ID, 0, 700)

	require.Equal(t, earmark.OutcomeMismatch, b.correct(correction(id, "refund", tokens(-101))).Outcome)
	reworded := correction(id, "refund", tokens(-100))
	reworded.Request.Reason = "another"
	require.Equal(t, earmark.OutcomeMismatch, b.correct(reworded).Outcome)
	require.Equal(t, earmark.OutcomeApplied, b.correct(correction(other, "refund", tokens(-101))).Outcome, "a key belongs to one reservation")
	b.requireBalance(budget.ID, 0, 599)
}

// At 0 the charge is gone. Neither one correction nor several together go below it, and in no unit.
func TestCorrectionNeverGoesBelowZero(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	money := b.budget("acme", "usd_micros", 1000)
	id := b.charged("u", earmark.Amounts{"tokens": 400, "usd_micros": 8})
	refused := b.correct(correction(id, "a", earmark.Amounts{"tokens": -1, "usd_micros": -9}))
	require.Equal(t, earmark.OutcomeBelowZero, refused.Outcome)
	require.Equal(t, "usd_micros", refused.Subject)
	require.Nil(t, refused.Reservation.Correction)
	b.requireBalance(budget.ID, 0, 400)

	require.Equal(t, earmark.OutcomeApplied, b.correct(correction(id, "a", tokens(-300))).Outcome, "a refused key is free")
	require.Equal(t, earmark.OutcomeBelowZero, b.correct(correction(id, "b", tokens(-101))).Outcome)
	require.Equal(t, earmark.OutcomeBelowZero, b.correct(correction(id, "b", tokens(math.MinInt64))).Outcome)
	require.Equal(t, earmark.OutcomeApplied, b.correct(correction(id, "b", tokens(-100))).Outcome)
	b.requireBalance(budget.ID, 0, 0)
	b.requireBalance(money.ID, 0, 8)
	require.Equal(t, []string{"charge", "charge", "correction", "correction"}, b.entryKinds(id))
}

// A cost that happened is never lost: the limit may be passed, and what is beyond the reserved amount is overage.
func TestCorrectionChargesPastALimit(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000, overage(earmark.OverageReject))
	s := b.held(admission("k", tokens(600), "acme"))
	b.commit(s, tokens(500))
	result := b.correct(correction(s.ID, "invoice", tokens(900)))
	require.Equal(t, earmark.OutcomeApplied, result.Outcome)
	require.Equal(t, tokens(800), result.Reservation.Overage)
	b.requireBalance(budget.ID, 0, 1400)
	require.Equal(t, earmark.OutcomeDenied, b.reserve(admission("l", tokens(1), "acme")).Outcome)
	result = b.correct(correction(s.ID, "refund", tokens(-850)))
	require.Nil(t, result.Reservation.Overage)
	require.Equal(t, earmark.OutcomeApplied, b.reserve(admission("m", tokens(450), "acme")).Outcome, "a negative correction makes room")

	require.Equal(t, earmark.OutcomeOverflow, b.correct(correction(s.ID, "too much", tokens(math.MaxInt64-500))).Outcome)
	b.requireBalance(budget.ID, 450, 550)
}

// A budget that charged only what fitted has less to give back: a lower usage lowers the shortfall first.
func TestCorrectionLowersTheShortfallFirst(t *testing.T) {
	b := setup(t)
	tight := b.budget("acme", "tokens", 1000, overage(earmark.OverageAllowIfAvailable))
	wide := b.budget("acme", "tokens", 5000, func(r *earmark.BudgetRequest) { r.Window.Period = earmark.PeriodMonth })
	s := b.held(admission("k", tokens(600), "acme"))
	require.Equal(t, tokens(500), b.commit(s, tokens(1500)).Reservation.Shortfall)
	result := b.correct(correction(s.ID, "a", tokens(-300)))
	require.Equal(t, tokens(200), result.Reservation.Shortfall)
	require.Equal(t, tokens(600), result.Reservation.Overage)
	b.requireBalance(tight.ID, 0, 1000)
	b.requireBalance(wide.ID, 0, 1200)
	result = b.correct(correction(s.ID, "b", tokens(-400)))
	require.Nil(t, result.Reservation.Shortfall)
	b.requireBalance(tight.ID, 0, 800)
	b.requireBalance(wide.ID, 0, 800)
	b.correct(correction(s.ID, "c", tokens(-800)))
	b.requireBalance(tight.ID, 0, 0)
	b.requireBalance(wide.ID, 0, 0)
}

// What has no final charge is not corrected: other calls settle it.
func TestOnlyFinalChargesAreCorrected(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	policy := func(key string, onExpiry earmark.OnExpiry) earmark.Transition {
		a := admission(key, tokens(100), "acme")
		a.Request.OnExpiry = onExpiry
		s := b.held(a)
		b.due(s.ID)
		b.expire(s)
		return s
	}
	released := b.held(admission("released", tokens(100), "acme"))
	b.release(released)
	estimated := policy("estimated", earmark.OnExpiryCommit)
	expired := policy("expired", earmark.OnExpiryRelease)
	for what, s := range map[string]earmark.Transition{
		"held": b.held(admission("held", tokens(100), "acme")), "review": policy("review", earmark.OnExpiryReview),
		"expired": expired, "released": released, "estimated": estimated,
	} {
		for _, amount := range []int64{-1, 1} {
			result := b.correct(correction(s.ID, what, tokens(amount)))
			require.Equal(t, earmark.OutcomeConflict, result.Outcome, what)
			require.Nil(t, result.Reservation.Correction)
		}
	}
	b.requireBalance(budget.ID, 200, 100)
	b.commit(estimated, tokens(70)) // the real usage corrects the estimate; from then on the charge is final
	b.commit(expired, tokens(20))
	require.Equal(t, earmark.OutcomeApplied, b.correct(correction(estimated.ID, "a", tokens(-70))).Outcome)
	require.Equal(t, earmark.OutcomeApplied, b.correct(correction(expired.ID, "a", tokens(5))).Outcome)
	b.requireBalance(budget.ID, 200, 25)

	mismatch := b.correct(correction(estimated.ID, "b", earmark.Amounts{"requests": 1, "tokens": 1}))
	require.Equal(t, earmark.OutcomeUnitsMismatch, mismatch.Outcome)
	require.Equal(t, "requests", mismatch.Subject)
	require.Equal(t, earmark.OutcomeUnknown, b.correct(correction(earmark.NewReservationID(), "a", tokens(-1))).Outcome)
	foreign := correction(estimated.ID, "b", tokens(1))
	foreign.Tenant = "other"
	require.Equal(t, earmark.OutcomeUnknown, b.correct(foreign).Outcome)
}

// The window that was charged changes, though it has ended, and no other one. An archived budget changes too.
func TestCorrectionChangesTheWindowThatWasCharged(t *testing.T) {
	t.Parallel()
	pool := timedPool(t)
	b := &env{Ledger: postgres.New(asApp(t, pool)), owner: postgres.New(pool), t: t, pool: pool}
	day := time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)
	setClock(t, pool, day)
	budget := b.budget("acme", "tokens", 1000, func(r *earmark.BudgetRequest) { r.Window.Period = earmark.PeriodDay })
	whole := b.budget("acme", "tokens", 5000, func(r *earmark.BudgetRequest) { r.Window.Period = earmark.PeriodMonth })
	id := b.charged("yesterday", tokens(400))
	setClock(t, pool, day.AddDate(0, 0, 1))
	b.charged("today", tokens(30))
	_, err := b.ArchiveBudget(ctx(), earmark.DefaultTenant, whole.ID, earmark.ActorAPI)
	require.NoError(t, err)

	result := b.correct(correction(id, "refund", tokens(-150)))
	require.Equal(t, earmark.OutcomeApplied, result.Outcome)
	for _, share := range result.Reservation.Budgets {
		require.EqualValues(t, 250, share.Committed)
	}
	b.requireBalance(budget.ID, 0, 30)
	b.requireBalance(whole.ID, 0, 280)
	setClock(t, pool, day)
	b.requireBalance(budget.ID, 0, 250)
	report, err := b.CheckRules(ctx())
	require.NoError(t, err)
	require.Empty(t, report.Mismatches())
}

// A correction is kept as long as late usage, and pruned with its reservation. Then the reservation is unknown.
func TestPruneOfACorrectedReservation(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	id, fresh := b.charged("u", tokens(400)), b.charged("v", tokens(400))
	b.correct(correction(id, "a", tokens(-100)))
	b.ages(40, id, fresh)
	b.correct(correction(fresh, "a", tokens(-100)))
	require.Equal(t, postgres.PruneReport{Total: 2, LookedAt: 2, Reservations: 1, Entries: 2}, b.prune(postgres.LeastKept))
	b.requireBalance(budget.ID, 0, 600)
	require.Equal(t, earmark.OutcomeUnknown, b.correct(correction(id, "a", tokens(-100))).Outcome)
	require.Equal(t, earmark.OutcomeSame, b.correct(correction(fresh, "a", tokens(-100))).Outcome)
}

func TestManyCorrectionsOfACharge(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	id := b.charged("u", tokens(10))
	var calls []func() (earmark.Result, error)
	for i := range 20 { // at most ten of them fit
		calls = append(calls, func() (earmark.Result, error) { return b.Correct(ctx(), correction(id, strconv.Itoa(i), tokens(-1))) })
	}
	outcomes := map[earmark.Outcome]int{}
	for _, result := range atOnce(t, calls...) {
		outcomes[result.Outcome]++
	}
	require.Equal(t, map[earmark.Outcome]int{earmark.OutcomeApplied: 10, earmark.OutcomeBelowZero: 10}, outcomes)
	b.requireBalance(budget.ID, 0, 0)
}
