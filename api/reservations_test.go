package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

const reserveBody = `{"scopes":["acme/ml/u1"],"amounts":{"tokens":1200}}`

func fits() earmark.Preflight {
	return earmark.Preflight{Now: testTime, Result: earmark.Result{Outcome: earmark.OutcomeApplied}}
}

func preflight(result earmark.Result) earmark.Preflight {
	return earmark.Preflight{Now: testTime, Result: result}
}

func TestReserve(t *testing.T) {
	t.Parallel()
	f := &fake{preflight: fits(), result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: reservationIn(earmark.StateHeld)}}
	x := setup(t, f).do("POST", "/v1/reservations", reserveBody, "Idempotency-Key", testKey).status(http.StatusCreated)

	require.Equal(t, "/v1/reservations/"+testReservationID, x.resp.Header.Get("Location"))
	require.Empty(t, x.resp.Header.Get("Idempotency-Hit"))
	require.Equal(t, "no-store", x.resp.Header.Get("Cache-Control"))
	r := decoded[earmark.Reservation](x)
	require.Equal(t, testReservationID, r.ID)
	require.Equal(t, "http://127.0.0.1:8233/namespaces/default/workflows/reservation-"+testReservationID, r.UIURL)
	require.Contains(t, string(x.body), `"metadata":{}`)
	require.Contains(t, string(x.body), `"usage":null`)

	require.Equal(t, []string{"Preflight", "Admit"}, f.names())
	request := earmark.ReservationRequest{
		Scopes: []string{"acme/ml/u1"}, Amounts: earmark.Amounts{"tokens": 1200}, TTLSeconds: 300, OnExpiry: earmark.OnExpiryRelease, Coverage: earmark.CoverageEachScope,
	}
	require.Equal(t, earmark.Admission{
		ID: testReservationID, Tenant: earmark.DefaultTenant, Request: request, RequestHash: request.Hash(),
		WorkflowID: "reservation-" + testReservationID, AdmitBy: testTime,
	}, f.last())
}

// The key travels with the admission, so that the journal can name it.
func TestReserveNamesTheKey(t *testing.T) {
	t.Parallel()
	f := &fake{preflight: fits(), result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: reservationIn(earmark.StateHeld)}}
	token := f.addKey(otherTenant, earmark.RoleReserve)
	setup(t, f, withKeys).send("POST", "/v1/reservations", reserveBody, with(token)...).status(http.StatusCreated)
	require.Equal(t, token.ID, f.last().(earmark.Admission).KeyID)
	require.Equal(t, "workflow key:"+token.ID, f.last().(earmark.Admission).Actor().String())
}

func TestReserveWithoutKeyMakesAnID(t *testing.T) {
	t.Parallel()
	f := &fake{preflight: fits(), result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: reservationIn(earmark.StateHeld)}}
	b := setup(t, f)
	ids := map[string]bool{}
	for range 3 {
		b.do("POST", "/v1/reservations", reserveBody).status(http.StatusCreated)
		id := f.last().(earmark.Admission).ID
		require.True(t, earmark.IsReservationID(id))
		ids[id] = true
	}
	require.Len(t, ids, 3)
}

func TestReserveKeepsWhatTheBodySays(t *testing.T) {
	t.Parallel()
	f := &fake{preflight: fits(), result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: reservationIn(earmark.StateHeld)}}
	setup(t, f).do("POST", "/v1/reservations", `{"scopes":["a","b/c","a"],"amounts":{"tokens":9223372036854775807,"requests":1},
		"ttl_seconds":604800,"on_expiry":"review","require_budget":true,"metadata":{"model":"größe","empty":""}}`,
		"Content-Type", "application/json; charset=utf-8").status(http.StatusCreated)
	require.Equal(t, earmark.ReservationRequest{
		Scopes: []string{"a", "b/c"}, Amounts: earmark.Amounts{"tokens": 9223372036854775807, "requests": 1},
		TTLSeconds: 604800, OnExpiry: earmark.OnExpiryReview, Coverage: earmark.CoverageEachScope, RequireBudget: true, Metadata: earmark.Metadata{"model": "größe", "empty": ""},
	}, f.last().(earmark.Admission).Request)
}

