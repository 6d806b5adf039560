package workflows_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/ledgertest"
	"github.com/earmark-dev/earmark/workflows"
)

const lease = time.Minute // of admission()

func TestCommitByUpdate(t *testing.T) {
	b := setup(t)
	var answer *reply
	b.at(10*time.Second, func() {
		b.holds(100, 0)
		answer = b.update(workflows.MessageCommit, used(70))
	})
	require.Equal(t, 10*time.Second, b.ends(earmark.OutcomeApplied, earmark.StateCommitted))
	answer.is(t, earmark.OutcomeApplied, earmark.StateCommitted)
	b.holds(0, 70)
	require.Equal(t, []string{"reserve", "commit"}, b.ledger.journal())
	require.Empty(t, b.indexed)
}

func TestCommitBySignal(t *testing.T) {
	b := setup(t)
	b.at(10*time.Second, func() { b.signal(workflows.MessageCommit, used(70)) })
	require.Equal(t, 10*time.Second, b.ends(earmark.OutcomeApplied, earmark.StateCommitted))
	b.holds(0, 70)
}

func TestRelease(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"update", "signal"} {
		t.Run(by, func(t *testing.T) {
			b := setup(t)
			message := workflows.ReleaseMessage{Reason: "the model was not called"}
			b.at(10*time.Second, func() {
				if by == "update" {
					b.update(workflows.MessageRelease, message)
				} else {
					b.signal(workflows.MessageRelease, message)
				}
			})
			require.Equal(t, 10*time.Second, b.ends(earmark.OutcomeApplied, earmark.StateReleased))
			b.holds(0, 0)
			require.Equal(t, message.Reason, b.ledger.reasons["release"])
		})
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	t.Run("release", func(t *testing.T) {
		b := setup(t)
		require.Equal(t, lease, b.ends(earmark.OutcomeApplied, earmark.StateExpired))
		b.holds(0, 0)
	})
	t.Run("commit", func(t *testing.T) {
		b := setup(t)
		b.input.Admission.Request.OnExpiry = earmark.OnExpiryCommit
		require.Equal(t, lease, b.ends(earmark.OutcomeApplied, earmark.StateCommitted))
		b.holds(0, 100)
	})
	for by, state := range map[string]earmark.State{workflows.MessageCommit: earmark.StateCommitted, workflows.MessageRelease: earmark.StateReleased} {
		t.Run("review, then "+by, func(t *testing.T) {
			b := setup(t)
			b.input.Admission.Request.OnExpiry = earmark.OnExpiryReview
			b.at(10*lease, func() {
				b.holds(100, 0)
				require.Equal(t, earmark.StateReview, b.ledger.row(b.input.Admission.ID).State)
				if by == workflows.MessageCommit {
					b.signal(by, used(30))
				} else {
					b.signal(by, workflows.ReleaseMessage{})
				}
			})
			require.Equal(t, 10*lease, b.ends(earmark.OutcomeApplied, state))
			require.Equal(t, []string{workflows.StateAttributeReview, ""}, b.indexed)
			require.Equal(t, 1, b.ledger.count("expire"), "there is no timer in review")
		})
	}
}

// The timer is not touched by an extension: it fires early, hears how long the
// lease runs on, and is set again.
func TestExtend(t *testing.T) {
	t.Parallel()
	extend := func(b *env, ttl time.Duration) {
		b.ledger.past(func(m *ledgertest.Ledger) (earmark.Result, error) { return m.Extend(b.Context(), b.settlement(), ttl) })
	}
	t.Run("by signal", func(t *testing.T) {
		b := setup(t)
		b.at(30*time.Second, func() { b.signal(workflows.SignalExtend, workflows.ExtendMessage{TTLSeconds: 100}) })
		require.Equal(t, 130*time.Second, b.ends(earmark.OutcomeApplied, earmark.StateExpired))
		require.Equal(t, []string{"reserve", "extend", "expire", "expire"}, b.ledger.journal())
	})
	t.Run("behind its back", func(t *testing.T) {
		b := setup(t)
		b.at(30*time.Second, func() { extend(b, 100*time.Second) })
		require.Equal(t, 130*time.Second, b.ends(earmark.OutcomeApplied, earmark.StateExpired))
		require.Equal(t, []string{"reserve", "expire", "expire"}, b.ledger.journal())
	})
	t.Run("by less than the shortest timer", func(t *testing.T) {
		b := setup(t)
		b.at(30*time.Second, func() { extend(b, 30*time.Second+200*time.Millisecond) })
		require.Equal(t, 61*time.Second, b.ends(earmark.OutcomeApplied, earmark.StateExpired))
		require.Equal(t, 2, b.ledger.count("expire"))
	})
	t.Run("in the task of the expiry", func(t *testing.T) {
		b := setup(t)
		b.at(lease-time.Millisecond, func() { b.signalQuietly(workflows.SignalExtend, workflows.ExtendMessage{TTLSeconds: 60}) })
		require.Equal(t, 2*lease, b.ends(earmark.OutcomeApplied, earmark.StateExpired))
		require.Equal(t, []string{"reserve", "extend", "expire", "expire"}, b.ledger.journal())
	})
	t.Run("after the expiry", func(t *testing.T) {
		b := setup(t)
		b.input.Admission.Request.OnExpiry = earmark.OnExpiryReview
		b.at(2*lease, func() { b.signal(workflows.SignalExtend, workflows.ExtendMessage{TTLSeconds: 60}) })
		b.at(3*lease, func() { b.signal(workflows.MessageRelease, nil) })
		b.ends(earmark.OutcomeApplied, earmark.StateReleased)
		require.Equal(t, []string{"reserve", "expire", "extend", "release"}, b.ledger.journal())
	})
}

