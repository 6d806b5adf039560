package worker

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// sweeps is a ledger that notes when it was swept, and answers in turn.
type sweeps struct {
	answers []any // int: that many were swept; error
	at      []time.Time
	grace   time.Duration
	most    int
	hang    bool
	noted   int
}

func (s *sweeps) NoteGrants(_ context.Context, most int) (int, error) {
	s.noted += most
	return 0, nil
}

func (s *sweeps) Sweep(ctx context.Context, grace time.Duration, most int) ([]string, error) {
	s.at, s.grace, s.most = append(s.at, time.Now()), grace, most
	if s.hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if len(s.answers) == 0 {
		return nil, nil
	}
	answer := s.answers[0]
	s.answers = s.answers[1:]
	if err, ok := answer.(error); ok {
		return nil, err
	}
	return make([]string, answer.(int)), nil
}

// sweep runs a sweeper for that long, in skipped time, and returns how long
// after its start it swept.
func sweep(t *testing.T, s *sweeps, long time.Duration) []time.Duration {
	t.Helper()
	var after []time.Duration
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), long)
		defer cancel()
		started := time.Now()
		sweeper := &Sweeper{Ledger: s, Grace: DefaultGrace, Logger: slog.New(slog.DiscardHandler)}
		require.NoError(t, sweeper.Run(ctx))
		require.Equal(t, long, time.Since(started), "it ends with its context")
		for _, at := range s.at {
			after = append(after, at.Sub(started))
		}
	})
	return after
}

// After an outage the workflows come first, for one grace.
func TestSweeperBeginsAfterOneGrace(t *testing.T) {
	t.Parallel()
	s := &sweeps{}
	require.Empty(t, sweep(t, s, DefaultGrace-time.Millisecond))
	require.Equal(t, []time.Duration{30 * time.Second, 31 * time.Second}, sweep(t, s, DefaultGrace+1500*time.Millisecond))
	require.Equal(t, DefaultGrace, s.grace)
	require.Equal(t, sweepBatch, s.most)
	require.Equal(t, 2*sweepBatch, s.noted, "of expired grants")
}

// A full batch means that there is more; others get a breath in between.
func TestSweeperGoesOnAfterAFullBatch(t *testing.T) {
	t.Parallel()
	s := &sweeps{answers: []any{sweepBatch, sweepBatch, 1}}
	g := DefaultGrace
	require.Equal(t, []time.Duration{g, g + sweepPause, g + 2*sweepPause, g + 2*sweepPause + sweepEvery}, sweep(t, s, g+sweepEvery+time.Second/2))
}

func TestSweeperOutlivesErrors(t *testing.T) {
	t.Parallel()
	away := errors.New("away")
	s := &sweeps{answers: []any{away, away, 1}}
	require.Len(t, sweep(t, s, DefaultGrace+3500*time.Millisecond), 4)
}

// A Postgres that hangs is given up on, and asked again.
func TestSweeperIsBounded(t *testing.T) {
	t.Parallel()
	s := &sweeps{hang: true}
	g := DefaultGrace
	require.Equal(t, []time.Duration{g, g + sweepTimeout + sweepEvery}, sweep(t, s, g+sweepTimeout+sweepEvery+time.Second/2))
}
