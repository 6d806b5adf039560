//go:build unix

// Package mutations_test takes the mechanisms out that keep the guarantees, one at a
// time, and looks whether the named test fails. `make mutations` does that; `make
// test` only looks whether the table still fits the code and docs/guarantees.md.
package mutations_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/test/stack"
)

// mechanism is one of those that a guarantee rests on, how to take it out, and the
// test that has to fail then.
type mechanism struct {
	name string
	// file holds the text; "migrations" is the last migration that does.
	file, old, new string
	test           string // the package's path and the test's name
}

// and separates several places of one file.
const and = "…"

const (
	database = "internal/postgres "
	workflow = "workflows "
	whole    = "test/e2e "
)

var mechanisms = []mechanism{
	// The limit holds.
	{"the fit is decided under the locks of the budgets", "migrations",
		"        ORDER BY x.id FOR NO KEY UPDATE);", "        ORDER BY x.id);", database + "TestAdmissionSeesTheLimitOfAPatchUnderWay"},
	{"what does not fit is denied", "migrations",
		"    IF NOT v_fits THEN\n", "    IF false THEN\n",
		database + "TestBurstAdmitsExactlyWhatFits"},
	{"the database refuses an admission past its ceiling", "migrations",
		"CHECK (kind <> 'reserve' OR ceiling IS NULL OR reserved_after + committed_after <= ceiling)", "CHECK (true)",
		database + "TestDatabaseRefusesAnAdmissionPastItsCeiling"},
	{"all budgets change, or none", "migrations",
		"    FOREACH t IN ARRAY v_touched LOOP\n        PERFORM earmark.post_share('reserve'", "    FOREACH t IN ARRAY v_touched[1:1] LOOP\n        PERFORM earmark.post_share('reserve'",
		database + "TestSeveralBudgetsChangeTogetherOrNotAtAll"},
	{"sums beyond int64 are refused whole", "internal/postgres/ledger.go", "if sqlState(err) == numericValueOutOfRange {", "if sqlState(err) == \"\" && err != nil {", database + "TestInt64Extremes"},

	// The books add up.
	{"a balance changes with its entry", "migrations",
		"    ELSE\n        WITH changed AS (\n            UPDATE earmark.windows SET reserved = reserved + p_reserved_delta, committed = committed + p_committed_delta\n",
		"    ELSE\n        WITH changed AS (\n            UPDATE earmark.windows SET reserved = reserved + p_reserved_delta\n", database + "TestReserveCommitGivesTheRestBack"},
	{"entries are append-only", "migrations", "    END IF;\n    RAISE EXCEPTION 'entries are append-only: % is refused (R4)', TG_OP USING ERRCODE = 'restrict_violation';", "    END IF;\n    RETURN NULL;", database + "TestEntriesAreAppendOnly"},
	{"a reservation settles in its own window", "migrations",
		"PERFORM earmark.post_share('commit', r.tenant, r.id, s.budget_id, s.window_start, NULL,\n", "PERFORM earmark.post_share('commit', r.tenant, r.id, s.budget_id, (SELECT max(window_start) FROM earmark.windows WHERE budget_id = s.budget_id), NULL,\n",
		database + "TestReservationSettlesInItsOwnWindow"},
	{"the audit looks at the sums", "internal/postgres/sql/audit/03_sums.sql", "w.reserved <> coalesce(o.reserved, 0) OR w.reserved <> coalesce(e.reserved, 0) OR ", "", database + "TestAuditFindsWhatIsBroken"},

	// Once, however often it is asked.
	{"an id answers what stands", "migrations",
		"    ELSIF r.tenant = p_tenant AND r.request_hash = p_hash THEN", "    ELSIF false THEN", database + "TestSameKeyHoldsOnce"},
	{"the same id with another request is another's", "migrations",
		"    ELSIF r.tenant = p_tenant AND r.request_hash = p_hash THEN", "    ELSIF r.tenant = p_tenant THEN", database + "TestSameKeyWithAnotherBodyIsAMismatch"},
	{"a committed reservation is not charged again", "migrations",
		"    IF r.state = 'committed' AND NOT r.estimated THEN\n", "    IF false THEN\n", database + "TestSettledOnceByMany"},
	{"a transition that was applied is not applied again after a crash", "migrations",
		"    IF r.state = 'committed' AND NOT r.estimated THEN\n", "    IF false THEN\n", whole + "TestWorkerKilledAfterTheCommit"},
	{"settlements of a reservation take turns", "migrations",
		"    SELECT * INTO r FROM earmark.reservations WHERE id = p_id AND tenant = p_tenant FOR NO KEY UPDATE;", "    SELECT * INTO r FROM earmark.reservations WHERE id = p_id AND tenant = p_tenant;",
		database + "TestSettlementsOfAReservationTakeTurns"},
	{"what was refused to an attempt stays refused", "migrations",
		"    ELSIF p_attempt = ANY (r.refused_attempts) THEN", "    ELSIF false THEN", database + "TestRefusedAttemptStaysRefused"},
	{"tenants do not cross", "migrations",
		"WHERE id = p_id AND tenant = p_tenant FOR NO KEY UPDATE;", "WHERE id = p_id FOR NO KEY UPDATE;", database + "TestTenantsDoNotCross"},
	{"each statement sees what was committed before it", "migrations", "    IF current_setting('transaction_isolation') <> 'read committed' THEN", "    IF false THEN", database + "TestOnlyReadCommittedCallersAreServed"},

	// Lateness is by Postgres' clock.
	{"nothing is reserved past the caller's deadline", "migrations", "    IF clock_timestamp() > p_admit_by THEN", "    IF false THEN", database + "TestTooLateReservesNothing"},
	{"deadlines are counted from Postgres' clock", "api/guard.go", "admission.AdmitBy = admission.AdmitBy.Add(deadline)", "admission.AdmitBy = time.Now().Add(deadline)", whole + "TestClocksApart"},
	{"a release that came first wins", "migrations", "    IF p_released THEN", "    IF false THEN", database + "TestReleaseThatCameFirstWins"},
	{"overdue holds make way", "migrations", "earmark.expire_in_the_way(v_touched, p_actor) > 0", "0 > 0", database + "TestOverdueHoldsMakeWay"},
	{"the lease's timer is lazy", "workflows/settle.go",
		"ledger.Expire, r.settlement(\"the lease ran out\")))\n\tr.arm(ctx)", "ledger.Expire, r.settlement(\"the lease ran out\")))", workflow + "TestExtend"},

	// No usage is dropped.
	{"usage after an expiry is charged", "migrations", "    ELSIF r.state = 'released' THEN\n", "    ELSIF r.state IN ('released', 'expired') THEN\n", database + "TestGivenBackByAnOperatorStillChargesLateUsage"},
	{"a commit goes before a release", "workflows/messages.go",
		"first := max(0, slices.IndexFunc(i.messages, func(m *message) bool { return m.name == MessageCommit }))", "first := max(0, slices.IndexFunc(i.messages, func(m *message) bool { return m.name == MessageRelease }))",
		workflow + "TestCommitBeatsRelease"},
	{"what has arrived goes before the timer", "workflows/reservation.go", "case !r.inbox.empty():", "case !r.inbox.empty() && (r.lease == nil || !r.leaseOver()):", workflow + "TestCommitBeatsTheTimer"},
	{"signals are drained before the end", "workflows/reservation.go", "		r.inbox.collect()\n		r.show(ctx)" + and + "	r.inbox.collect()\n	return r.inbox.empty()",
		"		r.show(ctx)" + and + "	return true", workflow + "TestSignalsWithTheClosingEvent"},
	{"a settlement is tried without an end", "workflows/settle.go", "BackoffCoefficient: 2, MaximumInterval: patientMaxPause}", "BackoffCoefficient: 2, MaximumInterval: patientMaxPause, MaximumAttempts: 2}", workflow + "TestPatientSettlementHasNoLimits"},
	{"a settlement goes past a workflow that does not answer", "api/guard.go", "result, err = within(ctx, ledgerMoment, direct)", "err = errTooLate", whole + "TestCommitWithoutWorker"},
	{"without Postgres, Temporal keeps the message", "api/guard.go", "name, message); signalErr == nil {", "name, message); signalErr == nil && false {", whole + "TestPostgresAway"},
	{"usage of a lost row is charged by its workflow", "workflows/settle.go", "if answer.Outcome == earmark.OutcomeUnknown && (r.admitted", "if answer.Outcome == \"\" && (r.admitted", workflow + "TestCommitOfALostReservation"},
	{"usage of a restored row is charged from the result of its workflow", "activities/reconciler.go", "	case earmark.StateHeld, earmark.StateReview, earmark.StateExpired:\n		return true", "	case earmark.StateHeld, earmark.StateReview, earmark.StateExpired:\n		return false", whole + "TestRestoredBackup"},
	{"a later row under the same id is not meant", "activities/reconciler.go", "!ending.CreatedAt.Equal(check.CreatedAt)", "check.CreatedAt.IsZero()", "activities TestReconcileRestores"},

	// No hold stays.
	{"the sweeper runs in each worker process", "worker/worker.go", "group.Go(func() error { return w.sweeper.Run(ctx) })", "", whole + "TestLostWorkflowIsSwept"},
	{"the reconciler gives orphans a workflow", "activities/reconciler.go", "if err := r.Guardians.Adopt(ctx, check); err != nil {", "if err := ctx.Err(); err != nil {", whole + "TestLostWorkflowIsAdopted"},
	{"the reconciler tells workflows what was settled past them", "activities/reconciler.go", "if err := r.Guardians.Refresh(ctx, check.WorkflowID); err != nil && !errors.As(err, &notFound) {", "if err := ctx.Err(); err != nil {", whole + "TestTemporalAway"},
	{"who settles out of review has the workflow looked at", "migrations",
		"refresh_due = r.refresh_due OR r.state = 'review' OR (p_actor", "refresh_due = r.refresh_due OR (p_actor", database + "TestSettledOutOfReviewIsLookedAt"},
	{"the reconciler's schedule is made by the workers", "worker/worker.go", "group.Go(func() error { w.keepSchedule(ctx); return nil })", "", whole + "TestTemporalLosesItsData"},
	{"cancellation gives back", "workflows/reservation.go", "r.giveBack(ctx, r.settlement(\"the workflow was cancelled\"))", "return cancelled", workflow + "TestCancel"},
	{"what has begun is resolved although the workflow is cancelled", "workflows/settle.go", "	ctx = detached(ctx)\n	var answer activities.Standing\n	options := local", "	var answer activities.Standing\n	options := local", workflow + "TestCancel"},
	{"no time-out ends a workflow without its cleanup", "workflows/start.go", "		WorkflowTaskTimeout:      workflowTaskTimeout,", "		WorkflowTaskTimeout:      workflowTaskTimeout,\n		WorkflowRunTimeout: time.Hour,", workflow + "TestLifecycleIsEagerAndSmall"},
	{"a long history is begun anew", "workflows/reservation.go", "case workflow.GetInfo(ctx).GetContinueAsNewSuggested():", "case false:", workflow + "TestFloodOfSignals"},

	// Unknown is not success, and workflows outlive releases.
	{"a no is told when it is durable", "api/guard.go", "return result.Reservation != nil || result.Outcome == earmark.OutcomeMismatch", "return true", "api TestGuardDoesNotTellAHint"},
	{"a change of the order of events is noticed", "workflows/settle.go", "	r.born(r.admission)\n	r.arm(ctx)\n", "	r.born(r.admission)\n	r.arm(ctx)\n	r.index(ctx, \"held\")\n", workflow + "TestReplay"},
}

