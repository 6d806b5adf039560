package handoff

import "github.com/earmark-dev/earmark"

type decisionWaiter struct {
	requestHash string
	answer      chan earmark.Result
}

// AwaitDecision returns a channel that receives the latest decision on the admission, and a
// function that ends the wait. An admission is final. A denial is final only after the
// workflow has closed with it; until then an admission may follow.
func (x *Exchange) AwaitDecision(admission earmark.Admission) (answer <-chan earmark.Result, cancel func()) {
	if x == nil {
		return nil, func() {}
	}
	w := &decisionWaiter{requestHash: admission.RequestHash, answer: make(chan earmark.Result, 1)}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.decisions == nil {
		x.decisions = make(map[string][]*decisionWaiter)
	}
	x.decisions[admission.ID] = append(x.decisions[admission.ID], w)
	return w.answer, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		remove(x.decisions, admission.ID, w)
	}
}

// DeliverDecision sends the decision to every call that waits for the id. A call with
// another request under the same id gets OutcomeMismatch instead.
func (x *Exchange) DeliverDecision(admission earmark.Admission, result earmark.Result) {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, w := range x.decisions[admission.ID] {
		answer := result
		if w.requestHash != admission.RequestHash {
			answer = earmark.Result{Outcome: earmark.OutcomeMismatch}
		}
		select {
		case <-w.answer: // an earlier decision that nobody has received, now out of date
		default:
		}
		w.answer <- answer // no other goroutine sends
	}
}
