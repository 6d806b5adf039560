package api

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

const correctBody = `{"amounts":{"tokens":-200},"reason":"a refund"}`

func (b *env) correct(body string, header ...string) exchange {
	return b.do("POST", settlePath("corrections"), body, append([]string{"Idempotency-Key", testKey}, header...)...)
}

func corrected() *earmark.Reservation {
	r := reservationIn(earmark.StateCommitted)
	r.Usage, r.Correction = earmark.Amounts{"tokens": 1000}, earmark.Amounts{"tokens": -200}
	return r
}

func TestCorrect(t *testing.T) {
	t.Parallel()
	f := &fake{result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: corrected()}}
	b := setup(t, f)
	x := b.correct(correctBody).status(http.StatusOK)
	require.Equal(t, earmark.Amounts{"tokens": -200}, decoded[earmark.Reservation](x).Correction)
	require.Empty(t, x.resp.Header.Get("Idempotency-Hit"))
	want := earmark.Correction{
		ID: earmark.CorrectionID(testReservationID, testKey), ReservationID: testReservationID, Tenant: earmark.DefaultTenant, Actor: earmark.ActorAPI,
		Request: earmark.CorrectionRequest{Amounts: earmark.Amounts{"tokens": -200}, Reason: "a refund"},
	}
	require.Equal(t, want, f.last())

	f.result.Outcome = earmark.OutcomeSame
	x = b.correct(`{"amounts":{"tokens":-200},"reason":"a refund","operator":"alice"}`).status(http.StatusOK)
	require.Equal(t, "true", x.resp.Header.Get("Idempotency-Hit"))
	require.True(t, decoded[earmark.Reservation](x).Replayed)
	want.Actor, want.Request.Operator = earmark.OperatorActor("alice"), "alice"
	require.Equal(t, want, f.last())
}

func TestCorrectRefusesBadInput(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ body, field string }{
		{`{"reason":"r"}`, "amounts"},
		{`{"amounts":{},"reason":"r"}`, "amounts"},
		{`{"amounts":{"tokens":0},"reason":"r"}`, "amounts.tokens"},
		{`{"amounts":{"tokens":-0.5},"reason":"r"}`, "amounts.tokens"},
		{`{"amounts":{"tokens":-9223372036854775809},"reason":"r"}`, "amounts.tokens"},
		{`{"amounts":{"Tokens":-1},"reason":"r"}`, "amounts"},
		{`{"amounts":{"tokens":-1}}`, "reason"},
		{`{"amounts":{"tokens":-1},"reason":""}`, "reason"},
		{`{"amounts":{"tokens":-1},"reason":"` + strings.Repeat("x", 513) + `"}`, "reason"},
		{`{"amounts":{"tokens":-1},"reason":"r","operator":"a b"}`, "operator"},
		{`{"usage":{"tokens":-1},"reason":"r"}`, "usage"},
	} {
		f := &fake{}
		p := setup(t, f).correct(test.body).problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
		require.Equal(t, test.field, p.Field, test.body)
		require.Empty(t, f.calls)
	}
	f := &fake{}
	b := setup(t, f)
	p := b.send("POST", settlePath("corrections"), correctBody).problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
	require.Equal(t, "Idempotency-Key", p.Field)
	p = b.send("POST", settlePath("corrections"), correctBody, "Idempotency-Key", "a\tb").problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
	require.Equal(t, "Idempotency-Key", p.Field)
	require.Empty(t, f.calls)
}

func TestCorrectOutcomes(t *testing.T) {
	t.Parallel()
	estimated := reservationIn(earmark.StateCommitted)
	estimated.Estimated = true
	for name, test := range map[string]struct {
		result earmark.Result
		status int
		code   earmark.Code
		field  string
		detail string
	}{
		"unknown":      {earmark.Result{Outcome: earmark.OutcomeUnknown}, 404, earmark.CodeNotFound, "", testReservationID},
		"mismatch":     {earmark.Result{Outcome: earmark.OutcomeMismatch}, 422, earmark.CodeIdempotencyMismatch, "Idempotency-Key", "another correction"},
		"below zero":   {earmark.Result{Outcome: earmark.OutcomeBelowZero, Subject: "tokens", Reservation: corrected()}, 409, earmark.CodeBelowZero, "amounts.tokens", "-900 gives back more than was charged: 800 tokens; at least -800 is allowed"},
		"held":         {earmark.Result{Outcome: earmark.OutcomeConflict, Reservation: reservationIn(earmark.StateHeld)}, 409, earmark.CodeNotCharged, "", "open"},
		"review":       {earmark.Result{Outcome: earmark.OutcomeConflict, Reservation: reservationIn(earmark.StateReview)}, 409, earmark.CodeNotCharged, "", "open"},
		"expired":      {earmark.Result{Outcome: earmark.OutcomeConflict, Reservation: reservationIn(earmark.StateExpired)}, 409, earmark.CodeNotCharged, "", "commit the usage"},
		"released":     {earmark.Result{Outcome: earmark.OutcomeConflict, Reservation: reservationIn(earmark.StateReleased)}, 409, earmark.CodeNotCharged, "", "POST /v1/usage"},
		"estimated":    {earmark.Result{Outcome: earmark.OutcomeConflict, Reservation: estimated}, 409, earmark.CodeNotCharged, "", "estimate"},
		"another unit": {earmark.Result{Outcome: earmark.OutcomeUnitsMismatch, Subject: "tokens", Reservation: reservationIn(earmark.StateCommitted)}, 400, earmark.CodeInvalidRequest, "amounts.tokens", "it has 1,200 tokens"},
		"overflow":     {earmark.Result{Outcome: earmark.OutcomeOverflow, Subject: "tokens"}, 400, earmark.CodeInvalidRequest, "amounts.tokens", "too large"},
		"no row":       {earmark.Result{Outcome: earmark.OutcomeApplied}, 500, earmark.CodeInternal, "", "its log"},
		"not of it":    {earmark.Result{Outcome: earmark.OutcomeDenied}, 500, earmark.CodeInternal, "", "its log"},
	} {
		p := setup(t, &fake{result: test.result}).correct(strings.Replace(correctBody, "200", "900", 1)).problem(test.status, test.code)
		require.Equal(t, test.field, p.Field, name)
		require.Contains(t, p.Detail, test.detail, name)
		if test.status == http.StatusConflict {
			require.Equal(t, test.result.Reservation.State, p.Reservation.State, name)
		}
	}
	away := earmark.Errorf(earmark.CodeUnavailable, "postgres: %w", errors.New("secret-host"))
	p := setup(t, &fake{err: away}).correct(correctBody).problem(http.StatusServiceUnavailable, earmark.CodeUnavailable)
	require.Equal(t, testReservationID, p.ReservationID)
	require.NotContains(t, p.Detail, "secret-host")
}

// A key that is bound to other scopes is answered as if the reservation did not exist, and the ledger hears nothing.
func TestCorrectByAKeyBoundToOtherScopes(t *testing.T) {
	t.Parallel()
	f := playingAlong()
	x := setup(t, f, withKeys).correct(correctBody, with(f.addKey(earmark.DefaultTenant, earmark.RoleOperate, boundTo("elsewhere")))...)
	x.problem(http.StatusNotFound, earmark.CodeNotFound)
	require.NotContains(t, f.names(), "Correct")
	own := f.addKey(earmark.DefaultTenant, earmark.RoleOperate, boundTo("acme"))
	setup(t, f, withKeys).correct(correctBody, with(own)...).status(http.StatusOK)
	require.Equal(t, earmark.ActorAPI.WithKey(own.ID), f.last().(earmark.Correction).Actor)
}
