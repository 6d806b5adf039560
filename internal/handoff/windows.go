package handoff

import (
	"context"
	"time"

	"github.com/earmark-dev/earmark"
)

// maxWindows bounds the open windows of a process. Each occupies a slot for a workflow task
// and one for a local activity.
const maxWindows = 256

// Settlement is the ledger's answer to a commit or a release, and the actor.
type Settlement struct {
	earmark.Transition
	Result earmark.Result
}

// window is the time for which the first task of a reservation's workflow stays open for
// its settlement.
type window struct {
	settled chan Settlement // unbuffered: either the task takes the settlement, or the sender learns that the window has ended
	over    chan struct{}
	end     *time.Timer
}

// OpenWindow lets the first task of a workflow that is about to start in this process wait
// for the settlement, for at most length from now. It returns false if length is zero, too
// many windows are open, or one is open for this id.
func (x *Exchange) OpenWindow(id string, length time.Duration) bool {
	if x == nil || length <= 0 {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, found := x.windows[id]; found || x.closed || len(x.windows) >= maxWindows { // mutation: bounded-windows
		return false
	}
	if x.windows == nil {
		x.windows = make(map[string]*window)
	}
	w := &window{settled: make(chan Settlement), over: make(chan struct{})}
	w.end = time.AfterFunc(length, func() { x.closeWindow(id, w) })
	x.windows[id] = w
	return true
}

// CloseWindow ends the reservation's window; its workflow continues without the settlement.
func (x *Exchange) CloseWindow(id string) {
	if w := x.window(id); w != nil {
		x.closeWindow(id, w)
	}
}

// CloseWindows ends all windows and opens no further ones. Call it before the worker stops.
func (x *Exchange) CloseWindows() {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	for id, w := range x.windows {
		x.endLocked(id, w)
	}
}

// AwaitSettlement waits in the reservation's window. It returns false if the window ends
// first or there is none.
func (x *Exchange) AwaitSettlement(ctx context.Context, id string) (Settlement, bool) {
	w := x.window(id)
	if w == nil {
		return Settlement{}, false
	}
	defer x.closeWindow(id, w)
	select {
	case s := <-w.settled:
		return s, true
	case <-w.over:
	case <-ctx.Done():
	}
	return Settlement{}, false
}

// DeliverSettlement delivers the settlement to the task that waits for it or will soon. It
// returns false if the window ends first or there is none: the workflow then does not know
// of the settlement.
func (x *Exchange) DeliverSettlement(ctx context.Context, s Settlement) bool {
	w := x.window(s.ID)
	if w == nil {
		return false
	}
	select {
	case w.settled <- s:
		return true
	case <-w.over:
	case <-ctx.Done():
	}
	return false
}

func (x *Exchange) window(id string) *window {
	if x == nil {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.windows[id]
}

func (x *Exchange) closeWindow(id string, w *window) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.endLocked(id, w)
}

// endLocked ends a window that has not ended. The caller holds the mutex.
func (x *Exchange) endLocked(id string, w *window) {
	if x.windows[id] != w {
		return
	}
	delete(x.windows, id)
	w.end.Stop()
	close(w.over)
}