// The advice fits the request: where a scope needs a budget of its own, one above it does not help.
func TestAdviceOnARequiredBudget(t *testing.T) {
	t.Parallel()
	f := &fake{}
	b := setup(t, f)
	for required, want := range map[string]string{"false": "on a scope above it", "true": "of its own"} {
		body := `{"scopes":["acme/ml/u1"],"amounts":{"tokens":5},"require_budget":` + required + `}`
		f.result = earmark.Result{Outcome: earmark.OutcomeNoBudget, Subject: "acme/ml/u1"}
		f.preflight = earmark.Preflight{Result: f.result}
		require.Contains(t, b.do("POST", "/v1/reservations", body).problem(http.StatusNotFound, earmark.CodeNoBudget).Detail, want)
		require.Contains(t, b.do("POST", "/v1/decisions", body).problem(http.StatusNotFound, earmark.CodeNoBudget).Detail, want)
		require.Contains(t, b.do("POST", "/v1/usage", body, "Idempotency-Key", testKey).problem(http.StatusNotFound, earmark.CodeNoBudget).Detail, want)
	}
	f.result = earmark.Result{Outcome: earmark.OutcomeUnitNotBudgeted, Subject: "tokens", Scope: "acme/ml/u1"}
	detail := b.do("POST", "/v1/decisions", `{"scopes":["acme/ml/u1"],"amounts":{"tokens":5},"require_budget":true}`).problem(http.StatusUnprocessableEntity, earmark.CodeUnitNotBudgeted).Detail
	require.Contains(t, detail, `no budget of "acme/ml/u1" itself counts "tokens"`)
}

