package metrics

import "sync"

const (
	// maxUnits bounds the label values that callers make by inventing units.
	maxUnits = 20
	// otherUnits is the label of the units past the bound.
	otherUnits = "other"
)

// unitLabels gives each unit its label: the first ones of a process their own name.
// The zero value is ready.
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
