package postgres

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/earmark-dev/earmark"
)

const (
	// mostTogether bounds the calls that go as one. It keeps the locks of a batch, which
	// others wait for, well below the ledger's lock_timeout.
	mostTogether = 32
	// togetherLimit bounds a batch, which depends on no caller's patience.
	togetherLimit = 1500 * time.Millisecond
)

// lanes sends calls on the same budget as one. A lane has one call under way: it goes
// at once when it is alone, and those that come meanwhile go together when it has
// ended. They would wait for one another's locks anyway, each for a commit on disk and
// a round trip; together they wait once.
type lanes[C any] struct {
	alone func(context.Context, C) (earmark.Result, error)
	// together answers each call in turn; nil for one that is to be made alone.
	together func(context.Context, []C) ([]*earmark.Result, error)

	mu      sync.Mutex
	waiting map[string][]*queued[C] // by lane; a lane is here while it has a call under way
}

type queued[C any] struct {
	ctx    context.Context //nolint:containedctx // of the caller, who may leave before its turn
	call   C
	answer chan answer
}

type answer struct {
	result earmark.Result
	err    error
}

// do makes the call, and returns when it is answered or ctx is done. In that case the
// outcome is not known, as with any call.
func (l *lanes[C]) do(ctx context.Context, lane string, call C) (earmark.Result, error) {
	l.mu.Lock()
	if l.waiting == nil {
		l.waiting = make(map[string][]*queued[C])
	}
	before, busy := l.waiting[lane]
	if !busy {
		l.waiting[lane] = nil
		l.mu.Unlock()
		defer l.occupy(lane)()
		return l.alone(ctx, call)
	}
	q := &queued[C]{ctx: ctx, call: call, answer: make(chan answer, 1)}
	l.waiting[lane] = append(before, q)
	l.mu.Unlock()
	select {
	case a := <-q.answer:
		return a.result, a.err
	case <-ctx.Done():
		return earmark.Result{}, fault(ctx.Err())
	}
}

// occupy returns what ends the use of a lane. A call that hangs, on a broken connection
// say, holds others up no longer than a batch may take.
func (l *lanes[C]) occupy(lane string) (leave func()) {
	next := sync.OnceFunc(func() { l.next(lane) })
	hangs := time.AfterFunc(togetherLimit, next)
	return func() {
		hangs.Stop()
		next()
	}
}

// next sends those that have been waiting, or leaves the lane free.
func (l *lanes[C]) next(lane string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := slices.DeleteFunc(l.waiting[lane], func(q *queued[C]) bool { return q.ctx.Err() != nil })
	if len(waiting) == 0 {
		delete(l.waiting, lane)
		return
	}
	now := min(len(waiting), mostTogether)
	l.waiting[lane] = slices.Clone(waiting[now:])
	go func() {
		defer l.occupy(lane)()
		l.send(waiting[:now])
	}()
}

// send answers every one of the calls. Where one spoils it for all, as an overflow
// does, or where the batch's outcome is not known, each is made alone: what has landed
// already answers "same" then (R5).
func (l *lanes[C]) send(batch []*queued[C]) {
	results := make([]*earmark.Result, len(batch))
	if len(batch) > 1 {
		calls := make([]C, len(batch))
		for i, q := range batch {
			calls[i] = q.call
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(batch[0].ctx), togetherLimit)
		defer cancel()
		if all, err := l.together(ctx, calls); err == nil && len(all) == len(batch) {
			results = all
		}
	}
	var rest sync.WaitGroup
	for i, q := range batch {
		if results[i] != nil {
			q.answer <- answer{result: *results[i]}
			continue
		}
		rest.Go(func() {
			result, err := l.alone(q.ctx, q.call)
			q.answer <- answer{result, err}
		})
	}
	rest.Wait()
}
