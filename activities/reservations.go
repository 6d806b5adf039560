// Package activities connects the workflows to the ledger and to Temporal. Every
// activity is idempotent (rule R5): it may run again after a crash, and after a
// time-out whose call still lands.
package activities

import (
	"context"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/handoff"
)

// Ledger is what the activities need of the ledger. Its methods answer with
// outcomes; an error means that the outcome is not known.
type Ledger interface {
	Reserve(ctx context.Context, a earmark.Admission) (earmark.Result, error)
	Commit(ctx context.Context, s earmark.Transition, usage earmark.Amounts) (earmark.Result, error)
	Release(ctx context.Context, s earmark.Transition) (earmark.Result, error)
	GiveBack(ctx context.Context, s earmark.Transition) (earmark.Result, error)
	Expire(ctx context.Context, s earmark.Transition) (earmark.Result, error)
	Extend(ctx context.Context, s earmark.Transition, ttl time.Duration) (earmark.Result, error)
	Charge(ctx context.Context, c earmark.Charge) (earmark.Result, error)
	Inspect(ctx context.Context, tenant, id string) (earmark.Result, error)
}

// Reservations are the activities of the Reservation workflow.
type Reservations struct {
	Ledger Ledger
	// Handoff takes the results to the coordinator in this process; nil where there is
	// none.
	Handoff *handoff.Exchange
}

// Snapshot is a ledger result as workflows keep it: what the next step depends
// on, without the reservation itself, so that histories stay small.
type Snapshot struct {
	Outcome earmark.Outcome `json:"outcome"`
	State   earmark.State   `json:"state,omitempty"` // empty where no row exists
	// RemainingMS is how long the lease still runs, in milliseconds of Postgres' clock.
	RemainingMS int64 `json:"remaining_ms,omitempty"`
	// CreatedAt is when the reservation was made, by Postgres' clock; only Reserve
	// and Inspect set it.
	CreatedAt *time.Time        `json:"created_at,omitempty"`
	Decision  *earmark.Decision `json:"decision,omitempty"`
	Subject   string            `json:"subject,omitempty"`
	Scope     string            `json:"scope,omitempty"`
	// OnExpiry is what happens when the lease ends: a refused commit changes it.
	OnExpiry earmark.OnExpiry `json:"on_expiry,omitempty"`
	// Usage is what is charged, unless it is an estimate. A workflow that has closed
	// with it knows what a Postgres that was restored from a backup does not.
	Usage earmark.Amounts `json:"usage,omitempty"`
	// Actor and Reason say who committed that usage and why; a workflow's result alone
	// has them, where it was not the caller or a reason was given.
	Actor  *earmark.Actor `json:"actor,omitempty"`
	Reason string         `json:"reason,omitempty"`
}

// CommitInput is the input of Commit.
type CommitInput struct {
	Transition earmark.Transition `json:"settlement"`
	Usage      earmark.Amounts    `json:"usage"`
}

// ExtendInput is the input of Extend.
type ExtendInput struct {
	Transition earmark.Transition `json:"settlement"`
	TTLSeconds int64              `json:"ttl_seconds"`
}

// Reserve admits or denies. It takes the result of the speculative reserve of this
// process, if there is one, and delivers the decision to the coordinator. A yes is
// durable in Postgres by then. A no is not durable until the workflow task that holds it
// completes, so the coordinator takes it as a hint.
func (r *Reservations) Reserve(ctx context.Context, admission earmark.Admission) (Snapshot, error) {
	result, found := r.Handoff.TakeSpeculation(ctx, admission)
	if !found {
		var err error
		if result, err = r.Ledger.Reserve(ctx, admission); err != nil {
			return Snapshot{}, err
		}
	}
	r.Handoff.DeliverDecision(admission, result)
	return snapshotWithCreation(result), nil
}

