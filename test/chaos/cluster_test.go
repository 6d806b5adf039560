//go:build unix

package chaos_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/earmark-dev/earmark/internal/stack"
)

const (
	// mendLimit bounds how long everything may take to be ready again at the end.
	mendLimit = 60 * time.Second
	// cleanupSlack is what cleanup may take past the grace.
	cleanupSlack = 5 * time.Second
	// guardLimit is how long the workflows may take to agree with the ledger: the
	// reconciler runs once a minute, and looks at what it has not seen for a minute.
	guardLimit = 3 * time.Minute
	pollPause  = 200 * time.Millisecond
	// uiURL is where the servers say that Temporal UI is.
	uiURL = "http://temporal-ui.test"
)

// node is an earmark process and its ways to the others.
type node struct {
	*stack.Process
	name     string
	server   *stack.Server // nil for a worker
	front    *link         // the driver's way to a server
	postgres *link
	temporal *link
}

// cluster is everything that runs.
type cluster struct {
	*stack.Stack
	t       *testing.T
	nodes   []*node
	proxies *toxiproxy.ApiServer
	broken  *timeline
	former  bool     // some servers are of an earlier version
	flags   []string // of every process
	second  string   // host and port of a second Postgres server, if there is one
}

// newCluster starts everything; with keys, its servers ask for them.
func newCluster(t *testing.T, keys bool) *cluster {
	t.Helper()
	c := newBareCluster(t, stack.Options{
		OwnPostgres: true, OwnTemporal: true, Durable: true, Grace: grace, AdmissionDeadline: admissionDeadline, Keys: keys,
	})
	c.flags = []string{"--allow-private-webhooks"} // the receivers are in this process
	c.populate(2, 2)
	return c
}

// newBareCluster makes a cluster without a process of Earmark.
func newBareCluster(t *testing.T, options stack.Options) *cluster {
	t.Helper()
	return &cluster{t: t, proxies: newProxies(), broken: newTimeline(), Stack: stack.New(t, options)}
}

// populate starts servers, with flags, and workers, and waits until the servers are ready.
func (c *cluster) populate(servers, workers int, flags ...string) {
	c.t.Helper()
	for i := range servers {
		c.addServer(fmt.Sprintf("serve-%d", i+1), flags...)
	}
	for i := range workers {
		c.addWorker(fmt.Sprintf("worker-%d", i+1))
	}
	for _, n := range c.nodes {
		if n.server != nil {
			n.server.Ready()
		}
	}
}

// wire makes a node's ways to the services, and the flags that make it take them.
func (c *cluster) wire(name string) (n *node, flags []string) {
	database, err := url.Parse(c.DatabaseURL)
	require.NoError(c.t, err)
	n = &node{name: name, postgres: newLink(c.t, c.proxies, name+"→postgres", database.Host)}
	database.Host = n.postgres.address()
	if c.second != "" {
		database.Host += "," + c.second
		database.RawQuery += "&target_session_attrs=read-write"
	}
	flags = append(slices.Clone(c.flags), "--database-url", database.String())
	if address := c.Temporal.Address(); !strings.Contains(address, "://") { // a name of several nodes is for the process itself to resolve
		n.temporal = newLink(c.t, c.proxies, name+"→temporal", address)
		flags = append(flags, "--temporal-address", n.temporal.address())
	}
	return n, flags
}

func (c *cluster) addServer(name string, more ...string) {
	n, flags := c.wire(name)
	n.server = c.Serve(slices.Concat(flags, more, []string{"--ui-url", uiURL})...)
	n.Process = n.server.Process
	n.front = newLink(c.t, c.proxies, "driver→"+name, strings.TrimPrefix(n.server.URL, "http://"))
	c.nodes = append(c.nodes, n)
}

func (c *cluster) addWorker(name string) {
	n, flags := c.wire(name)
	n.Process = c.Worker(flags...)
	c.nodes = append(c.nodes, n)
}

// mend makes sure that everything runs and answers.
func (c *cluster) mend() {
	c.t.Helper()
	c.Postgres.Start()
	c.Temporal.Start()
	for _, n := range c.nodes {
		if !n.Alive() {
			n.Process.Start()
		}
		for _, l := range []*link{n.front, n.postgres, n.temporal} {
			if l != nil {
				require.Empty(c.t, l.toxics)
				require.True(c.t, l.proxy.Enabled, l.name)
			}
		}
		if n.server != nil {
			stack.Eventually(c.t, mendLimit, n.name+" to be ready", n.server.IsReady)
		}
	}
}

