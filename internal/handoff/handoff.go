// Package handoff carries results within one process, between the coordinator of
// reservations (internal/lifecycle) and the activities of their workflows: what an
// activity decided goes to the calls that wait for it; what the coordinator reserved
// speculatively, and what it settled, goes to the activity. Where the workflow's worker
// runs in another process, nothing is handed over and Temporal carries the result.
package handoff

import (
	"slices"
	"sync"
)

// Exchange connects one coordinator with the worker of its process. The zero value is
// ready. Its methods are safe for concurrent use and for a nil Exchange, which hands
// over nothing.
type Exchange struct {
	mu           sync.Mutex
	decisions    map[string][]*decisionWaiter // by reservation id: several attempts may wait for one
	speculations map[attempt]*Speculation
	windows      map[string]*window // by reservation id
	closed       bool               // no window opens any more
}

// remove takes one waiter off the list of a key, and the key with the last one.
func remove[K comparable, W comparable](waiters map[K][]W, key K, waiter W) {
	left := slices.DeleteFunc(waiters[key], func(other W) bool { return other == waiter })
	if len(left) == 0 {
		delete(waiters, key)
		return
	}
	waiters[key] = left
}
