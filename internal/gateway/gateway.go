// Package gateway is a reverse proxy in front of a provider of models: it guards each call
// with Earmark, under the key of its caller, and keeps the provider's key to itself.
package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/access"
)

// ScopeHeader names the scopes whose budgets pay, with commas between them. Without it they
// are the scope that the caller's key is bound to.
const ScopeHeader = "Earmark-Scope"

// The headers in which the SDKs of providers send their key.
const (
	bearerHeader = "Authorization"
	apiKeyHeader = "X-Api-Key" //nolint:gosec // the name of a header
	googleHeader = "X-Goog-Api-Key"
	googleQuery  = "key" // of a URL
)

// notUpstream are headers of a caller that the provider does not get: they belong to the
// gateway, or choose among the accounts of the provider's key.
var notUpstream = []string{bearerHeader, apiKeyHeader, googleHeader, ScopeHeader, "Cookie", "Forwarded", "Openai-Organization", "Openai-Project"}

// Options are the settings of a Gateway. Upstream, Earmark, Registry and Logger are required.
type Options struct {
	Upstream    *url.URL // of the provider; its path is put in front
	ProviderKey string   // "" if the provider needs none
	Earmark     *client.Client
	// WithoutKeys admits callers without a key of Earmark; whether one is needed is then
	// Earmark's choice.
	WithoutKeys bool
	// Hosts are the names that the gateway answers to, besides IP addresses and names without
	// a dot. A browser sends the name of the page's own site, which a stranger may point here.
	Hosts []string
	// Transport says how calls are guarded. The gateway sets its ScopesOf.
	Transport client.TransportOptions
	Registry  *prometheus.Registry
	Logger    *slog.Logger
}

// Gateway is an http.Handler.
type Gateway struct {
	options   Options
	access    access.Access
	callers   callers
	transport *client.Transport
	proxy     *httputil.ReverseProxy
	underWay  sync.WaitGroup

	open  prometheus.Gauge
	calls *prometheus.CounterVec
}

// New returns a Gateway. Its error names the option.
func New(options Options) (*Gateway, error) {
	g := &Gateway{options: options, access: access.New(options.Hosts), callers: callers{earmark: options.Earmark, failOpen: options.Transport.FailOpen}}
	metrics := promauto.With(options.Registry)
	g.open = metrics.NewGauge(prometheus.GaugeOpts{Name: "earmark_gateway_open_calls", Help: "Calls that are not answered to their end."})
	g.calls = metrics.NewCounterVec(prometheus.CounterOpts{
		Name: "earmark_gateway_calls_total", Help: "Calls by the class of their answer's status; none if the caller left before it.",
	}, []string{"status"})
	uncharged := metrics.NewCounter(prometheus.CounterOpts{
		Name: "earmark_gateway_uncharged_total", Help: "Usage that was to be charged later, and was not; the log has each.",
	})

	settings := options.Transport
	settings.ScopesOf = func(r *http.Request, _ client.ModelCall) ([]string, error) { return admittedOf(r.Context()).scopesOf() }
	settings.Uncharged = func(context.Context, earmark.UsageRequest, error) { uncharged.Inc() }
	var err error
	if g.transport, err = client.NewTransport(options.Earmark, settings); err != nil {
		return nil, err
	}
	g.proxy = &httputil.ReverseProxy{
		Rewrite:        g.rewrite,
		Transport:      g.transport,
		FlushInterval:  -1, // at once
		ErrorHandler:   g.providerFailed,
		ModifyResponse: g.count,
		ErrorLog:       slog.NewLogLogger(options.Logger.Handler(), slog.LevelWarn),
	}
	return g, nil
}

// Close waits until the calls under way are settled, and the usage that is to be charged
// later is charged, or ctx has ended. The server must accept no more calls.
func (g *Gateway) Close(ctx context.Context) {
	settled := make(chan struct{})
	go func() {
		g.underWay.Wait()
		close(settled)
	}()
	select {
	case <-settled:
	case <-ctx.Done():
	}
	g.transport.Close(ctx)
}

