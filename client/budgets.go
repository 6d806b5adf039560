package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/earmark-dev/earmark"
)

// CreateBudget creates a budget. The error is CodeBudgetExists if there is one for the same
// scope, unit, period and Every. The call is not repeated.
func (c *Client) CreateBudget(ctx context.Context, request earmark.BudgetRequest) (*earmark.Budget, error) {
	return one[earmark.Budget](ctx, c, call{method: http.MethodPost, path: "/v1/budgets", body: request})
}

// Budget returns a budget with its balance. The call is repeated.
func (c *Client) Budget(ctx context.Context, id string) (*earmark.Budget, error) {
	return one[earmark.Budget](ctx, c, call{method: http.MethodGet, path: budgetPath(id), repeat: true})
}

// Budgets lists budgets, newest first. The call is repeated.
func (c *Client) Budgets(ctx context.Context, filter earmark.BudgetFilter) (earmark.Page[earmark.Budget], error) {
	query := pageQuery(filter.Cursor, filter.Limit)
	set(query, "scope", filter.Scope)
	set(query, "covering", filter.Covering)
	set(query, "template_id", filter.TemplateID)
	return page[earmark.Budget](ctx, c, "/v1/budgets", query)
}

// BudgetWindows lists the balances of a budget's windows in which something was reserved or
// charged, newest first; of a rolling budget, those of its slices. The call is repeated.
func (c *Client) BudgetWindows(ctx context.Context, id string, filter earmark.WindowFilter) (earmark.Page[earmark.Balance], error) {
	return page[earmark.Balance](ctx, c, budgetPath(id)+"/windows", pageQuery(filter.Cursor, filter.Limit))
}

// PatchBudget changes a budget. The call is not repeated, because another change may have
// come in between.
func (c *Client) PatchBudget(ctx context.Context, id string, patch earmark.BudgetPatch) (*earmark.Budget, error) {
	return one[earmark.Budget](ctx, c, call{method: http.MethodPatch, path: budgetPath(id), body: patch})
}

// ArchiveBudget archives a budget: it no longer limits new requests, and its open
// reservations still settle. The call is repeated.
func (c *Client) ArchiveBudget(ctx context.Context, id string) (*earmark.Budget, error) {
	return one[earmark.Budget](ctx, c, call{method: http.MethodDelete, path: budgetPath(id), repeat: true})
}

// CreateOverride changes a budget's limit for a time. key names the override of this budget and is required. If Replayed is true, an earlier
// call had made it. The call is repeated.
func (c *Client) CreateOverride(ctx context.Context, budgetID, key string, request earmark.OverrideRequest) (*earmark.Override, error) {
	return c.override(ctx, budgetID, "/overrides", key, request)
}

// ResetBudget gives the whole limit of a budget's current window again: it makes an override of what is committed, until the window ends.
// key names the reset of this budget and is required. The call is repeated.
func (c *Client) ResetBudget(ctx context.Context, budgetID, key, reason string) (*earmark.Override, error) {
	return c.override(ctx, budgetID, "/reset", key, earmark.ReasonRequest{Reason: reason})
}

func (c *Client) override(ctx context.Context, budgetID, path, key string, request any) (*earmark.Override, error) {
	if err := earmark.ValidateIdempotencyKey(key); err != nil {
		return nil, err
	}
	return changed[earmark.Override](ctx, c, call{method: http.MethodPost, path: budgetPath(budgetID) + path, key: key, body: request, repeat: true},
		func(o *earmark.Override, replayed bool) { o.Replayed = replayed })
}

// Overrides lists the overrides of a budget, also those that have ended, newest first. The call is repeated.
func (c *Client) Overrides(ctx context.Context, budgetID string, filter earmark.PageFilter) (earmark.Page[earmark.Override], error) {
	return page[earmark.Override](ctx, c, budgetPath(budgetID)+"/overrides", pageQuery(filter.Cursor, filter.Limit))
}

// EndOverride ends an override now; one that has ended stays as it is. The call is repeated.
func (c *Client) EndOverride(ctx context.Context, budgetID, id, reason string) (*earmark.Override, error) {
	return one[earmark.Override](ctx, c, call{
		method: http.MethodPost, path: budgetPath(budgetID) + "/overrides/" + url.PathEscape(id) + "/end", body: earmark.ReasonRequest{Reason: reason}, repeat: true,
	})
}

// CreateGrant grants an amount on top of a budget's limit, which is used up once. key names the grant of this budget and is required. If
// Replayed is true, an earlier call had made it. The call is repeated.
func (c *Client) CreateGrant(ctx context.Context, budgetID, key string, request earmark.GrantRequest) (*earmark.Grant, error) {
	if err := earmark.ValidateIdempotencyKey(key); err != nil {
		return nil, err
	}
	return changed[earmark.Grant](ctx, c, call{method: http.MethodPost, path: budgetPath(budgetID) + "/grants", key: key, body: request, repeat: true},
		func(g *earmark.Grant, replayed bool) { g.Replayed = replayed })
}

// Grants lists the grants of a budget, also those that have ended, newest first. The call is repeated.
func (c *Client) Grants(ctx context.Context, budgetID string, filter earmark.PageFilter) (earmark.Page[earmark.Grant], error) {
	return page[earmark.Grant](ctx, c, budgetPath(budgetID)+"/grants", pageQuery(filter.Cursor, filter.Limit))
}

// VoidGrant takes away what is left of a grant; one that has ended stays as it is. The call is repeated.
func (c *Client) VoidGrant(ctx context.Context, budgetID, id, reason string) (*earmark.Grant, error) {
	return one[earmark.Grant](ctx, c, call{
		method: http.MethodPost, path: budgetPath(budgetID) + "/grants/" + url.PathEscape(id) + "/void", body: earmark.ReasonRequest{Reason: reason}, repeat: true,
	})
}

// UsageReport returns what a budget was charged over time; see earmark.UsageQuery. The call is
// repeated.
func (c *Client) UsageReport(ctx context.Context, budgetID string, query earmark.UsageQuery) (*earmark.UsageReport, error) {
	parameters := url.Values{}
	set(parameters, "by", query.By)
	for name, at := range map[string]*time.Time{"from": query.From, "to": query.To} {
		if at != nil {
			parameters.Set(name, at.Format(time.RFC3339Nano))
		}
	}
	return one[earmark.UsageReport](ctx, c, call{method: http.MethodGet, path: budgetPath(budgetID) + "/usage", query: parameters, repeat: true})
}

func budgetPath(id string) string { return "/v1/budgets/" + url.PathEscape(id) }
