package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/fairqueue"
)

// How many calls of each kind use the ledger at once in this process. Each kind has a queue
// of its own, so that a flood of one kind does not delay the others. Together they leave
// connections of the pool (16 unless the database URL sets another number) to settlements,
// which no queue bounds, because Earmark never refuses a charge for lack of room.
const (
	maxPreflights = 6 // reads before an admission; internal/lifecycle bounds the admissions
	maxReads      = 3 // one budget or reservation, and decisions
	maxLists      = 3 // pages of budgets, reservations or entries, and the overview
	maxCharges    = 3 // usage without a reservation, and corrections
	maxChanges    = 2 // of budgets and keys
)

// maxQueueWait is how long a call may wait in its queue.
const maxQueueWait = time.Second

// queue bounds the calls of one kind. Those that wait are served in fair turns, see turn.
type queue struct {
	name   string
	size   int
	places *fairqueue.Queue
}

func newQueue(name string, size int) *queue {
	return &queue{name: name, size: size, places: fairqueue.New(size)}
}

// turn is whose turn a call is in a queue: of its tenant, and within it of the scope that it reserves on or
// charges first; of any other call, of its key.
func (w caller) turn(scopes ...string) fairqueue.Caller {
	turn := fairqueue.Caller{Tenant: w.tenant}
	switch {
	case len(scopes) > 0:
		turn.Scope = scopes[0]
	case w.key != nil:
		turn.Scope = w.key.ID
	}
	return turn
}

// queues are the queues of one server.
type queues struct {
	preflights, reads, lists, charges, changes *queue
}

func newQueues() queues {
	return queues{
		preflights: newQueue("admissions", maxPreflights),
		reads:      newQueue("reads", maxReads),
		lists:      newQueue("lists", maxLists),
		charges:    newQueue("charges", maxCharges),
		changes:    newQueue("changes", maxChanges),
	}
}

// inQueue runs call once the queue has a place. After maxQueueWait it returns
// CodeUnavailable, and call has not run. It holds the place only during call, not while a
// body arrives or an answer is sent.
func inQueue[T any](ctx context.Context, q *queue, turn fairqueue.Caller, call func() (T, error)) (result T, err error) {
	leave, err := q.enter(ctx, turn)
	if err != nil {
		return result, err
	}
	defer leave()
	return call()
}

func (q *queue) enter(ctx context.Context, turn fairqueue.Caller) (leave func(), err error) {
	waited, cancel := context.WithTimeout(ctx, maxQueueWait)
	defer cancel()
	leave, err = q.places.Enter(waited, turn)
	switch {
	case err == nil:
		return leave, nil
	case errors.Is(ctx.Err(), context.Canceled): // the caller left
		return nil, ctx.Err()
	}
	full := earmark.Errorf(earmark.CodeUnavailable, "%s", q.fullMessage())
	full.Queue = q.name
	full.RetryAfter = retryUnavailable
	return nil, full
}

func (q *queue) fullMessage() string {
	return fmt.Sprintf("the queue of %s is full: %d at once are served, and none of them ended in time; nothing was done", q.name, q.size)
}
