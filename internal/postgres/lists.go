package postgres

import (
	"context"
	_ "embed"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
)

var (
	//go:embed sql/reservation.sql
	reservationSQL string
	//go:embed sql/reservations.sql
	reservationsSQL string
	//go:embed sql/entries.sql
	entriesSQL string
)

// planAnew makes Postgres plan a list for its actual filters. The generic plan that
// Postgres keeps after some calls serves all filters, and reads the whole table where an
// index would do.
const planAnew = pgx.QueryExecModeCacheDescribe

// Reservation returns one reservation; nil if there is none.
func (l *Ledger) Reservation(ctx context.Context, tenant, id string) (*earmark.Reservation, error) {
	var r *earmark.Reservation
	err := l.read(ctx, &r, reservationSQL, tenant, id)
	return r, err
}

// Reservations lists reservations, newest first.
func (l *Ledger) Reservations(ctx context.Context, tenant string, f earmark.ReservationFilter) (earmark.Page[earmark.Reservation], error) {
	var none earmark.Page[earmark.Reservation]
	list := listOf("reservations", tenant, f.State, f.Scope, f.Overdue, f.Orphan, f.Within)
	createdAt, lastID, err := list.parse(f.Cursor)
	if err != nil {
		return none, err
	}
	limit := pageSize(f.Limit)
	rows, err := l.lists.Query(ctx, reservationsSQL, planAnew, tenant, string(f.State), f.Scope, f.Overdue, f.Orphan, createdAt, lastID, limit+1, orNone(f.Within))
	if err != nil {
		return none, fault(err)
	}
	reservations, err := pgx.CollectRows(rows, documentOf[earmark.Reservation])
	if err != nil {
		return none, fault(err)
	}
	return page(reservations, limit, func(r earmark.Reservation) string { return list.cursor(r.CreatedAt, r.ID) }), nil
}

// Entries lists entries of the journal, oldest first.
func (l *Ledger) Entries(ctx context.Context, tenant string, f earmark.EntryFilter) (earmark.Page[earmark.Entry], error) {
	var none earmark.Page[earmark.Entry]
	list := listOf("entries", tenant, f.BudgetID, f.ReservationID, f.Within)
	after, err := list.parseEntry(f.Cursor)
	if err != nil {
		return none, err
	}
	limit := pageSize(f.Limit)
	rows, err := l.lists.Query(ctx, entriesSQL, planAnew, tenant, f.BudgetID, f.ReservationID, after, limit+1, orNone(f.Within))
	if err != nil {
		return none, fault(err)
	}
	entries, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (earmark.Entry, error) {
		var e earmark.Entry
		err := row.Scan(&e.ID, &e.Kind, &e.ReservationID, &e.BudgetID, &e.WindowStart, &e.ReservedDelta, &e.CommittedDelta, &e.Actor, &e.Reason, &e.CreatedAt)
		e.CreatedAt, e.WindowStart = e.CreatedAt.UTC(), utc(e.WindowStart)
		return e, err
	})
	if err != nil {
		return none, fault(err)
	}
	return page(entries, limit, func(e earmark.Entry) string { return list.cursor(e.CreatedAt, strconv.FormatInt(e.ID, 10)) }), nil
}

func pageSize(limit int) int {
	if limit <= 0 {
		return earmark.DefaultPageSize
	}
	return min(limit, earmark.MaxPageSize)
}

// page cuts rows, of which limit + 1 were requested, to one page.
func page[T any](rows []T, limit int, cursor func(T) string) earmark.Page[T] {
	if len(rows) <= limit {
		return earmark.Page[T]{Data: rows}
	}
	return earmark.Page[T]{Data: rows[:limit], NextCursor: cursor(rows[limit-1])}
}
