package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/ctxtime"
)

const (
	costRounds = 3
	// openHolds are made to see what each costs in memory; below the 3,000 workflows that a
	// worker keeps.
	openHolds      = 2000
	quickOpenHolds = 50
	releaseAtOnce  = 16
	quiet          = 3 * time.Second // for what ends in the background
)

// costs measures what an admission, a denial, an open hold and a settled reservation
// take.
func (r *run) costs(ctx context.Context) error {
	main, err := r.serving(ctx, mainName)
	if err != nil {
		return err
	}
	for _, measure := range []func(context.Context, *deployment) error{r.denials, r.allocations, r.memory, r.disk} {
		if err := measure(ctx, main); err != nil {
			return err
		}
	}
	f := &r.report.figures
	table := Table{Title: "What things cost", Columns: []string{"what", "median (least–most)"}}
	for _, row := range [][2]string{
		{"CPU of an admission, all servers, ms", "costs.admission.cpu_ms"},
		{"- of it earmark", "costs.admission.cpu_earmark_ms"},
		{"- of it Temporal", "costs.admission.cpu_temporal_ms"},
		{"- of it Postgres", "costs.admission.cpu_postgres_ms"},
		{"CPU of a denial, all servers, ms", "costs.denial.cpu_ms"},
		{"- of it earmark", "costs.denial.cpu_earmark_ms"},
		{"- of it Temporal", "costs.denial.cpu_temporal_ms"},
		{"- of it Postgres", "costs.denial.cpu_postgres_ms"},
		{"denials a second", "costs.denial.per_second"},
		{"p50 of a denial, ms", "costs.denial.p50_ms"},
		{"p99 of a denial, ms", "costs.denial.p99_ms"},
		{"allocations of a lifecycle in earmark", "costs.lifecycle.allocations"},
		{"bytes allocated for a lifecycle in earmark", "costs.lifecycle.allocated_bytes"},
		{"memory of an open hold in earmark, bytes", "costs.hold.earmark_bytes"},
		{"memory of an open hold in Temporal, bytes", "costs.hold.temporal_bytes"},
		{"bytes on disk per settled reservation, indexes included", "costs.settled.disk_bytes"},
	} {
		table.row(row[0], f.text(row[1]))
	}
	table.Notes = []string{"Servers are earmark, Temporal and Postgres, without the load driver."}
	r.report.Tables = append(r.report.Tables, table)
	return nil
}

// denials compares a no with a yes. The yeses are given back, which is not measured.
func (r *run) denials(ctx context.Context, main *deployment) error {
	f := &r.report.figures
	yes := main.byHTTP("admissions", "admissions", scopeOf)
	no := main.byHTTP("denials", "denials", nil)
	no.admit = func(ctx context.Context, _ int64) (string, error) {
		_, err := main.api.Reserve(ctx, "", request(fullScope, unitAmount))
		if client.IsDenied(err) {
			return "", nil
		}
		return "", errors.Join(errors.New("was not denied"), err)
	}
	no.settle = func(context.Context, string) error { return nil }
	admitted := make(chan string, maxInFlight)
	yes.workflowID, no.workflowID = nil, nil // the ones stay open, the others have none
	yes.settle = func(_ context.Context, id string) error { admitted <- id; return nil }
	for round := range min(costRounds, r.Rounds) {
		if !r.Quick && !ctxtime.Sleep(ctx, quiet) { // the admissions' end is not to the denials' cost
			return ctx.Err()
		}
		r.say("  denials and admissions, round %d of %d", round+1, min(costRounds, r.Rounds))
		b, err := r.closed(ctx, no, r.Clients, r.Duration)
		if err != nil {
			return err
		}
		keepCPU(f, "costs.denial", b)
		f.add("costs.denial.per_second", "1/s", b.perSecond())
		keepLatency(f, "costs.denial", b)
		if b, err = r.closed(ctx, yes, r.Clients, r.Duration); err != nil {
			return err
		}
		keepCPU(f, "costs.admission", b)
		if err := releaseAll(ctx, main, admitted); err != nil {
			return err
		}
	}
	f.ratio("costs.admission_per_denial", "costs.admission.cpu_ms", "costs.denial.cpu_ms")
	return nil
}

