// Package postgres is the ledger on Postgres. Each transition is one call of a
// PL/pgSQL function in one round trip (rule R6); the functions are in the
// migrations directory.
package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/earmark-dev/earmark"
)

// Ledger holds budgets, reservations and entries in Postgres. Its methods are
// safe for concurrent use. They answer with outcomes; an error means that the
// result is not known (code unavailable) or that the input was refused.
type Ledger struct {
	pool         *pgxpool.Pool
	reservations lanes[earmark.Admission]
	commits      lanes[commitCall]
	recent       recent
}

// New makes a ledger on a pool whose database is migrated.
func New(pool *pgxpool.Pool) *Ledger {
	l := &Ledger{pool: pool}
	l.reservations = lanes[earmark.Admission]{alone: l.reserveAlone, together: l.reserveTogether}
	l.commits = lanes[commitCall]{alone: l.commitAlone, together: l.commitTogether}
	return l
}

var (
	//go:embed sql/preflight.sql
	preflightSQL string
	//go:embed sql/decide.sql
	decideSQL string
	//go:embed sql/reserve.sql
	reserveSQL string
	//go:embed sql/commit.sql
	commitSQL string
	//go:embed sql/release.sql
	releaseSQL string
	//go:embed sql/expire.sql
	expireSQL string
	//go:embed sql/extend.sql
	extendSQL string
	//go:embed sql/adopt.sql
	adoptSQL string
	//go:embed sql/charge.sql
	chargeSQL string
	//go:embed sql/inspect.sql
	inspectSQL string
	//go:embed sql/sweep.sql
	sweepSQL string
	//go:embed sql/bound_transaction.sql
	boundTransactionSQL string
)

// Preflight reads what is known before an admission. It changes nothing.
func (l *Ledger) Preflight(ctx context.Context, a earmark.Admission) (earmark.Preflight, error) {
	var preflight earmark.Preflight
	err := l.read(ctx, &preflight, preflightSQL, a.ID, a.Tenant, a.RequestHash, a.Request.Scopes, a.Request.Amounts)
	return preflight, err
}

// Decide tells whether the request would be admitted now. It changes nothing.
func (l *Ledger) Decide(ctx context.Context, tenant string, request earmark.ReservationRequest) (earmark.Result, error) {
	var result earmark.Result
	err := l.read(ctx, &result, decideSQL, tenant, request.Scopes, request.Amounts)
	return result, err
}

// Reserve sets the amounts aside on every budget that covers one of the scopes,
// or on none (R1, R2). Outcomes: applied, same, denied, no_budget,
// unit_not_budgeted, mismatch, too_late, released, overflow.
func (l *Ledger) Reserve(ctx context.Context, a earmark.Admission) (earmark.Result, error) {
	lane := laneOf(a)
	result, err := l.reservations.do(ctx, lane, a)
	if err == nil && result.Outcome == earmark.OutcomeApplied {
		l.recent.add(a.ID, hold{lane: lane, amounts: a.Request.Amounts})
	}
	return result, err
}

// Commit charges usage and gives back the rest. Outcomes: applied, same,
// conflict, overage_rejected, units_mismatch, overflow, unknown.
func (l *Ledger) Commit(ctx context.Context, s earmark.Settlement, usage earmark.Amounts) (earmark.Result, error) {
	call := commitCall{s, usage}
	held, known := l.recent.take(s.ID)
	if !known || !held.covers(usage) {
		return l.commitAlone(ctx, call)
	}
	return l.commits.do(ctx, held.lane, call)
}

// Release is the caller's own: nothing was spent, and that is final. Outcomes:
// applied, same, conflict, unknown.
func (l *Ledger) Release(ctx context.Context, s earmark.Settlement) (earmark.Result, error) {
	return l.transition(ctx, releaseSQL, s.Tenant, s.ID, true, s.Actor, s.Reason)
}

// GiveBack is an operator's release: an expiry with a reason, after which usage
// that turns up is still charged. Outcomes as Release.
func (l *Ledger) GiveBack(ctx context.Context, s earmark.Settlement) (earmark.Result, error) {
	return l.transition(ctx, releaseSQL, s.Tenant, s.ID, false, s.Actor, s.Reason)
}

