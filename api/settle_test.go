package api

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// settleCalls are the three calls that settle or extend, with a body in order.
var settleCalls = []struct{ verb, body, name string }{
	{"commit", `{"usage":{"tokens":873}}`, "Commit"},
	{"release", `{"reason":"the model refused"}`, "Release"},
	{"extend", `{"ttl_seconds":60}`, "Extend"},
}

func settlePath(verb string) string { return "/v1/reservations/" + testReservationID + "/" + verb }

func TestSettlementSucceeds(t *testing.T) {
	t.Parallel()
	for _, outcome := range []earmark.Outcome{earmark.OutcomeApplied, earmark.OutcomeSame} {
		for _, call := range settleCalls {
			f := &fake{result: earmark.Result{Outcome: outcome, Reservation: reservationIn(earmark.StateCommitted)}}
			x := setup(t, f).do("POST", settlePath(call.verb), call.body).status(http.StatusOK)
			require.Equal(t, testReservationID, decoded[earmark.Reservation](x).ID)
			require.Equal(t, []string{call.name}, f.names())
		}
	}
}

func TestSettlementArguments(t *testing.T) {
	t.Parallel()
	f := &fake{result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: reservationIn(earmark.StateCommitted)}}
	b := setup(t, f)
	b.do("POST", settlePath("commit"), `{"usage":{"tokens":0,"requests":1}}`).status(http.StatusOK)
	require.Equal(t, earmark.Amounts{"tokens": 0, "requests": 1}, f.last())

	require.False(t, f.settlement.Estimated)
	b.do("POST", settlePath("commit"), `{"usage":{"tokens":5},"estimated":true}`).status(http.StatusOK)
	require.True(t, f.settlement.Estimated)
	b.do("POST", settlePath("commit"), `{"usage":{"tokens":5},"estimated":1}`).problem(http.StatusBadRequest, earmark.CodeInvalidRequest)

	b.do("POST", settlePath("release"), `{"reason":"the model refused"}`).status(http.StatusOK)
	settlement := earmark.Transition{ID: testReservationID, Tenant: earmark.DefaultTenant, Actor: earmark.ActorAPI, Reason: "the model refused"}
	require.Equal(t, settlement, f.last())

	settlement.Reason = ""
	b.do("POST", settlePath("release"), "").status(http.StatusOK)
	require.Equal(t, settlement, f.last())
	b.do("POST", settlePath("release"), "{}").status(http.StatusOK)
	require.Equal(t, settlement, f.last())

	b.do("POST", settlePath("extend"), `{"ttl_seconds":60}`).status(http.StatusOK)
	require.Equal(t, time.Minute, f.last())

	settlement.Actor, settlement.Reason = earmark.OperatorActor("alice"), "the bill says so"
	for _, call := range []string{`commit {"usage":{"tokens":1},`, `release {`, `extend {"ttl_seconds":60,`} {
		verb, body, _ := strings.Cut(call, " ")
		f.settlement = earmark.Transition{}
		b.do("POST", settlePath(verb), body+`"operator":"alice","reason":"the bill says so"}`).status(http.StatusOK)
		require.Equal(t, settlement, f.settlement, verb)
	}
}

func TestSettlementAccepted(t *testing.T) {
	t.Parallel()
	for _, call := range settleCalls[:2] {
		x := setup(t, &fake{accepted: true}).do("POST", settlePath(call.verb), call.body).status(http.StatusAccepted)
		require.JSONEq(t, `{"id":"`+testReservationID+`","accepted":true}`, string(x.body))
		require.Equal(t, "/v1/reservations/"+testReservationID, x.resp.Header.Get("Location"))
	}
}