func TestCommitBeatsTheTimer(t *testing.T) {
	b := setup(t)
	b.at(lease-time.Millisecond, func() { b.signalQuietly(workflows.MessageCommit, used(70)) })
	require.Equal(t, lease, b.ends(earmark.OutcomeApplied, earmark.StateCommitted))
	require.Equal(t, []string{"reserve", "commit"}, b.ledger.journal())
	require.False(t, b.ledger.row(b.input.Admission.ID).Late)
}

// A commit comes before a release of the same task, whichever way and order they
// arrive in: the other way round usage would be refused.
func TestCommitBeatsRelease(t *testing.T) {
	t.Parallel()
	check := func(t *testing.T, send func(b *env)) {
		t.Helper()
		b := setup(t)
		b.at(10*time.Second, func() { send(b) })
		b.ends(earmark.OutcomeConflict, earmark.StateCommitted)
		require.Equal(t, []string{"reserve", "commit", "release"}, b.ledger.journal())
		b.holds(0, 70)
	}
	t.Run("signals", func(t *testing.T) {
		check(t, func(b *env) {
			b.signalQuietly(workflows.MessageRelease, workflows.ReleaseMessage{})
			b.signal(workflows.MessageCommit, used(70))
		})
	})
	t.Run("an update and a signal", func(t *testing.T) {
		check(t, func(b *env) {
			b.signalQuietly(workflows.MessageCommit, used(70))
			b.update(workflows.MessageRelease, workflows.ReleaseMessage{})
		})
	})
	t.Run("a release that waits for Postgres", func(t *testing.T) {
		// An extension is tried for as long as Postgres is away; both wait behind it.
		check := setup(t)
		check.at(5*time.Second, func() {
			check.ledger.away()
			check.signal(workflows.SignalExtend, workflows.ExtendMessage{TTLSeconds: 60})
		})
		check.at(10*time.Second, func() { check.signal(workflows.MessageRelease, workflows.ReleaseMessage{}) })
		check.at(20*time.Second, func() { check.update(workflows.MessageCommit, used(70)) })
		check.at(25*time.Second, check.ledger.back)
		check.ends(earmark.OutcomeConflict, earmark.StateCommitted)
		check.holds(0, 70)
	})
}

// What arrives before the first task is known to the reserve.
func TestMessagesBeforeTheFirstTask(t *testing.T) {
	t.Parallel()
	t.Run("release", func(t *testing.T) {
		b := setup(t)
		b.at(0, func() { b.signalQuietly(workflows.MessageRelease, workflows.ReleaseMessage{}) })
		b.ends(earmark.OutcomeSame, earmark.StateReleased)
		require.True(t, b.ledger.admitted()[0].Released)
		require.Empty(t, b.ledger.row(b.input.Admission.ID).Budgets, "nothing was ever set aside")
	})
	t.Run("commit", func(t *testing.T) {
		b := setup(t)
		b.at(0, func() { b.signalQuietly(workflows.MessageCommit, used(70)) })
		b.ends(earmark.OutcomeApplied, earmark.StateCommitted)
		require.False(t, b.ledger.admitted()[0].Released)
		b.holds(0, 70)
	})
	t.Run("release and commit", func(t *testing.T) {
		b := setup(t)
		b.at(0, func() {
			b.signalQuietly(workflows.MessageRelease, workflows.ReleaseMessage{})
			b.signalQuietly(workflows.MessageCommit, used(70))
		})
		b.ends(earmark.OutcomeConflict, earmark.StateCommitted)
		require.False(t, b.ledger.admitted()[0].Released)
		b.holds(0, 70)
	})
}

func TestCancel(t *testing.T) {
	t.Parallel()
	canceled := func(t *testing.T, b *env) {
		t.Helper()
		_, err := b.run()
		require.True(t, temporal.IsCanceledError(err), "it closed with %v", err)
		require.Equal(t, earmark.StateExpired, b.ledger.row(b.input.Admission.ID).State, "usage may still turn up")
		require.Equal(t, "the workflow was cancelled", b.ledger.reasons["give back"])
		b.holds(0, 0)
		late := b.ledger.past(func(m *ledgertest.Ledger) (earmark.Result, error) {
			return m.Commit(t.Context(), b.settlement(), earmark.Amounts{testUnit: 5})
		})
		require.Equal(t, earmark.OutcomeApplied, late.Outcome)
		require.True(t, late.Reservation.Late)
	}
	t.Run("while held", func(t *testing.T) {
		b := setup(t)
		b.at(10*time.Second, b.env.CancelWorkflow)
		canceled(t, b)
		require.Equal(t, 10*time.Second, b.env.Now().Sub(b.start))
	})
	t.Run("while the reserve is under way", func(t *testing.T) {
		b := setup(t)
		b.ledger.away()
		b.at(10*time.Second, b.env.CancelWorkflow)
		b.at(20*time.Second, b.ledger.back)
		canceled(t, b)
	})
	t.Run("in review", func(t *testing.T) {
		b := setup(t)
		b.input.Admission.Request.OnExpiry = earmark.OnExpiryReview
		b.at(2*lease, b.env.CancelWorkflow)
		canceled(t, b)
		require.Equal(t, []string{workflows.StateAttributeReview, ""}, b.indexed)
	})
	t.Run("while Postgres is away", func(t *testing.T) {
		b := setup(t)
		b.at(10*time.Second, func() { b.ledger.away(); b.env.CancelWorkflow() })
		b.at(20*time.Second, b.ledger.back)
		canceled(t, b)
	})
	t.Run("together with a commit", func(t *testing.T) {
		b := setup(t)
		b.at(10*time.Second, func() {
			b.signalQuietly(workflows.MessageCommit, used(70))
			b.env.CancelWorkflow()
		})
		b.ends(earmark.OutcomeApplied, earmark.StateCommitted)
		b.holds(0, 70)
	})
	t.Run("of a denial", func(t *testing.T) {
		b := setup(t)
		b.ledger.away()
		b.input.Admission.Request.Amounts = earmark.Amounts{testUnit: testLimit + 1}
		b.at(time.Second, b.env.CancelWorkflow)
		b.at(5*time.Second, b.ledger.back)
		b.ends(earmark.OutcomeDenied, "")
		require.Zero(t, b.ledger.count("give back"))
	})
}

