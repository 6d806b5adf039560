package bench

// Verdicts on an aim.
const (
	Met         = "met"
	Missed      = "missed"
	NotMeasured = "not measured"
	Stated      = "stated" // there is no threshold
)

// aim is what a figure is to reach.
type aim struct {
	what string
	key  string // of the figure
	op   string // atMost, atLeast or none
	than float64
	unit string
}

const (
	atMost  = "≤"
	atLeast = "≥"
	none    = ""
)

// aims are the targets for 2 cores.
var aims = []aim{
	{"admission p50 × bare eager start, alone", "admission.alone.ratio", atMost, 1.5, "×"},
	{"admission p50 × bare eager start, at half of saturation", "admission.half.ratio", atMost, 1.2, "×"},
	{"commit p50 over HTTP × one bare Postgres commit of the same rows, alone", "admission.alone.commit_ratio", atMost, 2, "×"},
	{"p99 of an admission at 10 requests a second", "admission.normal.p99_of_all_ms", none, 0, "ms"},
	{"lifecycles × an earlier build, settled within the window", "paths.earmark.per_base", atLeast, 1.7, "×"},
	{"lifecycles × a bare workflow ended by update", "paths.earmark.per_bare_update", atLeast, 1.25, "×"},
	{"lifecycles × a bare workflow that starts and ends at once", "paths.earmark.per_bare_instant", atLeast, 0.75, "×"},
	{"lifecycles × textbook", "paths.earmark.per_textbook", atLeast, 3, "×"},
	{"lifecycles × good practice", "paths.earmark.per_practice", atLeast, 1.8, "×"},
	{"history events of a lifecycle within the settle window", "paths.earmark.history_events", atMost, 7, ""},
	{"billable Temporal actions within the settle window", "paths.earmark.actions", atMost, 3, ""},
	{"billable Temporal actions beyond it", "durations.5.earmark.actions", atMost, 5, ""},
	{"lifecycles with holds of 30 s × an earlier build", "durations.30.earmark.per_base", atLeast, 1.15, "×"},
	{"Postgres' CPU of a lifecycle", "paths.earmark.cpu_postgres_ms", atMost, 1.0, "ms"},
	{"hot budget × SELECT … FOR UPDATE, loopback", "strategies.loopback.1.ours_per_pessimistic", atLeast, 1.4, "×"},
	{"hot budget × SELECT … FOR UPDATE, Postgres 1 ms away", "strategies.network.1.ours_per_pessimistic", atLeast, 5, "×"},
	{"1,000 budgets × SELECT … FOR UPDATE, loopback", "strategies.loopback.1000.ours_per_pessimistic", atLeast, 1.2, "×"},
	{"1,000 customers under one root × 1,000 roots, Postgres 1 ms away", "strategies.network.1000.ours_per_roots", atLeast, 0.95, "×"},
	{"overshoot of ours in any burst, loopback", "strategies.loopback.1.ours.overshoot", atMost, 0, ""},
	{"overshoot of ours in any burst, Postgres 1 ms away", "strategies.network.1.ours.overshoot", atMost, 0, ""},
	{"CPU of an admission × a denial", "costs.admission_per_denial", atLeast, 20, "×"},
	{"allocations of a lifecycle in earmark", "costs.lifecycle.allocations", atMost, 1800, ""},
	{"memory of an open hold in earmark", "costs.hold.earmark_bytes", atMost, 15_000, "bytes"},
	{"admission p50 with 100,000 open holds × none", "holds.ratio", atMost, 1.2, "×"},
	{"speed of an admission on one of 5 grants, with 3 thresholds, × a plain one", "grants.speed", atLeast, 0.9, "×"},
	{"p99 of a bystander beside 64 admitted callers × alone", "neighbours.earmark.admitted.p99_per_alone", atMost, 2, "×"},
	{"refusals of a bystander beside 64 admitted callers", "neighbours.earmark.admitted.refused", atMost, 0, ""},
	{"p99 of a bystander beside 64 denied callers × alone", "neighbours.earmark.denied.p99_per_alone", atMost, 2, "×"},
	{"refusals of a bystander beside 64 denied callers", "neighbours.earmark.denied.refused", atMost, 0, ""},
	{"p99 of a bystander beside 32 readers of lists × alone", "neighbours.earmark.readers.p99_per_alone", atMost, 2, "×"},
	{"refusals of a bystander beside 32 readers of lists", "neighbours.earmark.readers.refused", atMost, 0, ""},
	{"p99 of a bystander beside 5,000 direct charges at once × alone", "neighbours.earmark.charges.p99_per_alone", atMost, 2, "×"},
	{"refusals of a bystander beside 5,000 direct charges at once", "neighbours.earmark.charges.refused", atMost, 0, ""},
	{"p99 of a bystander beside 20,000 expiries × alone", "neighbours.earmark.expiries.p99_per_alone", atMost, 2, "×"},
	{"refusals of a bystander beside 20,000 expiries", "neighbours.earmark.expiries.refused", atMost, 0, ""},
	{"rate of 64 admitted callers beside a bystander × without", "neighbours.earmark.admitted.flood_ratio", atLeast, 0.9, "×"},
	{"first byte through the gateway − a plain proxy − an admission, p50", "gateway.beyond_ms", atMost, 1, "ms"},
	{"streams of 1,000 at once through the gateway that failed", "gateway.streams_failed", atMost, 0, ""},
	{"lifecycles × Blnk beside it", "peers.earmark.per_blnk", atLeast, 1.2, "×"},
	{"lifecycles on a hot budget × Blnk beside it", "peers.earmark_hot.per_blnk_hot", atLeast, 2, "×"},
	{"lifecycles × Formance beside it", "peers.earmark.per_formance", none, 0, "×"},
	{"lifecycles on a hot budget × Formance beside it", "peers.earmark_hot.per_formance_hot", none, 0, "×"},
	{"ledgers whose audit found a mismatch", "audit.mismatched_ledgers", atMost, 0, ""},
}

// AimResult is what became of an aim.
type AimResult struct {
	Aim       string   `json:"aim"`
	Key       string   `json:"key"`
	Op        string   `json:"op"`
	Threshold float64  `json:"threshold"`
	Unit      string   `json:"unit"`
	Measured  *float64 `json:"measured"` // the median; nil: not measured
	Min       *float64 `json:"min"`
	Max       *float64 `json:"max"`
	Verdict   string   `json:"verdict"`
}

// judge compares every aim with what was measured. An overshoot counts at its worst,
// everything else at its median.
func (r *Report) judge() {
	r.Aims = nil
	for _, a := range aims {
		result := AimResult{Aim: a.what, Key: a.key, Op: a.op, Threshold: a.than, Unit: a.unit, Verdict: NotMeasured}
		if figure := r.figures.byKey[a.key]; figure != nil {
			measured := figure.Median
			if a.op == atMost && a.than == 0 {
				measured = figure.Max
			}
			result.Measured, result.Min, result.Max = &measured, &figure.Min, &figure.Max
			result.Verdict = a.verdict(measured)
		}
		r.Aims = append(r.Aims, result)
	}
	r.Figures = r.figures.list()
}

func (a aim) verdict(measured float64) string {
	switch {
	case a.op == none:
		return Stated
	case a.op == atMost && measured <= a.than, a.op == atLeast && measured >= a.than:
		return Met
	}
	return Missed
}
