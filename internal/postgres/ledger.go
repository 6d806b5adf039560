// Package postgres is the ledger on Postgres. Each transition is one call of a PL/pgSQL
// function in one round trip (rule R6); the functions are in migrations/functions.
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

// Ledger holds budgets, reservations and entries in Postgres. Its methods are safe for
// concurrent use. They return outcomes; an error means that the outcome is unknown
// (CodeUnavailable), that there is a bug (CodeInternal), or that the input was refused.
type Ledger struct {
	pool     *pgxpool.Pool
	lists    *pgxpool.Pool // for what lists and sums up; the same one unless ListFrom was called
	reserves coalescer[earmark.Admission]
	commits  coalescer[commitCall]
	holds    recent[hold]     // reservations that this process made and has not committed, by id
	budgeted recent[struct{}] // the uppermost budgets of recent admissions, by budgetKey
}

// New returns a ledger on a pool whose database is migrated.
func New(pool *pgxpool.Pool) *Ledger {
	l := &Ledger{pool: pool, lists: pool}
	l.reserves = coalescer[earmark.Admission]{name: "earmark.reserve_batch", single: l.reserveSingle, batch: l.reserveBatch}
	l.commits = coalescer[commitCall]{name: "earmark.commit_batch", single: l.commitSingle, batch: l.commitBatch}
	return l
}

// ListFrom makes lists and the overview use connections of their own, so that they and the ledger's calls take none from each
// other. It is called before the ledger is used.
func (l *Ledger) ListFrom(pool *pgxpool.Pool) { l.lists = pool } // mutation: own-connections

// Calls of the ledger's functions, which are in migrations/functions.
const (
	preflightSQL = "SELECT earmark.preflight(p_id => @id, p_tenant => @tenant, p_hash => @hash, p_scopes => @scopes, p_amounts => @amounts, p_any_scope => @any_scope, p_require_budget => @require_budget)"
	countedSQL   = "SELECT earmark.counted_units(p_id => @id, p_tenant => @tenant, p_hash => @hash, p_scopes => @scopes)"
	decideSQL    = "SELECT earmark.decide(p_tenant => @tenant, p_scopes => @scopes, p_amounts => @amounts, p_any_scope => @any_scope, p_require_budget => @require_budget)"
	releaseSQL   = "SELECT earmark.release(p_tenant => @tenant, p_id => @id, p_final => @final, p_actor => @actor, p_reason => @reason)"
	expireSQL    = "SELECT earmark.expire(p_tenant => @tenant, p_id => @id, p_actor => @actor, p_reason => @reason)"
	extendSQL    = "SELECT earmark.extend(p_tenant => @tenant, p_id => @id, p_ttl_ms => @ttl_ms, p_actor => @actor, p_reason => @reason)"
	adoptSQL     = "SELECT earmark.adopt(p_tenant => @tenant, p_id => @id, p_actor => @actor, p_reason => @reason)"
	chargeSQL    = "SELECT earmark.charge(p_id => @id, p_tenant => @tenant, p_hash => @hash, p_scopes => @scopes, p_amounts => @amounts, " +
		"p_metadata => @metadata, p_at => @at, p_actor => @actor, p_reason => @reason, p_response => @response, p_require_budget => @require_budget)"
	correctSQL = "SELECT earmark.correct(p_tenant => @tenant, p_id => @id, p_correction_id => @correction_id, p_hash => @hash, p_amounts => @amounts, " +
		"p_actor => @actor, p_reason => @reason)"
	inspectSQL = "SELECT earmark.result('same', r) FROM earmark.reservations r WHERE r.tenant = @tenant AND r.id = @id"
	sweepSQL   = "SELECT earmark.sweep(p_grace_ms => @grace_ms, p_max => @max, p_actor => @actor, p_reason => @reason)"
)

//go:embed sql/bound_transaction.sql
var boundTransactionSQL string

// byName returns the arguments that settlements have in common.
func byName(s earmark.Transition) namedArgs {
	return namedArgs{"tenant": s.Tenant, "id": s.ID, "actor": s.Actor.String(), "reason": s.Reason}
}

