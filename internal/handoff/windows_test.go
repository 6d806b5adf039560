package handoff

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
)

const long = time.Minute // no test waits for it

func settlementOf(id string) Settlement {
	return Settlement{Transition: earmark.Transition{ID: id, Reason: "of " + id}, Result: earmark.Result{Outcome: earmark.OutcomeApplied}}
}

// The task takes the settlement, whichever of the two comes first.
func TestWindowHandsTheSettlementOver(t *testing.T) {
	t.Parallel()
	var x Exchange
	require.True(t, x.OpenWindow("one", long))
	require.True(t, x.OpenWindow("two", long))
	var tasks errgroup.Group
	tasks.Go(func() error {
		s, found := x.AwaitSettlement(t.Context(), "one")
		require.True(t, found)
		require.Equal(t, settlementOf("one"), s)
		return nil
	})
	require.True(t, x.DeliverSettlement(t.Context(), settlementOf("one")))
	require.NoError(t, tasks.Wait())
	require.False(t, x.DeliverSettlement(t.Context(), settlementOf("one")), "the window is over with the first settlement")

	var senders errgroup.Group
	senders.Go(func() error {
		require.True(t, x.DeliverSettlement(t.Context(), settlementOf("two")))
		return nil
	})
	_, found := x.AwaitSettlement(t.Context(), "two")
	require.True(t, found)
	require.NoError(t, senders.Wait())
	require.Empty(t, x.windows, "nothing is left behind")
}

// Whatever ends the window ends the wait of both sides, and the sender learns that the workflow
// does not know.
func TestWindowEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*Exchange){
		"closed":         func(x *Exchange) { x.CloseWindow("one") },
		"all are closed": func(x *Exchange) { x.CloseWindows() },
		"by its length":  func(x *Exchange) { x.windows["one"].end.Reset(0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, side := range []func(*Exchange) bool{
				func(x *Exchange) bool { _, found := x.AwaitSettlement(t.Context(), "one"); return found },
				func(x *Exchange) bool { return x.DeliverSettlement(t.Context(), settlementOf("one")) },
			} {
				var x Exchange
				require.True(t, x.OpenWindow("one", long))
				waited := make(chan bool)
				go func() { waited <- side(&x) }()
				end(&x)
				require.False(t, <-waited)
				require.Nil(t, x.window("one"))
			}
		})
	}
}

// A window also ends with the task's own context; then the sender does not wait on.
func TestWindowOfATaskThatLeaves(t *testing.T) {
	t.Parallel()
	var x Exchange
	require.True(t, x.OpenWindow("one", long))
	left, leave := context.WithCancel(t.Context())
	leave()
	_, found := x.AwaitSettlement(left, "one")
	require.False(t, found)
	require.False(t, x.DeliverSettlement(t.Context(), settlementOf("one")))

	require.True(t, x.OpenWindow("one", long))
	require.False(t, x.DeliverSettlement(left, settlementOf("one")))
	require.NotNil(t, x.window("one"), "a sender that leaves ends nothing")
}

func TestWindowsAreBounded(t *testing.T) {
	t.Parallel()
	var x Exchange
	for i := range maxWindows {
		require.True(t, x.OpenWindow(strconv.Itoa(i), long))
	}
	require.False(t, x.OpenWindow("one more", long))
	require.False(t, x.OpenWindow("0", long), "one is open")
	x.CloseWindow("0")
	require.True(t, x.OpenWindow("one more", long))
	x.CloseWindows()
	require.Empty(t, x.windows)
	require.False(t, x.OpenWindow("after the end", long))
}

func TestWindowsOfNobody(t *testing.T) {
	t.Parallel()
	var none *Exchange
	var x Exchange
	require.False(t, x.OpenWindow("one", 0), "no length, no window")
	require.False(t, none.OpenWindow("one", long))
	for _, x := range []*Exchange{none, &x} {
		_, found := x.AwaitSettlement(t.Context(), "one")
		require.False(t, found)
		require.False(t, x.DeliverSettlement(t.Context(), settlementOf("one")))
		x.CloseWindow("one")
		x.CloseWindows()
	}
}

// For the race detector: a settlement is taken if and only if its sender hears so, at whatever
// moment the window ends.
func TestWindowsConcurrently(t *testing.T) {
	t.Parallel()
	var x Exchange
	var delivered, taken atomic.Int64
	var all errgroup.Group
	for i := range 200 {
		id := strconv.Itoa(i)
		require.True(t, x.OpenWindow(id, time.Duration(i%5)*time.Millisecond+1))
		all.Go(func() error {
			if _, found := x.AwaitSettlement(t.Context(), id); found {
				taken.Add(1)
			}
			return nil
		})
		all.Go(func() error {
			if x.DeliverSettlement(t.Context(), settlementOf(id)) {
				delivered.Add(1)
			}
			return nil
		})
	}
	require.NoError(t, all.Wait())
	require.Equal(t, delivered.Load(), taken.Load())
}
