//go:build unix

package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/keys"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/postgres/postgrestest"
)

// onDatabase runs commands on a database of their own.
func onDatabase(t *testing.T) (run func(args ...string) result, ledger *postgres.Ledger) {
	t.Helper()
	pool := postgrestest.Pool(t, stack.PostgresURL())
	t.Cleanup(func() {
		report, err := postgres.New(pool).CheckRules(context.Background())
		require.NoError(t, err)
		require.Empty(t, report.Mismatches())
	})
	return func(args ...string) result {
		t.Helper()
		return earmarkPipe(t, "", append(args, "--database-url", pool.Config().ConnString())...)
	}, postgres.New(pool)
}

func listed[T any](t *testing.T, r result) []T {
	t.Helper()
	var page earmark.Page[T]
	require.NoError(t, json.Unmarshal([]byte(r.ok(t)), &page))
	return page.Data
}

// The secret goes to standard output alone, so that KEY=$(earmark key create …) works, and nothing else repeats it.
func TestKeyCommands(t *testing.T) {
	t.Parallel()
	run, ledger := onDatabase(t)
	run("tenant", "create", "acme", "--as", "alice", "--reason", "a customer").ok(t)
	created := run("key", "create", "--tenant", "acme", "--role", "settle", "--scope", "acme/ml", "--scope", "acme/a@b.com", "--expires", "90d",
		"--name", "worker", "--rate", "50/s", "--as", "alice", "--reason", "for the worker")
	secret := created.ok(t)
	require.Equal(t, secret+"\n", created.stdout)
	token, err := keys.Parse(secret)
	require.NoError(t, err)
	require.NotContains(t, created.stderr, secret[len("emk_")+len(token.ID)+1:])
	for _, words := range []string{"shown this once", token.ID, "acme", "worker", "settle", "acme/ml", "acme/a@b.com", "50/s", "works until "} {
		require.Contains(t, created.stderr, words)
	}
	credential, err := ledger.Credential(t.Context(), token.ID)
	require.NoError(t, err)
	require.True(t, keys.Equal(token.Hash(), credential.Hash))
	require.Equal(t, []string{"acme/ml", "acme/x--a_40b.com"}, credential.Key.Scopes)
	require.Equal(t, "50/s", credential.Key.Rate.String())
	require.WithinDuration(t, time.Now().Add(90*24*time.Hour), *credential.Key.ExpiresAt, time.Minute)

	rotated := run("key", "rotate", token.ID, "--overlap", "7d")
	next, err := keys.Parse(rotated.ok(t))
	require.NoError(t, err)
	require.Contains(t, rotated.stderr, "It replaces "+token.ID+", which works until ")
	ending, err := ledger.Credential(t.Context(), token.ID)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(7*24*time.Hour), *ending.Key.ExpiresAt, time.Minute)
	again := run("key", "rotate", token.ID)
	require.Equal(t, exitUsage, again.code)
	require.Contains(t, again.stderr, next.ID)
	require.Contains(t, run("key", "revoke", next.ID, "--reason", "it was in a log").ok(t), "was revoked")
	run("key", "revoke", next.ID, "--reason", "again").ok(t)

	var issued earmark.IssuedKey
	asJSON := run("key", "create", "--role", "admin", "--json")
	require.NoError(t, json.Unmarshal([]byte(asJSON.ok(t)), &issued))
	require.Empty(t, asJSON.stderr)
	require.True(t, strings.HasPrefix(issued.Secret, "emk_"+issued.ID+"_"))
	require.Equal(t, earmark.DefaultTenant, issued.Tenant)

	table := run("key", "list").ok(t)
	require.NotContains(t, table, "…")
	for _, words := range []string{token.ID, next.ID, issued.ID, "active", "revoked", "acme/ml,acme/a@b.com", "admin", "all"} {
		require.Contains(t, table, words)
	}
	theirs := listed[earmark.Key](t, run("key", "list", "--tenant", "acme", "--json"))
	require.Equal(t, []string{next.ID, token.ID}, []string{theirs[0].ID, theirs[1].ID})
	require.Len(t, theirs, 2)
	require.Len(t, listed[earmark.Key](t, run("key", "list", "--json")), 3)
	run("tenant", "create", "empty").ok(t)
	require.JSONEq(t, `{"data": [], "next_cursor": ""}`, run("key", "list", "--tenant", "empty", "--json").ok(t))
	require.Contains(t, run("key", "list", "--tenant", "empty").ok(t), "No keys.")

	page, err := ledger.Audit(t.Context(), "acme", earmark.AuditFilter{Actor: "operator:alice"})
	require.NoError(t, err)
	require.Len(t, page.Data, 2)
	require.Equal(t, []string{"key.create", "for the worker"}, []string{page.Data[0].Action, page.Data[0].Reason})
}

func TestTenantCommands(t *testing.T) {
	t.Parallel()
	run, _ := onDatabase(t)
	require.Contains(t, run("tenant", "create", "acme").ok(t), "active")
	exists := run("tenant", "create", "acme")
	require.Equal(t, exitUsage, exists.code)
	require.Contains(t, exists.stderr, `TENANT: "acme" exists already`)
	require.Contains(t, run("tenant", "disable", "acme", "--reason", "it does not pay").ok(t), "disabled")
	tenants := listed[earmark.Tenant](t, run("tenant", "list", "--json"))
	require.Equal(t, []string{"acme", "default"}, []string{tenants[0].ID, tenants[1].ID})
	require.NotNil(t, tenants[0].DisabledAt)
	require.Contains(t, run("tenant", "list").ok(t), "disabled")
	run("tenant", "enable", "acme").ok(t)
	require.NotContains(t, run("tenant", "list").ok(t), "disabled")

	for command, words := range map[string]string{
		"tenant disable nobody --reason x":       `there is no tenant "nobody"`,
		"tenant enable nobody":                   `there is no tenant "nobody"`,
		"key create --tenant nobody --role read": `there is no tenant "nobody"`,
		"key list --tenant nobody":               `there is no tenant "nobody"`,
		"key revoke abcdefgh0129 --reason x":     "there is no such key",
		"key rotate abcdefgh0129":                "there is no such key",
	} {
		r := run(strings.Fields(command)...)
		require.Equal(t, exitNotFound, r.code, command)
		require.Contains(t, r.stderr, words, command)
		require.Empty(t, r.stdout, command)
	}
}
