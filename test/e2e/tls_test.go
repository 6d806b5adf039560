//go:build unix

package e2e_test

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/certificate"
	"github.com/earmark-dev/earmark/internal/certificate/certificatetest"
	"github.com/earmark-dev/earmark/internal/stack"
)

// The command line and the Go client reach a server whose certificate a private authority issued,
// and go on reaching it when the certificate is replaced.
func TestTLS(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	authority, pair := certificatetest.New(t), certificatetest.NewPair(t)
	authority.Valid(pair)
	server := s.Serve("--tls-cert", pair.Cert, "--tls-key", pair.Key, "--log-level", "debug")
	secure := strings.Replace(server.URL, "http:", "https:", 1)

	s.Setenv("EARMARK_URL", secure)
	stranger := s.Run("budget", "list")
	require.Equal(t, 5, stranger.Code)
	require.Contains(t, stranger.Stderr, "is not trusted (x509: certificate signed by unknown authority); nothing was sent")
	require.Contains(t, stranger.Stderr, "EARMARK_CA_FILE")
	require.Contains(t, s.Run("health").Stderr, "unknown authority")
	plain := s.Run("budget", "list", "--url", server.URL)
	require.Contains(t, plain.Stderr, "400")

	s.Setenv("EARMARK_CA_FILE", authority.File)
	stack.Eventually(t, moment, "a ready server", func() bool { return s.Run("health").Code == 0 })
	require.Contains(t, s.MustRun("budget", "create", "acme", "tokens", "1000"), "Limit")
	id := strings.TrimSpace(s.MustRun("reserve", "acme", "--amount", "tokens=10", "--quiet"))
	s.MustRun("drain", "--scope", "acme", "--reason", "test", "--yes")
	require.Contains(t, s.MustRun("show", id), "State        expired")

	roots, err := certificate.Roots(authority.File)
	require.NoError(t, err)
	api, err := client.New(secure, client.WithRootCAs(roots))
	require.NoError(t, err)
	_, err = api.Reservation(t.Context(), id)
	require.NoError(t, err)

	authority.Valid(pair)
	stack.Eventually(t, moment, "the new certificate", func() bool {
		s.MustRun("health")
		return strings.Contains(server.Log(), "uses the new TLS certificate")
	})
	require.NoError(t, os.WriteFile(pair.Cert, nil, 0o600))
	stack.Eventually(t, moment, "the fault", func() bool {
		s.MustRun("health")
		return strings.Contains(server.Log(), `cert.pem holds no PEM`)
	})
	_, err = http.Get(secure + "/healthz")
	require.ErrorContains(t, err, "unknown authority")
}

// A server does not start with a certificate that no caller would accept.
func TestTLSFilesAreCheckedAtStart(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{Unmigrated: true})
	authority, pair := certificatetest.New(t), certificatetest.NewPair(t)
	authority.Issue(pair, time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	for says, flags := range map[string][]string{
		"--tls-cert, --tls-key: the certificate in " + pair.Cert + " expired at": {"--tls-cert", pair.Cert, "--tls-key", pair.Key},
		"--tls-cert, --tls-key: stat /nowhere: no such file or directory":        {"--tls-cert", "/nowhere", "--tls-key", pair.Key},
		`--tls-key is ""; give both, or neither`:                                 {"--tls-cert", pair.Cert},
	} {
		result := s.Run(append([]string{"serve"}, flags...)...)
		require.Equal(t, 2, result.Code, result.Stderr)
		require.Contains(t, result.Stderr, says)
	}
}
