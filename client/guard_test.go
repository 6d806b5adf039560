package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client/internal/fake"
)

var (
	hundred  = earmark.Amounts{"tokens": 100}
	errModel = errors.New("the model failed")
)

// bubbleEnv is a fake Earmark without a network, its client, and what the client reported.
type bubbleEnv struct {
	earmark   *fake.Earmark
	client    *Client
	log       *bytes.Buffer
	unsettled []*UnsettledError
}

// inBubble runs a test on a clock that moves when everything waits.
func inBubble(t *testing.T, limit int64, test func(t *testing.T, s *bubbleEnv)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &bubbleEnv{earmark: &fake.Earmark{Limit: limit}, log: &bytes.Buffer{}}
		var err error
		s.client, err = New("http://earmark.test",
			WithHTTPClient(&http.Client{Transport: s.earmark}),
			WithLogger(slog.New(slog.NewTextHandler(s.log, nil))),
			WithUnsettled(func(_ context.Context, e *UnsettledError) { s.unsettled = append(s.unsettled, e) }))
		require.NoError(t, err)
		test(t, s)
	})
}

// answers lets one verb's calls be answered in turn; nil is Earmark's own answer.
// The last one goes on.
func (s *bubbleEnv) answers(verb string, answers ...http.HandlerFunc) {
	before := s.earmark.Intercept
	s.earmark.Intercept = func(called string, nth int) http.HandlerFunc {
		switch {
		case called == verb:
			return answers[min(nth, len(answers))-1]
		case before != nil:
			return before(called, nth)
		}
		return nil
	}
}

func (s *bubbleEnv) only(t *testing.T) earmark.Reservation {
	t.Helper()
	all := s.earmark.Reservations()
	require.Len(t, all, 1)
	return all[0]
}

func requestFor(ttlSeconds int64) earmark.ReservationRequest {
	return earmark.ReservationRequest{Scopes: []string{"acme"}, Amounts: hundred, TTLSeconds: ttlSeconds, OnExpiry: earmark.OnExpiryRelease}
}

type work = func(context.Context, *earmark.Reservation) (earmark.Amounts, error)

func returning(usage earmark.Amounts, err error) work {
	return func(context.Context, *earmark.Reservation) (earmark.Amounts, error) { return usage, err }
}

func TestDoCommits(t *testing.T) {
	inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
		settled, err := s.client.Do(t.Context(), "k", requestFor(0), func(ctx context.Context, r *earmark.Reservation) (earmark.Amounts, error) {
			require.Equal(t, t.Context(), ctx)
			require.Equal(t, earmark.StateHeld, r.State)
			return earmark.Amounts{"tokens": 45}, nil
		})
		require.NoError(t, err)
		require.Equal(t, earmark.Amounts{"tokens": 45}, settled.Reservation.Usage)
		require.Equal(t, []string{"reserve", "commit"}, s.earmark.Verbs())
		require.Empty(t, s.log.String())
	})
}

