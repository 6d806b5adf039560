package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Metrics, health and profiles have an address of their own; the API then has no metrics, and never profiles.
func TestOpsServer(t *testing.T) {
	t.Parallel()
	down := errors.New("nothing listens")
	health := HealthHandler(map[string]func(context.Context) error{"postgres": func(context.Context) error { return down }}, "1.2.3", "abc")
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "earmark_up 1\n") })
	ops := OpsServer("", health, metrics, []string{"earmark.example"}, slog.Default())
	require.Greater(t, ops.WriteTimeout, 30*time.Second, "a profile takes 30 s unless the call says otherwise")
	get := func(handler http.Handler, target, host string) (int, string) {
		request := httptest.NewRequest(http.MethodGet, target, http.NoBody)
		request.Host = host
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		return recorder.Code, recorder.Body.String()
	}
	for target, want := range map[string]struct {
		status int
		says   string
	}{
		"/metrics":                          {200, "earmark_up 1"},
		"/healthz":                          {200, `"version":"1.2.3"`},
		"/readyz":                           {503, "nothing listens"},
		"/debug/pprof/":                     {200, "goroutine"},
		"/debug/pprof/goroutine?debug=1":    {200, "goroutine profile"},
		"/debug/pprof/profile?seconds=1":    {200, "\x1f\x8b"}, // gzip
		"/debug/pprof/cmdline":              {404, "Unknown profile"},
		"/v1/budgets":                       {404, ""},
		"/debug/pprof/trace?seconds=0.01":   {200, "go 1."},
		"/debug/pprof/heap?debug=1&seconds": {200, "heap profile"},
	} {
		for _, host := range []string{"127.0.0.1:9464", "serve:9464", "earmark.example"} {
			status, body := get(ops.Handler, target, host)
			require.Equal(t, want.status, status, "%s: %s", target, body)
			require.Contains(t, body, want.says, target)
			if target == "/debug/pprof/profile?seconds=1" {
				break
			}
		}
		status, _ := get(ops.Handler, target, "stranger.example")
		require.Equal(t, http.StatusForbidden, status, target)
	}

	for target, elsewhere := range map[string]int{"/metrics": 404, "/healthz": 200, "/debug/pprof/": 404, "/debug/pprof/heap": 404} {
		alone := 404
		if target == "/metrics" || target == "/healthz" {
			alone = 200
		}
		status, _ := get(setup(t, &fake{}).handler, target, "127.0.0.1")
		require.Equal(t, alone, status, target)
		status, _ = get(setup(t, &fake{}, func(o *Options) { o.MetricsElsewhere = true }).handler, target, "127.0.0.1")
		require.Equal(t, elsewhere, status, target)
	}
}