// Expire applies the expiry policy to a reservation that is due. Outcomes:
// applied, same (not held any more), not_due with RemainingMS, overflow, unknown.
func (l *Ledger) Expire(ctx context.Context, s earmark.Settlement) (earmark.Result, error) {
	return l.transition(ctx, expireSQL, s.Tenant, s.ID, s.Actor, s.Reason)
}

// Extend lets the lease run for ttl from now, if that is longer than it runs
// already. Outcomes: applied, same, conflict, expired, unknown.
func (l *Ledger) Extend(ctx context.Context, s earmark.Settlement, ttl time.Duration) (earmark.Result, error) {
	return l.transition(ctx, extendSQL, s.Tenant, s.ID, ttl.Milliseconds(), s.Actor, s.Reason)
}

// Adopt notes who starts a new workflow for an open reservation, and why.
// Outcomes: applied, conflict, unknown.
func (l *Ledger) Adopt(ctx context.Context, s earmark.Settlement) (earmark.Result, error) {
	return l.transition(ctx, adoptSQL, s.Tenant, s.ID, s.Actor, s.Reason)
}

// Charge charges amounts that have no reservation. Outcomes: applied, same,
// mismatch, no_budget, unit_not_budgeted, overflow.
func (l *Ledger) Charge(ctx context.Context, c earmark.Charge) (earmark.Result, error) {
	return l.transition(ctx, chargeSQL, c.ID, c.Tenant, c.RequestHash, c.Request.Scopes, c.Request.Amounts,
		metadata(c.Request.Metadata), orNull(c.At), c.Actor, c.Reason)
}

// Inspect tells where a reservation stands. Outcomes: same, unknown.
func (l *Ledger) Inspect(ctx context.Context, tenant, id string) (earmark.Result, error) {
	result := earmark.Result{Outcome: earmark.OutcomeUnknown}
	err := l.read(ctx, &result, inspectSQL, tenant, id)
	return result, err
}

// Sweep expires up to most held reservations that are overdue by more than
// grace, and returns their ids.
func (l *Ledger) Sweep(ctx context.Context, grace time.Duration, most int) ([]string, error) {
	var ids []string
	err := l.pool.QueryRow(ctx, sweepSQL, grace.Milliseconds(), most, earmark.ActorSweeper, "overdue, and its workflow did not act").Scan(&ids)
	return ids, fault(err)
}

// Ready reports whether Postgres answers and is migrated.
func (l *Ledger) Ready(ctx context.Context) error {
	current, latest, err := SchemaVersion(ctx, l.pool)
	if err != nil {
		return fault(err)
	}
	if current < latest {
		return earmark.Errorf(earmark.CodeUnavailable, "the database's schema is at version %d, this program needs %d; run `earmark migrate up`", current, latest)
	}
	return nil
}

// transition calls a ledger function that answers with a Result.
func (l *Ledger) transition(ctx context.Context, sql string, args ...any) (earmark.Result, error) {
	var result earmark.Result
	err := l.read(ctx, &result, sql, args...)
	if sqlState(err) == numericValueOutOfRange {
		return earmark.Result{Outcome: earmark.OutcomeOverflow}, nil // the call was rolled back whole
	}
	return result, err
}

// read scans the one JSON document that sql answers with into target, and leaves
// target as it is where there is no row.
func (l *Ledger) read(ctx context.Context, target any, sql string, args ...any) error {
	var document []byte
	err := l.pool.QueryRow(ctx, sql, args...).Scan(&document)
	if isNoRows(err) {
		return nil
	}
	if err != nil {
		return fault(err)
	}
	if err := json.Unmarshal(document, target); err != nil {
		return fmt.Errorf("the ledger's answer does not decode: %w", err)
	}
	return nil
}

// inTx runs f in a transaction. Rollback does not depend on ctx, which may be
// the reason for it.
func (l *Ledger) inTx(ctx context.Context, f func(pgx.Tx) error) error {
	tx, err := l.pool.Begin(ctx)
	if err != nil {
		return fault(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after a commit it does nothing
	if _, err := tx.Exec(ctx, boundTransactionSQL); err != nil {
		return fault(err)
	}
	if err := f(tx); err != nil {
		return fault(err)
	}
	return fault(tx.Commit(ctx))
}

func metadata(m earmark.Metadata) earmark.Metadata {
	if m == nil {
		return earmark.Metadata{}
	}
	return m
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
