package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/prices"
	"github.com/earmark-dev/earmark/pricing"
)

func modelsOf(entries []pricing.Entry) (names []string) {
	for _, e := range entries {
		names = append(names, e.Model)
	}
	return names
}

func TestPricesAreListed(t *testing.T) {
	t.Parallel()
	noon := testTime.Add(time.Hour)
	changed := entry("openai", "b", "9", "9", nil)
	changed.From = noon
	first := priceVersion(1, testTime, entry("openai", "b", "1", "2", nil), entry("openai", "c", "1", "2", nil), entry("local", "a", "0", "0", nil))
	own := priceVersion(3, testTime, entry("openai", "c", "5", "5", nil))
	own.Tenant = otherTenant
	f := playingAlong()
	b := setup(t, f, withKeys, withPrices(first, priceVersion(2, testTime, changed), own))
	key := f.addKey(earmark.DefaultTenant, earmark.RoleRead)
	list := func(query string) pricePage {
		return decoded[pricePage](b.do("GET", "/v1/prices"+query, "", with(key)...).status(http.StatusOK))
	}
	page := list("?limit=2")
	require.Equal(t, []string{"a", "b"}, modelsOf(page.Data))
	require.Equal(t, int64(3), page.Version)
	require.Equal(t, pricing.PerMillion("9"), page.Data[1].Rates[pricing.Input])
	page = list("?limit=2&cursor=" + page.NextCursor)
	require.Equal(t, []string{"c"}, modelsOf(page.Data))
	require.Equal(t, pricing.PerMillion("1"), page.Data[0].Rates[pricing.Input])
	require.Empty(t, page.NextCursor)

	require.Equal(t, pricing.PerMillion("1"), list("?model=B&at=" + testTime.Format(time.RFC3339)).Data[0].Rates[pricing.Input])
	require.Equal(t, pricing.PerMillion("1"), list("?model=b&version=1").Data[0].Rates[pricing.Input])
	require.Equal(t, []string{"a"}, modelsOf(list("?provider=local").Data))
	require.Empty(t, list("?provider=nobody").Data)

	// The pages stay with the moment and the version of the first.
	paged := list("?limit=1&version=1&at=" + testTime.Format(time.RFC3339))
	paged = list("?limit=1&cursor=" + paged.NextCursor)
	require.Equal(t, int64(1), paged.Version)
	require.Equal(t, pricing.PerMillion("1"), paged.Data[0].Rates[pricing.Input])

	theirs := f.addKey(otherTenant, earmark.RoleRead)
	x := b.do("GET", "/v1/prices?model=c", "", with(theirs)...).status(http.StatusOK)
	require.Equal(t, pricing.PerMillion("5"), decoded[pricePage](x).Data[0].Rates[pricing.Input])
	x = b.do("GET", "/v1/prices?version=4", "", with(key)...).status(http.StatusNotFound)
	require.Contains(t, string(x.body), "there is no price version 4")
	x = b.do("GET", "/v1/prices?limit=1&model=b&cursor="+paged.NextCursor, "", with(key)...)
	require.Equal(t, "cursor", x.problem(http.StatusBadRequest, earmark.CodeInvalidRequest).Field)
	for query, field := range map[string]string{"at=noon": "at", "version=0": "version", "version=x": "version", "cursor=eA": "cursor", "name=x": "name", "model=" + strings.Repeat("x", 300): "model"} {
		x := b.send("GET", "/v1/prices?"+query, "", with(key)...)
		require.Equal(t, field, x.problem(http.StatusBadRequest, earmark.CodeInvalidRequest).Field, query)
	}
}