// What work returns decides what happens, and nothing else does.
func TestDoSettlesByWhatWorkReturns(t *testing.T) {
	t.Parallel()
	zero := earmark.Amounts{"tokens": 0}
	some := earmark.Amounts{"tokens": 7}
	refused := errors.New("the prompt was refused")
	for name, test := range map[string]struct {
		usage   earmark.Amounts
		err     error
		verb    string // none: left to the expiry policy
		is      []error
		unknown bool
	}{
		"usage":                           {usage: some, verb: "commit"},
		"zero usage":                      {usage: zero, verb: "commit"},
		"usage with an error":             {usage: some, err: errModel, verb: "commit", is: []error{errModel}},
		"zero usage with an error":        {usage: zero, err: errModel, is: []error{errModel, ErrUsageUnknown}, unknown: true},
		"an error alone":                  {err: errModel, is: []error{errModel, ErrUsageUnknown}, unknown: true},
		"nothing at all":                  {is: []error{ErrUsageUnknown}, unknown: true},
		"empty usage with an error":       {usage: earmark.Amounts{}, err: errModel, is: []error{errModel, ErrUsageUnknown}, unknown: true},
		"nothing was sent":                {err: NothingSent(refused), verb: "release", is: []error{ErrNothingSent, refused}},
		"nothing was sent, bare":          {err: ErrNothingSent, verb: "release", is: []error{ErrNothingSent}},
		"nothing was sent, but usage was": {usage: some, err: NothingSent(refused), verb: "commit", is: []error{refused}},
		"nothing was sent, zero usage":    {usage: zero, err: NothingSent(refused), verb: "release", is: []error{refused}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
				settled, err := s.client.Do(t.Context(), "", requestFor(60), returning(test.usage, test.err))
				verbs := []string{"reserve"}
				if test.verb != "" {
					verbs = append(verbs, test.verb)
				}
				require.Equal(t, verbs, s.earmark.Verbs())
				require.Equal(t, len(test.is) == 0, err == nil, "%v", err)
				for _, is := range test.is {
					require.ErrorIs(t, err, is)
				}
				var unsettled *UnsettledError
				require.Equal(t, test.unknown, errors.As(err, &unsettled))
				if test.unknown {
					require.Equal(t, &UnsettledError{ReservationID: s.only(t).ID, OnExpiry: earmark.OnExpiryRelease, Err: ErrUsageUnknown}, unsettled)
					require.Equal(t, []*UnsettledError{unsettled}, s.unsettled)
					require.False(t, unsettled.Refused())
					require.Contains(t, err.Error(), "is left to its expiry policy (release): what was used is not known")
					require.Contains(t, s.log.String(), "reservation not settled")
					require.Nil(t, settled.Reservation)
					time.Sleep(time.Minute + time.Second) //nolint:forbidigo // fake time
					require.Equal(t, earmark.StateExpired, s.only(t).State, "nobody extends it any more")
				}
			})
		})
	}
	require.Equal(t, ErrNothingSent, NothingSent(nil))
}

func TestRefusedBeforeWorkRuns(t *testing.T) {
	t.Parallel()
	for code, test := range map[earmark.Code]struct {
		limit  int64
		answer http.HandlerFunc
	}{
		earmark.CodeBudgetExceeded:   {limit: 99},
		earmark.CodeUnavailable:      {answer: fake.Unavailable()},
		earmark.CodeAdmissionUnknown: {answer: fake.Problem(503, earmark.CodeAdmissionUnknown, "no decision")},
		earmark.CodeNoBudget:         {answer: fake.Problem(404, earmark.CodeNoBudget, "no budget")},
	} {
		t.Run(string(code), func(t *testing.T) {
			inBubble(t, test.limit, func(t *testing.T, s *bubbleEnv) {
				s.answers("reserve", test.answer)
				_, err := s.client.Do(t.Context(), "", requestFor(0), func(context.Context, *earmark.Reservation) (earmark.Amounts, error) {
					t.Error("work ran")
					return nil, nil
				})
				require.Equal(t, code, earmark.ErrorCode(err))
				require.Equal(t, code == earmark.CodeBudgetExceeded, IsDenied(err))
				require.Equal(t, len(s.earmark.Verbs()), s.earmark.Count("reserve"))
			})
		})
	}
}

func TestPanicPassesThrough(t *testing.T) {
	inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
		require.PanicsWithValue(t, "boom", func() {
			_, _ = s.client.Do(t.Context(), "", requestFor(60), func(context.Context, *earmark.Reservation) (earmark.Amounts, error) { panic("boom") })
		})
		require.Equal(t, []string{"reserve"}, s.earmark.Verbs())
		require.ErrorIs(t, s.unsettled[0], ErrUsageUnknown)
		time.Sleep(time.Hour) //nolint:forbidigo // fake time
		require.Equal(t, []string{"reserve"}, s.earmark.Verbs(), "nobody extends it any more")
		require.Equal(t, earmark.StateExpired, s.only(t).State)
	})
}

