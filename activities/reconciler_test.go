package activities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/testsuite"

	"github.com/earmark-dev/earmark"
)

// env is a ledger with reservations to look for and a Temporal with workflows.
type env struct {
	checks   []earmark.Check
	statuses map[string]enumspb.WorkflowExecutionStatus // by workflow id; none is not found
	faults   map[string]error                           // by call: claim, status, refresh, adopt, mark

	claims  int
	marks   []string
	nudged  []string
	resumed []string // unpaused
	paused  []string // reservation ids, as visibility has them
	due     []string // marked for they are paused
	adopted []string
	entries []string // of adoptions
	settled bool     // before the reconciler can adopt

	listed  map[string]bool // by workflow id, as visibility has them
	lists   int
	guarded []string

	endings   map[string]Snapshot // by workflow id
	commits   []string
	committed earmark.Outcome // of every commit; none is not to be committed

	unsummed []int64 // entries that the calls of RollUpUsage add, one call each
	rollUps  int
}

func (w *env) RollUpUsage(context.Context) (moved int64, err error) {
	w.rollUps++
	if err := w.faults["roll up"]; err != nil {
		return 0, err
	}
	if len(w.unsummed) > 0 {
		moved, w.unsummed = w.unsummed[0], w.unsummed[1:]
	}
	return moved, nil
}

func (w *env) ClaimChecks(_ context.Context, leastAge time.Duration, limit int) ([]earmark.Check, error) {
	w.claims++
	if leastAge != time.Minute {
		return nil, fmt.Errorf("the least age is %s", leastAge)
	}
	if err := w.faults["claim"]; err != nil {
		return nil, err
	}
	n := min(limit, len(w.checks))
	claimed := w.checks[:n]
	w.checks = w.checks[n:]
	return claimed, nil
}

func (w *env) MarkChecked(_ context.Context, tenant, id string, orphan, refreshed bool) error {
	w.marks = append(w.marks, fmt.Sprintf("%s/%s orphan=%t refreshed=%t", tenant, id, orphan, refreshed))
	return w.faults["mark"]
}

func (w *env) MarkGuarded(_ context.Context, ids []string) error {
	w.guarded = append(w.guarded, ids...)
	return w.faults["mark"]
}

func (w *env) Open(_ context.Context, workflowIDs []string) (map[string]bool, error) {
	w.lists++
	open := map[string]bool{}
	for _, id := range workflowIDs {
		if w.listed[id] {
			open[id] = true
		}
	}
	return open, w.faults["list"]
}

// The ledger's and the workflow store's Adopt have one name, so the ledger is a type of its own.
type worldLedger struct{ *env }

func (w worldLedger) Adopt(_ context.Context, s earmark.Transition) (earmark.Result, error) {
	if w.settled {
		return earmark.Result{Outcome: earmark.OutcomeConflict}, w.faults["entry"]
	}
	w.entries = append(w.entries, fmt.Sprintf("%s/%s by the %s: %s", s.Tenant, s.ID, s.Actor, s.Reason))
	return earmark.Result{Outcome: earmark.OutcomeApplied}, w.faults["entry"]
}

func (w *env) Commit(_ context.Context, s earmark.Transition, usage earmark.Amounts) (earmark.Result, error) {
	estimated := ""
	if s.Estimated {
		estimated = " estimated"
	}
	w.commits = append(w.commits, fmt.Sprintf("%s/%s %s%s by the %s: %s", s.Tenant, s.ID, usage, estimated, s.Actor, s.Reason))
	return earmark.Result{Outcome: w.committed}, w.faults["commit"]
}

func (w *env) Result(_ context.Context, workflowID string) (Snapshot, error) {
	return w.endings[workflowID], w.faults["result"]
}

func (w *env) Status(_ context.Context, workflowID string) (enumspb.WorkflowExecutionStatus, error) {
	if err := w.faults["status"]; err != nil {
		return 0, err
	}
	status, ok := w.statuses[workflowID]
	if !ok {
		return 0, fmt.Errorf("describe: %w", serviceerror.NewNotFound("gone"))
	}
	return status, nil
}

func (w *env) Refresh(_ context.Context, workflowID string) error {
	w.nudged = append(w.nudged, workflowID)
	return w.faults["refresh"]
}

