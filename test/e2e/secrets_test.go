//go:build unix

package e2e_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/certificate"
	"github.com/earmark-dev/earmark/internal/certificate/certificatetest"
	"github.com/earmark-dev/earmark/internal/stack"
)

// Neither Postgres nor Temporal can be reached, and everything fails that can: no log, answer, metric or command line holds a
// password or a key.
func TestErrorsHoldNoSecrets(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{Unmigrated: true})
	authority, pair := certificatetest.New(t), certificatetest.NewPair(t)
	authority.Valid(pair)
	keys := payloadKeys(t, s)
	s.DatabaseURL = "postgres://earmark:planted-password@127.0.0.1:1/earmark"
	s.Setenv("TEMPORAL_API_KEY", "planted-temporal-key") // which switches TLS on, that the server does not speak
	ops := "127.0.0.1:" + strconv.Itoa(stack.FreePorts(t, 1)[0])
	server := s.Serve("--tls-cert", pair.Cert, "--tls-key", pair.Key, "--payload-keys", keys, "--log-level", "debug", "--ops-addr", ops)

	roots, err := certificate.Roots(authority.File)
	require.NoError(t, err)
	secure := &http.Client{Timeout: callLimit, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	t.Cleanup(secure.CloseIdleConnections)
	var said strings.Builder
	get := func(url string) string {
		response, err := secure.Get(url)
		require.NoError(t, err)
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		said.Write(body)
		return string(body)
	}
	base := strings.Replace(server.URL, "http:", "https:", 1)
	require.Contains(t, get(base+"/readyz"), "postgres: ")
	get(base + "/v1/budgets")
	get(base + "/v1/reservations?stuck=true")
	for _, path := range []string{"/readyz", "/metrics", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2"} {
		get("http://" + ops + path)
	}
	for _, command := range []string{"audit", "migrate up", "migrate status", "prune --dry-run", "serve --tls-cert " + keys + " --tls-key " + pair.Key, "serve --payload-keys " + pair.Key} {
		result := s.Run(strings.Fields(command)...)
		require.NotZero(t, result.Code, command)
		said.WriteString(result.Stdout + result.Stderr)
	}
	commandLine, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", server.PID()))
	if err == nil { // where there is none, flags hold no secret either
		said.Write(commandLine)
	}
	server.Kill()
	said.WriteString(server.Log())

	text := said.String()
	require.Contains(t, text, "127.0.0.1:1", "the sign that the errors were made")
	secrets := []string{"planted-password", "planted-temporal-key"}
	for _, file := range []string{keys, pair.Key} {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, word := range strings.Fields(string(content)) {
			if len(word) > 30 {
				secrets = append(secrets, word)
			}
		}
	}
	require.Greater(t, len(secrets), 3)
	for _, secret := range secrets {
		require.NotContains(t, text, secret, "a secret is shown")
	}
}
