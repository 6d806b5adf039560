package replay

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/earmark-dev/earmark"
)

// Report is the result of a run.
type Report struct {
	Run             string    `json:"run"`
	Trace           string    `json:"trace"`
	Scope           string    `json:"scope"`
	BudgetID        string    `json:"budget_id"`
	LimitTokens     int64     `json:"limit_tokens"`
	MaxOutputTokens int64     `json:"max_output_tokens"`
	Speed           float64   `json:"speed"`
	Seed            uint64    `json:"seed"`
	StartedAt       time.Time `json:"started_at"`

	Rows   RowCounts   `json:"rows"`
	Tokens TokenCounts `json:"tokens"`

	Admission Latency `json:"admission"` // from the moment at which a row was due to its admission
	Denial    Latency `json:"denial"`    // the same, to its denial
	Commit    Latency `json:"commit"`

	LongestDelayMS      float64 `json:"longest_delay_ms"` // of a row that waited for a place
	SimulatedSeconds    float64 `json:"simulated_seconds"`
	WallSeconds         float64 `json:"wall_seconds"`
	LifecyclesPerSecond float64 `json:"lifecycles_per_second"` // committed rows in the wall time

	FirstFailure string `json:"first_failure,omitempty"`
	Audit        Audit  `json:"audit"`
}

// RowCounts count the rows by result. Sent is the sum of Admitted, Denied, Unknown,
// NotReserved and Failed.
type RowCounts struct {
	Total       int64 `json:"total"`
	Sent        int64 `json:"sent"` // fewer than Total if the run was stopped
	Admitted    int64 `json:"admitted"`
	Denied      int64 `json:"denied"`
	Unknown     int64 `json:"unknown"`      // no decision, not even at the end
	NotReserved int64 `json:"not_reserved"` // no decision in time; at the end nothing was reserved
	Failed      int64 `json:"failed"`       // answers that no row should get
	Committed   int64 `json:"committed"`
	Overage     int64 `json:"overage"`     // committed more than was reserved
	Retried     int64 `json:"retried"`     // had no decision at the first attempt
	FoundLater  int64 `json:"found_later"` // of Admitted: found at the end
	Accepted    int64 `json:"accepted"`    // commits answered by 202, and followed to their end
	Delayed     int64 `json:"delayed"`     // sent late, because MaxInFlight others were under way
}

// TokenCounts are sums over the admitted rows.
type TokenCounts struct {
	Reserved  int64 `json:"reserved"`
	Used      int64 `json:"used"`
	Committed int64 `json:"committed"`
}

// Latency is a distribution of durations, in milliseconds. Quantiles are accurate
// to 2 %.
type Latency struct {
	Count int64   `json:"count"`
	P50MS float64 `json:"p50_ms"`
	P90MS float64 `json:"p90_ms"`
	P99MS float64 `json:"p99_ms"`
	MaxMS float64 `json:"max_ms"`
}

// Interrupted reports whether the run was stopped before its last row.
func (r *Report) Interrupted() bool { return r.Rows.Sent < r.Rows.Total }

// Err describes what the run found wrong; nil if nothing.
func (r *Report) Err() error {
	var wrong []string
	if !r.Audit.Passed {
		wrong = append(wrong, "the ledger does not hold exactly what the admitted rows used")
	}
	if r.Rows.Unknown > 0 {
		wrong = append(wrong, fmt.Sprintf("%d rows have no decision", r.Rows.Unknown))
	}
	if r.FirstFailure != "" {
		wrong = append(wrong, r.FirstFailure)
	}
	if open := r.Rows.Admitted - r.Rows.Committed; open > 0 {
		wrong = append(wrong, fmt.Sprintf("%d admitted rows are not committed", open))
	}
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("replay: %s", strings.Join(wrong, "; "))
}

