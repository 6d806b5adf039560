//go:build linux && drills

package chaos_test

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

const (
	// promotedLimit is how soon after a promotion every server admits again.
	promotedLimit = 10 * time.Second
	// heldBack is how long a standby receives nothing before its primary dies.
	heldBack = 10 * time.Second
)

// replicated is a cluster on a primary and a standby of Postgres.
type replicated struct {
	*cluster
	standby     *stack.Postgres
	replication *link
	former      string // the connection string of the primary from before
	promotedURL string
}

// newReplicated starts two servers and two workers, whose connection strings name both Postgres servers, the primary first.
func newReplicated(t *testing.T) *replicated {
	t.Helper()
	c := newBareCluster(t, stack.Options{OwnPostgres: true, OwnTemporal: true, Durable: true, Grace: grace, AdmissionDeadline: drillDeadline, Keys: true})
	primary, err := url.Parse(c.DatabaseURL)
	require.NoError(t, err)
	r := &replicated{cluster: c, former: c.DatabaseURL, replication: newLink(t, c.proxies, "standby→primary", primary.Host)}
	upstream := *primary
	upstream.Host = r.replication.address()
	r.standby = c.Postgres.Standby(t, &upstream)
	c.Postgres.AwaitStandby(t)
	r.promotedURL = r.standby.URL(t, strings.TrimPrefix(primary.Path, "/"))
	second, err := url.Parse(r.promotedURL)
	require.NoError(t, err)
	c.second = second.Host
	c.populate(2, 2)
	return r
}

// fail kills the primary, promotes the standby, and returns when that was done.
func (r *replicated) fail() time.Time {
	r.t.Helper()
	r.broken.breaks(postgresName)
	r.Postgres.Kill()
	r.standby.Promote(r.t)
	r.UseDatabase(r.promotedURL)
	r.broken.works(postgresName)
	return time.Now()
}

func (r *replicated) processes() (ids []int) {
	for _, n := range r.nodes {
		require.True(r.t, n.Alive(), n.name)
		ids = append(ids, n.PID())
	}
	return ids
}

// rowsOn counts the rows that every transition adds to, on one server.
func (r *replicated) rowsOn(databaseURL string) (rows int) {
	r.t.Helper()
	conn, err := pgx.Connect(context.Background(), databaseURL)
	require.NoError(r.t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	require.NoError(r.t, conn.QueryRow(context.Background(), "SELECT count(*) FROM earmark.entries").Scan(&rows))
	return rows
}

// TestFailover kills a primary whose standby has all that was answered, under load, and then lets the former primary come
// back as if nothing had happened.
func TestFailover(t *testing.T) {
	r := newReplicated(t)
	r.Postgres.Configure(t, "synchronous_standby_names", "*")
	x := newDrill(t, r.cluster)
	processes := r.processes()

	killed := time.Now()
	promoted := r.fail()
	x.measure("the standby is promoted", killed, promoted, promotedLimit, promoted.Sub(killed)+promotedLimit)

	// The former primary is the first in each connection string, and takes writes.
	r.Postgres.Start()
	r.Postgres.Configure(t, "synchronous_standby_names", "")
	before := r.rowsOn(r.former)
	since := time.Now()
	r.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
	x.measure("the former primary is back", since, since, againLimit, againLimit)
	require.Equal(t, before, r.rowsOn(r.former), "the former primary took writes")
	require.Equal(t, processes, r.processes(), "no process was started again")
	x.finish()
}

// TestFailoverThatLosesCommits kills a primary whose standby has received nothing for a while. What the ledger lost and a
// workflow knows is charged again.
func TestFailoverThatLosesCommits(t *testing.T) {
	r := newReplicated(t)
	x := newDrill(t, r.cluster)
	known := map[string]bool{} // reservations that the standby has
	r.replication.cut()
	cut := time.Now()
	time.Sleep(heldBack)
	x.driver.stop()
	promoted := r.fail()
	for id := range readRows(t, r.Pool()) {
		known[id] = true
	}
	took := x.driver.probe(promoted)()
	t.Logf("every server admits %.1f s after the promotion", took.Seconds())
	require.NotZero(t, took)
	require.LessOrEqual(t, took, promotedLimit)
	x.mend()
	x.driver.end()

	var after lostCommits
	for deadline := time.Now().Add(guardLimit); ; time.Sleep(cleanupSlack) {
		r.reconcile()
		if after = x.lostCommits(cut, promoted, known); len(after.uncharged)+len(r.ids("state = 'held'")) == 0 || time.Now().After(deadline) {
			break
		}
	}
	t.Logf("%d commits were answered while replication was held back for %s and are lost with the primary; "+
		"charged again: %d of reservations that the standby had, %d of others; for their callers to charge again: %d that began and ended meanwhile, %d late ones, whose workflow had ended",
		after.answered, heldBack, after.known, after.others, after.gone, after.late)
	require.NotZero(t, after.known)
	require.Empty(t, after.uncharged, "a reservation that the standby had is not charged as its workflow knows")
	_, unguarded := r.guardians()
	require.Empty(t, unguarded, "nobody guards a reservation")
	r.Audit()
}

// lostCommits are commits that were answered, and are lost with a primary.
type lostCommits struct {
	answered      int
	known, others int      // charged again: of reservations that the standby had, and of those that it did not have
	gone          int      // reservations that the standby did not have, whose workflows have ended
	late          int      // after the reservation's expiry, which ends its workflow
	uncharged     []string // with evidence
}

func (x *drill) lostCommits(cut, promoted time.Time, known map[string]bool) (c lostCommits) {
	x.t.Helper()
	rows := readRows(x.t, x.Pool())
	for _, l := range x.driver.lives {
		for _, a := range l.all(commits, done) {
			if a.Answered.Before(cut) || a.Answered.After(promoted) {
				continue
			}
			c.answered++
			row := rows[l.ID]
			switch charged := row != nil && row.State == earmark.StateCommitted && !row.Estimated && maps.Equal(row.Usage, a.Usage); {
			case charged && known[l.ID]:
				c.known++
			case charged:
				c.others++
			case row == nil:
				c.gone++
			case l.ExpiresAt != nil && a.Sent.After(*l.ExpiresAt):
				c.late++
			default:
				c.uncharged = append(c.uncharged, fmt.Sprintf("%s\n  journal: %s\n  ledger:  %s", l.ID, l, row.evidence()))
			}
			break
		}
	}
	return c
}
