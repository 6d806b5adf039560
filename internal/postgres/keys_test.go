package postgres_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/keys"
	"github.com/earmark-dev/earmark/internal/postgres"
)

var alice = earmark.OperatorActor("alice")

func (b *env) tenant(id string) *earmark.Tenant {
	b.t.Helper()
	tenant, err := b.owner.CreateTenant(ctx(), id, alice, "a customer")
	require.NoError(b.t, err)
	return tenant
}

func (b *env) key(tenant string, r earmark.KeyRequest) *earmark.IssuedKey {
	b.t.Helper()
	issued, err := b.CreateKey(ctx(), tenant, r, alice, "for a service")
	require.NoError(b.t, err)
	return issued
}

func (b *env) credential(text string) *earmark.Credential {
	b.t.Helper()
	token, err := keys.Parse(text)
	require.NoError(b.t, err)
	credential, err := b.Credential(ctx(), token.ID)
	require.NoError(b.t, err)
	require.True(b.t, keys.Equal(token.Hash(), credential.Hash))
	return credential
}

func TestKeyIsStoredAsAHash(t *testing.T) {
	b := setup(t)
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	request := earmark.KeyRequest{Name: "chat", Role: earmark.RoleReserve, Scopes: []string{"acme/ml", "acme/x"}, ExpiresAt: &expires, Rate: earmark.Rate{Calls: 3000, Window: time.Minute}}
	issued := b.key(earmark.DefaultTenant, request)
	require.True(t, strings.HasPrefix(issued.Secret, "emk_"+issued.ID+"_"))
	require.WithinDuration(t, time.Now(), issued.CreatedAt, time.Minute)
	want := earmark.Key{ID: issued.ID, Tenant: earmark.DefaultTenant, Name: "chat", Role: earmark.RoleReserve, Scopes: request.Scopes, CreatedAt: issued.CreatedAt, ExpiresAt: &expires, Rate: request.Rate}
	require.Equal(t, want.Rate, issued.Rate)
	require.Equal(t, want.Scopes, issued.Scopes)
	require.WithinDuration(t, expires, *issued.ExpiresAt, 0)

	credential := b.credential(issued.Secret)
	require.Equal(t, issued.Key, credential.Key)
	require.False(t, credential.TenantDisabled)
	unbound := b.key(earmark.DefaultTenant, earmark.KeyRequest{Role: earmark.RoleAdmin})
	require.Empty(t, unbound.Scopes)
	require.Nil(t, unbound.ExpiresAt)
	require.False(t, keys.Equal(credential.Hash, b.credential(unbound.Secret).Hash))

	token, err := keys.Parse(issued.Secret)
	require.NoError(t, err)
	secret := issued.Secret[len("emk_")+len(token.ID)+1:][:43]
	for _, table := range []string{"keys", "audit_log", "entries", "tenants"} {
		var rows string
		require.NoError(t, b.pool.QueryRow(ctx(), "SELECT coalesce(string_agg(t::text, ' '), '') FROM earmark."+table+" t").Scan(&rows))
		require.NotContains(t, rows, secret, table)
	}
}

func TestKeyIsRefused(t *testing.T) {
	b := setup(t)
	_, err := b.CreateKey(ctx(), earmark.DefaultTenant, earmark.KeyRequest{Role: "root"}, alice, "")
	requireRefused(t, earmark.CodeInvalidRequest, "role", err)
	_, err = b.CreateKey(ctx(), earmark.DefaultTenant, earmark.KeyRequest{Role: earmark.RoleRead, ExpiresAt: new(time.Now())}, alice, "")
	requireRefused(t, earmark.CodeInvalidRequest, "expires_at", err)
	_, err = b.CreateKey(ctx(), earmark.DefaultTenant, earmark.KeyRequest{Role: earmark.RoleRead}, alice, strings.Repeat("r", earmark.MaxReasonBytes+1))
	requireRefused(t, earmark.CodeInvalidRequest, "reason", err)
	_, err = b.CreateKey(ctx(), earmark.DefaultTenant, earmark.KeyRequest{Role: earmark.RoleRead, Rate: earmark.Rate{Calls: -1, Window: time.Second}}, alice, "")
	requireRefused(t, earmark.CodeInvalidRequest, "rate", err)
	_, err = b.CreateKey(ctx(), "nobody", earmark.KeyRequest{Role: earmark.RoleRead}, alice, "")
	requireRefused(t, earmark.CodeNotFound, "", err)
	mine := b.key(earmark.DefaultTenant, earmark.KeyRequest{Role: earmark.RoleRead})
	b.tenant("other")
	for _, who := range [][2]string{{earmark.DefaultTenant, "abcdefgh0129"}, {"other", mine.ID}, {earmark.DefaultTenant, "x\x00"}} {
		_, err = b.RotateKey(ctx(), who[0], who[1], 0, alice, "")
		requireRefused(t, earmark.CodeNotFound, "", err)
		_, err = b.RevokeKey(ctx(), who[0], who[1], alice, "")
		requireRefused(t, earmark.CodeNotFound, "", err)
	}
	for _, id := range []string{"abcdefgh0129", "", "x\x00", "' OR true"} {
		_, err = b.Credential(ctx(), id)
		requireRefused(t, earmark.CodeNotFound, "", err)
	}
	_, err = b.RotateKey(ctx(), earmark.DefaultTenant, mine.ID, -time.Second, alice, "")
	requireRefused(t, earmark.CodeInvalidRequest, "overlap", err)
	page, err := b.Keys(ctx(), earmark.DefaultTenant, earmark.KeyFilter{})
	require.NoError(t, err)
	require.Equal(t, []earmark.Key{mine.Key}, page.Data, "what was refused changed nothing")
}

