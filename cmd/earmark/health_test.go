package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// The base address is asked for /readyz, whatever else answers there; what is away is named.
func TestHealth(t *testing.T) {
	t.Parallel()
	answers := func(status int, body string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/readyz" { // the status page
				return
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}))
		t.Cleanup(server.Close)
		return server.URL
	}
	const up = `{"status":"ready","checks":{"postgres":{"status":"up","detail":""},"temporal":{"status":"up","detail":""}}}`
	const down = `{"code":"unavailable","checks":{"postgres":{"status":"up","detail":""},"temporal":{"status":"down","detail":"nothing listens"}}}`

	got := earmarkPipe(t, answers(http.StatusOK, up), "health")
	require.Equal(t, 0, got.code, got.stderr)
	require.Equal(t, "ready: postgres, temporal answer\n", got.stdout)
	const large = `{"status":"ready","checks":{"postgres":{"status":"up","detail":""},"temporal":{"status":"up","detail":"its database has 628 MB"}}}`
	got = earmarkPipe(t, answers(http.StatusOK, large), "health")
	require.Equal(t, 0, got.code, got.stderr)
	require.Equal(t, "ready: postgres, temporal answer\n  temporal: its database has 628 MB\n", got.stdout)
	got = earmarkPipe(t, answers(http.StatusServiceUnavailable, down), "health")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "is not ready\n  temporal: nothing listens")
	got = earmarkPipe(t, answers(http.StatusOK, "<html>"), "health")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "is it the address of one?")
	got = earmarkPipe(t, "http://127.0.0.1:1", "health")
	require.Equal(t, 1, got.code)
	require.Equal(t, "earmark: no server answers at http://127.0.0.1:1 (connection refused)\n", got.stderr)
	got = earmarkPipe(t, "http://127.0.0.1:1", "list", "--json")
	require.Equal(t, exitUnknown, got.code)
	require.Contains(t, got.stdout, `"code": "unavailable"`)
}