func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.underWay.Add(1)
	defer g.underWay.Done()
	g.open.Inc()
	defer g.open.Dec()
	if err := g.access.Check(r); err != nil {
		g.refuseFor(w, r, err)
		return
	}
	if !isPlain(r.URL) {
		g.refuse(w, http.StatusBadRequest, "unknown_call", "the path has parts that a provider could read in another way")
		return
	}
	if !g.options.Transport.PassUnknown && !mayPass(r) {
		g.refuse(w, http.StatusBadRequest, "unknown_call", r.Method+" "+r.URL.Path+" is no call of a model, and may change or show what others have at the provider; the gateway passes it only with --pass-unknown")
		return
	}
	key, in := keyOf(r)
	if key == "" && !g.options.WithoutKeys {
		g.refuse(w, http.StatusUnauthorized, earmark.CodeUnauthenticated, "the gateway needs a key of Earmark (emk_…) where the provider's key would be: in Authorization: Bearer, x-api-key or x-goog-api-key")
		return
	}
	ctx := client.ContextWithAPIKey(r.Context(), key)
	caller, err := g.callers.lookUp(ctx, key)
	if err != nil {
		g.refuseFor(w, r, err)
		return
	}
	who := &admitted{caller: *caller, keyIn: in}
	if who.scopes, err = scopesIn(r); err == nil {
		err = who.check()
	}
	if err != nil {
		g.refuseFor(w, r, err)
		return
	}
	// A provider may answer before it has read a body that passes unguarded. Without this the
	// server then takes the rest of the body away, and the answer is cut.
	_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 is always so
	g.proxy.ServeHTTP(w, r.WithContext(context.WithValue(ctx, admittedKey{}, who)))
}

// admitted is the caller of a request that may go on.
type admitted struct {
	caller earmark.Caller
	scopes []string // that the request names
	keyIn  string   // the header that had the key
}

type admittedKey struct{}

func admittedOf(ctx context.Context) *admitted {
	who, _ := ctx.Value(admittedKey{}).(*admitted)
	return who
}

func (a *admitted) check() error {
	if !a.caller.Role.Includes(earmark.RoleReserve) {
		return earmark.Errorf(earmark.CodeForbidden, "the key has the role %q; calls of models need %q", a.caller.Role, earmark.RoleReserve)
	}
	for _, scope := range a.scopes {
		if !(earmark.Key{Scopes: a.caller.Scopes}).Covers(scope) {
			return earmark.Errorf(earmark.CodeForbidden, "the key is not bound to %q", earmark.Clip(scope))
		}
	}
	return nil
}

// scopesOf returns whose budgets pay for a call of a model.
func (a *admitted) scopesOf() ([]string, error) {
	if len(a.scopes) > 0 {
		return a.scopes, nil
	}
	if len(a.caller.Scopes) != 1 {
		return nil, earmark.Invalidf(ScopeHeader, "is missing, and the key is bound to %d scopes; say whose budgets pay, such as %s: acme/ml", len(a.caller.Scopes), ScopeHeader)
	}
	return a.caller.Scopes, nil
}

func scopesIn(r *http.Request) (scopes []string, err error) {
	for _, line := range r.Header.Values(ScopeHeader) {
		for scope := range strings.SplitSeq(line, ",") {
			scope = strings.TrimSpace(scope)
			if err := earmark.ValidateScope(ScopeHeader, scope); err != nil {
				return nil, err
			}
			scopes = append(scopes, scope)
		}
	}
	return scopes, nil
}

// keyOf returns the caller's key, and the header in which the provider gets its own.
func keyOf(r *http.Request) (key, in string) {
	given := func(text, header string) bool {
		in = header
		if strings.HasPrefix(text, "emk_") {
			key = text
		}
		return text != ""
	}
	scheme, token, _ := strings.Cut(r.Header.Get(bearerHeader), " ")
	switch {
	case strings.EqualFold(scheme, "Bearer") && given(strings.TrimSpace(token), bearerHeader):
	case given(r.Header.Get(apiKeyHeader), apiKeyHeader):
	case given(r.Header.Get(googleHeader), googleHeader):
	case given(r.URL.Query().Get(googleQuery), googleHeader):
	default:
		in = bearerHeader
	}
	return key, in
}

var escapedSeparator = regexp.MustCompile(`(?i)%(2e|2f|5c|3b|00)`)

