package postgres

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func asking(scopes ...string) earmark.Admission {
	return earmark.Admission{Tenant: "t", Request: earmark.ReservationRequest{Scopes: scopes, Amounts: earmark.Amounts{"tokens": 1}}}
}

// met is what the ledger answers to an admission that met tokens budgets on these scopes.
func met(scopes ...string) earmark.Result {
	r := &earmark.Reservation{}
	for _, scope := range scopes {
		r.Budgets = append(r.Budgets, earmark.ReservationBudget{Scope: scope, Unit: "tokens"})
	}
	return earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: r}
}

// Customers under one scope without a budget meet on nothing, and wait for nobody.
func TestBatchKeyIsTheBudgetThatCallsShare(t *testing.T) {
	t.Parallel()
	var l Ledger
	one, two := asking("platform/one"), asking("platform/two")
	require.NotEqual(t, l.batchKey(one), l.batchKey(two), "before anything is known")
	l.learn("t", l.batchKey(one), met("platform/one"))
	l.learn("t", l.batchKey(two), met("platform/two"))
	require.NotEqual(t, l.batchKey(one), l.batchKey(two))
	require.Equal(t, l.batchKey(one), l.batchKey(asking("platform/one/agent")))

	l.learn("t", l.batchKey(one), met("platform", "platform/one"))
	require.Equal(t, l.batchKey(one), l.batchKey(two), "there is a budget on the platform now")
	require.Equal(t, l.batchKey(one), l.batchKey(asking("platform/three")), "known to those who come for the first time")
	other := two
	other.Tenant = "another"
	require.NotEqual(t, l.batchKey(one), l.batchKey(other))

	l.learn("t", l.batchKey(one), met("platform/one"))
	require.NotEqual(t, l.batchKey(one), l.batchKey(two), "it was archived")
}

func TestBatchKeyOfADenialIsTheBudgetThatIsShort(t *testing.T) {
	t.Parallel()
	var l Ledger
	denied := earmark.Result{Outcome: earmark.OutcomeDenied, Decision: &earmark.Decision{Violations: []earmark.Violation{{Scope: "acme", Unit: "tokens"}}}}
	l.learn("t", l.batchKey(asking("acme/one")), denied)
	require.Equal(t, l.batchKey(asking("acme/one")), l.batchKey(asking("acme/two")))
}

// Several scopes, and scopes on several levels.
func TestBatchKeyOfSeveralScopes(t *testing.T) {
	t.Parallel()
	var l Ledger
	a := asking("acme/ml/u1", "models/large")
	key := l.learn("t", l.batchKey(a), met("acme/ml", "models"))
	require.Equal(t, key, l.batchKey(a))
	require.Equal(t, key, l.batchKey(asking("models/small")))
	require.NotEqual(t, key, l.batchKey(asking("acme/ml")))
}
