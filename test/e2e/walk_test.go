//go:build unix

package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

// The walk of a first user: a budget, a hold, what a replay and a denial look
// like, the charge, and the journal.
func TestWalk(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{}, "--ui-url", "http://127.0.0.1:8233")
	created := b.do("POST", "/v1/budgets", `{"scope":"acme/ml","unit":"tokens","limit":1000}`).status(t, http.StatusCreated)
	budget := decoded[earmark.Budget](t, created)
	require.Equal(t, "/v1/budgets/"+budget.ID, created.header.Get("Location"))
	require.EqualValues(t, 1000, budget.Balance.Available)
	b.do("POST", "/v1/budgets", `{"scope":"acme/ml","unit":"tokens","limit":7}`).problem(t, http.StatusConflict, earmark.CodeBudgetExists)

	const body = `{"scopes":["acme/ml/u1"],"amounts":{"tokens":600},"ttl_seconds":120,"metadata":{"model":"large"}}`
	x := b.do("POST", "/v1/reservations", body, "Idempotency-Key", "chat-1").status(t, http.StatusCreated)
	require.Empty(t, x.header.Get("Idempotency-Hit"))
	held := decoded[earmark.Reservation](t, x)
	require.Equal(t, "/v1/reservations/"+held.ID, x.header.Get("Location"))
	require.Equal(t, earmark.ReservationID(earmark.DefaultTenant, "chat-1"), held.ID)
	require.Equal(t, earmark.StateHeld, held.State)
	require.Equal(t, "reservation-"+held.ID, held.WorkflowID)
	require.Contains(t, held.UIURL, "http://127.0.0.1:8233/")
	require.Equal(t, earmark.Metadata{"model": "large"}, held.Metadata)
	require.Len(t, held.Budgets, 1)
	require.Equal(t, budget.ID, held.Budgets[0].BudgetID)
	require.EqualValues(t, 600, held.Budgets[0].Reserved)
	require.WithinDuration(t, held.CreatedAt.Add(2*time.Minute), *held.ExpiresAt, time.Second)
	b.requireBalance(budget.ID, 600, 0)

	x = b.do("POST", "/v1/reservations", body, "Idempotency-Key", "chat-1").status(t, http.StatusCreated)
	require.Equal(t, "true", x.header.Get("Idempotency-Hit"))
	require.Equal(t, held.ID, decoded[earmark.Reservation](t, x).ID)
	b.do("POST", "/v1/reservations", tokens("acme/ml/u1", 601, 120), "Idempotency-Key", "chat-1").
		problem(t, http.StatusUnprocessableEntity, earmark.CodeIdempotencyMismatch)
	b.requireBalance(budget.ID, 600, 0)

	x = b.do("POST", "/v1/reservations", tokens("acme/ml/u2", 500, 120), "Idempotency-Key", "chat-2")
	denial := x.problem(t, http.StatusPaymentRequired, earmark.CodeBudgetExceeded)
	require.Equal(t, []earmark.Violation{{BudgetID: budget.ID, Scope: "acme/ml", Unit: "tokens", Limit: 1000, Reserved: 600, Available: 400, Requested: 500}}, denial.Violations)
	require.True(t, *denial.Retryable)
	require.Equal(t, held.ExpiresAt.UTC(), denial.RetryAt.UTC(), "when the hold in the way ends")
	wait, err := strconv.Atoi(x.header.Get("Retry-After"))
	require.NoError(t, err)
	require.Positive(t, wait)
	require.LessOrEqual(t, wait, 120)

	settled := decoded[earmark.Reservation](t, b.commit(held.ID, 430).status(t, http.StatusOK))
	require.Equal(t, earmark.StateCommitted, settled.State)
	require.Equal(t, earmark.Amounts{"tokens": 430}, settled.Usage)
	require.False(t, settled.Late)
	require.NotNil(t, settled.SettledAt)
	b.requireBalance(budget.ID, 0, 430)
	require.Equal(t, settled, decoded[earmark.Reservation](t, b.commit(held.ID, 430).status(t, http.StatusOK)), "repeated")
	conflict := b.commit(held.ID, 431).problem(t, http.StatusConflict, earmark.CodeAlreadySettled)
	require.Equal(t, settled, *conflict.Reservation)
	replay := b.do("POST", "/v1/reservations", body, "Idempotency-Key", "chat-1").problem(t, http.StatusConflict, earmark.CodeAlreadySettled)
	require.Equal(t, settled, *replay.Reservation)
	require.Equal(t, settled, b.reservation(held.ID))

	b.hold("chat-2", tokens("acme/ml/u2", 500, 120)) // a denial does not stick to its key
	journal := b.entries(held.ID)
	require.Len(t, journal, 2)
	require.Equal(t, []any{"reserve", int64(600), int64(0)}, []any{journal[0].Kind, journal[0].ReservedDelta, journal[0].CommittedDelta})
	require.Equal(t, []any{"commit", int64(-600), int64(430)}, []any{journal[1].Kind, journal[1].ReservedDelta, journal[1].CommittedDelta})
}

