//go:build unix

package chaos_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
)

const (
	shortWave = 300 // holds of the wave that `go test` makes
	waveScope = "wave"
	// waveBudgets keeps the admissions from waiting for one budget's lock.
	waveBudgets = 10
	waveCallers = 8
	// waveAttempts is how often an admission is asked for: a busy machine may miss its deadline.
	waveAttempts = 30
	// wavePause is between two looks at the open workflows: to list thousands of them is work for Temporal.
	wavePause = 10 * time.Second
	// waveLead is what the first admissions of a new stack may take.
	waveLead = 5 * time.Second
)

var (
	waveFlag     = flag.Int("wave", shortWave, "holds that expire together")
	waveRateFlag = flag.Float64("wave-rate", 20, "holds a second that this machine makes at least; they expire together when it has made all")
)

// TestExpiryWave kills everything while many holds are open, and starts it again when all of them are
// overdue. Each ends as its policy says, once, and no workflow is left over or missing.
func TestExpiryWave(t *testing.T) {
	holds := *waveFlag
	c := newCluster(t, false)
	clients := c.waveClients()
	policies := []earmark.OnExpiry{earmark.OnExpiryRelease, earmark.OnExpiryCommit, earmark.OnExpiryReview}

	begun := time.Now()
	expiry := begun.Add(waveLead + time.Duration(float64(holds)/(*waveRateFlag)*float64(time.Second)))
	var made atomic.Int64
	group, ctx := errgroup.WithContext(context.Background())
	group.SetLimit(waveCallers)
	for n := range holds {
		group.Go(func() error {
			left := time.Until(expiry)
			if left < 2*time.Second {
				return fmt.Errorf("%d of %d holds were made in %.0f s; set -wave-rate to what this machine makes", made.Load(), holds, time.Since(begun).Seconds())
			}
			_, err := clients[n%len(clients)].Reserve(ctx, fmt.Sprintf("wave-%d", n), earmark.ReservationRequest{
				Scopes: []string{fmt.Sprintf("%s/%d", waveScope, n%waveBudgets)}, Amounts: earmark.Amounts{unitTokens: int64(1 + n%7)},
				TTLSeconds: int64(left / time.Second), OnExpiry: policies[n%len(policies)],
			})
			if err == nil {
				made.Add(1)
			}
			return err
		})
	}
	require.NoError(t, group.Wait())
	took := time.Since(begun)
	require.Equal(t, holds, c.held(), "some expired before everything was killed")
	require.NoError(t, c.Pool().QueryRow(context.Background(), "SELECT max(expires_at) FROM earmark.reservations").Scan(&expiry))

	c.killAll()
	time.Sleep(time.Until(expiry.Add(time.Second)))
	restarted := time.Now()
	c.startAll()
	t.Logf("%d holds, made in %.0f s (%.0f/s); everything was killed and is started again when all of them are overdue", holds, took.Seconds(), float64(holds)/took.Seconds())
	c.await(waveLimit(holds), func() bool { return c.held() == 0 })
	require.Zero(t, c.held(), "still held %s after everything was started again", waveLimit(holds))
	resolved := time.Since(restarted)
	c.awaitGuards(guardLimit+time.Duration(holds)*100*time.Millisecond, wavePause, holds <= shortWave)
	agreed := time.Since(restarted)

	require.Empty(t, c.strandedByWave(holds, policies, restarted))
	c.Audit()
	t.Logf("all of them had ended as their policy says %.1f s after the start (%.0f/s), and Temporal agreed with the ledger after %.1f s",
		resolved.Seconds(), float64(holds)/resolved.Seconds(), agreed.Seconds())
	for _, by := range collect[struct {
		Actor string
		Count int64
		First float64
		Last  float64
	}](t, c.Pool(), `SELECT actor, count(DISTINCT reservation_id) AS count, extract(epoch FROM min(created_at) - to_timestamp($1))::float8 AS first,
		extract(epoch FROM max(created_at) - to_timestamp($1))::float8 AS last FROM earmark.entries WHERE kind IN ('expire', 'review') GROUP BY actor ORDER BY actor`, float64(restarted.UnixMicro())/1e6) {
		t.Logf("  %d by the %s, %.1f to %.1f s after the start", by.Count, by.Actor, by.First, by.Last)
	}
}

// waveLimit is how long a wave may take to end in the ledger after everything was started again. Its workflows end
// more slowly.
func waveLimit(holds int) time.Duration {
	return mendLimit + grace + time.Duration(holds)*20*time.Millisecond
}

// waveClients makes the wave's budgets, and a client for each server.
func (c *cluster) waveClients() []*client.Client {
	c.t.Helper()
	var clients []*client.Client
	for _, n := range c.nodes {
		if n.server != nil {
			api, err := client.New(n.server.URL, client.WithMaxAttempts(waveAttempts))
			require.NoError(c.t, err)
			clients = append(clients, api)
		}
	}
	for n := range waveBudgets {
		_, err := clients[0].CreateBudget(context.Background(), earmark.BudgetRequest{Scope: fmt.Sprintf("%s/%d", waveScope, n), Unit: unitTokens, Limit: new(int64(ample))})
		require.NoError(c.t, err)
	}
	return clients
}

// held counts the reservations that are held.
func (c *cluster) held() (count int) {
	c.t.Helper()
	require.NoError(c.t, c.Pool().QueryRow(context.Background(), "SELECT count(*) FROM earmark.reservations WHERE state = 'held'").Scan(&count))
	return count
}

// strandedByWave lists the reservations of a wave that did not end as their policy says, once, or were adopted
// after the restart, and the workflows that are left over or missing.
func (c *cluster) strandedByWave(holds int, policies []earmark.OnExpiry, restarted time.Time) []string {
	c.t.Helper()
	rows := readRows(c.t, c.Pool())
	var problems []string
	for n := range holds {
		id := earmark.ReservationID(earmark.DefaultTenant, fmt.Sprintf("wave-%d", n))
		r := rows[id]
		if r == nil {
			problems = append(problems, id+": it was admitted, and is not there")
			continue
		}
		want, charged := earmark.StateExpired, earmark.Amounts(nil)
		switch policies[n%len(policies)] {
		case earmark.OnExpiryCommit:
			want, charged = earmark.StateCommitted, r.Amounts
		case earmark.OnExpiryReview:
			want = earmark.StateReview
		case earmark.OnExpiryRelease:
		}
		found := r.chargedOnce("expire", charged)
		if r.State != want || !maps.Equal(r.Usage, charged) || r.Estimated != (charged != nil) {
			found = append(found, fmt.Sprintf("it did not end as its policy %s says", r.OnExpiry))
		}
		if slices.ContainsFunc(r.entries, func(e entry) bool { return e.Kind == "adopt" && e.CreatedAt.After(restarted) }) {
			found = append(found, "the reconciler took it for an orphan")
		}
		for _, complaint := range found {
			problems = append(problems, fmt.Sprintf("%s: %s\n  ledger:  %s", id, complaint, r.evidence()))
		}
	}
	if len(rows) != holds {
		problems = append(problems, fmt.Sprintf("there are %d reservations instead of %d", len(rows), holds))
	}
	problems = append(problems, c.unguarded(rows)...)
	if len(problems) > mostShown {
		return append(problems[:mostShown], fmt.Sprintf("… and %d more", len(problems)-mostShown))
	}
	return problems
}
