package ledgertest

import (
	"context"
	"time"

	"github.com/earmark-dev/earmark"
)

// Calls implements the transitions of a ledger for a fake: it passes every call to Do,
// which decides when to apply the call to the model. If calls are concurrent, Do must guard
// the model.
type Calls struct {
	Model *Ledger
	Do    func(ctx context.Context, call Call, apply func() (earmark.Result, error)) (earmark.Result, error)
}

// Call is a call to the ledger: its verb, such as "give back", and its arguments.
type Call struct {
	Verb       string
	Admission  earmark.Admission  // for reserve
	Transition earmark.Transition // for commit, release, give back, expire and extend
	Charge     earmark.Charge     // for charge
}

// Reserve makes the call "reserve".
func (c *Calls) Reserve(ctx context.Context, a earmark.Admission) (earmark.Result, error) {
	return c.Do(ctx, Call{Verb: "reserve", Admission: a}, func() (earmark.Result, error) { return c.Model.Reserve(ctx, a) })
}

// Commit makes the call "commit".
func (c *Calls) Commit(ctx context.Context, t earmark.Transition, usage earmark.Amounts) (earmark.Result, error) {
	return c.Do(ctx, Call{Verb: "commit", Transition: t}, func() (earmark.Result, error) { return c.Model.Commit(ctx, t, usage) })
}

// Release makes the call "release".
func (c *Calls) Release(ctx context.Context, t earmark.Transition) (earmark.Result, error) {
	return c.Do(ctx, Call{Verb: "release", Transition: t}, func() (earmark.Result, error) { return c.Model.Release(ctx, t) })
}

// GiveBack makes the call "give back".
func (c *Calls) GiveBack(ctx context.Context, t earmark.Transition) (earmark.Result, error) {
	return c.Do(ctx, Call{Verb: "give back", Transition: t}, func() (earmark.Result, error) { return c.Model.GiveBack(ctx, t) })
}

// Expire makes the call "expire".
func (c *Calls) Expire(ctx context.Context, t earmark.Transition) (earmark.Result, error) {
	return c.Do(ctx, Call{Verb: "expire", Transition: t}, func() (earmark.Result, error) { return c.Model.Expire(ctx, t) })
}

// Extend makes the call "extend".
func (c *Calls) Extend(ctx context.Context, t earmark.Transition, ttl time.Duration) (earmark.Result, error) {
	return c.Do(ctx, Call{Verb: "extend", Transition: t}, func() (earmark.Result, error) { return c.Model.Extend(ctx, t, ttl) })
}

// Charge makes the call "charge".
func (c *Calls) Charge(ctx context.Context, charge earmark.Charge) (earmark.Result, error) {
	return c.Do(ctx, Call{Verb: "charge", Charge: charge}, func() (earmark.Result, error) { return c.Model.Charge(ctx, charge) })
}

// Inspect makes the call "inspect".
func (c *Calls) Inspect(ctx context.Context, tenant, id string) (earmark.Result, error) {
	return c.Do(ctx, Call{Verb: "inspect"}, func() (earmark.Result, error) { return c.Model.Inspect(ctx, tenant, id) })
}
