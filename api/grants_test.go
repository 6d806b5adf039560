package api

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

const grantBodyText = `{"amount":500,"reason":"a top-up"}`

var grantsPath = "/v1/budgets/" + testBudgetID + "/grants"

func TestGrants(t *testing.T) {
	t.Parallel()
	f := &fake{budget: testBudget()}
	b := setup(t, f)
	x := b.do("POST", grantsPath, `{"amount":500,"effective_at":"2027-01-01T00:00:00Z","expires_at":"2027-01-02T00:00:00+01:00","priority":0,"reason":"a top-up"}`, "Idempotency-Key", "k").status(http.StatusCreated)
	require.Equal(t, earmark.GrantID(testBudgetID, "k"), decoded[earmark.Grant](x).ID)
	request := f.last().(earmark.GrantRequest)
	require.EqualValues(t, 500, request.Amount)
	require.Zero(t, *request.Priority)
	require.Equal(t, "2027-01-02T00:00:00+01:00", request.ExpiresAt.Format("2006-01-02T15:04:05Z07:00"))
	require.Empty(t, x.resp.Header.Get("Idempotency-Hit"))

	x = b.do("POST", grantsPath, grantBodyText, "Idempotency-Key", "again").status(http.StatusCreated)
	require.Equal(t, "true", x.resp.Header.Get("Idempotency-Hit"))
	require.True(t, decoded[earmark.Grant](x).Replayed)
	require.EqualValues(t, earmark.DefaultGrantPriority, *f.last().(earmark.GrantRequest).Priority)

	b.do("POST", grantsPath+"/"+earmark.GrantID(testBudgetID, "k")+"/void", `{"reason":"paid back"}`).status(http.StatusOK)
	require.Equal(t, "paid back", f.last())
	b.do("POST", grantsPath+"/none/void", `{"reason":"paid back"}`).problem(http.StatusNotFound, earmark.CodeNotFound)
	b.do("GET", grantsPath+"?limit=3&cursor=c", "").status(http.StatusOK)
	require.Equal(t, earmark.PageFilter{Cursor: "c", Limit: 3}, f.last())
}

func TestGrantsRefuseBadInput(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ body, field string }{
		{`{"reason":"r"}`, "amount"},
		{`{"amount":0,"reason":"r"}`, "amount"},
		{`{"amount":-1,"reason":"r"}`, "amount"},
		{`{"amount":1.5,"reason":"r"}`, "amount"},
		{`{"amount":1}`, "reason"},
		{`{"amount":1,"reason":"r","priority":-1}`, "priority"},
		{`{"amount":1,"reason":"r","priority":101}`, "priority"},
		{`{"amount":1,"reason":"r","expires_at":"tomorrow"}`, "expires_at"},
		{`{"amount":1,"reason":"r","effective_at":"2027-01-02T00:00:00Z","expires_at":"2027-01-02T00:00:00Z"}`, "expires_at"},
		{`{"amount":1,"reason":"r","windows":1}`, "windows"},
	} {
		f := &fake{budget: testBudget()}
		p := setup(t, f).do("POST", grantsPath, test.body, "Idempotency-Key", "k").problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
		require.Equal(t, test.field, p.Field, test.body)
		require.Empty(t, f.calls)
	}
	b := setup(t, &fake{budget: testBudget()})
	require.Equal(t, "Idempotency-Key", b.do("POST", grantsPath, grantBodyText).problem(http.StatusBadRequest, earmark.CodeInvalidRequest).Field)
	b.do("POST", grantsPath, grantBodyText, "Idempotency-Key", "none").problem(http.StatusNotFound, earmark.CodeNotFound)
	require.Equal(t, "reason", b.do("POST", grantsPath+"/x/void", `{}`).problem(http.StatusBadRequest, earmark.CodeInvalidRequest).Field)
	for _, id := range []string{"x", testReservationID} {
		b.do("POST", "/v1/budgets/"+id+"/grants", grantBodyText, "Idempotency-Key", "k").problem(http.StatusNotFound, earmark.CodeNotFound)
		b.do("POST", "/v1/budgets/"+id+"/grants/x/void", `{"reason":"r"}`).problem(http.StatusNotFound, earmark.CodeNotFound)
		b.do("GET", "/v1/budgets/"+id+"/grants", "").problem(http.StatusNotFound, earmark.CodeNotFound)
	}
	for _, body := range []string{`{"scope":"a","unit":"tokens","limit":1,"allowance":"middle"}`, `{"scope":"a","unit":"tokens","limit":1,"allowance":"last","window":{"period":"rolling","rolling_seconds":3600}}`} {
		require.Equal(t, "allowance", b.do("POST", "/v1/budgets", body).problem(http.StatusBadRequest, earmark.CodeInvalidRequest).Field)
	}
}

// A key that is bound to other scopes is answered as if the budget did not exist, and nothing changes.
func TestGrantsByAKeyBoundToOtherScopes(t *testing.T) {
	t.Parallel()
	f := playingAlong()
	elsewhere := with(f.addKey(earmark.DefaultTenant, earmark.RoleAdmin, boundTo("elsewhere")))
	b := setup(t, f, withKeys)
	for _, call := range []struct{ method, path, body string }{
		{"POST", grantsPath, grantBodyText}, {"POST", grantsPath + "/x/void", `{"reason":"r"}`}, {"GET", grantsPath, ""},
	} {
		b.do(call.method, call.path, call.body, append([]string{"Idempotency-Key", "k"}, elsewhere...)...).problem(http.StatusNotFound, earmark.CodeNotFound)
	}
	for _, name := range []string{"CreateGrant", "VoidGrant", "Grants"} {
		require.NotContains(t, f.names(), name)
	}
}
