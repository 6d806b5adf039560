package activities

import (
	"slices"
	"sync"

	"github.com/earmark-dev/earmark"
)

// Admissions hands the decision on an admission from the activity that made it
// to whoever waits for it in the same process, and the results of settlements
// likewise (settling.go). The other way round, an activity finds here what was asked
// of the ledger ahead of it (ahead.go). The zero value is ready; a nil one has nobody
// waiting.
type Admissions struct {
	mu       sync.Mutex
	waiting  map[string][]*waiter // by reservation id: several attempts may wait for one
	ahead    map[attempt]*Ahead
	settling map[settling][]chan earmark.Result
}

type waiter struct {
	requestHash string
	answer      chan earmark.Result
}

// Wait returns a channel that receives the latest decision on the admission, and
// a function that ends the wait. A yes can be acted on. A no is a hint: it stands
// when the workflow has closed with it, and until then a yes may follow.
func (a *Admissions) Wait(admission earmark.Admission) (answer <-chan earmark.Result, cancel func()) {
	w := &waiter{requestHash: admission.RequestHash, answer: make(chan earmark.Result, 1)}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting == nil {
		a.waiting = make(map[string][]*waiter)
	}
	a.waiting[admission.ID] = append(a.waiting[admission.ID], w)
	return w.answer, func() { a.remove(admission.ID, w) }
}

func (a *Admissions) remove(id string, w *waiter) {
	a.mu.Lock()
	defer a.mu.Unlock()
	left := slices.DeleteFunc(a.waiting[id], func(other *waiter) bool { return other == w })
	if len(left) == 0 {
		delete(a.waiting, id)
		return
	}
	a.waiting[id] = left
}

// announce tells all who wait for the id. Whoever waits with another request
// under the same id learns that, and not the decision on somebody else's.
func (a *Admissions) announce(admission earmark.Admission, result earmark.Result) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.waiting[admission.ID] {
		answer := result
		if w.requestHash != admission.RequestHash {
			answer = earmark.Result{Outcome: earmark.OutcomeMismatch}
		}
		select {
		case <-w.answer: // not heard yet, and out of date
		default:
		}
		w.answer <- answer // nobody else sends
	}
}