func TestNotAdmitted(t *testing.T) {
	t.Parallel()
	for outcome, change := range map[earmark.Outcome]func(*earmark.Admission){
		earmark.OutcomeDenied:          func(a *earmark.Admission) { a.Request.Amounts = earmark.Amounts{testUnit: testLimit + 1} },
		earmark.OutcomeNoBudget:        func(a *earmark.Admission) { a.Request.Scopes = []string{"acmecorp"} },
		earmark.OutcomeUnitNotBudgeted: func(a *earmark.Admission) { a.Request.Amounts = earmark.Amounts{"requests": 1} },
		earmark.OutcomeTooLate:         func(a *earmark.Admission) { a.AdmitBy = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		t.Run(string(outcome), func(t *testing.T) {
			b := setup(t)
			change(&b.input.Admission)
			var asked, commit *reply
			b.at(0, func() {
				asked = b.update(workflows.UpdateAdmission, workflows.AdmissionMessage{RequestHash: b.input.Admission.RequestHash})
				if outcome != earmark.OutcomeTooLate {
					commit = b.update(workflows.MessageCommit, used(70))
				}
			})
			b.ends(outcome, "")
			asked.is(t, outcome, "")
			require.Equal(t, outcome == earmark.OutcomeDenied, asked.standing.Decision != nil)
			if commit != nil { // the caller got a denial: there is nothing to charge
				commit.is(t, earmark.OutcomeUnknown, "")
			}
			require.Zero(t, b.ledger.count("charge"))
			b.holds(0, 0)
		})
	}
	t.Run("mismatch", func(t *testing.T) {
		b := setup(t)
		b.exists()
		b.input.Adopt = false
		b.input.Admission.RequestHash = "another"
		b.ends(earmark.OutcomeMismatch, "")
		b.holds(100, 0)
	})
	t.Run("overflow", func(t *testing.T) {
		b := setup(t)
		b.ledger.budget.Enforcement = earmark.EnforcementSoft
		b.ledger.lose()
		b.ledger.past(func(m *ledgertest.Ledger) (earmark.Result, error) {
			return m.Charge(t.Context(), earmark.Charge{ID: "one", Tenant: testTenant, Actor: earmark.OperatorActor("test"),
				Request: earmark.UsageRequest{Scopes: []string{testScope}, Amounts: earmark.Amounts{testUnit: math.MaxInt64}}})
		})
		b.ends(earmark.OutcomeOverflow, "")
	})
	t.Run("the same again, settled", func(t *testing.T) {
		b := setup(t)
		b.exists()
		b.input.Adopt = false
		b.ledger.past(func(m *ledgertest.Ledger) (earmark.Result, error) { return m.Release(t.Context(), b.settlement()) })
		b.ends(earmark.OutcomeSame, earmark.StateReleased)
	})
}

// A caller who got "unknown" may have called the model: usage is charged, although the
// reserve came too late to set anything aside.
func TestUsageOfAnAdmissionThatWasTooLate(t *testing.T) {
	b := setup(t)
	b.input.Admission.AdmitBy = b.start.Add(-time.Second)
	b.at(0, func() { b.signalQuietly(workflows.MessageCommit, used(70)) })
	b.ends(earmark.OutcomeApplied, earmark.StateCommitted)
	b.holds(0, 70)
	require.Len(t, b.ledger.charges, 1)
	require.Zero(t, b.ledger.charges[0].At, "there is no other time than now")
}

// Postgres has lost the row: the workflow knows enough to charge without it, in the
// window that the reservation was made in.
func TestCommitOfALostReservation(t *testing.T) {
	b := setup(t)
	var answer *reply
	b.at(10*time.Second, func() {
		b.ledger.lose()
		answer = b.update(workflows.MessageCommit, used(70))
	})
	b.ends(earmark.OutcomeApplied, earmark.StateCommitted)
	answer.is(t, earmark.OutcomeApplied, earmark.StateCommitted)
	b.holds(0, 70)
	require.Len(t, b.ledger.charges, 1)
	charge := b.ledger.charges[0]
	require.True(t, b.start.Equal(charge.At), "it settles in the window of %s, not %s", b.start, charge.At)
	require.Equal(t, b.input.Admission.ID, charge.ID)
	require.Equal(t, b.input.Admission.RequestHash, charge.RequestHash)
	require.Equal(t, b.input.Admission.Request.Scopes, charge.Request.Scopes)
}

// R4: the journal says who charged a lost row and why, as it does for any other; and
// the workflow's result says it, for a restore.
func TestCommitOfALostReservationNamesItsActor(t *testing.T) {
	t.Parallel()
	const lost = "the reservation was lost by Postgres"
	for name, c := range map[string]struct {
		message workflows.CommitMessage
		actor   earmark.Actor
		reason  string
	}{
		"the caller":  {used(70), earmark.ActorWorkflow, lost},
		"an operator": {workflows.CommitMessage{Usage: used(70).Usage, Operator: "alice", Reason: "the bill says so"}, earmark.OperatorActor("alice"), "the bill says so (" + lost + ")"},
		"a key":       {workflows.CommitMessage{Usage: used(70).Usage, Key: "abcdefgh0129"}, earmark.ActorWorkflow.WithKey("abcdefgh0129"), lost},
		"an operator with a key": {workflows.CommitMessage{Usage: used(70).Usage, Operator: "alice", Key: "abcdefgh0129"},
			earmark.OperatorActor("alice").WithKey("abcdefgh0129"), lost},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.at(10*time.Second, func() {
				b.ledger.lose()
				b.signal(workflows.MessageCommit, c.message)
			})
			result, err := b.run()
			require.NoError(t, err)
			require.Len(t, b.ledger.charges, 1)
			require.Equal(t, c.actor, b.ledger.charges[0].Actor)
			require.Equal(t, c.reason, b.ledger.charges[0].Reason)
			require.Equal(t, c.message.Reason, result.Reason)
			require.Equal(t, c.actor != earmark.ActorWorkflow, result.Actor != nil)
			if result.Actor != nil {
				require.Equal(t, c.actor, *result.Actor)
			}
		})
	}
}