func TestGoexit(t *testing.T) {
	inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = s.client.DoStream(t.Context(), "", requestFor(60), func(_ context.Context, _ *earmark.Reservation, m *Meter) error {
				m.Add(earmark.Amounts{"tokens": 3})
				runtime.Goexit()
				return nil
			})
		}()
		<-done
		require.Equal(t, earmark.Amounts{"tokens": 3}, s.only(t).Usage)
	})
}

// The caller is gone, in the middle of the work or before it is settled; what was
// spent is charged all the same.
func TestSettlesAfterTheCallerIsGone(t *testing.T) {
	inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
		s.answers("commit", fake.Unavailable(), fake.Hang, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		_, err := s.client.Do(ctx, "", requestFor(30), func(ctx context.Context, _ *earmark.Reservation) (earmark.Amounts, error) {
			<-ctx.Done()
			time.Sleep(5 * time.Minute) //nolint:forbidigo // fake time: the lease is kept for work that winds down
			return earmark.Amounts{"tokens": 40}, ctx.Err()
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var unsettled *UnsettledError
		require.NotErrorAs(t, err, &unsettled)
		require.Equal(t, earmark.Amounts{"tokens": 40}, s.only(t).Usage)
		require.False(t, s.only(t).Late)
	})
}

func TestReleaseAfterTheCallerIsGone(t *testing.T) {
	inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
		s.answers("release", fake.Unavailable(), nil)
		ctx, cancel := context.WithCancel(t.Context())
		_, err := s.client.Do(ctx, "", requestFor(30), func(context.Context, *earmark.Reservation) (earmark.Amounts, error) {
			cancel()
			return nil, NothingSent(ctx.Err())
		})
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, earmark.StateReleased, s.only(t).State)
	})
}

func TestCommitIsRepeated(t *testing.T) {
	t.Parallel()
	for name, answers := range map[string]func(e *fake.Earmark) []http.HandlerFunc{
		"away for a while": func(*fake.Earmark) []http.HandlerFunc {
			return append(slices.Repeat([]http.HandlerFunc{fake.Unavailable()}, 9), nil)
		},
		"the first hangs":     func(*fake.Earmark) []http.HandlerFunc { return []http.HandlerFunc{fake.Hang, nil} },
		"its answer was lost": func(e *fake.Earmark) []http.HandlerFunc { return []http.HandlerFunc{e.AnswerLost("commit"), nil} },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
				s.client.maxAttempts = 1 // settling has its own bound
				s.answers("commit", answers(s.earmark)...)
				settled, err := s.client.Do(t.Context(), "", requestFor(0), returning(earmark.Amounts{"tokens": 40}, nil))
				require.NoError(t, err)
				require.Equal(t, earmark.Amounts{"tokens": 40}, settled.Reservation.Usage)
				require.Zero(t, s.earmark.Count("release"))
				require.Empty(t, s.unsettled)
			})
		})
	}
}

// A commit that may have landed is never followed by a release, and never called a
// success.
func TestCommitUnknownToTheEnd(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"away":         fake.Unavailable(),
		"hangs":        fake.Hang,
		"breaks":       breaks,
		"fails":        fake.Problem(500, earmark.CodeInternal, "a bug"),
		"a proxy's":    says(http.StatusNotFound, "<html>no such route</html>"),
		"a login page": says(http.StatusOK, "<html>log in</html>"),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
				s.answers("commit", answer)
				began := time.Now()
				settled, err := s.client.Do(t.Context(), "", requestFor(0), returning(earmark.Amounts{"tokens": 40}, errModel))
				require.LessOrEqual(t, time.Since(began), defaultSettleLimit)
				require.ErrorIs(t, err, errModel)
				var unsettled *UnsettledError
				require.ErrorAs(t, err, &unsettled)
				require.False(t, unsettled.Refused())
				require.Equal(t, "commit", unsettled.Verb)
				require.Equal(t, s.only(t).ID, unsettled.ReservationID)
				require.Equal(t, earmark.Amounts{"tokens": 40}, unsettled.Usage)
				require.Contains(t, err.Error(), "it is not known whether 40 tokens were charged")
				require.Equal(t, Settled{}, settled)
				require.Equal(t, []*UnsettledError{unsettled}, s.unsettled)
				require.Zero(t, s.earmark.Count("release"))

				s.earmark.Intercept = nil
				_, err = s.client.Commit(t.Context(), unsettled.ReservationID, unsettled.Usage)
				require.NoError(t, err, "what the error says is enough to charge it later")
			})
		})
	}
}

