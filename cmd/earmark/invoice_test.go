package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func TestReconcileInvoice(t *testing.T) {
	t.Parallel()
	run, ledger := onDatabase(t)
	limit := int64(10)
	budget := earmark.BudgetRequest{Scope: "acme", Unit: "usd_micros", Limit: &limit}.WithDefaults()
	_, err := ledger.CreateBudget(t.Context(), earmark.DefaultTenant, budget, earmark.ActorAPI)
	require.NoError(t, err)
	request := earmark.UsageRequest{Scopes: []string{"acme"}, Amounts: earmark.Amounts{"usd_micros": 70_300}, Metadata: earmark.Metadata{"model": "claude-haiku-4-5"}}
	id := earmark.ReservationID(earmark.DefaultTenant, "one")
	charged, err := ledger.Charge(t.Context(), earmark.Charge{ID: id, Tenant: earmark.DefaultTenant, Request: request, RequestHash: "one", Actor: earmark.ActorAPI})
	require.NoError(t, err)
	day := charged.Reservation.CreatedAt.UTC().Format(time.DateOnly)
	file := filepath.Join(t.TempDir(), "costs.csv")
	write := func(rows string) {
		require.NoError(t, os.WriteFile(file, []byte("usage_date_utc,model,cost_usd\n"+rows), 0o600))
	}
	write(day + ",Claude Haiku 4.5,0.05\n" + day + ",Claude Haiku 4.5,0.02\n")
	arguments := []string{"reconcile-invoice", file, "--rename", "Claude Haiku 4.5=claude-haiku-4-5"}

	differs := run(arguments...)
	require.Equal(t, exitFailed, differs.code, differs.stderr)
	require.Regexp(t, day+` +claude-haiku-4-5 +70,000 +70,300 +-300\ntotal +70,000 +70,300 +-300\n`, differs.stdout)
	run(append(arguments, "--tolerance", "300")...).ok(t)
	_, err = ledger.Correct(t.Context(), earmark.Correction{ID: "cor_1", ReservationID: id, Tenant: earmark.DefaultTenant, Actor: earmark.ActorAPI,
		Request: earmark.CorrectionRequest{Amounts: earmark.Amounts{"usd_micros": -300}, Reason: "the invoice differs"}})
	require.NoError(t, err)
	require.Contains(t, run(append(arguments, "--json")...).ok(t), `"difference": 0`)

	write(day + ",Claude Haiku 4.5,0.07\n" + day + ",Claude Haiku 4.5,free\n")
	unreadable := run(arguments...)
	require.Equal(t, exitFailed, unreadable.code)
	require.Contains(t, unreadable.stderr, `costs.csv: line 3, column cost_usd: "free" is not an amount in dollars`)
	require.Equal(t, exitUsage, run("reconcile-invoice", file, "--time-zone", "Local").code)
	require.Equal(t, exitUsage, run("reconcile-invoice", file, "--columns", "day=d").code)
}
