//go:build linux && drills

package chaos_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/devstack"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/stack"
)

const (
	// scaleWarm is how long an arm runs before it is measured, and scaleFor how long it is measured.
	scaleWarm = 5 * time.Second
	scaleFor  = 25 * time.Second
	// scaleClients make their requests one after the other, each on a budget of its own.
	scaleClients = 16
	scaleRounds  = 3
)

// part is something whose use of CPU is counted, and that can be pinned to cores.
type part struct {
	name string
	pids func() []int
}

// usage of CPU by a part, its children included, since it began.
func (p part) usage(tb testing.TB) (used time.Duration) {
	tb.Helper()
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
	for _, pid := range p.pids() {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended, and its parent has its usage
		}
		// The name of the command, in parentheses, may hold spaces. Then come state, ppid, … and, 12th to 15th, utime, stime, cutime, cstime.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		for _, field := range fields[11:15] {
			ticks, err := strconv.ParseInt(field, 10, 64)
			require.NoError(tb, err)
			used += time.Duration(ticks) * tick
		}
	}
	return used
}

// pin lets every thread of a part, and those to come, run on some cores alone.
func (p part) pin(tb testing.TB, cores string) {
	tb.Helper()
	for _, pid := range p.pids() {
		output, err := exec.Command("taskset", "-acp", cores, strconv.Itoa(pid)).CombinedOutput()
		if _, gone := os.Stat(fmt.Sprintf("/proc/%d", pid)); gone == nil {
			require.NoError(tb, err, "%s", output)
		}
	}
}

// tree is a process with all below it.
func tree(tb testing.TB, pid int) []int {
	tb.Helper()
	below, err := stack.Descendants(pid)
	require.NoError(tb, err)
	return append(below, pid)
}

func itself() []int { return []int{os.Getpid()} }

// writes of a Postgres server since it began.
type writes struct{ log, commits float64 }

const writesSQL = `SELECT pg_current_wal_lsn() - '0/0', (SELECT sum(xact_commit) FROM pg_stat_database)`

// arm is one way to place the parts on cores.
type arm struct {
	name    string
	clients int
	pinned  map[string]string // cores by part; a part that is not named runs on every core
}

// figures of an arm.
type figures struct {
	rate float64            // lifecycles a second
	cpu  map[string]float64 // busy cores by part
	p50  time.Duration      // of a lifecycle: a reservation and its commit
}

// everyCore as taskset writes it.
func everyCore() string { return fmt.Sprintf("0-%d", runtime.NumCPU()-1) }

// measure runs lifecycles on an arm, which fails if one of them does after the warm-up.
func (a arm) measure(tb testing.TB, parts []part, lifecycle func(client int, n int64) error) figures {
	tb.Helper()
	for _, p := range parts {
		cores, found := a.pinned[p.name]
		if !found {
			cores = everyCore()
		}
		p.pin(tb, cores)
	}
	var (
		running  = make(chan struct{})
		counting atomic.Bool
		mu       sync.Mutex
		took     []time.Duration
		failures []error
		clients  sync.WaitGroup
	)
	for i := range a.clients {
		clients.Go(func() {
			for n := int64(0); ; n++ {
				select {
				case <-running:
					return
				default:
				}
				begun := time.Now()
				err := lifecycle(i, n)
				if !counting.Load() { // a new cluster refuses its first calls
					continue
				}
				mu.Lock()
				if err != nil {
					failures = append(failures, err)
				} else {
					took = append(took, time.Since(begun))
				}
				mu.Unlock()
			}
		})
	}
	time.Sleep(scaleWarm)
	before := map[string]time.Duration{}
	for _, p := range parts {
		before[p.name] = p.usage(tb)
	}
	begun := time.Now()
	counting.Store(true)
	time.Sleep(scaleFor)
	counting.Store(false)
	elapsed := time.Since(begun).Seconds()
	f := figures{cpu: map[string]float64{}}
	for _, p := range parts {
		f.cpu[p.name] = (p.usage(tb) - before[p.name]).Seconds() / elapsed
	}
	close(running)
	clients.Wait()
	require.Empty(tb, failures)
	require.NotEmpty(tb, took)
	slices.Sort(took)
	f.rate, f.p50 = float64(len(took))/elapsed, took[len(took)/2]
	return f
}

// line is a row of a table: the rate, and for each part the busy cores and the milliseconds of CPU for a lifecycle.
func (f figures) line(name string, parts []part) string {
	line := fmt.Sprintf("| %s | %.1f | %.0f ms |", name, f.rate, f.p50.Seconds()*1000)
	for _, p := range parts {
		line += fmt.Sprintf(" %.2f, %.1f ms |", f.cpu[p.name], 1000*f.cpu[p.name]/f.rate)
	}
	return line
}

func header(parts []part) string {
	line, rule := "| arm | lifecycles/s | p50 |", "|---|---:|---:|"
	for _, p := range parts {
		line, rule = line+" "+p.name+": cores, CPU each |", rule+"---:|"
	}
	return line + "\n" + rule
}