func (w *env) Paused(context.Context) ([]string, error) { return w.paused, w.faults["paused"] }

func (w *env) MarkPaused(_ context.Context, ids []string) error {
	w.due = append(w.due, ids...)
	return w.faults["mark paused"]
}

func (w *env) Unpause(_ context.Context, _, workflowID, _ string) error {
	w.resumed = append(w.resumed, workflowID)
	return w.faults["unpause"]
}

func (w *env) Adopt(_ context.Context, check earmark.Check) error {
	w.adopted = append(w.adopted, check.ID)
	return w.faults["adopt"]
}

func (w *env) reconcile(t *testing.T) (ReconcileReport, error) {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	r := &Reconciler{Ledger: worldLedger{w}, Workflows: w, Logger: slog.New(slog.DiscardHandler)}
	env.RegisterActivity(r)
	var report ReconcileReport
	value, err := env.ExecuteActivity(r.Reconcile)
	if err != nil {
		return report, err
	}
	return report, value.Get(&report)
}

func check(id string, state earmark.State) earmark.Check {
	return earmark.Check{ID: id, Tenant: "acme", WorkflowID: "reservation-" + id, State: state}
}

const (
	running    = enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
	paused     = enumspb.WORKFLOW_EXECUTION_STATUS_PAUSED
	terminated = enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED
)

func TestReconcile(t *testing.T) {
	t.Parallel()
	newer := enumspb.WorkflowExecutionStatus(99) // of a Temporal that is newer than this program
	for name, c := range map[string]struct {
		state  earmark.State
		status enumspb.WorkflowExecutionStatus // 0 for not found
		report ReconcileReport
		marks  []string
	}{
		"held and guarded":     {earmark.StateHeld, running, ReconcileReport{Checked: 1}, []string{"acme/a orphan=false refreshed=false"}},
		"review and guarded":   {earmark.StateReview, running, ReconcileReport{Checked: 1}, []string{"acme/a orphan=false refreshed=false"}},
		"held and paused":      {earmark.StateHeld, paused, ReconcileReport{Checked: 1}, []string{"acme/a orphan=false refreshed=false"}},
		"held, a newer status": {earmark.StateHeld, newer, ReconcileReport{Checked: 1}, []string{"acme/a orphan=false refreshed=false"}},
		"held and terminated":  {earmark.StateHeld, terminated, ReconcileReport{Checked: 1, Orphans: 1, Adopted: 1}, []string{"acme/a orphan=true refreshed=false", "acme/a orphan=false refreshed=false"}},
		"review and missing":   {earmark.StateReview, 0, ReconcileReport{Checked: 1, Orphans: 1, Adopted: 1}, []string{"acme/a orphan=true refreshed=false", "acme/a orphan=false refreshed=false"}},
		"settled and open":     {earmark.StateCommitted, running, ReconcileReport{Checked: 1, Refreshed: 1}, nil},
		"settled and paused":   {earmark.StateExpired, paused, ReconcileReport{Checked: 1, Refreshed: 1}, nil},
		"settled and closed":   {earmark.StateExpired, terminated, ReconcileReport{Checked: 1}, []string{"acme/a orphan=false refreshed=true"}},
		"settled and missing":  {earmark.StateReleased, 0, ReconcileReport{Checked: 1}, []string{"acme/a orphan=false refreshed=true"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &env{checks: []earmark.Check{check("a", c.state)}}
			if c.status != 0 {
				w.statuses = map[string]enumspb.WorkflowExecutionStatus{"reservation-a": c.status}
			}
			report, err := w.reconcile(t)
			require.NoError(t, err)
			require.Equal(t, c.report, report)
			require.Equal(t, c.marks, w.marks)
			require.Len(t, w.adopted, c.report.Adopted)
			require.Len(t, w.entries, c.report.Adopted)
			require.Len(t, w.nudged, c.report.Refreshed)
			require.Equal(t, name == "settled and paused", len(w.resumed) == 1, "a pause of what is open is left alone")
			require.Equal(t, 2, w.claims, "it asks until none is due")
		})
	}
}

