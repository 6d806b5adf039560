// Package fairqueue bounds how many calls are under way at once. Calls that have to wait are served in
// fair turns between tenants, and between the scopes of a tenant, so that a flood on one scope makes
// only its own calls wait.
package fairqueue

import (
	"context"
	"slices"
	"sync"
)

// Caller is whose turn it is.
type Caller struct {
	Tenant string
	Scope  string // "" for a call about no one scope
}

// Queue has a number of places. The zero value has none; its methods are safe for concurrent use.
type Queue struct {
	mu       sync.Mutex
	size     int
	underWay int
	root     group
}

// New returns a queue with size places.
func New(size int) *Queue { return &Queue{size: size} }

// Resize changes the number of places. Calls under way keep theirs.
func (q *Queue) Resize(size int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.size = size
	q.admit()
}

// Size is the number of places.
func (q *Queue) Size() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.size
}

// Full reports whether every place is taken.
func (q *Queue) Full() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.underWay >= q.size
}

// Enter waits for a place until ctx is done, and then returns its error. The caller has to call leave
// once, when it has ended.
func (q *Queue) Enter(ctx context.Context, caller Caller) (leave func(), err error) {
	q.mu.Lock()
	scope := q.root.child(caller.Tenant).child(caller.Scope)
	if q.underWay < q.size && len(q.root.turns) == 0 {
		q.take(scope)
		q.mu.Unlock()
		return q.leaver(scope), nil
	}
	place := make(chan struct{})
	scope.wait(place)
	q.mu.Unlock()

	select {
	case <-place:
		return q.leaver(scope), nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(scope.waiting, place); i >= 0 {
		scope.waiting = slices.Delete(scope.waiting, i, i+1)
		scope.settle()
		return nil, ctx.Err()
	}
	q.free(scope) // the place came at the same moment
	return nil, ctx.Err()
}

// leaver returns what gives the place of a call on scope to the next.
func (q *Queue) leaver(scope *group) func() {
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.free(scope)
	}
}

func (q *Queue) take(scope *group) {
	q.underWay++
	for g := scope; g != nil; g = g.parent {
		g.underWay++
	}
}

func (q *Queue) free(scope *group) {
	q.underWay--
	for g := scope; g != nil; g = g.parent {
		g.underWay--
	}
	scope.settle()
	q.admit()
}

// admit gives the free places to calls that wait.
func (q *Queue) admit() {
	for q.underWay < q.size && len(q.root.turns) > 0 {
		scope := q.root.next().next()
		place := scope.waiting[0]
		scope.waiting = scope.waiting[1:]
		q.take(scope)
		scope.settle()
		close(place)
	}
}

// group is all calls, those of a tenant, or those on one of its scopes.
type group struct {
	name     string
	parent   *group
	children map[string]*group // that have calls under way or waiting
	underWay int
	waiting  []chan struct{} // of a scope, first come first
	turns    []*group        // children with calls that wait; the one served longest ago is first
}

func (g *group) child(name string) *group {
	child, found := g.children[name]
	if !found {
		child = &group{name: name, parent: g}
		if g.children == nil {
			g.children = make(map[string]*group)
		}
		g.children[name] = child
	}
	return child
}

// wait adds a call to those that wait.
func (g *group) wait(place chan struct{}) {
	g.waiting = append(g.waiting, place)
	for ; g.parent != nil && !slices.Contains(g.parent.turns, g); g = g.parent {
		g.parent.turns = append(g.parent.turns, g)
	}
}

// next is the child with the fewest calls under way, of several the one served longest ago. It goes to
// the end of the line.
func (g *group) next() *group {
	chosen := 0
	for i, child := range g.turns {
		if child.underWay < g.turns[chosen].underWay { // mutation: fewest-first
			chosen = i
		}
	}
	child := g.turns[chosen]
	g.turns = append(slices.Delete(g.turns, chosen, chosen+1), child) // mutation: fair-turns
	return child
}

// settle takes a group out of the line once no call of it waits, and forgets it once none is left.
func (g *group) settle() {
	for ; g.parent != nil; g = g.parent {
		if len(g.waiting) > 0 || len(g.turns) > 0 {
			return
		}
		if i := slices.Index(g.parent.turns, g); i >= 0 {
			g.parent.turns = slices.Delete(g.parent.turns, i, i+1)
		}
		if g.underWay == 0 {
			delete(g.parent.children, g.name)
		}
	}
}
