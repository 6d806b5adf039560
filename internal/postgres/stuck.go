package postgres

import (
	"context"
	_ "embed"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
)

var (
	//go:embed sql/stuck.sql
	stuckSQL string
	//go:embed sql/suspects.sql
	suspectsSQL string
	//go:embed sql/known.sql
	knownSQL string
)

// Stuck lists the reservations that need a person, newest first, each with its reason.
// reported are those that Temporal reports as stuck.
func (l *Ledger) Stuck(ctx context.Context, tenant string, f earmark.ReservationFilter, reported earmark.StuckIDs) (earmark.Page[earmark.Reservation], error) {
	var none earmark.Page[earmark.Reservation]
	list := listOf("stuck", tenant, f.Scope, f.StuckReason, f.Within)
	createdAt, lastID, err := list.parse(f.Cursor)
	if err != nil {
		return none, err
	}
	limit := pageSize(f.Limit)
	rows, err := l.lists.Query(ctx, stuckSQL, tenant, f.Scope, string(f.StuckReason), earmark.ExpiryMissedAfter.Milliseconds(),
		orNone(reported.TaskFailing), orNone(reported.SettlementFailing), createdAt, lastID, limit+1, orNone(reported.Unguarded), orNone(reported.Paused), orNone(f.Within))
	if err != nil {
		return none, fault(err)
	}
	reservations, err := pgx.CollectRows(rows, documentOf[earmark.Reservation])
	if err != nil {
		return none, fault(err)
	}
	return page(reservations, limit, func(r earmark.Reservation) string { return list.cursor(r.CreatedAt, r.ID) }), nil
}

// Suspects returns up to limit held reservations, those whose leases end first: their
// workflows are worth a check in Temporal.
func (l *Ledger) Suspects(ctx context.Context, tenant string, limit int) ([]string, error) {
	return l.ids(ctx, suspectsSQL, tenant, limit)
}

// Known returns those of ids that have a row.
func (l *Ledger) Known(ctx context.Context, tenant string, ids []string) ([]string, error) {
	return l.ids(ctx, knownSQL, tenant, orNone(ids))
}

func (l *Ledger) ids(ctx context.Context, sql string, args ...any) ([]string, error) {
	rows, err := l.lists.Query(ctx, sql, args...)
	if err != nil {
		return nil, fault(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return ids, fault(err)
}

func orNone(ids []string) []string {
	if ids == nil {
		return []string{}
	}
	return ids
}