// Awaited is what AwaitSettlement answers.
type Awaited struct {
	// Settled is what the ledger answered to the settlement; nil when none came.
	Settled *Snapshot `json:"settled,omitempty"`
	// WaitedMS is how long the activity waited, in milliseconds.
	WaitedMS int64 `json:"waited_ms,omitempty"`
}

// AwaitSettlement waits until the coordinator in this process has settled the reservation, or
// its settle window is over. Where there is no window it answers at once.
func (r *Reservations) AwaitSettlement(ctx context.Context, id string) (Awaited, error) {
	started := time.Now()
	settlement, found := r.Handoff.AwaitSettlement(ctx, id)
	awaited := Awaited{WaitedMS: time.Since(started).Milliseconds()}
	if found {
		settled := snapshotOf(settlement.Result)
		settled.Reason = settlement.Reason
		if settlement.Actor.Operator() != "" {
			settled.Actor = &settlement.Actor
		}
		awaited.Settled = &settled
	}
	return awaited, nil
}

// Commit charges usage.
func (r *Reservations) Commit(ctx context.Context, input CommitInput) (Snapshot, error) {
	result, err := r.Ledger.Commit(ctx, input.Transition, input.Usage)
	return snapshotOf(result), err
}

// Release is the caller's own release.
func (r *Reservations) Release(ctx context.Context, transition earmark.Transition) (Snapshot, error) {
	result, err := r.Ledger.Release(ctx, transition)
	return snapshotOf(result), err
}

// GiveBack is an operator's release: an expiry with a reason.
func (r *Reservations) GiveBack(ctx context.Context, transition earmark.Transition) (Snapshot, error) {
	result, err := r.Ledger.GiveBack(ctx, transition)
	return snapshotOf(result), err
}

// Expire applies the expiry policy if the lease has run out.
func (r *Reservations) Expire(ctx context.Context, transition earmark.Transition) (Snapshot, error) {
	result, err := r.Ledger.Expire(ctx, transition)
	return snapshotOf(result), err
}

// Extend lets the lease run longer.
func (r *Reservations) Extend(ctx context.Context, input ExtendInput) (Snapshot, error) {
	result, err := r.Ledger.Extend(ctx, input.Transition, time.Duration(input.TTLSeconds)*time.Second)
	return snapshotOf(result), err
}

// Inspect reports where the reservation stands.
func (r *Reservations) Inspect(ctx context.Context, transition earmark.Transition) (Snapshot, error) {
	result, err := r.Ledger.Inspect(ctx, transition.Tenant, transition.ID)
	return snapshotWithCreation(result), err
}

// Charge charges usage whose reservation Postgres has lost. A charge must not be
// dropped: where no budget takes it, this fails, is tried again, and is seen.
func (r *Reservations) Charge(ctx context.Context, charge earmark.Charge) (Snapshot, error) {
	result, err := r.Ledger.Charge(ctx, charge)
	if err != nil {
		return Snapshot{}, err
	}
	if result.Outcome == earmark.OutcomeNoBudget || result.Outcome == earmark.OutcomeUnitNotBudgeted {
		return Snapshot{}, earmark.Errorf(earmark.CodeNoBudget, "the usage of %s cannot be charged: no budget covers %q any more; create one, and this is tried again", charge.ID, result.Subject)
	}
	return snapshotOf(result), nil
}

func snapshotOf(result earmark.Result) Snapshot {
	snapshot := Snapshot{Outcome: result.Outcome, RemainingMS: result.RemainingMS, Decision: result.Decision, Subject: result.Subject, Scope: result.Scope}
	if reservation := result.Reservation; reservation != nil {
		snapshot.State, snapshot.OnExpiry = reservation.State, reservation.OnExpiry
		if !reservation.Estimated {
			snapshot.Usage = reservation.Usage
		}
	}
	return snapshot
}

func snapshotWithCreation(result earmark.Result) Snapshot {
	snapshot := snapshotOf(result)
	if result.Reservation != nil {
		snapshot.CreatedAt = &result.Reservation.CreatedAt
	}
	return snapshot
}
