package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/pricing"
)

// sent is a request as the server saw it.
type sent struct {
	method, path, query, body string
	header                    http.Header
}

// env is a client, the server that it calls, and what happened between them.
type env struct {
	client *Client
	mu     sync.Mutex
	sent   []sent
	pauses []time.Duration
}

// A private authority is trusted where it is named. A certificate that is not trusted is no
// failure in passing: nothing is repeated.
func TestRootCAs(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"data":[]}`)
	}))
	var handshakes atomic.Int32
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		handshakes.Add(1)
		return nil, nil //nolint:nilnil // goes on as configured
	}}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	trusting, err := New(server.URL, WithRootCAs(roots))
	require.NoError(t, err)
	t.Cleanup(trusting.http.CloseIdleConnections)
	_, err = trusting.Budgets(t.Context(), earmark.BudgetFilter{})
	require.NoError(t, err)

	handshakes.Store(0)
	stranger, err := New(server.URL)
	require.NoError(t, err)
	_, err = stranger.Budgets(t.Context(), earmark.BudgetFilter{})
	var untrusted *tls.CertificateVerificationError
	require.ErrorAs(t, err, &untrusted)
	require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(err))
	require.EqualValues(t, 1, handshakes.Load())
}

// setup makes a server that gives the answers in their order, and the last one
// from then on. The client's pauses take no time.
func setup(t *testing.T, answers ...http.HandlerFunc) *env {
	t.Helper()
	b := &env{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		b.mu.Lock()
		b.sent = append(b.sent, sent{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, string(body), r.Header})
		next := answers[min(len(b.sent), len(answers))-1]
		b.mu.Unlock()
		next(w, r)
	}))
	t.Cleanup(server.Close)
	client, err := New(server.URL + "/")
	require.NoError(t, err)
	client.pause = func(ctx context.Context, d time.Duration) error {
		b.pauses = append(b.pauses, d)
		return ctx.Err()
	}
	b.client = client
	return b
}

func says(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		if status >= 400 && strings.HasPrefix(body, "{") {
			w.Header().Set("Content-Type", "application/problem+json")
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// breaks closes the connection without an answer.
func breaks(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// breaksOff closes it in the middle of one.
func breaksOff(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "100")
	_, _ = io.WriteString(w, `{"id":`)
	panic(http.ErrAbortHandler)
}

const (
	unavailable = `{"type":"urn:earmark:problem:unavailable","title":"Away","status":503,"detail":"Postgres is away","code":"unavailable"}`
	held        = `{"id":"rsv_1","state":"held"}`
)

// Every call goes out as the document describes it, and there is a method for
// every call in the document.
func TestEveryCall(t *testing.T) {
	t.Parallel()
	doc, router := contract(t)
	budgetID, reservationID := earmark.NewBudgetID(), earmark.NewReservationID()
	overrideID := earmark.OverrideID(budgetID, "k")
	grantID := earmark.GrantID(budgetID, "k")
	webhookID := earmark.NewWebhookID()
	limit := int64(7)
	expires := time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)
	var none *int64
	ten := earmark.Amounts{"tokens": 10}
	reservation := earmark.ReservationRequest{Scopes: []string{"acme"}, Amounts: ten}
	var called sync.Map // by operation id
	alice := By{Operator: "alice", Reason: "why"}
	for _, test := range []struct {
		name   string
		call   func(context.Context, *Client) (any, error)
		answer string
		want   sent
	}{
		{"CreateBudget", func(ctx context.Context, c *Client) (any, error) {
			return c.CreateBudget(ctx, earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit})
		}, `{"id":"bud_1"}`, sent{method: "POST", path: "/v1/budgets", body: `{"scope":"acme","unit":"tokens","limit":7}`}},
		{"Budget", func(ctx context.Context, c *Client) (any, error) { return c.Budget(ctx, budgetID) },
			`{"id":"bud_1"}`, sent{method: "GET", path: "/v1/budgets/" + budgetID}},
		{"Budgets", func(ctx context.Context, c *Client) (any, error) {
			return c.Budgets(ctx, earmark.BudgetFilter{Covering: "acme/ml", Cursor: "c", Limit: 2})
		}, `{"data":[{"id":"bud_1"}],"next_cursor":"n"}`, sent{method: "GET", path: "/v1/budgets", query: "covering=acme%2Fml&cursor=c&limit=2"}},
		{"BudgetWindows", func(ctx context.Context, c *Client) (any, error) {
			return c.BudgetWindows(ctx, budgetID, earmark.WindowFilter{Cursor: "c", Limit: 2})
		}, `{"data":[{"limit":7}],"next_cursor":"n"}`, sent{method: "GET", path: "/v1/budgets/" + budgetID + "/windows", query: "cursor=c&limit=2"}},
		{"Budgets on a scope", func(ctx context.Context, c *Client) (any, error) {
			return c.Budgets(ctx, earmark.BudgetFilter{Scope: "acme"})
		}, `{"data":[],"next_cursor":""}`, sent{method: "GET", path: "/v1/budgets", query: "scope=acme"}},
		{"UsageReport", func(ctx context.Context, c *Client) (any, error) {
			return c.UsageReport(ctx, budgetID, earmark.UsageQuery{From: &expires, By: earmark.UsageByMetadata + "feature"})
		}, `{"budget_id":"` + budgetID + `","by":"metadata.feature","data":[{"start":null,"end":null,"value":"chat","other":false,"committed":7,"charges":2}]}`,
			sent{method: "GET", path: "/v1/budgets/" + budgetID + "/usage", query: "by=metadata.feature&from=2027-01-31T00%3A00%3A00Z"}},
		{"PatchBudget", func(ctx context.Context, c *Client) (any, error) {
			return c.PatchBudget(ctx, budgetID, earmark.BudgetPatch{Limit: &limit})
		}, `{"id":"bud_1"}`, sent{method: "PATCH", path: "/v1/budgets/" + budgetID, body: `{"limit":7}`}},
		{"PatchBudget without a ceiling", func(ctx context.Context, c *Client) (any, error) {
			return c.PatchBudget(ctx, budgetID, earmark.BudgetPatch{SoftCeiling: &none})
		}, `{"id":"bud_1"}`, sent{method: "PATCH", path: "/v1/budgets/" + budgetID, body: `{"soft_ceiling":null}`}},
		{"ArchiveBudget", func(ctx context.Context, c *Client) (any, error) { return c.ArchiveBudget(ctx, budgetID) },
			`{"id":"bud_1"}`, sent{method: "DELETE", path: "/v1/budgets/" + budgetID}},
		{"Reserve", func(ctx context.Context, c *Client) (any, error) { return c.Reserve(ctx, "k", reservation) },
			held, sent{method: "POST", path: "/v1/reservations", body: `{"scopes":["acme"],"amounts":{"tokens":10}}`}},
		{"Reserve by an estimate", func(ctx context.Context, c *Client) (any, error) {
			return c.Reserve(ctx, "k", earmark.ReservationRequest{Scopes: []string{"acme"}, Estimate: &earmark.Estimate{Model: "gpt-5", InputTokens: 9, MaxOutputTokens: new(int64)}})
		}, held, sent{method: "POST", path: "/v1/reservations", body: `{"scopes":["acme"],"estimate":{"model":"gpt-5","input_tokens":9,"max_output_tokens":0}}`}},
		{"CommitResponse", func(ctx context.Context, c *Client) (any, error) {
			return c.CommitResponse(ctx, reservationID, earmark.Response{ProviderUsage: json.RawMessage(`{"a":1}`), Model: "gpt-5"})
		}, held, sent{method: "POST", path: "/v1/reservations/" + reservationID + "/commit", body: `{"provider_usage":{"a":1},"model":"gpt-5"}`}},
		{"CommitEstimate", func(ctx context.Context, c *Client) (any, error) { return c.CommitEstimate(ctx, reservationID, ten) },
			held, sent{method: "POST", path: "/v1/reservations/" + reservationID + "/commit", body: `{"usage":{"tokens":10},"estimated":true}`}},
		{"Decide", func(ctx context.Context, c *Client) (any, error) { return c.Decide(ctx, reservation) },
			`{"admitted":true,"violations":[]}`, sent{method: "POST", path: "/v1/decisions", body: `{"scopes":["acme"],"amounts":{"tokens":10}}`}},
		{"Reservation", func(ctx context.Context, c *Client) (any, error) { return c.Reservation(ctx, reservationID) },
			held, sent{method: "GET", path: "/v1/reservations/" + reservationID}},
		{"Reservations", func(ctx context.Context, c *Client) (any, error) {
			return c.Reservations(ctx, earmark.ReservationFilter{State: earmark.StateHeld, Scope: "a", Overdue: true, Orphan: true})
		}, `{"data":[` + held + `],"next_cursor":""}`, sent{method: "GET", path: "/v1/reservations", query: "orphan=true&overdue=true&scope=a&state=held"}},
		{"Commit", func(ctx context.Context, c *Client) (any, error) { return c.Commit(ctx, reservationID, ten) },
			held, sent{method: "POST", path: "/v1/reservations/" + reservationID + "/commit", body: `{"usage":{"tokens":10}}`}},
		{"Release", func(ctx context.Context, c *Client) (any, error) { return c.Release(ctx, reservationID, "no") },
			held, sent{method: "POST", path: "/v1/reservations/" + reservationID + "/release", body: `{"reason":"no"}`}},
		{"Extend", func(ctx context.Context, c *Client) (any, error) {
			return c.Extend(ctx, reservationID, 1500*time.Millisecond)
		},
			held, sent{method: "POST", path: "/v1/reservations/" + reservationID + "/extend", body: `{"ttl_seconds":2}`}},
		{"Stuck", func(ctx context.Context, c *Client) (any, error) {
			return c.Stuck(ctx, earmark.ReservationFilter{State: earmark.StateHeld, Scope: "a", StuckReason: earmark.StuckOrphan})
		}, `{"data":[` + held + `],"next_cursor":"","searches":[]}`, sent{method: "GET", path: "/v1/reservations", query: "scope=a&stuck=true&stuck_reason=orphan"}},
		{"CommitBy", func(ctx context.Context, c *Client) (any, error) { return c.CommitBy(ctx, reservationID, ten, alice) },
			held, sent{method: "POST", path: "/v1/reservations/" + reservationID + "/commit", body: `{"usage":{"tokens":10},"operator":"alice","reason":"why"}`}},
		{"GiveBack", func(ctx context.Context, c *Client) (any, error) { return c.GiveBack(ctx, reservationID, alice) },
			held, sent{method: "POST", path: "/v1/reservations/" + reservationID + "/release", body: `{"operator":"alice","reason":"why"}`}},
		{"ExtendBy", func(ctx context.Context, c *Client) (any, error) {
			return c.ExtendBy(ctx, reservationID, time.Minute, alice)
		}, held, sent{method: "POST", path: "/v1/reservations/" + reservationID + "/extend", body: `{"ttl_seconds":60,"operator":"alice","reason":"why"}`}},
		{"Adopt", func(ctx context.Context, c *Client) (any, error) { return c.Adopt(ctx, reservationID, alice) },
			held, sent{method: "POST", path: "/v1/reservations/" + reservationID + "/adopt", body: `{"operator":"alice","reason":"why"}`}},
		{"ChargeUsage", func(ctx context.Context, c *Client) (any, error) {
			return c.ChargeUsage(ctx, "k", earmark.UsageRequest{Scopes: []string{"acme"}, Amounts: ten})
		}, held, sent{method: "POST", path: "/v1/usage", body: `{"scopes":["acme"],"amounts":{"tokens":10}}`}},
		{"Correct", func(ctx context.Context, c *Client) (any, error) {
			return c.Correct(ctx, reservationID, "k", earmark.CorrectionRequest{Amounts: earmark.Amounts{"tokens": -10}, Reason: "why", Operator: "alice"})
		}, held, sent{method: "POST", path: "/v1/reservations/" + reservationID + "/corrections", body: `{"amounts":{"tokens":-10},"reason":"why","operator":"alice"}`}},
		{"CreateOverride", func(ctx context.Context, c *Client) (any, error) {
			return c.CreateOverride(ctx, budgetID, "k", earmark.OverrideRequest{Amount: 500, ExpiresAt: &expires, Reason: "why"})
		}, `{"id":"ovr_a","amount":500}`, sent{method: "POST", path: "/v1/budgets/" + budgetID + "/overrides", body: `{"amount":500,"expires_at":"2027-01-31T00:00:00Z","reason":"why"}`}},
		{"ResetBudget", func(ctx context.Context, c *Client) (any, error) { return c.ResetBudget(ctx, budgetID, "k", "why") },
			`{"id":"ovr_a","amount":500}`, sent{method: "POST", path: "/v1/budgets/" + budgetID + "/reset", body: `{"reason":"why"}`}},
		{"Overrides", func(ctx context.Context, c *Client) (any, error) {
			return c.Overrides(ctx, budgetID, earmark.PageFilter{Cursor: "c", Limit: 3})
		}, `{"data":[{"id":"ovr_a"}],"next_cursor":""}`, sent{method: "GET", path: "/v1/budgets/" + budgetID + "/overrides", query: "cursor=c&limit=3"}},
		{"EndOverride", func(ctx context.Context, c *Client) (any, error) {
			return c.EndOverride(ctx, budgetID, overrideID, "why")
		}, `{"id":"ovr_a"}`, sent{method: "POST", path: "/v1/budgets/" + budgetID + "/overrides/" + overrideID + "/end", body: `{"reason":"why"}`}},
		{"CreateGrant", func(ctx context.Context, c *Client) (any, error) {
			return c.CreateGrant(ctx, budgetID, "k", earmark.GrantRequest{Amount: 500, ExpiresAt: &expires, Reason: "why"})
		}, `{"id":"grt_a","amount":500}`, sent{method: "POST", path: "/v1/budgets/" + budgetID + "/grants", body: `{"amount":500,"expires_at":"2027-01-31T00:00:00Z","reason":"why"}`}},
		{"Grants", func(ctx context.Context, c *Client) (any, error) {
			return c.Grants(ctx, budgetID, earmark.PageFilter{Cursor: "c", Limit: 3})
		}, `{"data":[{"id":"grt_a"}],"next_cursor":""}`, sent{method: "GET", path: "/v1/budgets/" + budgetID + "/grants", query: "cursor=c&limit=3"}},
		{"VoidGrant", func(ctx context.Context, c *Client) (any, error) {
			return c.VoidGrant(ctx, budgetID, grantID, "why")
		}, `{"id":"grt_a"}`, sent{method: "POST", path: "/v1/budgets/" + budgetID + "/grants/" + grantID + "/void", body: `{"reason":"why"}`}},
		{"Entries", func(ctx context.Context, c *Client) (any, error) {
			return c.Entries(ctx, earmark.EntryFilter{BudgetID: budgetID, ReservationID: reservationID, Limit: 5})
		}, `{"data":[{"id":1}],"next_cursor":""}`, sent{method: "GET", path: "/v1/entries", query: "budget_id=" + budgetID + "&limit=5&reservation_id=" + reservationID}},
		{"Events", func(ctx context.Context, c *Client) (any, error) {
			return c.Events(ctx, earmark.EventFilter{After: "evt_1_2", Types: []earmark.EventType{earmark.EventExpired, earmark.EventReview}, BudgetID: budgetID, Limit: 5})
		}, `{"data":[{"id":"evt_1_3"}],"next_after":"evt_1_3"}`, sent{method: "GET", path: "/v1/events",
			query: "after=evt_1_2&budget_id=" + budgetID + "&limit=5&type=reservation.expired%2Creservation.review"}},
		{"CreateWebhook", func(ctx context.Context, c *Client) (any, error) {
			return c.CreateWebhook(ctx, earmark.WebhookRequest{URL: "https://example.com", Types: []earmark.EventType{earmark.EventExpired}})
		}, `{"id":"whk_a","secret":"whsec_x"}`, sent{method: "POST", path: "/v1/webhooks", body: `{"url":"https://example.com","types":["reservation.expired"]}`}},
		{"Webhooks", func(ctx context.Context, c *Client) (any, error) {
			return c.Webhooks(ctx, earmark.PageFilter{Cursor: "c", Limit: 3})
		}, `{"data":[{"id":"whk_a"}],"next_cursor":""}`, sent{method: "GET", path: "/v1/webhooks", query: "cursor=c&limit=3"}},
		{"Webhook", func(ctx context.Context, c *Client) (any, error) { return c.Webhook(ctx, webhookID) },
			`{"id":"whk_a"}`, sent{method: "GET", path: "/v1/webhooks/" + webhookID}},
		{"PatchWebhook", func(ctx context.Context, c *Client) (any, error) {
			return c.PatchWebhook(ctx, webhookID, earmark.WebhookPatch{Enabled: new(bool), Types: new([]earmark.EventType)})
		}, `{"id":"whk_a"}`, sent{method: "PATCH", path: "/v1/webhooks/" + webhookID, body: `{"types":[],"enabled":false}`}},
		{"DeleteWebhook", func(ctx context.Context, c *Client) (any, error) { return c.DeleteWebhook(ctx, webhookID) },
			`{"id":"whk_a"}`, sent{method: "DELETE", path: "/v1/webhooks/" + webhookID}},
		{"RotateWebhookSecret", func(ctx context.Context, c *Client) (any, error) { return c.RotateWebhookSecret(ctx, webhookID) },
			`{"id":"whk_a","secret":"whsec_y"}`, sent{method: "POST", path: "/v1/webhooks/" + webhookID + "/rotate-secret"}},
		{"TestWebhook", func(ctx context.Context, c *Client) (any, error) { return c.TestWebhook(ctx, webhookID) },
			`{"event_id":"evt_test_a","status":204}`, sent{method: "POST", path: "/v1/webhooks/" + webhookID + "/test"}},
		{"Deliveries", func(ctx context.Context, c *Client) (any, error) {
			return c.Deliveries(ctx, webhookID, earmark.PageFilter{Cursor: "c", Limit: 3})
		}, `{"data":[{"id":7}],"next_cursor":""}`, sent{method: "GET", path: "/v1/webhooks/" + webhookID + "/deliveries", query: "cursor=c&limit=3"}},
		{"ReplayWebhook", func(ctx context.Context, c *Client) (any, error) {
			return c.ReplayWebhook(ctx, webhookID, earmark.WebhookReplay{From: expires})
		}, `{"id":"whk_a"}`, sent{method: "POST", path: "/v1/webhooks/" + webhookID + "/replay", body: `{"from":"2027-01-31T00:00:00Z"}`}},
		{"Overview", func(ctx context.Context, c *Client) (any, error) { return c.Overview(ctx) },
			`{"at":"2026-03-04T05:06:07Z","held":1}`, sent{method: "GET", path: "/v1/overview"}},
		{"Whoami", func(ctx context.Context, c *Client) (any, error) { return c.Whoami(ctx) },
			`{"tenant":"globex","role":"read"}`, sent{method: "GET", path: "/v1/whoami"}},
		{"Keys", func(ctx context.Context, c *Client) (any, error) { return c.Keys(ctx, earmark.KeyFilter{Limit: 3}) },
			`{"data":[{"id":"abcdefgh0129"}],"next_cursor":""}`, sent{method: "GET", path: "/v1/keys", query: "limit=3"}},
		{"CreateKey", func(ctx context.Context, c *Client) (any, error) {
			return c.CreateKey(ctx, earmark.KeyRequest{Name: "n", Role: earmark.RoleSettle, Scopes: []string{"acme"}, ExpiresAt: &expires}, alice)
		}, `{"id":"abcdefgh0129","secret":"emk_x"}`, sent{method: "POST", path: "/v1/keys",
			body: `{"name":"n","role":"settle","scopes":["acme"],"expires_at":"2027-01-31T00:00:00Z","operator":"alice","reason":"why"}`}},
		{"RotateKey", func(ctx context.Context, c *Client) (any, error) {
			return c.RotateKey(ctx, "abcdefgh0129", time.Minute, alice)
		}, `{"id":"abcdefgh0129","secret":"emk_x"}`, sent{method: "POST", path: "/v1/keys/abcdefgh0129/rotate", body: `{"overlap_seconds":60,"operator":"alice","reason":"why"}`}},
		{"RevokeKey", func(ctx context.Context, c *Client) (any, error) { return c.RevokeKey(ctx, "abcdefgh0129", alice) },
			`{"id":"abcdefgh0129"}`, sent{method: "POST", path: "/v1/keys/abcdefgh0129/revoke", body: `{"operator":"alice","reason":"why"}`}},
		{"Audit", func(ctx context.Context, c *Client) (any, error) {
			return c.Audit(ctx, earmark.AuditFilter{Subject: "abcdefgh0129", Action: earmark.ActionKeyRevoke, Actor: "operator:alice", Cursor: "c", Limit: 3})
		}, `{"data":[{"id":1}],"next_cursor":""}`, sent{method: "GET", path: "/v1/audit", query: "action=key.revoke&actor=operator%3Aalice&cursor=c&limit=3&subject=abcdefgh0129"}},
		{"Prices", func(ctx context.Context, c *Client) (any, error) {
			return c.Prices(ctx, PriceFilter{Provider: "openai", Model: "gpt", At: expires, Version: 2, Cursor: "c", Limit: 3})
		}, `{"version":2,"data":[{"provider":"openai","model":"gpt-5","rates":{"input":"0.00000125"}}],"next_cursor":""}`, sent{method: "GET", path: "/v1/prices",
			query: "at=2027-01-31T00%3A00%3A00Z&cursor=c&limit=3&model=gpt&provider=openai&version=2"}},
		{"AddPrices", func(ctx context.Context, c *Client) (any, error) {
			entry := pricing.Entry{Provider: "openai", Model: "gpt-5", Prices: pricing.Prices{Rates: pricing.Rates{pricing.Input: pricing.PerMillion("1.25")}}}
			return c.AddPrices(ctx, PricesRequest{Entries: []pricing.Entry{entry}, Source: "the page", By: alice})
		}, `{"version":3,"entries":[]}`, sent{method: "POST", path: "/v1/prices",
			body: `{"entries":[{"provider":"openai","model":"gpt-5","rates":{"input":"0.00000125"}}],"source":"the page","operator":"alice","reason":"why"}`}},
		{"ExplainPrice", func(ctx context.Context, c *Client) (any, error) {
			return c.ExplainPrice(ctx, ExplainRequest{ProviderUsage: json.RawMessage(`{"a":1}`), Model: "gpt-5", Scopes: []string{"acme"}, Version: 2})
		}, `{"version":2,"lines":[{"what":"input","count":"1","rate_usd":"0.00000125","usd":"0.00000125"}],"usd":"0.00000125","usd_micros":1}`, sent{method: "POST", path: "/v1/prices/explain",
			body: `{"provider_usage":{"a":1},"model":"gpt-5","scopes":["acme"],"version":2}`}},
		{"Health", func(ctx context.Context, c *Client) (any, error) { return nil, c.Health(ctx) },
			`{"status":"ok"}`, sent{method: "GET", path: "/healthz"}},
		{"Ready", func(ctx context.Context, c *Client) (any, error) { return c.Ready(ctx) },
			`{"status":"ready","checks":{"postgres":{"status":"up","detail":""}}}`, sent{method: "GET", path: "/readyz"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, says(http.StatusOK, test.answer))
			value, err := test.call(t.Context(), b.client)
			require.NoError(t, err)
			require.Len(t, b.sent, 1)
			got := b.sent[0]
			called.Store(checkRequest(t, router, got), true)
			require.Equal(t, "earmark-go-client", got.header.Get("User-Agent"))
			require.Equal(t, test.want.body != "", got.header.Get("Content-Type") == "application/json")
			got.header = nil
			require.Equal(t, test.want, got)
			if value != nil {
				encoded, err := json.Marshal(value)
				require.NoError(t, err)
				require.NotEqual(t, "null", string(encoded))
			}
		})
	}
	t.Cleanup(func() { // once all calls are made
		for path, item := range doc.Paths.Map() {
			for _, operation := range item.Operations() {
				// For Prometheus, people and Temporal UI.
				if !slices.Contains([]string{"/metrics", "/openapi.yaml", "/temporal/codec/decode"}, path) {
					_, ok := called.Load(operation.OperationID)
					require.True(t, ok, "no method calls %s", operation.OperationID)
				}
			}
		}
	})
}

func contract(t *testing.T) (*openapi3.T, routers.Router) {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("../api/openapi.yaml")
	require.NoError(t, err)
	doc.Servers = nil // tests call another host
	router, err := legacy.NewRouter(doc)
	require.NoError(t, err)
	return doc, router
}

// checkRequest checks a request against the document and gives its operation.
func checkRequest(t *testing.T, router routers.Router, s sent) (operationID string) {
	t.Helper()
	request := httptest.NewRequest(s.method, s.path+"?"+s.query, strings.NewReader(s.body))
	request.Header = s.header
	route, params, err := router.FindRoute(request)
	require.NoError(t, err)
	require.NoError(t, openapi3filter.ValidateRequest(t.Context(), &openapi3filter.RequestValidationInput{
		Request: request, PathParams: params, Route: route, Options: &openapi3filter.Options{SkipSettingDefaults: true, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc},
	}))
	return route.Operation.OperationID
}

func TestReserveKeys(t *testing.T) {
	t.Parallel()
	b := setup(t, says(http.StatusCreated, held))
	for range 2 {
		r, err := b.client.Reserve(t.Context(), "", earmark.ReservationRequest{})
		require.NoError(t, err)
		require.Equal(t, earmark.StateHeld, r.State)
	}
	_, err := b.client.Reserve(t.Context(), "mine", earmark.ReservationRequest{})
	require.NoError(t, err)
	keys := []string{}
	for _, s := range b.sent {
		keys = append(keys, s.header.Get("Idempotency-Key"))
	}
	require.NoError(t, earmark.ValidateIdempotencyKey(keys[0]))
	require.NotEqual(t, keys[0], keys[1])
	require.Equal(t, "mine", keys[2])

	for _, call := range []func() error{
		func() error {
			_, err := b.client.Reserve(t.Context(), "a\nb", earmark.ReservationRequest{})
			return err
		},
		func() error { _, err := b.client.ChargeUsage(t.Context(), "", earmark.UsageRequest{}); return err },
		func() error {
			_, err := b.client.Correct(t.Context(), "r", "", earmark.CorrectionRequest{})
			return err
		},
		func() error { _, err := b.client.ResetBudget(t.Context(), "b", "", "why"); return err },
	} {
		var e *earmark.Error
		require.ErrorAs(t, call(), &e)
		require.Equal(t, earmark.CodeInvalidRequest, e.Code)
		require.Equal(t, "Idempotency-Key", e.Field)
	}
	require.Len(t, b.sent, 3, "a bad key is not sent")
}

func TestAccepted(t *testing.T) {
	t.Parallel()
	b := setup(t, says(http.StatusAccepted, `{"id":"rsv_1","accepted":true}`))
	committed, err := b.client.Commit(t.Context(), "rsv_1", earmark.Amounts{"tokens": 1})
	require.NoError(t, err)
	require.Equal(t, Settled{Accepted: true}, committed)
	released, err := b.client.Release(t.Context(), "rsv_1", "")
	require.NoError(t, err)
	require.Equal(t, Settled{Accepted: true}, released)
}

func TestProblemsComeBackWhole(t *testing.T) {
	t.Parallel()
	b := setup(t, says(http.StatusPaymentRequired, `{"type":"x","title":"T","status":402,"detail":"does not fit","code":"budget_exceeded",
		"violations":[{"budget_id":"bud_1","unit":"tokens","limit":5}],"retryable":true,"retry_at":"2026-11-24T00:26:36Z","new_field":1}`, "Retry-After", "604800"))
	_, err := b.client.Reserve(t.Context(), "", earmark.ReservationRequest{})
	var e *earmark.Error
	require.ErrorAs(t, err, &e)
	require.True(t, IsDenied(err))
	require.Equal(t, "does not fit", e.Error())
	require.Equal(t, []earmark.Violation{{BudgetID: "bud_1", Unit: "tokens", Limit: 5}}, e.Violations)
	require.True(t, e.Retryable)
	require.Equal(t, time.Date(2026, 11, 24, 0, 26, 36, 0, time.UTC), *e.RetryAt)
	require.Equal(t, 7*24*time.Hour, e.RetryAfter)
	require.Len(t, b.sent, 1, "a denial is an answer")
	require.Empty(t, b.pauses, "and waiting for it is the caller's choice")

	b = setup(t, says(http.StatusConflict, `{"detail":"settled","code":"already_settled","reservation":`+held+`,"reservation_id":"rsv_1"}`))
	_, err = b.client.Commit(t.Context(), "rsv_1", nil)
	require.ErrorAs(t, err, &e)
	require.Equal(t, earmark.StateHeld, e.Reservation.State)
	require.Equal(t, "rsv_1", e.ReservationID)
	require.False(t, IsDenied(err))

	b = setup(t, says(http.StatusBadRequest, `{"title":"T","detail":"scopes[0]: is empty","code":"invalid_request","field":"scopes[0]"}`))
	_, err = b.client.Decide(t.Context(), earmark.ReservationRequest{})
	require.ErrorAs(t, err, &e)
	require.Equal(t, "scopes[0]", e.Field)
	require.Equal(t, "is empty", e.Message)
	require.Equal(t, "scopes[0]: is empty", e.Error())
}

func TestForeignAnswers(t *testing.T) {
	t.Parallel()
	for status, code := range map[int]earmark.Code{
		301: earmark.CodeInternal, 400: earmark.CodeInvalidRequest, 401: earmark.CodeUnauthenticated, 404: earmark.CodeNotFound,
		405: earmark.CodeMethodNotAllowed, 413: earmark.CodePayloadTooLarge, 415: earmark.CodeUnsupportedMediaType,
		429: earmark.CodeUnavailable, 500: earmark.CodeInternal, 502: earmark.CodeUnavailable, 503: earmark.CodeUnavailable, 504: earmark.CodeUnavailable,
	} {
		for _, body := range []string{"<html>nginx</html>", `{"error":"no code"}`, ""} {
			b := setup(t, says(status, body))
			_, err := b.client.CreateBudget(t.Context(), earmark.BudgetRequest{})
			require.Equal(t, code, earmark.ErrorCode(err), "%d %q", status, body)
		}
	}
	b := setup(t, says(http.StatusOK, "<html>a login page</html>"))
	_, err := b.client.Budget(t.Context(), "x")
	require.Equal(t, earmark.CodeInternal, earmark.ErrorCode(err))
	require.Len(t, b.sent, 1)
}

func TestReadyTellsWhatIsAway(t *testing.T) {
	t.Parallel()
	b := setup(t, says(http.StatusServiceUnavailable, `{"detail":"postgres: refused","code":"unavailable",
		"checks":{"postgres":{"status":"down","detail":"refused"},"temporal":{"status":"up","detail":""}}}`))
	checks, err := b.client.Ready(t.Context())
	require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(err))
	require.Equal(t, map[string]Check{"postgres": {"down", "refused"}, "temporal": {"up", ""}}, checks)
	require.Len(t, b.sent, 1)

	b = setup(t, says(http.StatusOK, "rubbish"))
	_, err = b.client.Ready(t.Context())
	require.Equal(t, earmark.CodeInternal, earmark.ErrorCode(err))
}

// Calls that do no more when they are sent twice are repeated, the others not.
func TestWhatIsRepeated(t *testing.T) {
	t.Parallel()
	amounts := earmark.Amounts{"tokens": 1}
	repeated := map[string]func(context.Context, *Client) error{
		"Budget": func(ctx context.Context, c *Client) error { _, err := c.Budget(ctx, "b"); return err },
		"Budgets": func(ctx context.Context, c *Client) error {
			_, err := c.Budgets(ctx, earmark.BudgetFilter{})
			return err
		},
		"UsageReport": func(ctx context.Context, c *Client) error {
			_, err := c.UsageReport(ctx, "b", earmark.UsageQuery{})
			return err
		},
		"BudgetWindows": func(ctx context.Context, c *Client) error {
			_, err := c.BudgetWindows(ctx, "b", earmark.WindowFilter{})
			return err
		},
		"ArchiveBudget": func(ctx context.Context, c *Client) error { _, err := c.ArchiveBudget(ctx, "b"); return err },
		"Reserve": func(ctx context.Context, c *Client) error {
			_, err := c.Reserve(ctx, "", earmark.ReservationRequest{})
			return err
		},
		"Decide": func(ctx context.Context, c *Client) error {
			_, err := c.Decide(ctx, earmark.ReservationRequest{})
			return err
		},
		"Commit": func(ctx context.Context, c *Client) error { _, err := c.Commit(ctx, "r", amounts); return err },
		"Release": func(ctx context.Context, c *Client) error {
			_, err := c.Release(ctx, "r", "")
			return err
		},
		"Extend":      func(ctx context.Context, c *Client) error { _, err := c.Extend(ctx, "r", time.Second); return err },
		"Reservation": func(ctx context.Context, c *Client) error { _, err := c.Reservation(ctx, "r"); return err },
		"Reservations": func(ctx context.Context, c *Client) error {
			_, err := c.Reservations(ctx, earmark.ReservationFilter{})
			return err
		},
		"Entries": func(ctx context.Context, c *Client) error {
			_, err := c.Entries(ctx, earmark.EntryFilter{})
			return err
		},
		"Correct": func(ctx context.Context, c *Client) error {
			_, err := c.Correct(ctx, "r", "k", earmark.CorrectionRequest{})
			return err
		},
		"CreateOverride": func(ctx context.Context, c *Client) error {
			_, err := c.CreateOverride(ctx, "b", "k", earmark.OverrideRequest{})
			return err
		},
		"ResetBudget": func(ctx context.Context, c *Client) error { _, err := c.ResetBudget(ctx, "b", "k", "why"); return err },
		"Overrides": func(ctx context.Context, c *Client) error {
			_, err := c.Overrides(ctx, "b", earmark.PageFilter{})
			return err
		},
		"EndOverride": func(ctx context.Context, c *Client) error { _, err := c.EndOverride(ctx, "b", "o", "why"); return err },
		"CreateGrant": func(ctx context.Context, c *Client) error {
			_, err := c.CreateGrant(ctx, "b", "k", earmark.GrantRequest{})
			return err
		},
		"Grants": func(ctx context.Context, c *Client) error {
			_, err := c.Grants(ctx, "b", earmark.PageFilter{})
			return err
		},
		"VoidGrant": func(ctx context.Context, c *Client) error { _, err := c.VoidGrant(ctx, "b", "g", "why"); return err },
		"Webhooks": func(ctx context.Context, c *Client) error {
			_, err := c.Webhooks(ctx, earmark.PageFilter{})
			return err
		},
		"Webhook": func(ctx context.Context, c *Client) error { _, err := c.Webhook(ctx, "w"); return err },
		"Deliveries": func(ctx context.Context, c *Client) error {
			_, err := c.Deliveries(ctx, "w", earmark.PageFilter{})
			return err
		},
		"ReplayWebhook": func(ctx context.Context, c *Client) error {
			_, err := c.ReplayWebhook(ctx, "w", earmark.WebhookReplay{})
			return err
		},
		"ExplainPrice": func(ctx context.Context, c *Client) error {
			_, err := c.ExplainPrice(ctx, ExplainRequest{ProviderUsage: json.RawMessage(`{}`)})
			return err
		},
		"ChargeUsage": func(ctx context.Context, c *Client) error {
			_, err := c.ChargeUsage(ctx, "k", earmark.UsageRequest{})
			return err
		},
	}
	once := map[string]func(context.Context, *Client) error{
		"CreateBudget": func(ctx context.Context, c *Client) error {
			_, err := c.CreateBudget(ctx, earmark.BudgetRequest{})
			return err
		},
		"PatchBudget": func(ctx context.Context, c *Client) error {
			_, err := c.PatchBudget(ctx, "b", earmark.BudgetPatch{})
			return err
		},
		"CreateWebhook": func(ctx context.Context, c *Client) error {
			_, err := c.CreateWebhook(ctx, earmark.WebhookRequest{})
			return err
		},
		"PatchWebhook": func(ctx context.Context, c *Client) error {
			_, err := c.PatchWebhook(ctx, "w", earmark.WebhookPatch{})
			return err
		},
		"DeleteWebhook":       func(ctx context.Context, c *Client) error { _, err := c.DeleteWebhook(ctx, "w"); return err },
		"RotateWebhookSecret": func(ctx context.Context, c *Client) error { _, err := c.RotateWebhookSecret(ctx, "w"); return err },
		"TestWebhook":         func(ctx context.Context, c *Client) error { _, err := c.TestWebhook(ctx, "w"); return err },
		"AddPrices": func(ctx context.Context, c *Client) error {
			_, err := c.AddPrices(ctx, PricesRequest{})
			return err
		},
		"Health": func(ctx context.Context, c *Client) error { return c.Health(ctx) },
		"Ready":  func(ctx context.Context, c *Client) error { _, err := c.Ready(ctx); return err },
	}
	for name, call := range repeated {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, says(http.StatusServiceUnavailable, unavailable, "Retry-After", "1"), breaks, breaksOff, says(http.StatusOK, `{"id":"rsv_1"}`))
			if name == "Entries" || name == "Reservations" || name == "Budgets" || name == "BudgetWindows" {
				b = setup(t, breaks, says(http.StatusBadGateway, ""), says(http.StatusGatewayTimeout, ""), says(http.StatusOK, `{"data":[]}`))
			}
			require.NoError(t, call(t.Context(), b.client))
			require.GreaterOrEqual(t, len(b.sent), 4) // net/http may repeat a broken one by itself
			for _, s := range b.sent {
				require.Equal(t, b.sent[0].body, s.body)
				require.Equal(t, b.sent[0].header.Get("Idempotency-Key"), s.header.Get("Idempotency-Key"))
			}
		})
	}
	for name, call := range once {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, says(http.StatusServiceUnavailable, unavailable))
			require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(call(t.Context(), b.client)))
			require.Len(t, b.sent, 1)
		})
	}
}

// Only a service that is away is asked again; an answer stands.
func TestWhatIsWorthRepeating(t *testing.T) {
	t.Parallel()
	for status, code := range map[int]string{
		400: "invalid_request", 402: "budget_exceeded", 404: "not_found", 409: "already_settled",
		410: "reservation_expired", 422: "idempotency_mismatch", 500: "internal",
	} {
		b := setup(t, says(status, `{"code":"`+code+`","detail":"d"}`, "Retry-After", "1"))
		_, err := b.client.Commit(t.Context(), "r", earmark.Amounts{"tokens": 1})
		require.Error(t, err)
		require.Len(t, b.sent, 1, status)
	}
}

func TestAdmissionUnknownIsRepeatedWithTheSameKey(t *testing.T) {
	t.Parallel()
	b := setup(t,
		says(http.StatusServiceUnavailable, `{"code":"admission_unknown","detail":"no decision","reservation_id":"rsv_1"}`, "Retry-After", "1"),
		says(http.StatusCreated, held, "Idempotency-Hit", "true"))
	r, err := b.client.Reserve(t.Context(), "", earmark.ReservationRequest{Scopes: []string{"acme"}})
	require.NoError(t, err)
	require.Equal(t, "rsv_1", r.ID)
	require.Len(t, b.sent, 2)
	require.NotEmpty(t, b.sent[0].header.Get("Idempotency-Key"))
	require.Equal(t, b.sent[0].header.Get("Idempotency-Key"), b.sent[1].header.Get("Idempotency-Key"))
	require.GreaterOrEqual(t, b.pauses[0], time.Second)
}

// A caller of Reserve can see that the key was used before, and does not run
// the model twice.
func TestReplayed(t *testing.T) {
	t.Parallel()
	hit := says(http.StatusCreated, held, "Idempotency-Hit", "true")
	for name, test := range map[string]struct {
		key      string
		answers  []http.HandlerFunc
		replayed bool
	}{
		"first":                      {"k", []http.HandlerFunc{says(http.StatusCreated, held)}, false},
		"again":                      {"k", []http.HandlerFunc{hit}, true},
		"own first attempt was lost": {"k", []http.HandlerFunc{says(http.StatusServiceUnavailable, unavailable), hit}, false},
		"own key":                    {"", []http.HandlerFunc{hit}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := setup(t, test.answers...).client.Reserve(t.Context(), test.key, earmark.ReservationRequest{})
			require.NoError(t, err)
			require.Equal(t, test.replayed, r.Replayed)
			if test.key != "" {
				r, err = setup(t, test.answers...).client.ChargeUsage(t.Context(), test.key, earmark.UsageRequest{})
				require.NoError(t, err)
				require.Equal(t, test.replayed, r.Replayed)
			}
		})
	}
}

// A call that the key's rate refuses comes again when the server says, unless that is too long to wait for.
func TestKeysRateIsWaitedFor(t *testing.T) {
	t.Parallel()
	const limited = `{"code":"rate_limited","detail":"the key may make 50 calls a second"}`
	b := setup(t, says(http.StatusTooManyRequests, limited, "Retry-After", "2"), says(http.StatusOK, `{"id":"rsv_1"}`))
	_, err := b.client.Reservation(t.Context(), "r")
	require.NoError(t, err)
	require.Len(t, b.sent, 2)
	require.GreaterOrEqual(t, b.pauses[0], 2*time.Second)

	for name, call := range map[string]func() error{
		"too long":       func() error { _, err := b.client.Reservation(t.Context(), "r"); return err },
		"not repeatable": func() error { _, err := b.client.CreateBudget(t.Context(), earmark.BudgetRequest{}); return err },
	} {
		b = setup(t, says(http.StatusTooManyRequests, limited, "Retry-After", "20"))
		var e *earmark.Error
		require.ErrorAs(t, call(), &e, name)
		require.Equal(t, earmark.CodeRateLimited, e.Code)
		require.Equal(t, 20*time.Second, e.RetryAfter)
		require.Len(t, b.sent, 1, name)
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t, says(http.StatusServiceUnavailable, unavailable, "Retry-After", "3600"))
	_, err := b.client.Reservation(t.Context(), "r")
	var e *earmark.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, earmark.CodeUnavailable, e.Code)
	require.Equal(t, "Postgres is away", e.Message)
	require.Equal(t, time.Hour, e.RetryAfter)
	require.Len(t, b.sent, defaultMaxAttempts)
	for _, pause := range b.pauses {
		require.GreaterOrEqual(t, pause, longestRetryAfter)
		require.LessOrEqual(t, pause, longestRetryAfter+longestPause)
	}

	WithMaxAttempts(1)(b.client)
	_, err = b.client.Reservation(t.Context(), "r")
	require.Error(t, err)
	require.Len(t, b.sent, defaultMaxAttempts+1)
}

func TestContextBoundsTheWhole(t *testing.T) {
	t.Parallel()
	b := setup(t, says(http.StatusServiceUnavailable, unavailable, "Retry-After", "2"))
	b.client.pause = sleep
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	started := time.Now()
	_, err := b.client.Reservation(ctx, "r")
	require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(err))
	require.Less(t, time.Since(started), 500*time.Millisecond, "a pause past the deadline is not begun")
	require.Len(t, b.sent, 1)

	cancelled, cancelNow := context.WithCancel(t.Context())
	b = setup(t, func(_ http.ResponseWriter, r *http.Request) { cancelNow(); <-r.Context().Done() })
	_, err = b.client.Reservation(cancelled, "r")
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, b.sent, 1)
}

func TestNoServer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	c, err := New(server.URL)
	require.NoError(t, err)
	pauses := 0
	c.pause = func(context.Context, time.Duration) error { pauses++; return nil }
	_, err = c.Reserve(t.Context(), "", earmark.ReservationRequest{})
	require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(err))
	require.Equal(t, defaultMaxAttempts-1, pauses)
}

func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t, func(w http.ResponseWriter, _ *http.Request) {
		chunk := []byte(strings.Repeat(" ", 1<<20))
		for range maxAnswerBytes/len(chunk) + 1 {
			_, _ = w.Write(chunk)
		}
	})
	_, err := b.client.Budget(t.Context(), "b")
	require.ErrorContains(t, err, "over")
	require.Len(t, b.sent, 1)
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	read := func(text string) time.Duration {
		return answer{header: http.Header{"Retry-After": {text}}}.retryAfter()
	}
	require.Equal(t, 7*time.Second, read("7"))
	require.Zero(t, read(""))
	require.Zero(t, read("-7"))
	require.Zero(t, read("soon"))
	require.Zero(t, read("99999999999999999999"))
	require.Zero(t, read("Wed, 21 Oct 2015 07:28:00 GMT"))
	in := read(time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
	require.InDelta(t, time.Hour, in, float64(2*time.Second))
}

func TestPausesGrowAndVary(t *testing.T) {
	t.Parallel()
	seen := map[time.Duration]bool{}
	for attempt := 1; attempt < 100; attempt++ {
		pause := pauseAfter(attempt, answer{})
		require.Positive(t, pause)
		require.LessOrEqual(t, pause, longestPause)
		seen[pause] = true
	}
	require.Greater(t, len(seen), 20)
}

func TestNew(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "127.0.0.1:8080", "localhost", "ftp://x", "http://", "http://x?y=1", "http://x#y", "http://x\n", "unix:///x"} {
		_, err := New(bad)
		require.Equal(t, earmark.CodeInvalidRequest, earmark.ErrorCode(err), bad)
	}
	_, err := New("http://user:secret@x?y=1")
	require.NotContains(t, err.Error(), "secret")

	c, err := New("https://example.com/earmark/", WithUserAgent("me/1"), WithMaxAttempts(0))
	require.NoError(t, err)
	require.Equal(t, "https://example.com/earmark", c.base)
	require.Equal(t, "me/1", c.userAgent)
	require.Equal(t, 1, c.maxAttempts)
	transport, ok := c.http.Transport.(*http.Transport)
	require.True(t, ok)
	require.GreaterOrEqual(t, transport.MaxIdleConnsPerHost, 256)
	require.Positive(t, c.http.Timeout)

	own := &http.Client{}
	c, err = New("http://x", WithHTTPClient(own))
	require.NoError(t, err)
	require.Same(t, own, c.http)
}

func TestUnencodableRequest(t *testing.T) {
	t.Parallel()
	c, err := New("http://x")
	require.NoError(t, err)
	_, err = c.exchange(t.Context(), call{method: http.MethodPost, path: "/", body: func() {}}, nil)
	require.Equal(t, earmark.CodeInvalidRequest, earmark.ErrorCode(err))
	var unsupported *json.UnsupportedTypeError
	require.ErrorAs(t, err, &unsupported)
}

// The key goes with every call, in the header alone, and is in no error.
func TestAPIKey(t *testing.T) {
	t.Parallel()
	const key = "emk_abcdefgh0129_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg3qHHtK"
	b := setup(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	_, err := b.client.Budget(t.Context(), "bud_x")
	require.Equal(t, earmark.CodeUnauthenticated, earmark.ErrorCode(err))
	require.Empty(t, b.sent[0].header.Values("Authorization"))

	WithAPIKey(key)(b.client)
	_, err = b.client.Budget(t.Context(), "bud_x")
	require.Error(t, err)
	require.NotContains(t, err.Error(), key)
	require.Equal(t, []string{"Bearer " + key}, b.sent[1].header.Values("Authorization"))
	require.Empty(t, b.sent[1].query)
}
