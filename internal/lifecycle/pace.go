package lifecycle

import "sync"

// maxWeight leaves room for 4 admissions at once.
const maxWeight = maxAdmissions / 4

// pace makes an admission weigh more while admissions get no decision in time, so that fewer are under
// way at once. Where Temporal is slow, many starts at once would each take longer than the deadline, and none
// would succeed.
type pace struct {
	mu     sync.Mutex
	slow   int64 // the weight, less 1
	streak int64 // decisions since the last change
}

// weight is what an admission takes of maxAdmissions.
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

// decided halves the weight after as many decisions in a row as may be under way at once.
func (p *pace) decided() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.streak++; p.slow > 0 && p.streak >= maxAdmissions/(p.slow+1) {
		p.slow, p.streak = p.slow/2, 0
	}
}
