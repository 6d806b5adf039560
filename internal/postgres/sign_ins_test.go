package postgres_test

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
)

func cookie(i int) [sha256.Size]byte { return sha256.Sum256(fmt.Append(nil, "cookie ", i)) }

// A sign-in is found by its own cookie alone, has its own key, and lasts as long as it was made for, until somebody signs out.
func TestSignIns(t *testing.T) {
	b := setup(t)
	b.tenant("other")
	key, other := b.key("other", earmark.KeyRequest{Role: earmark.RoleAdmin}), b.key(earmark.DefaultTenant, earmark.KeyRequest{Role: earmark.RoleRead})
	require.NoError(t, b.CreateSignIn(ctx(), cookie(1), key.ID, time.Hour))
	require.NoError(t, b.CreateSignIn(ctx(), cookie(2), other.ID, time.Hour))
	require.NoError(t, b.CreateSignIn(ctx(), cookie(3), key.ID, 0))
	requireRefused(t, earmark.CodeNotFound, "", b.CreateSignIn(ctx(), cookie(4), "abcdefgh0129", time.Hour))

	found, err := b.SignIn(ctx(), cookie(1))
	require.NoError(t, err)
	require.Equal(t, b.credential(key.Secret), found)
	found, err = b.SignIn(ctx(), cookie(2))
	require.NoError(t, err)
	require.Equal(t, other.ID, found.Key.ID)
	for over := 3; over <= 4; over++ {
		_, err = b.SignIn(ctx(), cookie(over))
		requireRefused(t, earmark.CodeNotFound, "", err)
	}

	_, err = b.RevokeKey(ctx(), earmark.DefaultTenant, other.ID, alice, "it leaked")
	require.NoError(t, err)
	found, err = b.SignIn(ctx(), cookie(2))
	require.NoError(t, err)
	require.NotNil(t, found.Key.RevokedAt)
	_, err = b.owner.DisableTenant(ctx(), "other", alice, "unpaid")
	require.NoError(t, err)
	found, err = b.SignIn(ctx(), cookie(1))
	require.NoError(t, err)
	require.True(t, found.TenantDisabled)

	for range 2 {
		require.NoError(t, b.EndSignIn(ctx(), cookie(1)))
	}
	_, err = b.SignIn(ctx(), cookie(1))
	requireRefused(t, earmark.CodeNotFound, "", err)
	_, err = b.SignIn(ctx(), cookie(2))
	require.NoError(t, err)
}

// Sign-ins that are over are removed by later ones, and a key has 100 at most: one more ends the oldest.
func TestSignInsAreBounded(t *testing.T) {
	b := setup(t)
	key, other := b.key(earmark.DefaultTenant, earmark.KeyRequest{Role: earmark.RoleRead}), b.key(earmark.DefaultTenant, earmark.KeyRequest{Role: earmark.RoleRead})
	require.NoError(t, b.CreateSignIn(ctx(), cookie(1000), other.ID, time.Hour))
	require.NoError(t, b.CreateSignIn(ctx(), cookie(1001), other.ID, 0))
	const most = 100
	var group errgroup.Group
	for i := range most {
		group.Go(func() error { return b.CreateSignIn(ctx(), cookie(i), key.ID, time.Hour+time.Duration(i)*time.Second) })
	}
	require.NoError(t, group.Wait())
	count := func() (n int) {
		require.NoError(t, b.pool.QueryRow(ctx(), "SELECT count(*) FROM earmark.sign_ins").Scan(&n))
		return n
	}
	require.Equal(t, most+1, count(), "the one that is over is gone")

	require.NoError(t, b.CreateSignIn(ctx(), cookie(most), key.ID, 2*time.Hour))
	require.Equal(t, most+1, count())
	_, err := b.SignIn(ctx(), cookie(0))
	requireRefused(t, earmark.CodeNotFound, "", err)
	for _, kept := range []int{1, most, 1000} {
		_, err = b.SignIn(ctx(), cookie(kept))
		require.NoError(t, err)
	}
}
