//go:build unix

// Package mutations_test takes the mechanisms out that keep the guarantees, one at a
// time, and looks whether the named test fails. `make mutations` does that; `make
// test` only looks whether the table still fits the code and docs/guarantees.md.
package mutations_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/stack"
)

// mechanism is one of those that a guarantee rests on, how to take it out, and the
// test that has to fail then.
type mechanism struct {
	name string
	// mark names the lines to change: each ends with the comment "mutation: <mark>", in Go or in SQL.
	mark string
	// becomes has, for each of these lines in their order, what it is without the mechanism.
	becomes []string
	test    string // the package's path and the test's name
}

const (
	database = "internal/postgres "
	workflow = "workflows "
	whole    = "test/e2e "
)

var mechanisms = []mechanism{
	// The limit holds.
	{"the fit is decided under the locks of the budgets", "budgets-locked", []string{"ORDER BY x.id);"}, database + "TestAdmissionSeesTheLimitOfAPatchUnderWay"},
	{"what does not fit is denied", "fit", []string{"IF false THEN"}, database + "TestBurstAdmitsExactlyWhatFits"},
	{"the database refuses an admission past its ceiling", "ceiling-check", []string{"CONSTRAINT entries_admission_check CHECK (true)"}, database + "TestDatabaseRefusesAnAdmissionPastItsCeiling"},
	{"all budgets change, or none", "all-budgets", []string{"FOREACH t IN ARRAY v_affected[1:1] LOOP"}, database + "TestSeveralBudgetsChangeTogetherOrNotAtAll"},
	{"a scope without a required budget of its own is refused", "own-budget", []string{"v_answer := earmark.check_coverage(p_tenant, p_scopes, earmark.units(p_amounts), v_affected, p_any_scope);"}, database + "TestRequiredBudget"},
	{"a decision counts the budgets that templates would make", "children-decided", []string{"SELECT x FROM earmark.missing_children('{}', v_paths) AS x) AS met"}, database + "TestTemplateGivesEachChildABudget"},
	{"a child takes over its template's changes under its lock", "follows-locked", []string{"NULL;"}, database + "TestChildrenFollowTheirTemplate"},
	{"first calls of a child make one budget", "child-once", []string{"INSERT INTO earmark.budgets SELECT b.*;"}, database + "TestFirstCallsOfAChildMakeOneBudget"},
	{"whoever waits for a child that is archived meets its successor", "child-kept", []string{"NULL;"}, database + "TestChildIsMadeAgainWhileItIsArchived"},
	{"a template's change waits for a child's next window where it says so", "next-window", []string{"IF true THEN"}, database + "TestTemplateChangeForTheNextWindow"},
	{"a change of a child by hand ends its following", "by-hand", []string{"NULL;"}, database + "TestChildrenFollowTheirTemplate"},
	{"the audit compares children with their templates", "audit-templates", []string{"SELECT false"}, database + "TestAuditFindsAChildThatDoesNotHaveItsTemplatesSettings"},
	{"a unit that a scope does not count is refused", "coverage", []string{"IF v_missing <> '{}' THEN"}, database + "TestUnitNotCountedOnAScopeIsRefused"},
	{"a batch commits only what is within the reserved amount", "batch-within-reserved", []string{"RETURN NEXT CASE WHEN c.id = ANY (v_ids) THEN"}, database + "TestCommitBatchLeavesOverageAlone"},
	{"sums beyond int64 are refused whole", "overflow", []string{`if sqlState(err) == "" && err != nil {`}, database + "TestInt64Extremes"},
	{"a commit whose sum is beyond int64 leaves an entry", "overflow-entry", []string{"return result, nil"}, database + "TestOverflowOfLateUsageIsWrittenDown"},

	// The books add up.
	{"a balance changes with its entry", "balance-with-entry", []string{"UPDATE earmark.windows SET reserved = reserved + p_reserved_delta"}, database + "TestReserveCommitGivesTheRestBack"},
	{"entries are append-only", "append-only", []string{"RETURN NULL;"}, database + "TestEntriesAreAppendOnly"},
	{"the audit log is append-only", "audit-append-only", []string{"RETURN NULL;"}, database + "TestAuditLogIsAppendOnly"},
	{"price versions are append-only", "prices-append-only", []string{"RETURN NULL;"}, database + "TestPriceVersionsAreKeptAsTheyWereAdded"},
	{"a reservation settles in its own window", "own-window", []string{"PERFORM earmark.post(p_kind => 'commit', p_tenant => r.tenant, p_reservation_id => r.id, p_budget_id => s.budget_id, p_window_start => (SELECT max(window_start) FROM earmark.windows WHERE budget_id = s.budget_id),"}, database + "TestReservationSettlesInItsOwnWindow"},
	{"a correction changes the window that was charged", "corrects-own-window", []string{"PERFORM earmark.post(p_kind => 'correction', p_tenant => r.tenant, p_reservation_id => r.id, p_budget_id => s.budget_id, p_window_start => (SELECT max(window_start) FROM earmark.windows WHERE budget_id = s.budget_id),"}, database + "TestCorrectionChangesTheWindowThatWasCharged"},
	{"corrections take no charge below 0", "corrected-from-zero", []string{"IF false THEN"}, database + "TestCorrectionNeverGoesBelowZero"},
	{"only a final charge is corrected", "corrects-final-charges", []string{"ELSIF r.state <> 'committed' THEN"}, database + "TestOnlyFinalChargesAreCorrected"},
	{"the audit compares corrections with the journal", "audit-corrections", []string{"< 0 AS bad,"}, database + "TestAuditFindsWhatIsBroken"},
	{"one moment selects the window and is when the reservation was made", "one-moment", []string{"SELECT p_id, p_tenant, 'held', p_hash, p_scopes, p_amounts, p_on_expiry, p_metadata, p_workflow_id, clock_timestamp(),"}, database + "TestReservationIsMadeInItsWindow"},
	{"a batch locks what its calls need, and no more", "own-pairs", []string{"AND (p_pairs IS NULL OR true)"}, database + "TestBatchMakesNoWindowThatNobodyAskedFor"},
	{"the audit looks at the sums", "audit-sums", []string{"SELECT w.committed <> coalesce(e.committed, 0)"}, database + "TestAuditFindsWhatIsBroken"},
	{"the audit finds windows that overlap", "audit-overlap", []string{"SELECT false,"}, database + "TestAuditFindsWhatIsBroken"},
	{"a usage report counts a charge in its own window", "usage-in-its-window", []string{"SELECT date_bin(interval '15 minutes', p_at, timestamptz 'epoch')"}, database + "TestUsageReports"},
	{"sums of usage take in an entry once no earlier one can appear", "usage-of-final-entries", []string{"ELSIF true THEN"}, database + "TestUsageRollUpWaitsForOpenTransactions"},
	{"sums of usage take in an entry once", "usage-rolled-up-once", []string{"UPDATE earmark.usage_watermark SET final_entry_id = w.final_entry_id, next_entry_id = w.next_entry_id, next_xid = w.next_xid;"}, database + "TestUsageIsRolledUpOnce"},
	{"a usage report adds the entries that the sums do not have yet", "usage-tail", []string{"WHERE false"}, database + "TestUsageReports"},
	{"a usage report and its balance are of one moment", "usage-of-one-moment", []string{"tx, err := l.lists.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})"}, database + "TestUsageIsRolledUpOnce"},
	{"sums of usage have a bounded number of values", "usage-values-bounded", []string{"FROM (SELECT *, true AS own FROM placed JOIN taken USING (budget_id, dimension, bucket)) AS p"}, database + "TestUsageValuesAreBounded"},
	{"nothing is pruned before it is in the sums of usage", "prune-after-roll-up", []string{""}, database + "TestPruneKeepsWhatIsNotRolledUp"},
	{"the audit compares usage reports with the balances", "audit-usage", []string{"SELECT false AS bad,"}, database + "TestAuditFindsWhatIsBroken"},
	{"the reconciler makes the sums of usage", "usage-rolled-up", []string{"moved, err := int64(0), error(nil)"}, "activities TestReconcileRollsUsageUp"},

	// Events.
	{"an expiry writes its event", "expiry-event", []string{"PERFORM x.id"}, database + "TestEveryEventOfAReservation"},
	{"the feed ends below the oldest open transaction", "feed-below-xmin", []string{""}, database + "TestFeedMissesNothingWhileTransactionsAreOpen"},
	{"a balance that reaches a threshold writes its event", "thresholds-crossed", []string{"ELSIF false THEN"}, database + "TestThresholdsAreCrossedOnceAWindow"},
	{"a threshold is crossed once a window", "crossed-once", []string{"next_committed = next_committed,"}, database + "TestThresholdsAreCrossedOnceAWindow"},
	{"after a raise of the limit a threshold is crossed again", "crossed-after-raise", []string{"UPDATE earmark.windows SET next_committed = next_committed,"}, database + "TestThresholdsAfterAChange"},
	{"denials make one event a budget and minute", "denials-sampled", []string{"WHERE y.tenant = p_tenant AND x.pending > 0"}, database + "TestDenialsAreSampled"},
	{"a budget is exhausted once a window", "exhausted-once", []string{"IF c.requested <= c.\"limit\" OR c.available <= 0 THEN"}, database + "TestExhaustedIsOnceAWindow"},

	// Webhooks.
	{"an endpoint gets only what comes before every open transaction", "webhook-below-xmin", []string{"WHERE x.tenant = w.tenant AND (x.tx, x.id) > (w.tx, w.event_id)"}, database + "TestWebhookMissesNoOpenTransaction"},
	{"a success moves the position behind its event", "delivery-moves-position", []string{"w.tx := w.tx;"}, database + "TestWebhookReceivesEventsInOrder"},
	{"attempts at events that were delivered meanwhile move nothing", "delivered-position", []string{"v_current := FOUND AND w.disabled_at IS NULL;"}, database + "TestDeliveryTwiceMovesOnce"},
	{"no event overtakes one that failed", "delivery-in-order", []string{"if attempts = append(attempts, a); false {"}, "activities TestDeliverStopsAtAFailure"},
	{"after a failure a webhook waits as long as the ledger says", "webhook-backoff", []string{""}, workflow + "TestWebhookWaitsAfterAFailure"},
	{"endpoints with events are looked for", "dispatcher", []string{""}, "worker TestEventsAreDelivered"},
	{"an endpoint that fails for three days is disabled", "webhook-patience", []string{"v_over := false;"}, database + "TestWebhookIsDisabledAfterThreeDays"},
	{"an endpoint gets the events that it selects", "webhook-filter", []string{"AND true"}, database + "TestWebhookFilters"},
	{"after a rotation the former secret signs too", "former-secret-signs", []string{"RETURN ARRAY [w.secret];"}, database + "TestRotatedSecretSignsForADay"},
	{"a webhook reaches public addresses alone", "webhook-address", []string{"dialer := &net.Dialer{Timeout: dialTimeout}"}, "internal/webhook TestSenderCallsNoPrivateAddress"},
	{"a redirect of an endpoint is not followed", "webhook-redirect", []string{""}, "internal/webhook TestSenderFollowsNoRedirect"},

	{"an override counts from its beginning to its end", "override-in-force", []string{"WHERE budget_id = b.id;"}, database + "TestOverrideEnds"},

	{"a grant counts from its beginning to its end", "grant-in-force", []string{"WHERE budget_id = p_budget_id"}, database + "TestGrantCountsFromItsBeginningToItsEnd"},
	{"the allowance is used at its place", "allowance-first", []string{"0,"}, database + "TestGrantsAreUsedInOrder"},
	{"grants are used in their order", "burn-order", []string{"ORDER BY priority DESC"}, database + "TestGrantsAreUsedInOrder"},
	{"a grant gets back what is not used", "grants-given-back", []string{"WHERE false;"}, database + "TestGrantsGetBackWhatIsNotUsed"},
	{"late usage is charged to the grants that it was held against", "held-against", []string{"AND false LOOP"}, database + "TestLateUsageIsChargedToWhatItWasHeldAgainst"},
	{"a correction gives back in the reverse order", "given-back-in-reverse", []string{"ORDER BY x.priority LOOP"}, database + "TestCorrectionGivesBackInReverse"},
	{"settlements lock the budgets of the grants that they charge", "granted-locked", []string{"ORDER BY b.id);"}, database + "TestSettlementsLockTheBudgetsOfGrants"},
	{"a void waits for admissions under way", "void-locks", []string{""}, database + "TestGrantsAndAdmissionsTakeTurns"},
	{"what grants bear of pruned reservations stays", "pruned-grants", []string{"SELECT '', grant_id, budget_id, window_start, sum(committed) FROM gone GROUP BY 2, 3, 4 HAVING false"}, database + "TestPruneKeepsWhatGrantsBear"},
	{"what expired unused is written down", "expired-grants", []string{"noted := error(nil)"}, "worker TestSweeperBeginsAfterOneGrace"},
	{"the audit compares grants with what reservations took", "audit-grants", []string{"SELECT false"}, database + "TestAuditFindsWhatIsBroken"},
	{"at most so much of a window rolls over", "rollover-max", []string{"g.amount := greatest(g.rolled_left, 0);"}, database + "TestRolloverIsBounded"},
	{"at most so much is rolled over in all", "rollover-total", []string{"IF false THEN"}, database + "TestRolloverIsBounded"},
	{"what rolled over expires with its last window", "rollover-expires", []string{"SELECT window_end + interval '1 day' INTO g.expires_at FROM earmark.window_at(b, g.expires_at);"}, database + "TestRestRollsOverOnce"},
	{"what is held when a window ends does not roll over", "holds-not-rolled-over", []string{";"}, database + "TestHoldsOfTheOldWindowRollOverWhenTheySettle"},
	{"what of it comes free rolls over then", "rolled-over-later", []string{"v_amount := g.amount;"}, database + "TestHoldsOfTheOldWindowRollOverWhenTheySettle"},
	{"a hold that comes after the rollover takes back what it holds", "held-after-rollover", []string{"PERFORM 1"}, database + "TestHoldAfterTheRollover"},
	{"late usage takes back what rolled over", "rolled-over-taken-back", []string{"v_amount := g.amount;"}, database + "TestLateUsageTakesBackWhatRolledOver"},
	{"what was used then is taken back when it comes free", "rolled-over-given-back", []string{"PERFORM 1;"}, database + "TestWhatComesBackIsTakenBackToo"},
	{"a denial knows what holds add to a rollover", "retry-after-rolled-hold", []string{"PERFORM 1;"}, database + "TestDenialKnowsWhatAddsToARollover"},
	{"a window leaves the rest of the limit that it had", "rolls-over-before-a-change", []string{""}, database + "TestRestIsOfTheLimitAsItWas"},
	{"the audit compares what rolled over with what was left", "audit-rollover", []string{"SELECT false,"}, database + "TestAuditFindsWhatIsBroken"},

	// Once, however often it is asked.
	{"what a window left rolls over once", "rolled-over-once", []string{"UPDATE earmark.budgets SET granted_until = greatest(granted_until, g.expires_at) WHERE id = b.id RETURNING * INTO b;"}, database + "TestRestRollsOverOnce"},
	{"a grant applies once", "grant-once", []string{"IF false THEN"}, database + "TestGrantAppliesOnce"},
	{"a grant's expiry is announced once", "expiring-once", []string{"FOR g IN SELECT * FROM earmark.grants WHERE expires_at > v_now AND expires_at <= v_soon AND voided_at IS NULL"}, database + "TestGrantIsExpiringOnce"},
	{"what expired unused is written down once", "expiry-noted-once", []string{"FOR g IN SELECT * FROM earmark.grants WHERE expires_at <= v_now AND voided_at IS NULL"}, database + "TestExpiredGrantLeavesAnEntryOnce"},
	{"an override applies once", "override-once", []string{"IF false THEN"}, database + "TestOverrideAppliesOnce"},
	{"an id answers what stands", "existing-id", []string{"ELSIF false THEN"}, database + "TestSameKeyHoldsOnce"},
	{"a repeated call waits for nobody", "existing-read", []string{"WHERE true"}, database + "TestSameKeyWaitsForNobody"},
	{"the same id with another request is another's", "existing-id", []string{"ELSIF r.tenant = p_tenant THEN"}, database + "TestSameKeyWithAnotherBodyIsAMismatch"},
	{"a committed reservation is not charged again", "committed-once", []string{"IF false THEN"}, database + "TestSettledOnceByMany"},
	{"a correction applies once", "corrected-once", []string{"IF false THEN"}, database + "TestCorrectionAppliesOnce"},
	{"a transition that was applied is not applied again after a crash", "committed-once", []string{"IF false THEN"}, whole + "TestWorkerKilledAfterTheCommit"},
	{"settlements of a reservation take turns", "reservation-locked", []string{"SELECT * INTO r FROM earmark.reservations WHERE id = p_id AND tenant = p_tenant;"}, database + "TestSettlementsOfAReservationTakeTurns"},
	{"what was refused to an attempt stays refused", "refused-attempt", []string{"ELSIF false THEN"}, database + "TestRefusedAttemptStaysRefused"},
	{"tenants do not cross", "reservation-locked", []string{"SELECT * INTO r FROM earmark.reservations WHERE id = p_id FOR NO KEY UPDATE;"}, database + "TestTenantsDoNotCross"},
	{"installations in one namespace have workflows of their own", "prefixed-workflow", []string{"return workflowIDPrefix + reservationID"}, whole + "TestTwoPrefixesInANamespace"},
	{"another installation's workflows are not listed", "own-workflows", []string{"return query"}, whole + "TestStuckListsOfTwoPrefixes"},
	{"each statement sees what was committed before it", "read-committed", []string{"IF false THEN"}, database + "TestOnlyReadCommittedCallersAreServed"},

	// Deadlines are by Postgres' clock.
	{"nothing is reserved past the caller's deadline", "admit-by", []string{"IF false THEN"}, database + "TestTooLateReservesNothing"},
	{"deadlines are counted from Postgres' clock", "postgres-clock", []string{"admission.AdmitBy = time.Now().Add(deadline)"}, whole + "TestClocksApart"},
	{"a release that came first wins", "released-first", []string{"IF false THEN -- leave a row, so that an attempt still under way cannot reserve after this"}, database + "TestReleaseThatCameFirstWins"},
	{"overdue holds make way", "blocking-holds", []string{"IF 0 > 0 THEN"}, database + "TestOverdueHoldsMakeWay"},
	{"the lease's timer is lazy", "lazy-timer", []string{""}, workflow + "TestExtend"},

	// Windows follow each other.
	{"a date that is read twice starts once", "first-midnight", []string{"IF window_start AT TIME ZONE p_timezone <> v_first THEN", "IF window_end AT TIME ZONE p_timezone <> v_next THEN"}, database + "TestWindowsWhereClocksChange"},
	{"a date that clocks return to does not start again", "date-again", []string{"EXIT;"}, database + "TestWindowsWhereClocksChange"},
	{"an hour ends where clocks change by a part of an hour", "cut-hour", []string{"IF false THEN"}, database + "TestWindowsWhereClocksChange"},
	{"a window is counted from the anchor, not from the window before", "from-anchor", []string{"v_next := v_first + v_step;"}, database + "TestWindowsFromAnAnchor"},
	{"a rolling window counts its other slices, later ones too", "other-slices", []string{"WHERE w.budget_id = p_budget_id AND w.window_start >= p_from AND w.window_start < p_but;"}, database + "TestRollingWindowCountsLaterSlices"},
	{"usage over the reserved amount meets the whole rolling window", "overage-elsewhere", []string{"));"}, database + "TestRollingWindowOverage"},
	{"a window keeps the bounds that it was made with", "stored-window", []string{"IF false THEN"}, database + "TestWindowsOfOlderTimeZoneData"},
	{"a new window overlaps none that was made under other time-zone data", "no-overlap", []string{"window_start := v_bounds.window_start;", "window_end := v_bounds.window_end;"}, database + "TestWindowsOfOlderTimeZoneData"},
	{"a time zone has a name with one meaning", "zone-names", []string{`if _, err := time.LoadLocation(name); err != nil || name == "" || name == "Local" {`}, ". TestTimezone"},
	{"Postgres has the time zone under this name", "zone-in-postgres", []string{"if sqlState(err) == invalidParameterValue {"}, database + "TestTimeZoneIsCheckedByPostgres"},

	// No usage is dropped.
	{"usage after an expiry is charged", "only-released-refuses", []string{"ELSIF r.state IN ('released', 'expired') THEN"}, database + "TestGivenBackByAnOperatorStillChargesLateUsage"},
	{"late usage is charged in full", "late-usage", []string{"IF v_overage IS NULL THEN"}, database + "TestLateUsageIsChargedWhateverTheOveragePolicies"},
	{"a commit goes before a release", "commit-first", []string{"first := max(0, slices.IndexFunc(i.messages, func(m *message) bool { return m.name == MessageRelease }))"}, workflow + "TestCommitBeatsRelease"},
	{"what has arrived goes before the timer", "messages-before-timer", []string{"case !r.inbox.empty() && (r.lease == nil || !r.leaseOver()):"}, workflow + "TestCommitBeatsTheTimer"},
	{"signals are drained before the end", "drain-before-end", []string{"", "return true", ""}, workflow + "TestSignalsWithTheClosingEvent"},
	{"a settlement is tried without an end", "no-attempt-limit", []string{"RetryPolicy:         &temporal.RetryPolicy{InitialInterval: regularFirstPause, BackoffCoefficient: 2, MaximumInterval: regularMaxPause, MaximumAttempts: 2},"}, workflow + "TestPatientSettlementHasNoLimits"},
	{"a settlement goes to the ledger, whatever the workflow does", "ledger-first", []string{"if false {"}, whole + "TestCommitWithoutWorker"},
	{"without Postgres, Temporal keeps the message", "kept-by-temporal", []string{"case signalErr == nil && false:"}, whole + "TestPostgresAway"},
	{"usage of a lost row is charged by its workflow", "lost-row", []string{`if answer.Outcome == "" && (r.admitted || r.admission.Outcome == earmark.OutcomeTooLate) {`}, workflow + "TestCommitOfALostReservation"},
	{"usage of a restored row is charged from the result of its workflow", "restored-row", []string{"return false"}, whole + "TestRestoredBackup"},
	{"a later row under the same id is not meant", "same-row", []string{"if err != nil || known.Usage == nil || known.CreatedAt == nil || check.CreatedAt.IsZero() {"}, "activities TestReconcileRestores"},

	// Guarded calls of models are charged.
	{"a call that may cost money and is not known is not sent", "known-calls", []string{"if true {"}, "client TestTransportRefuses"},
	{"without Earmark no call is sent", "fail-closed", []string{"if err != nil && isAwayNow(ctx, err) {"}, "client TestTransportRefuses"},
	{"what the guard refuses, the SDK does not repeat", "refused-once", []string{""}, "client TestTransportRefuses"},
	{"a stream is asked for its usage", "asks-for-usage", []string{"asked := []byte(nil)"}, "client TestTransportAsksForUsage"},
	{"a charge comes before the reader learns of the end", "before-the-end", []string{""}, "client TestTransportChargesBeforeTheEnd"},
	{"a caller who left is charged what was sent", "caller-left", []string{"s.stop = func() bool { return true }"}, "client TestTransportAtAnEnding"},
	{"a call ends once", "ends-once", []string{"(func(end func()) { end() })(func() {"}, "client TestTransportCommitsWhatTheProviderSays"},
	{"usage that nobody counted is marked as an estimate", "marked-estimate", []string{"said := report{}"}, "client TestTransportAtAnEnding"},
	{"a usage object that counts nothing is no usage", "usage-that-counts", []string{"if false && (!known || malformed) {"}, "client TestTransportAtAnEnding"},
	{"what a provider may have billed is not released", "may-be-billed", []string{"return true"}, "client TestTransportBeforeTheFirstByte"},
	{"the attempts of one call hold once", "held-once", []string{"if earlier := t.left.take(g.identity); false {"}, "client TestTransportHoldsOnceForEachCall"},
	{"another caller takes over no attempt", "own-attempts", []string{"_ = name"}, "client TestTransportHoldsOnceForEachCall"},
	{"an attempt that may have been billed is in the charge", "earlier-attempts", []string{"if false {"}, "client TestTransportHoldsOnceForEachCall"},
	{"a commit of a guarded call that had no answer is sent again", "recommit", []string{""}, "client TestTransportCommitsLater"},
	{"a call that ran without a reservation is charged later", "charged-later", []string{""}, "client TestTransportFailsOpen"},
	{"a late charge finds the reservation whose answer was lost", "lost-admission", []string{"if true {"}, "client TestTransportFailsOpen"},

	// No hold stays.
	{"the sweeper runs in each worker process", "sweeper", []string{""}, whole + "TestLostWorkflowIsSwept"},
	{"the reconciler gives orphans a workflow", "adopt-orphans", []string{"if err := ctx.Err(); err != nil {"}, whole + "TestLostWorkflowIsAdopted"},
	{"a workflow that settled and ended leaves no orphan", "orphan-is-open", []string{"if result.Outcome != earmark.OutcomeUnknown {"}, "activities TestReconcileTakesNoEndedWorkflowForAnOrphan"},
	{"an adoption is in the journal before its workflow starts", "adoption-entry", []string{"result, err := earmark.Result{Outcome: earmark.OutcomeApplied}, error(nil)"}, "activities TestReconcileWritesAnAdoptionDown"},
	{"the API notifies the workflow of a settlement", "notify", []string{""}, "internal/lifecycle TestCoordinatorOutlivesItsWindow"},
	{"what the API could not notify, the reconciler does", "notify-settled", []string{"err := ctx.Err()"}, "activities TestReconcile"},
	{"who settles out of review has the workflow looked at", "refresh-after-review", []string{"refresh_due = r.refresh_due -- in review no timer looks again"}, database + "TestSettledOutOfReviewIsLookedAt"},
	{"the workflows that a process keeps in memory are bounded", "cache-bounded", []string{"_ = cmp.Or(options.cached, cachedWorkflows)"}, "worker TestCachedWorkflowsAreBounded"},
	{"the reconciler looks for paused workflows", "look-for-paused", []string{"if err := ctx.Err(); err != nil {"}, "activities TestReconcileLooksForPausedWorkflows"},
	{"the reconciler unpauses an activity of a workflow whose reservation is settled", "unpause-activity", []string{"if true {"}, whole + "TestPausedActivity"},
	{"the reconciler unpauses a workflow whose reservation is settled", "unpause-settled", []string{"if false {"}, "activities TestReconcile"},
	{"the reconciler's schedule is made by the workers", "schedule", []string{""}, whole + "TestTemporalLosesItsData"},
	{"cancellation gives back", "cancel", []string{"return cancelled"}, workflow + "TestCancel"},
	{"what has begun is resolved although the workflow is cancelled", "detached", []string{""}, workflow + "TestCancel"},
	{"no time-out ends a workflow without its cleanup", "no-run-timeout", []string{"WorkflowTaskTimeout:      workflowTaskTimeout,\nWorkflowRunTimeout: time.Hour,"}, workflow + "TestLifecycleIsEagerAndSmall"},
	{"a long history is begun anew", "continue-as-new", []string{"case false:"}, workflow + "TestFloodOfSignals"},

	// Tenants stay apart.
	{"a call needs its role", "role", []string{""}, "api TestEveryOperationNeedsItsRole"},
	{"a key is known by its secret", "secret", []string{"if right := keys.Equal(stored, token.Hash()); credential == nil || right && false {"}, "api TestCallsWithoutAKeyThatWorks"},
	{"a browser's sign-in is known by its cookie", "sign-in", []string{"WHERE $1::bytea IS NOT NULL"}, database + "TestSignIns"},
	{"a browser's sign-in ends", "sign-in-over", []string{""}, database + "TestSignIns"},
	{"a revocation takes effect within seconds", "revocation", []string{"fresh = found && now.Sub(kept.at) < credentialStale ||"}, "api TestRevocationTakesEffectInTime"},
	{"a key makes no more calls than its rate", "key-rate", []string{"if allowed = true; share > 0 {"}, "api TestKeysOwnRate"},
	{"a key that is bound to scopes settles nothing beyond them", "bound-key", []string{"if reservation == nil {"}, "api TestKeysBoundToScopes"},
	{"a list has only what is within a bound key's scopes", "scopes-within", []string{"v_found := true;"}, database + "TestBudgetsAndEntriesWithinScopes"},
	{"a search for stuck workflows is of one tenant", "stuck-own-tenant", []string{`return ""`}, "internal/workflowstore TestStuckFinderKeepsTenantsApart"},
	{"a message reaches no workflow of another tenant", "own-tenant", []string{"if owner == \"\" {"}, "internal/lifecycle TestCoordinatorLeavesOtherTenantsAlone"},
	{"the time of an answer does not show another tenant's id", "missing-in-steps", []string{"ctxtime.Sleep(ctx, 0*time.Since(begun))"}, "internal/lifecycle TestCoordinatorLeavesOtherTenantsAlone"},
	{"calls that wait are served in turns", "fair-turns", []string{""}, "internal/fairqueue TestFloodWaitsForItself"},
	{"who has the fewest calls under way is next", "fewest-first", []string{"if child.underWay < 0 {"}, "internal/fairqueue TestFewestUnderWayComeFirst"},
	{"Temporal knows whose turn a task is", "fairness-key", []string{""}, "internal/workflowstore TestStartNamesTheTenantForFairness"},
	{"lists take no connections from the ledger's calls", "own-connections", []string{"func (l *Ledger) ListFrom(*pgxpool.Pool) {}"}, database + "TestListsAndTheLedgerTakeNoConnectionsFromEachOther"},
	{"the database account of `serve` changes no row by hand", "app-role", []string{"GRANT ALL ON ALL TABLES IN SCHEMA earmark TO earmark_app;"}, database + "TestAppRoleChangesNothingByItself"},

	// Unknown is not success, and workflows outlive releases.
	{"a no is reported when it is durable", "durable-no", []string{"return true"}, "internal/lifecycle TestCoordinatorWaitsForADurableNo"},
	{"a key's rate refuses no settlement", "unrefused-settlement", []string{"for _, verb := range unrefusable[:0] {"}, "api TestKeysRateRefusesNoSettlement"},
	{"a lost row is charged by who commits it", "lost-row-by", []string{"Actor: earmark.ActorWorkflow, Reason: reason, At: r.createdAt,"}, workflow + "TestCommitOfALostReservationNamesItsActor"},
	{"a restored row is charged by who committed it", "restored-by", []string{"if false {"}, "activities TestReconcileRestores"},
	{"an input that breaks a rule ends the workflow", "refuse-invalid-input", []string{"case false:"}, workflow + "TestReservationRefusesAnInvalidInput"},
	{"an extension of a missing row is no 404 while Temporal is away", "extend-unknown-is-unavailable", []string{"case false:"}, "internal/lifecycle TestCoordinatorRowUnknownWhileTemporalIsAway"},
	{"a missing row is no 404 while Temporal is away", "unknown-is-unavailable", []string{"case false:"}, "internal/lifecycle TestCoordinatorRowUnknownWhileTemporalIsAway"},
	{"what a workflow's start carries stays within Temporal's limits", "scopes-indexed", []string{"if false {"}, whole + "TestLongestRequestIsAdmitted"},
	{"a refused usage is not sent to the workflow", "refused-is-not-sent", []string{""}, "internal/lifecycle TestCoordinatorRefusesAnAttempt"},
	{"a retry of the admission does not wait for the settle window", "retry-by-ledger", []string{"if result, err = s.speculation.Result(); err != nil || !s.fresh {"}, "internal/lifecycle TestCoordinatorRetryInTheWindow"},
	{"settle windows are bounded", "bounded-windows", []string{"if _, found := x.windows[id]; found || x.closed {"}, "internal/handoff TestWindowsAreBounded"},
	{"nothing is written to a former primary of Postgres", "newest-timeline", []string{"if false {"}, database + "TestFormerPrimaryIsNotUsed"},
	{"a migration that waits for a table lets admissions through", "step-lock-timeout", []string{""}, database + "TestMigrationDoesNotQueueAdmissionsBehindIt"},
	{"a migration in a deadlock with a call is tried again", "step-deadlock", []string{"if state != lockNotAvailable || try == stepLockTries || !ctxtime.Sleep(ctx, stepLockPause) {"}, database + "TestMigrationIsTriedAgainAfterADeadlock"},
	{"a connection to a Temporal that hangs is given up", "temporal-keep-alive", []string{""}, "cmd/earmark TestConnectionToAFrozenTemporalIsGivenUp"},
	{"a schema waits until the programs that it breaks have gone", "none-older", []string{"if false {"}, database + "TestMigrateRefusesWhileAnOlderProgramIsConnected"},
	{"a change of the order of events is noticed", "order-of-events", []string{"r.arm(ctx)\nr.index(ctx, \"held\")"}, workflow + "TestReplay"},
}

