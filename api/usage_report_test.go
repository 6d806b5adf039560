package api

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func testReport() *earmark.UsageReport {
	return &earmark.UsageReport{
		BudgetID: testBudgetID, Unit: "tokens", From: testTime, To: testTime.Add(48 * time.Hour), By: "day", Timezone: "UTC",
		Data: []earmark.UsagePart{
			{Start: pointer(testTime), End: pointer(testTime.Add(24 * time.Hour)), UsageSum: earmark.UsageSum{Committed: 7, Charges: 2}},
		},
		Total: earmark.UsageSum{Committed: 7, Charges: 2}, Balance: testBudget().Balance,
	}
}

func TestUsageReport(t *testing.T) {
	t.Parallel()
	f := &fake{budget: testBudget(), report: testReport()}
	b := setup(t, f)
	path := "/v1/budgets/" + testBudgetID + "/usage"
	require.Equal(t, *testReport(), decoded[earmark.UsageReport](b.do("GET", path, "").status(http.StatusOK)))
	require.Equal(t, earmark.UsageQuery{By: earmark.UsageByDay}, f.last())

	b.do("GET", path+"?from=2026-01-01T00:00:00%2B01:00&to=2026-02-01T00:00:00Z&by=metadata.feature", "").status(http.StatusOK)
	query := f.last().(earmark.UsageQuery)
	require.Equal(t, "metadata.feature", query.By)
	require.Equal(t, []string{"2026-01-01T00:00:00+01:00", "2026-02-01T00:00:00Z"}, []string{query.From.Format(time.RFC3339), query.To.Format(time.RFC3339)})

	f.set(func() {
		f.report = &earmark.UsageReport{BudgetID: testBudgetID, By: "scope", From: testTime, To: testTime, Unit: "tokens", Timezone: "UTC"}
	})
	require.Contains(t, string(b.do("GET", path+"?by=scope", "").status(http.StatusOK).body), `"data":[]`)
	f.set(func() { f.report = nil })
	b.do("GET", path, "").problem(http.StatusNotFound, earmark.CodeNotFound)
	b.do("GET", "/v1/budgets/none/usage", "").problem(http.StatusNotFound, earmark.CodeNotFound)
}

// Text that a spreadsheet would run, or that would steer a terminal, is only shown.
func TestUsageReportAsCSV(t *testing.T) {
	t.Parallel()
	f := &fake{budget: testBudget(), report: testReport()}
	b := setup(t, f)
	path := "/v1/budgets/" + testBudgetID + "/usage"
	x := b.do("GET", path, "", "Accept", "text/csv").status(http.StatusOK)
	require.Equal(t, "text/csv; charset=utf-8", x.resp.Header.Get("Content-Type"))
	require.Equal(t, "start,end,committed,charges\n"+testTime.Format(time.RFC3339)+","+testTime.Add(24*time.Hour).Format(time.RFC3339)+",7,2\n", string(x.body))

	values := testReport()
	values.By, values.Data = "metadata.feature", nil
	for _, value := range []*string{pointer("chat, in short"), pointer("=1+1"), pointer("-1"), pointer(""), pointer("\x1b[2J"), nil} {
		values.Data = append(values.Data, earmark.UsagePart{Value: value, UsageSum: earmark.UsageSum{Committed: 1, Charges: 1}})
	}
	values.Data = append(values.Data, earmark.UsagePart{Other: true, UsageSum: earmark.UsageSum{Committed: -3, Charges: 1}})
	f.set(func() { f.report = values })
	require.Equal(t, "kind,value,committed,charges\nvalue,\"chat, in short\",1,1\nvalue,'=1+1,1,1\nvalue,'-1,1,1\nvalue,,1,1\nvalue,"+earmark.VisibleText("\x1b[2J")+",1,1\nnone,,1,1\nother,,-3,1\n",
		string(b.do("GET", path, "", "Accept", "text/csv, */*;q=0.1").status(http.StatusOK).body))
}

func TestUsageReportRefusesBadInput(t *testing.T) {
	t.Parallel()
	b := setup(t, &fake{budget: testBudget(), report: testReport()})
	for query, field := range map[string]string{
		"by=":                             "by",
		"by=week":                         "by",
		"by=metadata.":                    "by",
		"by=metadata.%00":                 "by",
		"by=metadata.%ff":                 "by",
		"by=day&by=hour":                  "by",
		"from=yesterday&to=now":           "from",
		"from=2026-01-01T00:00:00Z":       "to",
		"to=2026-01-01T00:00:00Z":         "from",
		"from=2026-01-01T00:00:00Z&to=no": "to",
		"from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z": "to",
		"from=2026-01-01T00:00:00Z&to=2027-02-06T00:00:00Z": "to",
		"from=1969-01-01T00:00:00Z&to=1970-01-01T00:00:00Z": "from",
		"since=2026-01-01T00:00:00Z":                        "since",
	} {
		problem := b.do("GET", "/v1/budgets/"+testBudgetID+"/usage?"+query, "").problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
		require.Equal(t, field, problem.Field, query)
	}
}
