package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func TestWhoami(t *testing.T) {
	t.Parallel()
	f := playingAlong()
	b := setup(t, f, withKeys)
	key := f.addKey(otherTenant, earmark.RoleSettle, boundTo("acme"), func(c *earmark.Credential) { c.Key.Name = "worker" })
	x := b.do("GET", "/v1/whoami", "", with(key)...).status(http.StatusOK)
	require.JSONEq(t, `{"tenant":"globex","role":"settle","scopes":["acme"],"key_id":"`+key.ID+`","key_name":"worker"}`, string(x.body))
	x = setup(t, f).do("GET", "/v1/whoami", "").status(http.StatusOK)
	require.JSONEq(t, `{"tenant":"default","role":"admin","scopes":[],"key_id":"","key_name":""}`, string(x.body))
}

func TestKeysAreManaged(t *testing.T) {
	t.Parallel()
	f := playingAlong()
	b := setup(t, f, withKeys)
	admin := f.addKey(otherTenant, earmark.RoleAdmin)

	x := b.do("POST", "/v1/keys", `{"name":"worker","role":"settle","scopes":["acme"],"expires_at":"2027-01-31T00:00:00Z","operator":"alice","reason":"new"}`, with(admin)...).status(http.StatusCreated)
	expires := time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)
	require.Equal(t, earmark.KeyRequest{Name: "worker", Role: earmark.RoleSettle, Scopes: []string{"acme"}, ExpiresAt: &expires}, f.last())
	require.Equal(t, "operator:alice key:"+admin.ID, f.by.String())
	require.Equal(t, "new", f.reason)
	require.Equal(t, "emk_…", decoded[earmark.IssuedKey](x).Secret)
	require.Equal(t, "no-store", x.resp.Header.Get("Cache-Control"))

	b.do("POST", "/v1/keys/"+testKeyID+"/rotate", `{"overlap_seconds":86400,"reason":"yearly"}`, with(admin)...).status(http.StatusCreated)
	require.Equal(t, 24*time.Hour, f.last())
	require.Equal(t, "key:"+admin.ID, f.by.String())
	b.do("POST", "/v1/keys/"+testKeyID+"/revoke", `{"reason":"leaked"}`, with(admin)...).status(http.StatusOK)
	require.Equal(t, testKeyID, f.last())
	require.Equal(t, "leaked", f.reason)

	f.keys = earmark.Page[earmark.Key]{Data: []earmark.Key{f.issued.Key}, NextCursor: "n"}
	x = b.do("GET", "/v1/keys?limit=1&cursor=c", "", with(admin)...).status(http.StatusOK)
	require.Equal(t, earmark.KeyFilter{Limit: 1, Cursor: "c"}, f.last())
	require.NotContains(t, string(x.body), "secret")
	require.Equal(t, "n", decoded[earmark.Page[earmark.Key]](x).NextCursor)

	f.audit = earmark.Page[earmark.AuditRecord]{Data: []earmark.AuditRecord{{ID: 7, Tenant: otherTenant, Actor: earmark.OperatorActor("alice").WithKey(admin.ID),
		Action: earmark.ActionKeyRevoke, Subject: testKeyID, Before: json.RawMessage(`{"a":1}`), After: json.RawMessage(`null`), CreatedAt: testTime}}}
	x = b.do("GET", "/v1/audit?subject="+testKeyID+"&action=key.revoke&actor=operator:alice&limit=2", "", with(admin)...).status(http.StatusOK)
	require.Equal(t, earmark.AuditFilter{Subject: testKeyID, Action: earmark.ActionKeyRevoke, Actor: "operator:alice", Limit: 2}, f.last())
	require.Contains(t, string(x.body), `"actor":"operator:alice key:`+admin.ID+`"`)
}

func TestKeysRefuseBadInput(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ method, path, body, field, says string }{
		{"POST", "/v1/keys", `{"role":"read","expires_at":"tomorrow"}`, "expires_at", "2027-01-31T00:00:00Z"},
		{"POST", "/v1/keys", `{"role":"read","operator":"a b"}`, "operator", "is not a name"},
		{"POST", "/v1/keys", `{"role":"read","reason":"` + strings.Repeat("x", 600) + `"}`, "reason", "512"},
		{"POST", "/v1/keys", `{"role":"read","tenant":"acme"}`, "tenant", "is not a field here"},
		{"POST", "/v1/keys?dry=1", `{"role":"read"}`, "dry", "query parameter"},
		{"POST", "/v1/keys/" + testKeyID + "/rotate", `{"overlap_seconds":-1}`, "overlap_seconds", "0 to 2592000"},
		{"POST", "/v1/keys/" + testKeyID + "/rotate", `{"overlap_seconds":2592001}`, "overlap_seconds", "0 to 2592000"},
		{"GET", "/v1/audit?action=budget.delete", "", "action", "budget.create"},
		{"GET", "/v1/audit?actor=%00", "", "actor", "as a record has it"},
		{"GET", "/v1/audit?subject=" + strings.Repeat("x", 129), "", "subject", "as a record has it"},
		{"GET", "/v1/keys?limit=0", "", "limit", "1 to"},
	} {
		f := playingAlong()
		b := setup(t, f, withKeys)
		p := b.do(c.method, c.path, c.body, with(f.addKey(otherTenant, earmark.RoleAdmin))...).problem(http.StatusBadRequest, earmark.CodeInvalidRequest)
		require.Equal(t, c.field, p.Field, c.path+c.body)
		require.Contains(t, p.Detail, c.says)
		require.Empty(t, f.names(), c.path+c.body)
	}
}

// A key that is bound to scopes could make one that reaches further.
func TestBoundKeysManageNoKeys(t *testing.T) {
	t.Parallel()
	for name, try := range operations {
		if !strings.Contains(name, "/v1/keys") && !strings.Contains(name, "/v1/audit") {
			continue
		}
		f := playingAlong()
		b := setup(t, f, withKeys)
		p := b.do(try.method, try.path, try.body, with(f.addKey(otherTenant, earmark.RoleAdmin, boundTo("acme")))...).problem(http.StatusForbidden, earmark.CodeForbidden)
		require.Equal(t, "this needs a key for all scopes; the key is bound to acme", p.Detail, name)
		require.Empty(t, f.names(), name)
	}
}
