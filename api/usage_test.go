package api

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func TestChargeUsage(t *testing.T) {
	t.Parallel()
	f := &fake{result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: chargedUsage()}}
	b := setup(t, f)
	body := `{"scopes":["acme/ml/u1","acme/ml/u1"],"amounts":{"tokens":873},"require_budget":true,"metadata":{"a":"b"}}`
	x := b.do("POST", "/v1/usage", body, "Idempotency-Key", testKey).status(http.StatusCreated)
	require.Equal(t, "/v1/reservations/"+testReservationID, x.resp.Header.Get("Location"))
	require.Empty(t, x.resp.Header.Get("Idempotency-Hit"))
	require.Empty(t, decoded[earmark.Reservation](x).UIURL, "no workflow guards it")
	require.NotContains(t, string(x.body), "replayed")

	request := earmark.UsageRequest{Scopes: []string{"acme/ml/u1"}, Amounts: earmark.Amounts{"tokens": 873}, RequireBudget: true, Metadata: earmark.Metadata{"a": "b"}}
	charge := f.last().(earmark.Charge)
	require.NotEmpty(t, charge.Reason)
	charge.Reason = ""
	require.Equal(t, earmark.Charge{
		ID: testReservationID, Tenant: earmark.DefaultTenant, Request: request, RequestHash: request.Hash(), Actor: earmark.ActorAPI,
	}, charge)

	f.result.Outcome = earmark.OutcomeSame
	x = b.do("POST", "/v1/usage", body, "Idempotency-Key", testKey).status(http.StatusCreated)
	require.Equal(t, "true", x.resp.Header.Get("Idempotency-Hit"))
	require.True(t, decoded[earmark.Reservation](x).Replayed)
}

func TestChargeUsageOutcomes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		result earmark.Result
		status int
		code   earmark.Code
		field  string
	}{
		{"no budget", earmark.Result{Outcome: earmark.OutcomeNoBudget, Subject: "acme"}, 404, earmark.CodeNoBudget, "scopes"},
		{"unit not budgeted", earmark.Result{Outcome: earmark.OutcomeUnitNotBudgeted, Subject: "tokens"}, 422, earmark.CodeUnitNotBudgeted, "amounts.tokens"},
		{"mismatch", earmark.Result{Outcome: earmark.OutcomeMismatch}, 422, earmark.CodeIdempotencyMismatch, "Idempotency-Key"},
		{"the key of a reservation", earmark.Result{Outcome: earmark.OutcomeSame, Reservation: reservationIn(earmark.StateCommitted)}, 422, earmark.CodeIdempotencyMismatch, "Idempotency-Key"},
		{"overflow", earmark.Result{Outcome: earmark.OutcomeOverflow, Subject: "tokens"}, 400, earmark.CodeInvalidRequest, "amounts.tokens"},
		{"not an outcome of it", earmark.Result{Outcome: earmark.OutcomeDenied}, 500, earmark.CodeInternal, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := setup(t, &fake{result: test.result}).do("POST", "/v1/usage", reserveBody, "Idempotency-Key", testKey).problem(test.status, test.code)
			require.Equal(t, test.field, p.Field)
			require.NotContains(t, p.Detail, "coverage", "it is no field of a usage")
		})
	}
	p := setup(t, &fake{err: earmark.Errorf(earmark.CodeUnavailable, "away")}).
		do("POST", "/v1/usage", reserveBody, "Idempotency-Key", testKey).problem(http.StatusServiceUnavailable, earmark.CodeUnavailable)
	require.Equal(t, testReservationID, p.ReservationID)
}

func TestChargeUsageRefusesBadInput(t *testing.T) {
	t.Parallel()
	f := &fake{}
	b := setup(t, f)
	require.Equal(t, "Idempotency-Key", b.do("POST", "/v1/usage", reserveBody).problem(400, earmark.CodeInvalidRequest).Field)
	for body, field := range map[string]string{
		`{"scopes":["acme"],"amounts":{"tokens":-1}}`:                  "amounts.tokens",
		`{"scopes":[],"amounts":{"tokens":1}}`:                         "scopes",
		`{"scopes":["acme"],"amounts":{"tokens":1},"ttl_seconds":5}`:   "ttl_seconds",
		`{"scopes":["acme"],"amounts":{"tokens":1},"metadata":{"":1}}`: "metadata.",
	} {
		require.Equal(t, field, b.do("POST", "/v1/usage", body, "Idempotency-Key", testKey).problem(400, earmark.CodeInvalidRequest).Field)
	}
	require.Empty(t, f.calls)
}

func TestDecide(t *testing.T) {
	t.Parallel()
	f := &fake{result: earmark.Result{Outcome: earmark.OutcomeApplied}}
	b := setup(t, f)
	x := b.do("POST", "/v1/decisions", reserveBody).status(http.StatusOK)
	require.JSONEq(t, `{"admitted":true,"violations":[],"retryable":false}`, string(x.body))
	require.Equal(t, []string{"Decide"}, f.names())

	for _, denial := range []*earmark.Decision{testDecision(false), testDecision(true)} {
		f.result = earmark.Result{Outcome: earmark.OutcomeDenied, Decision: denial}
		decision := decoded[earmark.Decision](b.do("POST", "/v1/decisions", reserveBody).status(http.StatusOK))
		require.Equal(t, *denial, decision)
	}

	f.result = earmark.Result{Outcome: earmark.OutcomeNoBudget, Subject: "acme/ml/u1"}
	p := b.do("POST", "/v1/decisions", reserveBody).problem(http.StatusNotFound, earmark.CodeNoBudget)
	require.Contains(t, p.Detail, `"acme/ml/u1"`)

	f.result = earmark.Result{Outcome: earmark.OutcomeUnitNotBudgeted, Subject: "tokens"}
	b.do("POST", "/v1/decisions", reserveBody).problem(http.StatusUnprocessableEntity, earmark.CodeUnitNotBudgeted)

	f.result = earmark.Result{Outcome: earmark.OutcomeOverflow, Subject: "tokens"}
	b.do("POST", "/v1/decisions", reserveBody).problem(http.StatusBadRequest, earmark.CodeInvalidRequest)

	f.err = earmark.Errorf(earmark.CodeUnavailable, "away")
	b.do("POST", "/v1/decisions", reserveBody).problem(http.StatusServiceUnavailable, earmark.CodeUnavailable)
}

func TestListEntries(t *testing.T) {
	t.Parallel()
	f := &fake{entries: earmark.Page[earmark.Entry]{Data: []earmark.Entry{
		{ID: 1, Kind: "reserve", ReservationID: testReservationID, BudgetID: testBudgetID, WindowStart: &testTime, ReservedDelta: 1200, Actor: earmark.ActorWorkflow.String(), CreatedAt: testTime},
		{ID: 2, Kind: "note", ReservationID: testReservationID, Actor: earmark.ActorAPI.String(), CreatedAt: testTime},
	}}}
	b := setup(t, f)
	x := b.do("GET", "/v1/entries?budget_id="+testBudgetID+"&reservation_id="+testReservationID+"&cursor=c&limit=7", "").status(http.StatusOK)
	require.Equal(t, f.entries, decoded[earmark.Page[earmark.Entry]](x))
	require.Equal(t, earmark.EntryFilter{BudgetID: testBudgetID, ReservationID: testReservationID, Cursor: "c", Limit: 7}, f.last())

	f.entries = earmark.Page[earmark.Entry]{}
	x = b.do("GET", "/v1/entries", "").status(http.StatusOK)
	require.JSONEq(t, `{"data":[],"next_cursor":""}`, string(x.body))
}
