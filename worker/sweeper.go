package worker

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/earmark-dev/earmark/internal/ctxtime"
)

const (
	// DefaultGrace is how long the sweeper leaves an overdue reservation to its workflow.
	DefaultGrace = 30 * time.Second
	sweepEvery   = time.Second
	// sweepBatch bounds how long one call keeps windows locked.
	sweepBatch = 100
	// sweepPause is the pause between two full batches, so that admissions run in between.
	sweepPause   = 20 * time.Millisecond
	sweepTimeout = 10 * time.Second
)

// SweepLedger is the part of the ledger that the sweeper uses.
type SweepLedger interface {
	Sweep(ctx context.Context, grace time.Duration, limit int) ([]string, error)
	NoteGrants(ctx context.Context, limit int) (int, error)
}

// Sweeper expires overdue reservations that no workflow has expired, writes down what of expired grants
// was unused, and the events of those that soon expire. It does not need Temporal, so that no hold stays if Temporal is lost.
type Sweeper struct {
	Ledger SweepLedger
	Grace  time.Duration
	Logger *slog.Logger
}

// Run sweeps until ctx is done. It begins one grace after its start, so that after an
// outage the workflows come first.
func (s *Sweeper) Run(ctx context.Context) error {
	if !ctxtime.Sleep(ctx, s.Grace) {
		return nil
	}
	for {
		pause := sweepEvery
		ids, err := s.sweep(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the process stops; the interrupted search does not matter
		case err != nil:
			s.Logger.WarnContext(ctx, "The sweeper could not look for overdue reservations.", "error", err)
		case len(ids) == sweepBatch:
			pause = sweepPause
		}
		if !ctxtime.Sleep(ctx, pause) {
			return nil
		}
	}
}

func (s *Sweeper) sweep(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	_, noted := s.Ledger.NoteGrants(ctx, sweepBatch) // mutation: expired-grants
	ids, err := s.Ledger.Sweep(ctx, s.Grace, sweepBatch)
	for _, id := range ids {
		s.Logger.WarnContext(ctx, "The sweeper expired a reservation that its workflow did not.", "reservation_id", id)
	}
	return ids, errors.Join(err, noted)
}
