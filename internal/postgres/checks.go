package postgres

import (
	"context"
	_ "embed"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
)

var (
	//go:embed sql/check.sql
	checkSQL string
)

const (
	claimChecksSQL = "SELECT id, tenant, workflow_id, state, scopes, amounts, created_at, expires_at, on_expiry, request_hash " +
		"FROM earmark.claim_checks(p_age_ms => @age_ms, p_max => @max)"
	markCheckedSQL    = "SELECT earmark.mark_checked(p_tenant => @tenant, p_id => @id, p_orphan => @orphan, p_refreshed => @refreshed)"
	markGuardedSQL    = "SELECT earmark.mark_guarded(p_ids => @ids)"
	markPausedSQL     = "SELECT earmark.mark_paused(p_ids => @ids)"
	markUnnotifiedSQL = "SELECT earmark.mark_unnotified(p_tenant => @tenant, p_id => @id)"
)

// ClaimChecks returns up to limit open reservations, and up to limit settled ones whose
// workflow may not know it, that were last checked at least leastAge ago: the longest
// unchecked first. It records the check.
func (l *Ledger) ClaimChecks(ctx context.Context, leastAge time.Duration, limit int) ([]earmark.Check, error) {
	rows, err := l.pool.Query(ctx, claimChecksSQL, namedArgs{"age_ms": leastAge.Milliseconds(), "max": limit})
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
	_, err := l.pool.Exec(ctx, markCheckedSQL, namedArgs{"tenant": tenant, "id": id, "orphan": orphan, "refreshed": refreshed})
	return fault(err)
}

// MarkGuarded records that an open workflow guards each of the reservations.
func (l *Ledger) MarkGuarded(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := l.pool.Exec(ctx, markGuardedSQL, namedArgs{"ids": ids})
	return fault(err)
}

// MarkPaused makes the settled reservations among ids due for a check.
func (l *Ledger) MarkPaused(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := l.pool.Exec(ctx, markPausedSQL, namedArgs{"ids": ids})
	return fault(err)
}

// MarkUnnotified records that the workflow of a settled reservation may not know of the
// settlement, so that ClaimChecks returns it.
func (l *Ledger) MarkUnnotified(ctx context.Context, tenant, id string) error {
	_, err := l.pool.Exec(ctx, markUnnotifiedSQL, namedArgs{"tenant": tenant, "id": id})
	return fault(err)
}
