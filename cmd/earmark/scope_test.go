//go:build unix

package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// Commands take a scope as they show it, with ids in place of their encoding; the
// API and --json have the scope itself.
func TestScopesOfIDs(t *testing.T) {
	t.Parallel()
	const encoded, shown = "acme/x--a_40b.com", "acme/a@b.com"
	held := reservationNo(0, earmark.StateHeld, encoded)
	held.Budgets[0].Scope = encoded
	budget := budgetNo(0, encoded, "tokens", 1_000, 0, 0)
	denied := &earmark.Decision{Violations: []earmark.Violation{{Scope: encoded, Unit: "tokens", BudgetID: budget.ID}}}
	for _, scope := range []string{encoded, shown} {
		for command, code := range map[string]int{
			"reserve " + scope + " --amount tokens=600":           exitDenied,
			"reserve " + scope + " --amount tokens=1":             exitOK,
			"usage " + scope + " --amount tokens=1 --key k":       exitOK,
			"list --scope " + scope:                               exitOK,
			"show " + held.ID:                                     exitOK,
			"stuck --scope " + scope:                              exitOK,
			"drain --reason why --scope " + scope:                 exitOK,
			"budget list --scope " + scope:                        exitOK,
			"budget list --covering " + scope:                     exitOK,
			"budget show " + budget.ID:                            exitOK,
			"budget create " + scope + " tokens 1000":             exitOK,
			"decide " + scope + " --amount tokens=600 --json":     exitDenied,
			"reserve " + scope + " --amount tokens=1 --json":      exitOK,
			"list --json --scope " + scope:                        exitOK,
			"budget list --json --covering " + scope:              exitOK,
			"budget create " + scope + " requests 1000 --json":    exitOK,
			"list --state held --limit 1 --json --scope " + scope: exitOK,
		} {
			t.Run(command, func(t *testing.T) {
				t.Parallel()
				ledger := &cannedLedger{budgets: []earmark.Budget{budget}, reservations: []earmark.Reservation{held}}
				ledger.result = earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: &held}
				if code == exitDenied {
					ledger.result = earmark.Result{Outcome: earmark.OutcomeDenied, Decision: denied}
				}
				r := earmarkPipe(t, serveCanned(t, ledger), strings.Fields(command)...)
				require.Equal(t, code, r.code, r.stderr)
				all := r.stdout + r.stderr
				if strings.Contains(command, "--json") {
					require.Contains(t, all, encoded)
					require.NotContains(t, all, shown)
				} else {
					require.Contains(t, all, shown)
				}
				if strings.HasPrefix(command, "reserve") {
					require.Equal(t, []string{encoded}, ledger.admission.Request.Scopes)
				}
				if strings.HasPrefix(command, "budget create") {
					require.Equal(t, encoded, ledger.request.Scope)
				}
			})
		}
	}
}
