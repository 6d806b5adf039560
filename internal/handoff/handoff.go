// Package handoff carries results within one process, between the coordinator of
// reservations (internal/lifecycle) and the activities of their workflows. An activity's
// decision goes to the calls that wait for it; the coordinator's speculative reserve and
// its settlements go to the activity. If the workflow's worker runs in another process,
// this package carries nothing, and Temporal carries the result.
package handoff

import (
	"slices"
	"sync"
)

// Exchange connects one coordinator with the worker of its process. The zero value is ready
// to use. Its methods are safe for concurrent use, and for a nil Exchange, which carries
// nothing.
type Exchange struct {
	mu           sync.Mutex
	decisions    map[string][]*decisionWaiter // by reservation id: several attempts may wait for one
	speculations map[attempt]*Speculation
	windows      map[string]*window // by reservation id
	closed       bool               // no further window opens
}

// remove removes one waiter of a key, and the key with its last waiter.
func remove[K comparable, W comparable](waiters map[K][]W, key K, waiter W) {
	left := slices.DeleteFunc(waiters[key], func(other W) bool { return other == waiter })
	if len(left) == 0 {
		delete(waiters, key)
		return
	}
	waiters[key] = left
}
