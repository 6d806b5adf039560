package earmark_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func TestRolesIncludeThoseBefore(t *testing.T) {
	t.Parallel()
	require.Equal(t, []earmark.Role{"read", "settle", "reserve", "operate", "admin"}, earmark.Roles)
	for i, held := range earmark.Roles {
		for j, needed := range earmark.Roles {
			require.Equal(t, j <= i, held.Includes(needed), "%s includes %s", held, needed)
		}
		require.False(t, held.Includes("root"))
		require.False(t, held.Includes(""))
		require.False(t, earmark.Role("root").Includes(held))
	}
	require.False(t, earmark.Role("").Includes(""))
}

func TestKeyCoversItsScopesAndThoseBelow(t *testing.T) {
	t.Parallel()
	bound := earmark.Key{Scopes: []string{"acme/ml", "other"}}
	for scope, covered := range map[string]bool{
		"acme/ml": true, "acme/ml/u1": true, "other": true, "other/x": true,
		"acme": false, "acme/mlx": false, "acme/m": false, "others": false, "": false,
	} {
		require.Equal(t, covered, bound.Covers(scope), scope)
		require.True(t, earmark.Key{}.Covers(scope), "a key that is bound to no scope acts on all")
	}
}

func TestKeyRequestIsRefused(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(d time.Duration) *time.Time { return new(now.Add(d)) }
	valid := func() earmark.KeyRequest {
		return earmark.KeyRequest{Name: "worker ü", Role: earmark.RoleSettle, Scopes: []string{"acme/ml", "b"}, ExpiresAt: at(time.Second)}
	}
	require.NoError(t, valid().Validate(now))
	require.NoError(t, earmark.KeyRequest{Role: earmark.RoleAdmin}.Validate(now), "no name, no scopes, no expiry")
	longest := valid()
	longest.Name, longest.ExpiresAt = strings.Repeat("n", 64), at(earmark.MaxKeyLifetime)
	require.NoError(t, longest.Validate(now))

	many := make([]string, earmark.MaxKeyScopes+1)
	for i := range many {
		many[i] = fmt.Sprint("s", i)
	}
	for field, breaks := range map[string][]func(*earmark.KeyRequest){
		"name": {
			func(r *earmark.KeyRequest) { r.Name = strings.Repeat("n", 65) },
			func(r *earmark.KeyRequest) { r.Name = "a\x00b" },
			func(r *earmark.KeyRequest) { r.Name = "a\x1b[2J" },
			func(r *earmark.KeyRequest) { r.Name = "\xff" },
		},
		"role": {
			func(r *earmark.KeyRequest) { r.Role = "" },
			func(r *earmark.KeyRequest) { r.Role = "root" },
			func(r *earmark.KeyRequest) { r.Role = "Admin" },
		},
		"scopes":    {func(r *earmark.KeyRequest) { r.Scopes = many }},
		"scopes[1]": {func(r *earmark.KeyRequest) { r.Scopes[1] = "/x" }, func(r *earmark.KeyRequest) { r.Scopes[1] = r.Scopes[0] }},
		"expires_at": {
			func(r *earmark.KeyRequest) { r.ExpiresAt = at(0) },
			func(r *earmark.KeyRequest) { r.ExpiresAt = at(-time.Hour) },
			func(r *earmark.KeyRequest) { r.ExpiresAt = at(earmark.MaxKeyLifetime + time.Second) },
		},
	} {
		for i, breakIt := range breaks {
			request := valid()
			breakIt(&request)
			var refused *earmark.Error
			require.ErrorAs(t, request.Validate(now), &refused, "%s %d", field, i)
			require.Equal(t, earmark.CodeInvalidRequest, refused.Code)
			require.Equal(t, field, refused.Field)
		}
	}
}

func TestTenantAndKeyIDs(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"default", "a", "0", "acme-eu_2", strings.Repeat("a", 63)} {
		require.NoError(t, earmark.ValidateTenant(id))
	}
	for _, id := range []string{"", "-a", "_a", "Acme", "a b", "a/b", "ä", "a\n", strings.Repeat("a", 64)} {
		var refused *earmark.Error
		require.ErrorAs(t, earmark.ValidateTenant(id), &refused, id)
		require.Equal(t, "tenant", refused.Field)
	}
	require.True(t, earmark.IsKeyID("abcdefgh0129"))
	for _, id := range []string{"", "abcdefgh012", "abcdefgh01234", "ABCDEFGH0123", "abcdefgh012\n"} {
		require.False(t, earmark.IsKeyID(id), id)
	}
	require.NoError(t, earmark.ValidateOverlap(0))
	require.NoError(t, earmark.ValidateOverlap(earmark.MaxKeyOverlap))
	require.Error(t, earmark.ValidateOverlap(-time.Second))
	require.Error(t, earmark.ValidateOverlap(earmark.MaxKeyOverlap+time.Second))
}

// An actor is read back from its text, also from the text of releases before keys.
func TestActorText(t *testing.T) {
	t.Parallel()
	const id = "abcdefgh0129"
	for text, actor := range map[string]earmark.Actor{
		"api":                       earmark.ActorAPI,
		"workflow":                  earmark.ActorWorkflow,
		"operator:alice":            earmark.OperatorActor("alice"),
		"key:" + id:                 earmark.ActorAPI.WithKey(id),
		"operator:alice key:" + id:  earmark.OperatorActor("alice").WithKey(id),
		"operator:a:b@c key:" + id:  earmark.OperatorActor("a:b@c").WithKey(id),
		"workflow key:" + id:        earmark.ActorWorkflow.WithKey(id),
		"sweeper":                   earmark.ActorSweeper.WithKey(""),
		"operator:key:" + id + "'s": earmark.OperatorActor("key:" + id + "'s"),
	} {
		require.Equal(t, text, actor.String())
		encoded, err := json.Marshal(actor)
		require.NoError(t, err)
		require.Equal(t, `"`+text+`"`, strings.ReplaceAll(string(encoded), `\u0027`, "'"))
		var decoded earmark.Actor
		require.NoError(t, json.Unmarshal(encoded, &decoded))
		require.Equal(t, actor, decoded)
	}
	require.Equal(t, "alice", earmark.OperatorActor("alice").WithKey(id).Operator())
	require.Empty(t, earmark.ActorAPI.WithKey(id).Operator())
}
