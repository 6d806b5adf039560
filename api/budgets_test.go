package api

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func pointer[T any](value T) *T { return &value }

func TestCreateBudget(t *testing.T) {
	t.Parallel()
	f := &fake{budget: testBudget()}
	b := setup(t, f)
	x := b.do("POST", "/v1/budgets", `{"scope":"acme/ml","unit":"tokens","limit":0}`).status(http.StatusCreated)
	require.Equal(t, "/v1/budgets/"+testBudgetID, x.resp.Header.Get("Location"))
	require.Equal(t, *testBudget(), decoded[earmark.Budget](x))
	require.Equal(t, earmark.BudgetRequest{
		Scope: "acme/ml", Unit: "tokens", Limit: pointer[int64](0),
		Window:      earmark.Window{Period: earmark.PeriodLifetime, Timezone: "UTC", Every: 1},
		Enforcement: earmark.EnforcementHard, Overage: earmark.OverageAllowWithOverdraft, Allowance: earmark.AllowanceFirst,
	}, f.last())

	b.do("POST", "/v1/budgets", `{"scope":"acme","unit":"usd_micros","limit":5,"window":{"period":"month"},
		"enforcement":"soft","soft_ceiling":5,"overage":"reject"}`).status(http.StatusCreated)
	require.Equal(t, earmark.BudgetRequest{
		Scope: "acme", Unit: "usd_micros", Limit: pointer[int64](5), SoftCeiling: pointer[int64](5),
		Window:      earmark.Window{Period: earmark.PeriodMonth, Timezone: "UTC", Every: 1},
		Enforcement: earmark.EnforcementSoft, Overage: earmark.OverageReject, Allowance: earmark.AllowanceFirst,
	}, f.last())

	b.do("POST", "/v1/budgets", `{"scope":"acme","unit":"tokens","limit":5,"window":{"period":"month"},"rollover":{"max":2,"max_total":4}}`).status(http.StatusCreated)
	require.Equal(t, &earmark.Rollover{Max: 2, MaxTotal: pointer[int64](4), Windows: 1}, f.last().(earmark.BudgetRequest).Rollover)

	b.do("POST", "/v1/budgets", `{"scope":"acme","unit":"tokens","limit":5,"enforcement":"soft","soft_ceiling":null,"window":{}}`).status(http.StatusCreated)
	require.Nil(t, f.last().(earmark.BudgetRequest).SoftCeiling)
}