// awaitCleanup waits until no lease runs any more, or should, and until there is
// exactly one open workflow for each reservation that is still open. What is left
// after that is found by the checks.
func (c *cluster) awaitCleanup() {
	c.t.Helper()
	var wait time.Duration
	require.NoError(c.t, c.Pool().QueryRow(context.Background(),
		`SELECT (greatest(0, extract(epoch FROM max(expires_at) - clock_timestamp())) * 1e9)::bigint FROM earmark.reservations WHERE state = 'held'
		 UNION ALL SELECT 0 ORDER BY 1 DESC NULLS LAST LIMIT 1`).Scan(&wait))
	c.await(wait+grace+cleanupSlack, func() bool { return len(c.ids("state = 'held'")) == 0 })
	c.awaitGuards(guardLimit, pollPause, isShort())
}

// awaitGuards waits until there is exactly one open workflow for each reservation that is open, and looks again
// after each pause. A short run does not wait for the reconciler's minute.
func (c *cluster) awaitGuards(limit, pause time.Duration, short bool) {
	c.t.Helper()
	hurried := time.Now()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(pause) {
		if short && time.Since(hurried) > cleanupSlack {
			hurried = time.Now()
			c.reconcile()
		}
		if unheld, unguarded := c.guardians(); len(unheld)+len(unguarded) == 0 {
			return
		}
	}
}

// reconcile lets the reconciler look at every reservation now.
func (c *cluster) reconcile() {
	c.t.Helper()
	c.Exec("UPDATE earmark.reservations SET checked_at = clock_timestamp() - interval '1 hour'")
	_ = c.Client().ScheduleClient().GetHandle(context.Background(), "earmark-reconcile").Trigger(context.Background(), client.ScheduleTriggerOptions{})
}

// await polls until the condition holds or the limit is over.
func (c *cluster) await(limit time.Duration, condition func() bool) {
	for deadline := time.Now().Add(limit); !condition() && time.Now().Before(deadline); {
		time.Sleep(pollPause)
	}
}

// ids lists the reservations for which a condition holds.
func (c *cluster) ids(condition string) []string {
	c.t.Helper()
	rows, err := c.Pool().Query(context.Background(), "SELECT id FROM earmark.reservations WHERE "+condition)
	require.NoError(c.t, err)
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		require.NoError(c.t, rows.Scan(&id))
		ids = append(ids, id)
	}
	require.NoError(c.t, rows.Err())
	return ids
}

// guardians compares the open workflows with the open reservations: the workflows
// that guard nothing, and the reservations that nobody guards.
func (c *cluster) guardians() (unheld, unguarded []string) {
	c.t.Helper()
	open := map[string]bool{}
	for _, id := range c.openWorkflows() {
		open[id] = true
	}
	for _, id := range c.ids("state IN ('held', 'review')") {
		if !open["reservation-"+id] {
			unguarded = append(unguarded, id)
		}
		delete(open, "reservation-"+id)
	}
	for id := range open {
		unheld = append(unheld, id)
	}
	return unheld, unguarded
}

func (c *cluster) openWorkflows() []string { return c.workflows("ExecutionStatus = 'Running'") }

// workflows lists the reservations' workflows for which a query holds, page by page. While Temporal works through
// thousands of due timers it may miss a call's deadline: then the page is asked for again.
func (c *cluster) workflows(query string) []string {
	c.t.Helper()
	var ids []string
	var token []byte
	for begun := time.Now(); ; {
		page, err := c.Client().ListWorkflow(context.Background(), &workflowservice.ListWorkflowExecutionsRequest{
			Namespace: c.Namespace, Query: "WorkflowType = 'Reservation' AND " + query, NextPageToken: token,
		})
		if err != nil && time.Since(begun) < guardLimit {
			time.Sleep(pollPause)
			continue
		}
		require.NoError(c.t, err)
		for _, execution := range page.GetExecutions() {
			ids = append(ids, execution.GetExecution().GetWorkflowId())
		}
		if token = page.GetNextPageToken(); len(token) == 0 {
			return ids
		}
	}
}

// temporalLogBytes returns how large the log of Temporal's file has grown: under overload it
// can grow without bound.
func (c *cluster) temporalLogBytes() int64 {
	info, err := os.Stat(filepath.Join(c.Dir(), "temporal", "temporal.db-wal"))
	if err != nil {
		return 0
	}
	return info.Size()
}
