package postgres_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func responseRecord(usage string) *earmark.ResponseRecord {
	return &earmark.ResponseRecord{
		ProviderUsage: json.RawMessage(usage), UsageFormat: "openai_chat", Model: "gpt-5", Provider: "openai",
		RespondedAt: time.Date(2026, 3, 4, 16, 30, 0, 123456789, time.UTC), PriceVersion: 3,
	}
}

// stored returns the response of a reservation as the ledger has it now.
func (b *env) stored(id string) *earmark.ResponseRecord {
	b.t.Helper()
	r, err := b.Reservation(ctx(), earmark.DefaultTenant, id)
	require.NoError(b.t, err)
	return r.Response
}

func (b *env) requireResponse(want *earmark.ResponseRecord, id string) {
	b.t.Helper()
	got := b.stored(id)
	require.NotNil(b.t, got)
	require.JSONEq(b.t, string(want.ProviderUsage), string(got.ProviderUsage))
	copied := *got
	copied.ProviderUsage = want.ProviderUsage
	require.Equal(b.t, *want, copied)
}

// A charge keeps the response from which it was computed: of a commit, alone or in a batch, and of a charge without
// a reservation. The real usage of an estimate replaces its response, and a repeat replaces none.
func TestAChargeKeepsItsResponse(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	first, real := responseRecord(`{"prompt_tokens": 7, "note": "\u00e9 \\u0000", "cost": 1.50e-7}`), responseRecord(`{"prompt_tokens": 8}`)

	s := b.held(admission("commit", tokens(10), "acme"))
	require.Nil(t, b.stored(s.ID))
	s.Estimated, s.Response = true, first
	require.Equal(t, earmark.OutcomeApplied, b.commit(s, tokens(7)).Outcome)
	b.requireResponse(first, s.ID)
	s.Estimated, s.Response = false, real
	require.Equal(t, earmark.OutcomeApplied, b.commit(s, tokens(8)).Outcome)
	b.requireResponse(real, s.ID)
	s.Response = first
	require.Equal(t, earmark.OutcomeSame, b.commit(s, tokens(8)).Outcome)
	b.requireResponse(real, s.ID)
	require.Equal(t, earmark.OutcomeApplied, b.correct(correction(s.ID, "refund", tokens(-1))).Outcome)
	b.requireResponse(real, s.ID)

	amounts := b.held(admission("amounts", tokens(10), "acme"))
	amounts.Estimated, amounts.Response = true, first
	b.commit(amounts, tokens(7))
	amounts.Estimated, amounts.Response = false, nil
	b.commit(amounts, tokens(6))
	require.Nil(t, b.stored(amounts.ID), "the charge was not computed from it")

	one, two := b.held(admission("one", tokens(10), "acme")), b.held(admission("two", tokens(10), "acme"))
	one.Response = first
	type call struct {
		earmark.Transition
		Usage  earmark.Amounts `json:"usage"`
		Reason string          `json:"reason"`
	}
	for _, result := range b.together("SELECT earmark.commit_batch($1)", []call{{one, tokens(7), ""}, {two, tokens(7), ""}}) {
		require.Equal(t, earmark.OutcomeApplied, result.Outcome)
	}
	b.requireResponse(first, one.ID)
	require.Nil(t, b.stored(two.ID))

	usage := earmark.UsageRequest{Scopes: []string{"acme"}, Amounts: tokens(7)}
	charge := earmark.Charge{ID: earmark.ReservationID(earmark.DefaultTenant, "u"), Tenant: earmark.DefaultTenant, Request: usage, RequestHash: usage.Hash(),
		Actor: earmark.ActorAPI, Response: first}
	_, err := b.Charge(ctx(), charge)
	require.NoError(t, err)
	b.requireResponse(first, charge.ID)

	page, err := b.Reservations(ctx(), earmark.DefaultTenant, earmark.ReservationFilter{})
	require.NoError(t, err)
	require.Len(t, page.Data, 5)
	for _, r := range page.Data {
		require.Nil(t, r.Response, "a list leaves it out")
	}
}

// What Validate accepts, the database stores.
func TestTheDatabaseStoresEveryValidResponse(t *testing.T) {
	b := setup(t)
	for _, usage := range []string{`{}`, `{"a": "\u00e9\ud83d\ude00", "b": [1e308, -1e-400, 12.0, null, true], "c": {"": {}}}`, `{"a": 123456789012345678901234567890.5}`} {
		r := responseRecord(usage)
		require.NoError(t, r.Validate(), usage)
		var stored []byte
		require.NoError(t, b.pool.QueryRow(ctx(), "SELECT $1::jsonb", r).Scan(&stored), usage)
	}
	for _, usage := range []string{`{"a": "\u0000"}`, `{"\u0000": 1}`, `{"a": "\ud800"}`, `{"a": 1e400000}`} {
		r := responseRecord(usage)
		require.Equal(t, earmark.CodeInvalidRequest, earmark.ErrorCode(r.Validate()), usage)
		_, err := b.pool.Exec(ctx(), "SELECT $1::jsonb", r)
		require.Error(t, err, usage)
	}
}
