package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"
)

// Bounds and defaults of what can be asked for.
const (
	DefaultRounds   = 5
	MaxRounds       = 50
	DefaultDuration = 4 * time.Second
	MinDuration     = 100 * time.Millisecond
	MaxDuration     = 5 * time.Minute
	DefaultClients  = 8
	MaxClients      = 1000
	DefaultHolds    = 100_000
	MaxRows         = 100_000_000

	quickRounds   = 1
	quickDuration = 200 * time.Millisecond
	quickHolds    = 500
)

// DefaultRows are the settled reservations that growth is measured at.
func DefaultRows() []int64 { return []int64{10_000, 1_000_000} }

// Options say what to measure, and on what.
type Options struct {
	Scenarios []string
	Rounds    int
	// Duration is how long one way runs in one round.
	Duration time.Duration
	Clients  int
	// Quick measures for so short a time that the numbers mean little.
	Quick bool
	// Holds are the open holds of the scenario holds.
	Holds int64
	// Rows are the settled reservations of the scenario growth, one deployment each.
	Rows []int64

	// Program is the earmark that is measured. Base, where it is not empty, is an earlier build of it,
	// which takes turns with it on the same services.
	Program string
	Base    string
	Version string
	// Peers are the addresses of other ledgers, by name, that the scenario peers compares with.
	Peers map[string]string
	// Dir is where the data go; the system's temporary directory when empty.
	Dir string
	// DatabaseURL and TemporalAddress name services that run already; empty ones are started.
	DatabaseURL     string
	TemporalAddress string
	// Dial makes a client of a namespace.
	Dial func(address, namespace string) (client.Client, error)
	// Progress is where a line is written before anything that takes a while.
	Progress io.Writer
}

// Hasten makes a run short; what was asked for explicitly stays.
func (o *Options) Hasten(changed func(flag string) bool) {
	o.Quick = true
	if !changed("rounds") {
		o.Rounds = quickRounds
	}
	if !changed("duration") {
		o.Duration = quickDuration
	}
	if !changed("holds") {
		o.Holds = quickHolds
	}
}

// scenario is one comparison.
type scenario struct {
	name  string
	short string // what it is about
	run   func(*run, context.Context) error
	// namespaces are the deployments that it needs.
	deployments []string
	// long is left out unless it is named.
	long bool
	// beside says that an earlier build takes its turns, where one is named.
	beside bool
}

func scenarios() []scenario {
	return []scenario{
		{"paths", "lifecycles by every path, beside the floors and the textbook", (*run).paths, []string{mainName, separateName}, false, true},
		{"admission", "latency of an admission: alone, at half of saturation, at 10 a second", (*run).admission, []string{mainName}, false, false},
		{"sweep", "latency against offered load, open loop", (*run).sweep, []string{mainName}, false, false},
		{"strategies", "ways to keep a limit in Postgres, hot and spread, near and far", (*run).strategies, []string{ledgerName}, false, false},
		{"costs", "CPU of a denial, memory of a hold, allocations, bytes on disk", (*run).costs, []string{mainName}, false, false},
		{"holds", "admissions beside very many open holds", (*run).holds, []string{emptyName, holdsName}, false, false},
		{"grants", "admissions to a budget of which grants bear each hold, with thresholds", (*run).grants, []string{mainName}, false, false},
		{"concurrency", "1 to 1,000 clients at once", (*run).concurrency, []string{mainName}, false, false},
		{"gateway", "the first byte of a stream through earmark gateway and a plain proxy; 1,000 streams at once", (*run).gateway, []string{mainName}, true, false},
		{"durations", "lifecycles whose holds last 0, 1, 5 and 30 s", (*run).durations, []string{mainName}, true, true},
		{"neighbours", "a bystander beside floods on other scopes", (*run).neighbours, []string{mainName}, true, true},
		{peersScenario, "lifecycles beside other ledgers, which run already: see --peer", (*run).peers, []string{mainName}, true, false},
		{"growth", "lifecycles on top of very many settled rows", (*run).growth, nil, true, false},
		{"pooler", "lifecycles through PgBouncer, which has to be installed", (*run).pooler, []string{emptyName, pooledName}, true, false},
	}
}

// Names of deployments.
const (
	mainName     = "main"
	separateName = "separate"
	ledgerName   = "ledger"
	emptyName    = "empty"
	holdsName    = "holds"
	pooledName   = "pooled"
	baseName     = "base" // an earlier build
)

// ScenarioNames lists the scenarios, with what they are about; long ones run only
// when they are named.
func ScenarioNames() (names []string, about func(name string) string, defaults []string) {
	words := make(map[string]string)
	for _, s := range scenarios() {
		names = append(names, s.name)
		words[s.name] = s.short
		if !s.long {
			defaults = append(defaults, s.name)
		}
	}
	return names, func(name string) string { return words[name] }, defaults
}

// run is a benchmark under way.
type run struct {
	Options
	*services
	report      *Report
	deployments map[string]*deployment
	floor       *bare
	plain       *statements
	samples     *textbook
	begun       time.Time
}

