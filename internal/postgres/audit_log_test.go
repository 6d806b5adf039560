package postgres_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// actions are what the audit log has about a subject, oldest first.
func (b *env) actions(subject string) []string {
	b.t.Helper()
	var actions []string
	require.NoError(b.t, b.pool.QueryRow(ctx(), "SELECT array_agg(action ORDER BY id) FROM earmark.audit_log WHERE subject = $1", subject).Scan(&actions))
	return actions
}

func (b *env) auditLog(tenant string, f earmark.AuditFilter) []earmark.AuditRecord {
	b.t.Helper()
	page, err := b.Audit(ctx(), tenant, f)
	require.NoError(b.t, err)
	require.Empty(b.t, page.NextCursor)
	return page.Data
}

func decodedJSON[T any](t *testing.T, document json.RawMessage) T {
	t.Helper()
	var value T
	require.NoError(t, json.Unmarshal(document, &value))
	return value
}

func TestAuditLogShowsAKeyBeforeAndAfter(t *testing.T) {
	b := setup(t)
	key := b.key(earmark.DefaultTenant, earmark.KeyRequest{Name: "chat", Role: earmark.RoleRead})
	by := earmark.OperatorActor("bob").WithKey(key.ID)
	fresh, err := b.RotateKey(ctx(), earmark.DefaultTenant, key.ID, time.Hour, by, "yearly")
	require.NoError(t, err)
	require.Equal(t, []string{earmark.ActionKeyCreate}, b.actions(fresh.ID))

	records := b.auditLog(earmark.DefaultTenant, earmark.AuditFilter{Subject: key.ID})
	require.Len(t, records, 2, "newest first")
	rotated, created := records[0], records[1]
	require.Equal(t, earmark.AuditRecord{ID: rotated.ID, Tenant: earmark.DefaultTenant, Actor: by, Action: earmark.ActionKeyRotate, Subject: key.ID, Reason: "yearly",
		Before: rotated.Before, After: rotated.After, CreatedAt: rotated.CreatedAt}, rotated)
	require.WithinDuration(t, time.Now(), rotated.CreatedAt, time.Minute)
	require.Equal(t, key.Key, decodedJSON[earmark.Key](t, rotated.Before))
	require.Equal(t, fresh.ID, decodedJSON[earmark.Key](t, rotated.After).ReplacedBy)
	require.Equal(t, alice, created.Actor)
	require.Nil(t, created.Before)
	require.Equal(t, key.Key, decodedJSON[earmark.Key](t, created.After))
	encoded, err := json.Marshal(created)
	require.NoError(t, err)
	require.Contains(t, string(encoded), `"before":null`)
	require.Contains(t, string(encoded), `"actor":"operator:alice"`)
}

// Every change of a budget is in the audit log with the budget before and after, and what changed nothing
// or was refused is not.
func TestAuditLogShowsABudgetBeforeAndAfter(t *testing.T) {
	b := setup(t)
	by := earmark.ActorAPI.WithKey("abcdefgh0129")
	request := earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: new(int64(1000))}.WithDefaults()
	budget, err := b.CreateBudget(ctx(), earmark.DefaultTenant, request, by)
	require.NoError(t, err)
	_, err = b.CreateBudget(ctx(), earmark.DefaultTenant, request, by)
	requireRefused(t, earmark.CodeBudgetExists, "", err)
	for _, limit := range []int64{500, 500} {
		_, err = b.PatchBudget(ctx(), earmark.DefaultTenant, budget.ID, earmark.BudgetPatch{Limit: &limit}, by)
		require.NoError(t, err)
	}
	_, err = b.PatchBudget(ctx(), earmark.DefaultTenant, budget.ID, earmark.BudgetPatch{SoftCeiling: new(new(int64(1)))}, by)
	requireRefused(t, earmark.CodeInvalidRequest, "soft_ceiling", err)
	for range 2 {
		_, err = b.ArchiveBudget(ctx(), earmark.DefaultTenant, budget.ID, by)
		require.NoError(t, err)
	}

	records := b.auditLog(earmark.DefaultTenant, earmark.AuditFilter{})
	require.Len(t, records, 3)
	type view struct {
		action, reason string
		limit          int64
		archived       bool
	}
	var before, after []view
	for _, r := range records {
		require.Equal(t, by, r.Actor)
		require.Equal(t, budget.ID, r.Subject)
		is := decodedJSON[earmark.Budget](t, r.After)
		require.Equal(t, request.Scope, is.Scope)
		require.Equal(t, earmark.Window{Period: earmark.PeriodLifetime, Timezone: "UTC"}, is.Window)
		after = append(after, view{r.Action, r.Reason, is.Limit, is.ArchivedAt != nil})
		if r.Before != nil {
			was := decodedJSON[earmark.Budget](t, r.Before)
			before = append(before, view{r.Action, r.Reason, was.Limit, was.ArchivedAt != nil})
		}
	}
	require.Equal(t, []view{{"budget.archive", "archived", 500, false}, {"budget.change", "limit 1000 to 500", 1000, false}}, before)
	require.Equal(t, []view{
		{"budget.archive", "archived", 500, true}, {"budget.change", "limit 1000 to 500", 500, false}, {"budget.create", "created with limit 1000", 1000, false},
	}, after)
	page, err := b.Entries(ctx(), earmark.DefaultTenant, earmark.EntryFilter{BudgetID: budget.ID})
	require.NoError(t, err)
	for _, entry := range page.Data {
		require.Equal(t, by.String(), entry.Actor, "the journal names the key too")
	}
}

