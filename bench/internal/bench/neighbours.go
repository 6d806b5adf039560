package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/ctxtime"
)

const (
	// bystanderRate is what one well-behaved caller asks for, a second.
	bystanderRate = 5
	bystander     = scopesPrefix + "0"
	// bystanderTimes is how much longer than other blocks these are: at 5 a second few admissions are measured.
	bystanderTimes = 4
	// refusedPause is the Retry-After of a refusal.
	refusedPause   = time.Second
	expireAllHolds = "UPDATE earmark.reservations SET expires_at = clock_timestamp() WHERE state = 'held' AND workflow_id = $1"
)

// flood is what a bystander runs beside.
type flood struct {
	key   string
	title string
	// clients make one call after the other; once says that each makes one alone.
	clients int
	once    bool
	call    func(ctx context.Context, n int64) error
	// before makes what the flood needs; nil for nothing.
	before func(ctx context.Context) error
}

// neighbours measures a bystander alone, and beside floods on other scopes.
func (r *run) neighbours(ctx context.Context) error {
	main, err := r.serving(ctx, mainName)
	if err != nil {
		return err
	}
	deployments := map[string]*deployment{"earmark": main}
	order := []string{"earmark"}
	if r.Base != "" {
		if deployments["base"], err = r.serving(ctx, baseName); err != nil {
			return err
		}
		order = append(order, "base")
	}
	titles := map[string]string{"earmark": "earmark", "base": "earlier build"}
	for round := range r.Rounds {
		for i := range order {
			key := order[(i+round)%len(order)]
			r.say("  round %d: %s", round+1, titles[key])
			if err := r.beside(ctx, key, deployments[key]); err != nil {
				return err
			}
		}
	}
	table := Table{Title: fmt.Sprintf("A bystander at %d requests a second beside floods", bystanderRate),
		Columns: []string{"way", "flood", "p50, ms", "p99, ms", "p99 × alone", "refused", "flood, calls/s", "× without the bystander"}}
	f := &r.report.figures
	for _, key := range order {
		table.row(titles[key], "none", f.text("neighbours."+key+".alone.p50_ms"), f.text("neighbours."+key+".alone.p99_ms"), "", f.short("neighbours."+key+".alone.refused"), "", "")
		for _, flood := range r.floods(deployments[key]) {
			name := "neighbours." + key + "." + flood.key
			f.ratio(name+".p99_per_alone", name+".p99_ms", "neighbours."+key+".alone.p99_ms")
			f.ratio(name+".flood_ratio", name+".flood_per_second", name+".flood_alone_per_second")
			table.row(titles[key], flood.title, f.text(name+".p50_ms"), f.text(name+".p99_ms"), f.text(name+".p99_per_alone"), f.short(name+".refused"),
				f.text(name+".flood_per_second"), f.text(name+".flood_ratio"))
		}
	}
	table.Notes = []string{"All of the load, the load driver, Temporal and Postgres share the machine. Latency counts from the moment at which a request was due."}
	r.report.Tables = append(r.report.Tables, table)
	return nil
}

// beside measures the bystander of one build: alone, then beside each flood.
func (r *run) beside(ctx context.Context, key string, d *deployment) error {
	w := d.byHTTP(key, "the bystander", func(int64) string { return bystander })
	f := &r.report.figures
	measure := func(name string) error {
		b, err := r.open(ctx, w, bystanderRate, bystanderTimes*r.Duration)
		if err == nil {
			keepLatency(f, name, b)
			f.add(name+".refused", "calls", float64(b.failed))
		}
		return err
	}
	if err := measure("neighbours." + key + ".alone"); err != nil {
		return err
	}
	for _, flood := range r.floods(d) {
		name := "neighbours." + key + "." + flood.key
		perSecond, err := flood.during(ctx, func() error { ctxtime.Sleep(ctx, r.Duration); return nil })
		if err != nil {
			return fmt.Errorf("%s: %w", flood.title, err)
		}
		f.add(name+".flood_alone_per_second", "1/s", perSecond)
		perSecond, err = flood.during(ctx, func() error { return measure(name) })
		if err != nil {
			return fmt.Errorf("beside %s: %w", flood.title, err)
		}
		f.add(name+".flood_per_second", "1/s", perSecond)
	}
	return nil
}

