package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client/internal/choice"
)

// defaultMaxOutputTokens is what a call may use if it sets no limit itself.
const defaultMaxOutputTokens = 16_384

// Limits of a guarded call.
const (
	maxCallBytes       = 64 << 20 // of a request's body, and of an answer that is read whole as it passes
	maxMetadataModel   = 100      // bytes of the model's name in the metadata
	retryCountHeader   = "X-Stainless-Retry-Count"
	shouldRetryHeader  = "X-Should-Retry"
	codeUnknownCall    = earmark.Code("unknown_call")
	codeTooLarge       = earmark.CodePayloadTooLarge
	problemTypePrefix  = "urn:earmark:problem:"
	denialTitle        = "The request does not fit into a budget"
	refusalContentType = "application/json"
)

// TransportOptions configure a Transport. Scopes or ScopesOf, and OnExpiry, are required.
type TransportOptions struct {
	// Scopes says whose budgets pay. ScopesOf takes its place where each call has others;
	// its error ends the call.
	Scopes   []string
	ScopesOf func(*http.Request, ModelCall) ([]string, error)
	// OnExpiry decides who pays for a call whose usage nobody knows, see Client.Do.
	OnExpiry earmark.OnExpiry
	// RequireBudget refuses a scope without a budget of its own: one above it does not count.
	RequireBudget bool

	// Units are those that the Transport counts itself: of tokens, input_tokens,
	// output_tokens and requests. If it is empty, Earmark computes amounts from the model
	// and the provider's usage, in the units that the budgets count, usd_micros too; it
	// then has to know the model's price if a budget counts money.
	Units []string
	// Provider is the company that bills, for Earmark's prices; needed if several have the
	// model.
	Provider string
	// TTL is the length of the lease, in whole seconds; 0 means 5 minutes.
	TTL time.Duration
	// InputTokens returns an upper bound of the input's tokens, where the bytes of the
	// request are none (files that it only names) or far too many (images inside of it).
	InputTokens func(*http.Request, ModelCall) int64
	// MaxOutputTokens is reserved for the output of a call that sets no limit; 0 means
	// 16,384.
	MaxOutputTokens int64
	// PassUnknown sends calls that the Transport does not know. Without it they are
	// answered 400, because they may cost money.
	PassUnknown bool

	// FailOpen sends calls while Earmark is away, and charges their usage once it is back.
	// Limits do not hold then. Without it such a call is answered 503.
	FailOpen bool
	// Uncharged receives usage that could not be charged later: the process ends, Earmark
	// refuses it, or it was away for a day.
	Uncharged func(ctx context.Context, usage earmark.UsageRequest, err error)

	// Base sends the calls; nil means http.DefaultTransport.
	Base http.RoundTripper
}

// Transport is an http.RoundTripper for the SDK of a provider. Before each call of a model
// it reserves the most that the call may cost. It passes the call on, reads the usage as the
// answer passes, and commits it before the reader learns of the end of the answer.
//
//	transport, err := client.NewTransport(earmarks, client.TransportOptions{
//		Scopes: []string{"acme/ml"}, OnExpiry: earmark.OnExpiryCommit})
//	ai := openai.NewClient(option.WithHTTPClient(&http.Client{Transport: transport}))
//
// A denial is an answer 402, which SDKs do not repeat; DenialOf reads it from their errors.
// docs/client.md says what happens at each ending of a call.
//
// Read each answer to its end, or close its body, or cancel the request: until then the
// lease is kept.
type Transport struct {
	client  *Client
	options TransportOptions
	base    http.RoundTripper
	left    leftRuns
	later   laterCharges
}

// NewTransport returns a Transport. The error is CodeInvalidRequest and names the option.
func NewTransport(c *Client, options TransportOptions) (*Transport, error) {
	if (len(options.Scopes) == 0) == (options.ScopesOf == nil) {
		return nil, earmark.Invalidf("Scopes", "say whose budgets pay: give one of Scopes and ScopesOf")
	}
	if err := choice.CheckOnExpiry(earmark.ReservationRequest{OnExpiry: options.OnExpiry}); err != nil {
		return nil, err
	}
	for _, unit := range options.Units {
		switch unit {
		case earmark.UnitTokens, earmark.UnitInputTokens, earmark.UnitOutputTokens, earmark.UnitRequests:
		default:
			return nil, earmark.Invalidf("Units", "%q is no unit that a Transport counts; allowed are tokens, input_tokens, output_tokens and requests. "+
				"Leave Units empty for usd_micros", earmark.Clip(unit))
		}
	}
	if options.MaxOutputTokens < 0 || options.TTL < 0 {
		return nil, earmark.Invalidf("MaxOutputTokens", "and TTL are 0 or more")
	}
	if options.MaxOutputTokens == 0 {
		options.MaxOutputTokens = defaultMaxOutputTokens
	}
	t := &Transport{client: c, options: options, base: options.Base}
	if t.base == nil {
		t.base = http.DefaultTransport
	}
	t.later.init(c, options.Uncharged)
	return t, nil
}