// A settlement whose signal waits in a paused workflow is not due for a look, so paused workflows are looked for.
func TestReconcileLooksForPausedWorkflows(t *testing.T) {
	t.Parallel()
	w := &env{paused: []string{"a", "b"}}
	_, err := w.reconcile(t)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, w.due)

	w = &env{faults: map[string]error{"paused": errors.New("away")}}
	_, err = w.reconcile(t)
	require.NoError(t, err, "the rest of the run does not depend on it")
}

// R4: an adoption is in the journal before its workflow starts, with who and why.
func TestReconcileWritesAnAdoptionDown(t *testing.T) {
	t.Parallel()
	w := &env{checks: []earmark.Check{check("a", earmark.StateHeld)}}
	_, err := w.reconcile(t)
	require.NoError(t, err)
	require.Equal(t, []string{"acme/a by the reconciler: the reservation had no open workflow"}, w.entries)
	require.Equal(t, []string{"a"}, w.adopted)

	w = &env{checks: []earmark.Check{check("a", earmark.StateHeld)}, faults: map[string]error{"entry": errors.New("away")}}
	_, err = w.reconcile(t)
	require.ErrorContains(t, err, "away")
	require.Empty(t, w.adopted)

}

// Thousands of leases that end at once take longer than one look at them: workflows settle their reservations and end
// after the reconciler has claimed these as held. None of them is an orphan.
func TestReconcileTakesNoEndedWorkflowForAnOrphan(t *testing.T) {
	t.Parallel()
	w := &env{settled: true, statuses: map[string]enumspb.WorkflowExecutionStatus{}}
	const many = 20
	for n := range many {
		claimed := check(fmt.Sprint(n), earmark.StateHeld)
		w.checks = append(w.checks, claimed)
		w.statuses[claimed.WorkflowID] = enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED
	}
	report, err := w.reconcile(t)
	require.NoError(t, err)
	require.Equal(t, ReconcileReport{Checked: many}, report)
	require.Empty(t, w.adopted, "what is settled needs no workflow")
	require.Equal(t, fmt.Sprintf("acme/%d orphan=false refreshed=false", many-1), w.marks[len(w.marks)-1])
}

// After the restore of a backup the ledger has not what a closed workflow knows.
func TestReconcileRestores(t *testing.T) {
	t.Parallel()
	const completed = enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED
	at := time.Date(2024, 5, 6, 7, 8, 9, 123456000, time.UTC)
	spent := Snapshot{Outcome: earmark.OutcomeApplied, State: earmark.StateCommitted, Usage: earmark.Amounts{"tokens": 70}, CreatedAt: &at}
	alice := earmark.OperatorActor("alice")
	byOperator := spent
	byOperator.Actor, byOperator.Reason = &alice, "late"
	estimate := spent
	estimate.Estimated = true
	otherRow := spent
	otherRow.CreatedAt = new(at.Add(time.Microsecond))
	adopted := ReconcileReport{Checked: 1, Orphans: 1, Adopted: 1}
	restored := ReconcileReport{Checked: 1, Restored: 1}
	for name, c := range map[string]struct {
		state    earmark.State
		onExpiry earmark.OnExpiry
		status   enumspb.WorkflowExecutionStatus
		ending   Snapshot
		outcome  earmark.Outcome
		report   ReconcileReport
		commits  int
	}{
		"held again":                       {earmark.StateHeld, earmark.OnExpiryRelease, completed, spent, earmark.OutcomeApplied, restored, 1},
		"in review again":                  {earmark.StateReview, earmark.OnExpiryReview, completed, spent, earmark.OutcomeApplied, restored, 1},
		"held again, and swept":            {earmark.StateExpired, earmark.OnExpiryRelease, completed, spent, earmark.OutcomeApplied, restored, 1},
		"held again, and estimated":        {earmark.StateCommitted, earmark.OnExpiryCommit, completed, spent, earmark.OutcomeApplied, restored, 1},
		"committed as the workflow says":   {earmark.StateCommitted, earmark.OnExpiryCommit, completed, spent, earmark.OutcomeSame, ReconcileReport{Checked: 1}, 1},
		"committed, and never an estimate": {earmark.StateCommitted, earmark.OnExpiryRelease, completed, spent, "", ReconcileReport{Checked: 1}, 0},
		"released since":                   {earmark.StateReleased, earmark.OnExpiryRelease, completed, spent, "", ReconcileReport{Checked: 1}, 0},
		"another row under the id":         {earmark.StateHeld, earmark.OnExpiryRelease, completed, otherRow, "", adopted, 0},
		"nothing was spent":                {earmark.StateHeld, earmark.OnExpiryRelease, completed, Snapshot{State: earmark.StateReleased}, "", adopted, 0},
		"by an operator":                   {earmark.StateHeld, earmark.OnExpiryRelease, completed, byOperator, earmark.OutcomeApplied, restored, 1},
		"an estimate of the caller":        {earmark.StateHeld, earmark.OnExpiryRelease, completed, estimate, earmark.OutcomeApplied, restored, 1},
		"terminated":                       {earmark.StateHeld, earmark.OnExpiryRelease, terminated, spent, "", adopted, 0},
		"a policy refuses the overage":     {earmark.StateHeld, earmark.OnExpiryRelease, completed, spent, earmark.OutcomeOverageRejected, adopted, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claimed := check("a", c.state)
			claimed.CreatedAt, claimed.Request.OnExpiry = at, c.onExpiry
			w := &env{checks: []earmark.Check{claimed}, committed: c.outcome,
				statuses: map[string]enumspb.WorkflowExecutionStatus{claimed.WorkflowID: c.status}, endings: map[string]Snapshot{claimed.WorkflowID: c.ending}}
			report, err := w.reconcile(t)
			require.NoError(t, err)
			require.Equal(t, c.report, report)
			require.Len(t, w.commits, c.commits)
			if c.report.Restored > 0 {
				says := "acme/a 70 tokens by the workflow: restored from the workflow's result"
				if c.ending.Actor != nil { // R4: who, and why
					says = "acme/a 70 tokens by the operator:alice: late (restored from the workflow's result)"
				}
				if c.ending.Estimated { // the first real usage still corrects it
					says = "acme/a 70 tokens estimated by the workflow: restored from the workflow's result"
				}
				require.Equal(t, []string{says}, w.commits)
				require.Equal(t, []string{"acme/a orphan=false refreshed=true"}, w.marks)
				require.Empty(t, w.adopted)
			}
		})
	}
}

