package postgres

import (
	"context"
	_ "embed"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
)

var (
	//go:embed sql/claim_checks.sql
	claimChecksSQL string
	//go:embed sql/check.sql
	checkSQL string
	//go:embed sql/mark_checked.sql
	markCheckedSQL string
	//go:embed sql/mark_paused.sql
	markPausedSQL string
	//go:embed sql/mark_unnotified.sql
	markUnnotifiedSQL string
	//go:embed sql/mark_guarded.sql
	markGuardedSQL string
)

// ClaimChecks returns up to limit open reservations, and up to limit settled ones whose
// workflow may not know it, that were last checked at least leastAge ago: the longest
// unchecked first. It records the check.
func (l *Ledger) ClaimChecks(ctx context.Context, leastAge time.Duration, limit int) ([]earmark.Check, error) {
	rows, err := l.pool.Query(ctx, claimChecksSQL, leastAge.Seconds(), limit)
	if err != nil {
		return nil, fault(err)
	}
	checks, err := pgx.CollectRows(rows, checkOf)
	return checks, fault(err)
}

// Check returns what a new workflow of the reservation needs; nil if there is no such
// reservation.
func (l *Ledger) Check(ctx context.Context, tenant, id string) (*earmark.Check, error) {
	rows, err := l.pool.Query(ctx, checkSQL, tenant, id)
	if err != nil {
		return nil, fault(err)
	}
	check, err := pgx.CollectExactlyOneRow(rows, checkOf)
	if isNoRows(err) {
		return nil, nil
	}
	return &check, fault(err)
}

func checkOf(row pgx.CollectableRow) (earmark.Check, error) {
	var c earmark.Check
	err := row.Scan(&c.ID, &c.Tenant, &c.WorkflowID, &c.State, &c.Request.Scopes, &c.Request.Amounts, &c.CreatedAt, &c.ExpiresAt, &c.Request.OnExpiry, &c.RequestHash)
	return c, err
}

// MarkChecked records the result of a check: orphan if no open workflow guards the
// reservation, refreshed if its workflow needs no notification.
func (l *Ledger) MarkChecked(ctx context.Context, tenant, id string, orphan, refreshed bool) error {
	_, err := l.pool.Exec(ctx, markCheckedSQL, tenant, id, orphan, refreshed)
	return fault(err)
}

// MarkGuarded records that an open workflow guards each of the reservations.
func (l *Ledger) MarkGuarded(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := l.pool.Exec(ctx, markGuardedSQL, ids)
	return fault(err)
}

// MarkPaused makes the settled reservations among ids due for a check.
func (l *Ledger) MarkPaused(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := l.pool.Exec(ctx, markPausedSQL, ids)
	return fault(err)
}

// MarkUnnotified records that the workflow of a settled reservation may not know of the
// settlement, so that ClaimChecks returns it.
func (l *Ledger) MarkUnnotified(ctx context.Context, tenant, id string) error {
	_, err := l.pool.Exec(ctx, markUnnotifiedSQL, tenant, id)
	return fault(err)
}