// Run measures what the options ask for. The report holds what was measured so far
// also when the error is not nil.
func Run(ctx context.Context, options Options) (report *Report, err error) {
	report = &Report{StartedAt: time.Now().UTC(), Scenarios: options.Scenarios, Rounds: options.Rounds,
		DurationSeconds: options.Duration.Seconds(), Clients: options.Clients, Quick: options.Quick}
	r := &run{Options: options, report: report, begun: time.Now(), deployments: make(map[string]*deployment)}
	defer func() { report.TookSeconds = time.Since(r.begun).Seconds(); report.judge() }()
	r.say("starting Postgres and Temporal")
	if r.services, err = startServices(ctx, options); err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, r.services.stop(ctx)) }()
	defer func() { err = errors.Join(err, r.close(ctx)) }()
	chosen := slices.DeleteFunc(scenarios(), func(s scenario) bool { return !slices.Contains(options.Scenarios, s.name) })
	if err := r.deployAll(ctx, chosen); err != nil {
		return report, err
	}
	for _, s := range chosen {
		r.say("%s: %s", s.name, s.short)
		if err := s.run(r, ctx); err != nil {
			if ctx.Err() != nil {
				return report, ctx.Err()
			}
			return report, fmt.Errorf("%s: %w", s.name, errors.Join(err, r.services.died()))
		}
	}
	return report, r.auditAll(ctx)
}

// deployAll makes what the scenarios need, side by side: most of it is waiting.
func (r *run) deployAll(ctx context.Context, chosen []scenario) error {
	var names []string
	for _, s := range chosen {
		names = append(names, s.deployments...)
		if s.beside && r.Base != "" {
			names = append(names, baseName)
		}
		if s.name == growthScenario {
			names = append(names, growthNames(r.Rows)...)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	r.say("making %d databases and namespaces", len(names))
	made := make([]*deployment, len(names))
	group, groupCtx := errgroup.WithContext(ctx)
	for i, name := range names {
		group.Go(func() (err error) {
			made[i], err = r.services.deploy(groupCtx, name)
			if err == nil {
				err = made[i].newBudgets(groupCtx)
			}
			return err
		})
	}
	err := group.Wait()
	for _, d := range made {
		if d != nil {
			r.deployments[d.name] = d
		}
	}
	if err != nil {
		return err
	}
	first := r.deployments[names[0]]
	r.report.Machine, err = describe(ctx, first.pool, first.temporal, r.services.temporal != nil, r.Version)
	return err
}

// serving starts what runs on a deployment, unless it runs already, and lets it
// run on for the scenarios that follow.
func (r *run) serving(ctx context.Context, name string) (*deployment, error) {
	d := r.deployments[name]
	if d.processes != nil {
		return d, nil
	}
	return d, d.serve(ctx, name == separateName)
}

// floors are the bare workflow's worker, started when it is first asked for.
func (r *run) floors() (*bare, error) {
	if r.floor != nil {
		return r.floor, nil
	}
	floor, err := startBare(r.deployments[mainName].temporal)
	if err == nil {
		r.floor = floor
	}
	return floor, err
}

// statements are made once, on the main deployment.
func (r *run) statements(ctx context.Context) (*statements, error) {
	if r.plain != nil {
		return r.plain, nil
	}
	plain, err := newStatements(ctx, r.deployments[mainName])
	if err == nil {
		r.plain = plain
	}
	return plain, err
}

func (r *run) close(ctx context.Context) error {
	if r.floor != nil {
		r.floor.worker.Stop()
	}
	if r.samples != nil {
		r.samples.worker.Stop()
	}
	var errs []error
	for _, d := range r.deployments {
		errs = append(errs, d.close(ctx))
	}
	return errors.Join(errs...)
}

// auditAll checks that what was measured also kept its books.
func (r *run) auditAll(ctx context.Context) error {
	audited := 0
	for name, d := range r.deployments {
		if strings.HasPrefix(name, growthScenario) || name == pooledName {
			continue // are audited in their scenarios
		}
		r.say("auditing the ledger of %s", name)
		if _, err := d.audit(ctx); err != nil {
			return err
		}
		audited++
	}
	if audited > 0 {
		r.report.figures.add("audit.mismatched_ledgers", "ledgers", 0)
	}
	return nil
}

// say prints what comes next.
func (r *run) say(format string, args ...any) {
	if r.Progress != nil {
		fmt.Fprintf(r.Progress, "%6s  %s\n", time.Since(r.begun).Round(time.Second), fmt.Sprintf(format, args...))
	}
}

// block runs one block of a way, and notes what failed in it.
func (r *run) closed(ctx context.Context, w *way, clients int, duration time.Duration) (*block, error) {
	b, err := w.closed(ctx, clients, duration)
	return r.noted(fmt.Sprintf("%s, %d clients", w.title, clients), b), err
}

func (r *run) open(ctx context.Context, w *way, perSecond float64, duration time.Duration) (*block, error) {
	b, err := w.open(ctx, perSecond, duration)
	return r.noted(fmt.Sprintf("%s, %.0f a second", w.title, perSecond), b), err
}

func (r *run) noted(what string, b *block) *block {
	if b != nil && b.failed > 0 {
		r.report.note("%s: %d of %d calls failed, such as: %s", what, b.failed, b.failed+b.done, b.examples[0])
	}
	return b
}
