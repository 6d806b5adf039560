// Package client is the Go client of Earmark's HTTP API.
//
// Do and DoStream guard a piece of work: they reserve, keep the lease while the
// work runs, and settle. The other methods are the API's calls one by one.
//
// Every answer other than success is an *earmark.Error with the code of the API. Calls that
// are safe to repeat are repeated, with pauses, if the connection breaks or the service is
// away; each method says whether it is.
// see the methods for which those are.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
)

// Limits of the default HTTP client. An admission is decided within seconds; a call that
// takes longer than callTimeout will get no answer.
const (
	callTimeout         = 30 * time.Second
	maxIdleConns        = 512
	maxIdleConnsPerHost = 256 // one for each concurrent request of a busy backend
	idleConnTimeout     = 90 * time.Second
)

const defaultUserAgent = "earmark-go-client"

// Client calls one Earmark server. It is safe for concurrent use.
type Client struct {
	base        string // without a trailing slash
	http        *http.Client
	roots       *x509.CertPool // of the default HTTP client
	userAgent   string
	apiKey      string // "" if none
	maxAttempts int
	pause       func(ctx context.Context, d time.Duration) error

	settleLimit time.Duration
	log         *slog.Logger
	unsettled   func(context.Context, *UnsettledError)
}

// Option configures a client in New.
type Option func(*Client)

// WithHTTPClient replaces the default HTTP client, which pools its connections and gives up
// on a call after 30 seconds.
func WithHTTPClient(httpClient *http.Client) Option {
	return func(c *Client) { c.http = httpClient }
}

// WithRootCAs trusts these certificate authorities instead of the system's; nil means the
// system's. It does not change a client from WithHTTPClient.
func WithRootCAs(roots *x509.CertPool) Option {
	return func(c *Client) { c.roots = roots }
}

// WithAPIKey sends the key emk_… with every call. An Earmark that requires keys answers a
// call without one with CodeUnauthenticated. An empty key is not sent.
func WithAPIKey(key string) Option {
	return func(c *Client) { c.apiKey = key }
}

// apiKeyOf is the place of a key in a context.
type apiKeyOf struct{}

// ContextWithAPIKey returns a context whose calls send this key in place of the client's
// own, for a service that passes on the keys of its callers; an empty one sends none.
func ContextWithAPIKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, apiKeyOf{}, key)
}

func (c *Client) keyFor(ctx context.Context) string {
	if key, ok := ctx.Value(apiKeyOf{}).(string); ok {
		return key
	}
	return c.apiKey
}

// WithUserAgent sets the User-Agent header.
func WithUserAgent(userAgent string) Option {
	return func(c *Client) { c.userAgent = userAgent }
}

// WithMaxAttempts bounds how often a repeatable call is sent, including the first time. The
// default is 4; 1 turns repetition off. Do and DoStream settle within WithSettleLimit
// instead.
func WithMaxAttempts(attempts int) Option {
	return func(c *Client) { c.maxAttempts = max(1, attempts) }
}

// WithSettleLimit bounds how long Do and DoStream try to settle after the work. The default
// is 30 seconds, enough for a restart of Earmark.
func WithSettleLimit(limit time.Duration) Option {
	return func(c *Client) { c.settleLimit = limit }
}

// WithLogger sets the logger for leases that Do and DoStream cannot keep and reservations
// that they cannot settle. The default is slog.Default().
func WithLogger(log *slog.Logger) Option {
	return func(c *Client) { c.log = log }
}

// WithUnsettled sets a function that receives every reservation that Do or DoStream could
// not settle, in addition to the log. Use it to count them, or to keep usage for later. It
// also receives those whose error nobody sees because the work panicked. It runs before Do
// returns, on a context that does not end with the caller's.
func WithUnsettled(tell func(ctx context.Context, unsettled *UnsettledError)) Option {
	return func(c *Client) { c.unsettled = tell }
}

// New returns a client of the Earmark server at baseURL, such as http://127.0.0.1:8080. The
// error is CodeInvalidRequest.
func New(baseURL string, options ...Option) (*Client, error) {
	parsed, err := url.Parse(baseURL)
	if err != nil {
		return nil, earmark.Errorf(earmark.CodeInvalidRequest, "the base URL does not parse: %w", err)
	}
	if (parsed.Scheme != "http" && parsed.Scheme != "https") || parsed.Host == "" || parsed.RawQuery != "" || parsed.Fragment != "" {
		return nil, earmark.Errorf(earmark.CodeInvalidRequest, "%q is not a base URL such as http://127.0.0.1:8080", parsed.Redacted())
	}
	c := &Client{
		base:        strings.TrimRight(parsed.String(), "/"),
		userAgent:   defaultUserAgent,
		maxAttempts: defaultMaxAttempts,
		pause:       sleep,
		settleLimit: defaultSettleLimit,
		log:         slog.Default(),
		unsettled:   func(context.Context, *UnsettledError) {},
	}
	for _, option := range options {
		option(c)
	}
	if c.http == nil {
		c.http = newHTTPClient(c.roots)
	}
	return c, nil
}

func newHTTPClient(roots *x509.CertPool) *http.Client {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	if standard, ok := http.DefaultTransport.(*http.Transport); ok {
		transport = standard.Clone() // including its timeouts for dialing and TLS
	}
	transport.MaxIdleConns = maxIdleConns
	transport.MaxIdleConnsPerHost = maxIdleConnsPerHost
	transport.IdleConnTimeout = idleConnTimeout
	if roots != nil {
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: transport, Timeout: callTimeout}
}

// IsDenied reports whether err is a denial: the request does not fit into a budget.
func IsDenied(err error) bool {
	return earmark.ErrorCode(err) == earmark.CodeBudgetExceeded
}
