package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	f := &fake{err: errors.New("away"), coordinatorErr: errors.New("away")}
	x := setup(t, f).do("GET", "/healthz", "").status(http.StatusOK)
	require.JSONEq(t, `{"status":"ok","version":"v1.2.3","commit":"0123456789ab"}`, string(x.body))
	require.Empty(t, f.calls)
}

func TestReady(t *testing.T) {
	t.Parallel()
	away := func(context.Context) error { return errors.New("connection refused") }
	x := setup(t, &fake{}).do("GET", "/readyz", "").status(http.StatusOK)
	require.JSONEq(t, `{"status":"ready","checks":{"postgres":{"status":"up","detail":""},"temporal":{"status":"up","detail":""},"worker":{"status":"up","detail":""}}}`, string(x.body))

	x = setup(t, &fake{postgresReady: away}).do("GET", "/readyz", "")
	p := x.problem(http.StatusServiceUnavailable, earmark.CodeUnavailable)
	require.Equal(t, "postgres: connection refused", p.Detail)
	require.Equal(t, "1", x.resp.Header.Get("Retry-After"))
	require.Equal(t, map[string]check{"postgres": {"down", "connection refused"}, "temporal": {"up", ""}, "worker": {"up", ""}}, p.Checks)

	p = setup(t, &fake{postgresReady: away, temporalReady: away, workersReady: away}).do("GET", "/readyz", "").problem(http.StatusServiceUnavailable, earmark.CodeUnavailable)
	require.Equal(t, "postgres: connection refused; temporal: connection refused", p.Detail)
	require.Equal(t, check{"unknown", "not known until Temporal is ready"}, p.Checks["worker"])

	nobody := func(context.Context) error { return errors.New("no worker polls") }
	p = setup(t, &fake{workersReady: nobody}).do("GET", "/readyz", "").problem(http.StatusServiceUnavailable, earmark.CodeUnavailable)
	require.Equal(t, "worker: no worker polls", p.Detail)
}

// A check that hangs, even one that does not heed its context, is down in time.
func TestReadyIsBounded(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	hang := func(context.Context) error { <-release; return nil }
	heeds := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	started := time.Now()
	p := setup(t, &fake{postgresReady: hang, temporalReady: heeds}).do("GET", "/readyz", "").problem(http.StatusServiceUnavailable, earmark.CodeUnavailable)
	require.Less(t, time.Since(started), 2*readyTimeout)
	require.Contains(t, p.Checks["postgres"].Detail, "did not answer within 2s")
	require.Contains(t, p.Checks["temporal"].Detail, "did not answer within 2s")
}

