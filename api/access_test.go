package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A name that somebody else may have pointed at this server is refused, whatever the call.
func TestHostsThatAreNotThisServer(t *testing.T) {
	t.Parallel()
	handler := New(Options{WithoutKeys: true, Hosts: []string{"earmark.internal.example"}})
	for host, expected := range map[string]int{
		"127.0.0.1:8080": http.StatusOK, "[::1]:8080": http.StatusOK, "localhost": http.StatusOK, "localhost.:8080": http.StatusOK, "earmark:8080": http.StatusOK,
		"app.localhost:8080": http.StatusOK, "10.1.2.3": http.StatusOK, "EARMARK.internal.example:8080": http.StatusOK,
		"other.example": http.StatusForbidden, "other.example:8080": http.StatusForbidden, "127.0.0.1.other.example": http.StatusForbidden,
		"internal.example": http.StatusForbidden, "localhost.other.example": http.StatusForbidden,
	} {
		request := httptest.NewRequest(http.MethodGet, "/healthz", nil)
		request.Host = host
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		require.Equal(t, expected, answer.Code, host)
		if expected == http.StatusForbidden {
			require.Equal(t, "application/problem+json", answer.Header().Get("Content-Type"))
			require.Contains(t, answer.Body.String(), `"code":"forbidden"`)
			require.Contains(t, answer.Body.String(), "--allowed-hosts")
		}
	}
}

// A change that another site's page makes a browser send is refused before any handler.
func TestPagesOfOtherSites(t *testing.T) {
	t.Parallel()
	handler := New(Options{WithoutKeys: true})
	const release = "/v1/reservations/rsv_x/release"
	for _, test := range []struct {
		name, method, path string
		header             http.Header
		refused            bool
	}{
		{"a form", http.MethodPost, release, http.Header{"Sec-Fetch-Site": {"cross-site"}}, true},
		{"a form, before Sec-Fetch-Site", http.MethodPost, release, http.Header{"Origin": {"https://other.example"}}, true},
		{"a sandboxed page", http.MethodPost, release, http.Header{"Origin": {"null"}}, true},
		{"another port", http.MethodDelete, "/v1/budgets/bud_x", http.Header{"Origin": {"http://127.0.0.1:3000"}, "Sec-Fetch-Site": {"same-site"}}, true},
		{"a patch", http.MethodPatch, "/v1/budgets/bud_x", http.Header{"Sec-Fetch-Site": {"cross-site"}}, true},
		{"a page that reads", http.MethodGet, "/healthz", http.Header{"Sec-Fetch-Site": {"cross-site"}}, false},
		{"the own page", http.MethodPost, release, http.Header{"Origin": {"http://127.0.0.1:8080"}, "Sec-Fetch-Site": {"same-origin"}}, false},
		{"no browser", http.MethodPost, release, nil, false},
	} {
		request := httptest.NewRequest(test.method, test.path, strings.NewReader(""))
		request.Host, request.Header = "127.0.0.1:8080", test.header
		if request.Header == nil {
			request.Header = http.Header{}
		}
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		require.Equal(t, test.refused, answer.Code == http.StatusForbidden, "%s: %d %s", test.name, answer.Code, answer.Body)
	}
}
