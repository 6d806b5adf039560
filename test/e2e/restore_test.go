//go:build unix

package e2e_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

// Postgres is put back to a backup, and has lost what came after it. Temporal has
// not: usage that workflows know of is charged again, and nothing stays held.
func TestRestoredBackup(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{OwnPostgres: true, Grace: 5 * time.Second})
	budget := b.budget("acme", "tokens", 10_000)
	hold := func(key string, ttlSeconds int64, onExpiry string) string {
		return b.hold(key, fmt.Sprintf(`{"scopes":["acme"],"amounts":{"tokens":100},"ttl_seconds":%d,"on_expiry":%q}`, ttlSeconds, onExpiry)).ID
	}
	commit := func(id string, n int64) {
		b.commit(id, n).status(t, http.StatusOK)
		b.awaitClosed(id, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	}
	before := hold("committed before", 300, "release")
	commit(before, 10)
	committed, overdraft := hold("committed after", 300, "release"), hold("committed after, with overage", 300, "release")
	swept, estimated := hold("committed after, and swept", 6, "release"), hold("committed after, and estimated", 6, "commit")
	released, open := hold("released after", 300, "release"), hold("open", 300, "release")
	restore := b.Postgres.Backup()
	b.server.Ready()

	commit(committed, 20)
	commit(overdraft, 250)
	commit(swept, 30)
	commit(estimated, 40)
	b.do("POST", "/v1/reservations/"+released+"/release", "").status(t, http.StatusOK)
	b.awaitClosed(released, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	spent, unspent := hold("made after", 300, "release"), hold("made after, and nothing spent", 300, "release")
	settled := hold("made and committed after", 300, "release")
	commit(settled, 60)
	b.requireBalance(budget, 300, 10+20+250+30+40+60)
	b.awaitGuarded(spent) // else its first task would run again after the restart, and reserve again
	b.awaitGuarded(unspent)

	restore()
	b.Pool().Reset()
	b.server.Restart() // its sweeper begins a grace after it
	b.server.Ready()
	b.requireBalance(budget, 600, 10)
	// The row is lost, its workflow is not: it charges, by itself if the answer cannot wait for that.
	x := b.commit(spent, 50)
	require.Contains(t, []int{http.StatusOK, http.StatusAccepted}, x.code, "%s", x.body)
	b.awaitClosed(spent, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	require.Equal(t, "the reservation was lost by Postgres", b.reservation(spent).Reason)
	// The sweeper and the workflows come first for two of them, and late usage corrects that.
	b.awaitState(swept, earmark.StateExpired, moment)
	require.True(t, b.awaitState(estimated, earmark.StateCommitted, moment).Estimated)
	b.reconcile("earmark-reconcile")
	for id, n := range map[string]int64{committed: 20, overdraft: 250, swept: 30, estimated: 40} {
		reservation := b.awaitState(id, earmark.StateCommitted, moment)
		stack.Eventually(t, moment, "the real usage", func() bool {
			reservation = b.reservation(id)
			return !reservation.Estimated
		})
		require.Equal(t, earmark.Amounts{"tokens": n}, reservation.Usage)
		require.Contains(t, reservation.Reason, "restored from the workflow's result")
		require.Equal(t, id == swept || id == estimated, reservation.Late)
		commit(id, n) // and again, as its caller would
	}
	stack.Eventually(t, moment, "a guardian of what was released", func() bool { return !b.gone("reservation-" + released) })
	require.False(t, decoded[earmark.Reservation](t, b.commit(open, 5).status(t, http.StatusOK)).Late)
	require.Equal(t, earmark.StateHeld, b.reservation(released).State, "it will expire: nobody says again that nothing was spent")
	b.do("POST", "/v1/reservations/"+released+"/release", "").status(t, http.StatusOK)

	// What was made and settled after the backup, only its caller knows.
	b.do("GET", "/v1/reservations/"+settled, "").problem(t, http.StatusNotFound, earmark.CodeNotFound)
	b.do("GET", "/v1/reservations/"+unspent, "").problem(t, http.StatusNotFound, earmark.CodeNotFound)
	b.requireBalance(budget, 0, 10+20+250+30+40+50+5)
}
