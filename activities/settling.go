package activities

import (
	"slices"

	"github.com/earmark-dev/earmark"
)

// settling names a settlement that is asked for: with usage a commit, without it a
// release.
type settling struct{ id, usage string }

func settlingBy(s earmark.Settlement, usage earmark.Amounts) settling {
	return settling{s.ID, usage.String()}
}

// WaitSettled returns a channel that receives what the ledger answered to a commit of
// this usage, or without usage to a release, and a function that ends the wait. An
// equal settlement that somebody else asked for is answered alike (R5). What found no
// reservation is not told: the workflow has more to do then. A nil Admissions tells
// nothing.
func (a *Admissions) WaitSettled(s earmark.Settlement, usage earmark.Amounts) (result <-chan earmark.Result, cancel func()) {
	if a == nil {
		return nil, func() {}
	}
	key, answer := settlingBy(s, usage), make(chan earmark.Result, 1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.settling == nil {
		a.settling = make(map[settling][]chan earmark.Result)
	}
	a.settling[key] = append(a.settling[key], answer)
	return answer, func() { a.endSettling(key, answer) }
}

func (a *Admissions) endSettling(key settling, answer chan earmark.Result) {
	a.mu.Lock()
	defer a.mu.Unlock()
	left := slices.DeleteFunc(a.settling[key], func(other chan earmark.Result) bool { return other == answer })
	if len(left) == 0 {
		delete(a.settling, key)
		return
	}
	a.settling[key] = left
}

// settled tells all who wait for this settlement. The first answer is theirs.
func (a *Admissions) settled(key settling, result earmark.Result) {
	if a == nil || result.Reservation == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, answer := range a.settling[key] {
		select {
		case answer <- result:
		default: // it has one, and has not listened yet
		}
	}
}
