//go:build unix

package chaos_test

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// row is a reservation as the ledger has it, read past the product.
type row struct {
	ID            string
	Tenant        string
	State         earmark.State
	Amounts       earmark.Amounts
	Usage         earmark.Amounts
	Correction    earmark.Amounts
	Shortfall     earmark.Amounts
	RejectedUsage earmark.Amounts
	Late          bool
	Estimated     bool
	OnExpiry      earmark.OnExpiry
	ExpiresAt     *time.Time
	SettledAt     *time.Time
	Reason        string

	shares  []share
	entries []entry
}

// charged is the corrected usage.
func (r *row) charged() earmark.Amounts {
	if r.Usage == nil {
		return nil
	}
	charged := maps.Clone(r.Usage)
	for unit, by := range r.Correction {
		charged[unit] += by
	}
	return charged
}

type share struct {
	ReservationID string
	BudgetID      string
	Unit          string
	Reserved      int64
	Committed     int64
}

type entry struct {
	ID             int64
	Kind           string
	ReservationID  string
	BudgetID       *string
	WindowStart    *time.Time
	ReservedDelta  int64
	CommittedDelta int64
	ReservedAfter  *int64
	CommittedAfter *int64
	Ceiling        *int64
	Actor          string
	Reason         string
	CreatedAt      time.Time
}

// readRows reads the whole ledger.
func readRows(t *testing.T, pool *pgxpool.Pool) map[string]*row {
	t.Helper()
	rows := map[string]*row{}
	for _, r := range collect[row](t, pool, `SELECT id, tenant, state, amounts, usage, correction, shortfall, rejected_usage, late, estimated, on_expiry, expires_at, settled_at, reason
		FROM earmark.reservations`) {
		rows[r.ID] = &r
	}
	for _, s := range collect[share](t, pool, "SELECT reservation_id, budget_id, unit, reserved, committed FROM earmark.reservation_budgets") {
		rows[s.ReservationID].shares = append(rows[s.ReservationID].shares, s)
	}
	for _, e := range readEntries(t, pool) {
		if r := rows[e.ReservationID]; r != nil {
			r.entries = append(r.entries, e)
		}
	}
	return rows
}

// readEntries reads the journal of the ledger, oldest first.
func readEntries(t *testing.T, pool *pgxpool.Pool) []entry {
	t.Helper()
	return collect[entry](t, pool, `SELECT id, kind, coalesce(reservation_id, '') AS reservation_id, budget_id, window_start, reserved_delta, committed_delta, reserved_after,
		committed_after, ceiling, actor, reason, created_at FROM earmark.entries ORDER BY id`)
}

func collect[T any](t *testing.T, pool *pgxpool.Pool, sql string, args ...any) []T {
	t.Helper()
	rows, err := pool.Query(context.Background(), sql, args...)
	require.NoError(t, err)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByNameLax[T])
	require.NoError(t, err)
	return list
}
