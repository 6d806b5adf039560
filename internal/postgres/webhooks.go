package postgres

import (
	"context"
	_ "embed"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/webhook"
)

const (
	createWebhookSQL = "SELECT earmark.create_webhook(p_id => @id, p_tenant => @tenant, p_url => @url, p_types => @types, p_budgets => @budgets, " +
		"p_scopes => @scopes, p_secret => @secret, p_most => @most, p_actor => @actor)"
	patchWebhookSQL  = "SELECT earmark.patch_webhook(p_tenant => @tenant, p_id => @id, p_patch => @patch, p_actor => @actor)"
	rotateWebhookSQL = "SELECT earmark.rotate_webhook_secret(p_tenant => @tenant, p_id => @id, p_secret => @secret, p_overlap_ms => @overlap_ms, p_actor => @actor)"
	deleteWebhookSQL = "SELECT earmark.delete_webhook(p_tenant => @tenant, p_id => @id, p_actor => @actor)"
	replayWebhookSQL = "SELECT earmark.replay_webhook(p_tenant => @tenant, p_id => @id, p_from => @from, p_to => @to, p_actor => @actor)"

	claimWebhooksSQL    = "SELECT earmark.claim_webhooks(p_lease_ms => @lease_ms, p_max => @max)"
	nextDeliveriesSQL   = "SELECT earmark.next_deliveries(p_id => @id, p_max => @max)"
	recordDeliveriesSQL = "SELECT earmark.record_deliveries(p_id => @id, p_after => @after, p_attempts => @attempts, p_retry_ms => @retry_ms)"
	pruneDeliveriesSQL  = "SELECT earmark.prune_deliveries(p_keep_ms => @keep_ms, p_max => @max)"
)

var (
	//go:embed sql/webhooks.sql
	webhooksSQL string
	//go:embed sql/deliveries.sql
	deliveriesSQL string
	//go:embed sql/webhook_target.sql
	webhookTargetSQL string
)

// webhookChange is the answer of a function that changes an endpoint.
type webhookChange struct {
	Outcome  earmark.Outcome  `json:"outcome"`
	Webhook  *earmark.Webhook `json:"webhook"`
	Subject  string           `json:"subject"`   // with OutcomeInvalid
	BudgetID string           `json:"budget_id"` // with the subject "budgets"
}

// changeWebhook returns the endpoint after a change; nil if there is no such endpoint.
func (l *Ledger) changeWebhook(ctx context.Context, sql string, args namedArgs) (*earmark.Webhook, error) {
	var c webhookChange
	if err := l.read(ctx, &c, sql, args); err != nil {
		return nil, err
	}
	switch {
	case c.Outcome == earmark.OutcomeInvalid && c.Subject == "budgets":
		return nil, earmark.Invalidf("budgets", "there is no budget %q", earmark.Clip(c.BudgetID))
	case c.Outcome == earmark.OutcomeInvalid:
		return nil, earmark.Invalidf(c.Subject, "is one too many: a tenant has at most %d webhooks; delete one", earmark.MaxWebhooks)
	}
	return c.Webhook, nil
}

// CreateWebhook makes an endpoint, which receives the events from now on. It checks the request but for the URL.
func (l *Ledger) CreateWebhook(ctx context.Context, tenant string, r earmark.WebhookRequest, by earmark.Actor) (*earmark.IssuedWebhook, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	secret := webhook.NewSecret()
	w, err := l.changeWebhook(ctx, createWebhookSQL, namedArgs{
		"id": earmark.NewWebhookID(), "tenant": tenant, "url": r.URL, "types": orNone(typeNames(r.Types)), "budgets": orNone(r.Budgets), "scopes": orNone(r.Scopes),
		"secret": secret.Reveal(), "most": earmark.MaxWebhooks, "actor": by.String()})
	if err != nil {
		return nil, err
	}
	return &earmark.IssuedWebhook{Webhook: *w, Secret: secret.Reveal()}, nil
}

func typeNames(types []earmark.EventType) []string {
	names := make([]string, len(types))
	for i, name := range types {
		names[i] = string(name)
	}
	return names
}

// Webhooks lists a tenant's endpoints, newest first.
func (l *Ledger) Webhooks(ctx context.Context, tenant string, f earmark.PageFilter) (earmark.Page[earmark.Webhook], error) {
	var none earmark.Page[earmark.Webhook]
	list := listOf("webhooks", tenant)
	createdAt, lastID, err := list.parse(f.Cursor)
	if err != nil {
		return none, err
	}
	limit := pageSize(f.Limit)
	rows, err := l.lists.Query(ctx, webhooksSQL, planAnew, tenant, "", createdAt, lastID, limit+1)
	if err != nil {
		return none, fault(err)
	}
	webhooks, err := pgx.CollectRows(rows, documentOf[earmark.Webhook])
	if err != nil {
		return none, fault(err)
	}
	return page(webhooks, limit, func(w earmark.Webhook) string { return list.cursor(w.CreatedAt, w.ID) }), nil
}

