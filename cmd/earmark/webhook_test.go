package main

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/webhook"
)

const cannedWebhookID = "whk_7sk2nq4d5aaaaaaaaaaaaaaaaa"

func cannedWebhook() earmark.Webhook {
	return earmark.Webhook{ID: cannedWebhookID, URL: "https://example.com/hooks", Types: []earmark.EventType{earmark.EventExhausted}, Budgets: []string{}, Scopes: []string{"acme"},
		DisabledReason: "every attempt since 2026-03-01T00:00:00Z failed", LastError: "the endpoint answered 500", After: "evt_5_1",
		CreatedAt: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
}

// askWebhook records what is asked of the one webhook.
func (l *cannedLedger) askWebhook(what any) (*earmark.Webhook, error) {
	l.asked = what
	w := cannedWebhook()
	return &w, nil
}

func (l *cannedLedger) issueWebhook(what any) (*earmark.IssuedWebhook, error) {
	w, err := l.askWebhook(what)
	return &earmark.IssuedWebhook{Webhook: *w, Secret: "whsec_MTIz"}, err
}

func (l *cannedLedger) CreateWebhook(_ context.Context, _ string, r earmark.WebhookRequest, _ earmark.Actor) (*earmark.IssuedWebhook, error) {
	return l.issueWebhook(r)
}

func (l *cannedLedger) RotateWebhookSecret(_ context.Context, _, id string, _ earmark.Actor) (*earmark.IssuedWebhook, error) {
	return l.issueWebhook(id)
}

func (l *cannedLedger) PatchWebhook(_ context.Context, _, _ string, p earmark.WebhookPatch, _ earmark.Actor) (*earmark.Webhook, error) {
	return l.askWebhook(p)
}

func (l *cannedLedger) DeleteWebhook(_ context.Context, _, id string, _ earmark.Actor) (*earmark.Webhook, error) {
	return l.askWebhook("delete " + id)
}

func (l *cannedLedger) ReplayWebhook(_ context.Context, _, _ string, r earmark.WebhookReplay, _ earmark.Actor) (*earmark.Webhook, error) {
	return l.askWebhook(r)
}

func (l *cannedLedger) Webhook(_ context.Context, _, id string) (*earmark.Webhook, error) {
	return l.askWebhook(id)
}

func (l *cannedLedger) Webhooks(context.Context, string, earmark.PageFilter) (earmark.Page[earmark.Webhook], error) {
	return earmark.Page[earmark.Webhook]{Data: []earmark.Webhook{cannedWebhook()}}, nil
}

func (l *cannedLedger) WebhookTarget(context.Context, string, string) (*webhook.Target, error) {
	return &webhook.Target{URL: "https://127.0.0.1:1"}, nil
}

func (l *cannedLedger) Deliveries(context.Context, string, earmark.PageFilter) (earmark.Page[earmark.Delivery], error) {
	retry := now.Add(time.Hour)
	return earmark.Page[earmark.Delivery]{Data: []earmark.Delivery{
		{ID: 2, EventID: "evt_5_2", Type: earmark.EventExhausted, Attempt: 3, At: now, DurationMS: 15000, Error: "no answer", NextAttemptAt: &retry},
		{ID: 1, EventID: "evt_5_1", Type: earmark.EventExhausted, Attempt: 1, At: now, DurationMS: 12, Status: 204},
	}}, nil
}

func TestWebhookCommands(t *testing.T) {
	t.Parallel()
	ledger := &cannedLedger{}
	url := serveCanned(t, ledger)
	made := earmarkPipe(t, url, "webhook", "create", "https://example.com/hooks", "--type", "budget.exhausted", "--scope", "acme")
	require.Equal(t, "whsec_MTIz", made.ok(t), "the secret alone, for a file")
	require.Contains(t, made.stderr, cannedWebhookID)
	require.Equal(t, earmark.WebhookRequest{URL: "https://example.com/hooks", Types: []earmark.EventType{earmark.EventExhausted}, Scopes: []string{"acme"}}, ledger.asked)
	require.Equal(t, "whsec_MTIz", earmarkPipe(t, url, "webhook", "rotate-secret", "whk_7sk2nq4d5a").ok(t))
	require.Equal(t, cannedWebhookID, ledger.asked, "the beginning of an id is enough")
	var issued earmark.IssuedWebhook
	require.NoError(t, json.Unmarshal([]byte(earmarkPipe(t, url, "webhook", "create", "https://example.com/hooks", "--json").ok(t)), &issued))
	require.Equal(t, "whsec_MTIz", issued.Secret)

	for args, want := range map[[2]string][]string{
		{"list"}:                        {cannedWebhookID, "https://example.com/hooks", "budget.exhausted", "disabled"},
		{"get", cannedWebhookID}:        {"every attempt since", "the endpoint answered 500", "up to evt_5_1"},
		{"deliveries", cannedWebhookID}: {"evt_5_2", "no answer", "15000 ms", "204"},
		{"delete", cannedWebhookID}:     {cannedWebhookID},
	} {
		command := []string{"webhook", args[0]}
		if args[1] != "" {
			command = append(command, args[1])
		}
		text := earmarkPipe(t, url, command...).ok(t)
		for _, words := range want {
			require.Contains(t, text, words, args)
		}
	}

	earmarkPipe(t, url, "webhook", "update", cannedWebhookID, "--enable", "--type", "", "--endpoint", "https://example.com/new").ok(t)
	patch := ledger.asked.(earmark.WebhookPatch)
	require.True(t, *patch.Enabled)
	require.Empty(t, *patch.Types)
	require.Equal(t, "https://example.com/new", *patch.URL)
	require.Nil(t, patch.Scopes)
	earmarkPipe(t, url, "webhook", "update", cannedWebhookID, "--disable").ok(t)
	require.False(t, *ledger.asked.(earmark.WebhookPatch).Enabled)
	earmarkPipe(t, url, "webhook", "replay", cannedWebhookID, "--from", "2026-03-01", "--to", "2026-03-02").ok(t)
	require.Equal(t, 2, ledger.asked.(earmark.WebhookReplay).To.Day())

	failed := earmarkPipe(t, url, "webhook", "test", cannedWebhookID)
	require.Equal(t, exitFailed, failed.code)
	require.Contains(t, failed.stdout, "not public")
	for _, wrong := range [][]string{{"update", cannedWebhookID}, {"replay", cannedWebhookID}, {"get", "x"}, {"create", "http://example.com"}, {"create", "https://example.com", "--type", "x"}} {
		require.Equal(t, exitUsage, earmarkPipe(t, url, append([]string{"webhook"}, wrong...)...).code, wrong)
	}
}
