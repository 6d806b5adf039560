package postgres_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// A stream that broke leaves an estimate. The first real usage corrects it, once, and in
// full, and no other estimate does.
func TestCallersEstimateIsCorrectedOnce(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	s := b.held(admission("k", tokens(100), "acme"))
	estimate := s
	estimate.Estimated = true

	result := b.commit(estimate, tokens(60))
	require.Equal(t, earmark.OutcomeApplied, result.Outcome)
	require.Equal(t, earmark.StateCommitted, result.Reservation.State)
	require.True(t, result.Reservation.Estimated)
	b.requireBalance(budget.ID, 0, 60)
	require.Equal(t, earmark.OutcomeSame, b.commit(estimate, tokens(60)).Outcome, "a repeat")
	require.Equal(t, earmark.OutcomeConflict, b.commit(estimate, tokens(61)).Outcome, "another estimate")
	b.requireBalance(budget.ID, 0, 60)

	result = b.commit(s, tokens(130))
	require.Equal(t, earmark.OutcomeApplied, result.Outcome)
	require.False(t, result.Reservation.Estimated)
	require.True(t, result.Reservation.Late)
	require.Equal(t, "late, corrects an estimate", result.Reservation.Reason)
	b.requireBalance(budget.ID, 0, 130)
	require.Equal(t, earmark.OutcomeSame, b.commit(s, tokens(130)).Outcome)
	require.Equal(t, earmark.OutcomeConflict, b.commit(s, tokens(131)).Outcome)
	require.Equal(t, earmark.OutcomeConflict, b.commit(estimate, tokens(1)).Outcome)
	b.requireBalance(budget.ID, 0, 130)
}

// The expiry's own estimate is the whole reserved amount; a caller's estimate that comes
// later does not replace it, real usage does.
func TestCallersEstimateAfterAnExpiry(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	for policy, want := range map[earmark.OnExpiry]earmark.Outcome{
		earmark.OnExpiryCommit: earmark.OutcomeConflict, earmark.OnExpiryRelease: earmark.OutcomeApplied, earmark.OnExpiryReview: earmark.OutcomeApplied,
	} {
		a := admission("k-"+string(policy), tokens(100), "acme")
		a.Request.OnExpiry = policy
		s := b.held(a)
		b.due(s.ID)
		b.expire(s)
		estimate := s
		estimate.Estimated = true
		require.Equal(t, want, b.commit(estimate, tokens(60)).Outcome, policy)
		result := b.commit(s, tokens(70))
		require.Equal(t, earmark.OutcomeApplied, result.Outcome, policy)
		require.False(t, result.Reservation.Estimated)
	}
	b.requireBalance(budget.ID, 0, 210)
}

func TestCountedUnits(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	b.budget("acme", "usd_micros", 1000)
	b.budget("acme/chat", "requests", 1000)
	b.budget("acme/chat/bob", "tokens", 1000)
	gone := b.budget("acme/chat", "images", 1000)
	_, err := b.ArchiveBudget(ctx(), earmark.DefaultTenant, gone.ID, earmark.ActorAPI)
	require.NoError(t, err)
	b.budget("acme/mail", "pages", 1000)
	b.held(admission("k", tokens(100), "acme"))
	known := admission("k", tokens(100), "acme")

	for name, example := range map[string]struct {
		id, hash string
		scopes   []string
		want     earmark.Counted
	}{
		"those above too": {scopes: []string{"acme/chat/bob"}, want: earmark.Counted{Units: []string{"requests", "tokens", "usd_micros"}}},
		"of all scopes":   {scopes: []string{"acme", "acme/mail"}, want: earmark.Counted{Units: []string{"pages", "tokens", "usd_micros"}}},
		"no budget":       {scopes: []string{"acme", "nobody"}, want: earmark.Counted{Result: earmark.Result{Outcome: earmark.OutcomeNoBudget, Subject: "nobody"}}},
		"other request":   {id: known.ID, hash: "other", scopes: []string{"acme"}, want: earmark.Counted{Result: earmark.Result{Outcome: earmark.OutcomeMismatch}}},
	} {
		counted, err := b.CountedUnits(ctx(), earmark.DefaultTenant, example.id, example.hash, example.scopes)
		require.NoError(t, err)
		if example.want.Outcome == "" {
			example.want.Outcome = earmark.OutcomeApplied
		}
		require.Equal(t, example.want, counted, name)
	}
	counted, err := b.CountedUnits(ctx(), earmark.DefaultTenant, known.ID, known.RequestHash, []string{"nobody"})
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeSame, counted.Outcome)
	require.Equal(t, known.ID, counted.Reservation.ID)
}
