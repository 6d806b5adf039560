package demo

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Names of the strategies, as in the report.
const (
	CheckThenAdd   = "check_then_add"
	AddThenCheck   = "add_then_check"
	LockTheCheck   = "lock_the_check"
	LockAcrossCall = "lock_across_the_call"
	GuardedUpdate  = "guarded_update"
	Earmark        = "earmark"
)

// way is one strategy to keep a limit.
type way struct {
	name string
	// begin opens a new account with the whole limit available.
	begin func(ctx context.Context, round int) (account, error)
}

// account is what the callers of one round share.
type account interface {
	// ask is one caller: it requests requestTokens, calls the model if it is admitted, and
	// settles. It calls decided once, as soon as it has the decision.
	ask(ctx context.Context, caller int, decided func(admitted bool)) error
	// end returns the final count, after all callers have ended.
	end(ctx context.Context) (outcome, error)
}

// outcome is the result of an account, in tokens.
type outcome struct {
	peakTokens int64 // the largest count at any moment
	endTokens  int64
}

// usualWays returns the strategies that need only a table.
func usualWays(s *scratch) []way {
	on := func(name string, ask func(*counter, context.Context, func(bool)) error) way {
		return way{name: name, begin: func(ctx context.Context, _ int) (account, error) {
			counter, err := s.newCounter(ctx)
			return usual{counter, ask}, err
		}}
	}
	return []way{
		on(CheckThenAdd, (*counter).checkThenAdd),
		on(AddThenCheck, (*counter).addThenCheck),
		on(LockTheCheck, (*counter).lockTheCheck),
		on(LockAcrossCall, (*counter).lockAcrossCall),
		on(GuardedUpdate, (*counter).guardedUpdate),
	}
}

type usual struct {
	*counter
	way func(c *counter, ctx context.Context, decided func(bool)) error
}

func (u usual) ask(ctx context.Context, _ int, decided func(bool)) error {
	return u.way(u.counter, ctx, decided)
}

// checkThenAdd is the most common code: nothing is locked between the check and the sum.
func (c *counter) checkThenAdd(ctx context.Context, decided func(bool)) error {
	fits, err := c.fits(ctx, c.pool, checkSQL)
	return c.callAndAdd(ctx, fits, err, decided)
}

// lockTheCheck locks the row only for the check: the lock is released before the sum.
func (c *counter) lockTheCheck(ctx context.Context, decided func(bool)) error {
	var fits bool
	err := pgx.BeginFunc(ctx, c.pool, func(tx pgx.Tx) (err error) {
		fits, err = c.fits(ctx, tx, lockSQL)
		return err
	})
	return c.callAndAdd(ctx, fits, err, decided)
}

func (c *counter) callAndAdd(ctx context.Context, fits bool, err error, decided func(bool)) error {
	if err != nil {
		return err
	}
	decided(fits)
	if !fits {
		return nil
	}
	if err := callModel(ctx); err != nil {
		return err
	}
	_, err = c.add(ctx, c.pool, requestTokens)
	return err
}

// addThenCheck adds first and subtracts the excess.
func (c *counter) addThenCheck(ctx context.Context, decided func(bool)) error {
	used, err := c.add(ctx, c.pool, requestTokens)
	if err != nil {
		return err
	}
	if used > limitTokens {
		_, err := c.add(ctx, c.pool, -requestTokens)
		decided(false)
		return err
	}
	decided(true)
	return callModel(ctx)
}

// lockAcrossCall keeps the row locked, and a transaction open, while the model
// works.
func (c *counter) lockAcrossCall(ctx context.Context, decided func(bool)) error {
	return pgx.BeginFunc(ctx, c.pool, func(tx pgx.Tx) error {
		fits, err := c.fits(ctx, tx, lockSQL)
		if err != nil {
			return err
		}
		decided(fits)
		if !fits {
			return nil
		}
		if err := callModel(ctx); err != nil {
			return err
		}
		_, err = c.add(ctx, tx, requestTokens)
		return err
	})
}

// guardedUpdate counts holds in addition to usage. It is correct as long as every caller
// lives to settle.
func (c *counter) guardedUpdate(ctx context.Context, decided func(bool)) error {
	held, err := c.hold(ctx, requestTokens)
	if err != nil {
		return err
	}
	decided(held)
	if !held {
		return nil
	}
	if err := callModel(ctx); err != nil {
		return err
	}
	_, err = c.pool.Exec(ctx, settleSQL, c.id, requestTokens)
	return err
}