// A list shows that many reservations are guarded, and never that one is not:
// what it leaves out, and what its workflow should have ended, is looked for.
func TestReconcileLooksForWhatIsNotListed(t *testing.T) {
	t.Parallel()
	leased := func(id string, state earmark.State, lease time.Duration) earmark.Check {
		c := check(id, state)
		c.ExpiresAt = time.Now().Add(lease)
		return c
	}
	newEnv := func() *env {
		w := &env{listed: map[string]bool{}, statuses: map[string]enumspb.WorkflowExecutionStatus{}}
		for n := range 2 * describesPerSecond { // that many Describes would take two seconds
			c := leased(fmt.Sprint(n), earmark.StateHeld, time.Hour)
			w.checks, w.listed[c.WorkflowID] = append(w.checks, c), true
		}
		w.checks = append(w.checks, leased("lags", earmark.StateHeld, time.Hour), leased("lost", earmark.StateHeld, time.Hour),
			leased("overdue", earmark.StateHeld, -time.Second), leased("settled", earmark.StateCommitted, time.Hour))
		w.statuses["reservation-lags"] = running
		w.statuses["reservation-overdue"], w.listed["reservation-overdue"] = terminated, true // as the list has not heard
		return w
	}
	w := newEnv()
	begun := time.Now()
	report, err := w.reconcile(t)
	require.NoError(t, err)
	require.Less(t, time.Since(begun), time.Second)
	require.Equal(t, ReconcileReport{Checked: 2*describesPerSecond + 4, Orphans: 2, Adopted: 2}, report)
	require.Equal(t, []string{"lost", "overdue"}, w.adopted)
	require.Len(t, w.guarded, 2*describesPerSecond)
	require.Equal(t, 1, w.lists)

	w = newEnv()
	w.checks, w.faults = w.checks[2*describesPerSecond-1:], map[string]error{"list": serviceerror.NewUnavailable("away")}
	w.statuses["reservation-99"] = running
	report, err = w.reconcile(t)
	require.NoError(t, err, "visibility may be away when the rest of Temporal is not")
	require.Equal(t, 2, report.Adopted)
	require.Empty(t, w.guarded)
}

