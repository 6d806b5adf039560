//go:build linux && drills

package chaos_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

const (
	// drillDeadline is that of an admission: all of a cluster shares one machine.
	drillDeadline = 5 * time.Second
	// againLimit is how soon after each fault every server admits again.
	againLimit = 15 * time.Second
	// drillFault is how long a node is away or frozen.
	drillFault = 10 * time.Second
	// drillRest is how long everything runs between two faults.
	drillRest = 5 * time.Second
)

var drillRateFlag = flag.Float64("drill-rate", 20, "requests that begin in a second of a drill")

// drill is a list of faults under load, with what each of them did.
type drill struct {
	*cluster
	driver *driver
	seed   uint64
	lines  []string
	slow   []string
}

func newDrill(t *testing.T, c *cluster) *drill {
	t.Helper()
	x := &drill{cluster: c, seed: *seedFlag}
	if x.seed == 0 {
		x.seed = rand.Uint64N(1_000_000) + 1
	}
	t.Logf("seed %d", x.seed)
	x.driver = newDriver(c, x.seed)
	keepEvidence(t, c, x.driver, x.seed)
	require.NotZero(t, x.driver.probe(time.Now())(), "nothing is admitted")
	x.driver.begin(c, *drillRateFlag)
	time.Sleep(drillRest)
	took := x.driver.probe(time.Now())()
	require.NotZero(t, took, "nothing is admitted under load; does this machine bear %.0f requests a second?", *drillRateFlag)
	t.Logf("%.0f requests a second; every server admits after %.1f s before the first fault", *drillRateFlag, took.Seconds())
	return x
}

// step breaks something and measures how long the requests that it met had to wait for their admission.
func (x *drill) step(name string, begin func()) {
	x.t.Helper()
	since := time.Now()
	begin()
	took := x.driver.probe(time.Now())()
	time.Sleep(drillFault)
	slowest, unknowns := x.driver.admissionsSince(since)
	line := fmt.Sprintf("%-32s every server admits after %5.1f s; the slowest admission, with its retries: %5.1f s; %d calls without an answer", name, took.Seconds(), slowest.Seconds(), unknowns)
	x.t.Log(line)
	x.lines = append(x.lines, line)
	if took == 0 || took > againLimit {
		x.slow = append(x.slow, fmt.Sprintf("%s: a server did not admit within %s", name, againLimit))
	}
}

// admissionsSince returns the longest time that a request which began since then waited for its admission or denial, and
// how many calls had no known outcome.
func (d *driver) admissionsSince(since time.Time) (slowest time.Duration, unknowns int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.lives {
		l.mu.Lock()
		for _, a := range l.Attempts {
			if a.Sent.Before(since) {
				continue
			}
			if a.Outcome == unknown {
				unknowns++
			}
			if a.Verb == verbReserve && a.Outcome != unknown && l.Script != "probe" && l.Attempts[0].Sent.After(since) {
				slowest = max(slowest, a.Answered.Sub(l.Attempts[0].Sent))
			}
		}
		l.mu.Unlock()
	}
	return slowest, unknowns
}

// finish ends the load, waits until all is known and cleaned up, and checks every promise.
func (x *drill) finish() {
	x.t.Helper()
	x.mend()
	mended := time.Now()
	x.driver.end()
	x.awaitCleanup()
	x.t.Log(x.driver.report(x.cluster, nil, mended))
	x.t.Log("\n" + strings.Join(x.lines, "\n"))
	problems := append(append(x.driver.check(x.cluster), x.driver.crossings(x.cluster)...), x.slow...)
	for _, problem := range problems[:min(len(problems), mostShown)] {
		x.t.Log(problem)
	}
	if len(problems) > 0 {
		require.FailNow(x.t, "what was promised did not hold", "seed %d, %d findings, see above", x.seed, len(problems))
	}
	x.Audit()
	count := map[earmark.State]int{}
	for _, r := range readRows(x.t, x.Pool()) {
		count[r.State]++
	}
	x.t.Logf("0 overspent, 0 leaked, 0 lost, 0 doubled, the audit is clean; reservations by state: %v", count)
}