func TestSettleLimit(t *testing.T) {
	inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
		WithSettleLimit(3 * time.Second)(s.client)
		s.answers("commit", fake.Hang)
		began := time.Now()
		_, err := s.client.Do(t.Context(), "", requestFor(0), returning(hundred, nil))
		require.Error(t, err)
		require.Equal(t, 3*time.Second, time.Since(began))
	})
}

func TestCommitRefused(t *testing.T) {
	t.Parallel()
	over := earmark.Amounts{"tokens": 101}
	t.Run("overage", func(t *testing.T) {
		inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
			s.earmark.RejectOverage = true
			_, err := s.client.Do(t.Context(), "", requestFor(0), returning(over, nil))
			requireRefused(t, s, err, earmark.CodeOverageRejected)
			require.Equal(t, over, s.only(t).RejectedUsage)
			require.Equal(t, earmark.OnExpiryReview, s.unsettled[0].OnExpiry, "as the ledger says, not as it was asked for")
		})
	})
	t.Run("settled otherwise", func(t *testing.T) {
		inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
			_, err := s.client.Do(t.Context(), "", requestFor(0), func(ctx context.Context, r *earmark.Reservation) (earmark.Amounts, error) {
				_, err := s.client.Commit(ctx, r.ID, earmark.Amounts{"tokens": 1})
				return over, err
			})
			requireRefused(t, s, err, earmark.CodeAlreadySettled)
		})
	})
	t.Run("settled the same", func(t *testing.T) {
		inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
			settled, err := s.client.Do(t.Context(), "", requestFor(0), func(ctx context.Context, r *earmark.Reservation) (earmark.Amounts, error) {
				_, err := s.client.Commit(ctx, r.ID, over)
				return over, err
			})
			require.NoError(t, err)
			require.Equal(t, over, settled.Reservation.Usage)
		})
	})
	t.Run("other units", func(t *testing.T) {
		inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
			_, err := s.client.Do(t.Context(), "", requestFor(0), returning(earmark.Amounts{"token": 5}, nil))
			requireRefused(t, s, err, earmark.CodeInvalidRequest)
		})
	})
	t.Run("not found", func(t *testing.T) {
		inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
			s.answers("commit", fake.Problem(http.StatusNotFound, earmark.CodeNotFound, "there is no such reservation"))
			_, err := s.client.Do(t.Context(), "", requestFor(0), returning(over, nil))
			requireRefused(t, s, err, earmark.CodeNotFound)
			require.Equal(t, 1, s.earmark.Count("commit"))
		})
	})
	t.Run("not found, says a proxy", func(t *testing.T) {
		inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
			proxy := func(w http.ResponseWriter, _ *http.Request) { http.NotFound(w, nil) }
			s.answers("commit", slices.Concat(slices.Repeat([]http.HandlerFunc{proxy}, 2), []http.HandlerFunc{nil})...)
			settled, err := s.client.Do(t.Context(), "", requestFor(0), returning(hundred, nil))
			require.NoError(t, err)
			require.Equal(t, hundred, settled.Reservation.Usage)
			require.Equal(t, 3, s.earmark.Count("commit"))
		})
	})
	t.Run("not found, says a proxy to the end", func(t *testing.T) {
		inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
			s.answers("commit", func(w http.ResponseWriter, _ *http.Request) { http.NotFound(w, nil) })
			_, err := s.client.Do(t.Context(), "", requestFor(0), returning(hundred, nil))
			require.ErrorContains(t, err, "it is not known whether 100 tokens were charged")
			require.False(t, s.unsettled[0].Refused())
		})
	})
	t.Run("release", func(t *testing.T) {
		inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
			_, err := s.client.Do(t.Context(), "", requestFor(0), func(ctx context.Context, r *earmark.Reservation) (earmark.Amounts, error) {
				_, err := s.client.Commit(ctx, r.ID, over)
				return nil, NothingSent(err)
			})
			require.ErrorIs(t, err, ErrNothingSent)
			require.ErrorContains(t, err, "was not released")
			require.True(t, s.unsettled[0].Refused())
		})
	})
	t.Run("release unknown", func(t *testing.T) {
		inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
			s.answers("release", fake.Unavailable())
			_, err := s.client.Do(t.Context(), "", requestFor(0), returning(nil, ErrNothingSent))
			require.ErrorContains(t, err, "not known whether it was released")
			require.False(t, s.unsettled[0].Refused())
		})
	})
}