// BenchmarkTemporalOnCores measures lifecycles by the cores that Temporal's nodes may use, and fits for each part the CPU
// of a lifecycle and of being there. One Earmark server with its worker, whose Postgres is apart from Temporal's.
func BenchmarkTemporalOnCores(b *testing.B) {
	temporal := newTemporalCluster(b, false, map[string]int{roleFrontend: 2, roleHistory: 2, roleMatching: 1, roleWorker: 1})
	s := stack.New(b, stack.Options{OwnPostgres: true, Durable: true, TemporalAddress: temporal.address(), AdmissionDeadline: drillDeadline})
	server := s.Serve().Ready()
	api, err := client.New(server.URL)
	require.NoError(b, err)
	for i := range scaleClients {
		limit := int64(1) << 50
		_, err := api.CreateBudget(b.Context(), earmark.BudgetRequest{Scope: fmt.Sprintf("scale-%d", i), Unit: "tokens", Limit: &limit})
		require.NoError(b, err)
	}
	ofRoles := func(roles ...string) func() []int {
		return func() (pids []int) {
			for _, role := range roles {
				for _, n := range temporal.of(role) {
					pids = append(pids, n.PID())
				}
			}
			return pids
		}
	}
	const history, nodes, temporals, earmarks, ledger, load = "history", "frontend, matching, worker", "Temporal's Postgres", "Earmark", "Earmark's Postgres", "load"
	parts := []part{
		{history, ofRoles(roleHistory)},
		{nodes, ofRoles(roleFrontend, roleMatching, roleWorker)},
		{temporals, func() []int { return tree(b, temporal.server.PID()) }},
		{earmarks, func() []int { return []int{server.PID()} }},
		{ledger, func() []int { return tree(b, s.Postgres.PID()) }},
		{load, itself},
	}
	var run int
	lifecycle := func(i int, n int64) error {
		ctx := context.Background()
		held, err := api.Reserve(ctx, fmt.Sprintf("%d-%d-%d", run, i, n), earmark.ReservationRequest{
			Scopes: []string{fmt.Sprintf("scale-%d", i)}, Amounts: earmark.Amounts{"tokens": 100}})
		if err == nil {
			_, err = api.Commit(ctx, held.ID, earmark.Amounts{"tokens": 70})
		}
		return err
	}
	last := strconv.Itoa(runtime.NumCPU() - 1)
	rest := "0-" + strconv.Itoa(max(0, runtime.NumCPU()-2))
	place := func(on string, names ...string) map[string]string {
		pinned := map[string]string{}
		for _, p := range parts {
			pinned[p.name] = rest
		}
		for _, name := range names {
			pinned[name] = on
		}
		return pinned
	}
	arms := []arm{
		{"1 client, every core", 1, nil},
		{"4 clients, every core", 4, nil},
		{"16 clients, every core", scaleClients, nil},
		{"16 clients, all of Temporal's nodes on one core", scaleClients, place(last, history, nodes)},
		{"16 clients, they and their Postgres on one core", scaleClients, place(last, history, nodes, temporals)},
		{"16 clients, history nodes on one core", scaleClients, place(last, history)},
	}
	var lines []string
	var shared []figures
	for range b.N {
		for i, a := range arms {
			run++
			logs := []writes{scaleWrites(b, s), temporal.writes()}
			began := temporal.count("SELECT count(*) FROM executions")
			f := a.measure(b, parts, lifecycle)
			lines = append(lines, f.line(a.name, parts))
			if i < 3 {
				shared = append(shared, f)
			}
			after := []writes{scaleWrites(b, s), temporal.writes()}
			done := float64(temporal.count("SELECT count(*) FROM executions") - began)
			b.Logf("%s: %.0f workflows; for each %.1f kB of log and %.1f commits in Earmark's Postgres, %.1f kB and %.1f in Temporal's", a.name, done,
				(after[0].log-logs[0].log)/done/1000, (after[0].commits-logs[0].commits)/done, (after[1].log-logs[1].log)/done/1000, (after[1].commits-logs[1].commits)/done)
		}
		b.ReportMetric(shared[len(shared)-1].rate, "lifecycles/s")
	}
	for _, p := range parts {
		perSecond, idle := fit(shared, p.name)
		lines = append(lines, fmt.Sprintf("%s: %.1f ms of CPU for a lifecycle, and %.0f%% of a core for being there", p.name, 1000*perSecond, 100*idle))
	}
	b.Logf("\n%s\n%s", header(parts), strings.Join(lines, "\n"))
}

// fit finds by least squares how many cores a part uses for each lifecycle a second, and at none.
func fit(all []figures, name string) (perSecond, idle float64) {
	var n, x, y, xx, xy float64
	for _, f := range all {
		n, x, y, xx, xy = n+1, x+f.rate, y+f.cpu[name], xx+f.rate*f.rate, xy+f.rate*f.cpu[name]
	}
	perSecond = (n*xy - x*y) / (n*xx - x*x)
	return perSecond, (y - perSecond*x) / n
}