// A message keeps the response from which its usage was computed. One that Postgres could not store is refused, because
// the workflow would try it for ever.
func TestACommitKeepsItsResponse(t *testing.T) {
	b := setup(t)
	message := used(70)
	message.Response = &earmark.ResponseRecord{ProviderUsage: json.RawMessage(`{"prompt_tokens":70}`), UsageFormat: "openai_chat", RespondedAt: time.Unix(0, 0).UTC(), PriceVersion: 3}
	unstorable := message
	unstorable.Response = &earmark.ResponseRecord{ProviderUsage: json.RawMessage(`{"note":"\u0000"}`), UsageFormat: "openai_chat"}
	require.Error(t, unstorable.Validate())
	b.at(10*time.Second, func() {
		b.ledger.lose()
		b.signal(workflows.MessageCommit, unstorable)
		b.signal(workflows.MessageCommit, message)
	})
	_, err := b.run()
	require.NoError(t, err)
	require.Len(t, b.ledger.charges, 1)
	require.Equal(t, message.Response, b.ledger.charges[0].Response)
}

// The result says what was charged and for which row, so that it can be charged
// again should Postgres lose it. What was not charged for sure it leaves out.
func TestEndingTellsTheUsage(t *testing.T) {
	t.Parallel()
	spent := used(70).Usage
	for name, c := range map[string]struct {
		play  func(b *env)
		usage earmark.Amounts
	}{
		"committed": {func(b *env) { b.signal(workflows.MessageCommit, used(70)) }, spent},
		"committed twice": {func(b *env) {
			b.signal(workflows.MessageCommit, used(70))
			b.signal(workflows.MessageCommit, used(70))
		}, spent},
		"committed with others": {func(b *env) {
			b.signal(workflows.MessageCommit, used(70))
			b.signal(workflows.MessageCommit, used(80))
		}, spent},
		"committed past it":       {func(b *env) { commitPast(b, spent); b.signal(workflows.SignalRefresh, nil) }, spent},
		"charged after the loss":  {func(b *env) { b.ledger.lose(); b.signal(workflows.MessageCommit, used(70)) }, spent},
		"estimated":               {func(b *env) {}, nil},
		"released":                {func(b *env) { b.signal(workflows.MessageRelease, nil) }, nil},
		"lost, and nothing spent": {func(b *env) { b.ledger.lose() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.input.Admission.Request.OnExpiry = earmark.OnExpiryCommit
			b.at(10*time.Second, func() { c.play(b) })
			ending, err := b.run()
			require.NoError(t, err)
			require.Equal(t, c.usage, ending.Usage)
			if c.usage == nil {
				require.Nil(t, ending.CreatedAt)
				return
			}
			require.True(t, b.start.Equal(*ending.CreatedAt), "%s, not %s", ending.CreatedAt, b.start)
		})
	}
}

func commitPast(b *env, usage earmark.Amounts) {
	b.ledger.past(func(m *ledgertest.Ledger) (earmark.Result, error) {
		return m.Commit(b.Context(), b.settlement(), usage)
	})
}

