package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/demo"
)

// Whatever the numbers are, a line has room on a terminal, and nothing is claimed
// that did not happen.
func TestDemoView(t *testing.T) {
	t.Parallel()
	over, most := demo.MaxCallers*int64(75), int64(demo.MaxCallers*demo.MaxRounds)
	ways := []string{demo.CheckThenAdd, demo.AddThenCheck, demo.LockTheCheck, demo.LockAcrossCall, demo.GuardedUpdate, demo.Earmark}
	show := func(r demo.Result, passed bool) string {
		var out bytes.Buffer
		report := &demo.Report{Callers: demo.MaxCallers, Rounds: demo.MaxRounds, LimitTokens: 1000, RequestTokens: 75, ModelMS: 40}
		stage := demoStage{screen: screenOf(&out), report: report}
		stage.begin()
		for _, r.Way = range ways {
			report.Ways = append(report.Ways, r)
			stage.way(r)
		}
		report.Audit.Passed = passed
		if !passed {
			report.Audit.Checks = []demo.Check{{What: "tokens still reserved", Expected: 0, Found: 75}}
		}
		stage.raced(report)
		for line := range strings.Lines(out.String()) {
			require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimRight(line, "\n")), 80, line)
		}
		return out.String()
	}
	slow := demo.Latency{P50MS: 12345.6, P99MS: 99999}
	text := show(demo.Result{Decisions: most, Admitted: most, WorstOverTokens: over, EndOverTokens: over, DecisionsPerSecond: 123456, Wait: slow, YesWait: slow}, false)
	require.Contains(t, text, "OVERSPENT: 16,000 of 1,000 tokens")
	require.Contains(t, text, "the ledger DOES NOT ADD UP")
	require.Contains(t, text, "tokens still reserved: 75, not 0")
	text = show(demo.Result{Decisions: 4, Admitted: 2, Wait: slow, YesWait: slow}, true)
	require.Equal(t, 3, strings.Count(text, "No two of them met this time"))
	require.NotContains(t, text, "All saw room")
	require.Contains(t, text, "the ledger adds up")
}
