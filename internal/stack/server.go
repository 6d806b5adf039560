//go:build unix

package stack

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
)

// probeTimeout bounds one question to a server that may be about to start.
const probeTimeout = 5 * time.Second

// Log messages that mark a process' progress.
const (
	listensWords = "The HTTP API listens."
	worksWords   = "Started Worker"
)

// Server is an `earmark serve`.
type Server struct {
	*Process
	// URL is where it answers, the same after a restart.
	URL string

	withoutWorker bool
}

func newServer(s *Stack, args []string) *Server {
	s.t.Helper()
	server := &Server{}
	for _, arg := range args {
		server.withoutWorker = server.withoutWorker || arg == "--without-worker"
	}
	err := onFreePort(func(port int) error {
		server.URL = "http://" + loopback(port)
		server.Process = s.process("serve", append(args, "--addr", loopback(port)))
		server.Process.Start()
		return server.awaitListening()
	})
	require.NoError(s.t, err)
	return server
}

// Start starts the server again, on the same port, and waits until it listens.
func (s *Server) Start() {
	s.t.Helper()
	s.Process.Start()
	require.NoError(s.t, s.awaitListening())
}

// Restart kills the server if it runs, and starts it again as it was.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	s.Start()
}

type errEnded string

func (e errEnded) Error() string { return "the server has ended:\n" + string(e) }

// awaitListening waits until the server listens; the error is what a server that
// ended instead has said.
func (s *Server) awaitListening() error {
	s.t.Helper()
	deadline := time.Now().Add(readyLimit)
	for !strings.Contains(s.Log(), listensWords) {
		if !s.Alive() {
			return errEnded(s.Log())
		}
		require.True(s.t, time.Now().Before(deadline), "the server does not listen; its log:\n%s", s.Log())
		time.Sleep(pollInterval) //nolint:forbidigo // polls
	}
	return nil
}

// Ready waits until /readyz is content and the worker, if there is one, works. A server without a
// worker is ready without one elsewhere, too: a test starts it later.
func (s *Server) Ready() *Server {
	s.t.Helper()
	Eventually(s.t, readyLimit, "/readyz", s.IsReady)
	if !s.withoutWorker {
		s.AwaitLog(worksWords)
	}
	return s
}

// IsReady reports whether /readyz is content, but for the worker of a server that has none.
func (s *Server) IsReady() bool {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/readyz", http.NoBody)
	require.NoError(s.t, err)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer func() { _ = response.Body.Close() }()
	if !s.withoutWorker || response.StatusCode == http.StatusOK {
		return response.StatusCode == http.StatusOK
	}
	var answer struct {
		Checks map[string]struct{ Status string }
	}
	return json.NewDecoder(response.Body).Decode(&answer) == nil &&
		answer.Checks["postgres"].Status == "up" && answer.Checks["temporal"].Status == "up"
}
