//go:build unix

package e2e_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

// A day of a budget that rolls over ends while something is held: the rest rolls over, then what comes free of the hold, and late usage takes
// it back. A day later Earmark runs with a clock that is a day ahead.
func TestRollover(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	anchor := time.Now().UTC().Add(12 * time.Hour).Format("2006-01-02T15:04") // the test crosses no other end of a day
	made := b.do("POST", "/v1/budgets", `{"scope":"acme","unit":"tokens","limit":1000,"window":{"period":"day","anchor":"`+anchor+`"},"rollover":{"max":600}}`)
	budget := decoded[earmark.Budget](t, made.status(t, http.StatusCreated))
	rolled := func() earmark.Grant {
		t.Helper()
		page := decoded[earmark.Page[earmark.Grant]](t, b.do("GET", "/v1/budgets/"+budget.ID+"/grants", "").status(t, http.StatusOK))
		require.Len(t, page.Data, 1)
		return page.Data[0]
	}
	b.commit(b.hold("spent", tokens("acme", 400, 600)).ID, 350).status(t, http.StatusOK)
	late := b.hold("late", tokens("acme", 100, 1))
	b.awaitState(late.ID, earmark.StateExpired, moment)
	held := b.hold("held", tokens("acme", 500, 3*24*3600))
	end := *b.balance(budget.ID).WindowEnd

	b.ShiftPostgres(24 * time.Hour)
	b.server.Kill()
	b.server.Restart()
	b.server.Ready()
	require.EqualValues(t, 1150, b.balance(budget.ID).Available, "150 were left")
	opens := b.hold("opens", tokens("acme", 1100, 600))
	g := rolled()
	require.Equal(t, "rollover", g.Source)
	require.True(t, g.EffectiveAt.Equal(end) && g.RolledFrom.Equal(budget.Balance.WindowStart) && g.ExpiresAt.After(end), "%+v", g)
	b.requireGrant(g, 100, 0, 50)

	b.commit(held.ID, 100).status(t, http.StatusOK) // 550 were left after all
	b.requireGrant(g, 100, 0, 450)
	b.commitLate(late.ID, 80)
	b.requireGrant(g, 100, 0, 370)
	b.commit(opens.ID, 1100).status(t, http.StatusOK)
	b.requireGrant(g, 0, 100, 370)
	denied := b.do("POST", "/v1/reservations", tokens("acme", 371, 60), "Idempotency-Key", "more").problem(t, http.StatusPaymentRequired, earmark.CodeBudgetExceeded)
	require.EqualValues(t, 370, denied.Violations[0].Available)
	require.True(t, denied.RetryAt.Equal(*b.balance(budget.ID).WindowEnd), "the limit is there again")
	opened := b.do("GET", "/v1/events?type=budget.window_opened", "").status(t, http.StatusOK)
	require.Contains(t, string(opened.body), `"rolled_over":150`)
}
