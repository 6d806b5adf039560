package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/earmark-dev/earmark"
)

// CreateWebhook has events delivered to an address from now on. Only this answer and that of RotateWebhookSecret have the secret. It is not
// repeated.
func (c *Client) CreateWebhook(ctx context.Context, request earmark.WebhookRequest) (*earmark.IssuedWebhook, error) {
	return one[earmark.IssuedWebhook](ctx, c, call{method: http.MethodPost, path: "/v1/webhooks", body: request})
}

// Webhooks lists the tenant's webhooks, newest first, without their secrets. It is repeated.
func (c *Client) Webhooks(ctx context.Context, filter earmark.PageFilter) (earmark.Page[earmark.Webhook], error) {
	return page[earmark.Webhook](ctx, c, "/v1/webhooks", pageQuery(filter.Cursor, filter.Limit))
}

// Webhook shows a webhook. It is repeated.
func (c *Client) Webhook(ctx context.Context, id string) (*earmark.Webhook, error) {
	return one[earmark.Webhook](ctx, c, call{method: http.MethodGet, path: webhookPath(id, ""), repeat: true})
}

// PatchWebhook changes a webhook. It is not repeated, because another change may have come in between.
func (c *Client) PatchWebhook(ctx context.Context, id string, patch earmark.WebhookPatch) (*earmark.Webhook, error) {
	return one[earmark.Webhook](ctx, c, call{method: http.MethodPatch, path: webhookPath(id, ""), body: patch})
}

// DeleteWebhook deletes a webhook. It is not repeated: a second call finds none.
func (c *Client) DeleteWebhook(ctx context.Context, id string) (*earmark.Webhook, error) {
	return one[earmark.Webhook](ctx, c, call{method: http.MethodDelete, path: webhookPath(id, "")})
}

// RotateWebhookSecret gives a webhook a new secret; the one before signs too for 24 hours. It is not repeated.
func (c *Client) RotateWebhookSecret(ctx context.Context, id string) (*earmark.IssuedWebhook, error) {
	return one[earmark.IssuedWebhook](ctx, c, call{method: http.MethodPost, path: webhookPath(id, "/rotate-secret")})
}

// TestWebhook has a test sent, and says what the endpoint answered. It is not repeated.
func (c *Client) TestWebhook(ctx context.Context, id string) (*earmark.WebhookTest, error) {
	return one[earmark.WebhookTest](ctx, c, call{method: http.MethodPost, path: webhookPath(id, "/test")})
}

// Deliveries lists the attempts to deliver to a webhook, newest first. It is repeated.
func (c *Client) Deliveries(ctx context.Context, id string, filter earmark.PageFilter) (earmark.Page[earmark.Delivery], error) {
	return page[earmark.Delivery](ctx, c, webhookPath(id, "/deliveries"), pageQuery(filter.Cursor, filter.Limit))
}

// ReplayWebhook has the events of a time delivered again. It is repeated.
func (c *Client) ReplayWebhook(ctx context.Context, id string, replay earmark.WebhookReplay) (*earmark.Webhook, error) {
	return one[earmark.Webhook](ctx, c, call{method: http.MethodPost, path: webhookPath(id, "/replay"), body: replay, repeat: true})
}

func webhookPath(id, rest string) string { return "/v1/webhooks/" + url.PathEscape(id) + rest }