// A request that breaks a rule is answered before anything is asked.
func TestReserveRefusesBadInput(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 600)
	manyUnits := make([]string, 9)
	for i := range manyUnits {
		manyUnits[i] = fmt.Sprintf(`"u%d":1`, i)
	}
	manyKeys := make([]string, 21)
	for i := range manyKeys {
		manyKeys[i] = fmt.Sprintf(`"k%d":"v"`, i)
	}
	with := func(more string) string {
		return `{"scopes":["acme"],"amounts":{"tokens":1},` + more + `}`
	}
	for _, test := range []struct{ name, body, field, detail string }{
		{"no body", ``, "", "the body is empty"},
		{"null", `null`, "", "is null"},
		{"list", `[]`, "", "is a list"},
		{"text", `"x"`, "", "is a text"},
		{"number", `7`, "", "is a number"},
		{"syntax", `{"scopes":["acme"],}`, "", "not JSON"},
		{"syntax in a field", `{"scopes":["acme" "b"]}`, "scopes[1]", "not JSON"},
		{"cut off", `{"scopes":["acme"`, "scopes", "ends in the middle"},
		{"cut off in a text", `{"scopes":["acm`, "scopes[0]", "ends in the middle"},
		{"trailing object", reserveBody + `{}`, "", "goes on"},
		{"trailing rubbish", reserveBody + `x`, "", "goes on"},
		{"not UTF-8", `{"scopes":["` + "\xff" + `"]}`, "", "UTF-8"},
		{"unknown field", with(`"ttl":5`), "ttl", "allowed are scopes, amounts, estimate, coverage, require_budget, ttl_seconds, on_expiry, metadata"},
		{"other case", `{"Scopes":["acme"],"amounts":{"tokens":1}}`, "Scopes", "not a field"},
		{"field twice", with(`"amounts":{"tokens":1000000}`), "amounts", "twice"},
		{"unit twice", `{"scopes":["acme"],"amounts":{"tokens":1,"tokens":2}}`, "amounts.tokens", "twice"},
		{"empty object", `{}`, "scopes", "at least one scope"},
		{"scopes null", `{"scopes":null,"amounts":{"tokens":1}}`, "scopes", "null"},
		{"scopes empty", `{"scopes":[],"amounts":{"tokens":1}}`, "scopes", "at least one"},
		{"scopes a text", `{"scopes":"acme","amounts":{"tokens":1}}`, "scopes", "a list is needed"},
		{"scope a number", `{"scopes":["acme",7],"amounts":{"tokens":1}}`, "scopes[1]", "a text is needed"},
		{"scope null", `{"scopes":[null],"amounts":{"tokens":1}}`, "scopes[0]", "null"},
		{"scope malformed", `{"scopes":["acme","a//b"],"amounts":{"tokens":1}}`, "scopes[1]", "not a scope"},
		{"nine scopes", `{"scopes":["a","b","c","d","e","f","g","h","i"],"amounts":{"tokens":1}}`, "scopes", "at most 8"},
		{"amounts missing", `{"scopes":["acme"]}`, "amounts", "at least one unit"},
		{"amounts empty", `{"scopes":["acme"],"amounts":{}}`, "amounts", "at least one unit"},
		{"amounts a list", `{"scopes":["acme"],"amounts":[1]}`, "amounts", "an object is needed"},
		{"nine units", `{"scopes":["acme"],"amounts":{` + strings.Join(manyUnits, ",") + `}}`, "amounts", "at most 8"},
		{"unit malformed", `{"scopes":["acme"],"amounts":{"Tokens":1}}`, "amounts", "not a unit"},
		{"coverage", `{"scopes":["acme"],"amounts":{"tokens":5},"coverage":"some"}`, "coverage", "any_scope"},
		{"require_budget a text", `{"scopes":["acme"],"amounts":{"tokens":5},"require_budget":"yes"}`, "require_budget", "true or false"},
		{"amount negative", `{"scopes":["acme"],"amounts":{"tokens":-5}}`, "amounts.tokens", "from 0"},
		{"amount null", `{"scopes":["acme"],"amounts":{"tokens":null}}`, "amounts.tokens", "null"},
		{"amount a text", `{"scopes":["acme"],"amounts":{"tokens":"5"}}`, "amounts.tokens", "a whole number is needed"},
		{"amount true", `{"scopes":["acme"],"amounts":{"tokens":true}}`, "amounts.tokens", "a whole number is needed"},
		{"amount an object", `{"scopes":["acme"],"amounts":{"tokens":{"n":1}}}`, "amounts.tokens", "a whole number is needed"},
		{"amount a fraction", `{"scopes":["acme"],"amounts":{"tokens":1.5}}`, "amounts.tokens", "not a whole number"},
		{"amount with .0", `{"scopes":["acme"],"amounts":{"tokens":1.0}}`, "amounts.tokens", "not a whole number"},
		{"amount with exponent", `{"scopes":["acme"],"amounts":{"tokens":1e3}}`, "amounts.tokens", "not a whole number"},
		{"amount over int64", `{"scopes":["acme"],"amounts":{"tokens":9223372036854775808}}`, "amounts.tokens", "out of range"},
		{"ttl 0", with(`"ttl_seconds":0`), "ttl_seconds", "1 to 604800"},
		{"ttl negative", with(`"ttl_seconds":-1`), "ttl_seconds", "1 to 604800"},
		{"ttl over 7 days", with(`"ttl_seconds":604801`), "ttl_seconds", "1 to 604800"},
		{"ttl null", with(`"ttl_seconds":null`), "ttl_seconds", "leave it out or give a whole number"},
		{"on_expiry unknown", with(`"on_expiry":"drop"`), "on_expiry", "release, commit, review"},
		{"on_expiry empty", with(`"on_expiry":""`), "on_expiry", "release, commit, review"},
		{"metadata null", with(`"metadata":null`), "metadata", "null"},
		{"metadata nested", with(`"metadata":{"a":{"b":"c"}}`), "metadata.a", "a text is needed"},
		{"metadata value null", with(`"metadata":{"a":null}`), "metadata.a", "null"},
		{"metadata key empty", with(`"metadata":{"":"x"}`), "metadata", "empty key"},
		{"metadata key long", with(`"metadata":{"` + long + `":"x"}`), "metadata", "512"},
		{"metadata value long", with(`"metadata":{"a":"` + long + `"}`), "metadata.a", "512"},
		{"metadata many keys", with(`"metadata":{` + strings.Join(manyKeys, ",") + `}`), "metadata", "at most 20"},
		{"metadata NUL", with(`"metadata":{"a":"\u0000"}`), "metadata.a", "NUL"},
	} {
		for _, path := range []string{"/v1/reservations", "/v1/decisions"} {
			t.Run(path[4:]+" "+test.name, func(t *testing.T) {
				t.Parallel()
				f := &fake{}
				p := setup(t, f).do("POST", path, test.body).problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
				require.Equal(t, test.field, p.Field)
				require.Contains(t, p.Detail, test.detail)
				require.Empty(t, f.calls)
			})
		}
	}
}