// Close waits until the usage that is to be charged later is charged, or ctx has ended; what
// is left then goes to Uncharged. Make no call after it.
func (t *Transport) Close(ctx context.Context) { t.later.close(ctx) }

// RoundTrip makes one call. Its error is the provider's connection's, or that of the
// request's context.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	api := apiOf(r)
	if api == "" {
		if isFree(r) || t.options.PassUnknown { // mutation: known-calls
			return t.base.RoundTrip(r)
		}
		closeBody(r)
		return refusal(r, http.StatusBadRequest, earmark.Errorf(codeUnknownCall,
			"%s %s is no call that the guard knows; it may pass unguarded only with PassUnknown", r.Method, r.URL.Path)), nil
	}
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	if len(body) > maxCallBytes {
		return refusal(r, http.StatusRequestEntityTooLarge, earmark.Errorf(codeTooLarge, "the call is over %d bytes", maxCallBytes)), nil
	}
	call, ok := callOf(api, r.URL, body)
	if !ok {
		return refusal(r, http.StatusBadRequest, earmark.Errorf(codeUnknownCall, "the guard cannot read the body of this call: it is no JSON text")), nil
	}
	guarded, err := t.admit(r, call, body)
	if err != nil {
		if answer := answerTo(r, err); answer != nil {
			return answer, nil
		}
		return nil, err
	}
	return guarded.send(r, body)
}

// admit reserves for a call, or takes over what an earlier attempt of it has left.
func (t *Transport) admit(r *http.Request, call ModelCall, body []byte) (*guardedCall, error) {
	request, err := t.requestFor(r, call)
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	g := &guardedCall{transport: t, call: call, request: request, ctx: context.WithoutCancel(ctx), attempts: 1}
	g.identity = identityOf(r, request.Scopes, body)
	if isRetry(r) {
		if earlier := t.left.take(g.identity); earlier != nil { // mutation: held-once
			g.run, g.earlier, g.attempts = earlier.run.resume(ctx), earlier.input, earlier.attempts+1
			return g, nil
		}
	}
	g.key = rand.Text()
	g.run, err = t.client.begin(ctx, g.key, request)
	if err != nil && t.options.FailOpen && isAwayNow(ctx, err) { // mutation: fail-closed
		t.client.log.WarnContext(ctx, "Earmark is away; the call is made without a reservation, and charged later", slog.Any("error", err))
		return g, nil
	}
	return g, err
}

func isAwayNow(ctx context.Context, err error) bool {
	code := earmark.ErrorCode(err)
	return ctx.Err() == nil && (code == earmark.CodeUnavailable || code == earmark.CodeAdmissionUnknown)
}

func (t *Transport) requestFor(r *http.Request, call ModelCall) (earmark.ReservationRequest, error) {
	scopes := t.options.Scopes
	if t.options.ScopesOf != nil {
		var err error
		if scopes, err = t.options.ScopesOf(r, call); err != nil {
			return earmark.ReservationRequest{}, err
		}
	}
	input := call.InputTokens
	if t.options.InputTokens != nil {
		input = t.options.InputTokens(r, call)
	}
	output := call.MaxOutputTokens
	if output == 0 && call.API != OpenAIEmbeddings {
		output = t.options.MaxOutputTokens
	}
	request := earmark.ReservationRequest{
		Scopes: scopes, OnExpiry: t.options.OnExpiry, RequireBudget: t.options.RequireBudget, TTLSeconds: wholeSeconds(t.options.TTL),
		Metadata: earmark.Metadata{"api": string(call.API), "model": strings.ToValidUTF8(call.Model[:min(len(call.Model), maxMetadataModel)], "")},
	}
	if len(t.options.Units) > 0 {
		request.Amounts = counts{input: input, output: output * call.Answers}.amounts(t.options.Units, 1)
		return request, nil
	}
	request.Estimate = &earmark.Estimate{
		Model: call.Model, Provider: t.options.Provider, InputTokens: input, MaxOutputTokens: &output, N: call.Answers, ServiceTier: call.ServiceTier,
	}
	return request, nil
}

// guardedCall is a call that is admitted. It ends once.
type guardedCall struct {
	transport *Transport
	call      ModelCall
	request   earmark.ReservationRequest
	key       string
	ctx       context.Context // does not end with the request's
	run       *run            // nil if Earmark is away and the call goes without
	identity  identity
	earlier   int64 // estimated input of earlier attempts whose outcome nobody knows
	attempts  int64
	once      sync.Once
}