// Preflight makes the read before an admission. It changes nothing.
func (l *Ledger) Preflight(ctx context.Context, a earmark.Admission) (earmark.Preflight, error) {
	var preflight earmark.Preflight
	err := l.read(ctx, &preflight, preflightSQL, namedArgs{
		"id": a.ID, "tenant": a.Tenant, "hash": a.RequestHash, "scopes": a.Request.Scopes, "amounts": a.Request.Amounts,
		"any_scope": a.Request.AnyScope(), "require_budget": a.Request.RequireBudget})
	return preflight, err
}

// CountedUnits makes the read before an estimate. It changes nothing.
func (l *Ledger) CountedUnits(ctx context.Context, tenant, id, hash string, scopes []string) (earmark.Counted, error) {
	var counted earmark.Counted
	err := l.read(ctx, &counted, countedSQL, namedArgs{"id": id, "tenant": tenant, "hash": hash, "scopes": scopes})
	return counted, err
}

// Decide reports whether the request would be admitted now. It changes nothing.
func (l *Ledger) Decide(ctx context.Context, tenant string, request earmark.ReservationRequest) (earmark.Result, error) {
	var result earmark.Result
	err := l.read(ctx, &result, decideSQL, namedArgs{"tenant": tenant, "scopes": request.Scopes, "amounts": request.Amounts, "any_scope": request.AnyScope(),
		"require_budget": request.RequireBudget})
	return result, err
}

// Reserve sets the amounts aside on every budget that covers one of the scopes,
// or on none (R1, R2). Outcomes: applied, same, denied, no_budget,
// unit_not_budgeted, mismatch, too_late, released, overflow.
func (l *Ledger) Reserve(ctx context.Context, a earmark.Admission) (earmark.Result, error) {
	key := l.batchKey(a)
	result, err := l.reserves.do(ctx, key, a)
	if err != nil {
		return result, err
	}
	key = l.learn(a.Tenant, key, result)
	if result.Outcome == earmark.OutcomeApplied {
		l.holds.add(a.ID, hold{batchKey: key, amounts: a.Request.Amounts})
	}
	return result, nil
}

// Commit charges usage and gives back the rest. Outcomes: applied, same,
// conflict, overage_rejected, units_mismatch, overflow, unknown.
func (l *Ledger) Commit(ctx context.Context, s earmark.Transition, usage earmark.Amounts) (earmark.Result, error) {
	call := commitCall{s, usage}
	held, known := l.holds.take(s.ID)
	if !known || !held.covers(usage) {
		return l.commitSingle(ctx, call)
	}
	return l.commits.do(ctx, held.batchKey, call)
}

// Release gives the amount back as the caller's own release: nothing was spent, and that is
// final. Outcomes: applied, same, conflict, unknown.
func (l *Ledger) Release(ctx context.Context, s earmark.Transition) (earmark.Result, error) {
	args := byName(s)
	args["final"] = true
	return l.transition(ctx, releaseSQL, args)
}

// GiveBack gives the amount back as an operator's release: an expiry with a reason, after
// which late usage is still charged. Outcomes as for Release.
func (l *Ledger) GiveBack(ctx context.Context, s earmark.Transition) (earmark.Result, error) {
	args := byName(s)
	args["final"] = false
	return l.transition(ctx, releaseSQL, args)
}

// Expire applies the expiry policy to a reservation whose lease has ended. Outcomes:
// applied, same (no longer held), not_due with RemainingMS, overflow, unknown.
func (l *Ledger) Expire(ctx context.Context, s earmark.Transition) (earmark.Result, error) {
	return l.transition(ctx, expireSQL, byName(s))
}

// Extend extends the lease to ttl from now, if that is later than its expiry. Outcomes:
// applied, same, conflict, expired, unknown.
func (l *Ledger) Extend(ctx context.Context, s earmark.Transition, ttl time.Duration) (earmark.Result, error) {
	args := byName(s)
	args["ttl_ms"] = ttl.Milliseconds()
	return l.transition(ctx, extendSQL, args)
}

// Adopt writes a journal entry: the actor starts a new workflow for an open reservation.
// Outcomes: applied, conflict, unknown.
func (l *Ledger) Adopt(ctx context.Context, s earmark.Transition) (earmark.Result, error) {
	return l.transition(ctx, adoptSQL, byName(s))
}

