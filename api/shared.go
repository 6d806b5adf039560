package api

import (
	"context"
	"maps"
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

// maxShared bounds the answers that a sharedBy keeps; past it those that are not fresh are dropped.
const maxShared = 1_000

// sharedBy is shared for a question that has an answer for each key, such as a tenant.
type sharedBy[T any] struct {
	kept, timeout time.Duration

	mu    sync.Mutex
	byKey map[string]*shared[T]
}

func (s *sharedBy[T]) get(ctx context.Context, key string, ask func(context.Context) (T, error)) (T, error) {
	return s.of(key).get(ctx, ask)
}

func (s *sharedBy[T]) of(key string) *shared[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.byKey[key]; known != nil {
		return known
	}
	if len(s.byKey) >= maxShared {
		maps.DeleteFunc(s.byKey, func(_ string, kept *shared[T]) bool { _, fresh := kept.fresh(); return !fresh })
	}
	if s.byKey == nil {
		s.byKey = make(map[string]*shared[T])
	}
	added := &shared[T]{kept: s.kept, timeout: s.timeout}
	s.byKey[key] = added
	return added
}
