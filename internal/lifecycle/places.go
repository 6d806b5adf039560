package lifecycle

import (
	"sync"
	"time"
)

// places decides how many admissions are under way at once, between minAdmissions and maxAdmissions. As in
// TCP Vegas, the time that admissions take says how many of them only wait inside Temporal and Postgres: they
// are better off waiting here, where other scopes and tenants overtake them (see internal/fairqueue).
type places struct {
	mu      sync.Mutex
	count   int // places now
	decided int // since the last change
	took    time.Duration
	wanted  bool // whether all places were taken since then
	fastest lowest
}

// now is the number of places.
func (p *places) now() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

// decide counts an admission that took a time, and returns the number of places from now on. The count changes
// by one at most, after as many decisions as there are places; it grows only if all were taken, which full
// reports, so that quiet hours make no room for the next flood.
func (p *places) decide(took time.Duration, full bool, now time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fastest.add(took, now)
	p.decided++
	p.took += took
	p.wanted = p.wanted || full
	if p.decided < p.count {
		return p.count
	}
	unhurried := slowByChance * float64(p.fastest.value())
	waiting := float64(p.count) * max(0, 1-unhurried*float64(p.decided)/float64(p.took))
	switch {
	case waiting < fewWait && p.wanted:
		p.count = min(p.count+1, maxAdmissions)
	case waiting > manyWait:
		p.count = max(p.count-1, minAdmissions)
	}
	p.decided, p.took, p.wanted = 0, 0, false
	return p.count
}

// undecided halves the places: many starts at once would each take longer than the deadline, and none would
// succeed.
func (p *places) undecided() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count = max(p.count/2, minAdmissions)
	p.decided, p.took, p.wanted = 0, 0, false
	return p.count
}

// lowest is the least of the values of the last one to two spans of fastestSpan.
type lowest struct {
	since           time.Time
	current, before time.Duration // zero: no value yet
}

func (l *lowest) add(value time.Duration, now time.Time) {
	if now.Sub(l.since) > fastestSpan {
		l.since, l.before, l.current = now, l.current, 0
	}
	if l.current == 0 || value < l.current {
		l.current = value
	}
}

func (l *lowest) value() time.Duration {
	if l.before == 0 {
		return l.current
	}
	return min(l.before, l.current)
}