func scaleWrites(tb testing.TB, s *stack.Stack) (w writes) {
	tb.Helper()
	require.NoError(tb, s.Pool().QueryRow(context.Background(), writesSQL).Scan(&w.log, &w.commits))
	return w
}

// BenchmarkTenantsOverPostgres splits tenants over two Postgres servers, each with a ledger and a connection string for
// its half, and compares with one server that has them all. It calls the ledger alone: with Temporal on the same cores,
// that would be the limit.
func BenchmarkTenantsOverPostgres(b *testing.B) {
	const tenants = 8
	limit := int64(1) << 50
	actor := earmark.Actor{Kind: earmark.ActorKindOperator, Name: "bench"}
	tenant := func(i int) string { return fmt.Sprintf("tenant-%d", i) }
	start := func(name string, serves func(tenant int) bool) (part, *postgres.Ledger) {
		server, err := devstack.StartPostgres(b.Context(), devstack.PostgresOptions{Dir: serverDir(b), Superuser: true})
		require.NoError(b, err)
		b.Cleanup(func() { require.NoError(b, server.Stop(context.Background())) })
		output, err := exec.Command(stack.Binary(b), "migrate", "up", "--database-url", server.URL()).CombinedOutput()
		require.NoError(b, err, "%s", output)
		pool, err := postgres.Open(b.Context(), server.URL())
		require.NoError(b, err)
		b.Cleanup(pool.Close)
		ledger := postgres.New(pool)
		for t := range tenants {
			if !serves(t) {
				continue
			}
			_, err := ledger.CreateTenant(b.Context(), tenant(t), actor, "bench")
			require.NoError(b, err)
			for c := range scaleClients {
				_, err := ledger.CreateBudget(b.Context(), tenant(t), earmark.BudgetRequest{Scope: fmt.Sprintf("scale-%d", c), Unit: "tokens", Limit: &limit}.WithDefaults(), actor)
				require.NoError(b, err)
			}
		}
		return part{name, func() []int { return tree(b, server.PID()) }}, ledger
	}
	const one, first, second, load = "one Postgres", "Postgres of the first half", "Postgres of the second half", "load"
	all, allLedger := start(one, func(int) bool { return true })
	firstHalf, firstLedger := start(first, func(t int) bool { return t < tenants/2 })
	secondHalf, secondLedger := start(second, func(t int) bool { return t >= tenants/2 })
	parts := []part{all, firstHalf, secondHalf, {load, itself}}

	lifecycleOn := func(ledgerOf func(tenant int) *postgres.Ledger) func(int, int64) error {
		return func(client int, n int64) error {
			t := int(n+int64(client)) % tenants
			ledger, id := ledgerOf(t), earmark.NewReservationID()
			request := earmark.ReservationRequest{Scopes: []string{fmt.Sprintf("scale-%d", client)}, Amounts: earmark.Amounts{"tokens": 100}}.WithDefaults()
			result, err := ledger.Reserve(context.Background(), earmark.Admission{ID: id, Tenant: tenant(t), RequestHash: id, WorkflowID: id, Request: request})
			if err == nil && result.Outcome == earmark.OutcomeApplied {
				result, err = ledger.Commit(context.Background(), earmark.Transition{ID: id, Tenant: tenant(t), Actor: actor}, earmark.Amounts{"tokens": 70})
			}
			if err == nil && result.Outcome != earmark.OutcomeApplied {
				err = fmt.Errorf("%s of %s", result.Outcome, tenant(t))
			}
			return err
		}
	}
	together := lifecycleOn(func(int) *postgres.Ledger { return allLedger })
	split := lifecycleOn(func(t int) *postgres.Ledger {
		if t < tenants/2 {
			return firstLedger
		}
		return secondLedger
	})
	// Nothing of a tenant is known on the other half's server.
	known, err := secondLedger.Tenants(b.Context())
	require.NoError(b, err)
	require.False(b, slices.ContainsFunc(known, func(t earmark.Tenant) bool { return t.ID == tenant(0) }))

	lines := []string{header(parts)}
	var ratios []float64
	for range b.N {
		for range scaleRounds {
			whole := arm{clients: scaleClients}.measure(b, parts, together)
			halves := arm{clients: scaleClients}.measure(b, parts, split)
			ratios = append(ratios, halves.rate/whole.rate)
			lines = append(lines, whole.line("one server, every core", parts), halves.line("two servers, every core", parts))
			if runtime.NumCPU() > 1 {
				alone := arm{clients: scaleClients, pinned: map[string]string{one: "0", load: fmt.Sprintf("1-%d", runtime.NumCPU()-1)}}.measure(b, parts, together)
				lines = append(lines, alone.line("one server, on one core", parts))
			}
		}
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "two/one")
	b.Logf("\n%s", strings.Join(lines, "\n"))
}

// serverDir is a directory for a Postgres server, which may run as another user.
func serverDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "earmark-scale-")
	require.NoError(tb, err)
	require.NoError(tb, os.Chmod(dir, 0o755))
	tb.Cleanup(func() { require.NoError(tb, os.RemoveAll(dir)) })
	return filepath.Join(dir, "postgres")
}