func TestPricesAreAdded(t *testing.T) {
	t.Parallel()
	f := playingAlong()
	b := setup(t, f, withKeys, testPrices())
	admin := f.addKey(otherTenant, earmark.RoleAdmin)
	const body = `{"entries":[{"provider":"openai","model":"gpt-5","rates":{"input":"0.000001","output":0.000008}},
		{"provider":"local","model":"free","rates":{"input":0,"output":0}}],"source":"contract","operator":"alice","reason":"a discount"}`
	added := decoded[addedPrices](b.do("POST", "/v1/prices", strings.Replace(body, "0.000008}", `"0.000008"}`, 1), with(admin)...).status(http.StatusCreated))
	require.Equal(t, int64(3), added.Version)
	require.Equal(t, []string{"gpt-5", "free"}, modelsOf(added.Entries))
	require.WithinDuration(t, time.Now(), added.Entries[0].From, time.Minute)
	require.Equal(t, "operator:alice key:"+admin.ID, f.by.String())
	require.Equal(t, "a discount", f.reason)
	require.Equal(t, pricing.USD("0.000008"), f.last().([]pricing.Entry)[0].Rates[pricing.Output])

	same := setup(t, f, withKeys, withPrices(prices.Version{ID: 1, Tenant: otherTenant, Changes: prices.Changes{Entries: []pricing.Entry{entry("openai", "gpt-5", "1", "8", nil)}}}))
	unchanged := decoded[addedPrices](same.do("POST", "/v1/prices", `{"entries":[{"provider":"openai","model":"gpt-5","rates":{"input":"0.000001","output":"0.000008"}}]}`, with(admin)...).status(http.StatusOK))
	require.Equal(t, addedPrices{Version: 1, Entries: []pricing.Entry{}}, unchanged)

	calls := f.count("AddOwnPrices")
	bound := f.addKey(otherTenant, earmark.RoleAdmin, boundTo("acme"))
	b.do("POST", "/v1/prices", `{"entries":[{"provider":"a","model":"b","rates":{"input":"1"}}]}`, with(bound)...).status(http.StatusForbidden)
	for body, want := range map[string][2]string{
		`{}`:             {"entries", "is missing"},
		`{"entries":[]}`: {"entries", "1 to 100"},
		`{"entries":{}}`: {"entries", "1 to 100"},
		`{"entries":[{"provider":"a","model":"b","rates":{"input":null}}]}`:                                                   {"entries[0]", "is not a price"},
		`{"entries":[{"provider":"a","model":"b","rates":{"input":"-1"}}]}`:                                                   {"entries[0]", "is not a price"},
		`{"entries":[{"provider":"a","model":"b\u202ec","rates":{"input":"1"}}]}`:                                             {"entries[0].model", "direction of writing"},
		`{"entries":[{"provider":"a\u0007","model":"b","rates":{"input":"1"}}]}`:                                              {"entries[0].provider", "control character"},
		`{"entries":[{"provider":"a","model":"b","aliases":["c\u2066"],"rates":{"input":"1"}}]}`:                              {"entries[0].aliases[0]", "control character"},
		`{"entries":[{"provider":"a","model":"b","price":1}]}`:                                                                {"entries[0]", "unknown field"},
		`{"entries":[{"provider":"a","model":"b","rates":{"gold":"1"}}]}`:                                                     {"entries[0]", "gold"},
		`{"entries":[{"provider":"a","model":"b","rates":{"input":"1"}},{"provider":"a","model":"B","rates":{"input":"1"}}]}`: {"entries[1]", "already"},
		`{"entries":[{"provider":"a","model":"b","rates":{"input":"1"}}],"source":"` + strings.Repeat("x", 513) + `"}`:        {"source", "512"},
		`{"entries":[{"provider":"a","model":"b","rates":{"input":"1"}}],"tenant":"default"}`:                                 {"tenant", "is not a field"},
		`{"entries":[` + strings.Repeat(`{},`, 100) + `{}]}`:                                                                  {"entries", "1 to 100"},
		`{"entries":[{"provider":"a","model":"b","rates":{"input":"1"}}],"reason":"` + strings.Repeat("x", 600) + `"}`:        {"reason", "512"},
	} {
		p := b.send("POST", "/v1/prices", body, with(admin)...).problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
		require.Equal(t, want[0], p.Field, body)
		require.Contains(t, p.Detail, want[1], body)
	}
	require.Equal(t, calls, f.count("AddOwnPrices"), "nothing was written")
}

func TestPricesAreExplained(t *testing.T) {
	t.Parallel()
	factor := priceVersion(3, time.Now())
	factor.Multipliers = []prices.Multiplier{{Scope: "acme", Factor: pricing.MustDecimal("1.5")}}
	cheap := priceVersion(1, testTime, entry("openai", "gpt-5", "1.25", "10", nil), entry("azure", "gpt-5", "2", "10", nil))
	b := setup(t, playingAlong(), withPrices(cheap, priceVersion(2, testTime, entry("openai", "gpt-5", "2.5", "20", nil)), factor))
	const usageOf = `"provider_usage":{"prompt_tokens":812,"completion_tokens":61,"total_tokens":873}`
	explain := func(body string) explainedPrice {
		return decoded[explainedPrice](b.do("POST", "/v1/prices/explain", body).status(http.StatusOK))
	}
	sum := explain(`{"model":"gpt-5","provider":"openai",` + usageOf + `}`)
	require.Equal(t, int64(3250), sum.USDMicros)
	require.Equal(t, "0.00325", sum.USD)
	require.Len(t, sum.Lines, 2)
	require.Equal(t, int64(3), sum.Version)
	require.Equal(t, int64(1625), explain(`{"model":"gpt-5","provider":"openai","version":1,`+usageOf+`}`).USDMicros)
	require.Equal(t, int64(4875), explain(`{"model":"gpt-5","provider":"openai","scopes":["acme/ml"],`+usageOf+`}`).USDMicros)

	p := b.do("POST", "/v1/prices/explain", `{"model":"gpt-55",`+usageOf+`}`).problem(http.StatusUnprocessableEntity, earmark.CodeUnknownModel)
	require.Equal(t, "model", p.Field)
	require.ElementsMatch(t, []string{"openai/gpt-5", "azure/gpt-5"}, p.Nearest)
	p = b.do("POST", "/v1/prices/explain", `{"model":"gpt-5",`+usageOf+`}`).problem(http.StatusUnprocessableEntity, earmark.CodeUnpriced)
	require.Contains(t, p.Detail, "name one")
	for body, field := range map[string]string{
		`{"model":"gpt-5"}`: "provider_usage",
		`{` + usageOf + `}`: "model",
		`{"model":"gpt-5","provider_usage":{"prompt_tokens":-1,"completion_tokens":1}}`: "provider_usage.prompt_tokens",
		`{"model":"gpt-5","usage_format":"x",` + usageOf + `}`:                          "usage_format",
		`{"model":"gpt-5","at":"noon",` + usageOf + `}`:                                 "at",
		`{"model":"gpt-5","version":-1,` + usageOf + `}`:                                "version",
		`{"model":"gpt-5","scopes":["/"],` + usageOf + `}`:                              "scopes[0]",
		`{"model":"` + strings.Repeat("x", 300) + `",` + usageOf + `}`:                  "model",
	} {
		require.Equal(t, field, b.send("POST", "/v1/prices/explain", body).problem(http.StatusBadRequest, earmark.CodeInvalidRequest).Field, body)
	}
}
