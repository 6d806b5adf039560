package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
)

const (
	rollUpUsageSQL = "SELECT earmark.roll_up_usage(p_max => @max)"
	usageSQL       = "SELECT earmark.usage(p_budget_id => @id, p_from => coalesce(@from, clock_timestamp() - @range_ms::bigint * interval '1 millisecond'), " +
		"p_to => coalesce(@to, clock_timestamp() + interval '1 microsecond'), p_by => @by)"
	usageBehindSQL = "SELECT EXISTS (SELECT 1 FROM earmark.entries e, earmark.usage_watermark m WHERE e.id > m.entry_id AND e.id <= @id)"
	lastEntrySQL   = "SELECT coalesce(max(id), 0) FROM earmark.entries"
)

// Bounds of the roll-up of usage.
const (
	// rollUpBatch is how many entries one transaction adds.
	rollUpBatch = 20_000
	// rollUpPatience is how long a prune waits for transactions that are open.
	rollUpPatience = 30 * time.Second
	rollUpRetry    = 20 * time.Millisecond
)

// RollUpUsage adds the next entries of the journal to the sums that usage reports are made
// from, and returns by how many entries it moved on: 0 if there are none, if transactions
// that are still open may add some before them, or if another process is doing it. No
// admission and no settlement waits for it.
func (l *Ledger) RollUpUsage(ctx context.Context) (int64, error) {
	var moved int64
	err := l.pool.QueryRow(ctx, rollUpUsageSQL, namedArgs{"max": rollUpBatch}).Scan(&moved)
	return moved, fault(err)
}

// rollUpAll adds the present entries. It waits for open transactions, but not for long: what
// they keep from being added is left for later.
func (l *Ledger) rollUpAll(ctx context.Context) error {
	var last int64
	if err := l.pool.QueryRow(ctx, lastEntrySQL).Scan(&last); err != nil {
		return fault(err)
	}
	for end := time.Now().Add(rollUpPatience); ; {
		moved, err := l.RollUpUsage(ctx)
		if err != nil {
			return err
		}
		var behind bool
		if err := l.pool.QueryRow(ctx, usageBehindSQL, namedArgs{"id": last}).Scan(&behind); err != nil {
			return fault(err)
		}
		switch {
		case !behind:
			return nil
		case moved > 0: // more of them may be final already
		case time.Now().After(end):
			return nil
		default:
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(rollUpRetry):
			}
		}
	}
}

// UsageReport returns what a budget was charged over time, as of one moment; nil if there is
// no such budget. The query is valid.
func (l *Ledger) UsageReport(ctx context.Context, tenant, budgetID string, q earmark.UsageQuery) (*earmark.UsageReport, error) {
	tx, err := l.lists.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}) // mutation: usage-of-one-moment
	if err != nil {
		return nil, fault(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	budgets, err := queryBudgets(ctx, tx, tenant, budgetID, earmark.BudgetFilter{Limit: 1})
	if err != nil || len(budgets) == 0 {
		return nil, err
	}
	budget := budgets[0]
	start, end := budget.Balance.WindowStart, budget.Balance.WindowEnd
	if q.From == nil && end != nil && end.Sub(start) <= earmark.MaxUsageRange {
		q.From, q.To = &start, end
	}
	var document []byte
	err = tx.QueryRow(ctx, usageSQL, namedArgs{"id": budgetID, "from": q.From, "to": q.To, "by": q.By, "range_ms": earmark.DefaultUsageRange.Milliseconds()}).Scan(&document)
	if sqlState(err) == numericValueOutOfRange {
		return nil, earmark.Invalidf("from", "a sum from then to %q is beyond 9223372036854775807; give a shorter time", "to")
	}
	if err != nil {
		return nil, fault(err)
	}
	report := &earmark.UsageReport{BudgetID: budget.ID, Unit: budget.Unit, By: q.By, Timezone: budget.Window.Timezone, Balance: budget.Balance}
	if err := json.Unmarshal(document, report); err != nil {
		return nil, fmt.Errorf("the ledger's answer does not decode: %w", err)
	}
	report.From, report.To = report.From.UTC(), report.To.UTC()
	for i := range report.Data {
		report.Data[i].Start, report.Data[i].End = utc(report.Data[i].Start), utc(report.Data[i].End)
	}
	return report, nil
}
