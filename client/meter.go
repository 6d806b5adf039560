package client

import (
	"maps"
	"math"
	"sync"

	"github.com/earmark-dev/earmark"
)

// Meter counts the usage of a run. Its zero value is ready to use, and it is safe for
// concurrent use. Usage counted after the work has returned is not charged.
type Meter struct {
	mu          sync.Mutex
	used        earmark.Amounts // nil until something was reported
	response    earmark.Response
	nothingSent bool
}

// Add adds amounts to the count, such as the tokens of one chunk.
func (m *Meter) Add(used earmark.Amounts) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begin()
	for unit, amount := range used {
		m.used[unit] = saturatingAdd(m.used[unit], amount)
	}
}

// Set replaces the count of each unit in used, for example by the totals that a model
// reports at the end of a stream. Other units stay unchanged.
func (m *Meter) Set(used earmark.Amounts) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begin()
	maps.Copy(m.used, used)
}

// SetResponse charges what a response of the model cost, at the prices of the reservation's
// admission, in the place of the count; see CommitResponse. The usage object at the end of a
// stream is enough. If Earmark refuses it, the reservation is not settled.
func (m *Meter) SetResponse(response earmark.Response) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.response = response
}

// Response returns what SetResponse was called with; its Given reports whether it was.
func (m *Meter) Response() earmark.Response {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.response
}

// NothingSent says that no request was sent, see ErrNothingSent. Counted usage takes
// precedence.
func (m *Meter) NothingSent() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nothingSent = true
}

// Usage returns the count so far; nil if nothing was reported, not even a zero.
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

// Report returns the usage that settles a run with these reserved amounts, for code that
// settles it itself: the usage in exactly the reserved units, nil if nothing was reported,
// and whether NothingSent was called. A Response takes precedence.
func (m *Meter) Report(reserved earmark.Amounts) (usage earmark.Amounts, nothingSent bool) {
	r := m.report(reserved)
	return r.usage, r.nothingSent
}

// report returns the report that settles the run. A meter is zero for each reserved unit
// from the start, so a unit that was not counted is charged as zero.
func (m *Meter) report(reserved earmark.Amounts) report {
	m.mu.Lock()
	defer m.mu.Unlock()
	usage := maps.Clone(m.used)
	if usage != nil {
		for unit := range reserved {
			usage[unit] += 0
		}
	}
	return report{usage: usage, response: m.response, nothingSent: m.nothingSent}
}

// saturatingAdd stops at math.MaxInt64: Earmark would refuse a sum that wraps around, and
// the usage would be lost.
func saturatingAdd(a, b int64) int64 {
	if a > 0 && b > math.MaxInt64-a {
		return math.MaxInt64
	}
	if a < 0 && b < math.MinInt64-a {
		return math.MinInt64
	}
	return a + b
}
