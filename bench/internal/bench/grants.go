package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/earmark-dev/earmark"
)

const grantedScope = "bench/granted"

// grants compares admissions to a budget of which grants bear each hold, with 5 grants and 3 thresholds, with those to a plain one.
func (r *run) grants(ctx context.Context) error {
	main, err := r.serving(ctx, mainName)
	if err != nil {
		return err
	}
	if err := main.newGrantedBudget(ctx); err != nil {
		return err
	}
	granted := func(int64) string { return grantedScope }
	f := &r.report.figures
	if err := r.rounds(ctx, []*way{main.byHTTP("plain", "plain", hot), main.byHTTP("granted", "5 grants and 3 thresholds", granted)}, func(w *way) error {
		b, err := w.alone(ctx, r.Duration)
		r.noted(w.title+", alone", b)
		if err == nil {
			keepLatency(f, "grants."+w.key, b)
		}
		return err
	}); err != nil {
		return err
	}
	f.ratio("grants.speed", "grants.plain.p50_ms", "grants.granted.p50_ms")
	table := Table{Title: "Admission to a budget of which grants bear each hold, 1 client", Columns: []string{"budget", "p50, ms", "p99, ms", "speed × plain"}}
	table.row("plain", f.text("grants.plain.p50_ms"), f.text("grants.plain.p99_ms"), "")
	table.row("5 grants and 3 thresholds", f.text("grants.granted.p50_ms"), f.text("grants.granted.p99_ms"), f.text("grants.speed"))
	r.report.Tables = append(r.report.Tables, table)
	return nil
}

// newGrantedBudget makes the budget through the API, as users do.
func (d *deployment) newGrantedBudget(ctx context.Context) error {
	budget, err := d.api.CreateBudget(ctx, earmark.BudgetRequest{
		Scope: grantedScope, Unit: unit, Limit: new(budgetLimit), Allowance: earmark.AllowanceLast,
		Thresholds: []earmark.Threshold{{Percent: 50, Of: earmark.ThresholdOfUsed}, {Percent: 80, Of: earmark.ThresholdOfCommitted}, {Percent: 100, Of: earmark.ThresholdOfCommitted}},
	}.WithDefaults())
	if err != nil {
		return fmt.Errorf("make a budget with grants: %w", err)
	}
	for n := range 5 {
		request := earmark.GrantRequest{Amount: budgetLimit, ExpiresAt: new(time.Now().AddDate(0, n+1, 0)), Reason: "a top-up"}
		if _, err := d.api.CreateGrant(ctx, budget.ID, fmt.Sprint("bench", n), request.WithDefaults()); err != nil {
			return fmt.Errorf("make a budget with grants: %w", err)
		}
	}
	return nil
}
