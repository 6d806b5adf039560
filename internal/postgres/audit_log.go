package postgres

import (
	"context"
	_ "embed"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
)

//go:embed sql/audit_log.sql
var auditLogSQL string

// Audit lists changes of a tenant's budgets and keys and of the tenant, newest first.
func (l *Ledger) Audit(ctx context.Context, tenant string, f earmark.AuditFilter) (earmark.Page[earmark.AuditRecord], error) {
	var none earmark.Page[earmark.AuditRecord]
	list := listOf("audit", tenant, f.Subject, f.Action, f.Actor)
	before, err := list.parseEntry(f.Cursor)
	if err != nil {
		return none, err
	}
	limit := pageSize(f.Limit)
	rows, err := l.lists.Query(ctx, auditLogSQL, planAnew, tenant, f.Subject, f.Action, f.Actor, before, limit+1)
	if err != nil {
		return none, fault(err)
	}
	records, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (earmark.AuditRecord, error) {
		var r earmark.AuditRecord
		var actor string
		err := row.Scan(&r.ID, &r.Tenant, &actor, &r.Action, &r.Subject, &r.Reason, &r.Before, &r.After, &r.CreatedAt)
		r.CreatedAt = r.CreatedAt.UTC()
		if err != nil {
			return r, err
		}
		return r, r.Actor.UnmarshalText([]byte(actor))
	})
	if err != nil {
		return none, fault(err)
	}
	return page(records, limit, func(r earmark.AuditRecord) string { return list.cursor(r.CreatedAt, strconv.FormatInt(r.ID, 10)) }), nil
}
