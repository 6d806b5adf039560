package postgres

import (
	"context"
	_ "embed"
	"time"

	"github.com/jackc/pgx/v5"
)

//go:embed sql/spent.sql
var spentSQL string

// Spending is what was used on one day on one model, in one unit, corrections included.
type Spending struct {
	Day    string // YYYY-MM-DD
	Model  string // empty if the metadata has none
	Amount int64
}

// SpendingQuery selects what Spending adds up.
type SpendingQuery struct {
	Tenant   string
	First    time.Time // the first day, its date alone
	Last     time.Time // the last day
	Unit     string
	TimeZone string   // of the days
	Metadata []string // the keys that may have the model; the first that a reservation has counts
}

// Spending returns the corrected usage of committed reservations and direct charges, by day and model. Overage policies do not
// change it: it is what was used, not what the budgets were charged. Pruned reservations are missing.
func (l *Ledger) Spending(ctx context.Context, q SpendingQuery) ([]Spending, error) {
	rows, err := l.pool.Query(ctx, spentSQL, q.Tenant, q.First.Format(time.DateOnly), q.Last.AddDate(0, 0, 1).Format(time.DateOnly), q.Unit, q.TimeZone, q.Metadata)
	if err != nil {
		return nil, fault(err)
	}
	spent, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Spending])
	return spent, fault(err)
}
