package replay

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
)

// How open rows are resolved at the end.
const (
	// decidedAfter is longer than any deadline of an admission: if the reservation does not
	// exist so long after the last attempt, it never will.
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

// resolve resolves the open rows, for at most resolvePatience. Rows that it cannot resolve
// stay open and show in the report.
func (r *run) resolve(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, resolvePatience)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(resolvers)
	r.openMu.Lock()
	open := r.open
	r.openMu.Unlock()
	for _, row := range open { // rows still open now are not tried again
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

// decide finds out whether an unknown row was admitted. If so, its usage is charged like
// that of any other row.
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

// settle commits a held reservation, and waits until an accepted commit shows in the
// ledger. Repeating a commit changes nothing.
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
