package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/earmark-dev/earmark"
)

// How a call is repeated. Pauses double from firstPause to longestPause. Each is shortened
// at random by up to a half, so that many clients do not return at once.
const (
	defaultMaxAttempts = 4
	firstPause         = 100 * time.Millisecond
	longestPause       = 2 * time.Second
	// longestRetryAfter bounds how long a call waits for a Retry-After; the error has the
	// full value.
	longestRetryAfter = 5 * time.Second
)

// maxAnswerBytes bounds an answer. A full page of reservations, each with as much metadata
// and as many budgets as possible, is smaller.
const maxAnswerBytes = 64 << 20

// call is one call of the API. repeat says that sending it twice has the same effect as
// sending it once.
type call struct {
	method   string
	path     string
	query    url.Values
	key      string
	body     any
	repeat   bool
	attempts int           // instead of the client's own bound; 0: that bound
	limit    time.Duration // of one attempt; 0: none of its own
	// pastForeign also repeats the call after a failure that Earmark did not write, such as
	// a proxy's 404 during a deployment.
	pastForeign bool
}

// answer is an answer, read to its end. sent is how often the call was sent, as far as is
// known, including repeats by net/http itself.
type answer struct {
	status int
	header http.Header
	body   []byte
	sent   int
}

func one[T any](ctx context.Context, c *Client, call call) (*T, error) {
	var value T
	if _, err := c.exchange(ctx, call, &value); err != nil {
		return nil, err
	}
	return &value, nil
}

func page[T any](ctx context.Context, c *Client, path string, query url.Values) (earmark.Page[T], error) {
	var value earmark.Page[T]
	_, err := c.exchange(ctx, call{method: http.MethodGet, path: path, query: query, repeat: true}, &value)
	return value, err
}

// exchange makes a call and decodes a successful answer into target, unless that is nil.
func (c *Client) exchange(ctx context.Context, call call, target any) (answer, error) {
	var body []byte
	if call.body != nil {
		var err error
		if body, err = json.Marshal(call.body); err != nil {
			return answer{}, earmark.Errorf(earmark.CodeInvalidRequest, "the request does not encode: %w", err)
		}
	}
	got, err := c.sendUntilAnswered(ctx, call, body)
	switch {
	case err != nil:
		return answer{}, err
	case got.status < 200 || got.status > 299:
		return got, got.problem()
	case target == nil:
		return got, nil
	}
	if err := json.Unmarshal(got.body, target); err != nil {
		return got, undecodable(err)
	}
	return got, nil
}

// sendUntilAnswered repeats a repeatable call while the service is away. It gives up early
// if ctx would end before the next attempt.
func (c *Client) sendUntilAnswered(ctx context.Context, call call, body []byte) (answer, error) {
	attempts, sent := c.maxAttempts, 0
	if call.attempts > 0 {
		attempts = call.attempts
	}
	for attempt := 1; ; attempt++ {
		got, err := c.send(ctx, call, body)
		sent += got.sent
		got.sent = sent
		again := away(got, err) || got.refusedForRate() || (call.pastForeign && err == nil && got.isForeign())
		if !call.repeat || attempt >= attempts || !again {
			return got, err
		}
		wait := pauseAfter(attempt, got)
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
			return got, err
		}
		if c.pause(ctx, wait) != nil {
			return got, err // it says more than the end of the context
		}
	}
}

// away reports whether the service, or the network to it, failed temporarily. A 500 is a
// bug and would come again; a 4xx is an answer; an untrusted certificate stays untrusted.
func away(got answer, err error) bool {
	var untrusted *tls.CertificateVerificationError
	if err != nil {
		return earmark.ErrorCode(err) == earmark.CodeUnavailable && !errors.Is(err, context.Canceled) && !errors.As(err, &untrusted)
	}
	switch got.status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// refusedForRate reports whether a later attempt may succeed, because the key's rate allows no call now. A
// wait that is longer than the client waits is left to its caller.
func (a answer) refusedForRate() bool {
	return a.status == http.StatusTooManyRequests && a.retryAfter() <= longestRetryAfter
}

func pauseAfter(attempt int, got answer) time.Duration {
	const mostDoublings = 10 // well past longestPause, and far from overflow
	pause := min(firstPause<<min(attempt-1, mostDoublings), longestPause)
	pause -= rand.N(pause/2 + 1) //nolint:gosec // jitter is no secret
	return pause + min(got.retryAfter(), longestRetryAfter)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// send makes one attempt. Its error is CodeUnavailable if no answer or half an answer
// arrived; whether the call took effect is then unknown.
func (c *Client) send(ctx context.Context, call call, body []byte) (answer, error) {
	if call.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, call.limit)
		defer cancel()
	}
	var connections atomic.Int32
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connections.Add(1) },
	})
	got, err := c.sendOnce(ctx, call, body)
	got.sent = max(1, int(connections.Load())) // a custom transport may not trace
	return got, err
}

func (c *Client) sendOnce(ctx context.Context, call call, body []byte) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, call.method, c.base+call.path, bytes.NewReader(body)) //nolint:gosec // the address is configuration
	if err != nil {
		return answer{}, earmark.Errorf(earmark.CodeInvalidRequest, "the request cannot be made: %w", err)
	}
	request.URL.RawQuery = call.query.Encode()
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", c.userAgent)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if key := c.keyFor(ctx); key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	if call.key != "" {
		request.Header.Set("Idempotency-Key", call.key)
	}
	response, err := c.http.Do(request) //nolint:gosec // the address is configuration
	if err != nil {
		return answer{}, earmark.Errorf(earmark.CodeUnavailable, "Earmark did not answer: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	read, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes+1))
	switch {
	case err != nil:
		return answer{}, earmark.Errorf(earmark.CodeUnavailable, "Earmark's answer broke off: %w", err)
	case len(read) > maxAnswerBytes:
		return answer{}, earmark.Errorf(earmark.CodeInternal, "Earmark's answer is over %d bytes", maxAnswerBytes)
	}
	return answer{status: response.StatusCode, header: response.Header, body: read}, nil
}
