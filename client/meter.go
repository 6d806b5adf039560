package client

import (
	"maps"
	"math"
	"sync"

	"github.com/earmark-dev/earmark"
)

// Meter counts what a run has used so far. Its zero value is ready, and it is safe
// for concurrent use. What is counted after the work has returned is not charged.
type Meter struct {
	mu          sync.Mutex
	used        earmark.Amounts // nil until something was reported
	nothingSent bool
}

// Add counts amounts on top of what was counted, such as the tokens of one chunk.
func (m *Meter) Add(used earmark.Amounts) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begin()
	for unit, amount := range used {
		m.used[unit] = saturatingAdd(m.used[unit], amount)
	}
}

// Set puts the count of each unit in used, such as the totals that a model gives at
// the end of a stream. Other units stay as they are.
func (m *Meter) Set(used earmark.Amounts) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begin()
	maps.Copy(m.used, used)
}

// NothingSent says that no request went out, see ErrNothingSent. Usage that was
// counted outweighs it.
func (m *Meter) NothingSent() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nothingSent = true
}

// Usage returns what was counted so far; nil when nothing was reported, not even a
// zero.
func (m *Meter) Usage() earmark.Amounts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.used)
}

func (m *Meter) begin() {
	if m.used == nil {
		m.used = earmark.Amounts{}
	}
}

// Report returns the usage that settles a run that reserved these amounts, for those
// who settle it themselves: the usage in exactly the reserved units, nil when
// nothing was reported, and whether nothing was sent.
func (m *Meter) Report(reserved earmark.Amounts) (usage earmark.Amounts, nothingSent bool) {
	r := m.report(reserved)
	return r.usage, r.nothingSent
}

// report is what the run is settled by. A meter stands at zero for each reserved
// unit from the start, so a unit that was not reached is charged as zero.
func (m *Meter) report(reserved earmark.Amounts) report {
	m.mu.Lock()
	defer m.mu.Unlock()
	usage := maps.Clone(m.used)
	if usage != nil {
		for unit := range reserved {
			usage[unit] += 0
		}
	}
	return report{usage: usage, nothingSent: m.nothingSent}
}

// saturatingAdd stops at the largest amount: a charge that wraps around would be
// refused, and the usage lost.
func saturatingAdd(a, b int64) int64 {
	if a > 0 && b > math.MaxInt64-a {
		return math.MaxInt64
	}
	if a < 0 && b < math.MinInt64-a {
		return math.MinInt64
	}
	return a + b
}
