// Package activities connects the workflows to the ledger and to Temporal. Every activity
// is idempotent (rule R5): Temporal may run it again after a crash, or after a time-out
// whose call still reaches the ledger.
package activities

import (
	"context"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/handoff"
)

// Ledger is the part of the ledger that the activities use. Its methods return outcomes; an
// error means that the outcome is unknown.
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
	// Handoff delivers results to the coordinator in this process; nil if there is none.
	Handoff *handoff.Exchange
}

// Snapshot is a result of the ledger as a workflow keeps it: only what the next step needs,
// so that histories stay small.
type Snapshot struct {
	Outcome earmark.Outcome `json:"outcome"`
	State   earmark.State   `json:"state,omitempty"` // empty if no row exists
	// RemainingMS is how long the lease still runs by Postgres' clock, in milliseconds.
	RemainingMS int64 `json:"remaining_ms,omitempty"`
	// CreatedAt is when the reservation was created, by Postgres' clock; only Reserve and
	// Inspect set it.
	CreatedAt *time.Time        `json:"created_at,omitempty"`
	Decision  *earmark.Decision `json:"decision,omitempty"`
	Subject   string            `json:"subject,omitempty"`
	Scope     string            `json:"scope,omitempty"`
	// OnExpiry is the expiry policy; a refused commit changes it.
	OnExpiry earmark.OnExpiry `json:"on_expiry,omitempty"`
	// Usage is the usage that the caller committed; nil for an estimate of the expiry. It
	// survives in the result of a closed workflow, from which the reconciler restores a
	// commit that Postgres has lost.
	Usage earmark.Amounts `json:"usage,omitempty"`
	// Estimated says that Usage is an estimate of the caller.
	Estimated bool `json:"estimated,omitempty"`
	// Actor and Reason say who committed that usage and why. Only a workflow's result sets
	// them, and only if the actor is not the caller or gave a reason.
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

// Reserve admits or denies. It takes the result of the speculative reserve in this process,
// if there is one, and delivers the decision to the coordinator. An admission is durable in
// Postgres by then. A denial is durable only when the workflow task with this activity has
// completed, so the coordinator takes it as a hint.
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

// Awaited is the result of AwaitSettlement.
type Awaited struct {
	// Settled is the ledger's answer to the settlement; nil if none arrived.
	Settled *Snapshot `json:"settled,omitempty"`
	// WaitedMS is how long the activity waited, in milliseconds.
	WaitedMS int64 `json:"waited_ms,omitempty"`
}

// AwaitSettlement waits until the coordinator in this process has settled the reservation,
// or until its settle window ends. Without a window it returns at once.
func (r *Reservations) AwaitSettlement(ctx context.Context, id string) (Awaited, error) {
	started := time.Now()
	settlement, found := r.Handoff.AwaitSettlement(ctx, id)
	awaited := Awaited{WaitedMS: time.Since(started).Milliseconds()}
	if found {
		settled := snapshotOfCommit(settlement.Transition, settlement.Result)
		settled.Reason = settlement.Reason
		if settlement.Actor.Named() {
			settled.Actor = &settlement.Actor
		}
		awaited.Settled = &settled
	}
	return awaited, nil
}

// Commit charges usage.
func (r *Reservations) Commit(ctx context.Context, input CommitInput) (Snapshot, error) {
	result, err := r.Ledger.Commit(ctx, input.Transition, input.Usage)
	return snapshotOfCommit(input.Transition, result), err
}

// Release gives the amount back as the caller's own release, which is final.
func (r *Reservations) Release(ctx context.Context, transition earmark.Transition) (Snapshot, error) {
	result, err := r.Ledger.Release(ctx, transition)
	return snapshotOf(result), err
}

// GiveBack gives the amount back as an operator's release: an expiry with a reason.
func (r *Reservations) GiveBack(ctx context.Context, transition earmark.Transition) (Snapshot, error) {
	result, err := r.Ledger.GiveBack(ctx, transition)
	return snapshotOf(result), err
}

// Expire applies the expiry policy if the lease has ended.
func (r *Reservations) Expire(ctx context.Context, transition earmark.Transition) (Snapshot, error) {
	result, err := r.Ledger.Expire(ctx, transition)
	return snapshotOf(result), err
}

// Extend extends the lease.
func (r *Reservations) Extend(ctx context.Context, input ExtendInput) (Snapshot, error) {
	result, err := r.Ledger.Extend(ctx, input.Transition, time.Duration(input.TTLSeconds)*time.Second)
	return snapshotOf(result), err
}

// Inspect returns the reservation's current state.
func (r *Reservations) Inspect(ctx context.Context, transition earmark.Transition) (Snapshot, error) {
	result, err := r.Ledger.Inspect(ctx, transition.Tenant, transition.ID)
	return snapshotWithCreation(result), err
}

// Charge charges usage of a reservation that Postgres has lost. A charge must not be
// dropped: if no budget covers it, Charge returns an error, Temporal tries it again, and
// the reservation shows as stuck.
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

// snapshotOfCommit keeps the caller's estimate, which the expiry policy would not restore.
func snapshotOfCommit(t earmark.Transition, result earmark.Result) Snapshot {
	snapshot := snapshotOf(result)
	if t.Estimated && result.Reservation != nil && result.Reservation.Estimated {
		snapshot.Usage, snapshot.Estimated = result.Reservation.Usage, true
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
