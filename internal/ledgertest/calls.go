package ledgertest

import (
	"context"
	"time"

	"github.com/earmark-dev/earmark"
)

// Calls has the transitions of a ledger, for a fake that stands in each of them: Do is given every
// call and decides when it is applied to the model, which Do has to guard if calls are concurrent.
type Calls struct {
	Model *Ledger
	Do    func(ctx context.Context, call Call, apply func() (earmark.Result, error)) (earmark.Result, error)
}

// Call is a call of the ledger: its verb, such as "give back", and what it is about.
type Call struct {
	Verb       string
	Admission  earmark.Admission  // of reserve
	Transition earmark.Transition // of commit, release, give back, expire and extend
	Charge     earmark.Charge     // of charge
}

// Reserve is call "reserve".
func (c *Calls) Reserve(ctx context.Context, a earmark.Admission) (earmark.Result, error) {
	return c.Do(ctx, Call{Verb: "reserve", Admission: a}, func() (earmark.Result, error) { return c.Model.Reserve(ctx, a) })
}

// Commit is call "commit".
func (c *Calls) Commit(ctx context.Context, t earmark.Transition, usage earmark.Amounts) (earmark.Result, error) {
	return c.Do(ctx, Call{Verb: "commit", Transition: t}, func() (earmark.Result, error) { return c.Model.Commit(ctx, t, usage) })
}

// Release is call "release".
func (c *Calls) Release(ctx context.Context, t earmark.Transition) (earmark.Result, error) {
	return c.Do(ctx, Call{Verb: "release", Transition: t}, func() (earmark.Result, error) { return c.Model.Release(ctx, t) })
}

// GiveBack is call "give back".
func (c *Calls) GiveBack(ctx context.Context, t earmark.Transition) (earmark.Result, error) {
	return c.Do(ctx, Call{Verb: "give back", Transition: t}, func() (earmark.Result, error) { return c.Model.GiveBack(ctx, t) })
}

// Expire is call "expire".
func (c *Calls) Expire(ctx context.Context, t earmark.Transition) (earmark.Result, error) {
	return c.Do(ctx, Call{Verb: "expire", Transition: t}, func() (earmark.Result, error) { return c.Model.Expire(ctx, t) })
}

// Extend is call "extend".
func (c *Calls) Extend(ctx context.Context, t earmark.Transition, ttl time.Duration) (earmark.Result, error) {
	return c.Do(ctx, Call{Verb: "extend", Transition: t}, func() (earmark.Result, error) { return c.Model.Extend(ctx, t, ttl) })
}

// Charge is call "charge".
func (c *Calls) Charge(ctx context.Context, charge earmark.Charge) (earmark.Result, error) {
	return c.Do(ctx, Call{Verb: "charge", Charge: charge}, func() (earmark.Result, error) { return c.Model.Charge(ctx, charge) })
}

// Inspect is call "inspect".
func (c *Calls) Inspect(ctx context.Context, tenant, id string) (earmark.Result, error) {
	return c.Do(ctx, Call{Verb: "inspect"}, func() (earmark.Result, error) { return c.Model.Inspect(ctx, tenant, id) })
}
