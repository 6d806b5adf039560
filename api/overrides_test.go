package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

const overrideBodyText = `{"amount":500,"reason":"a launch"}`

var (
	overridesPath = "/v1/budgets/" + testBudgetID + "/overrides"
	resetPath     = "/v1/budgets/" + testBudgetID + "/reset"
)

func TestOverrides(t *testing.T) {
	t.Parallel()
	f := &fake{budget: testBudget()}
	b := setup(t, f)
	x := b.do("POST", overridesPath, `{"amount":-500,"effective_at":"2027-01-01T00:00:00Z","expires_at":"2027-01-02T00:00:00+01:00","reason":"a cut"}`, "Idempotency-Key", "k").status(http.StatusCreated)
	require.Equal(t, earmark.OverrideID(testBudgetID, "k"), decoded[earmark.Override](x).ID)
	request := f.last().(earmark.OverrideRequest)
	require.EqualValues(t, -500, request.Amount)
	require.Equal(t, "2027-01-02T00:00:00+01:00", request.ExpiresAt.Format("2006-01-02T15:04:05Z07:00"))
	require.Empty(t, x.resp.Header.Get("Idempotency-Hit"))

	x = b.do("POST", resetPath, `{"reason":"an outage"}`, "Idempotency-Key", "again").status(http.StatusCreated)
	require.Equal(t, "true", x.resp.Header.Get("Idempotency-Hit"))
	require.True(t, decoded[earmark.Override](x).Replayed)

	b.do("POST", overridesPath+"/"+earmark.OverrideID(testBudgetID, "k")+"/end", `{"reason":"over"}`).status(http.StatusOK)
	require.Equal(t, "over", f.last())
	b.do("POST", overridesPath+"/none/end", `{"reason":"over"}`).problem(http.StatusNotFound, earmark.CodeNotFound)
	b.do("GET", overridesPath+"?limit=3&cursor=c", "").status(http.StatusOK)
	require.Equal(t, earmark.PageFilter{Cursor: "c", Limit: 3}, f.last())
}

func TestOverridesRefuseBadInput(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ body, field string }{
		{`{"reason":"r"}`, "amount"},
		{`{"amount":0,"reason":"r"}`, "amount"},
		{`{"amount":-9223372036854775808,"reason":"r"}`, "amount"},
		{`{"amount":1.5,"reason":"r"}`, "amount"},
		{`{"amount":1}`, "reason"},
		{`{"amount":1,"reason":"` + strings.Repeat("x", 513) + `"}`, "reason"},
		{`{"amount":1,"reason":"r","expires_at":"tomorrow"}`, "expires_at"},
		{`{"amount":1,"reason":"r","expires_at":"2200-01-01T00:00:00Z"}`, "expires_at"},
		{`{"amount":1,"reason":"r","effective_at":"9999-12-31T23:59:59-12:00"}`, "effective_at"}, // the year 10000 in UTC
		{`{"amount":1,"reason":"r","effective_at":"0000-01-01T00:00:00Z"}`, "effective_at"},
		{`{"amount":1,"reason":"r","effective_at":"2027-01-02T00:00:00Z","expires_at":"2027-01-02T00:00:00Z"}`, "expires_at"},
		{`{"amount":1,"reason":"r","windows":0}`, "windows"},
		{`{"amount":1,"reason":"r","windows":401}`, "windows"},
		{`{"amount":1,"reason":"r","windows":1,"expires_at":"2027-01-02T00:00:00Z"}`, "windows"},
		{`{"amount":1,"reason":"r","until":"2027-01-02T00:00:00Z"}`, "until"},
	} {
		f := &fake{budget: testBudget()}
		p := setup(t, f).do("POST", overridesPath, test.body, "Idempotency-Key", "k").problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
		require.Equal(t, test.field, p.Field, test.body)
		require.Empty(t, f.calls)
	}
	b := setup(t, &fake{budget: testBudget()})
	for path, body := range map[string]string{overridesPath: overrideBodyText, resetPath: `{"reason":"r"}`} {
		require.Equal(t, "Idempotency-Key", b.do("POST", path, body).problem(http.StatusBadRequest, earmark.CodeInvalidRequest).Field)
		b.do("POST", path, body, "Idempotency-Key", "none").problem(http.StatusNotFound, earmark.CodeNotFound)
	}
	require.Equal(t, "reason", b.do("POST", resetPath, `{}`, "Idempotency-Key", "k").problem(http.StatusBadRequest, earmark.CodeInvalidRequest).Field)
	for _, id := range []string{"x", testReservationID} {
		for path, body := range map[string]string{"/overrides": overrideBodyText, "/reset": `{"reason":"r"}`, "/overrides/x/end": `{"reason":"r"}`} {
			b.do("POST", "/v1/budgets/"+id+path, body, "Idempotency-Key", "k").problem(http.StatusNotFound, earmark.CodeNotFound)
		}
		b.do("GET", "/v1/budgets/"+id+"/overrides", "").problem(http.StatusNotFound, earmark.CodeNotFound)
	}
}

// A key that is bound to other scopes is answered as if the budget did not exist, and nothing changes.
func TestOverridesByAKeyBoundToOtherScopes(t *testing.T) {
	t.Parallel()
	f := playingAlong()
	elsewhere := with(f.addKey(earmark.DefaultTenant, earmark.RoleAdmin, boundTo("elsewhere")))
	b := setup(t, f, withKeys)
	for _, call := range []struct{ method, path, body string }{
		{"POST", overridesPath, overrideBodyText}, {"POST", resetPath, `{"reason":"r"}`}, {"POST", overridesPath + "/x/end", `{"reason":"r"}`}, {"GET", overridesPath, ""},
	} {
		b.do(call.method, call.path, call.body, append([]string{"Idempotency-Key", "k"}, elsewhere...)...).problem(http.StatusNotFound, earmark.CodeNotFound)
	}
	require.NotContains(t, f.names(), "CreateOverride")
	require.NotContains(t, f.names(), "ResetBudget")
	require.NotContains(t, f.names(), "EndOverride")
	require.NotContains(t, f.names(), "Overrides")
}
