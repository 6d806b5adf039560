package migrating

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
)

// CreateBudgets gives every customer a budget. What is there already stays.
func (b *Backend) CreateBudgets(ctx context.Context) error {
	rows, err := b.DB.Query(ctx, `SELECT '', customer, token_limit FROM usage
		WHERE period = date_trunc('month', now() AT TIME ZONE 'UTC')::date`)
	if err != nil {
		return err
	}
	customers, err := pgx.CollectRows(rows, pgx.RowToStructByPos[charge])
	if err != nil {
		return err
	}
	for _, c := range customers {
		_, err := b.Earmark.CreateBudget(ctx, earmark.BudgetRequest{
			Scope: c.Customer, Unit: "tokens", Limit: &c.Tokens,
			Window: earmark.Window{Period: earmark.PeriodMonth, Timezone: "UTC"},
		})
		if err != nil && earmark.ErrorCode(err) != earmark.CodeBudgetExists {
			return err
		}
	}
	return nil
}

// ImportUsage charges what was used before there were rows, once a customer and
// month.
func (b *Backend) ImportUsage(ctx context.Context) error {
	rows, err := b.DB.Query(ctx, `SELECT 'import-' || customer || '-' || to_char(period, 'YYYY-MM'), customer,
			used - coalesce((SELECT sum(c.tokens) FROM usage_charges c WHERE c.customer = u.customer AND c.period = u.period), 0)::bigint AS before
		FROM usage u WHERE period = date_trunc('month', now() AT TIME ZONE 'UTC')::date`)
	if err != nil {
		return err
	}
	imports, err := pgx.CollectRows(rows, pgx.RowToStructByPos[charge])
	if err != nil {
		return err
	}
	for _, i := range imports {
		if i.Tokens == 0 {
			continue
		}
		if err := b.charge(ctx, i.Key, i.Customer, i.Tokens); err != nil {
			return err
		}
	}
	return nil
}