func TestSettlementOutcomes(t *testing.T) {
	t.Parallel()
	committed, released := reservationIn(earmark.StateCommitted), reservationIn(earmark.StateReleased)
	rejected := reservationIn(earmark.StateHeld)
	rejected.RejectedUsage = earmark.Amounts{"tokens": 5000}
	for _, test := range []struct {
		name   string
		verbs  string
		result earmark.Result
		status int
		code   earmark.Code
		field  string
		detail string
	}{
		{"unknown", "commit release extend", earmark.Result{Outcome: earmark.OutcomeUnknown}, 404, earmark.CodeNotFound, "", testReservationID},
		{"committed before", "commit release extend", earmark.Result{Outcome: earmark.OutcomeConflict, Reservation: committed}, 409, earmark.CodeAlreadySettled, "", "committed"},
		{"released before", "commit", earmark.Result{Outcome: earmark.OutcomeConflict, Reservation: released}, 409, earmark.CodeAlreadySettled, "", "POST /v1/usage"},
		{"expired before", "release extend", earmark.Result{Outcome: earmark.OutcomeExpired, Reservation: reservationIn(earmark.StateExpired)}, 410, earmark.CodeReservationExpired, "", "run out"},
		{"overage", "commit", earmark.Result{Outcome: earmark.OutcomeOverageRejected, Reservation: rejected}, 409, earmark.CodeOverageRejected, "", "operator"},
		{"units", "commit", earmark.Result{Outcome: earmark.OutcomeUnitsMismatch, Subject: "requests", Reservation: reservationIn(earmark.StateHeld)}, 400, earmark.CodeInvalidRequest, "usage.requests", "1,200 tokens"},
		{"units, none named", "commit", earmark.Result{Outcome: earmark.OutcomeUnitsMismatch}, 400, earmark.CodeInvalidRequest, "usage", "exactly the reserved units"},
		{"overflow", "commit", earmark.Result{Outcome: earmark.OutcomeOverflow, Subject: "tokens"}, 400, earmark.CodeInvalidRequest, "usage.tokens", "too large"},
		{"applied without a row", "commit release extend", earmark.Result{Outcome: earmark.OutcomeApplied}, 500, earmark.CodeInternal, "", "its log"},
		{"not an outcome of it", "commit release extend", earmark.Result{Outcome: earmark.OutcomeDenied}, 500, earmark.CodeInternal, "", "its log"},
	} {
		for _, call := range settleCalls {
			if !strings.Contains(test.verbs, call.verb) {
				continue
			}
			t.Run(call.verb+" "+test.name, func(t *testing.T) {
				t.Parallel()
				p := setup(t, &fake{result: test.result}).do("POST", settlePath(call.verb), call.body).problem(test.status, test.code)
				require.Equal(t, test.field, p.Field)
				require.Contains(t, p.Detail, test.detail)
				if test.status == 409 || test.status == 410 {
					require.Equal(t, test.result.Reservation.State, p.Reservation.State)
					require.Equal(t, test.result.Reservation.RejectedUsage, p.Reservation.RejectedUsage)
				}
			})
		}
	}
}

func TestSettlementFaults(t *testing.T) {
	t.Parallel()
	for _, call := range settleCalls {
		away := earmark.Errorf(earmark.CodeUnavailable, "postgres: %w", errors.New("secret-host"))
		x := setup(t, &fake{err: away, coordinatorErr: away}).do("POST", settlePath(call.verb), call.body)
		p := x.problem(http.StatusServiceUnavailable, earmark.CodeUnavailable)
		require.Equal(t, "1", x.resp.Header.Get("Retry-After"))
		require.Equal(t, testReservationID, p.ReservationID)
		require.NotContains(t, string(x.body), "secret-host")
	}
}

func TestSettlementRefusesBadInput(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ verb, body, field string }{
		{"commit", ``, ""},
		{"commit", `{}`, "usage"},
		{"commit", `{"usage":{}}`, "usage"},
		{"commit", `{"usage":null}`, "usage"},
		{"commit", `{"usage":{"tokens":null}}`, "usage.tokens"},
		{"commit", `{"usage":{"tokens":-1}}`, "usage.tokens"},
		{"commit", `{"usage":{"tokens":0.5}}`, "usage.tokens"},
		{"commit", `{"usage":{"tokens":1,"tokens":2}}`, "usage.tokens"},
		{"commit", `{"usage":{"TOKENS":1}}`, "usage"},
		{"commit", `{"amounts":{"tokens":1}}`, "amounts"},
		{"commit", `{"usage":{"tokens":1},"why":"x"}`, "why"},
		{"commit", `{"usage":{"tokens":1},"operator":"a b"}`, "operator"},
		{"commit", `{"usage":{"tokens":1},"operator":"` + strings.Repeat("x", 65) + `"}`, "operator"},
		{"release", `{"operator":"alice","reason":"` + strings.Repeat("x", 513) + `"}`, "reason"},
		{"release", `{"operator":"-"}`, "operator"},
		{"release", `{"operator":"workflow\n"}`, "operator"},
		{"extend", `{"ttl_seconds":60,"operator":null}`, "operator"},
		{"extend", `{"ttl_seconds":60,"operator":"ä"}`, "operator"},
		{"adopt", `{"operator":"a:b"}`, "operator"},
		{"adopt", `{"who":"alice"}`, "who"},
		{"release", `null`, ""},
		{"release", `{"reason":null}`, "reason"},
		{"release", `{"reason":7}`, "reason"},
		{"release", `{"reason":"` + strings.Repeat("x", 513) + `"}`, "reason"},
		{"release", `{"reason":"\u0000"}`, "reason"},
		{"release", `{"why":"x"}`, "why"},
		{"extend", ``, ""},
		{"extend", `{}`, "ttl_seconds"},
		{"extend", `{"ttl_seconds":0}`, "ttl_seconds"},
		{"extend", `{"ttl_seconds":604801}`, "ttl_seconds"},
		{"extend", `{"ttl_seconds":"60"}`, "ttl_seconds"},
		{"extend", `{"ttl_seconds":1e3}`, "ttl_seconds"},
	} {
		t.Run(test.verb+" "+test.body, func(t *testing.T) {
			t.Parallel()
			f := &fake{}
			p := setup(t, f).do("POST", settlePath(test.verb), test.body).problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
			require.Equal(t, test.field, p.Field)
			require.Empty(t, f.calls)
		})
	}
	setup(t, &fake{}).do("POST", settlePath("release"), "reason=x", "Content-Type", "text/plain").
		problem(http.StatusUnsupportedMediaType, earmark.CodeUnsupportedMediaType)
}
