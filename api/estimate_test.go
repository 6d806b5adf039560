package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/prices"
	"github.com/earmark-dev/earmark/pricing"
)

// versions are the prices of a test.
type versions []prices.Version

func (v versions) PriceVersions(_ context.Context, after int64) ([]prices.Version, error) {
	return v[min(int(after), len(v)):], nil
}

func priceVersion(id int64, at time.Time, entries ...pricing.Entry) prices.Version {
	return prices.Version{ID: id, CreatedAt: at, Actor: earmark.ActorAPI, Changes: prices.Changes{Entries: entries}}
}

func entry(provider, model, input, output string, more pricing.Rates) pricing.Entry {
	e := pricing.Entry{Provider: provider, Model: model}
	e.Rates = pricing.Rates{pricing.Input: pricing.PerMillion(input), pricing.Output: pricing.PerMillion(output)}
	for part, rate := range more {
		e.Rates[part] = rate
	}
	return e
}

func withPrices(v ...prices.Version) func(*Options) {
	return func(o *Options) { o.Prices = prices.NewBook(versions(v)) }
}

func testPrices() func(*Options) {
	return withPrices(priceVersion(1, testTime,
		entry("openai", "gpt-5", "1.25", "10", nil),
		entry("anthropic", "claude-sonnet-4-5", "3", "15", pricing.Rates{
			pricing.CacheRead: pricing.PerMillion("0.3"), pricing.CacheWrite5m: pricing.PerMillion("3.75"), pricing.CacheWrite1h: pricing.PerMillion("6")}),
	), priceVersion(2, time.Now().Add(-time.Hour), func() pricing.Entry {
		e := entry("openai", "gpt-5", "2.5", "20", nil)
		e.From = testTime.AddDate(0, 0, 1)
		return e
	}()))
}

var allUnits = []string{"images", "input_tokens", "output_tokens", "requests", "tokens", "usd_micros"}

func TestEstimateTakesThePlaceOfAmounts(t *testing.T) {
	t.Parallel()
	for name, example := range map[string]struct {
		units    []string
		estimate string
		want     earmark.Amounts
		version  string
	}{
		"all units": {allUnits, `{"model":"gpt-5","input_tokens":1000,"max_output_tokens":500}`,
			earmark.Amounts{"input_tokens": 1000, "output_tokens": 500, "tokens": 1500, "requests": 1, "usd_micros": 12500}, "2"},
		"several answers": {[]string{"output_tokens", "usd_micros"}, `{"model":"gpt-5","input_tokens":1000,"max_output_tokens":500,"n":3}`,
			earmark.Amounts{"output_tokens": 1500, "usd_micros": 32500}, "2"},
		"rounded up": {[]string{"usd_micros"}, `{"model":"gpt-5","input_tokens":1,"max_output_tokens":0}`, earmark.Amounts{"usd_micros": 3}, "2"},
		"no price is needed": {[]string{"tokens"}, `{"model":"nobody-knows-it","input_tokens":10,"max_output_tokens":5}`,
			earmark.Amounts{"tokens": 15}, ""},
		"the dearest cache write": {[]string{"usd_micros"}, `{"model":"claude-sonnet-4-5","provider":"anthropic","input_tokens":1000,"max_output_tokens":100}`,
			earmark.Amounts{"usd_micros": 7500}, "2"},
		"what is surely cached": {[]string{"usd_micros"}, `{"model":"claude-sonnet-4-5","input_tokens":1000,"cached_input_tokens":900,"max_output_tokens":100}`,
			earmark.Amounts{"usd_micros": 270 + 600 + 1500}, "2"},
		"text": {[]string{"input_tokens"}, `{"model":"claude-sonnet-4-5","input_text":"hello","max_output_tokens":1}`, earmark.Amounts{"input_tokens": 5 + 144}, ""},
		"messages": {[]string{"input_tokens"}, `{"model":"gpt-5","messages":[{"content":[{"type":"text","text":"hello world"}]}],"max_output_tokens":1}`,
			earmark.Amounts{"input_tokens": 2 + 128 + 2*16}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fake{counted: earmark.Counted{Units: example.units}, preflight: fits(),
				result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: reservationIn(earmark.StateHeld)}}
			b := setup(t, f, testPrices())
			b.do("POST", "/v1/reservations", `{"scopes":["acme"],"metadata":{"job":"7"},"estimate":`+example.estimate+`}`, idempotencyKeyHeader, testKey).status(http.StatusCreated)
			require.Equal(t, []string{"CountedUnits", "Preflight", "Admit"}, f.names())
			admission := f.last().(earmark.Admission)
			require.Equal(t, example.want, admission.Request.Amounts)
			require.Nil(t, admission.Request.Estimate, "the text goes no further")
			require.Equal(t, "7", admission.Request.Metadata["job"])
			require.Equal(t, example.version, admission.Request.Metadata[earmark.MetadataPriceVersion])
			require.NoError(t, admission.Validate())

			f.calls = nil
			decision := decoded[earmark.Decision](b.do("POST", "/v1/decisions", `{"scopes":["acme"],"estimate":`+example.estimate+`}`).status(http.StatusOK))
			require.Equal(t, []string{"CountedUnits", "Decide"}, f.names())
			require.Equal(t, example.want, decision.Amounts)
		})
	}
}

