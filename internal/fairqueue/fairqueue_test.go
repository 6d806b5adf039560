package fairqueue

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	waitFor = 5 * time.Second
	tick    = time.Millisecond
)

// enter starts a call that waits, and returns once it is in the line. order gets its name when its turn comes.
func enter(t *testing.T, q *Queue, caller Caller, name string, order chan<- string) {
	t.Helper()
	before := waiting(q)
	go func() {
		leave, err := q.Enter(t.Context(), caller)
		if err != nil {
			return
		}
		order <- name
		leave()
	}()
	require.Eventually(t, func() bool { return waiting(q) > before }, waitFor, tick)
}

func waiting(q *Queue) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, tenant := range q.root.children {
		for _, scope := range tenant.children {
			n += len(scope.waiting)
		}
	}
	return n
}

// requireEmpty waits until the last call has left, and requires that no trace of any is kept.
func requireEmpty(t *testing.T, q *Queue) {
	t.Helper()
	require.Eventually(t, func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.underWay == 0 && len(q.root.children) == 0 && len(q.root.turns) == 0
	}, waitFor, tick)
}

func take(n int, order <-chan string) (names []string) {
	for range n {
		names = append(names, <-order)
	}
	return names
}

// A flood on one scope makes only its own calls wait: the call on another scope is next, however many
// came before it. So is another tenant's, whatever the scopes of the first.
func TestFloodWaitsForItself(t *testing.T) {
	t.Parallel()
	q := New(1)
	leave, err := q.Enter(t.Context(), Caller{"a", "busy"})
	require.NoError(t, err)
	order := make(chan string, 10)
	enter(t, q, Caller{"a", "busy"}, "flood 1", order)
	enter(t, q, Caller{"a", "busy"}, "flood 2", order)
	enter(t, q, Caller{"a", "busy"}, "flood 3", order)
	enter(t, q, Caller{"a", "quiet"}, "bystander", order)
	enter(t, q, Caller{"b", "busy"}, "tenant", order)
	leave()
	require.Equal(t, []string{"flood 1", "tenant", "bystander", "flood 2", "flood 3"}, take(5, order))
	requireEmpty(t, q)
}

// The fewest under way come first: a scope that holds the places waits for one that holds none.
func TestFewestUnderWayComeFirst(t *testing.T) {
	t.Parallel()
	q := New(2)
	first, err := q.Enter(t.Context(), Caller{"a", "busy"})
	require.NoError(t, err)
	second, err := q.Enter(t.Context(), Caller{"a", "busy"})
	require.NoError(t, err)
	order := make(chan string, 10)
	enter(t, q, Caller{"a", "busy"}, "flood", order)
	enter(t, q, Caller{"a", "quiet"}, "bystander", order)
	second()
	require.Equal(t, []string{"bystander", "flood"}, take(2, order))
	first()
}

func TestLeavingTheLine(t *testing.T) {
	t.Parallel()
	q := New(1)
	leave, err := q.Enter(t.Context(), Caller{"a", "x"})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = q.Enter(ctx, Caller{"a", "y"})
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, waiting(q))
	leave()
	requireEmpty(t, q)
	leave, err = q.Enter(ctx, Caller{"a", "y"})
	require.NoError(t, err, "a free place is taken although ctx is done")
	leave()
}

func TestResize(t *testing.T) {
	t.Parallel()
	q := New(0)
	order := make(chan string, 10)
	enter(t, q, Caller{"a", "x"}, "first", order)
	enter(t, q, Caller{"a", "x"}, "second", order)
	q.Resize(1)
	require.Equal(t, []string{"first", "second"}, take(2, order))
	require.Equal(t, 1, q.Size())
}

// Under any mix of callers, some of whom leave, no more than the size are under way, and nobody is forgotten.
func TestManyCallers(t *testing.T) {
	t.Parallel()
	const size, callers, calls = 3, 40, 200
	q := New(size)
	var underWay, most atomic.Int64
	var group sync.WaitGroup
	for n := range callers {
		group.Go(func() {
			for i := range calls {
				ctx, cancel := context.WithCancel(t.Context())
				if (n+i)%7 == 0 {
					go cancel()
				}
				leave, err := q.Enter(ctx, Caller{Tenant: string(rune('a' + n%3)), Scope: string(rune('a' + n%5))})
				if err == nil {
					now := underWay.Add(1)
					for was := most.Load(); now > was && !most.CompareAndSwap(was, now); was = most.Load() {
					}
					underWay.Add(-1)
					leave()
				}
				cancel()
			}
		})
	}
	group.Wait()
	require.LessOrEqual(t, most.Load(), int64(size))
	requireEmpty(t, q)
}
