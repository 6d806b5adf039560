package postgres_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/devstack"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/postgres/postgrestest"
)

// manyChildren gives a template on app/users/* as many children, written straight into the tables.
const manyChildren = `
INSERT INTO earmark.budgets (id, tenant, scope, unit, limit_amount, period, timezone, enforcement, overage, template_id, revision)
SELECT earmark.child_id(t.id, 'app/users/u' || n), t.tenant, 'app/users/u' || n, t.unit, t.limit_amount, t.period, t.timezone, t.enforcement, t.overage, t.id, t.revision
FROM earmark.budgets t, generate_series(1, $1) AS n WHERE t.scope = 'app/users/*'`

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

// admitted is what a benchmark admits to: a scope in a database without a template, or with one and its children. granted gives the
// budget of the scope grants and thresholds.
type admitted struct {
	scope    func(n int) string
	template bool
	children int
	granted  earmark.Allowance
}

func (a admitted) ledger(b *testing.B, serverURL string) *postgres.Ledger {
	b.Helper()
	pool := postgrestest.Pool(b, serverURL)
	l := postgres.New(pool)
	scopes := []string{"app/teams/a"}
	if a.template {
		scopes = append(scopes, "app/users/*")
	}
	for _, scope := range scopes {
		request := earmark.BudgetRequest{Scope: scope, Unit: "tokens", Limit: new(int64(1_000_000_000)), Allowance: a.granted}
		if a.granted != "" {
			request.Thresholds = []earmark.Threshold{{Percent: 50, Of: earmark.ThresholdOfUsed}, {Percent: 80, Of: earmark.ThresholdOfCommitted}, {Percent: 100, Of: earmark.ThresholdOfCommitted}}
		}
		budget, err := l.CreateBudget(ctx(), earmark.DefaultTenant, request.WithDefaults(), earmark.ActorAPI)
		require.NoError(b, err)
		for n := range 5 {
			if a.granted != "" {
				grant := earmark.GrantRequest{Amount: 1_000_000, ExpiresAt: new(time.Now().AddDate(0, n+1, 0)), Reason: "a top-up"}
				_, err := l.CreateGrant(ctx(), earmark.DefaultTenant, budget.ID, fmt.Sprint(n), grant.WithDefaults(), earmark.ActorAPI)
				require.NoError(b, err)
			}
		}
	}
	_, err := pool.Exec(ctx(), manyChildren, a.children)
	require.NoError(b, err)
	_, err = pool.Exec(ctx(), "ANALYZE")
	require.NoError(b, err)
	return l
}

// durablePostgres starts a server as users have it. That of the tests gives up durability for speed.
func durablePostgres(b *testing.B) string {
	b.Helper()
	server, err := devstack.StartPostgres(ctx(), devstack.PostgresOptions{Dir: filepath.Join(serverDir(b), "postgres"), Superuser: true})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, server.Stop(ctx())) })
	return server.URL()
}

// BenchmarkAdmission compares two kinds of admissions, in turns. "speed" is that of the second kind as a part of the
// first one's, by the medians.
func BenchmarkAdmission(b *testing.B) {
	const many = 100_000
	serverURL := durablePostgres(b)
	plain := func(int) string { return "app/teams/a" }
	child := func(int) string { return "app/users/u1" }
	fresh := func(n int) string { return fmt.Sprint("app/users/v", n) }
	for name, kinds := range map[string][2]admitted{
		"plain":                   {{scope: plain}, {scope: plain}},
		"plain beside children":   {{scope: plain}, {scope: plain, template: true, children: many}},
		"child of a template":     {{scope: plain}, {scope: child, template: true, children: 1}},
		"child with siblings":     {{scope: child, template: true, children: 1}, {scope: child, template: true, children: many}},
		"new child":               {{scope: plain}, {scope: fresh, template: true}},
		"new child with siblings": {{scope: fresh, template: true}, {scope: fresh, template: true, children: many}},
		"beside unused grants":    {{scope: plain}, {scope: plain, granted: earmark.AllowanceFirst}},
		"on grants":               {{scope: plain}, {scope: plain, granted: earmark.AllowanceLast}},
	} {
		b.Run(name, func(b *testing.B) {
			ledgers := [2]*postgres.Ledger{kinds[0].ledger(b, serverURL), kinds[1].ledger(b, serverURL)}
			var took [2][]time.Duration
			for n := range b.N {
				for i, l := range ledgers {
					took[i] = append(took[i], admits(b, l, fmt.Sprint("k", n), kinds[i].scope(n)))
				}
			}
			slices.Sort(took[0])
			slices.Sort(took[1])
			b.ReportMetric(float64(took[1][b.N/2].Microseconds()), "µs/admission")
			b.ReportMetric(float64(took[0][b.N/2])/float64(took[1][b.N/2]), "speed")
		})
	}
}