func (g *guardedCall) send(r *http.Request, body []byte) (*http.Response, error) {
	asked := askForUsage(g.call, body) // mutation: asks-for-usage
	if asked != nil {
		body = asked
	}
	ctx, connection := watchConnection(r.Context())
	sent := r.Clone(ctx)
	sent.Body = io.NopCloser(bytes.NewReader(body))
	sent.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	sent.ContentLength = int64(len(body))
	sent.Header.Del("Content-Length")
	sent.Header.Del("Accept-Encoding") // the base negotiates it, and passes plain bytes on
	response, err := g.transport.base.RoundTrip(sent)
	if err != nil {
		g.end(ending{nothingSent: connection.neverMade(err)})
		return nil, err
	}
	return g.pass(r.Context(), response, asked != nil), nil
}

// pass returns the answer, whose end settles the call.
func (g *guardedCall) pass(ctx context.Context, response *http.Response, hideUsage bool) *http.Response {
	switch kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); {
	case response.StatusCode < 200 || response.StatusCode > 299:
		g.end(ending{nothingSent: billsNothing(response.StatusCode)})
	case kind == "text/event-stream":
		stream := &streamBody{source: response.Body, call: g, hideUsage: hideUsage, reader: streamReader{call: g.call}}
		stream.watch(ctx)
		response.Body = stream
		if hideUsage {
			response.Header.Del("Content-Length")
			response.ContentLength = -1
		}
	case g.call.Stream:
		whole := &wholeBody{source: response.Body, call: g}
		whole.watch(ctx)
		response.Body = whole
	default:
		read, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		rest := io.Reader(bytes.NewReader(read))
		if err == nil {
			g.end(ending{counts: countsOf(g.call.API, read), answered: true})
		} else {
			g.end(ending{answered: true})
			rest = io.MultiReader(rest, failing{err})
		}
		response.Body = io.NopCloser(rest)
	}
	return response
}

// ending is how a call ended.
type ending struct {
	counts      *counts // nil if nobody knows them
	nothingSent bool    // the provider bills nothing
	answered    bool    // an answer has begun, so the SDK does not try again
}

// end settles. What cannot be settled is logged and reported: the answer of the provider
// stands.
func (g *guardedCall) end(how ending) {
	g.once.Do(func() { // mutation: ends-once
		said := g.report(how)
		if g.run == nil {
			g.chargeLater(said) // mutation: charged-later
			return
		}
		_, err := g.run.end(g.ctx, said)
		var unsettled *UnsettledError
		switch errors.As(err, &unsettled); {
		case err == nil || unsettled == nil:
		case unsettled.Verb == "" && !how.answered:
			g.transport.left.put(g.identity, leftRun{run: g.run, input: g.earlier + estimatedInput(g.call), attempts: g.attempts})
		case unsettled.Verb == verbCommit && !unsettled.Refused():
			g.transport.later.add(g.ctx, g.recommit(said)) // mutation: recommit
		}
	})
}

func (g *guardedCall) report(how ending) report {
	if how.counts == nil {
		return report{failed: true, nothingSent: how.nothingSent && g.attempts == 1}
	}
	c := *how.counts
	// An attempt before this one may have been billed too.
	if g.earlier > 0 { // mutation: earlier-attempts
		c = counts{input: c.input + g.earlier, output: c.output}
	}
	said := report{estimated: !c.exact} // mutation: marked-estimate
	if units := g.transport.options.Units; len(units) > 0 {
		said.usage = c.amounts(units, g.attempts)
	} else {
		said.response = c.response()
	}
	return said
}

// billsNothing reports whether a provider that answers with this status bills nothing.
// Behind a time-out the model may have run.
func billsNothing(status int) bool {
	switch status {
	case http.StatusRequestTimeout, 499, http.StatusGatewayTimeout, 522, 524: // the last are of nginx and Cloudflare
		return false // mutation: may-be-billed
	}
	return true
}

// connection says whether a call had one.
type connection struct{ wanted, made atomic.Bool }

func watchConnection(ctx context.Context) (context.Context, *connection) {
	c := &connection{}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { c.wanted.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { c.made.Store(true) },
	}), c
}

// neverMade reports whether the connection was never made. A base that is no
// http.Transport may not trace; then the error must say it.
func (c *connection) neverMade(err error) bool {
	var network *net.OpError
	return c.wanted.Load() && !c.made.Load() || errors.As(err, &network) && network.Op == "dial"
}

func readBody(r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	defer closeBody(r)
	body, err := io.ReadAll(io.LimitReader(r.Body, maxCallBytes+1))
	if err != nil {
		return nil, fmt.Errorf("the body of the call cannot be read: %w", err)
	}
	return body, nil
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