// A rotated key works for the overlap, but not beyond its own expiry; the new one lives as long as the old one
// was made to.
func TestRotation(t *testing.T) {
	b := setup(t)
	old := b.key(earmark.DefaultTenant, earmark.KeyRequest{Name: "chat", Role: earmark.RoleSettle, Scopes: []string{"acme"}, Rate: earmark.Rate{Calls: 5, Window: time.Second}})
	fresh, err := b.RotateKey(ctx(), earmark.DefaultTenant, old.ID, time.Hour, alice, "yearly")
	require.NoError(t, err)
	require.Equal(t, earmark.Key{ID: fresh.ID, Tenant: earmark.DefaultTenant, Name: "chat", Role: earmark.RoleSettle, Scopes: []string{"acme"}, CreatedAt: fresh.CreatedAt, Rate: old.Rate}, fresh.Key)
	b.credential(fresh.Secret)
	ending := b.credential(old.Secret).Key
	require.Equal(t, fresh.ID, ending.ReplacedBy)
	require.WithinDuration(t, time.Now().Add(time.Hour), *ending.ExpiresAt, time.Minute)
	_, err = b.RotateKey(ctx(), earmark.DefaultTenant, old.ID, 0, alice, "")
	requireRefused(t, earmark.CodeInvalidRequest, "", err)
	require.ErrorContains(t, err, fresh.ID)

	short := b.key(earmark.DefaultTenant, earmark.KeyRequest{Role: earmark.RoleRead, ExpiresAt: new(time.Now().Add(time.Hour))})
	next, err := b.RotateKey(ctx(), earmark.DefaultTenant, short.ID, 24*time.Hour, alice, "")
	require.NoError(t, err)
	require.Equal(t, short.ExpiresAt, b.credential(short.Secret).Key.ExpiresAt, "an overlap does not prolong a key")
	require.Equal(t, short.ExpiresAt.Sub(short.CreatedAt), next.ExpiresAt.Sub(next.CreatedAt))

	_, err = b.RotateKey(ctx(), earmark.DefaultTenant, next.ID, 0, alice, "it leaked")
	require.NoError(t, err)
	require.False(t, b.credential(next.Secret).Key.ExpiresAt.After(time.Now()), "without an overlap it ends at once")
	expired := b.key(earmark.DefaultTenant, earmark.KeyRequest{Role: earmark.RoleRead})
	_, err = b.pool.Exec(ctx(), "UPDATE earmark.keys SET expires_at = clock_timestamp() WHERE id = $1", expired.ID)
	require.NoError(t, err)
	revoked := b.key(earmark.DefaultTenant, earmark.KeyRequest{Role: earmark.RoleRead})
	_, err = b.RevokeKey(ctx(), earmark.DefaultTenant, revoked.ID, alice, "it leaked")
	require.NoError(t, err)
	for _, ended := range []string{expired.ID, revoked.ID} {
		_, err = b.RotateKey(ctx(), earmark.DefaultTenant, ended, 0, alice, "")
		requireRefused(t, earmark.CodeInvalidRequest, "", err)
	}
}