func TestCreateBudgetRefusesBadInput(t *testing.T) {
	t.Parallel()
	with := func(more string) string { return `{"scope":"acme","unit":"tokens","limit":5,` + more + `}` }
	for _, test := range []struct{ body, field string }{
		{`{}`, "scope"},
		{`{"unit":"tokens","limit":5}`, "scope"},
		{`{"scope":"acme","limit":5}`, "unit"},
		{`{"scope":"acme","unit":"tokens"}`, "limit"},
		{`{"scope":"acme","unit":"tokens","limit":null}`, "limit"},
		{`{"scope":"acme","unit":"tokens","limit":-1}`, "limit"},
		{`{"scope":"acme","unit":"tokens","limit":"5"}`, "limit"},
		{`{"scope":"/acme","unit":"tokens","limit":5}`, "scope"},
		{`{"scope":"acme/*/chat","unit":"tokens","limit":5}`, "scope"},
		{`{"scope":"acme/*/*","unit":"tokens","limit":5}`, "scope"},
		{`{"scope":"acme/u*","unit":"tokens","limit":5}`, "scope"},
		{`{"scope":"/*","unit":"tokens","limit":5}`, "scope"},
		{`{"scope":"a/b/c/d/e/f/g/h/*","unit":"tokens","limit":5}`, "scope"},
		{with(`"rollover":{"max":1}`), "rollover"},
		{with(`"window":{"period":"hour"},"rollover":{"max":1}`), "rollover"},
		{with(`"window":{"period":"month"},"rollover":{}`), "rollover.max"},
		{with(`"window":{"period":"month"},"rollover":{"max":0}`), "rollover.max"},
		{with(`"window":{"period":"month"},"rollover":{"max":5,"max_total":4}`), "rollover.max_total"},
		{with(`"window":{"period":"month"},"rollover":{"max":5,"windows":13}`), "rollover.windows"},
		{with(`"window":{"period":"month"},"rollover":{"max":5,"windows":0}`), "rollover.windows"},
		{with(`"window":{"period":"month"},"rollover":null`), "rollover"},
		{with(`"window":null`), "window"},
		{with(`"window":"month"`), "window"},
		{with(`"window":{"period":"decade"}`), "window.period"},
		{with(`"window":{"every":2}`), "window.every"},
		{with(`"window":{"period":"day","every":0}`), "window.every"},
		{with(`"window":{"period":"day","every":1001}`), "window.every"},
		{with(`"window":{"period":"day","every":"2"}`), "window.every"},
		{with(`"window":{"anchor":"2026-01-31T09:00"}`), "window.anchor"},
		{with(`"window":{"period":"rolling"}`), "window.rolling_seconds"},
		{with(`"window":{"period":"rolling","rolling_seconds":90}`), "window.rolling_seconds"},
		{with(`"window":{"rolling_seconds":18000}`), "window.rolling_seconds"},
		{with(`"window":{"period":"month","anchor":"2026-02-30T09:00"}`), "window.anchor"},
		{with(`"window":{"period":"month","anchor":"2026-01-31T09:00:00"}`), "window.anchor"},
		{with(`"window":{"period":"month","anchor":"2026-01-31T09:00+01:00"}`), "window.anchor"},
		{with(`"window":{"period":""}`), "window.period"},
		{with(`"window":{"period":null}`), "window.period"},
		{with(`"window":{"timezone":"Mars/Base"}`), "window.timezone"},
		{with(`"window":{"timezone":""}`), "window.timezone"},
		{with(`"window":{"timezone":"localtime"}`), "window.timezone"},
		{with(`"window":{"timezone":"right/UTC"}`), "window.timezone"},
		{with(`"window":{"timezone":"CET"}`), "window.timezone"},
		{with(`"window":{"start":"now"}`), "window.start"},
		{with(`"enforcement":"firm"`), "enforcement"},
		{with(`"enforcement":""`), "enforcement"},
		{with(`"soft_ceiling":6`), "soft_ceiling"},
		{with(`"enforcement":"soft","soft_ceiling":4`), "soft_ceiling"},
		{with(`"enforcement":"soft","soft_ceiling":true`), "soft_ceiling"},
		{with(`"overage":"ignore"`), "overage"},
		{with(`"id":"bud_x"`), "id"},
		{with(`"window":{"period":"day","period":"hour"}`), "window.period"},
	} {
		t.Run(test.body, func(t *testing.T) {
			t.Parallel()
			f := &fake{}
			p := setup(t, f).do("POST", "/v1/budgets", test.body).problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
			require.Equal(t, test.field, p.Field)
			require.Empty(t, f.calls)
		})
	}
}

// A template is shown as one, and so is a budget that follows it.
func TestTemplates(t *testing.T) {
	t.Parallel()
	f := &fake{budget: testBudget()}
	b := setup(t, f)
	f.budget.Scope, f.budget.Template = "app/users/*", true
	x := b.do("POST", "/v1/budgets", `{"scope":"app/users/*","unit":"tokens","limit":5}`).status(http.StatusCreated)
	require.Equal(t, *f.budget, decoded[earmark.Budget](x))
	require.Equal(t, "app/users/*", f.last().(earmark.BudgetRequest).Scope)
	b.do("POST", "/v1/budgets", `{"scope":"*","unit":"tokens","limit":5}`).status(http.StatusCreated)
	f.budget = testBudget()
	f.budget.TemplateID, f.budget.FollowsTemplate = testBudgetID, true
	require.Equal(t, *f.budget, decoded[earmark.Budget](b.do("GET", "/v1/budgets/"+testBudgetID, "").status(http.StatusOK)))
	// No request is on the scope of a template.
	require.Equal(t, "scopes[0]", b.do("POST", "/v1/decisions", `{"scopes":["app/users/*"],"amounts":{"tokens":1}}`).problem(http.StatusBadRequest, earmark.CodeInvalidRequest).Field)
}

