package activities

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

func TestAdmissionsTellAllWhoWait(t *testing.T) {
	t.Parallel()
	var a Admissions
	mine := earmark.Admission{ID: "one", RequestHash: "h"}
	first, stopFirst := a.Wait(mine)
	second, stopSecond := a.Wait(mine)
	other, stopOther := a.Wait(earmark.Admission{ID: "two", RequestHash: "h"})
	differs, stopDiffers := a.Wait(earmark.Admission{ID: "one", RequestHash: "another"})

	a.announce(mine, earmark.Result{Outcome: earmark.OutcomeApplied})
	require.Equal(t, earmark.OutcomeApplied, heard(t, first))
	require.Equal(t, earmark.OutcomeApplied, heard(t, second))
	require.Equal(t, earmark.OutcomeMismatch, heard(t, differs), "the decision on somebody else's request is not told")
	require.Empty(t, heard(t, other))

	for _, stop := range []func(){stopFirst, stopSecond, stopOther, stopDiffers} {
		require.NotEmpty(t, a.waiting)
		stop()
		stop() // twice does no harm
	}
	require.Empty(t, a.waiting, "nothing is left behind")
}

// A no is a hint; the yes of a second try is heard as well.
func TestAdmissionsTellAYesAfterANo(t *testing.T) {
	t.Parallel()
	var a Admissions
	mine := earmark.Admission{ID: "one"}
	answer, stop := a.Wait(mine)
	defer stop()
	a.announce(mine, earmark.Result{Outcome: earmark.OutcomeDenied})
	require.Equal(t, earmark.OutcomeDenied, heard(t, answer))
	a.announce(mine, earmark.Result{Outcome: earmark.OutcomeApplied})
	require.Equal(t, earmark.OutcomeApplied, heard(t, answer))
}

// The yes is heard as well when nobody has listened to the no yet.
func TestAdmissionsKeepTheLastAnswer(t *testing.T) {
	t.Parallel()
	var a Admissions
	mine := earmark.Admission{ID: "one"}
	answer, stop := a.Wait(mine)
	defer stop()
	a.announce(mine, earmark.Result{Outcome: earmark.OutcomeDenied})
	a.announce(mine, earmark.Result{Outcome: earmark.OutcomeApplied})
	require.Equal(t, earmark.OutcomeApplied, heard(t, answer))
	require.Empty(t, heard(t, answer))
}

func TestNobodyWaits(t *testing.T) {
	t.Parallel()
	var none *Admissions
	none.announce(earmark.Admission{ID: "one"}, earmark.Result{})
	var a Admissions
	a.announce(earmark.Admission{ID: "one"}, earmark.Result{})
	require.Empty(t, a.waiting)
	answer, stop := a.Wait(earmark.Admission{ID: "one"})
	stop()
	a.announce(earmark.Admission{ID: "one"}, earmark.Result{Outcome: earmark.OutcomeApplied})
	require.Empty(t, heard(t, answer), "it has stopped waiting")
}

// For the race detector: waiting, ending the wait and announcing at once.
func TestAdmissionsAtOnce(t *testing.T) {
	t.Parallel()
	var a Admissions
	var all errgroup.Group
	for i := range 16 {
		mine := earmark.Admission{ID: string(rune('a' + i%3))}
		all.Go(func() error {
			for range 200 {
				answer, stop := a.Wait(mine)
				a.announce(mine, earmark.Result{Outcome: earmark.OutcomeApplied})
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
	require.Empty(t, a.waiting)
}
