package workflows_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/ledgertest"
	"github.com/earmark-dev/earmark/workflows"
)

// The diagram above run, as a table: what a message does in each state that the
// workflow is open in. A message that leaves the workflow open is followed by the
// caller's release.
func TestReservationStates(t *testing.T) {
	t.Parallel()
	const held, review = earmark.StateHeld, earmark.StateReview
	const committed, released, expired = earmark.StateCommitted, earmark.StateReleased, earmark.StateExpired
	byOperator := workflows.ReleaseMessage{Operator: "alice", Reason: "stuck"}
	cancel := func(b *env) { b.env.CancelWorkflow() }
	send := func(name string, payload any) func(*env) {
		return func(b *env) { b.signal(name, payload) }
	}
	past := func(f func(b *env, m *ledgertest.Ledger) (earmark.Result, error)) func(*env) {
		return func(b *env) {
			b.ledger.past(func(m *ledgertest.Ledger) (earmark.Result, error) { return f(b, m) })
			b.signal(workflows.SignalRefresh, nil)
		}
	}
	for _, c := range []struct {
		state   earmark.State
		message string
		send    func(*env)
		to      earmark.State
	}{
		{held, "commit", send(workflows.MessageCommit, used(70)), committed},
		{held, "commit of too much where overage is rejected", send(workflows.MessageCommit, used(150)), held},
		{held, "commit of another unit", send(workflows.MessageCommit, workflows.CommitMessage{Usage: earmark.Amounts{"requests": 1}}), held},
		{held, "release by the caller", send(workflows.MessageRelease, nil), released},
		{held, "release by an operator", send(workflows.MessageRelease, byOperator), expired},
		{held, "extend", send(workflows.SignalExtend, workflows.ExtendMessage{TTLSeconds: 3600}), held},
		{held, "refresh", send(workflows.SignalRefresh, nil), held},
		{held, "cancellation", cancel, expired},
		{held, "settled past the workflow", past(func(b *env, m *ledgertest.Ledger) (earmark.Result, error) {
			return m.Commit(b.Context(), b.settlement(), used(70).Usage)
		}), committed},
		{review, "commit", send(workflows.MessageCommit, used(70)), committed},
		{review, "commit of too much, which an operator accepts", send(workflows.MessageCommit,
			workflows.CommitMessage{Usage: used(150).Usage, Operator: "alice", Reason: "it was spent"}), committed},
		{review, "commit of another unit", send(workflows.MessageCommit, workflows.CommitMessage{Usage: earmark.Amounts{"requests": 1}}), review},
		{review, "release by the caller", send(workflows.MessageRelease, nil), released},
		{review, "release by an operator", send(workflows.MessageRelease, byOperator), expired},
		{review, "extend", send(workflows.SignalExtend, workflows.ExtendMessage{TTLSeconds: 3600}), review},
		{review, "refresh", send(workflows.SignalRefresh, nil), review},
		{review, "cancellation", cancel, expired},
		{review, "settled past the workflow", past(func(b *env, m *ledgertest.Ledger) (earmark.Result, error) {
			return m.Release(b.Context(), b.settlement())
		}), released},
	} {
		t.Run(string(c.state)+"/"+c.message, func(t *testing.T) {
			b := setup(t)
			b.ledger.budget.Overage = earmark.OverageReject
			b.ledger.lose()
			b.input.Admission.Request.OnExpiry = earmark.OnExpiryReview
			at := lease / 2
			if c.state == review {
				at = 2 * lease
			}
			state := func() earmark.State { return b.ledger.row(b.input.Admission.ID).State }
			b.at(at, func() {
				require.Equal(t, c.state, state())
				c.send(b)
			})
			left := c.to
			if c.to == held || c.to == review {
				left = released
				b.at(at+1, func() {
					require.Equal(t, c.to, state())
					b.signal(workflows.MessageRelease, nil)
				})
			}
			result, err := b.run()
			if c.message != "cancellation" {
				require.NoError(t, err)
				require.Equal(t, left, result.State)
			}
			require.Equal(t, left, state())
		})
	}
}

// The first transition decides whether there is a reservation at all.
func TestReservationFirstState(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change  func(*env)
		outcome earmark.Outcome
		state   earmark.State
	}{
		"denied":            {func(b *env) { b.input.Admission.Request.Amounts = earmark.Amounts{testUnit: testLimit + 1} }, earmark.OutcomeDenied, ""},
		"released before":   {func(b *env) { b.at(0, func() { b.signalQuietly(workflows.MessageRelease, nil) }) }, earmark.OutcomeSame, earmark.StateReleased},
		"held, to its end":  {func(*env) {}, earmark.OutcomeApplied, earmark.StateExpired},
		"held, then commit": {func(b *env) { b.input.Admission.Request.OnExpiry = earmark.OnExpiryCommit }, earmark.OutcomeApplied, earmark.StateCommitted},
		"adopted":           {(*env).exists, earmark.OutcomeApplied, earmark.StateExpired},
		"resumed":           {func(b *env) { b.exists(); b.input.Adopt, b.input.Resume = false, true }, earmark.OutcomeApplied, earmark.StateExpired},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			c.change(b)
			b.ends(c.outcome, c.state)
		})
	}
}

// A client other than the API starts a workflow whose input breaks a rule: that is an
// answer, with the field, and the ledger is not asked.
func TestReservationRefusesAnInvalidInput(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change  func(*earmark.Admission)
		subject string
	}{
		"nothing at all": {func(a *earmark.Admission) { *a = earmark.Admission{} }, `id: "" is not a reservation's id`},
		"an amount below one": {func(a *earmark.Admission) { a.Request.Amounts = earmark.Amounts{testUnit: -5} },
			"amounts.tokens: "},
		"no scope":           {func(a *earmark.Admission) { a.Request.Scopes = nil }, "scopes: "},
		"a lease too long":   {func(a *earmark.Admission) { a.Request.TTLSeconds = 1 << 40 }, "ttl_seconds: "},
		"another policy":     {func(a *earmark.Admission) { a.Request.OnExpiry = "burn" }, "on_expiry: "},
		"no tenant":          {func(a *earmark.Admission) { a.Tenant = "" }, "tenant: is missing"},
		"no hash":            {func(a *earmark.Admission) { a.RequestHash = "" }, "request_hash: is missing"},
		"another workflow's": {func(a *earmark.Admission) { a.WorkflowID = "mine" }, `workflow_id: "mine" is not the id`},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			c.change(&b.input.Admission)
			var asked, commit *reply
			b.at(0, func() {
				asked = b.update(workflows.UpdateAdmission, workflows.AdmissionMessage{RequestHash: b.input.Admission.RequestHash})
				commit = b.update(workflows.MessageCommit, used(70))
			})
			require.Zero(t, b.ends(earmark.OutcomeInvalid, ""))
			asked.is(t, earmark.OutcomeInvalid, "")
			require.Contains(t, asked.standing.Subject, c.subject)
			commit.is(t, earmark.OutcomeUnknown, "")
			require.Equal(t, []string{"commit"}, b.ledger.journal(), "nothing is reserved")
		})
	}
}

// What such a client may leave out is filled in.
func TestReservationFillsDefaults(t *testing.T) {
	b := setup(t)
	b.input.Admission.Request.TTLSeconds, b.input.Admission.Request.OnExpiry = 0, ""
	require.Equal(t, earmark.DefaultTTL, b.ends(earmark.OutcomeApplied, earmark.StateExpired))
}
