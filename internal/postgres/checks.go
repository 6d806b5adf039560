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

// ClaimChecks takes up to limit open reservations, and up to limit settled ones
// whose workflow may not know it, that were not looked at for leastAge: the ones
// looked at longest ago first. It counts as the look.
func (l *Ledger) ClaimChecks(ctx context.Context, leastAge time.Duration, limit int) ([]earmark.Check, error) {
	rows, err := l.pool.Query(ctx, claimChecksSQL, leastAge.Seconds(), limit)
	if err != nil {
		return nil, fault(err)
	}
	checks, err := pgx.CollectRows(rows, checkOf)
	return checks, fault(err)
}

// Check is what a new workflow of the reservation needs, nil when there is no such
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

// MarkChecked notes what a look at a reservation's workflow found: orphan when no
// open workflow guards it, and refreshed when a settled one need not be told.
func (l *Ledger) MarkChecked(ctx context.Context, tenant, id string, orphan, refreshed bool) error {
	_, err := l.pool.Exec(ctx, markCheckedSQL, tenant, id, orphan, refreshed)
	return fault(err)
}

// MarkGuarded notes of several reservations that an open workflow guards them.
func (l *Ledger) MarkGuarded(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := l.pool.Exec(ctx, markGuardedSQL, ids)
	return fault(err)
}

// MarkPaused makes those of ids that are settled due for a look.
func (l *Ledger) MarkPaused(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := l.pool.Exec(ctx, markPausedSQL, ids)
	return fault(err)
}

// MarkUnnotified notes that the workflow of a settled reservation may not know of it, so
// that ClaimChecks returns it.
func (l *Ledger) MarkUnnotified(ctx context.Context, tenant, id string) error {
	_, err := l.pool.Exec(ctx, markUnnotifiedSQL, tenant, id)
	return fault(err)
}