// Every status that Temporal knows is either open or closed on purpose.
func TestClosedStatuses(t *testing.T) {
	t.Parallel()
	open := map[string]bool{"Unspecified": true, "Running": true, "Paused": true}
	for number, name := range enumspb.WorkflowExecutionStatus_name {
		short := enumspb.WorkflowExecutionStatus(number).String()
		require.Equal(t, open[short], IsOpen(enumspb.WorkflowExecutionStatus(number)), name)
	}
}

// A fault is no finding: nothing is marked or started because Temporal is away.
func TestReconcileEndsWithAFault(t *testing.T) {
	t.Parallel()
	away := serviceerror.NewUnavailable("away")
	setup := func(call string, fault error, state earmark.State, status enumspb.WorkflowExecutionStatus) *env {
		w := &env{checks: []earmark.Check{check("a", state), check("b", state)}, faults: map[string]error{call: fault}}
		if status != 0 {
			w.statuses = map[string]enumspb.WorkflowExecutionStatus{"reservation-a": status, "reservation-b": status}
		}
		return w
	}
	w := setup("status", away, earmark.StateHeld, running)
	_, err := w.reconcile(t)
	require.ErrorContains(t, err, "away")
	require.Empty(t, w.marks)
	require.Empty(t, w.adopted)

	w = setup("adopt", away, earmark.StateHeld, 0)
	_, err = w.reconcile(t)
	require.ErrorContains(t, err, "away")
	require.Equal(t, []string{"acme/a orphan=true refreshed=false"}, w.marks, "it stays an orphan, in sight")

	w = setup("mark", away, earmark.StateHeld, 0)
	_, err = w.reconcile(t)
	require.ErrorContains(t, err, "away")
	require.Empty(t, w.adopted)

	w = setup("claim", errors.New("away"), earmark.StateHeld, running)
	_, err = w.reconcile(t)
	require.ErrorContains(t, err, "away")

	w = setup("refresh", away, earmark.StateCommitted, running)
	_, err = w.reconcile(t)
	require.ErrorContains(t, err, "away")

	for _, call := range []string{"result", "commit"} {
		at := time.Now()
		w = setup(call, away, earmark.StateHeld, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
		w.checks[0].CreatedAt = at
		w.endings = map[string]Snapshot{"reservation-a": {Usage: earmark.Amounts{"tokens": 70}, CreatedAt: &at}}
		_, err = w.reconcile(t)
		require.ErrorContains(t, err, "away", call)
		require.Empty(t, w.adopted, "%s: what is not known is looked at again", call)
	}

	w = setup("refresh", serviceerror.NewNotFound("closed since"), earmark.StateCommitted, running)
	report, err := w.reconcile(t)
	require.NoError(t, err)
	require.Equal(t, 2, report.Checked)
	require.Empty(t, w.marks, "the next look tells that it has closed")
}

// Temporal is asked no more than 50 times a second.
func TestReconcileIsSlow(t *testing.T) {
	t.Parallel()
	const checks = 31
	w := &env{}
	for range checks {
		w.checks = append(w.checks, check("a", earmark.StateCommitted))
	}
	begun := time.Now()
	report, err := w.reconcile(t)
	require.NoError(t, err)
	require.Equal(t, checks, report.Checked)
	require.GreaterOrEqual(t, time.Since(begun), (checks-1)*time.Second/describesPerSecond)
}

func TestReconcileStopsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := &env{checks: []earmark.Check{check("a", earmark.StateHeld)}}
	r := &Reconciler{Ledger: worldLedger{w}, Workflows: w, Logger: slog.New(slog.DiscardHandler)}
	_, err := r.Reconcile(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, w.marks)
}

// A first call only notes how far the journal is, and the second one adds up to there.
func TestReconcileRollsUsageUp(t *testing.T) {
	w := &env{unsummed: []int64{0, 20_000, 7, 0}}
	report, err := w.reconcile(t)
	require.NoError(t, err)
	require.Equal(t, ReconcileReport{RolledUp: 20_007}, report)
	require.Equal(t, 4, w.rollUps)

	failing := &env{faults: map[string]error{"roll up": errors.New("no room")}}
	_, err = failing.reconcile(t)
	require.NoError(t, err, "reports are right without the sums")
	require.Equal(t, 1, failing.rollUps)
	require.Equal(t, 1, failing.claims, "the run goes on")
}