func TestDenials(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	b.budget("acme", "tokens", 1000)
	monthly := decoded[earmark.Budget](t, b.do("POST", "/v1/budgets",
		`{"scope":"beta","unit":"tokens","limit":100,"window":{"period":"month","timezone":"Europe/Berlin"}}`).status(t, http.StatusCreated))

	p := b.do("POST", "/v1/reservations", tokens("acmecorp", 1, 60)).problem(t, http.StatusNotFound, earmark.CodeNoBudget)
	require.Equal(t, "scopes", p.Field)
	require.Contains(t, p.Detail, "acmecorp")
	p = b.do("POST", "/v1/reservations", `{"scopes":["acme"],"amounts":{"tokens":1,"requests":1}}`).
		problem(t, http.StatusUnprocessableEntity, earmark.CodeUnitNotBudgeted)
	require.Equal(t, "amounts.requests", p.Field)

	// More than the limit helps nobody to wait for; a window's end does, once it is spent.
	x := b.do("POST", "/v1/reservations", tokens("acme", 1001, 60))
	p = x.problem(t, http.StatusPaymentRequired, earmark.CodeBudgetExceeded)
	require.False(t, *p.Retryable)
	require.Nil(t, p.RetryAt)
	require.Empty(t, x.header.Get("Retry-After"))
	b.do("POST", "/v1/usage", `{"scopes":["beta"],"amounts":{"tokens":90}}`, "Idempotency-Key", "spent").status(t, http.StatusCreated)
	x = b.do("POST", "/v1/reservations", tokens("beta", 11, 60))
	p = x.problem(t, http.StatusPaymentRequired, earmark.CodeBudgetExceeded)
	require.True(t, *p.Retryable)
	require.NotEmpty(t, x.header.Get("Retry-After"))
	require.NotNil(t, p.RetryAt)
	require.True(t, p.RetryAt.Equal(*monthly.Balance.WindowEnd))

	decision := decoded[earmark.Decision](t, b.do("POST", "/v1/decisions", tokens("beta", 10, 60)).status(t, http.StatusOK))
	require.True(t, decision.Admitted)
	decision = decoded[earmark.Decision](t, b.do("POST", "/v1/decisions", tokens("beta", 11, 60)).status(t, http.StatusOK))
	require.False(t, decision.Admitted)
	require.Len(t, decision.Violations, 1)
	b.do("POST", "/v1/decisions", tokens("gamma", 11, 60)).problem(t, http.StatusNotFound, earmark.CodeNoBudget)
	b.requireBalance(monthly.ID, 0, 90)
}