// A guard has no default for who pays when the process dies after the call.
func TestTheExpiryPolicyIsChosen(t *testing.T) {
	inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
		request := requestFor(0)
		request.OnExpiry = ""
		_, err := s.client.Do(t.Context(), "", request, func(context.Context, *earmark.Reservation) (earmark.Amounts, error) {
			t.Error("the work ran")
			return nil, nil
		})
		var e *earmark.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, earmark.CodeInvalidRequest, e.Code)
		require.Equal(t, "on_expiry", e.Field)
		for _, choice := range []string{`"commit"`, `"release"`, `"review"`} {
			require.Contains(t, e.Message, choice)
		}
		require.Empty(t, s.earmark.Verbs())
	})
}

func requireRefused(t *testing.T, s *bubbleEnv, err error, code earmark.Code) {
	t.Helper()
	var unsettled *UnsettledError
	require.ErrorAs(t, err, &unsettled)
	require.True(t, unsettled.Refused())
	require.Equal(t, code, earmark.ErrorCode(err))
	require.ErrorContains(t, err, "were not charged")
	require.Equal(t, []*UnsettledError{unsettled}, s.unsettled)
	require.Zero(t, s.earmark.Count("release"))
}

func TestAcceptedIsSuccess(t *testing.T) {
	inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
		s.answers("commit", says(http.StatusAccepted, `{"id":"rsv_1","accepted":true}`))
		settled, err := s.client.Do(t.Context(), "", requestFor(0), returning(hundred, nil))
		require.NoError(t, err)
		require.Equal(t, Settled{Accepted: true}, settled)
	})
}

// A key runs once: a run beside it and a run after it do not begin.
func TestKeyRunsOnce(t *testing.T) {
	inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
		_, err := s.client.Do(t.Context(), "k", requestFor(0), func(ctx context.Context, _ *earmark.Reservation) (earmark.Amounts, error) {
			_, err := s.client.Do(ctx, "k", requestFor(0), returning(hundred, nil))
			require.ErrorIs(t, err, ErrKeyInUse)
			var unsettled *UnsettledError
			require.NotErrorAs(t, err, &unsettled)
			return hundred, nil
		})
		require.NoError(t, err)
		_, err = s.client.Do(t.Context(), "k", requestFor(0), returning(hundred, nil))
		require.Equal(t, earmark.CodeAlreadySettled, earmark.ErrorCode(err))
		require.Equal(t, 1, s.earmark.Count("commit"))

		_, err = s.client.Do(t.Context(), "a\nb", requestFor(0), returning(hundred, nil))
		require.Equal(t, earmark.CodeInvalidRequest, earmark.ErrorCode(err))
	})
}

// A reservation whose answer was lost is the run's own.
func TestLostAdmissionIsFound(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"", "k"} {
		t.Run("key "+key, func(t *testing.T) {
			inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
				s.answers("reserve", s.earmark.AnswerLost("reserve"), nil)
				_, err := s.client.Do(t.Context(), key, requestFor(0), returning(hundred, nil))
				require.NoError(t, err)
				require.Equal(t, []string{"reserve", "reserve", "commit"}, s.earmark.Verbs())
			})
		})
	}
}

