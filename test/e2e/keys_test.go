//go:build unix

package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/stack"
)

// tenant is a tenant with its clients, by role.
type tenant struct {
	name    string
	admin   *client.Client
	reserve *client.Client
	key     string // id of the key of reserve
}

func newTenant(tb testing.TB, s *stack.Stack, server *stack.Server, name string) tenant {
	tb.Helper()
	s.MustRun("tenant", "create", name, "--reason", "test")
	made := tenant{name: name}
	clientOf := func(role earmark.Role) (*client.Client, string) {
		key := strings.TrimSpace(s.MustRun("key", "create", "--tenant", name, "--role", string(role), "--reason", "test"))
		api, err := client.New(server.URL, client.WithAPIKey(key), client.WithMaxAttempts(1))
		require.NoError(tb, err)
		return api, strings.Split(key, "_")[1]
	}
	made.admin, _ = clientOf(earmark.RoleAdmin)
	made.reserve, made.key = clientOf(earmark.RoleReserve)
	return made
}

// Two tenants use the same scopes and the same idempotency keys, side by side. Neither sees or changes what is
// the other's, also while Postgres is away.
func TestTwoTenants(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{OwnPostgres: true, Keys: true})
	server := s.Serve().Ready()
	ctx := t.Context()
	limit := int64(100)
	tenants := []tenant{newTenant(t, s, server, "acme"), newTenant(t, s, server, "globex")}
	var held []*earmark.Reservation
	for _, own := range tenants {
		_, err := own.admin.CreateBudget(ctx, earmark.BudgetRequest{Scope: "ml", Unit: "tokens", Limit: &limit})
		require.NoError(t, err)
		r, err := own.reserve.Reserve(ctx, "chat-1", earmark.ReservationRequest{Scopes: []string{"ml/u1"}, Amounts: earmark.Amounts{"tokens": 100}})
		require.NoError(t, err, "the other's hold takes no room")
		held = append(held, r)
		_, err = own.reserve.CreateBudget(ctx, earmark.BudgetRequest{Scope: "ml/u1", Unit: "tokens", Limit: &limit})
		require.Equal(t, earmark.CodeForbidden, earmark.ErrorCode(err))
	}
	require.NotEqual(t, held[0].ID, held[1].ID)

	for i, own := range tenants {
		other := held[1-i]
		for name, err := range map[string]error{
			"show":    second(own.reserve.Reservation(ctx, other.ID)),
			"commit":  second(own.reserve.Commit(ctx, other.ID, earmark.Amounts{"tokens": 1})),
			"release": second(own.reserve.Release(ctx, other.ID, "")),
			"extend":  second(own.reserve.Extend(ctx, other.ID, time.Hour)),
			"adopt":   second(own.admin.Adopt(ctx, other.ID, client.By{})),
		} {
			require.Equal(t, earmark.CodeNotFound, earmark.ErrorCode(err), name)
			require.Contains(t, err.Error(), "there is no reservation with the id", name)
		}
		list, err := own.reserve.Reservations(ctx, earmark.ReservationFilter{})
		require.NoError(t, err)
		require.Len(t, list.Data, 1)
		require.Equal(t, held[i].ID, list.Data[0].ID)
		entries, err := own.reserve.Entries(ctx, earmark.EntryFilter{ReservationID: other.ID})
		require.NoError(t, err)
		require.Empty(t, entries.Data)
		budgets, err := own.reserve.Budgets(ctx, earmark.BudgetFilter{})
		require.NoError(t, err)
		require.Len(t, budgets.Data, 1)
		stuck, err := own.admin.Stuck(ctx, earmark.ReservationFilter{})
		require.NoError(t, err)
		require.Empty(t, stuck.Data)
		overview, err := own.reserve.Overview(ctx)
		require.NoError(t, err)
		require.EqualValues(t, 1, overview.Held)
		audit, err := own.admin.Audit(ctx, earmark.AuditFilter{})
		require.NoError(t, err)
		for _, record := range audit.Data {
			require.Equal(t, own.name, record.Tenant)
		}
	}

	// The ledger of the one is settled; the other's commit waits in Temporal for Postgres.
	_, err := tenants[0].reserve.Commit(ctx, held[0].ID, earmark.Amounts{"tokens": 30})
	require.NoError(t, err)
	s.Postgres.Stop()
	stack.Eventually(t, moment, "a commit that Temporal keeps", func() bool {
		settled, err := tenants[1].reserve.Commit(ctx, held[1].ID, earmark.Amounts{"tokens": 40})
		return err == nil && settled.Accepted
	})
	_, err = tenants[0].reserve.Release(ctx, held[1].ID, "")
	require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(err), "nobody can say whose it is but Temporal, and it says: not yours")
	s.Postgres.Start()
	stack.Eventually(t, 2*moment, "the commit", func() bool {
		r, err := tenants[1].reserve.Reservation(ctx, held[1].ID)
		return err == nil && r.State == earmark.StateCommitted
	})
	for i, actor := range []string{"key:" + tenants[0].key, "workflow key:" + tenants[1].key} {
		entries, err := tenants[i].reserve.Entries(ctx, earmark.EntryFilter{ReservationID: held[i].ID})
		require.NoError(t, err)
		require.Equal(t, "workflow key:"+tenants[i].key, entries.Data[0].Actor, "the reservation")
		require.Equal(t, actor, entries.Data[len(entries.Data)-1].Actor)
	}
}

func second[T any](_ T, err error) error { return err }

// The command line takes its key from the environment or a file; a key that is revoked stops working on a
// running server.
func TestKeysOfTheCommandLine(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{Keys: true})
	server := s.Serve().Ready()
	s.Setenv("EARMARK_URL", server.URL)
	refused := s.Run("budget", "list")
	require.NotZero(t, refused.Code)
	require.Contains(t, refused.Stderr, "EARMARK_API_KEY_FILE")

	key := strings.TrimSpace(s.MustRun("key", "create", "--role", "admin", "--reason", "test"))
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, []byte(key+"\n"), 0o600))
	s.Setenv("EARMARK_API_KEY_FILE", file)
	require.Contains(t, s.MustRun("budget", "create", "acme", "tokens", "100"), "Limit")
	require.Contains(t, s.MustRun("reserve", "acme", "--amount", "tokens=10"), "Held: 10 tokens")
	require.Contains(t, s.MustRun("drain", "--scope", "acme", "--reason", "test", "--yes"), "1")

	s.Setenv("EARMARK_API_KEY", key)
	both := s.Run("budget", "list")
	require.Contains(t, both.Stderr, "EARMARK_API_KEY and EARMARK_API_KEY_FILE are both set")
	s.Setenv("EARMARK_API_KEY_FILE", "")
	s.Setenv("EARMARK_API_KEY", key[:len(key)-2])
	require.Contains(t, s.Run("budget", "list").Stderr, "the key in EARMARK_API_KEY is malformed")
	s.Setenv("EARMARK_API_KEY", key)

	revoked := time.Now()
	s.MustRun("key", "revoke", strings.Split(key, "_")[1], "--reason", "test")
	stack.Eventually(t, moment, "the revocation", func() bool { return s.Run("budget", "list").Code != 0 })
	require.Less(t, time.Since(revoked), 20*time.Second) // 5 s, and what a busy machine adds
	require.Contains(t, s.Run("budget", "list").Stderr, "the key is revoked")
	require.NotContains(t, server.Log(), key)
}
