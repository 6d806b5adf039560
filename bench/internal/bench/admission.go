package bench

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	// saturatingClients are as many as one process lets admissions run at once.
	saturatingClients = 32
	// normalPerSecond is twice what the Azure trace of LLM requests averages.
	normalPerSecond = 10
	// normalFor is how long a round at that rate takes: over the default rounds it makes
	// the thousand samples that a p99 needs.
	normalFor = 20 * time.Second
	half      = 0.5
)

// admission compares how long a caller waits for its admission with the start of a
// bare workflow: alone, at half of saturation, and at a normal load.
func (r *run) admission(ctx context.Context) error {
	main, err := r.serving(ctx, mainName)
	if err != nil {
		return err
	}
	floor, err := r.floors()
	if err != nil {
		return err
	}
	plain, err := r.statements(ctx)
	if err != nil {
		return err
	}
	start := floor.ways(main)[0]
	stepped := &way{key: "bare_step", title: "bare start, and its first local activity", on: main, admit: floor.startAndStep, settle: floor.update}
	ours := main.byHTTP("earmark", "earmark", scopeOf)
	f := &r.report.figures

	if err := r.rounds(ctx, []*way{start, stepped, ours, plain.way()}, func(w *way) error {
		b, err := w.alone(ctx, r.Duration/2)
		r.noted(w.title+", alone", b)
		if err == nil {
			keepLatency(f, "admission.alone."+w.key, b)
			f.add("admission.alone."+w.key+".settled_p50_ms", "ms", quantileMS(b.settled, 0.50))
		}
		return err
	}); err != nil {
		return err
	}
	saturation, err := r.saturation(ctx, ours)
	if err != nil {
		return err
	}
	r.say("  at %.0f a second, half of saturation", saturation*half)
	if err := r.rounds(ctx, []*way{start, ours}, func(w *way) error {
		b, err := r.open(ctx, w, saturation*half, r.Duration)
		if err == nil {
			keepLatency(f, "admission.half."+w.key, b)
		}
		return err
	}); err != nil {
		return err
	}
	if err := r.normal(ctx, ours); err != nil {
		return err
	}
	r.admissionTable()
	return nil
}

// normal measures at a rate that a service has on a normal day.
func (r *run) normal(ctx context.Context, ours *way) error {
	r.say("  at %d a second", normalPerSecond)
	duration := normalFor
	if r.Quick {
		duration = 4 * r.Duration
	}
	var all []time.Duration
	for range r.Rounds {
		b, err := r.open(ctx, ours, normalPerSecond, duration)
		if err != nil {
			return err
		}
		keepLatency(&r.report.figures, "admission.normal.earmark", b)
		all = append(all, b.admission...)
	}
	slices.Sort(all)
	r.report.figures.add("admission.normal.p99_of_all_ms", "ms", quantileMS(all, 0.99))
	r.report.figures.add("admission.normal.samples", "admissions", float64(len(all)))
	return nil
}

// saturation is how many lifecycles a second there can be.
func (r *run) saturation(ctx context.Context, ours *way) (float64, error) {
	const key = "admission.saturation_per_second"
	if known := r.report.figures.byKey[key]; known != nil {
		return known.Median, nil
	}
	const tries = 3
	for range min(tries, r.Rounds) {
		b, err := r.closed(ctx, ours, saturatingClients, r.Duration)
		if err != nil {
			return 0, err
		}
		r.report.figures.add(key, "1/s", b.perSecond())
	}
	return r.report.figures.byKey[key].Median, nil
}

func keepLatency(f *figures, key string, b *block) {
	f.add(key+".p50_ms", "ms", b.quantileMS(0.50))
	f.add(key+".p99_ms", "ms", b.quantileMS(0.99))
}

