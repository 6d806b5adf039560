package bench

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
)

var (
	//go:embed sql/open_holds.sql
	openHoldsSQL string
	//go:embed sql/open_holds_overdue.sql
	openHoldsOverdueSQL string
)

// holds compares admissions on an empty ledger with those beside very many open
// holds, which are rows alone: their workflows would wait, and cost nothing.
func (r *run) holds(ctx context.Context) error {
	crowded := r.deployments[holdsName]
	r.say("  making %s open holds", earmark.FormatAmount(r.Holds))
	if _, err := crowded.pool.Exec(ctx, openHoldsSQL, r.Holds, manyBudgets, scopesPrefix, unitAmount); err != nil {
		return fmt.Errorf("make open holds: %w", err)
	}
	for _, sql := range []string{openHoldsOverdueSQL, "VACUUM ANALYZE"} {
		if _, err := crowded.pool.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			return fmt.Errorf("make open holds: %w", err)
		}
	}
	crowded.standing = r.Holds
	var ways []*way
	for _, name := range []string{emptyName, holdsName} {
		d, err := r.serving(ctx, name)
		if err != nil {
			return err
		}
		ways = append(ways, d.byHTTP(name, name, scopeOf))
	}
	f := &r.report.figures
	if err := r.rounds(ctx, ways, func(w *way) error {
		b, err := r.closed(ctx, w, 1, r.Duration/2)
		if err == nil {
			keepLatency(f, "holds."+w.key, b)
		}
		return err
	}); err != nil {
		return err
	}
	f.ratio("holds.ratio", "holds."+holdsName+".p50_ms", "holds."+emptyName+".p50_ms")
	table := Table{Title: "Admission beside open holds, 1 client", Columns: []string{"open holds", "p50, ms", "p99, ms", "p50 × none"}}
	table.row("none", f.text("holds.empty.p50_ms"), f.text("holds.empty.p99_ms"), "")
	table.row(earmark.FormatAmount(r.Holds), f.text("holds.holds.p50_ms"), f.text("holds.holds.p99_ms"), f.text("holds.ratio"))
	r.report.Tables = append(r.report.Tables, table)
	for _, w := range ways {
		if err := w.on.stop(ctx); err != nil {
			return err
		}
	}
	return nil
}

// concurrency lets more and more clients in.
func (r *run) concurrency(ctx context.Context) error {
	main, err := r.serving(ctx, mainName)
	if err != nil {
		return err
	}
	floor, err := r.floors()
	if err != nil {
		return err
	}
	ways := []*way{floor.ways(main)[0], main.byHTTP("earmark", "earmark", scopeOf)}
	table := Table{Title: "Lifecycles by clients at once", Columns: []string{"clients", "way", "lifecycles/s", "admission p50, ms", "p99, ms", "not admitted", "CPU of the servers, ms"}}
	f := &r.report.figures
	most := []int{1, 10, 100, 1000}
	if r.Quick {
		most = most[:2] // with more, one lifecycle each takes seconds
	}
	for _, clients := range most {
		r.say("  %d clients", clients)
		for range min(sweepRounds, r.Rounds) {
			for _, w := range ways {
				b, err := r.closed(ctx, w, clients, r.Duration)
				if err != nil {
					return err
				}
				key := fmt.Sprintf("concurrency.%d.%s", clients, w.key)
				f.add(key+".lifecycles_per_second", "1/s", b.perSecond())
				keepLatency(f, key, b)
				f.add(key+".failed_share", "", float64(b.failed)/float64(b.failed+b.done))
				f.add(key+".cpu_ms", "ms", b.each(b.used.servers()*1000))
			}
		}
		for _, w := range ways {
			key := fmt.Sprintf("concurrency.%d.%s", clients, w.key)
			table.row(earmark.FormatAmount(int64(clients)), w.title, f.text(key+".lifecycles_per_second"), f.text(key+".p50_ms"), f.text(key+".p99_ms"),
				fmt.Sprintf("%.1f%%", 100*f.byKey[key+".failed_share"].Median), f.short(key+".cpu_ms"))
		}
	}
	table.Notes = []string{"A client that is refused (503, nothing reserved) waits 50 ms and asks again."}
	r.report.Tables = append(r.report.Tables, table)
	return nil
}
