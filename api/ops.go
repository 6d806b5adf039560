package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/earmark-dev/earmark/internal/access"
)

// profileTimeout bounds an answer of the operators' address: a profile or a trace takes as
// many seconds as the call requests, 30 by default.
const profileTimeout = 2 * time.Minute

// OpsServer returns a server for the operators' address: /metrics, /healthz, /readyz and
// /debug/pprof. health answers /healthz and /readyz; hosts are as in Options.
func OpsServer(addr string, health, metrics http.Handler, hosts []string, logger *slog.Logger) *http.Server {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.Handle("GET /healthz", health)
	mux.Handle("GET /readyz", health)
	// Without cmdline: a command line may hold a password.
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)

	admitted := access.New(hosts)
	server := Server(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := admitted.Check(r); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	}), logger)
	server.WriteTimeout = profileTimeout
	return server
}

// HealthHandler serves /healthz and /readyz for a process without the API, such as a
// worker. /readyz is 200 if every check passes, otherwise 503, with each check by name. A
// check takes at most 2 seconds.
func HealthHandler(checks map[string]func(context.Context) error, version, commit string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeHealth(w, http.StatusOK, map[string]string{"status": "ok", "version": version, "commit": commit})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		answer, status := readiness{Status: "ready", Checks: runChecks(r.Context(), checks)}, http.StatusOK
		if len(awayWords(answer.Checks)) > 0 {
			answer.Status, status = "not ready", http.StatusServiceUnavailable
		}
		writeHealth(w, status, answer)
	})
	return mux
}

func writeHealth(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}