func TestBodyAndHeaderLimits(t *testing.T) {
	t.Parallel()
	tooLarge := `{"scopes":["` + strings.Repeat("a", MaxBodyBytes) + `"]}`
	for _, test := range []struct {
		name, body string
		header     []string
		status     int
		code       earmark.Code
		field      string
	}{
		{"body too large", tooLarge, nil, http.StatusRequestEntityTooLarge, earmark.CodePayloadTooLarge, ""},
		{"body of another type", reserveBody, []string{"Content-Type", "text/plain"}, http.StatusUnsupportedMediaType, earmark.CodeUnsupportedMediaType, "Content-Type"},
		{"body of a form", reserveBody, []string{"Content-Type", "application/x-www-form-urlencoded"}, http.StatusUnsupportedMediaType, earmark.CodeUnsupportedMediaType, "Content-Type"},
		{"body of no type", reserveBody, []string{"Content-Type", ""}, http.StatusUnsupportedMediaType, earmark.CodeUnsupportedMediaType, "Content-Type"},
		{"body compressed", reserveBody, []string{"Content-Encoding", "gzip"}, http.StatusUnsupportedMediaType, earmark.CodeUnsupportedMediaType, "Content-Encoding"},
		{"key empty", reserveBody, []string{"Idempotency-Key", ""}, http.StatusBadRequest, earmark.CodeInvalidRequest, "Idempotency-Key"},
		{"key long", reserveBody, []string{"Idempotency-Key", strings.Repeat("k", 256)}, http.StatusBadRequest, earmark.CodeInvalidRequest, "Idempotency-Key"},
		{"key not ASCII", reserveBody, []string{"Idempotency-Key", "ключ"}, http.StatusBadRequest, earmark.CodeInvalidRequest, "Idempotency-Key"},
		{"two keys", reserveBody, []string{"Idempotency-Key", "a", "Idempotency-Key", "b"}, http.StatusBadRequest, earmark.CodeInvalidRequest, "Idempotency-Key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := &fake{}
			p := setup(t, f).do("POST", "/v1/reservations", test.body, test.header...).problem(test.status, test.code)
			require.Equal(t, test.field, p.Field)
			require.Empty(t, f.calls)
		})
	}
}

func TestBodyOfExactlyTheLimitIsRead(t *testing.T) {
	t.Parallel()
	f := &fake{preflight: fits(), result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: reservationIn(earmark.StateHeld)}}
	body := reserveBody + strings.Repeat(" ", MaxBodyBytes-len(reserveBody))
	setup(t, f).do("POST", "/v1/reservations", body).status(http.StatusCreated)
	setup(t, f).do("POST", "/v1/reservations", body+" ").problem(http.StatusRequestEntityTooLarge, earmark.CodePayloadTooLarge)
}

