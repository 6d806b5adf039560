package middleware_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/client/internal/fake"
	"github.com/earmark-dev/earmark/client/middleware"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// env is a service behind the guard, on a port, and the fake Earmark it asks.
type env struct {
	earmark *fake.Earmark
	client  *client.Client
	guarded http.Handler
	url     string

	mu        sync.Mutex
	unsettled []*client.UnsettledError
}

func setup(t *testing.T, handler http.HandlerFunc, options ...middleware.Option) *env {
	t.Helper()
	s := &env{earmark: &fake.Earmark{Limit: 1000}}
	earmarkURL, stop := s.earmark.Serve()
	t.Cleanup(stop)
	var err error
	s.client, err = client.New(earmarkURL, client.WithMaxAttempts(1), client.WithSettleLimit(time.Second),
		client.WithLogger(slog.New(slog.DiscardHandler)),
		client.WithUnsettled(func(_ context.Context, e *client.UnsettledError) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.unsettled = append(s.unsettled, e)
		}))
	require.NoError(t, err)
	s.guarded = middleware.Handler(s.client, ask, handler, options...)
	server := httptest.NewUnstartedServer(s.guarded)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.Start()
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

type chat struct {
	MaxTokens int64 `json:"max_tokens"`
}

func ask(r *http.Request) (middleware.Ask, error) {
	body, err := middleware.PeekBody(r, 1<<10)
	if err != nil {
		return middleware.Ask{}, err
	}
	var asked chat
	if err := json.Unmarshal(body, &asked); err != nil {
		return middleware.Ask{}, earmark.Errorf(earmark.CodeInvalidRequest, "the body is not JSON")
	}
	if asked.MaxTokens < 0 {
		return middleware.Ask{}, errors.New("secret: no such tenant")
	}
	return middleware.Ask{
		Key:     r.Header.Get("X-Turn"),
		Request: earmark.ReservationRequest{Scopes: []string{"acme"}, Amounts: earmark.Amounts{"tokens": asked.MaxTokens}, TTLSeconds: 1, OnExpiry: earmark.OnExpiryRelease},
	}, nil
}