func TestLostReservation(t *testing.T) {
	t.Parallel()
	t.Run("at its expiry", func(t *testing.T) {
		b := setup(t)
		b.at(10*time.Second, b.ledger.lose)
		require.Equal(t, lease, b.ends(earmark.OutcomeUnknown, ""))
	})
	t.Run("at a release", func(t *testing.T) {
		b := setup(t)
		b.at(10*time.Second, func() { b.ledger.lose(); b.signal(workflows.MessageRelease, nil) })
		require.Equal(t, 10*time.Second, b.ends(earmark.OutcomeUnknown, ""))
	})
	// A look or an extension settles nothing, and so ends nothing: usage that
	// comes later is still charged.
	for _, name := range []string{workflows.SignalRefresh, workflows.SignalExtend} {
		t.Run("at a "+name+", then committed", func(t *testing.T) {
			b := setup(t)
			b.at(10*time.Second, func() { b.ledger.lose(); b.signal(name, workflows.ExtendMessage{TTLSeconds: 60}) })
			b.at(20*time.Second, func() { b.signal(workflows.MessageCommit, used(70)) })
			b.ends(earmark.OutcomeApplied, earmark.StateCommitted)
			b.holds(0, 70)
		})
	}
	t.Run("no budget covers it any more", func(t *testing.T) {
		b := setup(t)
		b.at(10*time.Second, func() {
			b.ledger.budget.Scope = "elsewhere"
			b.ledger.lose()
			b.signal(workflows.MessageCommit, used(70))
		})
		b.at(45*time.Second, func() {
			require.Equal(t, []string{workflows.StateAttributeSettling}, b.indexed, "an operator has to see it")
			b.ledger.budget.Scope = testTenant
			b.ledger.lose()
		})
		b.ends(earmark.OutcomeApplied, earmark.StateCommitted)
		b.holds(0, 70)
	})
}

// A backup may be older than the end of a lease: what waited for review is held
// again, and nobody would end it without a timer.
func TestHeldAgainAfterReview(t *testing.T) {
	b := setup(t)
	b.input.Admission.Request.OnExpiry = earmark.OnExpiryReview
	b.exists()
	b.ledger.past(func(m *ledgertest.Ledger) (earmark.Result, error) {
		b.env.SetStartTime(b.start.Add(2 * lease)) // by now the lease is over
		return m.Expire(t.Context(), b.settlement())
	})
	b.at(time.Second, func() {
		b.ledger.lose()
		b.ledger.past(func(m *ledgertest.Ledger) (earmark.Result, error) {
			b.input.Admission.Request.OnExpiry = earmark.OnExpiryRelease
			return m.Reserve(t.Context(), b.input.Admission)
		})
		b.signal(workflows.SignalRefresh, nil)
	})
	b.ends(earmark.OutcomeApplied, earmark.StateExpired)
}

func TestOverflowOnCommit(t *testing.T) {
	b := setup(t)
	b.ledger.past(func(m *ledgertest.Ledger) (earmark.Result, error) {
		return m.Charge(t.Context(), earmark.Charge{ID: "one", Tenant: testTenant, Actor: earmark.OperatorActor("test"),
			Request: earmark.UsageRequest{Scopes: []string{testScope}, Amounts: earmark.Amounts{testUnit: 10}}})
	})
	var refused *reply
	b.at(10*time.Second, func() { refused = b.update(workflows.MessageCommit, used(math.MaxInt64)) })
	b.at(20*time.Second, func() { b.holds(100, 10) })
	require.Equal(t, lease, b.ends(earmark.OutcomeApplied, earmark.StateExpired), "it stayed held until its lease was over")
	refused.is(t, earmark.OutcomeOverflow, "")
}

func TestUnitsMismatchOnCommit(t *testing.T) {
	b := setup(t)
	var refused *reply
	b.at(10*time.Second, func() {
		refused = b.update(workflows.MessageCommit, workflows.CommitMessage{Usage: earmark.Amounts{"requests": 1}})
	})
	require.Equal(t, lease, b.ends(earmark.OutcomeApplied, earmark.StateExpired))
	refused.is(t, earmark.OutcomeUnitsMismatch, earmark.StateHeld)
	require.Equal(t, "requests", refused.standing.Subject)
}

// Nothing is given back unseen: refused usage makes the expiry a review.
func TestOverageRejected(t *testing.T) {
	b := setup(t)
	b.ledger.budget.Overage = earmark.OverageReject
	b.ledger.lose()
	var refused *reply
	b.at(10*time.Second, func() { refused = b.update(workflows.MessageCommit, used(150)) })
	b.at(2*lease, func() {
		b.holds(100, 0)
		require.Equal(t, []string{workflows.StateAttributeReview}, b.indexed)
		b.signal(workflows.MessageCommit, used(150))
	})
	b.ends(earmark.OutcomeApplied, earmark.StateCommitted)
	refused.is(t, earmark.OutcomeOverageRejected, earmark.StateHeld)
	require.Equal(t, earmark.OnExpiryReview, refused.standing.OnExpiry, "the refusal has changed the policy")
	b.holds(0, 150)
}