// A repeated key is the same request although the prices have changed since, and although
// the model has no price any more.
func TestEstimateIsRepeatable(t *testing.T) {
	t.Parallel()
	body := `{"scopes":["acme"],"estimate":{"model":"gpt-5","input_tokens":1000,"max_output_tokens":500}}`
	hashes := map[string]bool{}
	for _, change := range []func(*Options){testPrices(), withPrices(priceVersion(1, testTime, entry("openai", "gpt-5", "7", "8", nil)))} {
		f := &fake{counted: earmark.Counted{Units: allUnits}, preflight: fits(),
			result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: reservationIn(earmark.StateHeld)}}
		setup(t, f, change).do("POST", "/v1/reservations", body, idempotencyKeyHeader, testKey).status(http.StatusCreated)
		hashes[f.last().(earmark.Admission).RequestHash] = true
	}
	require.Len(t, hashes, 1)

	f := &fake{counted: earmark.Counted{Result: earmark.Result{Outcome: earmark.OutcomeSame, Reservation: reservationIn(earmark.StateHeld)}}}
	x := setup(t, f).do("POST", "/v1/reservations", body, idempotencyKeyHeader, testKey).status(http.StatusCreated)
	require.True(t, decoded[earmark.Reservation](x).Replayed)
	require.Equal(t, []string{"CountedUnits"}, f.names())
	f.counted = earmark.Counted{Result: earmark.Result{Outcome: earmark.OutcomeMismatch}}
	setup(t, f).do("POST", "/v1/reservations", body, idempotencyKeyHeader, testKey).problem(http.StatusUnprocessableEntity, earmark.CodeIdempotencyMismatch)
}