// net/http sends a call again by itself when a kept connection breaks.
func TestLostAdmissionThatNetHTTPRepeats(t *testing.T) {
	t.Parallel()
	e := &fake.Earmark{Limit: 1000}
	e.Intercept = func(verb string, nth int) http.HandlerFunc {
		if verb == "reserve" && nth == 2 {
			return e.AnswerLost("reserve")
		}
		return nil
	}
	url, stop := e.Serve()
	defer stop()
	c, err := New(url, WithMaxAttempts(1))
	require.NoError(t, err)
	for _, key := range []string{"first", "second"} {
		_, err = c.Do(t.Context(), key, requestFor(0), returning(hundred, nil))
		require.NoError(t, err)
	}
	require.Equal(t, []string{"reserve", "commit", "reserve", "reserve", "commit"}, e.Verbs())
}

func TestStreamChargesWhatTheMeterSays(t *testing.T) {
	t.Parallel()
	seven := earmark.Amounts{"tokens": 7}
	for name, test := range map[string]struct {
		work  func(context.CancelFunc, *Meter) error
		usage earmark.Amounts // nil: not charged
		state earmark.State
	}{
		"to the end": {func(_ context.CancelFunc, m *Meter) error {
			m.Add(hundred)
			m.Add(hundred)
			m.Set(seven)
			return nil
		}, seven, earmark.StateCommitted},
		"broke":               {func(_ context.CancelFunc, m *Meter) error { m.Add(seven); return io.ErrUnexpectedEOF }, seven, earmark.StateCommitted},
		"caller gone":         {func(c context.CancelFunc, m *Meter) error { m.Add(seven); c(); return context.Canceled }, seven, earmark.StateCommitted},
		"panic":               {func(_ context.CancelFunc, m *Meter) error { m.Add(seven); panic(http.ErrAbortHandler) }, seven, earmark.StateCommitted},
		"panic at zero":       {func(_ context.CancelFunc, m *Meter) error { m.Add(nil); panic("boom") }, nil, earmark.StateHeld},
		"panic, nothing sent": {func(_ context.CancelFunc, m *Meter) error { m.NothingSent(); panic("boom") }, nil, earmark.StateHeld},
		"never used":          {func(context.CancelFunc, *Meter) error { return nil }, nil, earmark.StateHeld},
		"broke at zero":       {func(_ context.CancelFunc, m *Meter) error { m.Set(earmark.Amounts{"tokens": 0}); return errModel }, nil, earmark.StateHeld},
		"ended at zero": {func(_ context.CancelFunc, m *Meter) error { m.Set(earmark.Amounts{}); return nil },
			earmark.Amounts{"tokens": 0}, earmark.StateCommitted},
		"nothing sent":              {func(_ context.CancelFunc, m *Meter) error { m.NothingSent(); return nil }, nil, earmark.StateReleased},
		"nothing sent, by error":    {func(context.CancelFunc, *Meter) error { return NothingSent(errModel) }, nil, earmark.StateReleased},
		"nothing sent, but counted": {func(_ context.CancelFunc, m *Meter) error { m.NothingSent(); m.Add(seven); return nil }, seven, earmark.StateCommitted},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				func() {
					defer func() { _ = recover() }()
					_, err := s.client.DoStream(ctx, "", requestFor(0), func(_ context.Context, _ *earmark.Reservation, m *Meter) error {
						return test.work(cancel, m)
					})
					require.Equal(t, test.state == earmark.StateHeld, errors.Is(err, ErrUsageUnknown))
				}()
				r := s.only(t)
				require.Equal(t, test.state, r.State)
				require.Equal(t, test.usage, r.Usage)
				require.Len(t, s.unsettled, map[bool]int{true: 1}[test.state == earmark.StateHeld])
			})
		})
	}
}

