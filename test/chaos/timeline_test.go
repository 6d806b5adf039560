//go:build unix

package chaos_test

import (
	"slices"
	"sync"
	"time"
)

// span is a time during which something was broken.
type span struct{ from, to time.Time }

// timeline remembers what was broken when, by the name of what it was.
type timeline struct {
	mu    sync.Mutex
	spans map[string][]span
	open  map[string]time.Time
}

func newTimeline() *timeline {
	return &timeline{spans: map[string][]span{}, open: map[string]time.Time{}}
}

// breaks says that something is broken from now on; works, that it is whole again.
func (l *timeline) breaks(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, broken := l.open[what]; !broken {
		l.open[what] = time.Now()
	}
}

func (l *timeline) works(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if from, broken := l.open[what]; broken {
		delete(l.open, what)
		l.spans[what] = append(l.spans[what], span{from, time.Now()})
	}
}

// of lists the spans of several things, by their beginning.
func (l *timeline) of(what ...string) []span {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []span
	for _, name := range what {
		all = append(all, l.spans[name]...)
	}
	slices.SortFunc(all, func(a, b span) int { return a.from.Compare(b.from) })
	return all
}