// isPlain reports whether a path means the same to every server.
func isPlain(u *url.URL) bool {
	clean := path.Clean(u.Path)
	return strings.HasPrefix(u.Path, "/") && (clean == u.Path || clean+"/" == u.Path) &&
		!strings.ContainsAny(u.Path, `\;`) && !escapedSeparator.MatchString(u.EscapedPath())
}

var modelList = regexp.MustCompile(`/models(/[^/]+)?$`)

// mayPass reports whether a call may reach the transport, which refuses a POST that it does
// not know. Other methods may only read the list of models.
func mayPass(r *http.Request) bool {
	return r.Method == http.MethodPost || (r.Method == http.MethodGet || r.Method == http.MethodHead) && modelList.MatchString(r.URL.Path)
}

// rewrite makes the provider's request of the caller's.
func (g *Gateway) rewrite(p *httputil.ProxyRequest) {
	in := admittedOf(p.In.Context()).keyIn
	p.SetURL(g.options.Upstream)
	p.Out.Host = "" // the upstream's
	for _, name := range notUpstream {
		p.Out.Header.Del(name)
	}
	for name := range p.Out.Header {
		if strings.HasPrefix(name, "Earmark-") {
			p.Out.Header.Del(name)
		}
	}
	if query := p.Out.URL.Query(); query.Has(googleQuery) {
		query.Del(googleQuery)
		p.Out.URL.RawQuery = query.Encode()
	}
	switch key := g.options.ProviderKey; {
	case key == "":
	case in == bearerHeader:
		p.Out.Header.Set(in, "Bearer "+key)
	default:
		p.Out.Header.Set(in, key)
	}
}

// count counts an answer of the provider, or of the guard in its place.
func (g *Gateway) count(response *http.Response) error {
	g.calls.WithLabelValues(class(response.StatusCode)).Inc()
	return nil
}

func class(status int) string { return strconv.Itoa(status/100) + "xx" }

// providerFailed answers a call whose provider gave no answer.
func (g *Gateway) providerFailed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil { // the caller is gone
		g.calls.WithLabelValues("none").Inc()
		return
	}
	g.options.Logger.WarnContext(r.Context(), "The provider did not answer.", slog.Any("error", err))
	g.refuse(w, http.StatusBadGateway, "provider_unavailable", "the provider did not answer; the gateway's log says why")
}

func (g *Gateway) refuseFor(w http.ResponseWriter, r *http.Request, err error) {
	var e *earmark.Error
	if !errors.As(err, &e) {
		e = earmark.Errorf(earmark.CodeInternal, "%w", err)
	}
	status := http.StatusBadRequest
	switch e.Code {
	case earmark.CodeUnauthenticated:
		status = http.StatusUnauthorized
	case earmark.CodeForbidden:
		status = http.StatusForbidden
	case earmark.CodeUnavailable, earmark.CodeAdmissionUnknown:
		status = http.StatusServiceUnavailable
	case earmark.CodeRateLimited:
		status = http.StatusTooManyRequests
	case earmark.CodeInternal:
		status = http.StatusBadGateway
		g.options.Logger.ErrorContext(r.Context(), "Earmark failed.", slog.Any("error", err))
	default:
	}
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10))
	}
	g.refuse(w, status, e.Code, "Earmark: "+e.Error())
}

// refuse answers in the form that the SDKs of providers read, and do not repeat.
func (g *Gateway) refuse(w http.ResponseWriter, status int, code earmark.Code, message string) {
	g.calls.WithLabelValues(class(status)).Inc()
	w.Header().Set("Content-Type", "application/json")
	if status != http.StatusBadGateway {
		w.Header().Set("X-Should-Retry", "false")
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"code": code, "error": map[string]any{"message": message, "type": "earmark", "code": code, "param": nil},
	})
}

// Ready reports whether Earmark answers, for a health check.
func (g *Gateway) Ready(ctx context.Context) error {
	_, err := g.options.Earmark.Ready(ctx)
	return err
}

// Limits of what is known about keys.
const (
	maxCallers  = 10_000
	freshFor    = time.Minute // after that Earmark is asked again
	failOpenFor = time.Hour   // while Earmark is away, with FailOpen
)
