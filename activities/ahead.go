package activities

import (
	"context"
	"time"

	"github.com/earmark-dev/earmark"
)

const (
	// aheadLimit bounds a call that is made ahead of its workflow. It is above the
	// ledger's lock_timeout.
	aheadLimit = 1500 * time.Millisecond
	// aheadKept is how long the result of such a call is kept for its workflow. Later
	// the workflow asks the ledger itself: what it would hear is out of date.
	aheadKept = 2 * time.Second
)

// Ahead is a call of the ledger's reserve that is made while the workflow it belongs
// to starts, so that the two do not wait for one another.
type Ahead struct {
	done   chan struct{}
	result earmark.Result
	err    error
	forget *time.Timer
}

// Done is closed when the call has ended.
func (a *Ahead) Done() <-chan struct{} { return a.done }

// Result is what the call came to, once it is done.
func (a *Ahead) Result() (earmark.Result, error) { return a.result, a.err }

// attempt tells one call of reserve from others under the same id. A workflow has
// the admission that it was started with, so only its own call's result is for it.
type attempt struct {
	id, requestHash string
	admitBy         int64
}

func attemptOf(admission earmark.Admission) attempt {
	return attempt{admission.ID, admission.RequestHash, admission.AdmitBy.UnixNano()}
}

// ReserveAhead begins to reserve for a workflow that is about to start in this
// process. The workflow's own activity finds the call under way, and waits for its
// result; where it does not, as in another process, it calls the ledger again, which
// then answers "same" (R5). The call goes on when its caller leaves: the workflow may
// have started.
func (a *Admissions) ReserveAhead(ctx context.Context, reserve func(context.Context, earmark.Admission) (earmark.Result, error), admission earmark.Admission) *Ahead {
	key := attemptOf(admission)
	a.mu.Lock()
	defer a.mu.Unlock()
	if under, found := a.ahead[key]; found { // a second try at the same attempt
		return under
	}
	call := &Ahead{done: make(chan struct{})}
	call.forget = time.AfterFunc(aheadKept, func() { a.drop(key, call) })
	if a.ahead == nil {
		a.ahead = make(map[attempt]*Ahead)
	}
	a.ahead[key] = call
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), aheadLimit)
		defer cancel()
		defer close(call.done)
		call.result, call.err = reserve(ctx, admission)
	}()
	return call
}

func (a *Admissions) drop(key attempt, call *Ahead) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ahead[key] == call {
		delete(a.ahead, key)
	}
}

// takeAhead returns the result of the call that was made ahead for this admission.
// It is false when there is none, or when it failed: then the ledger is to be asked.
// A result is taken once, so that an activity that runs again hears what stands by
// then. An admission that a release came before is another one.
func (a *Admissions) takeAhead(ctx context.Context, admission earmark.Admission) (earmark.Result, bool) {
	if a == nil || admission.Released {
		return earmark.Result{}, false
	}
	key := attemptOf(admission)
	a.mu.Lock()
	call, found := a.ahead[key]
	delete(a.ahead, key)
	a.mu.Unlock()
	if !found {
		return earmark.Result{}, false
	}
	call.forget.Stop()
	select {
	case <-call.done:
		return call.result, call.err == nil
	case <-ctx.Done():
		return earmark.Result{}, false // and the ledger's call fails on the same context
	}
}
