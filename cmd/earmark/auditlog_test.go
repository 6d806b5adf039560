package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func (l *cannedLedger) Audit(_ context.Context, _ string, f earmark.AuditFilter) (earmark.Page[earmark.AuditRecord], error) {
	l.auditFilter = f
	return pageOf(l.audit, f.Cursor, f.Limit), nil
}

func TestAuditLog(t *testing.T) {
	t.Parallel()
	ledger := &cannedLedger{}
	for i := range 1_234 {
		ledger.audit = append(ledger.audit, earmark.AuditRecord{ID: int64(i), Tenant: "acme", Actor: earmark.OperatorActor("alice").WithKey("k3jd8fh2qz07"),
			Action: earmark.ActionKeyRevoke, Subject: fmt.Sprintf("key%09d", i), Reason: "it was in a log", After: json.RawMessage(`{"role":"read"}`),
			CreatedAt: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)})
	}
	url := serveCanned(t, ledger)
	var page earmark.Page[earmark.AuditRecord]
	require.NoError(t, json.Unmarshal([]byte(earmarkPipe(t, url, "audit-log", "--json", "--limit", "1100").ok(t)), &page))
	require.Len(t, page.Data, 1_100)
	require.Equal(t, "1100", page.NextCursor)
	require.JSONEq(t, `{"role":"read"}`, string(page.Data[1_099].After))

	table := earmarkPipe(t, url, "audit-log", "--limit", "5000", "--actor", "operator:alice", "--action", "key.revoke", "--subject", "key000000000").ok(t)
	require.Equal(t, 1+1_234, strings.Count(table, "\n")+1)
	for _, words := range []string{"WHEN", "key.revoke", "key000001233", "operator:alice key:k3jd8fh2qz07", "it was in a log"} {
		require.Contains(t, table, words)
	}
	require.Equal(t, []string{"operator:alice", "key.revoke", "key000000000"}, []string{ledger.auditFilter.Actor, ledger.auditFilter.Action, ledger.auditFilter.Subject})

	wrong := earmarkPipe(t, url, "audit-log", "--action", "key.steal")
	require.Equal(t, exitUsage, wrong.code)
	require.Contains(t, wrong.stderr, "key.revoke")
	require.Equal(t, exitUsage, earmarkPipe(t, url, "audit-log", "--limit", "0").code)
}
