package api

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/webhook"
)

const webhookPath = webhooksPath + "/" + testWebhookID

func TestWebhooks(t *testing.T) {
	t.Parallel()
	f := &fake{}
	b := setup(t, f)
	x := b.do("POST", webhooksPath, `{"url":"https://example.com/hooks","types":["budget.exhausted"],"scopes":["acme"]}`).status(http.StatusCreated)
	require.Equal(t, "whsec_x", decoded[earmark.IssuedWebhook](x).Secret)
	require.Equal(t, earmark.WebhookRequest{URL: "https://example.com/hooks", Types: []earmark.EventType{earmark.EventExhausted}, Scopes: []string{"acme"}}, f.last())
	b.do("GET", webhooksPath+"?limit=3&cursor=c", "").status(http.StatusOK)
	require.Equal(t, earmark.PageFilter{Cursor: "c", Limit: 3}, f.last())
	b.do("GET", webhookPath, "").status(http.StatusOK)
	b.do("PATCH", webhookPath, `{"enabled":false,"types":[]}`).status(http.StatusOK)
	require.Empty(t, *f.last().(earmark.WebhookPatch).Types)
	require.False(t, *f.last().(earmark.WebhookPatch).Enabled)
	b.do("POST", webhookPath+"/rotate-secret", "").status(http.StatusOK)
	b.do("POST", webhookPath+"/replay", `{"from":"2026-01-01T00:00:00Z","to":"2026-01-02T00:00:00Z"}`).status(http.StatusOK)
	require.Equal(t, 2, f.last().(earmark.WebhookReplay).To.Day())
	b.do("GET", webhookPath+"/deliveries?limit=3", "").status(http.StatusOK)
	b.do("DELETE", webhookPath, "").status(http.StatusOK)

	other := webhooksPath + "/" + earmark.NewWebhookID()
	for call, body := range map[[2]string]string{
		{"GET", ""}: "", {"PATCH", ""}: `{"enabled":true}`, {"DELETE", ""}: "", {"POST", "/rotate-secret"}: "", {"POST", "/test"}: "",
		{"POST", "/replay"}: `{"from":"2026-01-01T00:00:00Z"}`, {"GET", "/deliveries"}: "",
	} {
		b.do(call[0], other+call[1], body).problem(http.StatusNotFound, earmark.CodeNotFound)
	}
}

func TestWebhooksRefuseBadInput(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ path, body, field string }{
		{"", `{}`, "url"},
		{"", `{"url":"http://example.com"}`, "url"},
		{"", `{"url":"https://127.0.0.1/x"}`, "url"},
		{"", `{"url":"https://example.com","types":["budget.gone"]}`, "types[0]"},
		{"", `{"url":"https://example.com","types":["webhook.test"]}`, "types[0]"},
		{"", `{"url":"https://example.com","types":["budget.exhausted","budget.exhausted"]}`, "types[1]"},
		{"", `{"url":"https://example.com","budgets":["acme"]}`, "budgets[0]"},
		{"", `{"url":"https://example.com","scopes":["acme/"]}`, "scopes[0]"},
		{"", `{"url":"https://example.com","secret":"x"}`, "secret"},
		{"/replay", `{}`, "from"},
		{"/replay", `{"from":"yesterday"}`, "from"},
		{"/replay", `{"from":"2126-01-01T00:00:00Z"}`, "from"},
		{"/replay", `{"from":"2026-01-01T00:00:00Z","to":"2026-01-01T00:00:00Z"}`, "to"},
	} {
		path := webhooksPath
		if test.path != "" {
			path = webhookPath + test.path
		}
		f := &fake{}
		p := setup(t, f).do("POST", path, test.body).problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
		require.Equal(t, test.field, p.Field, test.body)
		require.Empty(t, f.calls)
	}
	b := setup(t, &fake{})
	for _, body := range []string{`{}`, `{"url":"https://10.0.0.1"}`, `{"types":[""]}`} {
		b.do("PATCH", webhookPath, body).problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
	}
}

// A key that is bound to scopes manages no webhook, which could receive the events of others.
func TestWebhooksByAKeyBoundToScopes(t *testing.T) {
	t.Parallel()
	f := playingAlong()
	bound := with(f.addKey(earmark.DefaultTenant, earmark.RoleAdmin, boundTo("acme")))
	b := setup(t, f, withKeys)
	for call, body := range map[[2]string]string{
		{"GET", webhooksPath}: "", {"POST", webhooksPath}: `{"url":"https://example.com"}`, {"GET", webhookPath}: "", {"PATCH", webhookPath}: `{"enabled":true}`, {"DELETE", webhookPath}: "",
		{"POST", webhookPath + "/rotate-secret"}: "", {"POST", webhookPath + "/test"}: "", {"GET", webhookPath + "/deliveries"}: "", {"POST", webhookPath + "/replay"}: `{"from":"2026-01-01T00:00:00Z"}`,
	} {
		b.do(call[0], call[1], body, bound...).problem(http.StatusForbidden, earmark.CodeForbidden)
	}
	for _, name := range f.names() {
		require.NotContains(t, name, "Webhook")
	}
}

// A test is signed as a delivery is, and shows what the endpoint answered.
func TestWebhookTestShowsTheAnswer(t *testing.T) {
	t.Parallel()
	secret, status := webhook.NewSecret(), http.StatusNoContent
	verifier, err := standard.NewWebhook(secret.Reveal())
	require.NoError(t, err)
	got := make(chan string, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var sent struct {
			Type string        `json:"type"`
			Data earmark.Event `json:"data"`
		}
		if verifier.Verify(body, r.Header) == nil && json.Unmarshal(body, &sent) == nil && sent.Data.ID == r.Header.Get("webhook-id") {
			got <- sent.Type
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(receiver.Close)
	f := &fake{target: &webhook.Target{URL: receiver.URL, Secrets: []webhook.Secret{secret}}}
	b := setup(t, f, func(o *Options) { o.Webhooks.Private = true })
	x := decoded[earmark.WebhookTest](b.do("POST", webhookPath+"/test", "").status(http.StatusOK))
	require.Equal(t, "webhook.test", <-got)
	require.Equal(t, http.StatusNoContent, x.Status)
	require.Empty(t, x.Error)
	status = http.StatusFound
	x = decoded[earmark.WebhookTest](b.do("POST", webhookPath+"/test", "").status(http.StatusOK))
	require.Equal(t, "the endpoint answered 302, a redirect, which is not followed", x.Error)

	x = decoded[earmark.WebhookTest](setup(t, f).do("POST", webhookPath+"/test", "").status(http.StatusOK))
	require.Zero(t, x.Status)
	require.Equal(t, "the endpoint's name resolves to an address that is not public", x.Error)
}