func (s *env) post(t *testing.T, body string, header ...string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	require.NoError(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

func text(t *testing.T, response *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return string(body)
}

func (s *env) only(t *testing.T) earmark.Reservation {
	t.Helper()
	all := s.earmark.Reservations()
	require.Len(t, all, 1)
	return all[0]
}

func never(t *testing.T) http.HandlerFunc {
	t.Helper()
	return func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") }
}

func TestHandlerIsCharged(t *testing.T) {
	t.Parallel()
	s := setup(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != `{"max_tokens":600}` {
			t.Errorf("the body is %q, %v", body, err)
		}
		if middleware.Reservation(r.Context()).Amounts["tokens"] != 600 {
			t.Error("the handler does not see the reservation")
		}
		middleware.Meter(r.Context()).Set(earmark.Amounts{"tokens": 45})
		_, _ = io.WriteString(w, "done")
	})
	response := s.post(t, `{"max_tokens":600}`)
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Equal(t, int64(4), response.ContentLength, "nothing is in the way of the response")
	require.Equal(t, "done", text(t, response))
	require.Equal(t, earmark.Amounts{"tokens": 45}, s.only(t).Usage)
}

// A handler streams past its lease, and the caller sees each chunk as it is made.
func TestStreamingHandler(t *testing.T) {
	t.Parallel()
	read := make(chan struct{})
	s := setup(t, func(w http.ResponseWriter, r *http.Request) {
		if _, ok := w.(http.Flusher); !ok {
			t.Error("not a Flusher")
		}
		for range 5 {
			middleware.Meter(r.Context()).Add(earmark.Amounts{"tokens": 2})
			_, _ = io.WriteString(w, "chunk\n")
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			<-read
		}
	})
	lines := bufio.NewScanner(s.post(t, `{"max_tokens":600}`).Body)
	for chunk := range 5 {
		require.True(t, lines.Scan())
		if chunk < 2 {
			require.Eventually(t, func() bool { return s.earmark.Count("extend") > chunk }, 10*time.Second, 5*time.Millisecond, "the lease was not extended")
		}
		read <- struct{}{}
	}
	require.False(t, lines.Scan())
	require.Equal(t, earmark.Amounts{"tokens": 10}, s.only(t).Usage)
}

func TestCallerDisconnects(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	s := setup(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		middleware.Meter(r.Context()).Add(earmark.Amounts{"tokens": 7})
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	response := s.post(t, `{"max_tokens":600}`)
	require.NoError(t, response.Body.Close())
	<-done
	require.Eventually(t, func() bool { return s.only(t).Usage.Equal(earmark.Amounts{"tokens": 7}) }, 5*time.Second, 5*time.Millisecond)
}

// How a handler ends says what becomes of its reservation.
func TestHandlerEndings(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		verbs   []string
	}{
		"says nothing": {func(http.ResponseWriter, *http.Request) {}, []string{"reserve"}},
		"nothing sent": {func(_ http.ResponseWriter, r *http.Request) { middleware.NothingSent(r.Context()) }, []string{"reserve", "release"}},
		"zero": {func(_ http.ResponseWriter, r *http.Request) {
			middleware.Meter(r.Context()).Set(earmark.Amounts{"tokens": 0})
		}, []string{"reserve", "commit"}},
		"panics": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, []string{"reserve"}},
		"counts, panics": {func(_ http.ResponseWriter, r *http.Request) {
			middleware.Meter(r.Context()).Add(earmark.Amounts{"tokens": 3})
			panic("boom")
		}, []string{"reserve", "commit"}},
		"counts, answers": {func(w http.ResponseWriter, r *http.Request) {
			middleware.Meter(r.Context()).Add(earmark.Amounts{"tokens": 3})
			w.WriteHeader(http.StatusBadGateway)
		}, []string{"reserve", "commit"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t, test.handler)
			request := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"max_tokens":5}`))
			func() {
				defer func() {
					require.Equal(t, strings.Contains(name, "panics"), recover() != nil, "a panic passes through")
				}()
				s.guarded.ServeHTTP(httptest.NewRecorder(), request)
			}()
			require.Equal(t, test.verbs, s.earmark.Verbs())
			require.Len(t, s.unsettled, map[bool]int{true: 1}[len(test.verbs) == 1])
		})
	}
}

// A caller who leaves before anything is counted has not said that it cost nothing.
func TestZeroAfterTheCallerIsGoneSaysNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	zero := func(_ http.ResponseWriter, r *http.Request) {
		middleware.Meter(r.Context()).Set(earmark.Amounts{"tokens": 0})
		cancel()
	}
	s := setup(t, zero)
	request := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(`{"max_tokens":5}`))
	s.guarded.ServeHTTP(httptest.NewRecorder(), request)
	require.Equal(t, []string{"reserve"}, s.earmark.Verbs())
	require.ErrorIs(t, s.unsettled[0], client.ErrUsageUnknown)
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		body       string
		answer     http.HandlerFunc
		status     int
		code       string
		retryAfter string
	}{
		"denied":            {`{"max_tokens":1001}`, nil, 402, "budget_exceeded", ""},
		"denied for now":    {`{"max_tokens":600}`, nil, 402, "budget_exceeded", "300"},
		"ask: bad body":     {`{`, nil, 400, "invalid_request", ""},
		"ask: too large":    {strings.Repeat(" ", 2<<10), nil, 413, "payload_too_large", ""},
		"ask: own error":    {`{"max_tokens":-1}`, nil, 500, "internal", ""},
		"misasked":          {`{"max_tokens":-2}`, nil, 500, "internal", ""},
		"no budget":         {`{"max_tokens":1}`, fake.Problem(404, earmark.CodeNoBudget, "secret scope"), 500, "internal", ""},
		"away":              {`{"max_tokens":1}`, fake.Unavailable(), 503, "unavailable", "1"},
		"own key's rate":    {`{"max_tokens":1}`, fake.Problem(429, earmark.CodeRateLimited, "secret"), 503, "rate_limited", "1"},
		"away, wordless":    {`{"max_tokens":1}`, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 503, "unavailable", "1"},
		"unknown admission": {`{"max_tokens":1}`, fake.Problem(503, earmark.CodeAdmissionUnknown, "secret"), 503, "admission_unknown", "1"},
		"another request":   {`{"max_tokens":1}`, fake.Problem(422, earmark.CodeIdempotencyMismatch, "secret"), 422, "idempotency_mismatch", ""},
		"cut off before":    {`{"max_tokens":1}`, fake.Problem(410, earmark.CodeReservationExpired, "secret"), 409, "reservation_expired", ""},
		"broken":            {`{"max_tokens":1}`, fake.Problem(500, earmark.CodeInternal, "secret"), 500, "internal", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t, never(t))
			_, err := s.client.Reserve(t.Context(), "", earmark.ReservationRequest{Scopes: []string{"acme"}, Amounts: earmark.Amounts{"tokens": 500}})
			require.NoError(t, err)
			s.earmark.Replace(func(string, int) http.HandlerFunc { return test.answer })
			response := s.post(t, test.body)
			body := text(t, response)
			require.Equal(t, test.status, response.StatusCode, body)
			require.Equal(t, "application/problem+json", response.Header.Get("Content-Type"))
			if test.status == http.StatusPaymentRequired && test.retryAfter != "" {
				requireSecondsBefore(t, test.retryAfter, response.Header.Get("Retry-After"))
			} else {
				require.Equal(t, test.retryAfter, response.Header.Get("Retry-After"))
			}
			require.NotContains(t, body, "secret")
			require.NotContains(t, body, "127.0.0.1")
			var p struct {
				Type, Title, Detail, Code string
				Status                    int
				Retryable                 *bool
				RetryAt                   *time.Time `json:"retry_at"`
			}
			require.NoError(t, json.Unmarshal([]byte(body), &p))
			require.Equal(t, test.code, p.Code)
			require.Equal(t, "urn:earmark:problem:"+test.code, p.Type)
			require.Equal(t, test.status, p.Status)
			require.NotEmpty(t, p.Title)
			require.NotEmpty(t, p.Detail)
			require.Equal(t, test.status == 402, p.Retryable != nil)
			require.Equal(t, test.status == 402 && test.retryAfter != "", p.RetryAt != nil)
		})
	}
}

// requireSecondsBefore allows for the minute or less that a slow test took since then.
func requireSecondsBefore(t *testing.T, want, got string) {
	t.Helper()
	most, err := strconv.Atoi(want)
	require.NoError(t, err)
	seconds, err := strconv.Atoi(got)
	require.NoError(t, err)
	require.LessOrEqual(t, seconds, most)
	require.Greater(t, seconds, most-60)
}

// A denied caller learns that there is a limit and when to come back; whose budget
// it is and how much it holds only if the service says so.
func TestDenialShowsBudgetsOnlyByOption(t *testing.T) {
	t.Parallel()
	retryAt := "2030-01-01T00:00:00Z"
	denial := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusPaymentRequired)
		_, _ = io.WriteString(w, `{"status":402,"code":"budget_exceeded","field":"scopes","detail":"600 tokens do not fit into the budget on reseller/secret: 123 of 4567 are available",
			"violations":[{"budget_id":"0199-budget","scope":"reseller/secret","unit":"tokens","limit":4567,"available":123,"requested":600}],"retryable":true,"retry_at":"`+retryAt+`"}`)
	}
	details := []string{"0199-budget", "reseller/secret", "4567", "123"}
	for name, test := range map[string]struct {
		options []middleware.Option
		shown   bool
	}{
		"default":         {nil, false},
		"with violations": {[]middleware.Option{middleware.WithViolations()}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t, never(t), test.options...)
			s.earmark.Replace(func(string, int) http.HandlerFunc { return denial })
			response := s.post(t, `{"max_tokens":600}`)
			body := text(t, response)
			require.Equal(t, http.StatusPaymentRequired, response.StatusCode)
			require.Equal(t, "7", response.Header.Get("Retry-After"))
			for _, detail := range details {
				require.Equal(t, test.shown, strings.Contains(body, detail), "%s in %s", detail, body)
			}
			for _, always := range []string{`"code":"budget_exceeded"`, `"retryable":true`, `"retry_at":"` + retryAt + `"`} {
				require.Contains(t, body, always)
			}
		})
	}
}

func TestKeysRunOnce(t *testing.T) {
	t.Parallel()
	inside, goOn := make(chan struct{}), make(chan struct{})
	s := setup(t, func(_ http.ResponseWriter, r *http.Request) {
		close(inside)
		<-goOn
		middleware.Meter(r.Context()).Set(earmark.Amounts{"tokens": 1})
	})
	first := make(chan *httptest.ResponseRecorder)
	go func() {
		request := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"max_tokens":5}`))
		request.Header.Set("X-Turn", "k")
		recorder := httptest.NewRecorder()
		s.guarded.ServeHTTP(recorder, request)
		first <- recorder
	}()
	<-inside
	beside := s.post(t, `{"max_tokens":5}`, "X-Turn", "k")
	require.Equal(t, http.StatusConflict, beside.StatusCode)
	require.Contains(t, text(t, beside), `"key_in_use"`)
	close(goOn)
	require.Equal(t, http.StatusOK, (<-first).Code)
	after := s.post(t, `{"max_tokens":5}`, "X-Turn", "k")
	require.Equal(t, http.StatusConflict, after.StatusCode)
	require.Contains(t, text(t, after), `"already_settled"`)
}