// What the preflight can answer starts no workflow, and what the workflow answers
// gets the same message.
func TestReserveOutcomes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		result earmark.Result
		status int
		code   earmark.Code
		field  string
	}{
		{"denied", earmark.Result{Outcome: earmark.OutcomeDenied, Decision: testDecision(false)}, 402, earmark.CodeBudgetExceeded, ""},
		{"no budget", earmark.Result{Outcome: earmark.OutcomeNoBudget, Subject: "acme/ml/u1"}, 404, earmark.CodeNoBudget, "scopes"},
		{"unit not budgeted", earmark.Result{Outcome: earmark.OutcomeUnitNotBudgeted, Subject: "tokens"}, 422, earmark.CodeUnitNotBudgeted, "amounts.tokens"},
		{"mismatch", earmark.Result{Outcome: earmark.OutcomeMismatch}, 422, earmark.CodeIdempotencyMismatch, "Idempotency-Key"},
		{"overflow", earmark.Result{Outcome: earmark.OutcomeOverflow, Subject: "tokens"}, 400, earmark.CodeInvalidRequest, "amounts.tokens"},
		{"overflow somewhere", earmark.Result{Outcome: earmark.OutcomeOverflow}, 400, earmark.CodeInvalidRequest, "amounts"},
		{"released first", earmark.Result{Outcome: earmark.OutcomeReleased, Reservation: reservationIn(earmark.StateReleased)}, 409, earmark.CodeAlreadySettled, ""},
		{"too late", earmark.Result{Outcome: earmark.OutcomeTooLate}, 503, earmark.CodeAdmissionUnknown, ""},
		{"committed before", earmark.Result{Outcome: earmark.OutcomeSame, Reservation: reservationIn(earmark.StateCommitted)}, 409, earmark.CodeAlreadySettled, ""},
		{"released before", earmark.Result{Outcome: earmark.OutcomeSame, Reservation: reservationIn(earmark.StateReleased)}, 409, earmark.CodeAlreadySettled, ""},
		{"expired before", earmark.Result{Outcome: earmark.OutcomeSame, Reservation: reservationIn(earmark.StateExpired)}, 410, earmark.CodeReservationExpired, ""},
		{"in review", earmark.Result{Outcome: earmark.OutcomeSame, Reservation: reservationIn(earmark.StateReview)}, 410, earmark.CodeReservationExpired, ""},
		{"lost", earmark.Result{Outcome: earmark.OutcomeUnknown}, 503, earmark.CodeAdmissionUnknown, ""},
		{"same without a row", earmark.Result{Outcome: earmark.OutcomeSame}, 500, earmark.CodeInternal, ""},
		{"not an outcome of it", earmark.Result{Outcome: earmark.OutcomeNotDue}, 500, earmark.CodeInternal, ""},
	} {
		check := func(t *testing.T, f *fake, calls ...string) {
			t.Helper()
			p := setup(t, f).do("POST", "/v1/reservations", reserveBody, "Idempotency-Key", testKey).problem(test.status, test.code)
			require.Equal(t, test.field, p.Field)
			require.Equal(t, calls, f.names())
			if r := test.result.Reservation; r != nil {
				require.Equal(t, r.State, p.Reservation.State)
				require.NotEmpty(t, p.Reservation.UIURL)
			}
		}
		t.Run("preflight "+test.name, func(t *testing.T) {
			t.Parallel()
			check(t, &fake{preflight: preflight(test.result)}, "Preflight")
		})
		t.Run("workflow "+test.name, func(t *testing.T) {
			t.Parallel()
			check(t, &fake{preflight: fits(), result: test.result}, "Preflight", "Admit")
		})
	}
}

func TestReserveReplayOfAHold(t *testing.T) {
	t.Parallel()
	same := earmark.Result{Outcome: earmark.OutcomeSame, Reservation: reservationIn(earmark.StateHeld)}
	for name, f := range map[string]*fake{
		"by the preflight": {preflight: preflight(same)},
		"by the workflow":  {preflight: fits(), result: same},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := setup(t, f).do("POST", "/v1/reservations", reserveBody, "Idempotency-Key", testKey).status(http.StatusCreated)
			require.Equal(t, "true", x.resp.Header.Get("Idempotency-Hit"))
			reservation := decoded[earmark.Reservation](x)
			require.Equal(t, testReservationID, reservation.ID)
			require.True(t, reservation.Replayed)
			require.NotContains(t, string(setup(t, f).do("POST", "/v1/reservations", reserveBody).body), "replayed", "without a key it is this very call")
		})
	}
}

func TestReserveDenial(t *testing.T) {
	t.Parallel()
	deny := func(decision *earmark.Decision) (exchange, problem) {
		result := earmark.Result{Outcome: earmark.OutcomeDenied, Decision: decision}
		x := setup(t, &fake{preflight: preflight(result)}).do("POST", "/v1/reservations", reserveBody)
		return x, x.problem(http.StatusPaymentRequired, earmark.CodeBudgetExceeded)
	}
	x, p := deny(testDecision(false))
	require.Equal(t, testDecision(false).Violations, p.Violations)
	require.False(t, *p.Retryable)
	require.Nil(t, p.RetryAt)
	require.Empty(t, x.resp.Header.Get("Retry-After"))
	require.Contains(t, p.Detail, "1,200 tokens do not fit into the budget on acme/ml: 100 of 1,000 are available")

	for name, test := range map[string]struct {
		wait         time.Duration
		requested    int64
		least, most  int // Retry-After, in seconds
		detailSuffix string
	}{
		"a hold is due":           {-time.Minute, 500, 1, 1, "; it would fit without the open holds; try again when some have settled, or at "},
		"a hold ends soon":        {30 * time.Second, 500, 1, 30, "; it would fit without the open holds; try again when some have settled, or at "},
		"a hold of seven days":    {7 * 24 * time.Hour, 500, 604_000, 604_800, "; it would fit without the open holds; try again when some have settled, or at "},
		"a new window in an hour": {time.Hour, 700, 3_000, 3_600, "; try again at "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			decision, at := testDecision(true), time.Now().Add(test.wait).UTC()
			decision.Violations[0].Requested, decision.RetryAt = test.requested, &at
			x, p := deny(decision)
			require.True(t, *p.Retryable)
			require.Equal(t, at, *p.RetryAt)
			seconds, err := strconv.Atoi(x.resp.Header.Get("Retry-After"))
			require.NoError(t, err)
			require.GreaterOrEqual(t, seconds, test.least)
			require.LessOrEqual(t, seconds, test.most)
			require.True(t, strings.HasSuffix(p.Detail, test.detailSuffix+at.Format(time.RFC3339)), p.Detail)
		})
	}
}