// floods are those of the scenario, on a deployment.
func (r *run) floods(d *deployment) []flood {
	few, many, holds := 64, 5000, 20_000
	if r.Quick {
		few, many, holds = 4, 20, 50
	}
	lifecycle := func(scope string) func(context.Context, int64) error {
		return func(ctx context.Context, n int64) error {
			id, err := d.reserve(func(int64) string { return scope })(ctx, n)
			if err == nil {
				err = d.commit(ctx, id)
			}
			return err
		}
	}
	return []flood{
		{key: "admitted", title: fmt.Sprintf("%d callers on one scope", few), clients: few, call: lifecycle(hotScope)},
		{key: "denied", title: fmt.Sprintf("%d callers that are denied", few), clients: few, call: func(ctx context.Context, n int64) error {
			if err := lifecycle(fullScope)(ctx, n); !client.IsDenied(err) {
				return fmt.Errorf("not denied: %w", err)
			}
			return nil
		}},
		{key: "readers", title: fmt.Sprintf("%d readers of lists", few/2), clients: few / 2, call: func(ctx context.Context, _ int64) error {
			_, err := d.api.Reservations(ctx, earmark.ReservationFilter{Limit: 100})
			return err
		}},
		{key: "charges", title: earmark.FormatAmount(int64(many)) + " direct charges at once", clients: many, once: true, call: func(ctx context.Context, n int64) error {
			_, err := d.api.ChargeUsage(ctx, fmt.Sprintf("bench-%d", n), earmark.UsageRequest{Scopes: []string{hotScope}, Amounts: earmark.Amounts{unit: unitUsage}})
			return err
		}},
		{key: "expiries", title: earmark.FormatAmount(int64(holds)) + " expiries", clients: 1, once: true,
			before: func(ctx context.Context) error { return d.expiring(ctx, holds) },
			call: func(ctx context.Context, _ int64) error {
				_, err := d.pool.Exec(ctx, expireAllHolds, benchWorkflow)
				return err
			}},
	}
}

// benchWorkflow is the workflow of holds that have none.
const benchWorkflow = "bench"

// expiring makes holds without a workflow, which only the sweeper ends.
func (d *deployment) expiring(ctx context.Context, holds int) error {
	var next atomic.Int64
	var wait sync.WaitGroup
	errs := make([]error, 2*DefaultClients)
	for i := range errs {
		wait.Go(func() {
			for n := next.Add(1); n <= int64(holds) && errs[i] == nil && ctx.Err() == nil; n = next.Add(1) {
				id := earmark.NewReservationID()
				_, errs[i] = d.ledger.Reserve(ctx, earmark.Admission{ID: id, Tenant: earmark.DefaultTenant, RequestHash: id, WorkflowID: benchWorkflow, Request: request(scopeOf(n+1), unitAmount)})
			}
		})
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("make holds that expire: %w", err)
		}
	}
	return ctx.Err()
}

// during runs the flood until what it accompanies is over, and returns its calls that succeeded, a second. A
// client that is refused asks again after Retry-After. A flood that makes each call once goes on to its end.
func (f *flood) during(ctx context.Context, accompanied func() error) (perSecond float64, err error) {
	if f.before != nil {
		if err := f.before(ctx); err != nil {
			return 0, err
		}
	}
	flooded, stop := context.WithCancel(ctx)
	defer stop()
	var done atomic.Int64
	var over atomic.Bool
	var last atomic.Pointer[error]
	var wait sync.WaitGroup
	begun := time.Now()
	for range f.clients {
		wait.Go(func() {
			for flooded.Err() == nil {
				err := f.call(flooded, serials.Add(1))
				if err == nil {
					done.Add(1)
				} else {
					last.Store(&err)
					ctxtime.Sleep(flooded, refusedPause)
				}
				if over.Load() || f.once && err == nil {
					return
				}
			}
		})
	}
	ended := make(chan struct{})
	go func() { wait.Wait(); close(ended) }()
	err = accompanied()
	over.Store(true)
	select {
	case <-ended:
	case <-time.After(overtime):
		stop()
		<-ended
	}
	took := time.Since(begun)
	if err == nil && done.Load() == 0 {
		err = fmt.Errorf("not one call succeeded: %w", *last.Load())
	}
	return float64(done.Load()) / took.Seconds(), err
}
