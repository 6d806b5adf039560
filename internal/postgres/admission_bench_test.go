package postgres_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/postgres/postgrestest"
)

// manyChildren gives a template on app/users/* as many children, written straight into the tables.
const manyChildren = `
INSERT INTO earmark.budgets (id, tenant, scope, unit, limit_amount, period, timezone, enforcement, overage, template_id, revision)
SELECT earmark.child_id(t.id, 'app/users/u' || n), t.tenant, 'app/users/u' || n, t.unit, t.limit_amount, t.period, t.timezone, t.enforcement, t.overage, t.id, t.revision
FROM earmark.budgets t, generate_series(1, 100000) AS n WHERE t.scope = 'app/users/*';
ANALYZE`

// admits reserves one token and releases it again, and returns how long the read before the admission and the admission took.
func admits(tb testing.TB, l *postgres.Ledger, key, scope string) time.Duration {
	tb.Helper()
	a := admission(key, tokens(1), scope)
	began := time.Now()
	preflight, err := l.Preflight(ctx(), a)
	require.NoError(tb, err)
	require.Equal(tb, earmark.OutcomeApplied, preflight.Result.Outcome)
	result, err := l.Reserve(ctx(), a)
	took := time.Since(began)
	require.NoError(tb, err)
	require.Equal(tb, earmark.OutcomeApplied, result.Outcome)
	_, err = l.Release(ctx(), earmark.Transition{ID: a.ID, Tenant: a.Tenant, Actor: earmark.ActorWorkflow})
	require.NoError(tb, err)
	return took
}

// BenchmarkAdmission compares admissions: in turns, each on a plain budget of a database without templates, and
// on one of the other kinds. "speed" is how fast the other kind is, as a part of the plain one, by the medians.
func BenchmarkAdmission(b *testing.B) {
	newLedger := func(b *testing.B, template bool) *postgres.Ledger {
		b.Helper()
		pool := postgrestest.Pool(b, stack.PostgresURL())
		l := postgres.New(pool)
		scopes := []string{"app/users/plain"}
		if template {
			scopes = []string{"app/users/*", "app/teams/plain"}
		}
		for _, scope := range scopes {
			_, err := l.CreateBudget(ctx(), earmark.DefaultTenant, earmark.BudgetRequest{Scope: scope, Unit: "tokens", Limit: new(int64(1_000_000_000))}.WithDefaults(), earmark.ActorAPI)
			require.NoError(b, err)
		}
		if template {
			_, err := pool.Exec(ctx(), manyChildren)
			require.NoError(b, err)
		}
		return l
	}
	for name, scope := range map[string]func(int) string{
		"plain":                   nil,
		"beside 100000 children":  func(int) string { return "app/teams/plain" },
		"one of 100000 children":  func(int) string { return "app/users/u500" },
		"each of 100000 children": func(n int) string { return fmt.Sprint("app/users/u", n%100_000+1) },
		"each a new child":        func(n int) string { return fmt.Sprint("app/users/v", n) },
	} {
		b.Run(name, func(b *testing.B) {
			plain := newLedger(b, false)
			other, otherScope := plain, func(int) string { return "app/users/plain" }
			if scope != nil {
				other, otherScope = newLedger(b, true), scope
			}
			var took [2][]time.Duration
			for n := range b.N {
				took[0] = append(took[0], admits(b, plain, fmt.Sprint("plain", n), "app/users/plain"))
				took[1] = append(took[1], admits(b, other, fmt.Sprint("other", n), otherScope(n)))
			}
			for i := range took {
				slices.Sort(took[i])
			}
			b.ReportMetric(float64(took[1][b.N/2].Microseconds()), "µs/admission")
			b.ReportMetric(float64(took[0][b.N/2])/float64(took[1][b.N/2]), "speed")
		})
	}
}