// A local activity for a moment, then a regular one that never gives up; after 30 s
// the search attribute says so, and stops saying so.
func TestPostgresIsAway(t *testing.T) {
	t.Parallel()
	t.Run("at the commit", func(t *testing.T) {
		b := setup(t)
		var answer *reply
		b.at(10*time.Second, func() {
			b.ledger.away()
			answer = b.update(workflows.MessageCommit, used(70))
		})
		b.at(35*time.Second, func() { require.Empty(t, b.indexed) })
		b.at(45*time.Second, func() { require.Equal(t, []string{workflows.StateAttributeSettling}, b.indexed) })
		b.at(46*time.Second, b.ledger.back) // the test environment's "unlimited" is 10 tries, some 43 s
		require.Less(t, b.ends(earmark.OutcomeApplied, earmark.StateCommitted), time.Minute, "it is tried every 10 s at the longest")
		require.Equal(t, []string{workflows.StateAttributeSettling, ""}, b.indexed)
		answer.is(t, earmark.OutcomeApplied, earmark.StateCommitted)
		b.holds(0, 70)
	})
	t.Run("at the reserve", func(t *testing.T) {
		b := setup(t)
		b.ledger.away()
		b.at(5*time.Second, b.ledger.back)
		b.at(30*time.Second, func() { b.holds(100, 0) })
		b.ends(earmark.OutcomeApplied, earmark.StateExpired)
		require.Empty(t, b.indexed, "it did not last")
	})
	t.Run("even after the regular activity has ended", func(t *testing.T) {
		b := setup(t)
		b.at(10*time.Second, func() { b.ledger.away(); b.signal(workflows.MessageCommit, used(70)) })
		b.at(time.Hour, b.ledger.back)
		require.InDelta(t, time.Hour, b.ends(earmark.OutcomeApplied, earmark.StateCommitted), float64(2*time.Minute))
		b.holds(0, 70)
	})
	t.Run("in review", func(t *testing.T) {
		b := setup(t)
		b.input.Admission.Request.OnExpiry = earmark.OnExpiryReview
		b.at(2*lease, func() { b.ledger.away(); b.signal(workflows.SignalRefresh, nil) })
		b.at(2*lease+35*time.Second, b.ledger.back)
		b.at(4*lease, func() { b.signal(workflows.MessageRelease, nil) })
		b.ends(earmark.OutcomeApplied, earmark.StateReleased)
		review, settling := workflows.StateAttributeReview, workflows.StateAttributeSettling
		require.Equal(t, []string{review, settling, review, ""}, b.indexed)
	})
	t.Run("and a try lands although its answer is lost", func(t *testing.T) {
		b := setup(t)
		b.ledger.setBefore(func(verb string, nth int) error {
			if verb == "commit" && nth == 1 {
				b.ledger.past(func(m *ledgertest.Ledger) (earmark.Result, error) {
					return m.Commit(t.Context(), b.settlement(), used(70).Usage)
				})
				return errAway
			}
			return nil
		})
		b.at(10*time.Second, func() { b.signal(workflows.MessageCommit, used(70)) })
		b.ends(earmark.OutcomeSame, earmark.StateCommitted)
		b.holds(0, 70)
	})
}

// No payload whatsoever fails the workflow.
func TestMalformedSignals(t *testing.T) {
	t.Parallel()
	raw := func(encoding, data string) converter.RawValue {
		return converter.NewRawValue(&commonpb.Payload{Metadata: map[string][]byte{"encoding": []byte(encoding)}, Data: []byte(data)})
	}
	payloads := []any{
		nil, "nonsense", 12, []string{"a"}, map[string]any{},
		raw("json/plain", "{"), raw("json/plain", ""), raw("binary/plain", "\x00\xff"), raw("unheard/of", "{}"), raw("", "{}"),
		map[string]any{"usage": "many"}, map[string]any{"usage": map[string]any{testUnit: "70"}},
		map[string]any{"usage": map[string]any{testUnit: 0.5}}, map[string]any{"usage": map[string]any{testUnit: 1e30}},
		map[string]any{"usage": map[string]any{testUnit: -1}}, map[string]any{"usage": map[string]any{}},
		map[string]any{"usage": map[string]any{"Not A Unit": 1}}, map[string]any{"usage": nil},
		map[string]any{"ttl_seconds": -5}, map[string]any{"ttl_seconds": "soon"}, map[string]any{"ttl_seconds": int64(math.MaxInt64)},
		map[string]any{"reason": 7}, map[string]any{"reason": "NUL \x00"}, map[string]any{"reason": []string{}},
	}
	t.Run("of commit and extend", func(t *testing.T) {
		b := setup(t)
		for i, payload := range payloads {
			b.at(time.Duration(i+1)*time.Second, func() {
				b.signal(workflows.MessageCommit, payload)
				b.signal(workflows.SignalExtend, payload)
			})
		}
		require.Equal(t, lease, b.ends(earmark.OutcomeApplied, earmark.StateExpired))
		require.Equal(t, []string{"reserve", "expire"}, b.ledger.journal())
	})
	t.Run("of refresh, which needs none", func(t *testing.T) {
		b := setup(t)
		for i, payload := range payloads {
			b.at(time.Duration(i+1)*time.Second, func() { b.signal(workflows.SignalRefresh, payload) })
		}
		require.Equal(t, lease, b.ends(earmark.OutcomeApplied, earmark.StateExpired))
	})
	t.Run("of release", func(t *testing.T) {
		b := setup(t)
		for i, payload := range []any{"nonsense", 12, map[string]any{"reason": 7}, map[string]any{"reason": "NUL \x00"}, raw("json/plain", "{")} {
			b.at(time.Duration(i+1)*time.Second, func() { b.signal(workflows.MessageRelease, payload) })
		}
		require.Equal(t, lease, b.ends(earmark.OutcomeApplied, earmark.StateExpired))
		require.Zero(t, b.ledger.count("release"))
	})
	t.Run("nothing of a broken one is left in the next", func(t *testing.T) {
		b := setup(t)
		b.at(10*time.Second, func() {
			b.signalQuietly(workflows.MessageCommit, map[string]any{"usage": map[string]any{"requests": 5, testUnit: "70"}})
			b.signal(workflows.MessageCommit, used(30))
		})
		b.ends(earmark.OutcomeApplied, earmark.StateCommitted)
		b.holds(0, 30)
	})
}