func TestEstimatesThatAreRefused(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]struct {
		status int
		code   earmark.Code
		field  string
	}{
		`"amounts":{"tokens":1},"estimate":{"model":"gpt-5","input_tokens":1,"max_output_tokens":1}`:       {400, earmark.CodeInvalidRequest, "estimate"},
		`"estimate":{"input_tokens":1,"max_output_tokens":1}`:                                              {400, earmark.CodeInvalidRequest, "estimate.model"},
		`"estimate":{"model":"gpt-5","input_tokens":1}`:                                                    {400, earmark.CodeInvalidRequest, "estimate.max_output_tokens"},
		`"estimate":{"model":"gpt-5","max_output_tokens":1}`:                                               {400, earmark.CodeInvalidRequest, "estimate"},
		`"estimate":{"model":"gpt-5","input_tokens":1,"input_text":"a","max_output_tokens":1}`:             {400, earmark.CodeInvalidRequest, "estimate"},
		`"estimate":{"model":"gpt-5","input_tokens":-1,"max_output_tokens":1}`:                             {400, earmark.CodeInvalidRequest, "estimate.input_tokens"},
		`"estimate":{"model":"gpt-5","input_tokens":1,"max_output_tokens":1.5}`:                            {400, earmark.CodeInvalidRequest, "estimate.max_output_tokens"},
		`"estimate":{"model":"gpt-5","input_tokens":1,"max_output_tokens":9007199254740991,"n":2}`:         {400, earmark.CodeInvalidRequest, "estimate.max_output_tokens"},
		`"estimate":{"model":"gpt-5","input_tokens":1,"max_output_tokens":1,"n":-1}`:                       {400, earmark.CodeInvalidRequest, "estimate.n"},
		`"estimate":{"model":"gpt-5","input_tokens":1,"max_output_tokens":1,"cached_input_tokens":2}`:      {400, earmark.CodeInvalidRequest, "estimate.cached_input_tokens"},
		`"estimate":{"model":"gpt-5","input_tokens":1,"max_output_tokens":1,"temperature":1}`:              {400, earmark.CodeInvalidRequest, "estimate.temperature"},
		`"estimate":{"model":"gpt-5","messages":[{"content":[{"type":"image"}]}],"max_output_tokens":1}`:   {400, earmark.CodeInvalidRequest, "estimate.messages[0].content[0].type"},
		`"estimate":{"model":"gpt-5","messages":null,"max_output_tokens":1}`:                               {400, earmark.CodeInvalidRequest, "estimate.messages"},
		`"estimate":{"model":"gpt-55","input_tokens":1,"max_output_tokens":1}`:                             {422, earmark.CodeUnknownModel, "estimate.model"},
		`"estimate":{"model":"gpt-5","input_tokens":1,"max_output_tokens":1,"service_tier":"priority"}`:    {422, earmark.CodeUnpriced, "estimate.model"},
		`"metadata":{"earmark.model":"x"},"estimate":{"model":"g","input_tokens":1,"max_output_tokens":1}`: {400, earmark.CodeInvalidRequest, "metadata.earmark.model"},
	} {
		for _, path := range []string{"/v1/reservations", "/v1/decisions"} {
			f := &fake{counted: earmark.Counted{Units: allUnits}}
			p := setup(t, f, testPrices()).send("POST", path, `{"scopes":["acme"],`+body+`}`).problem(want.status, want.code)
			require.Equal(t, want.field, p.Field, body)
			require.NotContains(t, f.names(), "Admit")
			if want.code == earmark.CodeUnknownModel {
				require.Equal(t, []string{"openai/gpt-5"}, p.Nearest[:1])
			}
		}
	}
	f := &fake{counted: earmark.Counted{Units: []string{"images"}}}
	p := setup(t, f, testPrices()).do("POST", "/v1/decisions", `{"scopes":["acme"],"estimate":{"model":"gpt-5","input_tokens":1,"max_output_tokens":1}}`).problem(422, earmark.CodeUnitNotBudgeted)
	require.Equal(t, "estimate", p.Field)
	require.Contains(t, p.Detail, "count images")
}

const anthropicBody = `{"id":"msg_1","model":"claude-sonnet-4-5","usage":{"input_tokens":100,"cache_read_input_tokens":900,"cache_creation_input_tokens":0,"output_tokens":50}}`

func reservedFrom(priced earmark.Priced, amounts earmark.Amounts) *earmark.Reservation {
	r := reservationIn(earmark.StateHeld)
	r.Amounts, r.Metadata = amounts, earmark.Metadata{}.With(priced)
	return r
}

