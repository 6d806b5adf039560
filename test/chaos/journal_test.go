//go:build unix

package chaos_test

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/earmark-dev/earmark"
)

// outcome is what the driver knows of a call.
type outcome string

const (
	done     outcome = "done"     // 200 or 201: it has taken effect
	accepted outcome = "accepted" // 202, or a signal that Temporal took: it will
	refused  outcome = "refused"  // an answer, and nothing was done
	unknown  outcome = "unknown"  // no answer, or 503
	bug      outcome = "bug"      // 500: never
)

// attempt is one call and its answer.
type attempt struct {
	Verb     string                      `json:"verb"`
	Server   int                         `json:"server"`
	Usage    earmark.Amounts             `json:"usage,omitempty"`
	Sent     time.Time                   `json:"sent"`
	Answered time.Time                   `json:"answered"`
	Outcome  outcome                     `json:"outcome"`
	Code     earmark.Code                `json:"code,omitempty"`
	State    earmark.State               `json:"state,omitempty"` // that the answer shows
	Budgets  []earmark.ReservationBudget `json:"-"`               // that the answer shows
	Error    string                      `json:"error,omitempty"`
}

// Verbs of attempts.
const (
	verbReserve = "reserve"
	verbCommit  = "commit"
	verbSignal  = "signal" // a commit by Temporal's own client
	verbRelease = "release"
	verbExtend  = "extend"
	verbCharge  = "charge" // POST /v1/usage
	verbCorrect = "correct"
)

// life is the journal of one request, from its first call to its last.
type life struct {
	Number  int                        `json:"number"`
	Tenant  string                     `json:"tenant"`
	Script  string                     `json:"script"`
	Key     string                     `json:"key"`
	ID      string                     `json:"id"`
	Request earmark.ReservationRequest `json:"request"`
	// Mortal means that its caller gives up at the first unknown outcome, as one that
	// dies does.
	Mortal bool `json:"mortal"`

	mu        sync.Mutex
	Attempts  []attempt  `json:"attempts"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"` // as the last answer said
}

func (l *life) note(a attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Attempts = append(l.Attempts, a)
}

// some reports whether there is an attempt at one of the verbs with one of the
// outcomes.
func (l *life) some(verbs []string, outcomes ...outcome) bool {
	return len(l.all(verbs, outcomes...)) > 0
}

func (l *life) all(verbs []string, outcomes ...outcome) []attempt {
	var found []attempt
	for _, a := range l.Attempts {
		if contains(verbs, a.Verb) && contains(outcomes, a.Outcome) {
			found = append(found, a)
		}
	}
	return found
}

func contains[T comparable](list []T, value T) bool {
	for _, v := range list {
		if v == value {
			return true
		}
	}
	return false
}

// admitted reports whether an answer said that the reservation exists.
func (l *life) admitted() bool {
	for _, a := range l.Attempts {
		if a.Verb == verbReserve && (a.Outcome == done || a.Code == earmark.CodeReservationExpired || a.Code == earmark.CodeAlreadySettled) {
			return true
		}
	}
	return false
}

func (l *life) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text, err := json.Marshal(l)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
