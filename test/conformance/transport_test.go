//go:build unix

package conformance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/test/conformance"
)

func TestGoTransport(t *testing.T) {
	t.Parallel()
	base := serve(t, "")
	cases, err := conformance.Cases()
	require.NoError(t, err)
	for _, c := range cases {
		if c.Transport == nil {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			begun := begin(t, base, c.Name)
			r := newTransportRunner(t, begun)
			results := []result{}
			for _, step := range begun.Steps {
				results = append(results, r.call(t, step.Call))
			}
			require.Empty(t, finish(t, base, begun, results...))
		})
	}
}

type transportRunner struct {
	http http.Client
	url  string

	mu        sync.Mutex
	unsettled *client.UnsettledError
}

func newTransportRunner(t *testing.T, begun session) *transportRunner {
	t.Helper()
	r := &transportRunner{url: begun.ProviderURL}
	c, err := client.New(begun.URL, client.WithMaxAttempts(max(begun.Client.MaxAttempts, 1)), client.WithLogger(slog.New(slog.DiscardHandler)),
		client.WithUnsettled(func(_ context.Context, unsettled *client.UnsettledError) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.unsettled = unsettled
		}))
	require.NoError(t, err)
	options := begun.Transport
	transport, err := client.NewTransport(c, client.TransportOptions{Scopes: options.Scopes, OnExpiry: earmark.OnExpiry(options.OnExpiry),
		Units: options.Units, MaxOutputTokens: options.MaxOutputTokens, RequireBudget: options.RequireBudget,
		PassUnknown: options.PassUnknown, FailOpen: options.FailOpen})
	require.NoError(t, err)
	r.http.Transport = transport
	return r
}

func (r *transportRunner) call(t *testing.T, call *conformance.ProviderCall) result {
	t.Helper()
	r.mu.Lock()
	r.unsettled = nil
	r.mu.Unlock()
	got := r.send(t, call)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unsettled != nil {
		got["unsettled"] = unsettledResult(r.unsettled)
	}
	return got
}

func eventsIn(text string) int {
	return strings.Count(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text), "\n\n")
}

func (r *transportRunner) send(t *testing.T, call *conformance.ProviderCall) result {
	t.Helper()
	ctx, leave := context.WithTimeout(t.Context(), time.Minute)
	defer leave()
	method := call.Method
	if method == "" {
		method = http.MethodPost
	}
	request, err := http.NewRequestWithContext(ctx, method, r.url+call.Path, strings.NewReader(call.Text))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	for name, text := range call.Headers {
		request.Header.Set(name, text)
	}
	response, err := r.http.Do(request)
	if err != nil {
		return result{"failed": true}
	}
	defer func() { _ = response.Body.Close() }()
	got := result{"status": response.StatusCode, "should_retry": response.Header.Get("X-Should-Retry"), "retry_after": response.Header.Get("Retry-After")}
	var read bytes.Buffer
	for chunk := make([]byte, 1024); err == nil; {
		var n int
		n, err = response.Body.Read(chunk)
		read.Write(chunk[:n])
		if call.LeavesAfter > 0 && eventsIn(read.String()) >= call.LeavesAfter {
			if call.Leaves == "abort" {
				leave()
				_, err = io.Copy(&read, response.Body)
			} else {
				err = response.Body.Close()
			}
			got["caller_left"] = err == nil || errors.Is(err, context.Canceled)
			err = io.EOF
		}
	}
	got["text"], got["broke"] = read.String(), err != io.EOF //nolint:errorlint // a reader returns io.EOF itself
	var body any
	if json.Unmarshal(read.Bytes(), &body) == nil {
		got["body"] = body
	}
	return got
}
