//go:build unix

package chaos_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// How faults follow each other, unless the run is too short for that.
const (
	firstFault  = 3 * time.Second
	meanGap     = 3500 * time.Millisecond
	shortFault  = 500 * time.Millisecond
	meanFault   = 3 * time.Second
	longFault   = 15 * time.Second // and up to twice that
	longFaultIn = 25               // one fault in so many is a long one
)

// planned is a fault of the plan.
type planned struct {
	kind   kind
	target target
	at     time.Duration // after the beginning
	lasts  time.Duration
	seed   uint64 // of what it draws itself
}

// newPlan draws the faults: each kind once, in random order, then again, until the
// time is over. Faults overlap.
func newPlan(kinds []kind, seed uint64, duration time.Duration) []planned {
	rng := rand.New(rand.NewPCG(seed, 1))
	gap := min(meanGap, (duration-firstFault)/time.Duration(len(kinds)))
	var plan []planned
	for at := firstFault; at < duration || len(plan) < len(kinds); {
		for _, i := range rng.Perm(len(kinds)) {
			if at >= duration && len(plan) >= len(kinds) {
				break
			}
			k := kinds[i]
			plan = append(plan, planned{kind: k, target: k.targets[rng.IntN(len(k.targets))], at: at, lasts: lasting(rng, gap), seed: rng.Uint64()})
			at += gap/2 + rand64(rng, gap)
		}
	}
	return plan
}

func lasting(rng *rand.Rand, gap time.Duration) time.Duration {
	if gap == meanGap && rng.IntN(longFaultIn) == 0 {
		return longFault + rand64(rng, longFault)
	}
	return shortFault + rand64(rng, 2*min(meanFault, gap))
}

func rand64(rng *rand.Rand, below time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(below)))
}

// active is a fault that has begun, and ends by itself.
type active struct {
	planned
	until time.Time
}

// inject carries the plan out, and returns how many faults of each kind there were.
// A fault waits while what it is to break is broken already.
func (c *cluster) inject(plan []planned) map[string]int {
	injected := map[string]int{}
	running := map[string]active{}
	begun := time.Now()
	for _, p := range plan {
		endFaults(running, begun.Add(p.at))
		for inTheWay(running, p) {
			endFaults(running, nextEnd(running))
		}
		p.target.begin(rand.New(rand.NewPCG(p.seed, 2)))
		injected[p.kind.name]++
		running[p.target.name] = active{p, time.Now().Add(p.lasts)}
	}
	for len(running) > 0 {
		endFaults(running, nextEnd(running))
	}
	return injected
}

func inTheWay(running map[string]active, p planned) bool {
	_, busy := running[p.target.name]
	return busy || p.kind.exclusive && len(running) > 0
}

// endFaults waits until a moment, and ends the faults whose time is over by then.
func endFaults(running map[string]active, until time.Time) {
	for len(running) > 0 && !nextEnd(running).After(until) {
		next := nextEnd(running)
		time.Sleep(time.Until(next))
		for name, fault := range running {
			if !fault.until.After(next) {
				fault.target.end()
				delete(running, name)
			}
		}
	}
	time.Sleep(time.Until(until))
}

func nextEnd(running map[string]active) time.Time {
	return slices.MinFunc(slices.Collect(maps.Values(running)), func(a, b active) int { return a.until.Compare(b.until) }).until
}

// faultLines lists the faults by kind.
func faultLines(injected map[string]int) string {
	total := 0
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(injected)) {
		total += injected[name]
		lines = append(lines, fmt.Sprintf("  %4d × %s", injected[name], name))
	}
	return fmt.Sprintf("%d faults of %d kinds\n%s", total, len(injected), strings.Join(lines, "\n"))
}
