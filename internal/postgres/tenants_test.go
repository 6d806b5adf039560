package postgres_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
)

// of is the same request of another tenant.
func of(tenant, key string, amounts earmark.Amounts, scopes ...string) earmark.Admission {
	a := admission(key, amounts, scopes...)
	a.Tenant, a.ID = tenant, earmark.ReservationID(tenant, key)
	a.WorkflowID = "reservation-" + a.ID
	return a
}

// side is what one tenant has.
type side struct {
	tenant string
	budget *earmark.Budget
	key    *earmark.IssuedKey
	ids    []string // of reservations, newest first
}

func (b *env) side(tenant string, limit int64) *side {
	b.t.Helper()
	request := earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit}.WithDefaults()
	budget, err := b.CreateBudget(ctx(), tenant, request, earmark.ActorAPI)
	require.NoError(b.t, err)
	return &side{tenant: tenant, budget: budget, key: b.key(tenant, earmark.KeyRequest{Role: earmark.RoleAdmin})}
}

// Two tenants with the same scopes, budgets and idempotency keys, of which one has twice the limit: each has just
// what it would have alone.
func TestTwoTenantsSideBySide(t *testing.T) {
	b := setup(t)
	b.tenant("blue")
	b.tenant("red")
	sides := []*side{b.side("blue", 10), b.side("red", 20)}

	// A burst of the same keys from both, through the same process: what fits is each one's own.
	var calls []func() (earmark.Result, error)
	for i := range 30 {
		for _, s := range sides {
			calls = append(calls, func() (earmark.Result, error) {
				return b.Reserve(ctx(), of(s.tenant, fmt.Sprint(i), tokens(1), "acme/u1"))
			})
		}
	}
	for i, result := range atOnce(t, calls...) {
		s := sides[i%2]
		if result.Outcome == earmark.OutcomeApplied {
			require.Equal(t, earmark.ReservationID(s.tenant, fmt.Sprint(i/2)), result.Reservation.ID)
			require.Equal(t, s.budget.ID, result.Reservation.Budgets[0].BudgetID)
			s.ids = append(s.ids, result.Reservation.ID)
			continue
		}
		require.Equal(t, earmark.OutcomeDenied, result.Outcome)
		require.Equal(t, s.budget.ID, result.Decision.Violations[0].BudgetID)
	}
	for _, s := range sides {
		require.Len(t, s.ids, int(s.budget.Limit))
		other := sides[0]
		if s == other {
			other = sides[1]
		}
		b.requireApart(s, other)
	}

	// Each settles its own, and nothing of the other's.
	for i, s := range sides {
		theirs := sides[1-i].ids[0]
		for _, result := range []earmark.Result{
			b.commit(earmark.Transition{ID: theirs, Tenant: s.tenant, Actor: earmark.ActorAPI}, tokens(1)),
			b.release(earmark.Transition{ID: theirs, Tenant: s.tenant, Actor: earmark.ActorAPI}),
			b.expire(earmark.Transition{ID: theirs, Tenant: s.tenant, Actor: earmark.ActorAPI}),
		} {
			require.Equal(t, earmark.Result{Outcome: earmark.OutcomeUnknown}, result, "as if it had never existed")
		}
	}
	require.Equal(t, earmark.OutcomeApplied, b.commit(earmark.Transition{ID: sides[0].ids[0], Tenant: "blue", Actor: earmark.ActorAPI}, tokens(1)).Outcome)
	for i, s := range sides {
		balance := b.balanceOf(s)
		require.Equal(t, [2]int64{s.budget.Limit - int64(1-i), int64(1 - i)}, [2]int64{balance.Reserved, balance.Committed})
	}
}

func (b *env) balanceOf(s *side) earmark.Balance {
	b.t.Helper()
	budget, err := b.Budget(ctx(), s.tenant, s.budget.ID)
	require.NoError(b.t, err)
	return budget.Balance
}