func TestOwnRefusal(t *testing.T) {
	t.Parallel()
	seen := make(chan error, 1)
	s := setup(t, never(t), middleware.WithRefusal(func(w http.ResponseWriter, _ *http.Request, err error) {
		seen <- err
		w.WriteHeader(http.StatusTeapot)
	}))
	require.Equal(t, http.StatusTeapot, s.post(t, `{"max_tokens":1001}`).StatusCode)
	require.True(t, client.IsDenied(<-seen))
	s.earmark.Replace(func(string, int) http.HandlerFunc { return fake.Problem(404, earmark.CodeNoBudget, "d") })
	require.Equal(t, http.StatusTeapot, s.post(t, `{"max_tokens":1}`).StatusCode)
	require.Equal(t, earmark.CodeNoBudget, earmark.ErrorCode(<-seen))
}

// Failing open is for an Earmark that is away. A denial is a denial.
func TestFailOpen(t *testing.T) {
	t.Parallel()
	uncharged := make(chan earmark.Amounts, 2)
	s := setup(t, func(_ http.ResponseWriter, r *http.Request) {
		if middleware.Reservation(r.Context()) != nil {
			t.Error("there is a reservation")
		}
		middleware.Meter(r.Context()).Add(earmark.Amounts{"tokens": 3})
		if r.Header.Get("X-Turn") == "panic" {
			panic(http.ErrAbortHandler)
		}
	}, middleware.WithFailOpen(func(ctx context.Context, ask middleware.Ask, usage earmark.Amounts) {
		if ctx.Err() != nil || ask.Request.Scopes[0] != "acme" {
			t.Error("the hook cannot charge", ctx.Err(), ask)
		}
		uncharged <- usage
	}))
	require.Equal(t, http.StatusPaymentRequired, s.post(t, `{"max_tokens":1001}`).StatusCode)
	s.earmark.Replace(func(string, int) http.HandlerFunc { return fake.Problem(500, earmark.CodeInternal, "a bug") })
	require.Equal(t, http.StatusInternalServerError, s.post(t, `{"max_tokens":1}`).StatusCode)
	require.Empty(t, uncharged)

	s.earmark.Replace(func(string, int) http.HandlerFunc { return fake.Unavailable() })
	require.Equal(t, http.StatusOK, s.post(t, `{"max_tokens":1}`).StatusCode)
	require.Equal(t, earmark.Amounts{"tokens": 3}, <-uncharged)

	panicking, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url, strings.NewReader(`{"max_tokens":1}`))
	require.NoError(t, err)
	panicking.Header.Set("X-Turn", "panic")
	response, err := http.DefaultTransport.RoundTrip(panicking)
	if err == nil {
		_ = response.Body.Close()
	}
	require.ErrorIs(t, err, io.EOF, "the panic reached the server")
	require.Equal(t, earmark.Amounts{"tokens": 3}, <-uncharged)
}