func TestOneOfManyRotationsAtOnceSucceeds(t *testing.T) {
	b := setup(t)
	old := b.key(earmark.DefaultTenant, earmark.KeyRequest{Role: earmark.RoleRead})
	const callers = 8
	errs := make([]error, callers)
	var group errgroup.Group
	for i := range callers {
		group.Go(func() error {
			_, errs[i] = b.RotateKey(ctx(), earmark.DefaultTenant, old.ID, time.Hour, alice, "")
			return nil
		})
	}
	require.NoError(t, group.Wait())
	succeeded := 0
	for _, err := range errs {
		if err == nil {
			succeeded++
			continue
		}
		requireRefused(t, earmark.CodeInvalidRequest, "", err)
	}
	require.Equal(t, 1, succeeded)
	page, err := b.Keys(ctx(), earmark.DefaultTenant, earmark.KeyFilter{})
	require.NoError(t, err)
	require.Len(t, page.Data, 2)
}

func TestRevocationIsFinal(t *testing.T) {
	b := setup(t)
	key := b.key(earmark.DefaultTenant, earmark.KeyRequest{Role: earmark.RoleRead})
	revoked, err := b.RevokeKey(ctx(), earmark.DefaultTenant, key.ID, alice, "it leaked")
	require.NoError(t, err)
	require.NotNil(t, revoked.RevokedAt)
	require.Equal(t, *revoked, b.credential(key.Secret).Key)
	again, err := b.RevokeKey(ctx(), earmark.DefaultTenant, key.ID, alice, "again")
	require.NoError(t, err)
	require.Equal(t, revoked, again)
	_, err = b.RotateKey(ctx(), earmark.DefaultTenant, key.ID, 0, alice, "")
	requireRefused(t, earmark.CodeInvalidRequest, "", err)
	require.Equal(t, []string{"key.create", "key.revoke"}, b.actions(key.ID))
}

func TestLastUseIsKeptToTheHour(t *testing.T) {
	b := setup(t)
	one, two := b.key(earmark.DefaultTenant, earmark.KeyRequest{Role: earmark.RoleRead}), b.key(earmark.DefaultTenant, earmark.KeyRequest{Role: earmark.RoleRead})
	require.NoError(t, b.MarkKeysUsed(ctx(), []string{one.ID, "abcdefgh0129"}))
	used := b.credential(one.Secret).Key.LastUsedAt
	require.NotNil(t, used)
	require.Equal(t, used.Truncate(time.Hour), *used)
	require.WithinDuration(t, time.Now(), *used, time.Hour+time.Minute)
	require.Nil(t, b.credential(two.Secret).Key.LastUsedAt)

	version := func() (xmin string) {
		require.NoError(t, b.pool.QueryRow(ctx(), "SELECT xmin::text FROM earmark.keys WHERE id = $1", one.ID).Scan(&xmin))
		return xmin
	}
	_, err := b.pool.Exec(ctx(), "UPDATE earmark.keys SET last_used_at = last_used_at + interval '1 hour' WHERE id = $1", one.ID) // so that no hour ends meanwhile
	require.NoError(t, err)
	before := version()
	require.NoError(t, b.MarkKeysUsed(ctx(), []string{one.ID}))
	require.Equal(t, before, version(), "a second use in the hour writes nothing")
	require.NoError(t, b.MarkKeysUsed(ctx(), nil))
}

func TestKeysArePagedNewestFirst(t *testing.T) {
	b := setup(t)
	b.tenant("other")
	b.key("other", earmark.KeyRequest{Role: earmark.RoleAdmin})
	var want []string
	for i := range 5 {
		want = append(want, b.key(earmark.DefaultTenant, earmark.KeyRequest{Name: fmt.Sprint(i), Role: earmark.RoleRead}).ID)
	}
	slices.Reverse(want)
	var got []string
	f := earmark.KeyFilter{Limit: 2}
	for {
		page, err := b.Keys(ctx(), earmark.DefaultTenant, f)
		require.NoError(t, err)
		for _, key := range page.Data {
			got = append(got, key.ID)
		}
		if f.Cursor = page.NextCursor; f.Cursor == "" {
			break
		}
		_, err = b.Keys(ctx(), "other", f)
		requireRefused(t, earmark.CodeInvalidRequest, "cursor", err)
	}
	require.Equal(t, want, got)
}

