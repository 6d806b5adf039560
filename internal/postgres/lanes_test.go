package postgres

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
)

// road is one lane with calls that are numbers. The first call alone, 0, is under way
// until it is told to end, so that what is asked for meanwhile waits.
type road struct {
	*testing.T
	lanes   lanes[int]
	proceed chan struct{}
	batches chan []int
	alone   chan int
	group   errgroup.Group
}

func number(n int) *earmark.Result { return &earmark.Result{RemainingMS: int64(n)} }

func newRoad(t *testing.T, together func([]int) ([]*earmark.Result, error)) *road {
	t.Helper()
	t.Parallel()
	r := &road{T: t, proceed: make(chan struct{}), batches: make(chan []int, 100), alone: make(chan int, 100)}
	r.lanes.alone = func(_ context.Context, n int) (earmark.Result, error) {
		if n == 0 {
			<-r.proceed
		}
		r.alone <- n
		return *number(n), nil
	}
	r.lanes.together = func(_ context.Context, calls []int) ([]*earmark.Result, error) {
		r.batches <- calls
		return together(calls)
	}
	r.ask(t.Context(), 0)
	r.waits(0)
	return r
}

func everyOne(calls []int) (results []*earmark.Result, err error) {
	for _, n := range calls {
		results = append(results, number(n))
	}
	return results, nil
}

// ask calls in the background, and checks that the answer is this call's own.
func (r *road) ask(ctx context.Context, n int) {
	r.group.Go(func() error {
		result, err := r.lanes.do(ctx, "lane", n)
		if err == nil && result.RemainingMS != int64(n) {
			err = fmt.Errorf("%d got the answer of %d", n, result.RemainingMS)
		}
		return err
	})
}

// waits until so many wait in the lane.
func (r *road) waits(count int) {
	r.Helper()
	require.Eventually(r, func() bool {
		r.lanes.mu.Lock()
		defer r.lanes.mu.Unlock()
		waiting, busy := r.lanes.waiting["lane"]
		return busy && len(waiting) == count
	}, 10*time.Second, time.Millisecond)
}

// queue asks for 1 to count, one after the other.
func (r *road) queue(count int) {
	r.Helper()
	for n := 1; n <= count; n++ {
		r.ask(r.Context(), n)
		r.waits(n)
	}
}

// isFree checks that nothing is left behind.
func (r *road) isFree() {
	r.Helper()
	require.Eventually(r, func() bool {
		r.lanes.mu.Lock()
		defer r.lanes.mu.Unlock()
		return len(r.lanes.waiting) == 0
	}, 10*time.Second, time.Millisecond)
}

func TestLanesSendTogetherWhatWaited(t *testing.T) {
	r := newRoad(t, everyOne)
	r.queue(3)
	_, err := r.lanes.do(t.Context(), "another", 9)
	require.NoError(t, err, "it has a lane of its own")
	require.Equal(t, 9, <-r.alone)
	close(r.proceed)
	require.NoError(t, r.group.Wait())
	require.Equal(t, []int{1, 2, 3}, <-r.batches, "in the order of their arrival")
	r.isFree()
}

func TestLanesSendNoBatchOfOne(t *testing.T) {
	r := newRoad(t, everyOne)
	r.queue(1)
	close(r.proceed)
	require.NoError(t, r.group.Wait())
	require.Empty(t, r.batches)
	r.isFree()
}

func TestLanesBoundABatch(t *testing.T) {
	r := newRoad(t, everyOne)
	r.queue(mostTogether + 2)
	close(r.proceed)
	require.NoError(t, r.group.Wait())
	require.Len(t, <-r.batches, mostTogether)
	require.Equal(t, []int{mostTogether + 1, mostTogether + 2}, <-r.batches)
	r.isFree()
}

func TestLanesTryAloneWhatFailsTogether(t *testing.T) {
	r := newRoad(t, func([]int) ([]*earmark.Result, error) { return nil, errors.New("one of them spoils it") })
	r.queue(3)
	close(r.proceed)
	require.NoError(t, r.group.Wait())
	require.Len(t, r.alone, 4)
	r.isFree()
}

func TestLanesTryAloneWhatIsNotAnswered(t *testing.T) {
	r := newRoad(t, func(calls []int) ([]*earmark.Result, error) {
		results, err := everyOne(calls)
		results[1] = nil
		return results, err
	})
	r.queue(3)
	close(r.proceed)
	require.NoError(t, r.group.Wait())
	require.Equal(t, 0, <-r.alone)
	require.Equal(t, 2, <-r.alone)
	require.Empty(t, r.alone)
	r.isFree()
}

// Who leaves is not called for, and does the others no harm.
func TestLanesForgetWhoLeaves(t *testing.T) {
	r := newRoad(t, everyOne)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := r.lanes.do(ctx, "lane", 7)
		left <- err
	}()
	r.waits(1)
	r.ask(t.Context(), 1)
	r.waits(2)
	r.ask(t.Context(), 2)
	r.waits(3)
	leave()
	require.ErrorIs(t, <-left, context.Canceled)
	close(r.proceed)
	require.NoError(t, r.group.Wait())
	require.Equal(t, []int{1, 2}, <-r.batches)
	r.isFree()
}

// A call that hangs does not hold its lane up for ever.
func TestLanesPassACallThatHangs(t *testing.T) {
	r := newRoad(t, everyOne)
	r.ask(t.Context(), 1)
	require.Equal(t, 1, <-r.alone)
	close(r.proceed)
	require.NoError(t, r.group.Wait())
	r.isFree()
}

func TestRecentIsBounded(t *testing.T) {
	t.Parallel()
	var r recent
	for n := range 3 * mostRecent {
		r.add(fmt.Sprint(n), hold{lane: "lane"})
	}
	require.LessOrEqual(t, len(r.young)+len(r.old), 2*mostRecent)
	_, found := r.take(fmt.Sprint(3*mostRecent - 1))
	require.True(t, found)
	_, found = r.take(fmt.Sprint(3*mostRecent - 1))
	require.False(t, found, "it is taken once")
	_, found = r.take("0")
	require.False(t, found)
}

func TestHoldCovers(t *testing.T) {
	t.Parallel()
	h := hold{amounts: earmark.Amounts{"tokens": 10, "requests": 1}}
	require.True(t, h.covers(earmark.Amounts{"tokens": 10, "requests": 0}))
	require.False(t, h.covers(earmark.Amounts{"tokens": 11, "requests": 1}), "a policy has a say")
	require.False(t, h.covers(earmark.Amounts{"tokens": 10}))
	require.False(t, h.covers(earmark.Amounts{"tokens": 10, "usd_micros": 1}))
}
