package postgres_test

import (
	"encoding/json"
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
)

// many asks for all at once while the budget's row is locked, so that all but the
// first go together, and returns the outcomes.
func (b *env) many(admissions []earmark.Admission) map[earmark.Outcome]int {
	b.t.Helper()
	tx, err := b.pool.Begin(ctx())
	require.NoError(b.t, err)
	_, err = tx.Exec(ctx(), "SELECT 1 FROM earmark.budgets FOR UPDATE")
	require.NoError(b.t, err)
	var (
		group    errgroup.Group
		mu       sync.Mutex
		outcomes = map[earmark.Outcome]int{}
	)
	for _, a := range admissions {
		group.Go(func() error {
			result, err := b.Reserve(ctx(), a)
			if err == nil && result.Reservation != nil && result.Reservation.ID != a.ID {
				err = fmt.Errorf("%s got the answer of %s", a.ID, result.Reservation.ID)
			}
			mu.Lock()
			defer mu.Unlock()
			outcomes[result.Outcome]++
			return err
		})
	}
	require.NoError(b.t, tx.Rollback(ctx()))
	require.NoError(b.t, group.Wait())
	return outcomes
}

// What goes together is decided one by one: as many as fit are admitted.
func TestTogetherAdmitsExactlyWhatFits(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 100)
	b.budget("acme/ml", "tokens", 1000)
	var admissions []earmark.Admission
	for n := range 50 {
		admissions = append(admissions, admission(fmt.Sprint(n), tokens(7), fmt.Sprintf("acme/ml/u%d", n%3)))
	}
	require.Equal(t, map[earmark.Outcome]int{earmark.OutcomeApplied: 14, earmark.OutcomeDenied: 36}, b.many(admissions))
	b.requireBalance(budget.ID, 98, 0)
	require.Equal(t, map[earmark.Outcome]int{earmark.OutcomeSame: 14, earmark.OutcomeDenied: 36}, b.many(admissions))

	var group errgroup.Group
	for _, a := range admissions {
		group.Go(func() error {
			_, err := b.Commit(ctx(), earmark.Transition{ID: a.ID, Tenant: a.Tenant, Actor: earmark.ActorWorkflow}, tokens(5))
			return err
		})
	}
	require.NoError(t, group.Wait())
	b.requireBalance(budget.ID, 0, 70)
}

// What would overflow is refused for itself.
func TestTogetherWithWhatOverflows(t *testing.T) {
	b := setup(t)
	soft := func(r *earmark.BudgetRequest) { r.Enforcement = earmark.EnforcementSoft }
	budget := b.budget("acme", "tokens", 100, soft)
	require.Equal(t, earmark.OutcomeApplied, b.reserve(admission("big", tokens(math.MaxInt64-20), "acme")).Outcome)
	var admissions []earmark.Admission
	for n := range 10 {
		admissions = append(admissions, admission(fmt.Sprint(n), tokens(4), "acme"))
	}
	outcomes := b.many(admissions)
	require.Equal(t, map[earmark.Outcome]int{earmark.OutcomeApplied: 5, earmark.OutcomeOverflow: 5}, outcomes)
	b.requireBalance(budget.ID, math.MaxInt64, 0)
}

func (b *env) together(sql string, args ...any) []*earmark.Result {
	b.t.Helper()
	rows, err := b.pool.Query(ctx(), sql, args...)
	require.NoError(b.t, err)
	results, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*earmark.Result, error) {
		var document []byte
		err := row.Scan(&document)
		if err != nil || document == nil {
			return nil, err
		}
		result := new(earmark.Result)
		return result, json.Unmarshal(document, result)
	})
	require.NoError(b.t, err)
	return results
}

