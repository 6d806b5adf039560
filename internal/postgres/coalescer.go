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
	// maxBatch bounds the calls of a batch. It keeps the locks of a batch, which others wait
	// for, well below the ledger's lock_timeout.
	maxBatch = 32
	// batchTimeout bounds a batch, whose context does not end with any caller's.
	batchTimeout = 1500 * time.Millisecond
	// maxSingles bounds the calls of a batch that are made alone at the same time.
	maxSingles = 4
	tracerName = "github.com/earmark-dev/earmark/internal/postgres"
)

// coalescer sends calls with the same key as a batch. One call or batch of a key runs at a
// time: a call alone starts at once, and the calls that arrive while it runs form the next
// batch. They would wait for each other's locks anyway, each for a commit on disk and a
// round trip; in a batch they wait once.
type coalescer[C any] struct {
	name   string // of a batch's span
	single func(context.Context, C) (earmark.Result, error)
	// batch answers each call in turn; nil for one that has to be made alone.
	batch func(context.Context, []C) ([]*earmark.Result, error)

	mu      sync.Mutex
	waiting map[string][]*queued[C] // by key; a key is here while a call or batch of it runs
}

type queued[C any] struct {
	ctx    context.Context //nolint:containedctx // of the caller, who may leave before its turn
	call   C
	answer chan answer // has room for the answer, which nobody reads once the caller has left
}

type answer struct {
	result earmark.Result
	err    error
}

// do makes the call, and returns when it is answered or ctx is done. In that case the
// outcome is not known, as with any call.
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

// occupy returns what ends the use of a key. A call that hangs, on a broken connection
// say, holds others up no longer than a batch may take.
func (c *coalescer[C]) occupy(key string) (leave func()) {
	next := sync.OnceFunc(func() { c.next(key) })
	hangs := time.AfterFunc(batchTimeout, next)
	return func() {
		hangs.Stop()
		next()
	}
}

// next sends the calls that have been waiting, or leaves the key free.
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

// present leaves out the calls whose callers have left.
func present[C any](calls []*queued[C]) []*queued[C] {
	return slices.DeleteFunc(calls, func(q *queued[C]) bool { return q.ctx.Err() != nil })
}

// send answers every one of the calls. A batch fails whole if one call spoils it, as an
// overflow does, and its outcome may be unknown. It is then sent in halves, one after the
// other, so that the rows that it failed on do not meet all of its calls at once (R6). A call
// that has landed already answers "same" (R5).
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

// sendBatch makes the calls in one round trip. Each call's trace has a span for it: the SQL is
// below the span of the first call, and the other spans link to that one.
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

// startSpan starts a span below the one of ctx, and does nothing where ctx is not traced.
func startSpan(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	return trace.SpanFromContext(ctx).TracerProvider().Tracer(tracerName).Start(ctx, name, options...)
}
