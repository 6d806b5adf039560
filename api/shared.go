package api

import (
	"context"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// shared makes one call for all callers that ask at the same time, and reuses its answer
// for a while. It does not keep errors.
type shared[T any] struct {
	kept    time.Duration // since the call began
	timeout time.Duration // of the call

	flight singleflight.Group
	mu     sync.Mutex
	at     time.Time
	answer T
}

// get returns the answer of ask. ask continues after its caller has left, because others
// wait for it too; each caller waits only as long as its own context.
func (s *shared[T]) get(ctx context.Context, ask func(context.Context) (T, error)) (answer T, err error) {
	if answer, fresh := s.fresh(); fresh {
		return answer, nil
	}
	results := s.flight.DoChan("", func() (any, error) {
		if answer, fresh := s.fresh(); fresh { // another call has just ended
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

// maxShared bounds the answers that a sharedBy keeps; above it the outdated ones are
// dropped.
const maxShared = 1_000

// sharedBy is shared for a call with an answer for each key, such as a tenant.
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
