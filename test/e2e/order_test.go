//go:build unix

package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

// seeded is a source of randomness whose seed is in the test's log.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("the seed is %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// Messages come twice and in any order, while no worker is there to take them: each
// reservation is settled once, by its first commit.
func TestMessagesTwiceAndInAnyOrder(t *testing.T) {
	t.Parallel()
	random := seeded(t)
	b := setup(t, stack.Options{}, "--without-worker")
	worker := b.Worker()
	budget := b.budget("acme", "tokens", 100_000)
	const reservations = 12
	var ids []string
	for i := range reservations {
		ids = append(ids, b.hold(fmt.Sprint("key-", i), tokens("acme", 100, 300)).ID)
	}
	worker.Kill()
	type message struct {
		name    string
		payload any
		used    int64
	}
	first := map[string]int64{} // usage of the commit that was sent first
	for _, id := range ids {
		messages := []message{
			{"commit", usage(70), 70}, {"commit", usage(70), 70}, {"commit", usage(80), 80}, {"commit", map[string]any{"usage": "much"}, 0},
			{"release", map[string]any{"reason": "not called"}, 0}, {"release", nil, 0}, {"extend", map[string]any{"ttl_seconds": 600}, 0},
			{"refresh", nil, 0}, {"refresh", nil, 0},
		}
		random.Shuffle(len(messages), func(i, j int) { messages[i], messages[j] = messages[j], messages[i] })
		for _, m := range messages {
			b.signal(id, m.name, m.payload)
			if first[id] == 0 {
				first[id] = m.used
			}
		}
	}
	b.Worker()
	sum := int64(0)
	for _, id := range ids {
		b.awaitClosed(id, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
		require.Equal(t, map[string]int{"reserve": 1, "commit": 1}, b.posted(id))
		require.Equal(t, earmark.Amounts{"tokens": first[id]}, b.reservation(id).Usage)
		sum += first[id]
	}
	b.requireBalance(budget, 0, sum)
}

// A commit, a release and the expiry of one reservation at one moment, by two servers
// and the workflow's timer: one of them settles it, every answer says what stands, and
// usage is charged unless a release was final before it.
func TestCommitRacesReleaseRacesExpiry(t *testing.T) {
	t.Parallel()
	random := seeded(t)
	b := setup(t, stack.Options{})
	servers := []api{b.api, {t, b.Serve().Ready().URL}}
	budget := b.budget("acme", "tokens", 100_000)
	const reservations = 24
	jitter := make([]time.Duration, reservations)
	for i := range jitter {
		jitter[i] = time.Duration(random.IntN(60)-30) * time.Millisecond
	}
	held := together(reservations, func(i int) exchange {
		return b.try("POST", "/v1/reservations", tokens("acme", 100, 2), "Idempotency-Key", fmt.Sprint("key-", i))
	})
	type answers struct{ commit, release exchange }
	raced := together(reservations, func(i int) answers {
		reservation := decoded[earmark.Reservation](t, held[i].status(t, http.StatusCreated))
		time.Sleep(time.Until(reservation.ExpiresAt.Add(jitter[i]))) //nolint:forbidigo // to meet the end of the lease
		both := together(2, func(verb int) exchange {
			target := "/v1/reservations/" + reservation.ID
			if verb == 0 {
				return servers[i%2].try("POST", target+"/commit", `{"usage":{"tokens":70}}`)
			}
			return servers[(i+1)%2].try("POST", target+"/release", "")
		})
		return answers{both[0], both[1]}
	})
	ends, charged := map[string]int{}, int64(0)
	for i, x := range raced {
		id := decoded[earmark.Reservation](t, held[i]).ID
		stands := b.reservation(id)
		posted := b.posted(id)
		switch stands.State {
		case earmark.StateCommitted:
			charged += 70
			x.commit.status(t, http.StatusOK)
			require.Equal(t, 1, posted["commit"])
			require.Equal(t, stands.Late, posted["expire"] == 1, "it is late exactly when the expiry came first")
			require.Contains(t, []int{http.StatusOK, http.StatusConflict}, x.release.code, "%s", x.release.body)
		case earmark.StateReleased:
			x.release.status(t, http.StatusOK)
			x.commit.problem(t, http.StatusConflict, earmark.CodeAlreadySettled)
			require.Equal(t, map[string]int{"reserve": 1, "release": 1}, posted)
		default:
			require.Fail(t, "the commit was dropped", "%s is %s: %s", id, stands.State, x.commit.body)
		}
		ends[fmt.Sprint(stands.State, " late=", stands.Late)]++
		b.awaitClosed(id, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	}
	t.Logf("%v", ends)
	b.requireBalance(budget, 0, charged)
}

// Postgres' clock is the one that counts, however far those of the processes are
// from it: here it is minutes ahead of theirs, and minutes behind.
func TestClocksApart(t *testing.T) {
	t.Parallel()
	for name, minutes := range map[string]int{"behind": 10, "ahead": -10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stack.New(t, stack.Options{})
			s.ShiftPostgres(time.Duration(minutes) * time.Minute)
			server := s.Serve().Ready()
			b := &env{Stack: s, api: api{t, server.URL}, server: server}
			b.keepsTime(time.Duration(minutes) * time.Minute)
		})
	}
}

// keepsTime checks that limits, leases and deadlines follow a Postgres whose clock is
// that far ahead of the test's.
func (b *env) keepsTime(ahead time.Duration) {
	b.t.Helper()
	t := b.t
	x := b.do("POST", "/v1/budgets", `{"scope":"acme","unit":"tokens","limit":250,"window":{"period":"hour"}}`)
	budget := decoded[earmark.Budget](t, x.status(t, http.StatusCreated))
	require.False(t, budget.Balance.WindowEnd.Before(time.Now().Add(ahead-time.Minute)), "the window is one of Postgres' clock")

	begun := time.Now()
	expiring, settled := b.hold("expiring", tokens("acme", 100, 2)), b.hold("settled", tokens("acme", 100, 300))
	b.do("POST", "/v1/reservations", tokens("acme", 100, 300)).problem(t, http.StatusPaymentRequired, earmark.CodeBudgetExceeded)
	require.Equal(t, 2*time.Second, expiring.ExpiresAt.Sub(expiring.CreatedAt).Round(time.Second))
	require.InDelta(t, ahead.Seconds(), expiring.CreatedAt.Sub(begun).Seconds(), 30, "it is made by Postgres' clock")
	require.False(t, b.reservation(expiring.ID).Overdue)
	b.awaitState(expiring.ID, earmark.StateExpired, moment)
	require.GreaterOrEqual(t, time.Since(begun), 2*time.Second, "the lease ran as long as it should")
	journal := b.entries(expiring.ID)
	require.Equal(t, earmark.ActorWorkflow.String(), journal[len(journal)-1].Actor)
	b.do("POST", "/v1/reservations/"+settled.ID+"/extend", `{"ttl_seconds":600}`).status(t, http.StatusOK)
	require.False(t, decoded[earmark.Reservation](t, b.commit(settled.ID, 50).status(t, http.StatusOK)).Late)
	b.hold("room again", tokens("acme", 200, 300))
	b.awaitClosed(settled.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	b.awaitClosed(expiring.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
}