func TestReserveFaults(t *testing.T) {
	t.Parallel()
	unknown := earmark.Errorf(earmark.CodeAdmissionUnknown, "no decision within 2s; the same key is safe to retry")
	unknown.ReservationID = testReservationID
	unknown.RetryAfter = 1500 * time.Millisecond
	for _, test := range []struct {
		name       string
		fake       *fake
		status     int
		code       earmark.Code
		retryAfter string
		calls      []string
	}{
		{"Postgres away", &fake{err: earmark.Errorf(earmark.CodeUnavailable, "postgres: %w", errors.New("dial secret-host"))},
			503, earmark.CodeUnavailable, "1", []string{"Preflight"}},
		{"Temporal away", &fake{preflight: fits(), coordinatorErr: earmark.Errorf(earmark.CodeUnavailable, "temporal is away")},
			503, earmark.CodeUnavailable, "1", []string{"Preflight", "Admit"}},
		{"no decision", &fake{preflight: fits(), coordinatorErr: unknown},
			503, earmark.CodeAdmissionUnknown, "2", []string{"Preflight", "Admit"}},
		{"a bug", &fake{preflight: fits(), coordinatorErr: errors.New("secret-host: nil pointer")},
			500, earmark.CodeInternal, "", []string{"Preflight", "Admit"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, test.fake)
			x := b.do("POST", "/v1/reservations", reserveBody, "Idempotency-Key", testKey)
			p := x.problem(test.status, test.code)
			require.Equal(t, test.retryAfter, x.resp.Header.Get("Retry-After"))
			require.Equal(t, test.calls, test.fake.names())
			require.NotContains(t, p.Detail, "secret-host")
			require.Contains(t, b.log.String(), "call failed")
			require.NotContains(t, b.log.String(), testKey)
			if test.code == earmark.CodeAdmissionUnknown {
				require.Equal(t, testReservationID, p.ReservationID)
			}
		})
	}
}

func TestGetReservation(t *testing.T) {
	t.Parallel()
	f := &fake{reservation: reservationIn(earmark.StateReview)}
	x := setup(t, f).do("GET", "/v1/reservations/"+testReservationID, "").status(http.StatusOK)
	require.Equal(t, earmark.StateReview, decoded[earmark.Reservation](x).State)
	require.Equal(t, testReservationID, f.last())

	setup(t, &fake{}).do("GET", "/v1/reservations/"+testReservationID, "").problem(http.StatusNotFound, earmark.CodeNotFound)
	setup(t, &fake{err: earmark.Errorf(earmark.CodeUnavailable, "away")}).
		do("GET", "/v1/reservations/"+testReservationID, "").problem(http.StatusServiceUnavailable, earmark.CodeUnavailable)
}

// What has not the form of an id cannot exist, whatever the call.
func TestMalformedIDsAreNotFound(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"x", "rsv_", "rsv_" + strings.Repeat("A", 52), testReservationID + "a", testBudgetID, "%00", "a%2Fb", "..%2f"} {
		for _, call := range []struct{ method, path, body string }{
			{"GET", "/v1/reservations/" + id, ""},
			{"POST", "/v1/reservations/" + id + "/commit", `{"usage":{"tokens":1}}`},
			{"POST", "/v1/reservations/" + id + "/release", ""},
			{"POST", "/v1/reservations/" + id + "/extend", `{"ttl_seconds":5}`},
			{"POST", "/v1/reservations/" + id + "/corrections", correctBody},
		} {
			f := &fake{}
			setup(t, f).do(call.method, call.path, call.body).problem(http.StatusNotFound, earmark.CodeNotFound)
			require.Empty(t, f.calls)
		}
	}
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		for _, id := range []string{"x", "bud_", testReservationID, testBudgetID + "a"} {
			f := &fake{}
			setup(t, f).do(method, "/v1/budgets/"+id, `{"limit":1}`).problem(http.StatusNotFound, earmark.CodeNotFound)
			require.Empty(t, f.calls)
		}
	}
}