func (r *run) report(wall time.Duration) *Report {
	c := r.tally.read()
	return &Report{
		Run: r.id, Trace: r.Path, Scope: r.Scope, BudgetID: r.budget.ID,
		LimitTokens: r.budget.Limit, MaxOutputTokens: r.MaxOutputTokens, Speed: r.Speed, Seed: r.Seed, StartedAt: r.started.UTC(),
		Rows: RowCounts{
			Total: r.extent.Rows, Sent: c.sent, Admitted: c.admitted, Denied: c.denied, Unknown: c.unknown, NotReserved: c.notReserved,
			Failed: c.failed, Committed: c.committed, Overage: c.overage, Retried: c.retried, FoundLater: c.foundLater,
			Accepted: c.accepted, Delayed: c.delayed,
		},
		Tokens:              TokenCounts{Reserved: c.reservedTokens, Used: c.usedTokens, Committed: c.committedTokens},
		Admission:           r.tally.latency(&r.tally.admission),
		Denial:              r.tally.latency(&r.tally.denial),
		Commit:              r.tally.latency(&r.tally.commit),
		LongestDelayMS:      millis(c.longestDelay),
		SimulatedSeconds:    c.simulated.Seconds(),
		WallSeconds:         wall.Seconds(),
		LifecyclesPerSecond: float64(c.committed) / max(wall, time.Millisecond).Seconds(),
		FirstFailure:        c.firstFailure,
	}
}

// Print writes the report for people.
func (r *Report) Print(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(table, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	few := func(name string, n int64, meaning string) { // shown only if there are any
		if n > 0 {
			line(name, "%s  (%s)", earmark.FormatAmount(n), meaning)
		}
	}
	amount := earmark.FormatAmount
	if r.Interrupted() {
		fmt.Fprintf(table, "Stopped after %s of %s rows; this is the report of those.\n", amount(r.Rows.Sent), amount(r.Rows.Total))
	}
	line("run", "%s on scope %s, %s", r.Run, r.Scope, r.BudgetID)
	line("limit", "%s tokens, hard", amount(r.LimitTokens))
	line("rows", "%s sent of %s", amount(r.Rows.Sent), amount(r.Rows.Total))
	line("admitted", "%s", amount(r.Rows.Admitted))
	line("denied", "%s", amount(r.Rows.Denied))
	line("unknown", "%s", amount(r.Rows.Unknown))
	few("not reserved", r.Rows.NotReserved, "no decision in time; nothing was set aside for them")
	few("failed", r.Rows.Failed, "answers that no row should get")
	few("found later", r.Rows.FoundLater, "admitted; the answer got lost")
	few("retried", r.Rows.Retried, "no decision at the first attempt")
	line("committed", "%s", amount(r.Rows.Committed))
	few("accepted", r.Rows.Accepted, "commits answered by 202, and followed to their end")
	line("overage", "%s  (used more than was reserved)", amount(r.Rows.Overage))
	few("delayed", r.Rows.Delayed, fmt.Sprintf("sent late, by up to %.0f ms: %d were in flight", r.LongestDelayMS, MaxInFlight))
	line("tokens reserved", "%s", amount(r.Tokens.Reserved))
	line("tokens committed", "%s", amount(r.Tokens.Committed))
	line("admission", "%s", r.Admission)
	if r.Denial.Count > 0 {
		line("denial", "%s", r.Denial)
	}
	line("commit", "%s", r.Commit)
	line("lifecycles", "%.1f a second", r.LifecyclesPerSecond)
	line("time", "%.1f s for %.1f s of the trace, speed %g", r.WallSeconds, r.SimulatedSeconds, r.Speed)
	if err := table.Flush(); err != nil {
		return err
	}
	return r.Audit.write(out)
}

// String gives the quantiles for people.
func (l Latency) String() string {
	return fmt.Sprintf("p50 %.1f ms, p90 %.1f ms, p99 %.1f ms, max %.1f ms", l.P50MS, l.P90MS, l.P99MS, l.MaxMS)
}

func (a Audit) write(out io.Writer) error {
	if len(a.Checks) == 0 {
		return nil // it could not be done
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nAUDIT\tEXPECTED\tFOUND\t")
	for _, check := range a.Checks {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", check.What, earmark.FormatAmount(check.Expected), earmark.FormatAmount(check.Found), verdict(check.Passed()))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, verdict(a.Passed))
	return err
}

func verdict(passed bool) string {
	if passed {
		return "PASS"
	}
	return "MISMATCH"
}
