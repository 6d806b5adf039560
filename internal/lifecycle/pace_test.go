package lifecycle

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Without decisions fewer and fewer admissions are under way, down to 4; decisions bring them back.
func TestPace(t *testing.T) {
	t.Parallel()
	var p pace
	require.Equal(t, int64(1), p.weight())
	for _, want := range []int64{2, 4, 8, 8} {
		p.undecided()
		require.Equal(t, want, p.weight())
	}
	for weight := int64(8); weight > 1; weight /= 2 {
		for range maxAdmissions/weight - 1 {
			p.decided()
			require.Equal(t, weight, p.weight())
		}
		p.decided()
		require.Equal(t, weight/2, p.weight())
	}
	for range 1000 {
		p.decided()
	}
	p.undecided()
	require.Equal(t, int64(2), p.weight())
}

// Only the admission's own deadline counts: one caller's faulty request must not slow the others down.
func TestPaceCountsTheDeadlineAlone(t *testing.T) {
	t.Parallel()
	begun := func(parent context.Context, deadline time.Duration) context.Context {
		ctx, cancel := context.WithTimeoutCause(parent, deadline, errDeadline)
		t.Cleanup(cancel)
		return ctx
	}
	left, leave := context.WithCancel(t.Context())
	leave()
	late, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	for name, c := range map[string]struct {
		ctx          context.Context
		ranOut, left bool
	}{
		"its start was refused":        {begun(t.Context(), time.Minute), false, false},
		"its caller has left":          {begun(left, time.Minute), false, true},
		"its caller's deadline passed": {begun(late, time.Minute), false, true},
		"its deadline passed":          {begun(t.Context(), 0), true, false},
	} {
		require.Equal(t, c.ranOut, ranOut(c.ctx), name)
		require.Equal(t, c.left, callerLeft(c.ctx), name)
	}
}