func TestTenants(t *testing.T) {
	b := setup(t)
	acme := b.tenant("acme")
	require.Nil(t, acme.DisabledAt)
	_, err := b.owner.CreateTenant(ctx(), "acme", alice, "")
	requireRefused(t, earmark.CodeInvalidRequest, "tenant", err)
	_, err = b.owner.CreateTenant(ctx(), "Acme", alice, "")
	requireRefused(t, earmark.CodeInvalidRequest, "tenant", err)
	key := b.key("acme", earmark.KeyRequest{Role: earmark.RoleRead})

	disabled, err := b.owner.DisableTenant(ctx(), "acme", alice, "unpaid")
	require.NoError(t, err)
	require.NotNil(t, disabled.DisabledAt)
	require.True(t, b.credential(key.Secret).TenantDisabled)
	again, err := b.owner.DisableTenant(ctx(), "acme", alice, "unpaid")
	require.NoError(t, err)
	require.Equal(t, disabled, again)

	tenants, err := b.Tenants(ctx())
	require.NoError(t, err)
	require.Len(t, tenants, 2)
	require.Equal(t, *disabled, tenants[0])
	require.Equal(t, earmark.DefaultTenant, tenants[1].ID)

	enabled, err := b.owner.EnableTenant(ctx(), "acme", alice, "paid")
	require.NoError(t, err)
	require.Equal(t, acme, enabled)
	require.False(t, b.credential(key.Secret).TenantDisabled)
	require.Equal(t, []string{"tenant.create", "tenant.disable", "tenant.enable"}, b.actions("acme"))
	_, err = b.owner.DisableTenant(ctx(), "nobody", alice, "")
	requireRefused(t, earmark.CodeNotFound, "", err)
}

// What the step makes of a database that had tenants without a table of them.
func TestStepMakesTheTenantsThatOwnSomething(t *testing.T) {
	b := setup(t)
	for _, tenant := range []string{"b", "a", "old tenant"} {
		_, err := b.CreateBudget(ctx(), tenant, earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: new(int64(1000))}.WithDefaults(), earmark.ActorAPI)
		require.NoError(t, err)
	}
	early := admission("k", tokens(1), "acme")
	early.Tenant, early.ID, early.Released = "no budget", earmark.ReservationID("no budget", "k"), true
	_, err := b.Reserve(ctx(), early)
	require.NoError(t, err)

	_, err = stepProvider(t, b.pool).DownTo(ctx(), 1)
	require.NoError(t, err)
	_, err = postgres.Migrate(ctx(), b.pool)
	require.NoError(t, err)
	tenants, err := b.Tenants(ctx())
	require.NoError(t, err)
	var ids []string
	for _, tenant := range tenants {
		ids = append(ids, tenant.ID)
	}
	require.Equal(t, []string{"a", "b", "default", "no budget", "old tenant"}, ids)

	next := admission("after all steps down and up", tokens(1), "acme")
	next.Tenant = "a"
	result, err := b.Reserve(ctx(), next)
	require.NoError(t, err)
	require.Equal(t, earmark.OutcomeApplied, result.Outcome)
}

// The journal names the key of each admission, alone or in a batch, and not for the holds of others that make way.
func TestEntriesOfAdmissionsNameTheKey(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	actors := func(id string) []string {
		page, err := b.Entries(ctx(), earmark.DefaultTenant, earmark.EntryFilter{ReservationID: id})
		require.NoError(t, err)
		var found []string
		for _, e := range page.Data {
			found = append(found, e.Kind+" "+e.Actor)
		}
		return found
	}
	var calls []func() (earmark.Result, error)
	want := map[string]string{}
	for i := range 40 { // most of them wait for the first, and go in batches
		a := admission(fmt.Sprint(i), tokens(10), "acme")
		if a.KeyID = fmt.Sprintf("key%09d", i%3); i%4 == 0 {
			a.KeyID = ""
		}
		want[a.ID] = "reserve " + earmark.ActorWorkflow.WithKey(a.KeyID).String()
		calls = append(calls, func() (earmark.Result, error) { return b.Reserve(ctx(), a) })
	}
	for _, result := range atOnce(t, calls...) {
		require.Equal(t, earmark.OutcomeApplied, result.Outcome)
	}
	for id, entry := range want {
		require.Equal(t, []string{entry}, actors(id))
	}

	overdue := admission("overdue", tokens(500), "acme")
	b.held(overdue)
	b.due(overdue.ID)
	next := admission("next", tokens(600), "acme")
	next.KeyID = "abcdefgh0129"
	b.held(next)
	require.Equal(t, []string{"reserve workflow", "expire workflow"}, actors(overdue.ID))
	require.Equal(t, []string{"reserve workflow key:abcdefgh0129"}, actors(next.ID))

	next = admission("refused", tokens(1), "acme")
	next.KeyID = "no key"
	require.ErrorContains(t, next.Validate(), "key_id")
}