// A unit that the stream did not get to is charged as zero: without it the rest
// could not be charged.
func TestStreamFillsTheReservedUnits(t *testing.T) {
	inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
		request := requestFor(0)
		request.Amounts = earmark.Amounts{"tokens": 100, "searches": 3}
		settled, err := s.client.DoStream(t.Context(), "", request, func(_ context.Context, _ *earmark.Reservation, m *Meter) error {
			m.Add(earmark.Amounts{"tokens": 9})
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, earmark.Amounts{"tokens": 9, "searches": 0}, settled.Reservation.Usage)
	})
}

func TestStreamPanicThatCannotBeSettledIsTold(t *testing.T) {
	inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
		s.answers("commit", fake.Unavailable())
		require.PanicsWithValue(t, "boom", func() {
			_, _ = s.client.DoStream(t.Context(), "", requestFor(0), func(_ context.Context, _ *earmark.Reservation, m *Meter) error {
				m.Add(hundred)
				panic("boom")
			})
		})
		require.Equal(t, hundred, s.unsettled[0].Usage)
		require.Contains(t, s.log.String(), `usage="100 tokens"`)
		require.Zero(t, s.earmark.Count("release"))
	})
}

func TestStreamIsCountedConcurrently(t *testing.T) {
	inBubble(t, 10_000, func(t *testing.T, s *bubbleEnv) {
		settled, err := s.client.DoStream(t.Context(), "", requestFor(0), func(_ context.Context, _ *earmark.Reservation, m *Meter) error {
			var group sync.WaitGroup
			for range 50 {
				group.Go(func() {
					for range 20 {
						m.Add(earmark.Amounts{"tokens": 1})
						_ = m.Usage()
					}
				})
			}
			group.Wait()
			go m.Add(hundred) // a straggler: on the bill or not, never a race
			return nil
		})
		require.NoError(t, err)
		require.Contains(t, []int64{1000, 1100}, settled.Reservation.Usage["tokens"])
	})
}

// A response takes the place of amounts: the usage of Do, and the count of a meter, also if the work fails afterwards.
func TestAResponseTakesThePlaceOfAmounts(t *testing.T) {
	response := earmark.Response{ProviderUsage: json.RawMessage(`{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}`), Model: "gpt-5"}
	inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
		settled, err := s.client.DoResponse(t.Context(), "", requestFor(0), func(context.Context, *earmark.Reservation) (earmark.Response, error) { return response, nil })
		require.NoError(t, err)
		require.Equal(t, earmark.Amounts{"tokens": 18}, settled.Reservation.Usage)

		settled, err = s.client.DoStream(t.Context(), "", requestFor(0), func(_ context.Context, _ *earmark.Reservation, m *Meter) error {
			m.Add(hundred)
			m.SetResponse(response)
			return errModel
		})
		require.ErrorIs(t, err, errModel)
		require.Equal(t, earmark.Amounts{"tokens": 18}, settled.Reservation.Usage)
	})
}

func TestAResponseThatIsRefusedOrEmptySettlesNothing(t *testing.T) {
	inBubble(t, 1000, func(t *testing.T, s *bubbleEnv) {
		wrong := earmark.Response{ProviderUsage: json.RawMessage(`{"prompt_tokens":-1}`)}
		_, err := s.client.DoResponse(t.Context(), "", requestFor(0), func(context.Context, *earmark.Reservation) (earmark.Response, error) { return wrong, nil })
		var unsettled *UnsettledError
		require.ErrorAs(t, err, &unsettled)
		require.True(t, unsettled.Refused())
		require.Equal(t, wrong, unsettled.Response)

		_, err = s.client.DoResponse(t.Context(), "", requestFor(0), func(context.Context, *earmark.Reservation) (earmark.Response, error) { return earmark.Response{}, nil })
		require.ErrorIs(t, err, ErrUsageUnknown)
		require.Equal(t, 1, s.earmark.Count("commit"))
		require.Zero(t, s.earmark.Count("release"))
	})
}
