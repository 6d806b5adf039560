//go:build unix

package e2e_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/stack"
)

// send is a call of a browser with a cookie, or without one; it follows no redirection.
func send(t *testing.T, method, address string, cookie *http.Cookie, form url.Values) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if cookie != nil {
		request.AddCookie(cookie)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return response
}

// A browser that signed in on one server is signed in on every server with the same database, also after a restart. A
// sign-out and a revocation take effect on all of them.
func TestSignInOnEveryServer(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{Keys: true})
	one, two := s.Serve().Ready(), s.Serve("--without-worker").Ready()
	key := strings.TrimSpace(s.MustRun("key", "create", "--role", "read", "--reason", "test"))
	signIn := func() *http.Cookie {
		in := send(t, http.MethodPost, one.URL+"/sign-in", nil, url.Values{"key": {key}})
		require.Equal(t, http.StatusSeeOther, in.StatusCode)
		return &http.Cookie{Name: in.Cookies()[0].Name, Value: in.Cookies()[0].Value}
	}
	status := func(server *stack.Server, cookie *http.Cookie) int {
		return send(t, http.MethodGet, server.URL+"/v1/budgets", cookie, nil).StatusCode
	}
	ends := func(what string, cookie *http.Cookie) {
		begun := time.Now()
		for _, server := range []*stack.Server{one, two} {
			stack.Eventually(t, moment, what, func() bool { return status(server, cookie) == http.StatusUnauthorized })
		}
		require.Less(t, time.Since(begun), 20*time.Second, what) // 5 s, and what a busy machine adds
	}

	cookie, other := signIn(), signIn()
	one.Restart()
	one.Ready()
	for _, server := range []*stack.Server{one, two} {
		require.Equal(t, http.StatusOK, status(server, cookie))
		require.Equal(t, http.StatusOK, status(server, other))
	}
	require.Equal(t, http.StatusSeeOther, send(t, http.MethodPost, two.URL+"/sign-out", cookie, nil).StatusCode)
	ends("the sign-out", cookie)
	require.Equal(t, http.StatusOK, status(one, other), "another browser stays signed in")
	s.MustRun("key", "revoke", strings.Split(key, "_")[1], "--reason", "test")
	ends("the revocation", other)
	for _, server := range []*stack.Server{one, two} {
		require.NotContains(t, server.Log(), cookie.Value)
	}
}
