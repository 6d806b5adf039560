package handoff

import (
	"context"
	"time"

	"github.com/earmark-dev/earmark"
)

// maxWindows bounds the open windows of a process. Each occupies a slot for a workflow task and
// one for a local activity.
const maxWindows = 256

// Settlement is what the ledger answered to a commit or a release, and who asked.
type Settlement struct {
	earmark.Transition
	Result earmark.Result
}

// window is the time in which the first task of a reservation's workflow stays open for its
// settlement.
type window struct {
	settled chan Settlement // unbuffered: either the task takes the settlement, or its sender learns that the window is over
	over    chan struct{}
	end     *time.Timer
}

// OpenWindow lets the first task of a workflow that is about to start in this process wait for
// the settlement, for length from now at most. It is false when length is zero, too many windows
// are open, or one is open for this id.
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

// CloseWindow ends the reservation's window, so that its workflow goes on without the settlement.
func (x *Exchange) CloseWindow(id string) {
	if w := x.window(id); w != nil {
		x.closeWindow(id, w)
	}
}

// CloseWindows ends all windows, and opens none from now on. Call it before the worker stops.
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

// AwaitSettlement waits in the reservation's window. It is false when the window ends first, and
// where there is none.
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

// DeliverSettlement hands the settlement to the task that waits for it, or is about to. It is
// false when the window ends first, and where there is none: then the workflow does not know of
// the settlement.
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

// endLocked ends a window that has not ended. The mutex is held.
func (x *Exchange) endLocked(id string, w *window) {
	if x.windows[id] != w {
		return
	}
	delete(x.windows, id)
	w.end.Stop()
	close(w.over)
}