func TestCreateBudgetThatExists(t *testing.T) {
	t.Parallel()
	f := &fake{err: earmark.Errorf(earmark.CodeBudgetExists, "a budget on acme in tokens for a lifetime exists")}
	setup(t, f).do("POST", "/v1/budgets", `{"scope":"acme","unit":"tokens","limit":5}`).problem(http.StatusConflict, earmark.CodeBudgetExists)
}

func TestListBudgets(t *testing.T) {
	t.Parallel()
	f := &fake{budgets: earmark.Page[earmark.Budget]{Data: []earmark.Budget{*testBudget()}, NextCursor: "n"}}
	b := setup(t, f)
	x := b.do("GET", "/v1/budgets?scope=acme/ml&cursor=c&limit=2", "").status(http.StatusOK)
	require.Equal(t, f.budgets, decoded[earmark.Page[earmark.Budget]](x))
	require.Equal(t, earmark.BudgetFilter{Scope: "acme/ml", Cursor: "c", Limit: 2}, f.last())

	b.do("GET", "/v1/budgets?covering=acme/ml/u1&cursor=", "").status(http.StatusOK)
	require.Equal(t, earmark.BudgetFilter{Covering: "acme/ml/u1", Limit: 50}, f.last())
	b.do("GET", "/v1/budgets?scope=acme/*&template_id="+testBudgetID, "").status(http.StatusOK)
	require.Equal(t, earmark.BudgetFilter{Scope: "acme/*", TemplateID: testBudgetID, Limit: 50}, f.last())
	for field, query := range map[string]string{"scope": "scope=*/acme", "covering": "covering=acme/*", "template_id": "template_id=bud_x"} {
		require.Equal(t, field, b.do("GET", "/v1/budgets?"+query, "").problem(http.StatusBadRequest, earmark.CodeInvalidRequest).Field)
	}

	f.budgets = earmark.Page[earmark.Budget]{}
	require.JSONEq(t, `{"data":[],"next_cursor":""}`, string(b.do("GET", "/v1/budgets", "").status(http.StatusOK).body))

	// A cursor that is not one of the ledger's own is the ledger's to refuse.
	bad := earmark.Errorf(earmark.CodeInvalidRequest, "is not a cursor")
	bad.Field = "cursor"
	f.err = bad
	require.Equal(t, "cursor", b.do("GET", "/v1/budgets?cursor=x", "").problem(http.StatusBadRequest, earmark.CodeInvalidRequest).Field)
}

func TestListWindows(t *testing.T) {
	t.Parallel()
	f := &fake{budget: testBudget(), windows: earmark.Page[earmark.Balance]{Data: []earmark.Balance{testBudget().Balance}, NextCursor: "n"}}
	b := setup(t, f)
	path := "/v1/budgets/" + testBudgetID + "/windows"
	x := b.do("GET", path+"?cursor=c&limit=2", "").status(http.StatusOK)
	require.Equal(t, f.windows, decoded[earmark.Page[earmark.Balance]](x))
	require.Equal(t, earmark.WindowFilter{Cursor: "c", Limit: 2}, f.last())
	f.windows = earmark.Page[earmark.Balance]{}
	require.JSONEq(t, `{"data":[],"next_cursor":""}`, string(b.do("GET", path, "").status(http.StatusOK).body))
	require.Equal(t, "limit", b.do("GET", path+"?limit=501", "").problem(http.StatusBadRequest, earmark.CodeInvalidRequest).Field)
	b.do("GET", "/v1/budgets/bud_x/windows", "").problem(http.StatusNotFound, earmark.CodeNotFound)
	f.budget = nil
	b.do("GET", path, "").problem(http.StatusNotFound, earmark.CodeNotFound)
}