// A request under several budgets holds on each of them, or on none.
func TestSeveralBudgets(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	wide, narrow, money := b.budget("acme", "tokens", 1000), b.budget("acme/ml", "tokens", 100), b.budget("acme", "usd_micros", 5000)
	const body = `{"scopes":["acme/ml/u1","acme/ml/u2"],"amounts":{"tokens":60,"usd_micros":3000}}`
	held := b.hold("one", body)
	require.Len(t, held.Budgets, 3, "a budget that is met twice counts once")
	denial := b.do("POST", "/v1/reservations", body, "Idempotency-Key", "two").problem(t, http.StatusPaymentRequired, earmark.CodeBudgetExceeded)
	require.Len(t, denial.Violations, 2)
	for id, reserved := range map[string]int64{wide: 60, narrow: 60, money: 3000} {
		b.requireBalance(id, reserved, 0)
	}
	p := b.commit(held.ID, 5).problem(t, http.StatusBadRequest, earmark.CodeInvalidRequest)
	require.Equal(t, "usage.usd_micros", p.Field, "usage is in exactly the reserved units")
	b.do("POST", "/v1/reservations/"+held.ID+"/commit", `{"usage":{"tokens":100,"usd_micros":0}}`).status(t, http.StatusOK)
	for id, committed := range map[string]int64{wide: 100, narrow: 100, money: 0} {
		b.requireBalance(id, 0, committed)
	}
}

func TestReleaseAndExtend(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	budget := b.budget("acme", "tokens", 1000)
	held := b.hold("released", tokens("acme", 400, 60))
	path := "/v1/reservations/" + held.ID
	extended := decoded[earmark.Reservation](t, b.do("POST", path+"/extend", `{"ttl_seconds":600}`).status(t, http.StatusOK))
	require.WithinDuration(t, time.Now().Add(10*time.Minute), *extended.ExpiresAt, time.Minute)
	shorter := decoded[earmark.Reservation](t, b.do("POST", path+"/extend", `{"ttl_seconds":1}`).status(t, http.StatusOK))
	require.Equal(t, extended.ExpiresAt, shorter.ExpiresAt, "an extension never shortens")

	released := decoded[earmark.Reservation](t, b.do("POST", path+"/release", `{"reason":"the model was not called"}`).status(t, http.StatusOK))
	require.Equal(t, earmark.StateReleased, released.State)
	require.Equal(t, "the model was not called", released.Reason)
	b.do("POST", path+"/release", "").status(t, http.StatusOK) // repeated, without a body
	b.requireBalance(budget, 0, 0)
	b.commit(held.ID, 10).problem(t, http.StatusConflict, earmark.CodeAlreadySettled)
	b.do("POST", path+"/extend", `{"ttl_seconds":60}`).problem(t, http.StatusConflict, earmark.CodeAlreadySettled)
	journal := b.entries(held.ID)
	require.Equal(t, "refuse", journal[len(journal)-1].Kind, "the usage that was refused is in the journal")
	require.Contains(t, journal[len(journal)-1].Reason, "10")
	b.requireBalance(budget, 0, 0)
}

func TestUsage(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	budget := b.budget("acme", "tokens", 100)
	const body = `{"scopes":["acme"],"amounts":{"tokens":130},"metadata":{"job":"nightly"}}`
	first := b.do("POST", "/v1/usage", body, "Idempotency-Key", "usage-1").status(t, http.StatusCreated)
	charged := decoded[earmark.Reservation](t, first)
	require.Equal(t, earmark.StateCommitted, charged.State)
	require.Nil(t, charged.ExpiresAt)
	again := b.do("POST", "/v1/usage", body, "Idempotency-Key", "usage-1").status(t, http.StatusCreated)
	require.Equal(t, "true", again.header.Get("Idempotency-Hit"))
	charged.Replayed = true
	require.Equal(t, charged, decoded[earmark.Reservation](t, again))
	b.requireBalance(budget, 0, 130) // it was spent, whatever the limit says
	b.do("POST", "/v1/usage", `{"scopes":["acme"],"amounts":{"tokens":131}}`, "Idempotency-Key", "usage-1").
		problem(t, http.StatusUnprocessableEntity, earmark.CodeIdempotencyMismatch)
	b.do("POST", "/v1/reservations", tokens("acme", 130, 60), "Idempotency-Key", "usage-1").
		problem(t, http.StatusUnprocessableEntity, earmark.CodeIdempotencyMismatch)
	p := b.do("POST", "/v1/usage", body).problem(t, http.StatusBadRequest, earmark.CodeInvalidRequest)
	require.Equal(t, "Idempotency-Key", p.Field)
	b.requireBalance(budget, 0, 130)
}

