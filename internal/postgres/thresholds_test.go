package postgres_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func withThresholds(thresholds ...earmark.Threshold) func(*earmark.BudgetRequest) {
	return func(r *earmark.BudgetRequest) { r.Thresholds = thresholds }
}

func percentOf(percent int64, of string) earmark.Threshold {
	return earmark.Threshold{Percent: percent, Of: of}
}

// crossings reads which thresholds were crossed after a position, such as "80% committed at 850+0".
func (b *env) crossings(after string) (crossed []string, next string) {
	b.t.Helper()
	events, next := b.events(after, func(f *earmark.EventFilter) { f.Types = []earmark.EventType{earmark.EventThreshold} })
	for _, e := range events {
		data := decodedJSON[struct {
			Threshold           earmark.Threshold
			Committed, Reserved int64
			ThresholdAmount     int64 `json:"threshold_amount"`
		}](b.t, e.Data)
		what := fmt.Sprintf("%d%%", data.Threshold.Percent)
		if data.Threshold.Amount > 0 {
			what = fmt.Sprint(data.Threshold.Amount)
			require.Equal(b.t, data.Threshold.Amount, data.ThresholdAmount)
		}
		crossed = append(crossed, fmt.Sprintf("%s %s at %d+%d", what, data.Threshold.Of, data.Committed, data.Reserved))
	}
	return crossed, next
}

func TestThresholdsAreCrossedOnceAWindow(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000, withThresholds(percentOf(50, "used"), percentOf(80, "committed"),
		earmark.Threshold{Amount: 600, Of: "used"}, percentOf(100, "committed")))
	require.Len(t, budget.Thresholds, 4)
	require.Equal(t, []string{earmark.ActionBudgetCreate}, b.actions(budget.ID))

	first := b.held(admission("first", tokens(499), "acme"))
	crossed, next := b.crossings("")
	require.Empty(t, crossed)
	second := b.held(admission("second", tokens(300), "acme"))
	crossed, next = b.crossings(next)
	require.Equal(t, []string{"50% used at 0+799", "600 used at 0+799"}, crossed, "one hold may cross several")

	b.release(second)
	second = b.held(admission("third", tokens(301), "acme"))
	crossed, next = b.crossings(next)
	require.Empty(t, crossed, "each is crossed once")

	b.commit(first, tokens(499))
	b.commit(second, tokens(301))
	crossed, next = b.crossings(next)
	require.Equal(t, []string{"80% committed at 800+0"}, crossed)

	expires := admission("expires", tokens(200), "acme")
	expires.Request.OnExpiry = earmark.OnExpiryCommit
	expires.RequestHash = expires.Request.Hash()
	held := b.held(expires)
	b.due(held.ID)
	b.expire(held)
	crossed, next = b.crossings(next)
	require.Equal(t, []string{"100% committed at 1000+0"}, crossed, "an expiry that charges crosses too")

	b.commit(held, tokens(500))
	crossed, _ = b.crossings(next)
	require.Empty(t, crossed)
}

// A new window begins with no threshold crossed, and a charge of the past crosses those of its own window.
func TestThresholdsOfEachWindow(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000, withThresholds(percentOf(50, "committed")), func(r *earmark.BudgetRequest) { r.Window.Period = earmark.PeriodDay })
	b.commit(b.held(admission("today", tokens(600), "acme")), tokens(600))
	crossed, next := b.crossings("")
	require.Equal(t, []string{"50% committed at 600+0"}, crossed)
	yesterday := earmark.Charge{ID: earmark.ReservationID(earmark.DefaultTenant, "past"), Tenant: earmark.DefaultTenant, RequestHash: "h", Actor: earmark.ActorAPI,
		Request: earmark.UsageRequest{Scopes: []string{"acme"}, Amounts: tokens(700)}, At: budget.Balance.WindowStart.Add(-1)}
	result, err := b.Charge(ctx(), yesterday)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, result.Outcome)
	events, _ := b.events(next, func(f *earmark.EventFilter) { f.Types = []earmark.EventType{earmark.EventThreshold} })
	require.Len(t, events, 1)
	require.Less(t, *events[0].WindowStart, budget.Balance.WindowStart)
}

func TestThresholdsAfterAChange(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000, withThresholds(percentOf(80, "committed")))
	patch := func(p earmark.BudgetPatch) *earmark.Budget {
		t.Helper()
		require.NoError(t, p.Validate())
		changed, err := b.PatchBudget(ctx(), earmark.DefaultTenant, budget.ID, p, alice)
		require.NoError(t, err)
		return changed
	}
	spend := func(key string, n int64) { b.commit(b.held(admission(key, tokens(n), "acme")), tokens(n)) }
	spend("a", 850)
	crossed, next := b.crossings("")
	require.Equal(t, []string{"80% committed at 850+0"}, crossed)

	patch(earmark.BudgetPatch{Limit: new(int64(2000))})
	spend("b", 700)
	crossed, next = b.crossings(next)
	require.Empty(t, crossed)
	spend("c", 100)
	crossed, next = b.crossings(next)
	require.Equal(t, []string{"80% committed at 1650+0"}, crossed, "after a raise it is crossed again")

	patch(earmark.BudgetPatch{Limit: new(int64(1700))})
	crossed, next = b.crossings(next)
	require.Empty(t, crossed, "a cut does not repeat what was crossed")

	changed := patch(earmark.BudgetPatch{Thresholds: &[]earmark.Threshold{percentOf(80, "committed"), percentOf(90, "committed"), percentOf(99, "committed")}})
	require.Len(t, changed.Thresholds, 3)
	crossed, next = b.crossings(next)
	require.Equal(t, []string{"90% committed at 1650+0"}, crossed, "a new threshold that is reached already")
	require.Equal(t, []string{earmark.ActionBudgetCreate, earmark.ActionBudgetChange, earmark.ActionBudgetChange, earmark.ActionBudgetChange}, b.actions(budget.ID))

	require.Empty(t, patch(earmark.BudgetPatch{Thresholds: &[]earmark.Threshold{}}).Thresholds)
	spend("d", 50)
	crossed, next = b.crossings(next)
	require.Empty(t, crossed)
	patch(earmark.BudgetPatch{Thresholds: &[]earmark.Threshold{percentOf(100, "used")}, Limit: new(int64(1600))})
	crossed, next = b.crossings(next)
	require.Equal(t, []string{"100% used at 1700+0"}, crossed)

	patch(earmark.BudgetPatch{Thresholds: &[]earmark.Threshold{percentOf(90, "used")}, Limit: new(int64(3000))})
	patch(earmark.BudgetPatch{Thresholds: &[]earmark.Threshold{percentOf(100, "used")}, Limit: new(int64(1800))})
	crossed, _ = b.crossings(next)
	require.Empty(t, crossed, "90 % of the new limit is reached, but goes with the same change")
}