// edits are how the mechanism is taken out of the code as it is now.
func (m mechanism) edits(t *testing.T) []stack.Edit {
	t.Helper()
	var edits []stack.Edit
	news := strings.Split(m.new, and)
	for i, old := range strings.Split(m.old, and) {
		edits = append(edits, stack.Edit{File: m.where(t, old), Old: old, New: news[i]})
	}
	return edits
}

// where is the file that holds the text.
func (m mechanism) where(t *testing.T, text string) string {
	t.Helper()
	if m.file != "migrations" {
		return m.file
	}
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	files, err := filepath.Glob(filepath.Join(root, "migrations", "*.sql"))
	require.NoError(t, err)
	for _, file := range slices.Backward(files) {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		if strings.Contains(string(content), text) {
			return file
		}
	}
	require.Fail(t, "no migration holds this", "%s:\n%s", m.name, text)
	return ""
}

// guard is the test that notices: its package and its name.
func (m mechanism) guard() (dir, name string) {
	dir, name, _ = strings.Cut(m.test, " ")
	return dir, name
}

// The table fits the code: each mechanism is where it says, and the tests exist.
func TestMechanismsAreThere(t *testing.T) {
	t.Parallel()
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	for _, m := range mechanisms {
		stack.Overlay(t, m.edits(t)...)
		dir, name := m.guard()
		files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
		require.NoError(t, err)
		defined := regexp.MustCompile(`(?m)^func ` + name + `\(t \*testing\.T\) \{$`)
		require.True(t, slices.ContainsFunc(files, func(file string) bool {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			return defined.Match(text)
		}), "%s: there is no %s in %s", m.name, name, dir)
	}
}

// The document names each mechanism with its test, and no test that does not exist.
func TestMechanismsAreDocumented(t *testing.T) {
	t.Parallel()
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(root, "docs", "guarantees.md"))
	require.NoError(t, err)
	for _, m := range mechanisms {
		_, name := m.guard()
		require.Contains(t, string(text), fmt.Sprintf("| %s | `%s` |", m.name, name))
	}
}