func TestOverage(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	for _, policy := range []string{"allow_with_overdraft", "allow_if_available", "reject"} {
		body := `{"scope":"` + policy + `","unit":"tokens","limit":100,"overage":"` + policy + `"}`
		budget := decoded[earmark.Budget](t, b.do("POST", "/v1/budgets", body).status(t, http.StatusCreated)).ID
		held := b.hold(policy, tokens(policy, 80, 60))
		x := b.commit(held.ID, 150)
		switch policy {
		case "allow_with_overdraft":
			require.Equal(t, earmark.Amounts{"tokens": 70}, decoded[earmark.Reservation](t, x.status(t, http.StatusOK)).Overage)
			b.requireBalance(budget, 0, 150)
		case "allow_if_available":
			require.Equal(t, earmark.Amounts{"tokens": 50}, decoded[earmark.Reservation](t, x.status(t, http.StatusOK)).Shortfall)
			b.requireBalance(budget, 0, 100)
		case "reject":
			p := x.problem(t, http.StatusConflict, earmark.CodeOverageRejected)
			require.Equal(t, earmark.Amounts{"tokens": 150}, p.Reservation.RejectedUsage)
			require.Equal(t, earmark.OnExpiryReview, p.Reservation.OnExpiry)
			b.requireBalance(budget, 80, 0)
			b.commit(held.ID, 80).status(t, http.StatusOK)
			b.requireBalance(budget, 0, 80)
		}
	}
}

func TestBudgets(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	wide, narrow, other := b.budget("acme", "tokens", 1000), b.budget("acme/ml", "tokens", 100), b.budget("acmecorp", "tokens", 1)
	ids := func(query string) (found []string) {
		for _, budget := range decoded[earmark.Page[earmark.Budget]](t, b.do("GET", "/v1/budgets"+query, "").status(t, http.StatusOK)).Data {
			found = append(found, budget.ID)
		}
		return found
	}
	require.Equal(t, []string{other, narrow, wide}, ids(""), "newest first")
	require.Equal(t, []string{narrow}, ids("?scope=acme/ml"))
	require.ElementsMatch(t, []string{narrow, wide}, ids("?covering=acme/ml/u1"))
	require.Empty(t, ids("?scope=acme/none"))

	patched := decoded[earmark.Budget](t, b.do("PATCH", "/v1/budgets/"+wide, `{"limit":50,"enforcement":"soft","soft_ceiling":60}`).status(t, http.StatusOK))
	require.EqualValues(t, 50, patched.Balance.Limit)
	held := b.hold("soft", tokens("acme", 55, 60))
	require.True(t, held.OverLimit)
	b.do("POST", "/v1/reservations", tokens("acme", 6, 60)).problem(t, http.StatusPaymentRequired, earmark.CodeBudgetExceeded)
	b.do("PATCH", "/v1/budgets/"+wide, `{"soft_ceiling":null}`).status(t, http.StatusOK)
	b.hold("no ceiling", tokens("acme", 60, 60))
	b.do("PATCH", "/v1/budgets/"+wide, `{"soft_ceiling":1}`).problem(t, http.StatusBadRequest, earmark.CodeInvalidRequest)

	archived := decoded[earmark.Budget](t, b.do("DELETE", "/v1/budgets/"+wide, "").status(t, http.StatusOK))
	require.NotNil(t, archived.ArchivedAt)
	require.Equal(t, archived.ArchivedAt, decoded[earmark.Budget](t, b.do("DELETE", "/v1/budgets/"+wide, "").status(t, http.StatusOK)).ArchivedAt)
	b.do("POST", "/v1/reservations", tokens("acme", 1, 60)).problem(t, http.StatusNotFound, earmark.CodeNoBudget)
	b.commit(held.ID, 40).status(t, http.StatusOK) // open holds settle
	b.requireBalance(wide, 60, 40)
	b.budget("acme", "tokens", 5) // its place is free
	missing := earmark.NewBudgetID()
	for _, method := range []string{"GET", "DELETE"} {
		b.do(method, "/v1/budgets/"+missing, "").problem(t, http.StatusNotFound, earmark.CodeNotFound)
	}
	b.do("PATCH", "/v1/budgets/"+missing, `{"limit":1}`).problem(t, http.StatusNotFound, earmark.CodeNotFound)
}

