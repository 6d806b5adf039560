package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// AttemptTimeout bounds one attempt.
const AttemptTimeout = 15 * time.Second

const (
	dialTimeout  = 5 * time.Second
	maxReadBytes = 64 << 10 // of an answer, so that the connection can serve the next attempt
)

var errNotPublic = errors.New("the endpoint's name resolves to an address that is not public")

// Message is one event on its way to an endpoint.
type Message struct {
	ID   string // the same at every attempt
	Body []byte // JSON
}

// Sender makes attempts. It is safe for concurrent use.
type Sender struct{ http *http.Client }

// NewSender returns a sender that calls only what is allowed. It uses no proxy, which would connect to addresses that
// the sender cannot check.
func NewSender(allowed Allowed) *Sender {
	dialer := &net.Dialer{Timeout: dialTimeout, Control: allowed.control} // mutation: webhook-address
	return &Sender{http: &http.Client{
		Timeout: AttemptTimeout,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, ForceAttemptHTTP2: true, TLSHandshakeTimeout: dialTimeout,
			MaxIdleConns: 100, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute,
		},
		// The standard counts a redirect as a failure: the endpoint's URL is to be changed instead.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // mutation: webhook-redirect
	}}
}

// Send makes one attempt. It returns the status of the answer, 0 without one; the error says why the attempt was no
// success: every status but 2xx, and no answer.
func (s *Sender) Send(ctx context.Context, endpoint string, m Message, at time.Time, secrets ...Secret) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(m.Body))
	if err != nil {
		return 0, fmt.Errorf("the endpoint's URL does not parse: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "earmark-webhooks")
	request.Header.Set(HeaderID, m.ID)
	request.Header.Set(HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	request.Header.Set(HeaderSignature, Signature(m.ID, at, m.Body, secrets...))
	response, err := s.http.Do(request)
	if err != nil {
		return 0, plain(err)
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, maxReadBytes)
	switch {
	case response.StatusCode/100 == 3:
		return response.StatusCode, fmt.Errorf("the endpoint answered %d, a redirect, which is not followed", response.StatusCode)
	case response.StatusCode/100 != 2:
		return response.StatusCode, fmt.Errorf("the endpoint answered %d", response.StatusCode)
	}
	return response.StatusCode, nil
}

// plain returns an error without the URL, which the endpoint's owner knows, and without an address that is not public.
func plain(err error) error {
	var outer *url.Error
	switch {
	case errors.Is(err, errNotPublic):
		return errNotPublic
	case errors.As(err, &outer):
		return outer.Err
	}
	return err
}