func TestListReservations(t *testing.T) {
	t.Parallel()
	f := &fake{reservations: earmark.Page[earmark.Reservation]{Data: []earmark.Reservation{*reservationIn(earmark.StateHeld)}, NextCursor: "abc"}}
	b := setup(t, f)
	x := b.do("GET", "/v1/reservations", "").status(http.StatusOK)
	page := decoded[earmark.Page[earmark.Reservation]](x)
	require.Equal(t, "abc", page.NextCursor)
	require.NotEmpty(t, page.Data[0].UIURL)
	require.Equal(t, earmark.ReservationFilter{Limit: 50}, f.last())

	b.do("GET", "/v1/reservations?state=held&scope=acme/ml&overdue=true&orphan=false&cursor=abc&limit=500", "").status(http.StatusOK)
	require.Equal(t, earmark.ReservationFilter{State: earmark.StateHeld, Scope: "acme/ml", Overdue: true, Cursor: "abc", Limit: 500}, f.last())

	f.reservations = earmark.Page[earmark.Reservation]{}
	x = b.do("GET", "/v1/reservations?orphan=true&limit=1", "").status(http.StatusOK)
	require.JSONEq(t, `{"data":[],"next_cursor":""}`, string(x.body))
}

func TestListsRefuseBadQueries(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ target, field string }{
		{"/v1/reservations?limit=0", "limit"},
		{"/v1/reservations?limit=501", "limit"},
		{"/v1/reservations?limit=ten", "limit"},
		{"/v1/reservations?limit=", "limit"},
		{"/v1/reservations?limit=99999999999999999999", "limit"},
		{"/v1/reservations?limit=5&limit=6", "limit"},
		{"/v1/reservations?cursor=" + strings.Repeat("a", 513), "cursor"},
		{"/v1/reservations?cursor=a%00b", "cursor"},
		{"/v1/reservations?state=open", "state"},
		{"/v1/reservations?state=", "state"},
		{"/v1/reservations?scope=a//b", "scope"},
		{"/v1/reservations?scope=", "scope"},
		{"/v1/reservations?overdue=1", "overdue"},
		{"/v1/reservations?overdue=TRUE", "overdue"},
		{"/v1/reservations?orphan=", "orphan"},
		{"/v1/reservations?status=held", "status"},
		{"/v1/reservations?a;b", ""},
		{"/v1/reservations?a=%zz", ""},
		{"/v1/reservations/" + testReservationID + "?expand=1", "expand"},
		{"/v1/budgets?scope=a%20b", "scope"},
		{"/v1/budgets?covering=", "covering"},
		{"/v1/budgets?scope=a&covering=a", "covering"},
		{"/v1/budgets?unit=tokens", "unit"},
		{"/v1/budgets/" + testBudgetID + "?x=1", "x"},
		{"/v1/entries?budget_id=x", "budget_id"},
		{"/v1/entries?budget_id=" + testReservationID, "budget_id"},
		{"/v1/entries?reservation_id=", "reservation_id"},
		{"/v1/entries?limit=-1", "limit"},
		{"/v1/entries?kind=commit", "kind"},
	} {
		t.Run(test.target, func(t *testing.T) {
			t.Parallel()
			f := &fake{}
			p := setup(t, f).do("GET", test.target, "").problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
			require.Equal(t, test.field, p.Field)
			require.Empty(t, f.calls)
		})
	}
	for _, path := range []string{"/v1/reservations", "/v1/decisions", "/v1/usage", "/v1/budgets"} {
		f := &fake{}
		p := setup(t, f).do("POST", path+"?dry_run=true", reserveBody, "Idempotency-Key", testKey).problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
		require.Equal(t, "dry_run", p.Field)
		require.Empty(t, f.calls)
	}
}
