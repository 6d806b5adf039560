package postgres_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// What a list shows of other scopes, above and beside its own, is what a key that is bound to scopes may not see.
func TestBudgetsAndEntriesWithinScopes(t *testing.T) {
	b := setup(t)
	names := map[string]string{}
	for _, scope := range []string{"acme", "acme/ml", "acme/mlops", "other"} {
		names[b.budget(scope, "tokens", 1000).ID] = scope
	}
	hold := func(key string, scopes ...string) string {
		s := b.held(admission(key, tokens(1), scopes...))
		names[s.ID] = key
		return s.ID
	}
	hold("mine", "acme/ml/u1")
	shared := hold("shared", "acme/ml", "other")
	hold("theirs", "other/u2")
	hold("ours", "acme")

	list := func(within ...string) (budgets []string) {
		f := earmark.BudgetFilter{Within: within, Limit: 1}
		for {
			page, err := b.Budgets(ctx(), earmark.DefaultTenant, f)
			require.NoError(t, err)
			for _, budget := range page.Data {
				budgets = append(budgets, budget.Scope)
			}
			if f.Cursor = page.NextCursor; f.Cursor == "" {
				return budgets
			}
			_, err = b.Budgets(ctx(), earmark.DefaultTenant, earmark.BudgetFilter{Cursor: f.Cursor, Within: append(within, "x")})
			requireRefused(t, earmark.CodeInvalidRequest, "cursor", err)
		}
	}
	require.Equal(t, []string{"other", "acme/mlops", "acme/ml", "acme"}, list())
	require.Equal(t, []string{"acme/mlops", "acme/ml", "acme"}, list("acme"))
	require.Equal(t, []string{"acme/ml"}, list("acme/ml"))
	require.Equal(t, []string{"other", "acme/ml"}, list("acme/ml", "other"))
	require.Empty(t, list("acme/ml/u1"), "budgets above are the tenant's")
	page, err := b.Budgets(ctx(), earmark.DefaultTenant, earmark.BudgetFilter{Covering: "acme/ml/u1", Within: []string{"acme/ml"}})
	require.NoError(t, err)
	require.Len(t, page.Data, 1)

	entries := func(f earmark.EntryFilter) (found []string) {
		f.Limit = 2
		for {
			page, err := b.Entries(ctx(), earmark.DefaultTenant, f)
			require.NoError(t, err)
			for _, e := range page.Data {
				if e.Kind == "reserve" {
					found = append(found, names[e.ReservationID]+" on "+names[e.BudgetID])
				} else {
					found = append(found, "budget "+names[e.BudgetID])
				}
			}
			if f.Cursor = page.NextCursor; f.Cursor == "" {
				return found
			}
		}
	}
	require.Len(t, entries(earmark.EntryFilter{}), 4+2+3+1+1)
	require.ElementsMatch(t, []string{"budget acme/ml", "mine on acme", "mine on acme/ml", "shared on acme/ml"}, entries(earmark.EntryFilter{Within: []string{"acme/ml"}}))
	require.Equal(t, []string{"shared on acme/ml"}, entries(earmark.EntryFilter{Within: []string{"acme/ml"}, ReservationID: shared}))
	require.ElementsMatch(t, []string{"mine on acme", "mine on acme/ml"}, entries(earmark.EntryFilter{Within: []string{"acme/ml/u1"}}))
	require.Equal(t, []string{"budget other", "shared on other", "theirs on other"}, entries(earmark.EntryFilter{Within: []string{"other"}}))
	require.Empty(t, entries(earmark.EntryFilter{Within: []string{"acm"}}))

	for held, within := range map[int64][]string{4: nil, 1: {"acme/ml"}, 2: {"acme"}, 3: {"acme/ml", "other"}} {
		overview, err := b.Overview(ctx(), earmark.DefaultTenant, within)
		require.NoError(t, err)
		require.Equal(t, held, overview.Held, within)
		require.Len(t, overview.Oldest, int(held), within)
	}
}
