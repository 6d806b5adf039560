package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

const uiURL = "http://127.0.0.1:8233/"

var (
	testKey           = "chat-7f3a"
	testReservationID = earmark.ReservationID(earmark.DefaultTenant, testKey)
	testBudgetID      = earmark.NewBudgetID()
	testTime          = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
)

// env is what a test of a handler works with.
type env struct {
	t        *testing.T
	fake     *fake
	handler  http.Handler
	registry *prometheus.Registry
	log      *bytes.Buffer
}

func setup(t *testing.T, f *fake, adjust ...func(*Options)) *env {
	t.Helper()
	b := &env{t: t, fake: f, registry: prometheus.NewRegistry(), log: &bytes.Buffer{}}
	options := Options{
		Version: "v1.2.3", Commit: "0123456789ab",
		WithoutKeys: true, Ledger: f, Coordinator: fakeCoordinator{f}, UIURL: uiURL, Registry: b.registry,
		Logger: slog.New(slog.NewJSONHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, change := range adjust {
		change(&options)
	}
	b.handler = New(options)
	return b
}

// exchange is a request and its answer.
type exchange struct {
	t    *testing.T
	resp *http.Response
	body []byte
}

// do sends a request and checks the exchange against openapi.yaml: the answer
// always, the request where it was not blamed.
func (b *env) do(method, target, body string, header ...string) exchange {
	b.t.Helper()
	x := b.send(method, target, body, header...)
	checkExchange(b.t, newRequest(method, target, body, header...), x)
	return x
}

// send sends a request that openapi.yaml says nothing of.
func (b *env) send(method, target, body string, header ...string) exchange {
	b.t.Helper()
	recorder := httptest.NewRecorder()
	b.handler.ServeHTTP(recorder, newRequest(method, target, body, header...))
	return exchange{t: b.t, resp: recorder.Result(), body: recorder.Body.Bytes()}
}

// localURL is where a test's calls go; the path is added.
const localURL = "http://127.0.0.1:8080"

// newRequest takes the header as pairs of name and value.
func newRequest(method, target, body string, header ...string) *http.Request {
	request := httptest.NewRequest(method, localURL+target, strings.NewReader(body))
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Content-Type" {
			request.Header.Del("Content-Type")
		}
		request.Header.Add(header[i], header[i+1])
	}
	return request
}

var contract = sync.OnceValues(func() (routers.Router, error) {
	doc, err := openapi3.NewLoader().LoadFromData(openapiYAML)
	if err != nil {
		return nil, err
	}
	doc.Servers = nil // tests call no host
	forbidExtras(doc)
	return legacy.NewRouter(doc)
})

// forbidExtras makes the answers' schemas refuse what they do not describe, so
// that a field that was forgotten in the document fails a test. The published
// document stays open, for clients should bear new fields.
func forbidExtras(doc *openapi3.T) {
	closed := false
	for _, ref := range doc.Components.Schemas {
		schema := ref.Value
		if schema.Type.Is("object") && schema.AdditionalProperties.Schema == nil {
			schema.AdditionalProperties.Has = &closed
		}
	}
}

func checkExchange(t *testing.T, request *http.Request, x exchange) {
	t.Helper()
	router, err := contract()
	require.NoError(t, err)
	route, params, err := router.FindRoute(request)
	if err != nil { // no such call; the answer is then a problem of ours
		require.Contains(t, []int{http.StatusNotFound, http.StatusMethodNotAllowed}, x.resp.StatusCode, "%s %s: %v", request.Method, request.URL, err)
		require.Equal(t, problemContentType, x.resp.Header.Get("Content-Type"))
		return
	}
	options := &openapi3filter.Options{IncludeResponseStatus: true, SkipSettingDefaults: true, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}
	input := &openapi3filter.RequestValidationInput{Request: request, PathParams: params, Route: route, Options: options}
	if !blamed(x.resp.StatusCode) {
		require.NoError(t, openapi3filter.ValidateRequest(context.Background(), input), "the request is answered as if it were in order")
	}
	require.NoError(t, openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input,
		Status:                 x.resp.StatusCode,
		Header:                 x.resp.Header,
		Body:                   io.NopCloser(bytes.NewReader(x.body)),
		Options:                options,
	}), "%d %s", x.resp.StatusCode, x.body)
}

// blamed reports whether a status says that the request may be malformed; an id
// that has not the form of one is 404.
func blamed(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		return true
	}
	return false
}

// status checks the status and gives the exchange back.
func (x exchange) status(want int) exchange {
	x.t.Helper()
	require.Equal(x.t, want, x.resp.StatusCode, "%s", x.body)
	return x
}

// problem checks that the answer is a problem with this status and code.
func (x exchange) problem(status int, code earmark.Code) problem {
	x.t.Helper()
	x.status(status)
	require.Equal(x.t, problemContentType, x.resp.Header.Get("Content-Type"))
	p := decoded[problem](x)
	require.Equal(x.t, code, p.Code)
	require.Equal(x.t, status, p.Status)
	require.Equal(x.t, "urn:earmark:problem:"+string(code), p.Type)
	require.NotEmpty(x.t, p.Title)
	require.NotEmpty(x.t, p.Detail)
	return p
}

func decoded[T any](x exchange) T {
	x.t.Helper()
	var value T
	require.NoError(x.t, json.Unmarshal(x.body, &value), "%s", x.body)
	return value
}

func reservationIn(state earmark.State) *earmark.Reservation {
	expires := testTime.Add(earmark.DefaultTTL)
	r := &earmark.Reservation{
		ID: testReservationID, State: state, Scopes: []string{"acme/ml/u1"}, Amounts: earmark.Amounts{"tokens": 1200},
		CreatedAt: testTime, ExpiresAt: &expires, OnExpiry: earmark.OnExpiryRelease, WorkflowID: "reservation-" + testReservationID,
		Budgets: []earmark.ReservationBudget{{BudgetID: testBudgetID, Scope: "acme", Unit: "tokens", WindowStart: testTime, Reserved: 1200}},
	}
	if state != earmark.StateHeld {
		r.SettledAt = &testTime
	}
	if state == earmark.StateCommitted {
		r.Usage = earmark.Amounts{"tokens": 873}
	}
	return r
}

func chargedUsage() *earmark.Reservation {
	r := reservationIn(earmark.StateCommitted)
	r.ExpiresAt, r.WorkflowID = nil, ""
	return r
}

func testBudget() *earmark.Budget {
	end := testTime.AddDate(0, 1, 0)
	return &earmark.Budget{
		ID: testBudgetID, Scope: "acme/ml", Unit: "tokens", Limit: 1000,
		Window:      earmark.Window{Period: earmark.PeriodMonth, Timezone: "Europe/Berlin"},
		Enforcement: earmark.EnforcementHard, Overage: earmark.OverageReject, Allowance: earmark.AllowanceFirst, CreatedAt: testTime,
		Balance: earmark.Balance{Limit: 1000, EffectiveLimit: 1000, Reserved: 500, Committed: 400, Available: 100, WindowStart: testTime, WindowEnd: &end},
	}
}

func testDecision(retryable bool) *earmark.Decision {
	d := &earmark.Decision{Retryable: retryable, Violations: []earmark.Violation{{
		BudgetID: testBudgetID, Scope: "acme/ml", Unit: "tokens", Limit: 1000, Reserved: 500, Committed: 400, Available: 100, Requested: 1200,
	}}}
	if retryable {
		d.Violations[0].Requested, d.RetryAt = 500, new(time.Now().Add(30*time.Second).UTC())
	}
	return d
}
