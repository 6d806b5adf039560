package workflows_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/model"
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

	mu     sync.Mutex
	model  *model.Ledger
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
	l.lose()
	return l
}

// lose forgets all reservations, as after the restore of an old backup.
func (l *fakeLedger) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.model = model.New(l.clock)
	_, err := l.model.CreateBudget(context.Background(), testTenant, l.budget)
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
	for _, w := range l.model.Windows() {
		reserved += w.Reserved
		committed += w.Committed
	}
	return [2]int64{reserved, committed}
}

func (l *fakeLedger) row(id string) *earmark.Reservation {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, err := l.model.Reservation(context.Background(), testTenant, id)
	require.NoError(l.t, err)
	return r
}

// past applies a transition behind the workflow's back, outside of the journal.
func (l *fakeLedger) past(f func(m *model.Ledger) (earmark.Result, error)) earmark.Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	result, err := f(l.model)
	require.NoError(l.t, err)
	return result
}

func (l *fakeLedger) do(ctx context.Context, verb string, f func() (earmark.Result, error)) (earmark.Result, error) {
	l.mu.Lock()
	l.calls = append(l.calls, verb)
	nth := 0
	for _, call := range l.calls {
		if call == verb {
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
	return f()
}

func (l *fakeLedger) settle(ctx context.Context, verb string, s earmark.Transition, f func() (earmark.Result, error)) (earmark.Result, error) {
	return l.do(ctx, verb, func() (earmark.Result, error) {
		l.reasons[verb] = s.Reason
		return f()
	})
}

func (l *fakeLedger) Reserve(ctx context.Context, a earmark.Admission) (earmark.Result, error) {
	return l.do(ctx, "reserve", func() (earmark.Result, error) {
		l.admissions = append(l.admissions, a)
		return l.model.Reserve(ctx, a)
	})
}

func (l *fakeLedger) Commit(ctx context.Context, s earmark.Transition, usage earmark.Amounts) (earmark.Result, error) {
	return l.settle(ctx, "commit", s, func() (earmark.Result, error) { return l.model.Commit(ctx, s, usage) })
}

func (l *fakeLedger) Release(ctx context.Context, s earmark.Transition) (earmark.Result, error) {
	return l.settle(ctx, "release", s, func() (earmark.Result, error) { return l.model.Release(ctx, s) })
}

func (l *fakeLedger) GiveBack(ctx context.Context, s earmark.Transition) (earmark.Result, error) {
	return l.settle(ctx, "give back", s, func() (earmark.Result, error) { return l.model.GiveBack(ctx, s) })
}

func (l *fakeLedger) Expire(ctx context.Context, s earmark.Transition) (earmark.Result, error) {
	return l.settle(ctx, "expire", s, func() (earmark.Result, error) { return l.model.Expire(ctx, s) })
}

func (l *fakeLedger) Extend(ctx context.Context, s earmark.Transition, ttl time.Duration) (earmark.Result, error) {
	return l.settle(ctx, "extend", s, func() (earmark.Result, error) { return l.model.Extend(ctx, s, ttl) })
}

func (l *fakeLedger) Charge(ctx context.Context, c earmark.Charge) (earmark.Result, error) {
	return l.do(ctx, "charge", func() (earmark.Result, error) {
		l.charges = append(l.charges, c)
		return l.model.Charge(ctx, c)
	})
}

func (l *fakeLedger) Inspect(ctx context.Context, tenant, id string) (earmark.Result, error) {
	return l.do(ctx, "inspect", func() (earmark.Result, error) { return l.model.Inspect(ctx, tenant, id) })
}