func TestLists(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	budget := b.budget("acme", "tokens", 1000)
	var held []string
	for i, scope := range []string{"acme/a", "acme/b", "acme/b/c", "acme/bc", "acme/d"} {
		held = append(held, b.hold(scope, tokens(scope, int64(i+1), 60)).ID)
	}
	b.commit(held[0], 1).status(t, http.StatusOK)
	list := func(query string) (found []string) { // all pages
		for cursor := ""; ; {
			page := decoded[earmark.Page[earmark.Reservation]](t, b.do("GET", "/v1/reservations?limit=2"+query+"&cursor="+cursor, "").status(t, http.StatusOK))
			require.LessOrEqual(t, len(page.Data), 2)
			for _, reservation := range page.Data {
				found = append(found, reservation.ID)
			}
			if cursor = page.NextCursor; cursor == "" {
				return found
			}
		}
	}
	require.Equal(t, []string{held[4], held[3], held[2], held[1], held[0]}, list(""))
	require.Equal(t, []string{held[4], held[3], held[2], held[1]}, list("&state=held"))
	require.Equal(t, []string{held[0]}, list("&state=committed"))
	require.Equal(t, []string{held[2], held[1]}, list("&scope=acme/b"))
	require.Empty(t, list("&overdue=true"))
	require.Empty(t, list("&orphan=true"))

	var deltas int64
	for cursor := ""; ; {
		page := decoded[earmark.Page[earmark.Entry]](t, b.do("GET", "/v1/entries?limit=3&budget_id="+budget+"&cursor="+cursor, "").status(t, http.StatusOK))
		for _, entry := range page.Data {
			deltas += entry.ReservedDelta
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	require.EqualValues(t, 2+3+4+5, deltas, "the journal adds up to the balance (R3)")
	b.requireBalance(budget, deltas, 1)
}

func TestService(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	require.JSONEq(t, `{"status":"ok","version":"dev","commit":""}`, string(b.do("GET", "/healthz", "").status(t, http.StatusOK).body))
	ready := b.do("GET", "/readyz", "").status(t, http.StatusOK)
	require.JSONEq(t, `{"status":"ready","checks":{"postgres":{"status":"up","detail":""},"temporal":{"status":"up","detail":""},"worker":{"status":"up","detail":""}}}`, string(ready.body))
	document, err := os.ReadFile(documentPath)
	require.NoError(t, err)
	require.Equal(t, string(document), string(b.do("GET", "/openapi.yaml", "").status(t, http.StatusOK).body))
	b.budget("acme", "tokens", 10)
	b.hold("one", tokens("acme", 7, 60))
	b.do("POST", "/v1/reservations", tokens("acme", 7, 60)).status(t, http.StatusPaymentRequired)
	metrics := string(b.do("GET", "/metrics", "").status(t, http.StatusOK).body)
	require.Contains(t, metrics, `earmark_admissions_total{outcome="applied"} 1`)
	require.Contains(t, metrics, `earmark_admissions_total{outcome="denied"} 1`)
	require.Contains(t, metrics, "go_goroutines")

	head := b.do("HEAD", "/v1/budgets", "").status(t, http.StatusOK)
	require.Empty(t, head.body)
	b.do("GET", "/v1/nothing", "").problem(t, http.StatusNotFound, earmark.CodeNotFound)
	x := b.do("PUT", "/v1/budgets", "{}")
	x.problem(t, http.StatusMethodNotAllowed, earmark.CodeMethodNotAllowed)
	require.Contains(t, x.header.Get("Allow"), "POST")
	missing := "/v1/reservations/" + earmark.NewReservationID()
	b.do("GET", missing, "").problem(t, http.StatusNotFound, earmark.CodeNotFound)
	b.do("POST", missing+"/commit", `{"usage":{"tokens":1}}`).problem(t, http.StatusNotFound, earmark.CodeNotFound)
	b.do("POST", missing+"/release", "").problem(t, http.StatusNotFound, earmark.CodeNotFound)
	b.do("POST", missing+"/extend", `{"ttl_seconds":1}`).problem(t, http.StatusNotFound, earmark.CodeNotFound)
	b.MustRun("health", "--url", b.base)
}

// What is refused is refused whole: nothing of it is written anywhere.
func TestNonsenseWritesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{})
	budget := b.budget("acme", "tokens", 1000)
	held := b.hold("held", tokens("acme", 100, 60))
	snapshot := func() string {
		var all string
		require.NoError(t, b.Pool().QueryRow(t.Context(), `SELECT jsonb_build_array((SELECT jsonb_agg(b ORDER BY id) FROM earmark.budgets b),
			(SELECT jsonb_agg(r ORDER BY id) FROM earmark.reservations r), (SELECT jsonb_agg(w) FROM earmark.windows w),
			(SELECT jsonb_agg(e ORDER BY id) FROM earmark.entries e))::text`).Scan(&all))
		return all
	}
	before := snapshot()
	path := "/v1/reservations/" + held.ID
	deep := strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)
	for _, c := range []struct{ target, body string }{
		{"/v1/budgets", `{}`}, {"/v1/budgets", `[]`}, {"/v1/budgets", `null`}, {"/v1/budgets", ``}, {"/v1/budgets", `{"scope":"a"`},
		{"/v1/budgets", `{"scope":"a","unit":"tokens","limit":-1}`}, {"/v1/budgets", `{"scope":"a","unit":"tokens","limit":1.5}`},
		{"/v1/budgets", `{"scope":"a","unit":"tokens","limit":1e3}`}, {"/v1/budgets", `{"scope":"a","unit":"tokens","limit":"5"}`},
		{"/v1/budgets", `{"scope":"a","unit":"tokens","limit":9223372036854775808}`}, {"/v1/budgets", `{"scope":"a","unit":"tokens","limit":null}`},
		{"/v1/budgets", `{"scope":"a//b","unit":"tokens","limit":1}`}, {"/v1/budgets", `{"scope":"/a","unit":"tokens","limit":1}`},
		{"/v1/budgets", `{"scope":"a b","unit":"tokens","limit":1}`}, {"/v1/budgets", `{"scope":"a","unit":"Tokens","limit":1}`},
		{"/v1/budgets", `{"scope":"a","unit":"tokens","limit":1,"window":{"period":"fortnight"}}`},
		{"/v1/budgets", `{"scope":"a","unit":"tokens","limit":1,"window":{"period":"day","timezone":"Mars/Olympus"}}`},
		{"/v1/budgets", `{"scope":"a","unit":"tokens","limit":1,"soft_ceiling":5}`}, {"/v1/budgets", `{"scope":"a","unit":"tokens","limit":1,"Limit":5}`},
		{"/v1/budgets", `{"scope":"a","unit":"tokens","limit":1} {}`}, {"/v1/budgets", `{"scope":"a","unit":"tokens","limit":1,"limit":2}`},
		{"/v1/budgets", "{\"scope\":\"a\xff\",\"unit\":\"tokens\",\"limit\":1}"}, {"/v1/budgets?dry=1", `{"scope":"a","unit":"tokens","limit":1}`},
		{"/v1/reservations", deep}, {"/v1/reservations", `{"scopes":[],"amounts":{"tokens":1}}`}, {"/v1/reservations", `{"scopes":"acme","amounts":{"tokens":1}}`},
		{"/v1/reservations", `{"scopes":["acme"],"amounts":{}}`}, {"/v1/reservations", `{"scopes":["acme"],"amounts":{"tokens":-1}}`},
		{"/v1/reservations", `{"scopes":["acme"],"amounts":{"tokens":-5}}`}, {"/v1/reservations", `{"scopes":["acme"],"amounts":{"tokens":1},"ttl_seconds":0}`},
		{"/v1/reservations", `{"scopes":["acme"],"amounts":{"tokens":1},"ttl_seconds":604801}`}, {"/v1/reservations", `{"scopes":["acme"],"amounts":{"tokens":1},"on_expiry":"explode"}`},
		{"/v1/reservations", `{"scopes":["acme"],"amounts":{"tokens":1},"metadata":{"a":"\u0000"}}`}, {"/v1/reservations", `{"scopes":["acme"],"amounts":{"tokens":1},"ttl":5}`},
		{"/v1/reservations", `{"scopes":["acme","acme","acme","acme","acme","acme","acme","acme","acme"],"amounts":{"tokens":1}}`},
		{path + "/commit", `{}`}, {path + "/commit", `{"usage":{}}`}, {path + "/commit", `{"usage":{"tokens":-1}}`}, {path + "/commit", `{"usage":{"tokens":null}}`},
		{path + "/commit", `{"usage":{"tokens":1,"requests":1}}`}, {path + "/commit", `{"usage":{"requests":1}}`}, {path + "/commit", `{"usage":{"tokens":9223372036854775807000}}`},
		{path + "/extend", `{}`}, {path + "/extend", `{"ttl_seconds":0}`}, {path + "/extend", `{"ttl_seconds":604801}`}, {path + "/release", `{"reason":5}`},
		{path + "/release", `{"why":"x"}`}, {"/v1/usage", `{"scopes":["acme"],"amounts":{"tokens":-1}}`}, {"/v1/usage", `{"scopes":["acme"],"amounts":{"tokens":1},"ttl_seconds":5}`},
	} {
		b.do("POST", c.target, c.body, "Idempotency-Key", "nonsense").problem(t, http.StatusBadRequest, earmark.CodeInvalidRequest)
	}
	for _, body := range []string{`{}`, `{"limit":-1}`, `{"soft_ceiling":1}`, `{"scope":"b"}`, `{"overage":"maybe"}`} {
		b.do("PATCH", "/v1/budgets/"+budget, body).problem(t, http.StatusBadRequest, earmark.CodeInvalidRequest)
	}
	for _, key := range []string{"é", strings.Repeat("k", 256), "a\tb"} {
		b.do("POST", "/v1/reservations", tokens("acme", 1, 60), "Idempotency-Key", key).problem(t, http.StatusBadRequest, earmark.CodeInvalidRequest)
	}
	for _, query := range []string{"/v1/reservations?state=gone", "/v1/reservations?limit=0", "/v1/reservations?limit=501", "/v1/reservations?cursor=zzz",
		"/v1/reservations?overdue=perhaps", "/v1/budgets?scope=a//b", "/v1/budgets?scope=a&covering=a", "/v1/entries?budget_id=5", "/v1/entries?cursor=-"} {
		b.do("GET", query, "").problem(t, http.StatusBadRequest, earmark.CodeInvalidRequest)
	}
	b.do("POST", "/v1/reservations", tokens("acme", 1, 60), "Content-Type", "text/plain").problem(t, http.StatusUnsupportedMediaType, earmark.CodeUnsupportedMediaType)
	b.do("POST", "/v1/reservations", tokens("acme", 1, 60), "Content-Encoding", "gzip").problem(t, http.StatusUnsupportedMediaType, earmark.CodeUnsupportedMediaType)
	large, err := json.Marshal(map[string]string{"reason": strings.Repeat("x", 65<<10)})
	require.NoError(t, err)
	b.do("POST", path+"/release", string(large)).problem(t, http.StatusRequestEntityTooLarge, earmark.CodePayloadTooLarge)
	require.Equal(t, before, snapshot())
	b.commit(held.ID, 100).status(t, http.StatusOK) // it has not suffered
}
