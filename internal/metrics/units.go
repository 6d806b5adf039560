package metrics

import "sync"

const (
	// maxUnits bounds the label values, because callers can invent units.
	maxUnits = 20
	// otherUnits is the label of the units past the bound.
	otherUnits = "other"
)

// unitLabels returns the label of a unit: the first maxUnits units of a process keep their
// own name. The zero value is ready to use.
type unitLabels struct {
	mu    sync.Mutex
	known map[string]bool
}

func (u *unitLabels) label(unit string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.known[unit]:
		return unit
	case len(u.known) >= maxUnits:
		return otherUnits
	case u.known == nil:
		u.known = make(map[string]bool)
	}
	u.known[unit] = true
	return unit
}
