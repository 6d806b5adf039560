package bench

import (
	"context"
	_ "embed"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// byHand is what applications do on a table of their own.
type byHand struct{ pool *pgxpool.Pool }

// burstBudget is small, and empty again before each burst.
const burstBudget = 0

//go:embed sql/hand.sql
var handSQL string

// prepareByHand makes the tables of the strategies, and as many budgets of ours.
func prepareByHand(ctx context.Context, pool *pgxpool.Pool) error {
	_, err := pool.Exec(ctx, handSQL, pgx.QueryExecModeSimpleProtocol)
	return err
}

// resetBurst gives the burst's budgets room for burstFitting more requests.
func resetBurst(ctx context.Context, pool *pgxpool.Pool) error {
	batch := &pgx.Batch{}
	batch.Queue(`UPDATE hand.budgets SET limit_amount = $1, reserved = 0, committed = 0 WHERE id = $2`, burstFitting*unitAmount, burstBudget)
	batch.Queue(`UPDATE earmark.budgets b SET limit_amount = $1 + coalesce((SELECT reserved + committed FROM earmark.windows WHERE budget_id = b.id), 0)
		WHERE b.scope IN ($2, $3)`, burstFitting*unitAmount, handScope(burstBudget), rootScope(burstBudget))
	return pool.SendBatch(ctx, batch).Close()
}

const (
	logSQL       = "INSERT INTO hand.log (budget_id, reserved, committed) VALUES ($1, $2, $3)"
	changeSQL    = "UPDATE hand.budgets SET reserved = reserved + $2, committed = committed + $3, version = version + 1 WHERE id = $1"
	freeSQL      = "SELECT limit_amount - reserved - committed, version FROM hand.budgets WHERE id = $1"
	changeIfSQL  = changeSQL + " AND version = $4"
	lockedSQL    = freeSQL + " FOR UPDATE"
	mostAttempts = 10_000
)

// pessimistic locks the budget's row in a transaction of the application, twice.
func (h byHand) pessimistic(ctx context.Context, budget int, work func()) error {
	change := func(reserved, committed int64) error {
		return pgx.BeginFunc(ctx, h.pool, func(tx pgx.Tx) error {
			var free, version int64
			if err := tx.QueryRow(ctx, lockedSQL, budget).Scan(&free, &version); err != nil {
				return err
			}
			if reserved > free {
				return errNoBudgetLeft
			}
			if _, err := tx.Exec(ctx, changeSQL, budget, reserved, committed); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, logSQL, budget, reserved, committed)
			return err
		})
	}
	if err := change(unitAmount, 0); err != nil {
		return err
	}
	work()
	return change(-unitAmount, unitAmount)
}

var errChanged = errors.New("another was faster")

// optimistic reads without a lock, and rolls back and begins again when the row
// has changed since.
func (h byHand) optimistic(ctx context.Context, budget int, work func()) error {
	change := func(reserved, committed int64) error {
		return pgx.BeginFunc(ctx, h.pool, func(tx pgx.Tx) error {
			var free, version int64
			if err := tx.QueryRow(ctx, freeSQL, budget).Scan(&free, &version); err != nil {
				return err
			}
			if reserved > free {
				return errNoBudgetLeft
			}
			if _, err := tx.Exec(ctx, logSQL, budget, reserved, committed); err != nil {
				return err
			}
			changed, err := tx.Exec(ctx, changeIfSQL, budget, reserved, committed, version)
			if err == nil && changed.RowsAffected() == 0 {
				return errChanged
			}
			return err
		})
	}
	untilUnchanged := func(reserved, committed int64) (err error) {
		for range mostAttempts {
			if err = change(reserved, committed); !errors.Is(err, errChanged) {
				return err
			}
		}
		return err
	}
	if err := untilUnchanged(unitAmount, 0); err != nil {
		return err
	}
	work()
	return untilUnchanged(-unitAmount, unitAmount)
}

// unsafe checks, and adds up afterwards what was used.
func (h byHand) unsafe(ctx context.Context, budget int, work func()) error {
	var free, version int64
	if err := h.pool.QueryRow(ctx, freeSQL, budget).Scan(&free, &version); err != nil {
		return err
	}
	if unitAmount > free {
		return errNoBudgetLeft
	}
	work()
	_, err := h.pool.Exec(ctx, changeSQL, budget, 0, unitAmount)
	return err
}
