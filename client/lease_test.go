package client

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client/internal/fake"
)

func sleeping(d time.Duration) work {
	return func(context.Context, *earmark.Reservation) (earmark.Amounts, error) {
		time.Sleep(d) //nolint:forbidigo // fake time
		return earmark.Amounts{"tokens": 40}, nil
	}
}

// gaps are the times between the calls that began or extended the lease.
func (s *bubbleEnv) gaps() []time.Duration {
	var gaps []time.Duration
	var last time.Time
	for _, call := range s.earmark.Calls() {
		if !last.IsZero() && call.Verb == "extend" {
			gaps = append(gaps, call.At.Sub(last))
		}
		last = call.At
	}
	return gaps
}

func TestLeaseIsKept(t *testing.T) {
	t.Parallel()
	for _, ttl := range []time.Duration{time.Second, 2 * time.Second, time.Minute, 0, 7 * 24 * time.Hour} {
		t.Run(ttl.String(), func(t *testing.T) {
			inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
				length := ttl
				if ttl == 0 {
					length = earmark.DefaultTTL
				}
				settled, err := s.client.Do(t.Context(), "", requestFor(int64(ttl/time.Second)), sleeping(20*length))
				require.NoError(t, err)
				require.False(t, settled.Reservation.Late)
				gaps := s.gaps()
				require.GreaterOrEqual(t, len(gaps), 29)
				for _, gap := range gaps {
					require.Equal(t, length-length/3, gap)
				}
				require.Empty(t, s.log.String())
			})
		})
	}
}

func TestShortWorkExtendsNothing(t *testing.T) {
	inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
		_, err := s.client.Do(t.Context(), "", requestFor(3), sleeping(1900*time.Millisecond))
		require.NoError(t, err)
		require.Zero(t, s.earmark.Count("extend"))
	})
}

// A lease began before the answer to its call, and the client knows only that
// it did not begin before the call was sent.
func TestSlowAnswersCount(t *testing.T) {
	inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
		s.earmark.Slow = map[string]time.Duration{"reserve": 1500 * time.Millisecond, "extend": 900 * time.Millisecond}
		settled, err := s.client.Do(t.Context(), "", requestFor(2), sleeping(10*time.Second))
		require.NoError(t, err)
		require.False(t, settled.Reservation.Late)
		for _, gap := range s.gaps()[1:] {
			require.InDelta(t, 4*time.Second/3, gap, 2)
		}
	})
}

// An extension that fails is tried again within the third that is left.
func TestExtendIsRepeated(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"away":      fake.Unavailable(),
		"breaks":    breaks,
		"hangs":     fake.Hang,
		"fails":     fake.Problem(500, earmark.CodeInternal, "a bug"),
		"a proxy's": says(http.StatusNotFound, "no such route"),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
				s.answers("extend", slices.Repeat([]http.HandlerFunc{answer, nil}, 3)...)
				settled, err := s.client.Do(t.Context(), "", requestFor(6), sleeping(time.Minute))
				require.NoError(t, err)
				require.False(t, settled.Reservation.Late)
				require.Contains(t, s.log.String(), "the lease was not extended")
			})
		})
	}
}

// Earmark is away for longer than the lease, and back: it may still hold the
// reservation, and then it is extended.
func TestExtendGoesOnPastTheLease(t *testing.T) {
	inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
		back := time.Now().Add(10 * time.Minute)
		s.earmark.Intercept = func(verb string, _ int) http.HandlerFunc {
			switch {
			case verb != "extend":
				return nil
			case time.Now().Before(back):
				return fake.Unavailable()
			}
			return says(http.StatusOK, `{"id":"rsv_1","state":"held"}`)
		}
		_, err := s.client.Do(t.Context(), "", requestFor(60), sleeping(time.Hour))
		require.NoError(t, err)
		gaps := s.gaps()
		require.Equal(t, 40*time.Second, gaps[len(gaps)-1])
		require.Less(t, s.earmark.Count("extend"), 10*60/2+60*60/40, "it is no storm")
	})
}

// The lease is lost; the work goes on, since its money may be spent, and is charged
// late.
func TestLostLease(t *testing.T) {
	t.Parallel()
	t.Run("expired", func(t *testing.T) {
		inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
			s.earmark.Intercept = func(verb string, nth int) http.HandlerFunc {
				if verb == "extend" && nth < 30 {
					return fake.Unavailable()
				}
				return nil
			}
			settled, err := s.client.Do(t.Context(), "", requestFor(2), sleeping(time.Hour))
			require.NoError(t, err)
			require.True(t, settled.Reservation.Late)
			require.Equal(t, earmark.Amounts{"tokens": 40}, settled.Reservation.Usage)
			require.Equal(t, 30, s.earmark.Count("extend"), "there is nothing left to extend")
			require.Contains(t, s.log.String(), "the lease is over")
		})
	})
	t.Run("released by somebody else", func(t *testing.T) {
		inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
			_, err := s.client.Do(t.Context(), "", requestFor(2), func(ctx context.Context, r *earmark.Reservation) (earmark.Amounts, error) {
				_, err := s.client.Release(ctx, r.ID, "")
				time.Sleep(time.Minute) //nolint:forbidigo // fake time
				return hundred, err
			})
			requireReleasedElsewhere(t, s, err)
		})
	})
}

func requireReleasedElsewhere(t *testing.T, s *bubbleEnv, err error) {
	t.Helper()
	require.Equal(t, earmark.CodeAlreadySettled, earmark.ErrorCode(err))
	require.Equal(t, 1, s.earmark.Count("extend"))
	require.True(t, s.unsettled[0].Refused())
}

// The same against a clock that nobody holds, over a network. It is not parallel, so
// that the machine has time for it.
func TestLeaseIsKeptInRealTime(t *testing.T) {
	e := &fake.Earmark{Limit: 1000}
	url, stop := e.Serve()
	defer stop()
	c, err := New(url)
	require.NoError(t, err)
	settled, err := c.Do(t.Context(), "", requestFor(3), sleeping(5*time.Second))
	require.NoError(t, err)
	require.False(t, settled.Reservation.Late)
	require.Equal(t, 2, e.Count("extend"))
}
