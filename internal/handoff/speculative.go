package handoff

import (
	"context"
	"time"

	"github.com/earmark-dev/earmark"
)

const (
	// speculationTimeout bounds a speculative call to the ledger. It is above the ledger's
	// lock_timeout.
	speculationTimeout = 1500 * time.Millisecond
	// speculationKept is how long the result waits for its workflow's activity. A later
	// activity calls the ledger itself, because the result would be out of date.
	speculationKept = 2 * time.Second
)

// Speculation is a reserve that the coordinator sends to the ledger while the workflow
// starts, so that neither waits for the other.
type Speculation struct {
	done   chan struct{}
	result earmark.Result
	err    error
	forget *time.Timer
}

// Done returns a channel that is closed when the call has ended.
func (s *Speculation) Done() <-chan struct{} { return s.done }

// Result returns the ledger's answer, once the call is done.
func (s *Speculation) Result() (earmark.Result, error) { return s.result, s.err }

// attempt identifies one call of reserve among others under the same id. A workflow gets
// only the result of the call that started it.
type attempt struct {
	id, requestHash string
	admitBy         int64
}

func attemptOf(admission earmark.Admission) attempt {
	return attempt{admission.ID, admission.RequestHash, admission.AdmitBy.UnixNano()}
}

// Speculate begins to reserve for a workflow that is about to start in this process. The
// workflow's activity gets the result through TakeSpeculation. An activity in another
// process calls the ledger again, and gets "same" (R5). The call continues after its caller
// has left, because the workflow may have started.
func (x *Exchange) Speculate(ctx context.Context, reserve func(context.Context, earmark.Admission) (earmark.Result, error), admission earmark.Admission) *Speculation {
	key := attemptOf(admission)
	x.mu.Lock()
	defer x.mu.Unlock()
	if running, found := x.speculations[key]; found { // a second try of the same attempt
		return running
	}
	s := &Speculation{done: make(chan struct{})}
	s.forget = time.AfterFunc(speculationKept, func() { x.drop(key, s) })
	if x.speculations == nil {
		x.speculations = make(map[attempt]*Speculation)
	}
	x.speculations[key] = s
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), speculationTimeout)
		defer cancel()
		defer close(s.done)
		s.result, s.err = reserve(ctx, admission)
	}()
	return s
}

func (x *Exchange) drop(key attempt, s *Speculation) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.speculations[key] == s {
		delete(x.speculations, key)
	}
}

// TakeSpeculation waits for the speculative call of this admission and returns its result.
// It returns false if there is no such call or the call failed; the activity then calls the
// ledger. It returns a result only once, so that an activity that runs again gets the
// current state. An admission that a release has preceded counts as another one.
func (x *Exchange) TakeSpeculation(ctx context.Context, admission earmark.Admission) (earmark.Result, bool) {
	if x == nil || admission.Released {
		return earmark.Result{}, false
	}
	key := attemptOf(admission)
	x.mu.Lock()
	s, found := x.speculations[key]
	delete(x.speculations, key)
	x.mu.Unlock()
	if !found {
		return earmark.Result{}, false
	}
	s.forget.Stop()
	select {
	case <-s.done:
		return s.result, s.err == nil
	case <-ctx.Done():
		return earmark.Result{}, false // the ledger's call fails on the same context
	}
}
