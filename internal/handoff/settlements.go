package handoff

import (
	"strconv"
	"strings"

	"github.com/earmark-dev/earmark"
)

// settlement identifies what is asked for: with usage a commit, without it a release.
type settlement struct{ id, usage string }

func settlementOf(t earmark.Transition, usage earmark.Amounts) settlement {
	var key strings.Builder
	for _, unit := range usage.Units() { // sorted
		key.WriteString(unit + "=" + strconv.FormatInt(usage[unit], 10) + ",")
	}
	return settlement{t.ID, key.String()}
}

type settlementWaiter struct {
	attempt string
	answer  chan earmark.Result
}

// AwaitSettlement returns a channel that receives the ledger's answer to a commit of
// this usage, or without usage to a release, and a function that ends the wait. What
// was applied for an equal settlement of another call is the answer to this one, too
// (R5); a refusal is the answer to its own attempt alone.
func (x *Exchange) AwaitSettlement(t earmark.Transition, usage earmark.Amounts) (answer <-chan earmark.Result, cancel func()) {
	if x == nil {
		return nil, func() {}
	}
	key, w := settlementOf(t, usage), &settlementWaiter{attempt: t.Attempt, answer: make(chan earmark.Result, 1)}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.settlements == nil {
		x.settlements = make(map[settlement][]*settlementWaiter)
	}
	x.settlements[key] = append(x.settlements[key], w)
	return w.answer, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		remove(x.settlements, key, w)
	}
}

// DeliverSettlement hands the ledger's answer to the calls that wait for it. The ledger
// records a refusal for one attempt only, so another attempt waits for its own answer:
// the ledger may still apply it. An answer without a reservation is not delivered,
// because the workflow still has to resolve it.
func (x *Exchange) DeliverSettlement(t earmark.Transition, usage earmark.Amounts, result earmark.Result) {
	if x == nil || result.Reservation == nil {
		return
	}
	applied := result.Outcome == earmark.OutcomeApplied || result.Outcome == earmark.OutcomeSame
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, w := range x.settlements[settlementOf(t, usage)] {
		if !applied && (t.Attempt == "" || w.attempt != t.Attempt) { // mutation: refusal-to-its-attempt
			continue
		}
		select {
		case w.answer <- result:
		default: // an earlier answer waits to be received, and stands
		}
	}
}