func TestDocumentIsServed(t *testing.T) {
	t.Parallel()
	request := httptest.NewRequest(http.MethodGet, localURL+"/openapi.yaml", nil)
	recorder := httptest.NewRecorder()
	setup(t, &fake{}).handler.ServeHTTP(recorder, request)
	require.Equal(t, http.StatusOK, recorder.Code)
	require.Equal(t, "application/yaml", recorder.Header().Get("Content-Type"))
	require.True(t, bytes.Equal(openapiYAML, recorder.Body.Bytes()))
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	f := &fake{preflight: fits(), result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: reservationIn(earmark.StateHeld)}}
	b := setup(t, f)
	b.do("POST", "/v1/reservations", reserveBody)
	b.do("POST", "/v1/reservations", reserveBody)
	f.preflight = preflight(earmark.Result{Outcome: earmark.OutcomeDenied, Decision: testDecision(true)})
	b.do("POST", "/v1/reservations", reserveBody)
	f.err = earmark.Errorf(earmark.CodeUnavailable, "away")
	b.do("POST", "/v1/reservations", reserveBody)
	b.do("POST", "/v1/reservations", `{}`)
	b.do("POST", settlePath("commit"), `{"usage":{"tokens":1}}`)
	for range 3 {
		b.do("GET", "/v1/made/up/"+earmark.NewBudgetID(), "")
		b.do("BREW", "/v1/reservations", "")
	}
	f.accepted = true
	b.do("POST", settlePath("release"), "")

	m := func(name string) int {
		n, err := testutil.GatherAndCount(b.registry, name)
		require.NoError(t, err)
		return n
	}
	require.Equal(t, 5, m("earmark_admissions_total"), "four that are there from the beginning")
	require.Equal(t, 7, m("earmark_settlements_total"), "six that are there from the beginning")
	require.Equal(t, 7, m("earmark_http_requests_total"))

	body := string(b.do("GET", "/metrics", "").status(http.StatusOK).body)
	for _, line := range []string{
		`earmark_admissions_total{outcome="applied"} 2`,
		`earmark_admissions_total{outcome="denied"} 1`,
		`earmark_admissions_total{outcome="unavailable"} 1`,
		`earmark_admissions_total{outcome="admission_unknown"} 0`,
		`earmark_admission_duration_seconds_count 4`,
		`earmark_settlement_duration_seconds_count{verb="commit"} 1`,
		`earmark_settlement_duration_seconds_count{verb="extend"} 0`,
		`earmark_settlements_total{outcome="applied",verb="commit"} 1`,
		`earmark_settlements_total{outcome="accepted",verb="release"} 1`,
		`earmark_http_requests_total{method="POST",route="/v1/reservations",status="2xx"} 2`,
		`earmark_http_requests_total{method="POST",route="/v1/reservations",status="4xx"} 2`,
		`earmark_http_requests_total{method="POST",route="/v1/reservations",status="5xx"} 1`,
		`earmark_http_requests_total{method="GET",route="none",status="4xx"} 3`,
		`earmark_http_requests_total{method="other",route="none",status="4xx"} 3`,
		`earmark_http_request_duration_seconds_count{method="POST",route="/v1/reservations"} 5`,
	} {
		require.Contains(t, body, line+"\n")
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	t.Parallel()
	b := setup(t, &fake{})
	for _, path := range []string{"/v1", "/v1/", "/v2/budgets", "/v1/reservations/a/b/c", "/v1//budgets"} {
		b.do("GET", path, "").problem(http.StatusNotFound, earmark.CodeNotFound)
	}
	// The router of the document takes these for calls of it; ours does not.
	for _, path := range []string{"/v1/budgets/", "/V1/budgets"} {
		recorder := httptest.NewRecorder()
		b.handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, localURL+path, nil))
		require.Equal(t, http.StatusNotFound, recorder.Code)
	}
	x := b.do("PUT", "/v1/budgets", "{}")
	p := x.problem(http.StatusMethodNotAllowed, earmark.CodeMethodNotAllowed)
	require.Contains(t, p.Detail, "PUT")
	require.Equal(t, "POST, GET, HEAD", x.resp.Header.Get("Allow"))
	require.Equal(t, "POST", b.do("GET", settlePath("commit"), "").resp.Header.Get("Allow"))
	b.do("DELETE", "/healthz", "").problem(http.StatusMethodNotAllowed, earmark.CodeMethodNotAllowed)
}

func TestHead(t *testing.T) {
	t.Parallel()
	f := &fake{reservation: reservationIn(earmark.StateHeld)}
	server := httptest.NewServer(setup(t, f).handler)
	t.Cleanup(server.Close)
	resp, err := http.Head(server.URL + "/v1/reservations/" + testReservationID)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Positive(t, resp.ContentLength)
}

func TestPanicIsInternal(t *testing.T) {
	t.Parallel()
	b := setup(t, &fake{panics: "secret-host"})
	x := b.do("GET", "/v1/reservations/"+testReservationID, "")
	x.problem(http.StatusInternalServerError, earmark.CodeInternal)
	require.NotContains(t, string(x.body), "secret-host")
	require.Contains(t, b.log.String(), "secret-host")
	require.Contains(t, b.log.String(), "service_test.go", "the stack is logged")

	aborted := setup(t, &fake{panics: http.ErrAbortHandler})
	require.PanicsWithValue(t, http.ErrAbortHandler, func() {
		aborted.handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, localURL+"/v1/reservations/"+testReservationID, nil))
	})
}