// Nobody waits for an answer any more; that Earmark was not asked is no reason to run.
func TestFailOpenIsNotForACallerWhoIsGone(t *testing.T) {
	t.Parallel()
	s := setup(t, never(t), middleware.WithFailOpen(func(context.Context, middleware.Ask, earmark.Amounts) { t.Error("failed open") }))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	recorder := httptest.NewRecorder()
	s.guarded.ServeHTTP(recorder, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(`{"max_tokens":5}`)))
	require.Equal(t, http.StatusServiceUnavailable, recorder.Code)
}

// A handler runs without a guard too.
func TestUnguarded(t *testing.T) {
	t.Parallel()
	middleware.Meter(t.Context()).Add(earmark.Amounts{"tokens": 1})
	middleware.NothingSent(t.Context())
	require.Nil(t, middleware.Reservation(t.Context()))
}

func TestPeekBody(t *testing.T) {
	t.Parallel()
	body, err := middleware.PeekBody(&http.Request{}, 5)
	require.NoError(t, err)
	require.Empty(t, body)

	request := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("12345"))
	for range 2 {
		body, err = middleware.PeekBody(request, 5)
		require.NoError(t, err)
		require.Equal(t, "12345", string(body))
	}
	_, err = middleware.PeekBody(request, 4)
	require.Equal(t, earmark.CodePayloadTooLarge, earmark.ErrorCode(err))

	request = httptest.NewRequest(http.MethodPost, "/", strings.NewReader("12345"))
	request.Body = http.MaxBytesReader(httptest.NewRecorder(), request.Body, 3)
	_, err = middleware.PeekBody(request, 5)
	require.Equal(t, earmark.CodePayloadTooLarge, earmark.ErrorCode(err))

	request = httptest.NewRequest(http.MethodPost, "/", io.MultiReader(strings.NewReader("1"), &broken{}))
	_, err = middleware.PeekBody(request, 5)
	require.Equal(t, earmark.CodeInvalidRequest, earmark.ErrorCode(err))
}

type broken struct{}

func (*broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
