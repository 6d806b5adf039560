//go:build unix

package guarded_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/stack"
)

// guardedCall is a call of a model, with all its attempts.
type guardedCall struct {
	Number   int    `json:"number"`
	URL      string `json:"url"`
	Body     string `json:"body"`
	Attempts int    `json:"attempts"`
	FailOpen bool   `json:"fail_open"`
	Leave    int    `json:"leave"`
	Cancel   bool   `json:"cancel"`
}

// guardedClient makes calls in one language, several at the same time.
type guardedClient interface {
	name() string
	make(call guardedCall)
	close() // waits for the charges that are late
}

// clients returns one client for each language: Go, TypeScript and, where there is a Python, Python.
func clients(t *testing.T, earmarks *client.Client, url string) []guardedClient {
	t.Helper()
	var inGo goClient
	for i := range inGo {
		transport, err := client.NewTransport(earmarks, client.TransportOptions{
			Scopes: []string{"guarded/calls"}, OnExpiry: earmark.OnExpiryCommit, TTL: 5 * time.Second, FailOpen: i == 1,
		})
		require.NoError(t, err)
		inGo[i] = transport
	}
	all := []guardedClient{&inGo, newScriptClient(t, "typescript.sh", "calls.mjs", url)}
	if _, err := exec.LookPath("python3"); err != nil {
		t.Log("the Python client is NOT tested: there is no python3")
		return all
	}
	return append(all, newScriptClient(t, "python.sh", "calls.py", url))
}

// goClient has two transports; the second one fails open.
type goClient [2]*client.Transport

func (*goClient) name() string { return "Go" }

func (c *goClient) close() {
	for _, transport := range c {
		transport.Close(context.Background())
	}
}

func (c *goClient) make(call guardedCall) {
	through := &http.Client{Transport: c[0]}
	if call.FailOpen {
		through.Transport = c[1]
	}
	for attempt := range call.Attempts {
		c.attempt(through, call, attempt)
	}
}

func (*goClient) attempt(through *http.Client, call guardedCall, attempt int) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, call.URL, strings.NewReader(call.Body))
	if err != nil {
		return
	}
	r.Header.Set("X-Stainless-Retry-Count", strconv.Itoa(attempt))
	response, err := through.Do(r)
	if err != nil {
		return
	}
	defer func() { _ = response.Body.Close() }()
	if call.Leave < 0 {
		_, _ = io.Copy(io.Discard, response.Body)
		return
	}
	_, _ = io.CopyN(io.Discard, response.Body, int64(call.Leave))
	if call.Cancel {
		cancel()
	}
}

// scriptClient is a client in another language, in a process that reads calls and says which ones have ended.
type scriptClient struct {
	t      *testing.T
	script string
	cmd    *exec.Cmd
	input  io.WriteCloser

	mu      sync.Mutex
	pending map[int]chan struct{}
	ended   chan struct{}
}

func newScriptClient(t *testing.T, tool, script, url string) *scriptClient {
	t.Helper()
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "tools", tool), filepath.Join(root, "test", "guarded", "callers", script))
	cmd.Env = append(os.Environ(), "EARMARK_URL="+url)
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	require.NoError(t, err)
	output, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	c := &scriptClient{t: t, script: script, cmd: cmd, input: input, pending: map[int]chan struct{}{}, ended: make(chan struct{})}
	go c.read(output)
	return c
}

func (c *scriptClient) name() string { return c.script }

func (c *scriptClient) read(output io.Reader) {
	defer close(c.ended)
	for lines := bufio.NewScanner(output); lines.Scan(); {
		number, err := strconv.Atoi(lines.Text())
		if err != nil {
			continue // what a package manager says
		}
		c.mu.Lock()
		if done := c.pending[number]; done != nil {
			close(done)
			delete(c.pending, number)
		}
		c.mu.Unlock()
	}
}

func (c *scriptClient) make(call guardedCall) {
	line, err := json.Marshal(call)
	if err != nil {
		panic(err)
	}
	done := make(chan struct{})
	c.mu.Lock()
	c.pending[call.Number] = done
	_, err = fmt.Fprintf(c.input, "%s\n", line)
	c.mu.Unlock()
	if err != nil {
		return // close says how the process ended
	}
	select {
	case <-done:
	case <-c.ended:
	}
}

func (c *scriptClient) close() {
	c.t.Helper()
	_ = c.input.Close()
	<-c.ended
	require.NoError(c.t, c.cmd.Wait(), c.script)
	require.Empty(c.t, c.pending, "%s left calls", c.script)
}
