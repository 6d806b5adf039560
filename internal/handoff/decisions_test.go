package handoff

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
)

func heard(t *testing.T, answer <-chan earmark.Result) earmark.Outcome {
	t.Helper()
	select {
	case result := <-answer:
		return result.Outcome
	default:
		return ""
	}
}

func TestDecisionReachesAllWaiters(t *testing.T) {
	t.Parallel()
	var x Exchange
	mine := earmark.Admission{ID: "one", RequestHash: "h"}
	first, stopFirst := x.AwaitDecision(mine)
	second, stopSecond := x.AwaitDecision(mine)
	other, stopOther := x.AwaitDecision(earmark.Admission{ID: "two", RequestHash: "h"})
	differs, stopDiffers := x.AwaitDecision(earmark.Admission{ID: "one", RequestHash: "another"})

	x.DeliverDecision(mine, earmark.Result{Outcome: earmark.OutcomeApplied})
	require.Equal(t, earmark.OutcomeApplied, heard(t, first))
	require.Equal(t, earmark.OutcomeApplied, heard(t, second))
	require.Equal(t, earmark.OutcomeMismatch, heard(t, differs), "the decision on somebody else's request is not told")
	require.Empty(t, heard(t, other))

	for _, stop := range []func(){stopFirst, stopSecond, stopOther, stopDiffers} {
		require.NotEmpty(t, x.decisions)
		stop()
		stop() // twice does no harm
	}
	require.Empty(t, x.decisions, "nothing is left behind")
}

// A no is a hint; the yes of a second try is heard as well.
func TestDecisionYesAfterNo(t *testing.T) {
	t.Parallel()
	var x Exchange
	mine := earmark.Admission{ID: "one"}
	answer, stop := x.AwaitDecision(mine)
	defer stop()
	x.DeliverDecision(mine, earmark.Result{Outcome: earmark.OutcomeDenied})
	require.Equal(t, earmark.OutcomeDenied, heard(t, answer))
	x.DeliverDecision(mine, earmark.Result{Outcome: earmark.OutcomeApplied})
	require.Equal(t, earmark.OutcomeApplied, heard(t, answer))
}

// The yes is heard as well when nobody has listened to the no yet.
func TestDecisionLatestWins(t *testing.T) {
	t.Parallel()
	var x Exchange
	mine := earmark.Admission{ID: "one"}
	answer, stop := x.AwaitDecision(mine)
	defer stop()
	x.DeliverDecision(mine, earmark.Result{Outcome: earmark.OutcomeDenied})
	x.DeliverDecision(mine, earmark.Result{Outcome: earmark.OutcomeApplied})
	require.Equal(t, earmark.OutcomeApplied, heard(t, answer))
	require.Empty(t, heard(t, answer))
}

func TestDecisionWithoutWaiters(t *testing.T) {
	t.Parallel()
	var none *Exchange
	none.DeliverDecision(earmark.Admission{ID: "one"}, earmark.Result{})
	var x Exchange
	x.DeliverDecision(earmark.Admission{ID: "one"}, earmark.Result{})
	require.Empty(t, x.decisions)
	answer, stop := x.AwaitDecision(earmark.Admission{ID: "one"})
	stop()
	x.DeliverDecision(earmark.Admission{ID: "one"}, earmark.Result{Outcome: earmark.OutcomeApplied})
	require.Empty(t, heard(t, answer), "it has stopped waiting")
}

// For the race detector: waiting, ending the wait and announcing at once.
func TestDecisionsConcurrently(t *testing.T) {
	t.Parallel()
	var x Exchange
	var all errgroup.Group
	for i := range 16 {
		mine := earmark.Admission{ID: string(rune('a' + i%3))}
		all.Go(func() error {
			for range 200 {
				answer, stop := x.AwaitDecision(mine)
				x.DeliverDecision(mine, earmark.Result{Outcome: earmark.OutcomeApplied})
				result := <-answer
				stop()
				if result.Outcome != earmark.OutcomeApplied {
					return fmt.Errorf("heard %q", result.Outcome)
				}
			}
			return nil
		})
	}
	require.NoError(t, all.Wait())
	require.Empty(t, x.decisions)
}