// requireApart looks at every list of a tenant, page by page: it has the tenant's own, and refuses the other's cursors and ids.
func (b *env) requireApart(s, other *side) {
	b.t.Helper()
	require.ElementsMatch(b.t, s.ids, pagesOf(b.t, func(tenant, cursor string) (earmark.Page[earmark.Reservation], error) {
		return b.Reservations(ctx(), tenant, earmark.ReservationFilter{Scope: "acme", Cursor: cursor, Limit: 4})
	}, s, other, func(r earmark.Reservation) string { return r.ID }))
	require.Equal(b.t, []string{s.budget.ID}, pagesOf(b.t, func(tenant, cursor string) (earmark.Page[earmark.Budget], error) {
		return b.Budgets(ctx(), tenant, earmark.BudgetFilter{Covering: "acme/u1", Cursor: cursor, Limit: 1})
	}, s, other, func(budget earmark.Budget) string { return budget.ID }))
	of := pagesOf(b.t, func(tenant, cursor string) (earmark.Page[earmark.Entry], error) {
		return b.Entries(ctx(), tenant, earmark.EntryFilter{Cursor: cursor, Limit: 7})
	}, s, other, func(e earmark.Entry) string { return e.BudgetID })
	require.Equal(b.t, []string{s.budget.ID}, slices.Compact(of))
	require.Len(b.t, of, 1+len(s.ids))
	require.Equal(b.t, []string{s.key.ID}, pagesOf(b.t, func(tenant, cursor string) (earmark.Page[earmark.Key], error) {
		return b.Keys(ctx(), tenant, earmark.KeyFilter{Cursor: cursor, Limit: 1})
	}, s, other, func(k earmark.Key) string { return k.ID }))
	require.Equal(b.t, []string{s.key.ID, s.budget.ID, s.tenant}, pagesOf(b.t, func(tenant, cursor string) (earmark.Page[earmark.AuditRecord], error) {
		return b.Audit(ctx(), tenant, earmark.AuditFilter{Cursor: cursor, Limit: 1})
	}, s, other, func(r earmark.AuditRecord) string { return r.Subject }))
	overview, err := b.Overview(ctx(), s.tenant, nil)
	require.NoError(b.t, err)
	require.EqualValues(b.t, len(s.ids), overview.Held)

	for _, f := range []earmark.EntryFilter{{BudgetID: other.budget.ID}, {ReservationID: other.ids[0]}} {
		page, err := b.Entries(ctx(), s.tenant, f)
		require.NoError(b.t, err)
		require.Empty(b.t, page.Data)
	}
	reservation, err := b.Reservation(ctx(), s.tenant, other.ids[0])
	require.NoError(b.t, err)
	require.Nil(b.t, reservation)
	budget, err := b.PatchBudget(ctx(), s.tenant, other.budget.ID, earmark.BudgetPatch{Limit: new(int64(1))}, earmark.ActorAPI)
	require.NoError(b.t, err)
	require.Nil(b.t, budget)
	known, err := b.Known(ctx(), s.tenant, other.ids)
	require.NoError(b.t, err)
	require.Empty(b.t, known)
	stuck, err := b.Stuck(ctx(), s.tenant, earmark.ReservationFilter{}, earmark.StuckIDs{Paused: other.ids, TaskFailing: other.ids, SettlementFailing: other.ids, Unguarded: other.ids})
	require.NoError(b.t, err)
	require.Empty(b.t, stuck.Data)
}

// pagesOf walks through a tenant's list. Another tenant may not go on with its cursors.
func pagesOf[T any](t *testing.T, list func(tenant, cursor string) (earmark.Page[T], error), s, other *side, name func(T) string) (names []string) {
	t.Helper()
	for cursor := ""; ; {
		page, err := list(s.tenant, cursor)
		require.NoError(t, err)
		for _, row := range page.Data {
			names = append(names, name(row))
		}
		if cursor = page.NextCursor; cursor == "" {
			return names
		}
		_, err = list(other.tenant, cursor)
		requireRefused(t, earmark.CodeInvalidRequest, "cursor", err)
	}
}

// What runs without a caller is for every tenant: the sweeper, the reconciler's checks and pruning.
func TestBackgroundWorkIsForEveryTenant(t *testing.T) {
	b := setup(t)
	b.tenant("blue")
	b.tenant("red")
	sides := []*side{b.side("blue", 10), b.side("red", 10)}
	var all []string
	for _, s := range sides {
		a := of(s.tenant, "k", tokens(4), "acme")
		b.held(a)
		b.due(a.ID)
		all = append(all, a.ID)
	}
	_, err := b.pool.Exec(ctx(), "UPDATE earmark.reservations SET checked_at = checked_at - interval '1 hour'")
	require.NoError(t, err)
	checks, err := b.ClaimChecks(ctx(), time.Minute, 10)
	require.NoError(t, err)
	var claimed []string
	for _, check := range checks {
		claimed = append(claimed, check.ID)
		require.Equal(t, earmark.ReservationID(check.Tenant, "k"), check.ID)
	}
	require.ElementsMatch(t, all, claimed)

	swept, err := b.Sweep(ctx(), time.Second, 10)
	require.NoError(t, err)
	require.ElementsMatch(t, all, swept)
	for i, s := range sides {
		require.Zero(t, b.balanceOf(s).Reserved)
		page, err := b.Entries(ctx(), s.tenant, earmark.EntryFilter{ReservationID: all[i]})
		require.NoError(t, err)
		require.Len(t, page.Data, 2, "the entry of the expiry is the tenant's")
	}

	first := of("red", "early", tokens(1), "nobody")
	first.Released = true
	b.reserve(first)
	b.ages(40)
	require.Equal(t, postgres.PruneReport{Total: 3, LookedAt: 3, Reservations: 3, Entries: 5}, b.prune(postgres.LeastKept))
}