func TestCommitOfAProvidersUsage(t *testing.T) {
	t.Parallel()
	reserved := earmark.Amounts{"usd_micros": 99999, "tokens": 9999, "requests": 1}
	admitted := earmark.Priced{Model: "gpt-5", Provider: "openai", Version: 1, At: testTime}
	openai := `{"usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100}}`
	for name, example := range map[string]struct {
		reservation *earmark.Reservation
		body        string
		want        earmark.Amounts
	}{
		"at the prices of the admission": {reservedFrom(admitted, reserved), `{"provider_usage":` + openai + `}`,
			earmark.Amounts{"usd_micros": 1250 + 1000, "tokens": 1100, "requests": 1}},
		"the response names its model": {reservedFrom(earmark.Priced{Model: "gpt-5", Version: 1, At: testTime}, reserved), `{"provider_usage":` + anthropicBody + `}`,
			earmark.Amounts{"usd_micros": 300 + 270 + 750, "tokens": 1050, "requests": 1}},
		"the caller names the model": {reservedFrom(admitted, reserved), `{"provider_usage":` + anthropicBody + `,"model":"claude-sonnet-4-5","provider":"anthropic","usage_format":"anthropic"}`,
			earmark.Amounts{"usd_micros": 300 + 270 + 750, "tokens": 1050, "requests": 1}},
		"reserved with amounts": {reservedFrom(earmark.Priced{}, reserved), `{"provider_usage":` + openai + `,"model":"gpt-5"}`,
			earmark.Amounts{"usd_micros": 1250 + 1000, "tokens": 1100, "requests": 1}},
		"no price is needed": {reservedFrom(earmark.Priced{}, earmark.Amounts{"input_tokens": 5, "output_tokens": 5}), `{"provider_usage":` + openai + `}`,
			earmark.Amounts{"input_tokens": 1000, "output_tokens": 100}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fake{reservation: example.reservation, result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: reservationIn(earmark.StateCommitted)}}
			setup(t, f, testPrices()).do("POST", settlePath("commit"), example.body).status(http.StatusOK)
			require.Equal(t, example.want, f.last())
		})
	}
}

// The settlement keeps the usage object alone, and what decided the price.
func TestTheResponseOfACommitIsKept(t *testing.T) {
	t.Parallel()
	f := &fake{reservation: reservedFrom(earmark.Priced{Model: "gpt-5", Provider: "openai", Version: 1, At: testTime}, earmark.Amounts{"usd_micros": 99999}),
		counted: earmark.Counted{Units: allUnits}, result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: chargedUsage()}}
	b := setup(t, f, testPrices())
	body := `{"provider_usage":{"choices":[{"message":{"content":"the answer"}}],"model":"claude-sonnet-4-5","usage":{"input_tokens":3,"cache_read_input_tokens":0,"output_tokens":5}},` +
		`"provider":"anthropic","responded_at":"2026-03-04T01:30:00+01:00"`
	b.send("POST", settlePath("commit"), body+`}`).status(http.StatusOK)
	want := &earmark.ResponseRecord{
		ProviderUsage: json.RawMessage(`{"input_tokens":3,"cache_read_input_tokens":0,"output_tokens":5}`), UsageFormat: "anthropic",
		Model: "claude-sonnet-4-5", Provider: "anthropic", RespondedAt: time.Date(2026, 3, 4, 0, 30, 0, 0, time.UTC), PriceVersion: 1,
	}
	require.Equal(t, want, f.settlement.Response)

	b.send("POST", "/v1/usage", body+`,"scopes":["acme"]}`, idempotencyKeyHeader, testKey).status(http.StatusCreated)
	want.PriceVersion = 2
	require.Equal(t, want, f.last().(earmark.Charge).Response)

	b.do("POST", settlePath("commit"), `{"usage":{"usd_micros":5}}`).status(http.StatusOK)
	require.Nil(t, f.settlement.Response)
}

// A key that is bound to scopes needs the reservation, and so does a response: one read serves both.
func TestACommitReadsTheReservationOnce(t *testing.T) {
	t.Parallel()
	f := &fake{reservation: reservedFrom(earmark.Priced{Model: "gpt-5", Version: 1, At: testTime}, earmark.Amounts{"usd_micros": 99999}),
		result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: reservationIn(earmark.StateCommitted)}}
	f.reservation.Scopes = []string{"acme/ml"}
	b := setup(t, f, testPrices(), withKeys)
	key := f.addKey(earmark.DefaultTenant, earmark.RoleSettle, boundTo("acme"))
	b.do("POST", settlePath("commit"), `{"provider_usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}`, with(key)...).status(http.StatusOK)
	require.Equal(t, []string{"Reservation", "Commit"}, f.names())
}