func (r *run) admissionTable() {
	f := &r.report.figures
	f.ratio("admission.alone.ratio", "admission.alone.earmark.p50_ms", "admission.alone.bare_update.p50_ms")
	f.ratio("admission.alone.step_ratio", "admission.alone.earmark.p50_ms", "admission.alone.bare_step.p50_ms")
	f.ratio("admission.alone.commit_ratio", "admission.alone.earmark.settled_p50_ms", "admission.alone.statements.settled_p50_ms")
	f.ratio("admission.half.ratio", "admission.half.earmark.p50_ms", "admission.half.bare_update.p50_ms")
	table := Table{Title: "Admission: how long a caller waits for a yes", Columns: []string{"load", "way", "p50, ms", "p99, ms", "p50 × bare start"}}
	add := func(load, key, title, ratio string) {
		table.row(load, title, f.text(key+".p50_ms"), f.text(key+".p99_ms"), ratio)
	}
	add("alone", "admission.alone.bare_update", "bare start", "")
	add("alone", "admission.alone.bare_step", "bare start, and its first local activity", "")
	add("alone", "admission.alone.earmark", "earmark", f.text("admission.alone.ratio"))
	rate := f.short("admission.saturation_per_second")
	add("half of "+rate+"/s", "admission.half.bare_update", "bare start", "")
	add("half of "+rate+"/s", "admission.half.earmark", "earmark", f.text("admission.half.ratio"))
	add(fmt.Sprintf("%d/s", normalPerSecond), "admission.normal.earmark", "earmark", "")
	table.Notes = []string{
		fmt.Sprintf("Saturation is what %d clients get through. Rates are open loop: latency counts from when a request was due.", saturatingClients),
		fmt.Sprintf("A commit over HTTP, alone: p50 %s ms, %s × one Postgres commit of the same rows with plain statements (%s ms).",
			f.text("admission.alone.earmark.settled_p50_ms"), f.text("admission.alone.commit_ratio"), f.text("admission.alone.statements.settled_p50_ms")),
		fmt.Sprintf("p99 of all %s admissions at %d/s together: %s ms.", f.short("admission.normal.samples"), normalPerSecond, f.short("admission.normal.p99_of_all_ms")),
	}
	r.report.Tables = append(r.report.Tables, table)
}

// Point is one rate of a sweep.
type Point struct {
	OfferedPerSecond float64 `json:"offered_per_second"`
	P50MS            float64 `json:"p50_ms"`
	P99MS            float64 `json:"p99_ms"`
	FailedShare      float64 `json:"failed_share"`
}

// Curve is a way's latency against offered load.
type Curve struct {
	Way    string  `json:"way"`
	Points []Point `json:"points"`
}

// sweepRounds is enough to see whether a point is an accident.
const sweepRounds = 2

// sweep offers more and more load, up to past saturation.
func (r *run) sweep(ctx context.Context) error {
	main, err := r.serving(ctx, mainName)
	if err != nil {
		return err
	}
	floor, err := r.floors()
	if err != nil {
		return err
	}
	ours := main.byHTTP("earmark", "earmark", scopeOf)
	ways := []*way{floor.ways(main)[0], ours}
	saturation, err := r.saturation(ctx, ours)
	if err != nil {
		return err
	}
	shares := []float64{0.10, 0.25, 0.50, 0.75, 0.90, 1.00, 1.10}
	if r.Quick {
		shares = []float64{0.10, 0.50, 1.00}
	}
	table := Table{Title: fmt.Sprintf("Latency of an admission against offered load, open loop; %.0f lifecycles a second are saturation", saturation),
		Columns: []string{"offered, 1/s", "of saturation", "bare start p50, ms", "p99, ms", "earmark p50, ms", "p99, ms", "not admitted"}}
	curves := []Curve{{Way: "bare start"}, {Way: "earmark"}}
	f := &r.report.figures
	for _, share := range shares {
		rate := saturation * share
		r.say("  at %.0f a second, %.0f%% of saturation", rate, share*100)
		cells := []string{number(rate), fmt.Sprintf("%.0f%%", share*100)}
		key := func(w *way) string { return fmt.Sprintf("sweep.%03.0f.%s", share*100, w.key) }
		for range min(sweepRounds, r.Rounds) {
			for _, w := range ways {
				b, err := r.open(ctx, w, rate, r.Duration)
				if err != nil {
					return err
				}
				keepLatency(f, key(w), b)
				f.add(key(w)+".failed_share", "", float64(b.failed)/float64(b.failed+b.done))
			}
		}
		for i, w := range ways {
			k := key(w)
			curves[i].Points = append(curves[i].Points, Point{OfferedPerSecond: rate, P50MS: f.byKey[k+".p50_ms"].Median,
				P99MS: f.byKey[k+".p99_ms"].Median, FailedShare: f.byKey[k+".failed_share"].Median})
			cells = append(cells, f.text(k+".p50_ms"), f.text(k+".p99_ms"))
		}
		table.row(append(cells, fmt.Sprintf("%.1f%%", 100*f.byKey[key(ours)+".failed_share"].Median))...)
	}
	table.Notes = []string{"Each admission is settled as soon as it is there. What was refused or unknown is in the last column, and not in the latencies."}
	r.report.Tables, r.report.Sweep = append(r.report.Tables, table), curves
	return nil
}
