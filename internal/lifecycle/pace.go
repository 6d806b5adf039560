package lifecycle

import "sync"

// maxWeight still allows 4 admissions at once.
const maxWeight = maxAdmissions / 4

// pace raises the weight of an admission while admissions get no decision in time, so that
// fewer run at once. If Temporal is slow, many starts at once would all take longer than
// the deadline, and none would succeed.
type pace struct {
	mu     sync.Mutex
	slow   int64 // the weight, less 1
	streak int64 // decisions since the last change
}

// weight returns the share of maxAdmissions that one admission takes.
func (p *pace) weight() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.slow + 1
}

// undecided doubles the weight, up to maxWeight.
func (p *pace) undecided() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slow, p.streak = min(2*p.slow+1, maxWeight-1), 0
}

// decided halves the weight after as many decisions in a row as admissions may run at once.
func (p *pace) decided() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.streak++; p.slow > 0 && p.streak >= maxAdmissions/(p.slow+1) {
		p.slow, p.streak = p.slow/2, 0
	}
}
