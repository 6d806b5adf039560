// Package activities connects the workflows to the ledger and to Temporal. Every
// activity is idempotent (rule R5): it may run again after a crash, and after a
// time-out whose call still lands.
package activities

import (
	"context"
	"time"

	"github.com/earmark-dev/earmark"
)

// Ledger is what the activities need of the ledger. Its methods answer with
// outcomes; an error means that the outcome is not known.
type Ledger interface {
	Reserve(ctx context.Context, a earmark.Admission) (earmark.Result, error)
	Commit(ctx context.Context, s earmark.Settlement, usage earmark.Amounts) (earmark.Result, error)
	Release(ctx context.Context, s earmark.Settlement) (earmark.Result, error)
	GiveBack(ctx context.Context, s earmark.Settlement) (earmark.Result, error)
	Expire(ctx context.Context, s earmark.Settlement) (earmark.Result, error)
	Extend(ctx context.Context, s earmark.Settlement, ttl time.Duration) (earmark.Result, error)
	Charge(ctx context.Context, c earmark.Charge) (earmark.Result, error)
	Inspect(ctx context.Context, tenant, id string) (earmark.Result, error)
}

// Reservations are the activities of the Reservation workflow.
type Reservations struct {
	Ledger Ledger
	// Admissions hears of each admission that this process makes; nil where nobody
	// waits in this process.
	Admissions *Admissions
}

// Standing is a ledger result as workflows keep it: what the next step depends
// on, without the reservation itself, so that histories stay small.
type Standing struct {
	Outcome earmark.Outcome `json:"outcome"`
	State   earmark.State   `json:"state,omitempty"` // empty where no row exists
	// RemainingMS is how long the lease still runs, in milliseconds of Postgres' clock.
	RemainingMS int64 `json:"remaining_ms,omitempty"`
	// CreatedAt is when the reservation was made, by Postgres' clock; only Reserve
	// and Inspect tell.
	CreatedAt *time.Time        `json:"created_at,omitempty"`
	Decision  *earmark.Decision `json:"decision,omitempty"`
	Subject   string            `json:"subject,omitempty"`
	// Usage is what is charged, unless it is an estimate. A workflow that has closed
	// with it knows what a Postgres that was restored from a backup does not.
	Usage earmark.Amounts `json:"usage,omitempty"`
}

// CommitInput is the input of Commit.
type CommitInput struct {
	Settlement earmark.Settlement `json:"settlement"`
	Usage      earmark.Amounts    `json:"usage"`
}

// ExtendInput is the input of Extend.
type ExtendInput struct {
	Settlement earmark.Settlement `json:"settlement"`
	TTLSeconds int64              `json:"ttl_seconds"`
}

// Reserve admits or denies, by the call that was made ahead in this process if there
// is one. An admission is handed to whoever waits for it in this process: it is
// durable in Postgres already. A denial is not, until the workflow task that holds it
// is; so it is only hinted at.
func (r *Reservations) Reserve(ctx context.Context, admission earmark.Admission) (Standing, error) {
	result, found := r.Admissions.takeAhead(ctx, admission)
	if !found {
		var err error
		if result, err = r.Ledger.Reserve(ctx, admission); err != nil {
			return Standing{}, err
		}
	}
	r.Admissions.announce(admission, result)
	return bornStandingOf(result), nil
}

// Commit charges usage. What it came to is handed to whoever waits for it in this
// process: it is durable in Postgres already.
func (r *Reservations) Commit(ctx context.Context, input CommitInput) (Standing, error) {
	result, err := r.Ledger.Commit(ctx, input.Settlement, input.Usage)
	if err != nil {
		return Standing{}, err
	}
	r.Admissions.settled(settlingBy(input.Settlement, input.Usage), result)
	return standingOf(result), nil
}

// Release is the caller's own release, handed over as a commit is.
func (r *Reservations) Release(ctx context.Context, settlement earmark.Settlement) (Standing, error) {
	result, err := r.Ledger.Release(ctx, settlement)
	if err != nil {
		return Standing{}, err
	}
	r.Admissions.settled(settlingBy(settlement, nil), result)
	return standingOf(result), nil
}

// GiveBack is an operator's release: an expiry with a reason.
func (r *Reservations) GiveBack(ctx context.Context, settlement earmark.Settlement) (Standing, error) {
	result, err := r.Ledger.GiveBack(ctx, settlement)
	return standingOf(result), err
}

// Expire applies the expiry policy if the lease has run out.
func (r *Reservations) Expire(ctx context.Context, settlement earmark.Settlement) (Standing, error) {
	result, err := r.Ledger.Expire(ctx, settlement)
	return standingOf(result), err
}

// Extend lets the lease run longer.
func (r *Reservations) Extend(ctx context.Context, input ExtendInput) (Standing, error) {
	result, err := r.Ledger.Extend(ctx, input.Settlement, time.Duration(input.TTLSeconds)*time.Second)
	return standingOf(result), err
}

// Inspect tells where the reservation stands.
func (r *Reservations) Inspect(ctx context.Context, settlement earmark.Settlement) (Standing, error) {
	result, err := r.Ledger.Inspect(ctx, settlement.Tenant, settlement.ID)
	return bornStandingOf(result), err
}

// Charge charges usage whose reservation Postgres has lost. A charge must not be
// dropped: where no budget takes it, this fails, is tried again, and is seen.
func (r *Reservations) Charge(ctx context.Context, charge earmark.Charge) (Standing, error) {
	result, err := r.Ledger.Charge(ctx, charge)
	if err != nil {
		return Standing{}, err
	}
	switch result.Outcome {
	case earmark.OutcomeNoBudget, earmark.OutcomeUnitNotBudgeted:
		return Standing{}, earmark.Errorf(earmark.CodeNoBudget, "the usage of %s cannot be charged: no budget covers %q any more; create one, and this is tried again", charge.ID, result.Subject)
	}
	return standingOf(result), nil
}

func standingOf(result earmark.Result) Standing {
	standing := Standing{Outcome: result.Outcome, RemainingMS: result.RemainingMS, Decision: result.Decision, Subject: result.Subject}
	if reservation := result.Reservation; reservation != nil {
		standing.State = reservation.State
		if !reservation.Estimated {
			standing.Usage = reservation.Usage
		}
	}
	return standing
}

func bornStandingOf(result earmark.Result) Standing {
	standing := standingOf(result)
	if result.Reservation != nil {
		standing.CreatedAt = &result.Reservation.CreatedAt
	}
	return standing
}
