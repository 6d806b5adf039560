package bench

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/earmark-dev/earmark/internal/ctxtime"
)

const (
	// overtime is how long what is under way at the end of a block may take.
	overtime = 3 * time.Minute
	// failurePause keeps a client that is refused from asking again at once.
	failurePause = 50 * time.Millisecond
	// maxInFlight bounds an open loop that the system does not keep up with.
	maxInFlight = 20_000
	// maxExamples of failures are kept.
	maxExamples = 3
	// maxLast lifecycles are seen to their end when a block is over: what was settled
	// before them has ended before them, or nearly so.
	maxLast = 32
)

var notANumber = math.NaN()

// way is one way to do the job: to admit a request, and to settle it.
type way struct {
	key   string
	title string
	on    *deployment // where its use of CPU and log is read; nil: nowhere
	// admit returns once the caller knows that its request is admitted. n is different
	// in every call.
	admit func(ctx context.Context, n int64) (id string, err error)
	// settle returns once the caller need not care any more.
	settle func(ctx context.Context, id string) error
	// drained reports whether everything that was settled is settled; nil when settle
	// waits for that itself.
	drained func(ctx context.Context) (bool, error)
	// workflowID names the workflow of an id; nil when there is none.
	workflowID func(id string) string
}

// block is what one way did without a break.
type block struct {
	done      int64
	failed    int64
	examples  []string // of failures
	last      []string // ids, the oldest first
	took      time.Duration
	admission []time.Duration // of those that were admitted, sorted
	settled   []time.Duration // from the settlement's call to its answer, sorted
	used      meter
	steady    float64 // lifecycles a second where it is not done / took
}

func (b *block) perSecond() float64 {
	if b.steady > 0 {
		return b.steady
	}
	return float64(b.done) / b.took.Seconds()
}

// each divides a sum by the lifecycles of the block.
func (b *block) each(sum float64) float64 { return sum / float64(b.done) }

func (b *block) quantileMS(q float64) float64 { return quantileMS(b.admission, q) }

// quantileMS is the q-quantile of sorted durations, in milliseconds.
func quantileMS(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return notANumber
	}
	return float64(sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]) / float64(time.Millisecond)
}

// serials distinguish calls, over all strategies and scenarios of this process.
var serials atomic.Int64

// tally collects what the clients of a block do.
type tally struct {
	mu sync.Mutex
	block
}

func (t *tally) add(id string, admission, settled time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.failed++
		if len(t.examples) < maxExamples {
			t.examples = append(t.examples, err.Error())
		}
		return
	}
	t.done++
	t.admission, t.settled = append(t.admission, admission), append(t.settled, settled)
	t.last = append(t.last, id)
	t.last = t.last[max(0, len(t.last)-maxLast):]
}

// lifecycle admits and settles. The latency of the admission counts from begun.
func (w *way) lifecycle(ctx context.Context, begun time.Time) (id string, admission, settled time.Duration, err error) {
	id, err = w.admit(ctx, serials.Add(1))
	answered := time.Now()
	if err == nil {
		err = w.settle(ctx, id)
	}
	return id, answered.Sub(begun), time.Since(answered), err
}

// closed runs clients that each do one lifecycle after the other, and waits until
// all of them have come to their end.
func (w *way) closed(ctx context.Context, clients int, duration time.Duration) (*block, error) {
	return w.measure(ctx, duration, func(ctx context.Context, t *tally) {
		var wait sync.WaitGroup
		deadline := time.Now().Add(duration)
		for range clients {
			wait.Go(func() {
				for time.Now().Before(deadline) && ctx.Err() == nil {
					id, admission, settled, err := w.lifecycle(ctx, time.Now())
					t.add(id, admission, settled, err)
					if err != nil {
						ctxtime.Sleep(ctx, failurePause)
					}
				}
			})
		}
		wait.Wait()
	})
}

// alone runs one client, whose next lifecycle begins when the one before has come to its
// end: nothing else is under way while a caller waits.
func (w *way) alone(ctx context.Context, duration time.Duration) (*block, error) {
	return w.measure(ctx, duration, func(ctx context.Context, t *tally) {
		for deadline := time.Now().Add(duration); time.Now().Before(deadline) && ctx.Err() == nil; {
			id, admission, settled, err := w.lifecycle(ctx, time.Now())
			if err == nil {
				err = w.drain(ctx, []string{id})
			}
			t.add(id, admission, settled, err)
		}
	})
}

// open begins lifecycles at a constant rate, whether or not the ones before have
// ended. Latency counts from the moment that a request was due, so that a system
// that falls behind does not hide it by holding up the load driver.
func (w *way) open(ctx context.Context, perSecond float64, duration time.Duration) (*block, error) {
	return w.measure(ctx, duration, func(ctx context.Context, t *tally) {
		var wait sync.WaitGroup
		slots := make(chan struct{}, maxInFlight)
		begun := time.Now()
		for i := range max(1, int64(perSecond*duration.Seconds())) {
			due := begun.Add(time.Duration(float64(i) / perSecond * float64(time.Second)))
			if !ctxtime.Sleep(ctx, time.Until(due)) {
				break
			}
			slots <- struct{}{}
			wait.Go(func() {
				id, admission, settled, err := w.lifecycle(ctx, due)
				t.add(id, admission, settled, err)
				<-slots
			})
		}
		wait.Wait()
	})
}

// measure runs a load and what it leaves behind, with the meters read around it.
func (w *way) measure(ctx context.Context, duration time.Duration, load func(context.Context, *tally)) (*block, error) {
	limited, cancel := context.WithTimeoutCause(ctx, duration+overtime, fmt.Errorf("%s did not end within %s", w.title, duration+overtime))
	defer cancel()
	before := w.read(limited)
	t := &tally{}
	begun := time.Now()
	load(limited, t)
	if err := w.drain(limited, t.last); err != nil {
		return nil, err
	}
	t.took = time.Since(begun)
	if limited.Err() != nil {
		return nil, context.Cause(limited)
	}
	t.used = w.read(limited).since(before)
	slices.Sort(t.admission)
	slices.Sort(t.settled)
	if t.done == 0 {
		return nil, fmt.Errorf("%s: not one lifecycle succeeded: %s", w.title, t.examples)
	}
	return &t.block, nil
}

// drain waits until what was settled has come to its end, also where whoever settled
// need not have waited: what is still to be done belongs to the block that caused it.
func (w *way) drain(ctx context.Context, last []string) error {
	for w.drained != nil {
		drained, err := w.drained(ctx)
		if err != nil {
			return err
		}
		if drained {
			break
		}
		if !ctxtime.Sleep(ctx, pollInterval) {
			return context.Cause(ctx)
		}
	}
	if w.workflowID == nil {
		return nil
	}
	for _, id := range last {
		if err := w.on.temporal.GetWorkflow(ctx, w.workflowID(id), "").Get(ctx, nil); err != nil {
			return fmt.Errorf("%s: the end of a workflow: %w", w.title, err)
		}
	}
	return nil
}

func (w *way) read(ctx context.Context) meter {
	if w.on == nil {
		return meter{}
	}
	return w.on.read(ctx)
}
