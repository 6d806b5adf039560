package api

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// shared asks a question once for all who ask at the same time, and answers it again for a while.
// Only an answer is kept, not a fault.
type shared[T any] struct {
	kept    time.Duration // since the question was asked
	timeout time.Duration // of the question

	flight singleflight.Group
	mu     sync.Mutex
	at     time.Time
	answer T
}

// get is the answer of ask. Ask goes on when its caller leaves, for others wait for it too; each
// caller waits no longer than its own context.
func (s *shared[T]) get(ctx context.Context, ask func(context.Context) (T, error)) (answer T, err error) {
	if answer, fresh := s.fresh(); fresh {
		return answer, nil
	}
	results := s.flight.DoChan("", func() (any, error) {
		if answer, fresh := s.fresh(); fresh { // since the flight before landed
			return answer, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
		defer cancel()
		asked := time.Now()
		answer, err := ask(ctx)
		if err == nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.at, s.answer = asked, answer
		}
		return answer, err
	})
	select {
	case <-ctx.Done():
		return answer, ctx.Err()
	case result := <-results:
		return result.Val.(T), result.Err //nolint:forcetypeassert // the flight returns nothing else
	}
}

func (s *shared[T]) fresh() (answer T, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answer, !s.at.IsZero() && time.Since(s.at) < s.kept
}
