package workflows_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/ledgertest"
)

const (
	testTenant = "acme"
	testScope  = "acme/ml/u1"
	testUnit   = "tokens"
	testLimit  = 1000
)

var errAway = errors.New("Postgres is away")

// fakeLedger is the model of the ledger, safe for concurrent use. It keeps a
// journal of calls, and a test may stand in the way of each.
type fakeLedger struct {
	t     *testing.T
	clock func() time.Time

	ledgertest.Calls
	mu     sync.Mutex
	budget earmark.BudgetRequest
	calls  []string
	// before runs ahead of every call, without the lock, with the verb and how
	// often it was called; its error is the call's.
	before func(verb string, nth int) error
	// after runs when a call is done, before its answer is heard of.
	after func(verb string, nth int)

	admissions []earmark.Admission
	charges    []earmark.Charge
	reasons    map[string]string // of the last settlement, by verb
}

func newLedger(t *testing.T, clock func() time.Time) *fakeLedger {
	t.Helper()
	limit := int64(testLimit)
	l := &fakeLedger{t: t, clock: clock, reasons: map[string]string{},
		budget: earmark.BudgetRequest{Scope: testTenant, Unit: testUnit, Limit: &limit}.WithDefaults()}
	l.Do = l.do
	l.lose()
	return l
}

// lose forgets all reservations, as after the restore of an old backup.
func (l *fakeLedger) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Model = ledgertest.New(l.clock)
	_, err := l.Model.CreateBudget(context.Background(), testTenant, l.budget, earmark.ActorAPI)
	require.NoError(l.t, err)
}

// away makes every call fail whose verb is named, all verbs when none is.
func (l *fakeLedger) away(verbs ...string) {
	l.setBefore(func(verb string, _ int) error {
		for _, v := range verbs {
			if v == verb {
				return errAway
			}
		}
		if len(verbs) == 0 {
			return errAway
		}
		return nil
	})
}

func (l *fakeLedger) back() { l.setBefore(nil) }

func (l *fakeLedger) setBefore(before func(string, int) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.before = before
}

func (l *fakeLedger) journal() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string{}, l.calls...)
}

func (l *fakeLedger) count(verb string) int {
	n := 0
	for _, call := range l.journal() {
		if call == verb {
			n++
		}
	}
	return n
}

func (l *fakeLedger) admitted() []earmark.Admission {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]earmark.Admission{}, l.admissions...)
}

// balance is what the one budget has reserved and committed.
func (l *fakeLedger) balance() [2]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var reserved, committed int64
	for _, w := range l.Model.Windows() {
		reserved += w.Reserved
		committed += w.Committed
	}
	return [2]int64{reserved, committed}
}

func (l *fakeLedger) row(id string) *earmark.Reservation {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, err := l.Model.Reservation(context.Background(), testTenant, id)
	require.NoError(l.t, err)
	return r
}

// past applies a transition behind the workflow's back, outside of the journal.
func (l *fakeLedger) past(f func(m *ledgertest.Ledger) (earmark.Result, error)) earmark.Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	result, err := f(l.Model)
	require.NoError(l.t, err)
	return result
}

func (l *fakeLedger) do(ctx context.Context, call ledgertest.Call, apply func() (earmark.Result, error)) (earmark.Result, error) {
	verb := call.Verb
	l.mu.Lock()
	l.calls = append(l.calls, verb)
	nth := 0
	for _, c := range l.calls {
		if c == verb {
			nth++
		}
	}
	before := l.before
	l.mu.Unlock()
	if before != nil {
		if err := before(verb, nth); err != nil {
			return earmark.Result{}, err
		}
	}
	if err := ctx.Err(); err != nil {
		return earmark.Result{}, err
	}
	if l.after != nil {
		defer l.after(verb, nth)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch verb {
	case "reserve":
		l.admissions = append(l.admissions, call.Admission)
	case "charge":
		l.charges = append(l.charges, call.Charge)
	case "inspect":
	default:
		l.reasons[verb] = call.Transition.Reason
	}
	return apply()
}
