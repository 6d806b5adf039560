package replay

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
)

// How the rows that were left open are looked at in the end.
const (
	// decidedAfter is how long after the last attempt a reservation that is not
	// there will never be: longer than any deadline of an admission.
	decidedAfter    = 20 * time.Second
	pollPause       = 500 * time.Millisecond
	resolvePatience = 2 * time.Minute
	resolvers       = 16
)

// openRow is a row without a decision, or one that is admitted and not known to be
// settled.
type openRow struct {
	row      Row
	id       string
	admitted bool
	askedAt  time.Time // the last attempt to reserve
}

// leave keeps a row for the end of the run.
func (r *run) leave(row openRow) {
	r.openMu.Lock()
	defer r.openMu.Unlock()
	r.open = append(r.open, row)
	if len(r.open) >= maxOpen {
		r.giveUp(errTooManyOpen)
	}
}

// resolve looks at the rows that were left open, for resolvePatience in all. What
// it cannot find out stays open and shows in the report.
func (r *run) resolve(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, resolvePatience)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(resolvers)
	r.openMu.Lock()
	open := r.open
	r.openMu.Unlock()
	for _, row := range open { // what is left open now is not tried again
		group.Go(func() error {
			if row.admitted {
				r.settle(ctx, row)
			} else {
				r.decide(ctx, row)
			}
			return nil
		})
	}
	_ = group.Wait()
}

// decide finds out whether an unknown row was admitted after all. If so it is like
// any other that was: what it used is charged.
func (r *run) decide(ctx context.Context, row openRow) {
	if !sleep(ctx.Done(), time.Until(row.askedAt.Add(decidedAfter))) {
		return
	}
	_, err := persist(ctx, func(ctx context.Context) error {
		_, err := r.api.Reservation(ctx, row.id)
		return err
	})
	switch {
	case earmark.ErrorCode(err) == earmark.CodeNotFound:
		r.tally.update(func(c *counts) {
			c.unknown--
			c.notReserved++
		})
	case err == nil:
		r.tally.update(func(c *counts) {
			c.unknown--
			c.foundLater++
			r.admit(c, row.row)
		})
		r.settle(ctx, row)
	}
}

// settle commits what is held, and waits until a commit that was accepted shows in
// the ledger. Repeating a commit changes nothing.
func (r *run) settle(ctx context.Context, row openRow) {
	usage := earmark.Amounts{Unit: row.row.UsedTokens()}
	if _, err := persist(ctx, func(ctx context.Context) error {
		_, err := r.api.Commit(ctx, row.id, usage)
		return err
	}); err != nil {
		r.tally.update(func(c *counts) { c.note("committing", row.row, err) })
		return
	}
	for {
		reservation, err := r.api.Reservation(ctx, row.id)
		if err == nil && !reservation.Open() {
			r.settled(row.row, reservation)
			return
		}
		if !sleep(ctx.Done(), pollPause) {
			return
		}
	}
}
