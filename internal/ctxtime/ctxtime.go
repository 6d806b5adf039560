// Package ctxtime waits for a duration or the end of a context, whichever comes first.
package ctxtime

import (
	"context"
	"time"
)

// Sleep waits for d and returns true. It returns false if ctx ends first or has ended.
func Sleep(ctx context.Context, d time.Duration) bool {
	if ctx.Err() != nil {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
