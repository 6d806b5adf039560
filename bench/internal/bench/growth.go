package bench

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
)

const (
	growthScenario = "growth"
	// chunkRows are settled by one statement, so that progress can be shown.
	chunkRows = 500_000
	// buildMemory is what Postgres may sort indexes in.
	buildMemory = "1GB"
)

var (
	//go:embed sql/strip.sql
	stripSQL string
	//go:embed sql/restore.sql
	restoreSQL string
	//go:embed sql/settled.sql
	settledSQL string
	//go:embed sql/settled_windows.sql
	settledWindowsSQL string
)

func growthName(rows int64) string { return fmt.Sprintf("%s_%d", growthScenario, rows) }

func growthNames(rows []int64) []string {
	var names []string
	for _, n := range rows {
		names = append(names, growthName(n))
	}
	return names
}

// growth compares lifecycles on ledgers that hold more and more settled rows.
func (r *run) growth(ctx context.Context) error {
	var ways []*way
	for _, rows := range r.Rows {
		name := growthName(rows)
		if err := r.fill(ctx, r.deployments[name], rows); err != nil {
			return err
		}
		d, err := r.serving(ctx, name)
		if err != nil {
			return err
		}
		ways = append(ways, d.byHTTP(name, earmark.FormatAmount(rows)+" settled rows", scopeOf))
	}
	if err := r.rounds(ctx, ways, func(w *way) error {
		b, err := r.closed(ctx, w, r.Clients, r.Duration)
		if err == nil {
			r.keepPath("growth."+w.key, b)
		}
		return err
	}); err != nil {
		return err
	}
	return r.growthTable(ctx, ways)
}

func (r *run) growthTable(ctx context.Context, ways []*way) error {
	f := &r.report.figures
	table := Table{Title: fmt.Sprintf("Lifecycles on top of settled rows, %d clients", r.Clients),
		Columns: []string{"settled rows", "lifecycles/s", "× the first", "admission p50, ms", "p99, ms", "CPU of earmark, ms", "of Postgres, ms", "on disk, GB", "audit, s"}}
	for i, w := range ways {
		key, first := "growth."+w.key, "growth."+ways[0].key
		f.ratio(key+".per_first", key+".lifecycles_per_second", first+".lifecycles_per_second")
		var bytes float64
		if err := w.on.pool.QueryRow(ctx, "SELECT pg_database_size(current_database())::float8").Scan(&bytes); err != nil {
			return err
		}
		f.add(key+".database_bytes", "bytes", bytes)
		r.say("  auditing %s", w.title)
		took, err := w.on.audit(ctx)
		if err != nil {
			return err
		}
		f.add(key+".audit_seconds", "s", took.Seconds())
		table.row(earmark.FormatAmount(r.Rows[i]), f.text(key+".lifecycles_per_second"), f.text(key+".per_first"), f.text(key+".admission_p50_ms"),
			f.text(key+".admission_p99_ms"), f.short(key+".cpu_earmark_ms"), f.short(key+".cpu_postgres_ms"), number(bytes/1e9), number(took.Seconds()))
	}
	table.Notes = []string{"Every ledger passed its audit after the run."}
	r.report.Tables = append(r.report.Tables, table)
	return nil
}

// fill writes settled reservations as lifecycles would have left them. Constraints
// and indexes are put back afterwards: to keep them up to date row by row would
// take hours.
func (r *run) fill(ctx context.Context, d *deployment, rows int64) error {
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	simple := func(sql string) error {
		_, err := conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		return err
	}
	if err := simple("SET maintenance_work_mem = '" + buildMemory + "'"); err != nil {
		return err
	}
	if err := simple(stripSQL); err != nil {
		return fmt.Errorf("take the indexes off: %w", err)
	}
	for from := int64(0); from < rows; from += chunkRows {
		r.say("  %s of %s settled rows", earmark.FormatAmount(from), earmark.FormatAmount(rows))
		if _, err := conn.Exec(ctx, settledSQL, from, min(from+chunkRows, rows), manyBudgets, scopesPrefix, unitAmount, unitUsage); err != nil {
			return fmt.Errorf("write settled rows: %w", err)
		}
	}
	if _, err := conn.Exec(ctx, settledWindowsSQL, rows, manyBudgets, scopesPrefix, unitUsage); err != nil {
		return fmt.Errorf("write balances: %w", err)
	}
	r.say("  building the indexes of %s rows", earmark.FormatAmount(rows))
	begun := time.Now()
	for _, sql := range []string{restoreSQL, "VACUUM ANALYZE", "RESET maintenance_work_mem", "CHECKPOINT"} {
		if err := simple(sql); err != nil {
			return fmt.Errorf("put the indexes back: %w", err)
		}
	}
	r.say("  built in %s", time.Since(begun).Round(time.Second))
	return nil
}
