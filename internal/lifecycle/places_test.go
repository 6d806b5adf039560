package lifecycle

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Where admissions take as long as one alone there is room for more of them; where they wait for each other, for
// fewer; and after a missed deadline for half as many.
func TestPlaces(t *testing.T) {
	t.Parallel()
	now := time.Now()
	p := places{count: firstAdmissions}
	decide := func(n int, took time.Duration) {
		for range n {
			p.decide(took, true, now)
		}
	}
	decide(1000, 10*time.Millisecond)
	require.Equal(t, maxAdmissions, p.now(), "a far server with room")
	decide(2000, 100*time.Millisecond)
	require.Equal(t, minAdmissions, p.now(), "ten times slower than it can be")

	// A server that decides one in 10 ms, however many ask: the time grows with their number.
	p = places{count: maxAdmissions}
	p.decide(10*time.Millisecond, true, now)
	for range 2000 {
		decide(1, time.Duration(p.now())*10*time.Millisecond)
	}
	settled := p.now()
	require.GreaterOrEqual(t, settled, minAdmissions)
	require.LessOrEqual(t, settled, 6, "some wait in the server, so that it is never idle, but not many")

	// What was fast once is forgotten: the server is slower now, and not busier.
	p = places{count: firstAdmissions}
	decide(1000, 10*time.Millisecond)
	now = now.Add(fastestSpan + time.Second)
	decide(1, 50*time.Millisecond)
	now = now.Add(fastestSpan + time.Second)
	decide(2000, 50*time.Millisecond)
	require.Equal(t, maxAdmissions, p.now())

	quiet := places{count: firstAdmissions}
	for range 1000 {
		quiet.decide(10*time.Millisecond, false, now)
	}
	require.Equal(t, firstAdmissions, quiet.now(), "nobody waits for a place")

	for _, want := range []int{16, 8, 4, 4} {
		p.undecided()
		require.Equal(t, want, p.now())
	}
}

// Only the admission's own deadline counts: one caller's faulty request must not slow the others down.
func TestPlacesCountTheDeadlineAlone(t *testing.T) {
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