// Off-peak hours are those of the response; a repeat without a time is at the same hour.
func TestOffPeakHoursAreThoseOfTheResponse(t *testing.T) {
	t.Parallel()
	e := entry("deepseek", "deepseek-chat", "2", "2", nil)
	night := pricing.Window{Start: 16*3600 + 1800, End: 1800}
	e.Variants = []pricing.Variant{{When: pricing.When{Windows: []pricing.Window{night}}, Multiplier: pricing.MustDecimal("0.5")}}
	priced := earmark.Priced{Model: "deepseek-chat", Version: 1, At: testTime}
	usage := `"provider_usage":{"prompt_tokens":1000,"completion_tokens":0,"total_tokens":1000,"prompt_cache_hit_tokens":0,"prompt_cache_miss_tokens":1000}`
	for at, want := range map[string]int64{"2026-03-04T16:29:59Z": 2000, "2026-03-04T16:30:00Z": 1000, "2026-03-05T01:29:59+01:00": 1000, "2026-03-05T00:30:00Z": 2000} {
		f := &fake{reservation: reservedFrom(priced, earmark.Amounts{"usd_micros": 9}), result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: reservationIn(earmark.StateCommitted)}}
		b := setup(t, f, withPrices(priceVersion(1, testTime, e)))
		b.do("POST", settlePath("commit"), `{`+usage+`,"responded_at":"`+at+`"}`).status(http.StatusOK)
		require.Equal(t, earmark.Amounts{"usd_micros": want}, f.last(), at)

		settled, err := time.Parse(time.RFC3339, at)
		require.NoError(t, err)
		f.reservation.State, f.reservation.SettledAt = earmark.StateCommitted, &settled
		b.do("POST", settlePath("commit"), `{`+usage+`}`).status(http.StatusOK)
		require.Equal(t, earmark.Amounts{"usd_micros": want}, f.last(), at)

		// A correction settles anew, at another hour; the commit is still the same. So is a repeated estimate.
		later := settled.Add(12 * time.Hour)
		f.reservation.SettledAt, f.reservation.Response = &later, &earmark.ResponseRecord{RespondedAt: settled}
		for _, estimated := range []bool{false, true} {
			f.reservation.Estimated = estimated
			b.do("POST", settlePath("commit"), fmt.Sprintf(`{%s,"estimated":%t}`, usage, estimated)).status(http.StatusOK)
			require.Equal(t, earmark.Amounts{"usd_micros": want}, f.last(), at)
		}
	}
	// The estimate is at the dearest hour of the week, whenever it is made.
	f := &fake{counted: earmark.Counted{Units: []string{"usd_micros"}}, result: earmark.Result{Outcome: earmark.OutcomeApplied}}
	decision := setup(t, f, withPrices(priceVersion(1, testTime, e))).do("POST", "/v1/decisions", `{"scopes":["acme"],"estimate":{"model":"deepseek-chat","input_tokens":1000,"max_output_tokens":0}}`)
	require.Equal(t, earmark.Amounts{"usd_micros": 2000}, decoded[earmark.Decision](decision.status(http.StatusOK)).Amounts)
}