// Charge charges amounts without a reservation. Outcomes: applied, same, mismatch,
// no_budget, unit_not_budgeted, overflow.
func (l *Ledger) Charge(ctx context.Context, c earmark.Charge) (earmark.Result, error) {
	return l.transition(ctx, chargeSQL, namedArgs{
		"id": c.ID, "tenant": c.Tenant, "hash": c.RequestHash, "scopes": c.Request.Scopes, "amounts": c.Request.Amounts,
		"metadata": metadata(c.Request.Metadata), "at": orNull(c.At), "actor": c.Actor.String(), "reason": c.Reason,
		"response": c.Response, "require_budget": c.Request.RequireBudget})
}

// Correct adds signed amounts to a final charge, in the windows that were charged. Outcomes: applied,
// same, mismatch, conflict (the reservation has no final charge), units_mismatch, below_zero, overflow, unknown.
func (l *Ledger) Correct(ctx context.Context, c earmark.Correction) (earmark.Result, error) {
	return l.transition(ctx, correctSQL, namedArgs{
		"tenant": c.Tenant, "id": c.ReservationID, "correction_id": c.ID, "hash": c.Request.Hash(), "amounts": c.Request.Amounts,
		"actor": c.Actor.String(), "reason": c.Request.Reason})
}

// Inspect returns a reservation's current state. Outcomes: same, unknown.
func (l *Ledger) Inspect(ctx context.Context, tenant, id string) (earmark.Result, error) {
	result := earmark.Result{Outcome: earmark.OutcomeUnknown}
	err := l.read(ctx, &result, inspectSQL, namedArgs{"tenant": tenant, "id": id})
	return result, err
}

// Sweep expires up to limit held reservations that have been overdue for more than grace,
// and returns their ids.
func (l *Ledger) Sweep(ctx context.Context, grace time.Duration, limit int) ([]string, error) {
	var ids []string
	args := namedArgs{"grace_ms": grace.Milliseconds(), "max": limit, "actor": earmark.ActorSweeper.String(), "reason": "overdue, and its workflow did not act"}
	err := l.pool.QueryRow(ctx, sweepSQL, args).Scan(&ids)
	return ids, fault(err)
}

// Ready returns nil if Postgres answers and is migrated: the schema and the functions are
// this program's, or newer ones. The error is CodeUnavailable.
func (l *Ledger) Ready(ctx context.Context) error {
	current, latest, err := SchemaVersion(ctx, l.pool)
	if err != nil {
		return fault(err)
	}
	if current < latest {
		return earmark.Errorf(earmark.CodeUnavailable, "the database's schema is at version %d, this program needs %d; run `earmark migrate up`", current, latest)
	}
	applied, _, err := functionsApplied(ctx, l.pool)
	if err != nil {
		return fault(err)
	}
	if !applied {
		return earmark.Errorf(earmark.CodeUnavailable, "the database has older functions than this program needs; run `earmark migrate up`")
	}
	return nil
}

// transition calls a ledger function that returns a Result.
func (l *Ledger) transition(ctx context.Context, sql string, args ...any) (earmark.Result, error) {
	var result earmark.Result
	err := l.read(ctx, &result, sql, args...)
	if sqlState(err) == numericValueOutOfRange { // mutation: overflow
		return earmark.Result{Outcome: earmark.OutcomeOverflow}, nil // the whole call was rolled back
	}
	return result, err
}

// read scans the one JSON document that sql returns into target. Without a row, target
// stays unchanged.
func (l *Ledger) read(ctx context.Context, target any, sql string, args ...any) error {
	return readFrom(ctx, l.pool, target, sql, args...)
}

func readFrom(ctx context.Context, pool *pgxpool.Pool, target any, sql string, args ...any) error {
	var document []byte
	err := pool.QueryRow(ctx, sql, args...).Scan(&document)
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

// inTx runs f in a transaction. The rollback does not use ctx, whose end may be its reason.
func (l *Ledger) inTx(ctx context.Context, f func(pgx.Tx) error) error {
	tx, err := l.pool.Begin(ctx)
	if err != nil {
		return fault(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // no effect after a commit
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
