//go:build linux && drills

package chaos_test

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

const (
	// drillDeadline is that of an admission: all of a cluster shares one machine.
	drillDeadline = 5 * time.Second
	// againLimit is how soon after each fault admissions go on, and serverLimit how soon every server admits again.
	againLimit  = 15 * time.Second
	serverLimit = 30 * time.Second
	// drillFault is how long a node is away or frozen.
	drillFault = 10 * time.Second
	// drillRest is how long everything runs between two faults.
	drillRest = 5 * time.Second
)

var drillRateFlag = flag.Float64("drill-rate", 10, "requests that begin in a second of a drill")

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

// step breaks something and measures how soon every server admits again.
func (x *drill) step(name string, begin func()) {
	x.t.Helper()
	since := time.Now()
	begin()
	x.measure(name, since, since, serverLimit, againLimit)
}

// during does something that takes a while, and measures admissions meanwhile and after it.
func (x *drill) during(name string, begin func()) {
	x.t.Helper()
	since := time.Now()
	begin()
	x.measure(name, since, time.Now(), serverLimit, againLimit)
}

// measure waits until every server has admitted a request that was made after the time from which that is possible, and
// notes what a fault did. Later than limit after that time is a finding, as are more than mostGap without any
// admission.
func (x *drill) measure(name string, fault, possible time.Time, limit, mostGap time.Duration) {
	x.t.Helper()
	took := x.driver.probe(possible)()
	time.Sleep(drillFault)
	e := x.driver.effect(fault, time.Now())
	line := fmt.Sprintf("%-34s every server admits after %4.1f s; no admission for %4.1f s at most; the slowest took %4.1f s with its retries; %d of %d calls without an outcome: %v",
		name, took.Seconds(), e.gap.Seconds(), e.slowest.Seconds(), e.unknown, e.calls, e.why)
	x.t.Log(line)
	x.lines = append(x.lines, line)
	if took == 0 || took > limit {
		x.slow = append(x.slow, fmt.Sprintf("%s: a server did not admit within %s", name, limit))
	}
	if e.gap > mostGap {
		x.slow = append(x.slow, fmt.Sprintf("%s: nothing was admitted for %s", name, e.gap))
	}
}

// effect is what callers saw of a fault.
type effect struct {
	gap     time.Duration // the longest without an admission by any server
	slowest time.Duration // from the first call of a request that began after the fault to its admission or denial
	unknown int           // calls without a known outcome; their callers repeat them
	why     map[string]int
	calls   int
}

func (d *driver) effect(since, until time.Time) (e effect) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e.why = map[string]int{}
	admitted := []time.Time{since, until}
	for _, l := range d.lives {
		l.mu.Lock()
		for _, a := range l.Attempts {
			if a.Answered.Before(since) || a.Answered.After(until) {
				continue
			}
			e.calls++
			if a.Outcome == unknown {
				e.unknown++
				e.why[cmp.Or(string(a.Code), "no answer")]++
			}
			if a.Verb != verbReserve || a.Outcome == unknown {
				continue
			}
			if a.Outcome == done {
				admitted = append(admitted, a.Answered)
			}
			if first := l.Attempts[0].Sent; l.Script != scriptProbe && first.After(since) {
				e.slowest = max(e.slowest, a.Answered.Sub(first))
			}
		}
		l.mu.Unlock()
	}
	slices.SortFunc(admitted, time.Time.Compare)
	for i := range admitted[1:] {
		e.gap = max(e.gap, admitted[i+1].Sub(admitted[i]))
	}
	return e
}

// failed lists the requests whose callers went on to the end of the drill and have no known outcome.
func (d *driver) failed() (problems []string) {
	for _, l := range d.lives {
		if last := l.Attempts[len(l.Attempts)-1]; last.Outcome == unknown && !l.Mortal && l.Script != scriptProbe {
			problems = append(problems, fmt.Sprintf("%s: its outcome is not known, in spite of its retries\n  journal: %s", l.ID, l))
		}
	}
	return problems
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
	problems := slices.Concat(x.driver.check(x.cluster), x.driver.crossings(x.cluster), x.driver.failed())
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
	x.t.Logf("no request failed beyond its retries; 0 overspent, 0 leaked, 0 lost, 0 doubled, the audit is clean; reservations by state: %v", count)
	require.Empty(x.t, x.slow)
}