func TestProviderUsageThatIsRefused(t *testing.T) {
	t.Parallel()
	good := `{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}`
	reserved := earmark.Amounts{"usd_micros": 1}
	for body, want := range map[string]struct {
		status int
		code   earmark.Code
		field  string
	}{
		`"provider_usage":{"prompt_tokens":10,"completion_tokens":10,"total_tokens":20,"completion_tokens_details":{"reasoning_tokens":12}}`: {400, earmark.CodeInvalidRequest, "provider_usage.completion_tokens_details.reasoning_tokens"},
		`"provider_usage":{"prompt_tokens":-1}`:                                    {400, earmark.CodeInvalidRequest, "provider_usage.prompt_tokens"},
		`"provider_usage":{}`:                                                      {400, earmark.CodeInvalidRequest, "provider_usage"},
		`"provider_usage":null`:                                                    {400, earmark.CodeInvalidRequest, "provider_usage"},
		`"provider_usage":[]`:                                                      {400, earmark.CodeInvalidRequest, "provider_usage"},
		`"provider_usage":` + good + `,"provider_usage":` + good:                   {400, earmark.CodeInvalidRequest, "provider_usage"},
		`"provider_usage":{"usage":` + good + `,"model":"a\u0000b"}`:               {400, earmark.CodeInvalidRequest, "provider_usage.model"},
		`"provider_usage":{"prompt_tokens":1,"note":"\u0000"}`:                     {400, earmark.CodeInvalidRequest, "provider_usage"},
		`"provider_usage":{"prompt_tokens":1,"note":"\ud800"}`:                     {400, earmark.CodeInvalidRequest, "provider_usage"},
		`"provider_usage":{"prompt_tokens":1,"note":1e400}`:                        {400, earmark.CodeInvalidRequest, "provider_usage"},
		`"provider_usage":` + good + `,"usage_format":"openai"`:                    {400, earmark.CodeInvalidRequest, "usage_format"},
		`"provider_usage":` + good + `,"responded_at":"yesterday"`:                 {400, earmark.CodeInvalidRequest, "responded_at"},
		`"provider_usage":` + good + `,"responded_at":"9999-12-31T23:59:59-12:00"`: {400, earmark.CodeInvalidRequest, "responded_at"},
		`"provider_usage":` + good + `,"model":"gpt-55"`:                           {422, earmark.CodeUnknownModel, "model"},
		`"provider_usage":` + good + `,"model":"gpt-5","provider":"acme"`:          {422, earmark.CodeUnknownModel, "model"},
		`"provider_usage":` + good:                                                 {400, earmark.CodeInvalidRequest, "model"},
		`"provider_usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"prompt_tokens_details":{"audio_tokens":4}},"model":"gpt-5"`: {422, earmark.CodeUnpriced, "model"},
	} {
		f := &fake{reservation: reservedFrom(earmark.Priced{}, reserved), counted: earmark.Counted{Units: allUnits}, result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: chargedUsage()}}
		b := setup(t, f, testPrices())
		x := b.send("POST", settlePath("commit"), `{`+body+`}`)
		require.Equal(t, want.field, x.problem(want.status, want.code).Field, body)
		require.NotContains(t, f.names(), "Commit")
		x = b.send("POST", "/v1/usage", `{"scopes":["acme"],`+body+`}`, idempotencyKeyHeader, testKey)
		require.Equal(t, want.field, x.problem(want.status, want.code).Field, body)
		require.NotContains(t, f.names(), "Charge")
	}
	f := &fake{reservation: reservedFrom(earmark.Priced{}, earmark.Amounts{"images": 1, "tokens": 1})}
	p := setup(t, f, testPrices()).do("POST", settlePath("commit"), `{"provider_usage":`+good+`}`).problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
	require.Equal(t, "provider_usage", p.Field)
	require.Contains(t, p.Detail, "does not count images")
	for _, body := range []string{`"usage":{"tokens":1},"provider_usage":` + good, `"usage":{"tokens":1},"model":"gpt-5"`} {
		setup(t, &fake{}).send("POST", settlePath("commit"), `{`+body+`}`).problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
	}
}

func TestUsageOfAResponse(t *testing.T) {
	t.Parallel()
	f := &fake{counted: earmark.Counted{Units: allUnits}, result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: chargedUsage()}}
	b := setup(t, f, testPrices())
	b.do("POST", "/v1/usage", `{"scopes":["acme"],"provider_usage":`+anthropicBody+`}`, idempotencyKeyHeader, testKey).status(http.StatusCreated)
	charge := f.last().(earmark.Charge)
	require.Equal(t, earmark.Amounts{"input_tokens": 1000, "output_tokens": 50, "tokens": 1050, "requests": 1, "usd_micros": 1320}, charge.Request.Amounts)
	require.Equal(t, "claude-sonnet-4-5", charge.Request.Metadata[earmark.MetadataModel])
	require.Equal(t, "2", charge.Request.Metadata[earmark.MetadataPriceVersion])
	require.False(t, charge.Request.Given())

	f.calls, f.counted = nil, earmark.Counted{Result: earmark.Result{Outcome: earmark.OutcomeSame, Reservation: chargedUsage()}}
	b.do("POST", "/v1/usage", `{"scopes":["acme"],"provider_usage":`+strings.Replace(anthropicBody, "claude", "unpriced", 1)+`}`, idempotencyKeyHeader, testKey).status(http.StatusCreated)
	require.Equal(t, []string{"CountedUnits"}, f.names(), "an earlier call has charged it")
}
