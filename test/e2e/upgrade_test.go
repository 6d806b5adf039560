//go:build unix

package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

// A change of the order of events, as a later release may make it: the workflow tells
// the search attribute of the admission. It is built in here, with its guard and
// without.
var (
	guarded   = afterAdmission("\tif workflow.GetVersion(ctx, \"tell of the admission\", workflow.DefaultVersion, 1) >= 1 {\n\t\tr.index(ctx, \"held\")\n\t}\n")
	unguarded = afterAdmission("\tr.index(ctx, \"held\")\n")
)

func afterAdmission(change string) stack.Edit {
	const end = "\t\tr.arm(ctx) // mutation: order-of-events\n"
	return stack.Edit{File: "workflows/reservation.go", Old: end, New: end + change}
}

// history returns the events of a reservation's workflow.
func (b *env) history(id string) []*historypb.HistoryEvent {
	b.t.Helper()
	var events []*historypb.HistoryEvent
	iterator := b.Client().GetWorkflowHistory(b.t.Context(), "reservation-"+id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for iterator.HasNext() {
		event, err := iterator.Next()
		require.NoError(b.t, err)
		events = append(events, event)
	}
	return events
}

// ranOn reports whether a process completed a task of the reservation's workflow.
func (b *env) ranOn(id string, process *stack.Process) bool {
	b.t.Helper()
	for _, event := range b.history(id) {
		identity := event.GetWorkflowTaskCompletedEventAttributes().GetIdentity()
		if strings.HasPrefix(identity, fmt.Sprint(process.PID(), "@")) {
			return true
		}
	}
	return false
}

// failures counts the tasks of the reservation's workflow that failed for this cause.
func (b *env) failures(id string, cause enumspb.WorkflowTaskFailedCause) int {
	b.t.Helper()
	n := 0
	for _, event := range b.history(id) {
		if failed := event.GetWorkflowTaskFailedEventAttributes(); failed != nil && failed.GetCause() == cause {
			n++
		}
	}
	return n
}

const nonDeterministic = enumspb.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR

// An old worker and a new one on one task queue, as while an upgrade rolls over the
// machines: what began on the old one ends on the new one.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	later := stack.Variant(t, guarded)
	b := setup(t, stack.Options{}, "--without-worker")
	budget := b.budget("acme", "tokens", 10_000)
	older := b.Worker()
	committed, released, expiring := b.hold("committed", tokens("acme", 100, 300)), b.hold("released", tokens("acme", 100, 300)), b.hold("expiring", tokens("acme", 100, 15))

	b.Use(later)
	newer := b.Worker()
	newer.AwaitLog("Started Worker")
	var both []string
	stack.Eventually(t, 2*moment, "admissions by both", func() bool {
		both = append(both, b.hold(fmt.Sprint("both-", len(both)), tokens("acme", 10, 300)).ID)
		old, young := 0, 0
		for _, id := range both {
			stack.Eventually(t, moment, "a task", func() bool { return b.ranOn(id, older) || b.ranOn(id, newer) })
			if b.ranOn(id, older) {
				old++
			} else {
				young++
			}
		}
		return old > 1 && young > 1
	})
	for _, id := range both[:2] { // while both are there
		b.commit(id, 5).status(t, http.StatusOK)
	}
	older.Stop()

	b.signal(committed.ID, "commit", usage(70))
	b.signal(released.ID, "release", nil)
	for _, id := range both[2:] {
		b.commit(id, 5).status(t, http.StatusOK)
	}
	for _, id := range append(both, committed.ID, released.ID, expiring.ID) {
		stack.Eventually(t, 2*moment, "the workflow to close", func() bool {
			return b.describe(id).Status == enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED
		})
	}
	for _, held := range []earmark.Reservation{committed, released, expiring} {
		require.True(t, b.ranOn(held.ID, older) && b.ranOn(held.ID, newer), "it went over")
		require.Zero(t, b.failures(held.ID, nonDeterministic))
	}
	require.Equal(t, earmark.StateExpired, b.reservation(expiring.ID).State)
	b.requireBalance(budget, 0, 70+int64(len(both))*5)
}

// The other way there is no going: an old worker cannot go on with what a new one
// began. Nor can a new one whose change is not guarded. Nothing is lost by that: the
// ledger is settled past the workflow, which waits for a worker that knows it.
func TestWorkersThatDoNotKnowTheHistory(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change     stack.Edit
		begunByNew bool
	}{
		"rolled back":            {guarded, true},
		"a change without guard": {unguarded, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			knows, doesNot := stack.Binary(t), stack.Variant(t, c.change)
			b := setup(t, stack.Options{}, "--without-worker")
			budget := b.budget("acme", "tokens", 1000)
			if c.begunByNew {
				knows, doesNot = doesNot, knows
			}
			b.Use(knows)
			first := b.Worker()
			held := b.hold("one", tokens("acme", 100, 300))
			first.Stop()
			b.Use(doesNot)
			second := b.Worker()
			second.AwaitLog("Started Worker")

			x := b.commit(held.ID, 60).status(t, http.StatusOK)
			require.Less(t, x.took, 5*time.Second)
			b.requireBalance(budget, 0, 60)
			stack.Eventually(t, 2*moment, "a task to fail", func() bool { return b.failures(held.ID, nonDeterministic) > 0 })
			require.Equal(t, enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, b.describe(held.ID).Status)
			second.Stop()
			b.Use(knows)
			b.Worker()
			stack.Eventually(t, 2*moment, "the workflow to close", func() bool {
				return b.describe(held.ID).Status == enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED
			})
			b.requireBalance(budget, 0, 60)
		})
	}
}