// A reservation that somebody else works on, or that is not there, is not waited for.
func TestCommitTogetherWaitsForNoReservation(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 100)
	one, two := b.held(admission("one", tokens(10), "acme")), b.held(admission("two", tokens(10), "acme"))
	tx, err := b.pool.Begin(ctx())
	require.NoError(t, err)
	_, err = tx.Exec(ctx(), "SELECT 1 FROM earmark.reservations WHERE id = $1 FOR UPDATE", one.ID)
	require.NoError(t, err)
	call := func(s earmark.Transition, used int64) map[string]any {
		return map[string]any{"tenant": s.Tenant, "id": s.ID, "usage": tokens(used), "actor": s.Actor.String(), "reason": ""}
	}
	none := earmark.Transition{ID: "rsv_none", Tenant: one.Tenant, Actor: one.Actor}
	calls := []map[string]any{call(one, 4), call(two, 5), call(none, 6), call(two, 5), call(two, 6)}
	results := b.together("SELECT earmark.commit_batch($1)", calls)
	require.Len(t, results, 5)
	require.Nil(t, results[0])
	require.Equal(t, earmark.OutcomeApplied, results[1].Outcome)
	require.Nil(t, results[2])
	require.Equal(t, earmark.OutcomeSame, results[3].Outcome)
	require.Equal(t, earmark.OutcomeConflict, results[4].Outcome)
	require.NoError(t, tx.Rollback(ctx()))
	b.requireBalance(budget.ID, 10, 5)
}

// A batch locks what its calls need, and not each scope in each unit.
func TestBatchMakesNoWindowThatNobodyAskedFor(t *testing.T) {
	b := setup(t)
	for _, scope := range []string{"acme/a", "acme/b"} {
		b.budget(scope, "tokens", 100)
		b.budget(scope, "requests", 100)
	}
	call := func(id, scope string, amounts earmark.Amounts) map[string]any {
		return map[string]any{"id": id, "hash": id, "scopes": []string{scope}, "amounts": amounts, "ttl_ms": 60_000, "on_expiry": "release",
			"metadata": map[string]any{}, "workflow_id": id, "admit_by": nil, "released": false}
	}
	calls := []map[string]any{call("a", "acme/a", tokens(1)), call("b", "acme/b", earmark.Amounts{"requests": 1})}
	for _, result := range b.together("SELECT earmark.reserve_batch('default', $1, 'workflow')", calls) {
		require.Equal(t, earmark.OutcomeApplied, result.Outcome)
	}
	rows, err := b.pool.Query(ctx(), "SELECT scope || ' ' || unit FROM earmark.windows w JOIN earmark.budgets b ON b.id = w.budget_id ORDER BY 1")
	require.NoError(t, err)
	windows, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Equal(t, []string{"acme/a tokens", "acme/b requests"}, windows)
}

// A batch names for each child whoever met it first, as a single call does.
func TestBatchNamesWhoMetAChild(t *testing.T) {
	b := setup(t)
	b.budget("app", "tokens", 1000)
	template := b.budget("app/*", "tokens", 100)
	b.held(admission("k", tokens(1), "app")) // from now on, what is on app goes together
	for round, action := range []string{"budget.create", "budget.change"} {
		var admissions []earmark.Admission
		for n := range 12 {
			a := admission(fmt.Sprint(action, n), tokens(1), fmt.Sprintf("app/u%d/chat", n))
			a.KeyID = fmt.Sprintf("key%d of %s", n, action)
			admissions = append(admissions, a)
		}
		require.Equal(t, map[earmark.Outcome]int{earmark.OutcomeApplied: 12}, b.many(admissions))
		for n, a := range admissions {
			record := b.auditLog(earmark.DefaultTenant, earmark.AuditFilter{Subject: b.only(fmt.Sprintf("app/u%d", n)).ID})[0]
			require.Equal(t, [2]any{action, a.Actor()}, [2]any{record.Action, record.Actor})
		}
		_, err := b.patch(template.ID, earmark.BudgetPatch{Limit: new(int64(200 + round))})
		require.NoError(t, err)
	}
}
