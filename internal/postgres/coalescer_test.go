package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
)

// queue is one key with calls that are numbers. The first call alone, 0, is under way
// until the test ends it, so that calls that arrive meanwhile wait.
type env struct {
	*testing.T
	calls   coalescer[int]
	proceed chan struct{}
	batches chan []int
	alone   chan int
	group   errgroup.Group
}

func number(n int) *earmark.Result { return &earmark.Result{RemainingMS: int64(n)} }

func newEnv(t *testing.T, together func([]int) ([]*earmark.Result, error)) *env {
	t.Helper()
	t.Parallel()
	r := &env{T: t, proceed: make(chan struct{}), batches: make(chan []int, 100), alone: make(chan int, 100)}
	r.calls.single = func(_ context.Context, n int) (earmark.Result, error) {
		if n == 0 {
			<-r.proceed
		}
		r.alone <- n
		return *number(n), nil
	}
	r.calls.batch = func(_ context.Context, calls []int) ([]*earmark.Result, error) {
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
func (r *env) ask(ctx context.Context, n int) {
	r.group.Go(func() error {
		result, err := r.calls.do(ctx, "key", n)
		if err == nil && result.RemainingMS != int64(n) {
			err = fmt.Errorf("%d got the answer of %d", n, result.RemainingMS)
		}
		return err
	})
}

// waits until so many wait in the queue.
func (r *env) waits(count int) {
	r.Helper()
	require.Eventually(r, func() bool {
		r.calls.mu.Lock()
		defer r.calls.mu.Unlock()
		waiting, busy := r.calls.waiting["key"]
		return busy && len(waiting) == count
	}, 10*time.Second, time.Millisecond)
}

// queue asks for 1 to count, one after the other.
func (r *env) queue(count int) {
	r.Helper()
	for n := 1; n <= count; n++ {
		r.ask(r.Context(), n)
		r.waits(n)
	}
}

// isFree checks that nothing is left behind.
func (r *env) isFree() {
	r.Helper()
	require.Eventually(r, func() bool {
		r.calls.mu.Lock()
		defer r.calls.mu.Unlock()
		return len(r.calls.waiting) == 0
	}, 10*time.Second, time.Millisecond)
}

func TestCoalescerSendsWhatWaitedAsABatch(t *testing.T) {
	r := newEnv(t, everyOne)
	r.queue(3)
	_, err := r.calls.do(t.Context(), "another", 9)
	require.NoError(t, err, "it has a key of its own")
	require.Equal(t, 9, <-r.alone)
	close(r.proceed)
	require.NoError(t, r.group.Wait())
	require.Equal(t, []int{1, 2, 3}, <-r.batches, "in the order of their arrival")
	r.isFree()
}

func TestCoalescerSendsNoBatchOfOne(t *testing.T) {
	r := newEnv(t, everyOne)
	r.queue(1)
	close(r.proceed)
	require.NoError(t, r.group.Wait())
	require.Empty(t, r.batches)
	r.isFree()
}

func TestCoalescerBoundsABatch(t *testing.T) {
	r := newEnv(t, everyOne)
	r.queue(maxBatch + 2)
	close(r.proceed)
	require.NoError(t, r.group.Wait())
	require.Len(t, <-r.batches, maxBatch)
	require.Equal(t, []int{maxBatch + 1, maxBatch + 2}, <-r.batches)
	r.isFree()
}

// One call spoils every batch that it is in. The batch is sent in halves, one after the other, until that call is alone.
func TestCoalescerSendsAFailedBatchInHalves(t *testing.T) {
	var running, most atomic.Int32
	r := newEnv(t, func(calls []int) ([]*earmark.Result, error) {
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)
		if slices.Contains(calls, 3) {
			return nil, errors.New("it spoils the batch")
		}
		return everyOne(calls)
	})
	r.queue(8)
	close(r.proceed)
	require.NoError(t, r.group.Wait())
	r.isFree()
	close(r.batches)
	var batches [][]int
	for batch := range r.batches {
		batches = append(batches, batch)
	}
	require.Equal(t, [][]int{{1, 2, 3, 4, 5, 6, 7, 8}, {1, 2, 3, 4}, {1, 2}, {3, 4}, {5, 6, 7, 8}}, batches)
	require.Equal(t, int32(1), most.Load(), "one at a time")
	close(r.alone)
	var alone []int
	for n := range r.alone {
		alone = append(alone, n)
	}
	require.Equal(t, []int{0, 3, 4}, alone)
}

// The trace of each call of a batch has a span for it, linked to the one that the SQL is below.
func TestCoalescerTracesEveryCallOfABatch(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)).Tracer("test")
	var under trace.SpanContext
	r := newEnv(t, everyOne)
	r.calls.name = "batch"
	r.calls.batch = func(ctx context.Context, calls []int) ([]*earmark.Result, error) {
		under = trace.SpanContextFromContext(ctx)
		return everyOne(calls)
	}
	var callers []trace.SpanContext
	for n := 1; n <= 3; n++ {
		ctx, span := tracer.Start(t.Context(), "caller")
		callers = append(callers, span.SpanContext())
		r.ask(ctx, n)
		r.waits(n)
	}
	close(r.proceed)
	require.NoError(t, r.group.Wait())
	r.isFree()
	spans := map[trace.TraceID]sdktrace.ReadOnlySpan{}
	for _, span := range recorder.Ended() {
		require.Equal(t, "batch", span.Name())
		spans[span.SpanContext().TraceID()] = span
	}
	require.Len(t, spans, 3)
	for i, caller := range callers {
		span := spans[caller.TraceID()]
		require.Equal(t, caller.SpanID(), span.Parent().SpanID())
		if i == 0 {
			require.Equal(t, under.SpanID(), span.SpanContext().SpanID())
			continue
		}
		require.Len(t, span.Links(), 1)
		require.Equal(t, under.SpanID(), span.Links()[0].SpanContext.SpanID())
	}
}

func TestCoalescerMakesAloneWhatIsNotAnswered(t *testing.T) {
	r := newEnv(t, func(calls []int) ([]*earmark.Result, error) {
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
func TestCoalescerForgetsWhoLeaves(t *testing.T) {
	r := newEnv(t, everyOne)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := r.calls.do(ctx, "key", 7)
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

// A call that hangs does not hold its key up for ever.
func TestCoalescerPassesACallThatHangs(t *testing.T) {
	r := newEnv(t, everyOne)
	r.ask(t.Context(), 1)
	require.Equal(t, 1, <-r.alone)
	close(r.proceed)
	require.NoError(t, r.group.Wait())
	r.isFree()
}

func TestRecentIsBounded(t *testing.T) {
	t.Parallel()
	var r recent[hold]
	for n := range 3 * maxRecent {
		r.add(fmt.Sprint(n), hold{batchKey: "key"})
	}
	require.LessOrEqual(t, len(r.young)+len(r.old), 2*maxRecent)
	_, found := r.take(fmt.Sprint(3*maxRecent - 1))
	require.True(t, found)
	_, found = r.take(fmt.Sprint(3*maxRecent - 1))
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
