// Package client is the Go client of Earmark's HTTP API.
//
// Do and DoStream guard a piece of work: they reserve, keep the lease while the
// work runs, and settle. The other methods are the API's calls one by one.
//
// Every answer that is not what the caller asked for comes back as an
// *earmark.Error with the code that the API gave. Calls that are safe to repeat
// are repeated, with pauses, when the connection breaks or the service is away;
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

// Limits of the default HTTP client. An admission is decided within seconds; a
// call that takes longer than callTimeout is not coming back.
const (
	callTimeout         = 30 * time.Second
	maxIdleConns        = 512
	maxIdleConnsPerHost = 256 // one for each request in flight of a busy backend
	idleConnTimeout     = 90 * time.Second
)

const defaultUserAgent = "earmark-go-client"

// Client calls one Earmark. It is safe for concurrent use.
type Client struct {
	base        string // without a slash at its end
	http        *http.Client
	roots       *x509.CertPool // of the default HTTP client
	userAgent   string
	apiKey      string // empty for none
	maxAttempts int
	pause       func(ctx context.Context, d time.Duration) error

	settleLimit time.Duration
	log         *slog.Logger
	unsettled   func(context.Context, *UnsettledError)
}

// Option changes a client under construction.
type Option func(*Client)

// WithHTTPClient uses another HTTP client than the default one, which pools its
// connections and gives up on a call after 30 seconds.
func WithHTTPClient(httpClient *http.Client) Option {
	return func(c *Client) { c.http = httpClient }
}

// WithRootCAs trusts these certificate authorities of an https server instead of the
// system's; nil is the system's. A client given by WithHTTPClient is left as it is.
func WithRootCAs(roots *x509.CertPool) Option {
	return func(c *Client) { c.roots = roots }
}

// WithAPIKey sends the key emk_… with every call. An Earmark that asks for keys answers
// a call without one with CodeUnauthenticated. The empty key sends none.
func WithAPIKey(key string) Option {
	return func(c *Client) { c.apiKey = key }
}

// WithUserAgent sets the User-Agent header.
func WithUserAgent(userAgent string) Option {
	return func(c *Client) { c.userAgent = userAgent }
}

// WithMaxAttempts bounds how often a call that is safe to repeat is sent, the
// first time included. The default is 4; 1 turns repeating off. Do and DoStream
// settle by WithSettleLimit instead.
func WithMaxAttempts(attempts int) Option {
	return func(c *Client) { c.maxAttempts = max(1, attempts) }
}

// WithSettleLimit bounds how long Do and DoStream try to settle once the work is
// done. The default is 30 seconds, which a restart of Earmark fits into.
func WithSettleLimit(limit time.Duration) Option {
	return func(c *Client) { c.settleLimit = limit }
}

// WithLogger takes what Do and DoStream have to say about leases that are not kept
// and reservations that are not settled. The default is slog.Default().
func WithLogger(log *slog.Logger) Option {
	return func(c *Client) { c.log = log }
}

// WithUnsettled receives every reservation that Do or DoStream could not settle,
// besides the log. It is the place to count them, or to keep usage for later; it
// also hears of those whose error nobody sees, because the work panicked. It is
// called before Do returns, and on a context that the caller's end does not reach.
func WithUnsettled(tell func(ctx context.Context, unsettled *UnsettledError)) Option {
	return func(c *Client) { c.unsettled = tell }
}

// New makes a client of the Earmark at baseURL, such as http://127.0.0.1:8080.
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
		transport = standard.Clone() // with its timeouts for dialing and TLS
	}
	transport.MaxIdleConns = maxIdleConns
	transport.MaxIdleConnsPerHost = maxIdleConnsPerHost
	transport.IdleConnTimeout = idleConnTimeout
	if roots != nil {
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: transport, Timeout: callTimeout}
}

// IsDenied reports whether err says that a request does not fit into a budget.
func IsDenied(err error) bool {
	return earmark.ErrorCode(err) == earmark.CodeBudgetExceeded
}