func TestUpdatesAreValidated(t *testing.T) {
	b := setup(t)
	var refused []*reply
	b.at(10*time.Second, func() {
		for _, payload := range []any{"nonsense", map[string]any{}, used(-1), map[string]any{"usage": map[string]any{testUnit: 0.5}}} {
			refused = append(refused, b.update(workflows.MessageCommit, payload))
		}
		refused = append(refused, b.update(workflows.MessageRelease, workflows.ReleaseMessage{Reason: "NUL \x00"}))
		refused = append(refused, b.update(workflows.UpdateAdmission, 12))
		refused = append(refused, b.update("unheard of", nil))
	})
	require.Equal(t, lease, b.ends(earmark.OutcomeApplied, earmark.StateExpired))
	require.Equal(t, []string{"reserve", "expire"}, b.ledger.journal())
	for i, r := range refused {
		require.Error(t, r.rejected, "number %d", i)
		require.False(t, r.accepted, "number %d", i)
	}
}

func TestAdmissionUpdate(t *testing.T) {
	b := setup(t)
	mine := workflows.AdmissionMessage{RequestHash: b.input.Admission.RequestHash}
	var early, other, late *reply
	b.ledger.away()
	b.at(time.Second, func() { early = b.update(workflows.UpdateAdmission, mine) })
	b.at(2*time.Second, func() {
		other = b.update(workflows.UpdateAdmission, workflows.AdmissionMessage{RequestHash: "another"})
	})
	b.at(3*time.Second, func() {
		require.False(t, early.answered, "there is no decision yet")
		require.True(t, other.answered)
		b.ledger.back()
	})
	b.at(30*time.Second, func() { late = b.update(workflows.UpdateAdmission, mine) })
	b.at(40*time.Second, func() { b.signal(workflows.MessageCommit, used(70)) })
	b.ends(earmark.OutcomeApplied, earmark.StateCommitted)
	early.is(t, earmark.OutcomeApplied, earmark.StateHeld)
	other.is(t, earmark.OutcomeMismatch, "")
	late.is(t, earmark.OutcomeApplied, earmark.StateHeld)
}

func TestQuery(t *testing.T) {
	b := setup(t)
	query := func() workflows.QueryResult {
		value, err := b.env.QueryWorkflow(workflows.QueryReservation)
		require.NoError(t, err)
		var view workflows.QueryResult
		require.NoError(t, value.Get(&view))
		return view
	}
	b.at(10*time.Second, func() {
		view := query()
		require.Equal(t, b.input.Admission.ID, view.ReservationID)
		require.Equal(t, b.input.Admission.Request.Amounts, view.Amounts)
		require.Equal(t, b.input.Admission.Request.Scopes, view.Scopes)
		require.Equal(t, earmark.OnExpiryRelease, view.OnExpiry)
		require.Equal(t, earmark.StateHeld, view.Snapshot.State)
		require.Zero(t, view.Pending)
		b.ledger.away()
		b.signal(workflows.SignalRefresh, nil)
	})
	b.at(11*time.Second, func() { b.update(workflows.MessageRelease, workflows.ReleaseMessage{}) })
	b.at(12*time.Second, func() {
		require.Equal(t, 1, query().Pending)
		b.ledger.back()
	})
	b.ends(earmark.OutcomeApplied, earmark.StateReleased)
	require.Equal(t, earmark.StateReleased, query().Snapshot.State)
}

