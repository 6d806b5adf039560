package postgres

import (
	"sync"

	"github.com/earmark-dev/earmark"
)

// maxRecent bounds each of the two generations of a recent.
const maxRecent = 20_000

// recent stores the values that were added last, by key, in two generations: when the
// younger one is full, the older one is dropped. It is a cache: its users work without it,
// more slowly.
type recent[V any] struct {
	mu         sync.Mutex
	young, old map[string]V
}

func (r *recent[V]) add(key string, value V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.young == nil || len(r.young) >= maxRecent {
		r.young, r.old = make(map[string]V), r.young
	}
	r.young[key] = value
}

func (r *recent[V]) has(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, found := r.find(key)
	return found
}

func (r *recent[V]) find(key string) (V, bool) {
	value, found := r.young[key]
	if !found {
		value, found = r.old[key]
	}
	return value, found
}

func (r *recent[V]) take(key string) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	value, found := r.find(key)
	delete(r.young, key)
	delete(r.old, key)
	return value, found
}

// hold is what this process knows of a reservation that it made.
type hold struct {
	batchKey string
	amounts  earmark.Amounts
}

// covers reports whether usage is in the reserved units and within the reserved amounts.
func (h hold) covers(usage earmark.Amounts) bool {
	for unit, used := range usage {
		if reserved, found := h.amounts[unit]; !found || used > reserved {
			return false
		}
	}
	return len(usage) == len(h.amounts)
}