func TestOneBudget(t *testing.T) {
	t.Parallel()
	for _, call := range []struct{ method, body, name string }{
		{"GET", "", "Budget"}, {"PATCH", `{"limit":7}`, "PatchBudget"}, {"DELETE", "", "ArchiveBudget"},
	} {
		f := &fake{budget: testBudget()}
		f.budget.ArchivedAt = &testTime
		x := setup(t, f).do(call.method, "/v1/budgets/"+testBudgetID, call.body).status(http.StatusOK)
		require.Equal(t, *f.budget, decoded[earmark.Budget](x))
		require.Equal(t, []string{call.name}, f.names())

		setup(t, &fake{}).do(call.method, "/v1/budgets/"+testBudgetID, call.body).problem(http.StatusNotFound, earmark.CodeNotFound)
		setup(t, &fake{err: earmark.Errorf(earmark.CodeUnavailable, "away")}).
			do(call.method, "/v1/budgets/"+testBudgetID, call.body).problem(http.StatusServiceUnavailable, earmark.CodeUnavailable)
	}
}

// Null removes the ceiling; left out leaves it.
func TestPatchBudgetTellsNullFromLeftOut(t *testing.T) {
	t.Parallel()
	f := &fake{budget: testBudget()}
	b := setup(t, f)
	patch := func(body string) earmark.BudgetPatch {
		b.do("PATCH", "/v1/budgets/"+testBudgetID, body).status(http.StatusOK)
		return f.last().(earmark.BudgetPatch)
	}
	unrolled := patch(`{"rollover":null}`)
	require.NotNil(t, unrolled.Rollover)
	require.Nil(t, *unrolled.Rollover)
	require.Equal(t, &earmark.Rollover{Max: 3, Windows: 2}, *patch(`{"rollover":{"max":3,"windows":2}}`).Rollover)
	removed := patch(`{"soft_ceiling":null}`)
	require.NotNil(t, removed.SoftCeiling)
	require.Nil(t, *removed.SoftCeiling)

	set := patch(`{"soft_ceiling":9,"limit":8,"enforcement":"soft","overage":"reject"}`)
	require.EqualValues(t, 9, **set.SoftCeiling)
	require.EqualValues(t, 8, *set.Limit)
	require.Equal(t, earmark.EnforcementSoft, *set.Enforcement)
	require.Equal(t, earmark.OverageReject, *set.Overage)

	require.Nil(t, patch(`{"limit":8}`).SoftCeiling)
	require.Equal(t, earmark.EffectiveNextWindow, *patch(`{"limit":8,"effective":"next_window"}`).Effective)
	require.True(t, *patch(`{"follows_template":true}`).FollowsTemplate)
}

func TestPatchBudgetRefusesBadInput(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ body, field string }{
		{``, ""},
		{`{}`, ""},
		{`{"limit":null}`, "limit"},
		{`{"limit":null,"overage":"reject"}`, "limit"},
		{`{"limit":-1}`, "limit"},
		{`{"soft_ceiling":-1}`, "soft_ceiling"},
		{`{"soft_ceiling":"none"}`, "soft_ceiling"},
		{`{"enforcement":null}`, "enforcement"},
		{`{"enforcement":"firm"}`, "enforcement"},
		{`{"overage":""}`, "overage"},
		{`{"effective":"now"}`, ""},
		{`{"limit":8,"effective":""}`, "effective"},
		{`{"limit":8,"effective":"later"}`, "effective"},
		{`{"limit":8,"follows_template":false}`, "follows_template"},
		{`{"effective":"now","follows_template":true}`, "follows_template"},
		{`{"follows_template":null}`, "follows_template"},
		{`{"scope":"other"}`, "scope"},
		{`{"unit":"tokens"}`, "unit"},
		{`{"window":{"period":"day"}}`, "window"},
	} {
		t.Run(test.body, func(t *testing.T) {
			t.Parallel()
			f := &fake{}
			p := setup(t, f).do("PATCH", "/v1/budgets/"+testBudgetID, test.body).problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
			require.Equal(t, test.field, p.Field)
			require.Empty(t, f.calls)
		})
	}
	refused := earmark.Errorf(earmark.CodeInvalidRequest, "7 is below the limit 8")
	refused.Field = "soft_ceiling"
	p := setup(t, &fake{err: refused}).do("PATCH", "/v1/budgets/"+testBudgetID, `{"soft_ceiling":7}`).problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
	require.Equal(t, "soft_ceiling", p.Field)
}