func keepCPU(f *figures, key string, b *block) {
	f.add(key+".cpu_ms", "ms", b.each(b.used.servers()*1000))
	f.add(key+".cpu_earmark_ms", "ms", b.each(b.used.earmark*1000))
	f.add(key+".cpu_temporal_ms", "ms", b.each(b.used.temporal*1000))
	f.add(key+".cpu_postgres_ms", "ms", b.each(b.used.postgres*1000))
}

// releaseAll gives back what has been admitted so far.
func releaseAll(ctx context.Context, d *deployment, admitted chan string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(releaseAtOnce)
	for range len(admitted) {
		id := <-admitted
		group.Go(func() error {
			_, err := d.api.Release(ctx, id, "measured")
			return err
		})
	}
	return group.Wait()
}

// allocations reads the Go runtime's counters around lifecycles.
func (r *run) allocations(ctx context.Context, main *deployment) error {
	f := &r.report.figures
	lifecycles := main.byHTTP("allocations", "lifecycles", scopeOf)
	for range min(costRounds, r.Rounds) {
		before, err := runtimeCounters(ctx, main.url)
		if err != nil {
			return err
		}
		b, err := r.closed(ctx, lifecycles, r.Clients, r.Duration/2)
		if err != nil {
			return err
		}
		after, err := runtimeCounters(ctx, main.url)
		if err != nil {
			return err
		}
		f.add("costs.lifecycle.allocations", "allocations", b.each(after.allocations-before.allocations))
		f.add("costs.lifecycle.allocated_bytes", "bytes", b.each(after.bytes-before.bytes))
	}
	return nil
}

type counters struct{ allocations, bytes float64 }

// runtimeCounters reads a server's /metrics; what is not there is not a number.
func runtimeCounters(ctx context.Context, url string) (counters, error) {
	c := counters{notANumber, notANumber}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metrics", http.NoBody)
	if err != nil {
		return c, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return c, err
	}
	defer func() { _ = response.Body.Close() }()
	scanner := bufio.NewScanner(response.Body)
	for scanner.Scan() {
		name, text, _ := strings.Cut(scanner.Text(), " ")
		value, err := strconv.ParseFloat(text, 64)
		switch {
		case err != nil:
		case name == "go_memstats_mallocs_total":
			c.allocations = value
		case name == "go_memstats_alloc_bytes_total":
			c.bytes = value
		}
	}
	return c, scanner.Err()
}

// memory makes open holds and looks how the processes grow. A garbage collector
// makes this rough.
func (r *run) memory(ctx context.Context, main *deployment) error {
	holds := openHolds
	if r.Quick {
		holds = quickOpenHolds
	}
	r.say("  memory of %d open holds", holds)
	earmarkBefore, temporalBefore := main.residentBytes(), r.services.temporalBytes()
	reserve := main.reserve(scopeOf)
	admitted := make(chan string, holds)
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(r.Clients)
	for range holds {
		group.Go(func() error {
			id, err := reserve(groupCtx, serials.Add(1))
			if err == nil {
				admitted <- id
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	f := &r.report.figures
	f.add("costs.hold.earmark_bytes", "bytes", max(0, main.residentBytes()-earmarkBefore)/float64(holds))
	f.add("costs.hold.temporal_bytes", "bytes", max(0, r.services.temporalBytes()-temporalBefore)/float64(holds))
	return releaseAll(ctx, main, admitted)
}

func (s *services) temporalBytes() float64 {
	if s.temporal == nil {
		return notANumber
	}
	return residentBytes(s.temporal.PID())
}

const diskSQL = `SELECT sum(pg_total_relation_size(c.oid))::float8 / greatest(1, (SELECT count(*) FROM earmark.reservations))
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname = 'earmark' AND c.relkind = 'r' AND c.relname IN ('reservations', 'reservation_budgets', 'entries')`

// disk returns the size of the rows of the run so far, including indexes.
func (r *run) disk(ctx context.Context, main *deployment) error {
	var bytes float64
	if err := main.pool.QueryRow(ctx, diskSQL).Scan(&bytes); err != nil {
		return fmt.Errorf("measure the tables: %w", err)
	}
	r.report.figures.add("costs.settled.disk_bytes", "bytes", bytes)
	return nil
}
