package main

import (
	"fmt"
	"strconv"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/demo"
)

// demoStage shows a demo while it runs, in at most 80 columns.
type demoStage struct {
	screen
	report *demo.Report
}

// Widths of the table's columns, and of what a step did.
const (
	wayWidth      = 23
	admittedWidth = 9
	overWidth     = 10
	rateWidth     = 12
	waitWidth     = 8
	didWidth      = 21
)

const titles = `                                    over the limit   decisions      waited, ms
                        admitted  at worst    at end    a second     p50     p99`

func (d demoStage) line(text string, as style) { fmt.Fprintln(d.out, d.paint(text, as)) }

func (d demoStage) begin() {
	r := d.report
	amount := earmark.FormatAmount
	d.line(fmt.Sprintf("%d callers at once want %s tokens each, and %s are left: %d fit.",
		r.Callers, amount(r.RequestTokens), amount(r.LimitTokens), min(int64(r.Callers), r.Fits())), bold)
	fmt.Fprintf(d.out, "Each asks, calls a model (%d ms), and settles. %d rounds of each way to do it.\n\n", r.ModelMS, r.Rounds)
	d.line(titles, dim)
}

func (d demoStage) way(r demo.Result) {
	title, sentence := d.words(r)
	row := d.paint(padRight(title, wayWidth), bold) + padLeft(fmt.Sprintf("%d/%d", r.Admitted, r.Decisions), admittedWidth) +
		d.over(r.WorstOverTokens) + d.over(r.EndOverTokens) + padLeft(earmark.FormatAmount(int64(r.DecisionsPerSecond)), rateWidth) +
		padLeft(millis(r.Wait.P50MS), waitWidth) + padLeft(millis(r.Wait.P99MS), waitWidth)
	fmt.Fprintln(d.out, row)
	d.line("  "+sentence, dim)
}

func (d demoStage) over(tokens int64) string {
	if tokens == 0 {
		return d.paint(padLeft("0", overWidth), green)
	}
	return d.paint(padLeft("+"+earmark.FormatAmount(tokens), overWidth), red)
}

// words returns the title of a strategy and its outcome in one sentence.
func (d demoStage) words(r demo.Result) (title, sentence string) {
	limit := d.report.LimitTokens
	counted := fmt.Sprintf("%s of %s", earmark.FormatAmount(limit+r.WorstOverTokens), earmark.FormatAmount(limit))
	raced := r.WorstOverTokens > 0
	const lucky = "No two of them met this time; more --callers or --rounds make it likelier."
	switch r.Way {
	case demo.CheckThenAdd:
		if !raced {
			return "check, call, add", lucky
		}
		return "check, call, add", fmt.Sprintf("All saw room before any had added: %s tokens are spent.", counted)
	case demo.AddThenCheck:
		if !raced {
			return "add, check, take back", lucky
		}
		return "add, check, take back", fmt.Sprintf("Right in the end, but a reader in between saw %s.", counted)
	case demo.LockTheCheck:
		if !raced {
			return "FOR UPDATE in check", lucky
		}
		return "FOR UPDATE in check", "The lock is gone before anything is added, so it changes nothing."
	case demo.LockAcrossCall:
		return "FOR UPDATE over call", "Right, but one at a time: the others wait, a connection each, for every model."
	case demo.GuardedUpdate:
		return "one guarded UPDATE", "Right and fast, as long as every caller lives to settle. See below."
	case demo.Earmark:
		if raced {
			return "Earmark", fmt.Sprintf("OVERSPENT: %s tokens. This is a bug; please report it.", counted)
		}
		return "Earmark", fmt.Sprintf("Never over. An admission took %s ms (p50); a denial is final.", millis(r.YesWait.P50MS))
	}
	return r.Way, ""
}

// raced closes the table and begins the lifecycle demo.
func (d demoStage) raced(r *demo.Report) {
	earmarked := r.Ways[len(r.Ways)-1]
	verdict, as := "adds up", green
	if !r.Audit.Passed {
		verdict, as = "DOES NOT ADD UP", red
	}
	fmt.Fprintf(d.out, `
Earmark is slower than a bare UPDATE: each of its %s admissions is a durable
workflow, a row, and entries in a journal. That buys holds that end by
themselves, retries that count once, and an audit: the ledger %s.

`, earmark.FormatAmount(earmarked.Admitted), d.paint(verdict, as))
	for _, check := range r.Audit.Checks {
		if check.Found != check.Expected {
			d.line(fmt.Sprintf("  %s: %s, not %s", check.What, earmark.FormatAmount(check.Found), earmark.FormatAmount(check.Expected)), red)
		}
	}
	d.line("The life of a reservation", bold)
}

func (d demoStage) step(s demo.Step) {
	if s == (demo.Step{}) {
		fmt.Fprintln(d.out)
		d.line("And one whose process dies", bold)
		return
	}
	fmt.Fprintf(d.out, "  %s  %s\n", d.paint(padRight(s.Did, didWidth), dim), clean(s.Came))
}

func (d demoStage) end() {
	story := d.report.Story
	if story.UIURL != "" {
		fmt.Fprintf(d.out, "\nIts workflow in Temporal UI:\n%s\n", clean(story.UIURL))
	}
}

// millis formats milliseconds with the significant digits.
func millis(ms float64) string {
	const exact = 10
	if ms < exact {
		return strconv.FormatFloat(ms, 'f', 1, 64)
	}
	return earmark.FormatAmount(int64(ms + 0.5))
}
