package postgres

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/earmark-dev/earmark"
)

const (
	// maxBatch bounds the calls of a batch, and so keeps the time of its locks well below
	// the ledger's lock_timeout.
	maxBatch = 32
	// batchTimeout bounds a batch, whose context is independent of its callers' contexts.
	batchTimeout = 1500 * time.Millisecond
	// maxSingles bounds the single calls that one batch makes at once.
	maxSingles = 4
	tracerName = "github.com/earmark-dev/earmark/internal/postgres"
)

// coalescer sends calls with the same key as a batch. One call or batch of a key runs at a
// time: a call without others starts at once, and the calls that arrive while it runs form
// the next batch. Without batches they would wait for each other's locks, each for a disk
// commit and a round trip; in a batch they wait once.
type coalescer[C any] struct {
	name   string // of a batch's span
	single func(context.Context, C) (earmark.Result, error)
	// batch returns the answers in the order of the calls; nil for a call that must be made
	// alone.
	batch func(context.Context, []C) ([]*earmark.Result, error)

	mu      sync.Mutex
	waiting map[string][]*queued[C] // by key; a key is here while a call or batch of it runs
}

type queued[C any] struct {
	ctx    context.Context //nolint:containedctx // of the caller, who may leave before its turn
	call   C
	answer chan answer // buffered: nobody reads the answer after the caller has left
}

type answer struct {
	result earmark.Result
	err    error
}

// do makes the call, and returns when it is answered or ctx is done. If ctx ends first, the
// outcome is unknown, as with any call.
func (c *coalescer[C]) do(ctx context.Context, key string, call C) (earmark.Result, error) {
	c.mu.Lock()
	if c.waiting == nil {
		c.waiting = make(map[string][]*queued[C])
	}
	before, busy := c.waiting[key]
	if !busy {
		c.waiting[key] = nil
		c.mu.Unlock()
		defer c.occupy(key)()
		return c.single(ctx, call)
	}
	q := &queued[C]{ctx: ctx, call: call, answer: make(chan answer, 1)}
	c.waiting[key] = append(before, q)
	c.mu.Unlock()
	select {
	case a := <-q.answer:
		return a.result, a.err
	case <-ctx.Done():
		return earmark.Result{}, fault(ctx.Err())
	}
}

// occupy returns a function that frees the key. A call that hangs, for example on a broken
// connection, delays others for at most batchTimeout.
func (c *coalescer[C]) occupy(key string) (leave func()) {
	next := sync.OnceFunc(func() { c.next(key) })
	hangs := time.AfterFunc(batchTimeout, next)
	return func() {
		hangs.Stop()
		next()
	}
}

// next sends the waiting calls, or frees the key.
func (c *coalescer[C]) next(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	waiting := present(c.waiting[key])
	if len(waiting) == 0 {
		delete(c.waiting, key)
		return
	}
	now := min(len(waiting), maxBatch)
	c.waiting[key] = slices.Clone(waiting[now:])
	go func() {
		defer c.occupy(key)()
		c.send(waiting[:now])
	}()
}

// present returns the calls whose callers have not left.
func present[C any](calls []*queued[C]) []*queued[C] {
	return slices.DeleteFunc(calls, func(q *queued[C]) bool { return q.ctx.Err() != nil })
}

// send answers every call. If one call breaks the batch, for example by an overflow, the
// whole batch fails, and its outcome may be unknown. send then sends it in halves, one
// after the other, so that the rows on which it failed do not get all of its calls at once
// (R6). A call that has already succeeded answers "same" (R5).
func (c *coalescer[C]) send(batch []*queued[C]) {
	if batch = present(batch); len(batch) == 0 {
		return
	}
	if len(batch) == 1 {
		c.sendSingle(batch[0])
		return
	}
	results, err := c.sendBatch(batch)
	if err != nil || len(results) != len(batch) {
		half := len(batch) / 2
		rest := slices.Clone(batch[half:])
		c.send(batch[:half])
		c.send(rest)
		return
	}
	var singles sync.WaitGroup
	slots := make(chan struct{}, maxSingles)
	for i, q := range batch {
		if results[i] != nil {
			q.answer <- answer{result: *results[i]}
			continue
		}
		singles.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			c.sendSingle(q)
		})
	}
	singles.Wait()
}

func (c *coalescer[C]) sendSingle(q *queued[C]) {
	result, err := c.single(q.ctx, q.call)
	q.answer <- answer{result, err}
}

// sendBatch makes the calls in one round trip. Each call's trace has a span for it: the SQL
// is below the span of the first call, and the other spans link to that one.
func (c *coalescer[C]) sendBatch(batch []*queued[C]) ([]*earmark.Result, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(batch[0].ctx), batchTimeout)
	defer cancel()
	ctx, span := startSpan(ctx, c.name)
	spans, calls := []trace.Span{span}, []C{batch[0].call}
	for _, q := range batch[1:] {
		_, linked := startSpan(q.ctx, c.name, trace.WithLinks(trace.LinkFromContext(ctx)))
		spans, calls = append(spans, linked), append(calls, q.call)
	}
	defer func() {
		for _, span := range spans {
			span.End()
		}
	}()
	return c.batch(ctx, calls)
}

// startSpan starts a span below that of ctx, and does nothing if ctx is not traced.
func startSpan(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	return trace.SpanFromContext(ctx).TracerProvider().Tracer(tracerName).Start(ctx, name, options...)
}