// Webhook returns one endpoint; nil if there is none.
func (l *Ledger) Webhook(ctx context.Context, tenant, id string) (*earmark.Webhook, error) {
	var w *earmark.Webhook
	if id == "" {
		return nil, nil //nolint:nilnil // the list takes no id for all
	}
	err := l.read(ctx, &w, webhooksSQL, tenant, id, nil, "", 1)
	return w, err
}

// PatchWebhook changes an endpoint. It checks the patch but for the URL. It returns nil if there is no such endpoint, as
// the other changes do.
func (l *Ledger) PatchWebhook(ctx context.Context, tenant, id string, p earmark.WebhookPatch, by earmark.Actor) (*earmark.Webhook, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return l.changeWebhook(ctx, patchWebhookSQL, namedArgs{"tenant": tenant, "id": id, "patch": p, "actor": by.String()})
}

// RotateWebhookSecret gives an endpoint a new secret. The one before signs too for earmark.WebhookSecretOverlap.
func (l *Ledger) RotateWebhookSecret(ctx context.Context, tenant, id string, by earmark.Actor) (*earmark.IssuedWebhook, error) {
	secret := webhook.NewSecret()
	w, err := l.changeWebhook(ctx, rotateWebhookSQL, namedArgs{
		"tenant": tenant, "id": id, "secret": secret.Reveal(), "overlap_ms": earmark.WebhookSecretOverlap.Milliseconds(), "actor": by.String()})
	if err != nil || w == nil {
		return nil, err
	}
	return &earmark.IssuedWebhook{Webhook: *w, Secret: secret.Reveal()}, nil
}

// DeleteWebhook removes an endpoint, and returns it as it was.
func (l *Ledger) DeleteWebhook(ctx context.Context, tenant, id string, by earmark.Actor) (*earmark.Webhook, error) {
	return l.changeWebhook(ctx, deleteWebhookSQL, namedArgs{"tenant": tenant, "id": id, "actor": by.String()})
}

// ReplayWebhook has events delivered again. It checks the request.
func (l *Ledger) ReplayWebhook(ctx context.Context, tenant, id string, r earmark.WebhookReplay, by earmark.Actor) (*earmark.Webhook, error) {
	if err := r.Validate(time.Now()); err != nil {
		return nil, err
	}
	return l.changeWebhook(ctx, replayWebhookSQL, namedArgs{"tenant": tenant, "id": id, "from": r.From, "to": r.To, "actor": by.String()})
}

// Deliveries lists the attempts to deliver to an endpoint, newest first.
func (l *Ledger) Deliveries(ctx context.Context, id string, f earmark.PageFilter) (earmark.Page[earmark.Delivery], error) {
	var none earmark.Page[earmark.Delivery]
	list := listOf("deliveries", id)
	last, err := list.parseEntry(f.Cursor)
	if err != nil {
		return none, err
	}
	limit := pageSize(f.Limit)
	rows, err := l.lists.Query(ctx, deliveriesSQL, planAnew, id, last, limit+1)
	if err != nil {
		return none, fault(err)
	}
	deliveries, err := pgx.CollectRows(rows, documentOf[earmark.Delivery])
	if err != nil {
		return none, fault(err)
	}
	return page(deliveries, limit, func(d earmark.Delivery) string { return list.cursor(d.At, strconv.FormatInt(d.ID, 10)) }), nil
}

// WebhookTarget returns where, and with which secrets, an endpoint is called; nil if there is no such endpoint.
func (l *Ledger) WebhookTarget(ctx context.Context, tenant, id string) (*webhook.Target, error) {
	var t *webhook.Target
	err := l.read(ctx, &t, webhookTargetSQL, tenant, id)
	return t, err
}

// ClaimWebhooks returns up to limit endpoints with events that wait, of all tenants. It returns an endpoint again after
// lease, unless nothing waits any more.
func (l *Ledger) ClaimWebhooks(ctx context.Context, lease time.Duration, limit int) (claims []webhook.Claim, err error) {
	err = l.read(ctx, &claims, claimWebhooksSQL, namedArgs{"lease_ms": lease.Milliseconds(), "max": limit})
	return claims, err
}

// NextDeliveries returns what an endpoint is to be sent next, up to limit events.
func (l *Ledger) NextDeliveries(ctx context.Context, id string, limit int) (batch webhook.Batch, err error) {
	err = l.read(ctx, &batch, nextDeliveriesSQL, namedArgs{"id": id, "max": limit})
	return batch, err
}

// RecordDeliveries records attempts at the events after a position, in their order; only the last one may have failed, and
// is tried again after retry. It reports whether the endpoint was disabled for it.
func (l *Ledger) RecordDeliveries(ctx context.Context, id, after string, attempts []webhook.Attempt, retry time.Duration) (disabled bool, err error) {
	var recorded struct {
		Disabled bool `json:"disabled"`
	}
	err = l.read(ctx, &recorded, recordDeliveriesSQL, namedArgs{"id": id, "after": after, "attempts": attempts, "retry_ms": retry.Milliseconds()})
	return recorded.Disabled, err
}
