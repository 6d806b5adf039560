//go:build unix

package e2e_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

func (a api) grant(budgetID, key, body string) earmark.Grant {
	a.t.Helper()
	x := a.do("POST", "/v1/budgets/"+budgetID+"/grants", body, "Idempotency-Key", key)
	return decoded[earmark.Grant](a.t, x.status(a.t, http.StatusCreated))
}

// requireGrant checks what a grant has reserved, committed and left.
func (a api) requireGrant(g earmark.Grant, reserved, committed, remaining int64) {
	a.t.Helper()
	page := decoded[earmark.Page[earmark.Grant]](a.t, a.do("GET", "/v1/budgets/"+g.BudgetID+"/grants", "").status(a.t, http.StatusOK))
	for _, now := range page.Data {
		if now.ID == g.ID {
			require.Equal(a.t, []int64{reserved, committed, remaining}, []int64{now.Reserved, now.Committed, now.Remaining}, "reserved, committed and remaining")
			return
		}
	}
	require.Fail(a.t, "there is no grant "+g.ID)
}

// A budget's grants from the first top-up to the last denial: holds, a grant that expires under a hold, a lease that
// runs out, late usage, a void, and a grant that begins later.
func TestGrants(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{Grace: time.Second})
	budget := b.budget("acme", "tokens", 1000)
	topUp := b.grant(budget, "order-1", `{"amount":500,"reason":"order 1"}`)
	promotion := b.grant(budget, "promotion", `{"amount":250,"priority":10,"expires_at":"2126-01-01T00:00:00Z","reason":"a promotion"}`)
	again := b.do("POST", "/v1/budgets/"+budget+"/grants", `{"amount":500,"reason":"order 1"}`, "Idempotency-Key", "order-1").status(t, http.StatusCreated)
	require.Equal(t, "true", again.header.Get("Idempotency-Hit"))
	b.do("POST", "/v1/budgets/"+budget+"/grants", `{"amount":501,"reason":"order 1"}`, "Idempotency-Key", "order-1").
		problem(t, http.StatusUnprocessableEntity, earmark.CodeIdempotencyMismatch)

	held := b.hold("chat-1", tokens("acme/u1", 1200, 600))
	require.False(t, held.OverLimit)
	b.requireGrant(promotion, 200, 0, 50)
	b.requireGrant(topUp, 0, 0, 500)
	balance := b.balance(budget)
	require.Equal(t, &earmark.Granted{Reserved: 200, Remaining: 550}, balance.Granted)
	require.EqualValues(t, 1750, balance.EffectiveLimit)
	require.EqualValues(t, 550, balance.Available)

	// The promotion expires; what it holds stays, and the rest is gone and in the journal.
	b.Exec("UPDATE earmark.grants SET expires_at = clock_timestamp() WHERE id = $1", promotion.ID)
	stack.Eventually(t, moment, "the entry of what expired unused", func() bool {
		page := decoded[earmark.Page[earmark.Entry]](t, b.do("GET", "/v1/entries?budget_id="+budget, "").status(t, http.StatusOK))
		last := page.Data[len(page.Data)-1]
		return last.Kind == "budget" && strings.HasSuffix(last.Reason, "expired, 50 unused") && last.Actor == earmark.ActorSweeper.String()
	})
	b.requireGrant(promotion, 200, 0, 0)
	require.EqualValues(t, 1700, b.balance(budget).EffectiveLimit)
	b.commit(held.ID, 1190).status(t, http.StatusOK)
	b.requireGrant(promotion, 0, 190, 0)
	b.requireGrant(topUp, 0, 0, 500)

	// A lease runs out: the workflow gives the amount back, and late usage takes it again.
	late := b.hold("chat-2", tokens("acme/u1", 300, 1))
	b.awaitState(late.ID, earmark.StateExpired, moment)
	b.requireGrant(topUp, 0, 0, 500)
	b.commitLate(late.ID, 60)
	b.requireGrant(topUp, 0, 60, 440)

	// A void takes what is not held.
	held = b.hold("chat-3", tokens("acme/u1", 100, 600))
	void := "/v1/budgets/" + budget + "/grants/" + topUp.ID + "/void"
	voided := decoded[earmark.Grant](t, b.do("POST", void, `{"reason":"paid back"}`).status(t, http.StatusOK))
	require.EqualValues(t, 340, voided.Voided)
	require.Equal(t, voided, decoded[earmark.Grant](t, b.do("POST", void, `{"reason":"once more"}`).status(t, http.StatusOK)))
	b.requireGrant(topUp, 100, 60, 0)
	b.commit(held.ID, 100).status(t, http.StatusOK)
	b.requireGrant(topUp, 0, 160, 0)

	denied := b.do("POST", "/v1/reservations", tokens("acme/u1", 1, 60), "Idempotency-Key", "chat-4").problem(t, http.StatusPaymentRequired, earmark.CodeBudgetExceeded)
	require.Equal(t, []earmark.Violation{{BudgetID: budget, Scope: "acme", Unit: "tokens", Limit: 1350, Committed: 1350, Requested: 1}}, denied.Violations)
	require.False(t, *denied.Retryable)
	later := b.grant(budget, "order-2", `{"amount":10,"effective_at":"2126-01-01T00:00:00Z","reason":"order 2"}`)
	denied = b.do("POST", "/v1/reservations", tokens("acme/u1", 1, 60), "Idempotency-Key", "chat-4").problem(t, http.StatusPaymentRequired, earmark.CodeBudgetExceeded)
	require.True(t, denied.RetryAt.Equal(later.EffectiveAt), "when the next grant begins")
	balance = b.balance(budget)
	require.Equal(t, &earmark.Granted{Committed: 350}, balance.Granted)
	require.Zero(t, balance.Available)
}