func TestAuditLogIsPagedAndFiltered(t *testing.T) {
	b := setup(t)
	b.tenant("other")
	theirs := b.key("other", earmark.KeyRequest{Role: earmark.RoleAdmin})
	one := b.key(earmark.DefaultTenant, earmark.KeyRequest{Role: earmark.RoleAdmin})
	withKey := alice.WithKey(one.ID)
	two, err := b.CreateKey(ctx(), earmark.DefaultTenant, earmark.KeyRequest{Role: earmark.RoleRead}, withKey, "")
	require.NoError(t, err)
	_, err = b.RevokeKey(ctx(), earmark.DefaultTenant, two.ID, earmark.ActorAPI.WithKey(one.ID), "")
	require.NoError(t, err)
	_, err = b.owner.DisableTenant(ctx(), earmark.DefaultTenant, earmark.OperatorActor("alice2"), "")
	require.NoError(t, err)

	want := []string{"tenant.disable default", "key.revoke " + two.ID, "key.create " + two.ID, "key.create " + one.ID}
	var got []string
	f := earmark.AuditFilter{Limit: 3}
	for {
		page, err := b.Audit(ctx(), earmark.DefaultTenant, f)
		require.NoError(t, err)
		for _, r := range page.Data {
			got = append(got, r.Action+" "+r.Subject)
		}
		if f.Cursor = page.NextCursor; f.Cursor == "" {
			break
		}
		for _, other := range []earmark.AuditFilter{{Cursor: f.Cursor, Subject: one.ID}, {Cursor: f.Cursor, Action: "key.create"}, {Cursor: f.Cursor, Actor: "api"}} {
			_, err = b.Audit(ctx(), earmark.DefaultTenant, other)
			requireRefused(t, earmark.CodeInvalidRequest, "cursor", err)
		}
		_, err = b.Audit(ctx(), "other", f)
		requireRefused(t, earmark.CodeInvalidRequest, "cursor", err)
	}
	require.Equal(t, want, got)

	for name, test := range map[string]struct {
		f    earmark.AuditFilter
		want []string
	}{
		"subject":          {earmark.AuditFilter{Subject: two.ID}, want[1:3]},
		"action":           {earmark.AuditFilter{Action: earmark.ActionKeyCreate}, want[2:]},
		"the person":       {earmark.AuditFilter{Actor: "operator:alice"}, want[2:]},
		"the key":          {earmark.AuditFilter{Actor: "key:" + one.ID}, want[1:3]},
		"both":             {earmark.AuditFilter{Actor: withKey.String()}, want[2:3]},
		"another tenant":   {earmark.AuditFilter{Subject: theirs.ID}, nil},
		"a part of a name": {earmark.AuditFilter{Actor: "operator:ali"}, nil},
	} {
		var got []string
		for _, r := range b.auditLog(earmark.DefaultTenant, test.f) {
			got = append(got, r.Action+" "+r.Subject)
		}
		require.Equal(t, test.want, got, name)
	}
	require.True(t, slices.ContainsFunc(b.auditLog("other", earmark.AuditFilter{}), func(r earmark.AuditRecord) bool { return r.Subject == theirs.ID }))
}

func TestAuditLogIsAppendOnly(t *testing.T) {
	b := setup(t)
	b.tenant("acme")
	for _, statement := range []string{
		"UPDATE earmark.audit_log SET reason = ''", "DELETE FROM earmark.audit_log", "TRUNCATE earmark.audit_log",
		"SET earmark.pruning = 'on'; DELETE FROM earmark.audit_log", "SET session_replication_role = 'replica'; DELETE FROM earmark.audit_log",
	} {
		conn, err := b.pool.Acquire(ctx())
		require.NoError(t, err)
		_, err = conn.Conn().PgConn().Exec(ctx(), statement).ReadAll()
		require.ErrorContains(t, err, "the audit log is append-only", statement)
		require.NoError(t, conn.Conn().Close(ctx())) // with its settings
		conn.Release()
	}
	require.Equal(t, []string{"tenant.create"}, b.actions("acme"))
}