func TestAdopt(t *testing.T) {
	t.Parallel()
	t.Run("held, then committed", func(t *testing.T) {
		b := setup(t)
		b.exists()
		var asked *reply
		b.at(5*time.Second, func() {
			asked = b.update(workflows.UpdateAdmission, workflows.AdmissionMessage{RequestHash: b.input.Admission.RequestHash})
		})
		b.at(10*time.Second, func() { b.signal(workflows.MessageCommit, used(70)) })
		b.ends(earmark.OutcomeApplied, earmark.StateCommitted)
		asked.is(t, earmark.OutcomeSame, earmark.StateHeld)
		require.Equal(t, []string{"inspect", "commit"}, b.ledger.journal())
	})
	t.Run("held, then its lease is over", func(t *testing.T) {
		b := setup(t)
		b.exists()
		require.Equal(t, lease, b.ends(earmark.OutcomeApplied, earmark.StateExpired))
		require.Equal(t, []string{"inspect", "expire"}, b.ledger.journal())
	})
	t.Run("held, then lost", func(t *testing.T) {
		b := setup(t)
		b.exists()
		b.at(10*time.Second, func() { b.ledger.lose(); b.signal(workflows.MessageCommit, used(70)) })
		b.ends(earmark.OutcomeApplied, earmark.StateCommitted)
		require.True(t, b.start.Equal(b.ledger.charges[0].At))
	})
	t.Run("review", func(t *testing.T) {
		b := setup(t)
		b.input.Admission.Request.OnExpiry = earmark.OnExpiryReview
		b.input.Admission.Request.TTLSeconds = 1
		b.exists()
		b.env.SetStartTime(b.start.Add(lease))
		b.ledger.past(func(m *ledgertest.Ledger) (earmark.Result, error) { return m.Expire(t.Context(), b.settlement()) })
		b.at(lease, func() { b.signal(workflows.MessageRelease, nil) })
		b.ends(earmark.OutcomeApplied, earmark.StateReleased)
		require.Equal(t, []string{workflows.StateAttributeReview, ""}, b.indexed)
	})
	t.Run("settled", func(t *testing.T) {
		b := setup(t)
		b.exists()
		b.ledger.past(func(m *ledgertest.Ledger) (earmark.Result, error) { return m.Release(t.Context(), b.settlement()) })
		require.Zero(t, b.ends(earmark.OutcomeSame, earmark.StateReleased))
	})
	t.Run("unknown", func(t *testing.T) {
		b := setup(t)
		b.input.Adopt = true
		require.Zero(t, b.ends(earmark.OutcomeUnknown, ""))
		require.Equal(t, []string{"inspect"}, b.ledger.journal(), "it never reserves")
	})
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	t.Run("nothing has changed", func(t *testing.T) {
		b := setup(t)
		b.at(10*time.Second, func() { b.signal(workflows.SignalRefresh, nil) })
		require.Equal(t, lease, b.ends(earmark.OutcomeApplied, earmark.StateExpired))
	})
	t.Run("settled past the workflow", func(t *testing.T) {
		b := setup(t)
		b.at(10*time.Second, func() {
			b.ledger.past(func(m *ledgertest.Ledger) (earmark.Result, error) {
				return m.Commit(t.Context(), b.settlement(), used(70).Usage)
			})
			b.signal(workflows.SignalRefresh, nil)
		})
		require.Equal(t, 10*time.Second, b.ends(earmark.OutcomeSame, earmark.StateCommitted))
	})
	t.Run("expired into review past the workflow", func(t *testing.T) {
		b := setup(t)
		b.input.Admission.Request.OnExpiry = earmark.OnExpiryReview
		b.input.Admission.Request.TTLSeconds = 10
		b.ledger.setBefore(func(verb string, _ int) error {
			if verb == "expire" {
				b.ledger.past(func(m *ledgertest.Ledger) (earmark.Result, error) { return m.Expire(t.Context(), b.settlement()) })
			}
			return nil
		})
		b.at(lease, func() { b.signal(workflows.SignalRefresh, nil) })
		b.at(2*lease, func() { b.signal(workflows.MessageRelease, nil) })
		b.ends(earmark.OutcomeApplied, earmark.StateReleased)
		require.Equal(t, []string{workflows.StateAttributeReview, ""}, b.indexed)
	})
}

// Whoever asks in the workflow's last moment is answered before it closes.
func TestUpdatesWithTheClosingEvent(t *testing.T) {
	b := setup(t)
	var first, second, third, asked *reply
	b.at(10*time.Second, func() {
		first = b.update(workflows.MessageCommit, used(70))
		second = b.update(workflows.MessageCommit, used(70))
		third = b.update(workflows.MessageRelease, workflows.ReleaseMessage{})
		asked = b.update(workflows.UpdateAdmission, workflows.AdmissionMessage{RequestHash: b.input.Admission.RequestHash})
	})
	b.ends(earmark.OutcomeConflict, earmark.StateCommitted)
	first.is(t, earmark.OutcomeApplied, earmark.StateCommitted)
	second.is(t, earmark.OutcomeSame, earmark.StateCommitted)
	third.is(t, earmark.OutcomeConflict, earmark.StateCommitted)
	asked.is(t, earmark.OutcomeApplied, earmark.StateHeld)
}

// A signal of the last task is applied, not lost with the workflow.
func TestSignalsWithTheClosingEvent(t *testing.T) {
	b := setup(t)
	b.ledger.setBefore(func(verb string, nth int) error {
		if verb == "expire" && nth == 1 {
			b.signal(workflows.MessageCommit, used(70))
		}
		return nil
	})
	b.ends(earmark.OutcomeApplied, earmark.StateCommitted)
	b.holds(0, 70)
	require.True(t, b.ledger.row(b.input.Admission.ID).Late)
}

// A namespace without the search attributes refuses the whole task that sets one.
func TestUnindexed(t *testing.T) {
	b := setup(t)
	b.input.Unindexed = true
	b.input.Admission.Request.OnExpiry = earmark.OnExpiryReview
	b.at(2*lease, func() { b.ledger.away(); b.signal(workflows.MessageRelease, nil) })
	b.at(4*lease, b.ledger.back)
	b.ends(earmark.OutcomeApplied, earmark.StateReleased)
	require.Empty(t, b.indexed)
}

// A history does not grow without end: the guard is handed on to a new run, which
// takes over what exists, once nothing is left to apply.
func TestContinueAsNew(t *testing.T) {
	b := setup(t)
	var answer *reply
	b.at(10*time.Second, func() {
		b.env.SetContinueAsNewSuggested(true)
		b.signalQuietly(workflows.SignalRefresh, nil)
		answer = b.update(workflows.MessageCommit, workflows.CommitMessage{Usage: earmark.Amounts{"requests": 1}})
	})
	_, err := b.run()
	var next *workflow.ContinueAsNewError
	require.ErrorAs(t, err, &next)
	require.Equal(t, workflows.ReservationType, next.WorkflowType.Name)
	var input workflows.ReservationInput
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(next.Input, &input))
	want := b.input
	want.Resume = true
	require.Equal(t, want, input)
	answer.is(t, earmark.OutcomeUnitsMismatch, earmark.StateHeld)
	require.Equal(t, []string{"reserve", "commit", "inspect"}, b.ledger.journal(), "all that came was applied")
	b.holds(100, 0)
}