// edits are how the mechanism is taken out of the code as it is now.
func (m mechanism) edits(t *testing.T) []stack.Edit {
	t.Helper()
	file, lines := marked(t, m.mark)
	require.Len(t, lines, len(m.becomes), "%s: the lines with the mark %q in %s", m.name, m.mark, file)
	var edits []stack.Edit
	for i, line := range lines {
		edits = append(edits, stack.Edit{File: file, Old: line + "\n", New: m.becomes[i] + "\n"})
	}
	return edits
}

// marked returns the one file whose lines end with the mark, and these lines.
func marked(t *testing.T, mark string) (file string, lines []string) {
	t.Helper()
	for _, source := range sources(t) {
		for line := range strings.Lines(source.text) {
			if line = strings.TrimSuffix(line, "\n"); !strings.HasSuffix(line, " mutation: "+mark) {
				continue
			}
			require.Contains(t, []string{"", source.file}, file, "two files have the mark %q", mark)
			file, lines = source.file, append(lines, line)
		}
	}
	require.NotEmpty(t, lines, "no line has the mark %q", mark)
	return file, lines
}

type source struct{ file, text string }

// sources returns the product's Go and SQL files.
var sources = func() func(t *testing.T) []source {
	read := sync.OnceValues(func() (all []source, err error) {
		root, err := stack.ModuleRoot()
		if err != nil {
			return nil, err
		}
		return all, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() && slices.Contains([]string{".git", "bin", "dist", "node_modules", "test", "testdata", "tools"}, entry.Name()):
				return fs.SkipDir
			case entry.IsDir() || strings.HasSuffix(path, "_test.go") || !slices.Contains([]string{".go", ".sql"}, filepath.Ext(path)):
				return nil
			}
			text, err := os.ReadFile(path)
			all = append(all, source{path, string(text)})
			return err
		})
	})
	return func(t *testing.T) []source {
		t.Helper()
		all, err := read()
		require.NoError(t, err)
		return all
	}
}()

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

// Each mark in the code belongs to a mechanism.
func TestMarksAreUsed(t *testing.T) {
	t.Parallel()
	mark := regexp.MustCompile(`(?m) (?://|--) mutation: (.+)$`)
	for _, source := range sources(t) {
		for _, match := range mark.FindAllStringSubmatch(source.text, -1) {
			require.True(t, slices.ContainsFunc(mechanisms, func(m mechanism) bool { return m.mark == match[1] }), "%s: no mechanism has the mark %q", source.file, match[1])
		}
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