func TestLogLevels(t *testing.T) {
	t.Parallel()
	b := setup(t, &fake{reservation: reservationIn(earmark.StateHeld)})
	b.do("GET", "/v1/reservations/"+testReservationID, "")
	var line map[string]any
	require.NoError(t, json.Unmarshal(b.log.Bytes(), &line))
	require.Equal(t, "DEBUG", line["level"])
	require.Equal(t, "/v1/reservations/:id", line["route"])
	require.Equal(t, "GET", line["method"])
	require.EqualValues(t, 200, line["status"])
	require.Contains(t, line, "duration_ms")
}

func TestServerHasTimeLimits(t *testing.T) {
	t.Parallel()
	server := Server("127.0.0.1:0", http.NotFoundHandler(), slog.Default())
	require.Positive(t, server.ReadHeaderTimeout)
	require.Positive(t, server.ReadTimeout)
	require.Positive(t, server.IdleTimeout)
	require.Greater(t, server.WriteTimeout, handlerTimeout, "the answer has to go out after the work has ended")
}

// A process that is about to stop says so to balancers alone: it answers everything else, and
// asks its callers to connect anew.
func TestReadySaysThatTheProcessStops(t *testing.T) {
	t.Parallel()
	f := &fake{reservation: reservationIn(earmark.StateHeld)}
	stopping := make(chan struct{})
	b := setup(t, f, func(o *Options) { o.Stopping = stopping })
	x := b.do("GET", "/readyz", "").status(http.StatusOK)
	require.Empty(t, x.resp.Header.Get("Connection"))

	close(stopping)
	x = b.do("GET", "/readyz", "")
	p := x.problem(http.StatusServiceUnavailable, earmark.CodeUnavailable)
	require.Equal(t, "process: about to stop; send calls to another one", p.Detail)
	require.Equal(t, "1", x.resp.Header.Get("Retry-After"))
	x = b.do("GET", "/v1/reservations/"+testReservationID, "").status(http.StatusOK)
	require.Equal(t, "close", x.resp.Header.Get("Connection"))
	b.do("GET", "/healthz", "").status(http.StatusOK)
}

// However many ask, Postgres and Temporal are asked once.
func TestReadyIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		slow := func(context.Context) error {
			asked.Add(1)
			time.Sleep(readyTimeout / 2) //nolint:forbidigo // fake time
			return nil
		}
		flood := setup(t, &fake{postgresReady: slow}).flood(100, "GET", "/readyz", "")
		flood.done.Wait()
		require.Equal(t, map[int]int{http.StatusOK: 100}, flood.answers)
		require.EqualValues(t, 1, asked.Load())
	})
}

// What is known about a Temporal that is up, such as the size of its database, is no fault.
func TestReadyWithDetail(t *testing.T) {
	t.Parallel()
	detail := func(o *Options) { o.TemporalDetail = func() string { return "its database has 3 MB" } }
	x := setup(t, &fake{}, detail).do("GET", "/readyz", "").status(http.StatusOK)
	require.JSONEq(t, `{"status":"ready","checks":{"postgres":{"status":"up","detail":""},"temporal":{"status":"up","detail":"its database has 3 MB"},"worker":{"status":"up","detail":""}}}`, string(x.body))

	away := func(context.Context) error { return errors.New("connection refused") }
	p := setup(t, &fake{temporalReady: away}, detail).do("GET", "/readyz", "").problem(http.StatusServiceUnavailable, earmark.CodeUnavailable)
	require.Equal(t, check{"down", "connection refused"}, p.Checks["temporal"])
}
