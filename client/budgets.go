package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/earmark-dev/earmark"
)

// CreateBudget creates a budget. The error is CodeBudgetExists if there is one for the same
// scope, unit and period. The call is not repeated.
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
	return page[earmark.Budget](ctx, c, "/v1/budgets", query)
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

func budgetPath(id string) string { return "/v1/budgets/" + url.PathEscape(id) }
