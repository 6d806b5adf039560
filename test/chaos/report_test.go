//go:build unix

package chaos_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// report counts what was injected and survived; a drill lists its faults itself.
func (d *driver) report(c *cluster, injected map[string]int, mended time.Time) string {
	rows := readRows(c.t, c.Pool())
	count := map[string]int{}
	var admitting, settling []time.Duration
	for _, l := range d.lives {
		for _, a := range l.Attempts {
			count["calls"]++
			count["calls "+string(a.Outcome)]++
			switch took := a.Answered.Sub(a.Sent); {
			case a.Outcome != done:
			case a.Verb == verbReserve:
				admitting = append(admitting, took)
			case a.Verb == verbCommit || a.Verb == verbRelease:
				settling = append(settling, took)
			}
		}
		d.tally(count, l, rows[l.ID])
	}
	var text strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	if len(injected) > 0 {
		line("survived %s", faultLines(injected))
	}
	line("%d requests in %.0f s (%d more did not begin, since %d were under way): %d admitted, %d denied, %d charged directly, %d not known", len(d.lives), d.took.Seconds(),
		d.skipped, mostAtOnce, count["admitted"], count["denied"], count["charged"], count["open"])
	line("%d calls: %d done, %d accepted (202 or a signal), %d refused, %d without a known outcome, of which %d requests resolved theirs later and %d gave up",
		count["calls"], count["calls done"], count["calls accepted"], count["calls refused"], count["calls unknown"], count["resolved"], count["gave up"])
	came := map[outcome]int{}
	for _, t := range d.trespasses {
		came[t.outcome]++
	}
	line("%d calls with the id of another tenant's reservation: %d refused, %d without a known outcome", len(d.trespasses), came[refused], came[unknown])
	line("%d committed (%d late, %d estimated), %d released, %d expired, %d in review: %.1f lifecycles/s", count["committed"], count["late"], count["estimated"],
		count["released"], count["expired"], count["review"], float64(count["settled"])/d.took.Seconds())
	line("answers: admission p50 %s p99 %s, settlement p50 %s p99 %s", quantile(admitting, 0.5), quantile(admitting, 0.99), quantile(settling, 0.5), quantile(settling, 0.99))
	line("%s", expiryLine(c.expiries(rows)))
	line("admission again after everything was killed: %v", d.recoveries)
	line("Temporal's write-ahead log: %d MiB at most; all known and cleaned up %.0f s after the last fault", d.walBytes>>20, time.Since(mended).Seconds())
	return text.String()
}

func (d *driver) tally(count map[string]int, l *life, r *row) {
	last := l.Attempts[len(l.Attempts)-1]
	hadUnknown := l.some([]string{verbReserve, verbCommit, verbSignal, verbRelease, verbExtend, verbCharge}, unknown)
	switch {
	case l.some([]string{verbCharge}, done):
		count["charged"]++
	case l.admitted():
		count["admitted"]++
	case last.Code == earmark.CodeBudgetExceeded:
		count["denied"]++
	default:
		count["open"]++
	}
	switch {
	case hadUnknown && last.Outcome == unknown:
		count["gave up"]++
	case hadUnknown:
		count["resolved"]++
	}
	if r == nil {
		return
	}
	count[string(r.State)]++
	if r.SettledAt != nil {
		count["settled"]++
	}
	if r.Late {
		count["late"]++
	}
	if r.Estimated {
		count["estimated"]++
	}
}

func expiryLine(list []expiry) string {
	var late, atAll []time.Duration
	postgres, noSweeper, over := 0, 0, 0
	for _, x := range list {
		late, atAll = append(late, x.late), append(atAll, x.lateAtAll)
		if x.postgres {
			postgres++
		}
		if x.noSweeper {
			noSweeper++
		}
		if x.late > grace+cleanupSlack {
			over++
		}
	}
	return fmt.Sprintf("%d leases ran out: resolved p50 %s p99 %s p100 %s after that, %d after more than %s;\n  for %d Postgres was away meanwhile: counted from when it was back, p100 %s; "+
		"for %d of them no process could clean up in time", len(list), quantile(late, 0.5), quantile(late, 0.99), quantile(late, 1), over, grace+cleanupSlack,
		postgres, quantile(atAll, 1), noSweeper)
}

func quantile(list []time.Duration, q float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[min(len(list)-1, int(q*float64(len(list))))].Round(time.Millisecond)
}

// keepEvidence keeps the logs and the driver's journal when the test fails.
func keepEvidence(t *testing.T, c *cluster, d *driver, seed uint64) {
	t.Helper()
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		dir, err := os.MkdirTemp("", fmt.Sprintf("earmark-chaos-%d-", seed))
		require.NoError(t, err)
		for _, pattern := range []string{"*.log", "*/*.log"} {
			logs, err := filepath.Glob(filepath.Join(c.Dir(), pattern))
			require.NoError(t, err)
			for _, path := range logs {
				require.NoError(t, copyFile(path, filepath.Join(dir, filepath.Base(path))))
			}
		}
		require.NoError(t, d.writeJournal(filepath.Join(dir, "journal.jsonl")))
		t.Logf("seed %d; the logs and the driver's journal are kept in %s", seed, dir)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(filepath.Clean(from))
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(filepath.Clean(to))
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if closed := out.Close(); err == nil {
		err = closed
	}
	return err
}

func (d *driver) writeJournal(path string) error {
	file, err := os.Create(filepath.Clean(path))
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	buffered := bufio.NewWriter(file)
	encoder := json.NewEncoder(buffered)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.lives {
		l.mu.Lock()
		err := encoder.Encode(l)
		l.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return buffered.Flush()
}
