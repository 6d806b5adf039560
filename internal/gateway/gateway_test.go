package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/fakeprovider"
	"github.com/earmark-dev/earmark/internal/gateway"
)

const (
	boundKey  = "emk_bound"
	wideKey   = "emk_wide"
	readKey   = "emk_read"
	secret    = "sk-of-the-provider"
	chatPath  = "/v1/chat/completions"
	chatBody  = `{"model":"gpt-5","max_tokens":50}`
	streaming = `{"model":"gpt-5","max_tokens":50,"stream":true}`
)

// fakeEarmark admits everything for the keys that it knows.
type fakeEarmark struct {
	mu      sync.Mutex
	calls   []string           // verb, key, and what matters of the body
	held    map[string]string  // the models of the reservations that are not settled, by id
	charges map[string][]int64 // the tokens that were charged, by model; -1 for an estimate
	away    bool
	limited bool
	deny    bool
}

var keyScopes = map[string][]string{boundKey: {"acme/ml"}, wideKey: {}, readKey: {}}

func (f *fakeEarmark) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	scopes, known := keyScopes[key]
	answer := func(status int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}
	var body struct {
		Scopes        []string
		ProviderUsage json.RawMessage `json:"provider_usage"`
		Estimated     bool
		Metadata      struct{ Model string }
	}
	raw, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(raw, &body)
	id := "rsv_1"
	switch parts := strings.Split(r.URL.Path, "/"); {
	case f.limited:
		w.Header().Set("Retry-After", "60")
		answer(429, map[string]any{"code": "rate_limited", "detail": "the key has no call left"})
	case f.away:
		answer(503, map[string]any{"code": "unavailable", "detail": "away"})
	case !known:
		answer(401, map[string]any{"code": "unauthenticated", "detail": "no such key"})
	case r.URL.Path == "/v1/whoami":
		role := earmark.RoleReserve
		if key == readKey {
			role = earmark.RoleRead
		}
		answer(200, earmark.Caller{Tenant: "t", Role: role, Scopes: scopes})
	case r.URL.Path == "/v1/reservations" && f.deny:
		answer(402, map[string]any{"code": "budget_exceeded", "detail": "tokens do not fit", "violations": []earmark.Violation{{Scope: "acme/ml"}}})
	case r.URL.Path == "/v1/reservations":
		f.calls = append(f.calls, "reserve "+key+" "+strings.Join(body.Scopes, ","))
		id = fmt.Sprintf("rsv_%d", len(f.calls))
		f.held[id] = body.Metadata.Model
		answer(201, earmark.Reservation{ID: id, State: earmark.StateHeld, OnExpiry: earmark.OnExpiryCommit})
	case r.URL.Path == "/v1/usage":
		f.calls = append(f.calls, "usage "+key+" "+string(body.ProviderUsage))
		answer(201, earmark.Reservation{ID: id})
	default:
		said := parts[len(parts)-1] + " " + key
		if body.Estimated {
			said += " estimated"
		}
		f.calls = append(f.calls, said)
		id = parts[len(parts)-2]
		f.charge(id, body.ProviderUsage, body.Estimated)
		answer(200, earmark.Reservation{ID: id, State: earmark.StateCommitted})
	}
}

func (f *fakeEarmark) charge(id string, providerUsage json.RawMessage, estimated bool) {
	var usage struct {
		Tokens int64 `json:"total_tokens"`
	}
	_ = json.Unmarshal(providerUsage, &usage) // a release has none
	if estimated {
		usage.Tokens = -1
	}
	f.charges[f.held[id]] = append(f.charges[f.held[id]], usage.Tokens)
	delete(f.held, id)
}

func (f *fakeEarmark) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeEarmark) said() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string{}, f.calls...)
}

type env struct {
	earmark  *fakeEarmark
	provider *fakeprovider.Provider
	gateway  *gateway.Gateway
	url      string
}

func setup(t *testing.T, change func(*gateway.Options)) *env {
	t.Helper()
	e := &env{earmark: &fakeEarmark{held: map[string]string{}, charges: map[string][]int64{}}, provider: &fakeprovider.Provider{}}
	server := httptest.NewServer(e.earmark)
	t.Cleanup(server.Close)
	upstream, stop := e.provider.Serve()
	t.Cleanup(stop)
	earmarks, err := client.New(server.URL, client.WithMaxAttempts(1), client.WithLogger(slog.New(slog.DiscardHandler)))
	require.NoError(t, err)
	address, err := url.Parse(upstream + "/base")
	require.NoError(t, err)
	options := gateway.Options{
		Upstream: address, ProviderKey: secret, Earmark: earmarks, Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
		Transport: client.TransportOptions{OnExpiry: earmark.OnExpiryCommit},
	}
	if change != nil {
		change(&options)
	}
	e.gateway, err = gateway.New(options)
	require.NoError(t, err)
	front := httptest.NewServer(e.gateway)
	t.Cleanup(front.Close)
	e.url = front.URL
	return e
}

func (e *env) call(t *testing.T, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, e.url+path, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	read, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return response, string(read)
}

// The provider's key takes the place of Earmark's, in each header in which SDKs have it, and
// the provider learns nothing of Earmark.
func TestKeysAreExchanged(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ header, value, path, provider string }{
		{"Authorization", "Bearer " + boundKey, chatPath, "Bearer " + secret},
		{"X-Api-Key", boundKey, "/v1/messages", secret},
		{"X-Goog-Api-Key", boundKey, "/v1beta/models/gemini-3:generateContent", secret},
		{"X-Goog-Api-Key", "", "/v1beta/models/gemini-3:generateContent?alt=json&key=" + boundKey, secret},
	} {
		e := setup(t, nil)
		response, body := e.call(t, http.MethodPost, test.path, chatBody, test.header, test.value,
			"Cookie", "a=b", "Earmark-Scope", "acme/ml/u1", "Earmark-Other", "x", "OpenAI-Organization", "another", "Anthropic-Beta", "kept")
		require.Equal(t, http.StatusOK, response.StatusCode, body)
		require.Contains(t, body, "three ✓")
		got := e.provider.Calls()[0]
		require.Equal(t, test.provider, got.Header.Get(test.header))
		require.True(t, strings.HasPrefix(got.Path, "/base/v1"), got.Path)
		require.Len(t, got.Body, len(chatBody))
		require.Equal(t, "kept", got.Header.Get("Anthropic-Beta"))
		for name, values := range got.Header {
			require.NotContains(t, strings.Join(values, " "), "emk_", name)
			require.NotContains(t, []string{"Cookie", "Earmark-Scope", "Earmark-Other", "Openai-Organization", "X-Forwarded-For"}, name)
		}
		require.Equal(t, []string{"reserve " + boundKey + " acme/ml/u1", "commit " + boundKey}, e.earmark.said())
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	e := setup(t, nil)
	for _, test := range []struct {
		key, scope string
		status     int
		words      string
	}{
		{boundKey, "", 200, ""},
		{wideKey, "globex, acme/ml", 200, ""},
		{boundKey, "globex", 403, "the key is not bound to"},
		{wideKey, "", 400, "Earmark-Scope: is missing, and the key is bound to 0 scopes"},
		{wideKey, "a//b", 400, "Earmark-Scope"},
		{readKey, "acme", 403, `role \"read\"`},
		{"emk_nobody", "acme", 401, "no such key"},
		{"sk-of-somebody", "acme", 401, "the gateway needs a key of Earmark"},
		{"", "acme", 401, "the gateway needs a key of Earmark"},
	} {
		header := []string{"Authorization", "Bearer " + test.key}
		if test.scope != "" {
			header = append(header, gateway.ScopeHeader, test.scope)
		}
		response, body := e.call(t, http.MethodPost, chatPath, chatBody, header...)
		require.Equal(t, test.status, response.StatusCode, body)
		require.Contains(t, body, test.words)
		if test.status != http.StatusOK {
			require.Equal(t, "false", response.Header.Get("X-Should-Retry"))
			var refused struct{ Error struct{ Type string } }
			require.NoError(t, json.Unmarshal([]byte(body), &refused))
			require.Equal(t, "earmark", refused.Error.Type)
		}
	}
	require.Len(t, e.provider.Calls(), 2)
	require.Equal(t, []string{"reserve emk_bound acme/ml", "commit emk_bound", "reserve emk_wide globex,acme/ml", "commit emk_wide"}, e.earmark.said())
}

// Whoever has a key of Earmark may make calls of models, and nothing else.
func TestOtherCallsDoNotPass(t *testing.T) {
	t.Parallel()
	auth := []string{"Authorization", "Bearer " + boundKey}
	e := setup(t, nil)
	for _, test := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/v1/models", 200}, {"GET", "/v1beta/models/gemini-3", 200}, {"POST", "/v1/messages/count_tokens", 200},
		{"GET", "/v1/files", 400}, {"DELETE", "/v1/files/f1", 400}, {"GET", "/v1/responses/r1", 400}, {"POST", "/v1/images/generations", 400}, {"PUT", chatPath, 400},
		{"POST", "/v1/files/x/%2e%2e/chat/completions", 400}, {"POST", "/v1/files;/chat/completions", 400}, {"POST", "/v1/files%2f/chat/completions", 400}, {"POST", "/v1//chat/completions", 400},
	} {
		response, body := e.call(t, test.method, test.path, "{}", auth...)
		require.Equal(t, test.status, response.StatusCode, "%s %s: %s", test.method, test.path, body)
	}
	require.Len(t, e.provider.Calls(), 3)
	require.Empty(t, e.earmark.said())
	response, _ := e.call(t, http.MethodGet, "/v1/models", "")
	require.Equal(t, http.StatusUnauthorized, response.StatusCode, "a key is needed for what is free, too")

	open := setup(t, func(o *gateway.Options) { o.Transport.PassUnknown = true })
	response, _ = open.call(t, http.MethodGet, "/v1/files", "", auth...)
	require.Equal(t, http.StatusOK, response.StatusCode)
}

// A provider that answers a call without a reservation before it has read the whole body loses neither.
func TestAnswersBeforeTheEndOfTheBody(t *testing.T) {
	t.Parallel()
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := http.NewResponseController(w)
		_ = answer.EnableFullDuplex()
		_ = answer.Flush()
		read, err := io.ReadAll(r.Body)
		_, _ = fmt.Fprint(w, len(read), err)
	}))
	t.Cleanup(provider.Close)
	e := setup(t, func(o *gateway.Options) {
		var err error
		o.Upstream, err = url.Parse(provider.URL)
		require.NoError(t, err)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	body, rest := io.Pipe()
	defer context.AfterFunc(ctx, func() { _ = rest.CloseWithError(ctx.Err()) })()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+"/v1/messages/count_tokens", body)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+boundKey)
	go func() { _, _ = io.WriteString(rest, "0123456789") }()
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	_, err = io.WriteString(rest, "0123456789")
	require.NoError(t, err)
	require.NoError(t, rest.Close())
	read, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, "20 <nil>", string(read))
}

func TestStreamsPassAtOnce(t *testing.T) {
	t.Parallel()
	e := setup(t, nil)
	gate := make(chan struct{}, 1)
	e.provider.Behave = func(fakeprovider.Call) fakeprovider.Behaviour { return fakeprovider.Behaviour{Gate: gate} }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+chatPath, strings.NewReader(streaming))
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+boundKey)
	gate <- struct{}{}
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	first := make([]byte, 20)
	_, err = io.ReadFull(response.Body, first) // while the provider waits
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(first), "data: "))
	cancel() // the caller leaves
	require.Eventually(t, func() bool {
		said := e.earmark.said()
		return said[len(said)-1] == "commit "+boundKey+" estimated"
	}, 10*time.Second, time.Millisecond)
	e.gateway.Close(t.Context())
}

func TestDenialAndFaults(t *testing.T) {
	t.Parallel()
	auth := []string{"Authorization", "Bearer " + boundKey}
	e := setup(t, nil)
	e.earmark.set(func() { e.earmark.deny = true })
	response, body := e.call(t, http.MethodPost, chatPath, chatBody, auth...)
	require.Equal(t, http.StatusPaymentRequired, response.StatusCode)
	require.Contains(t, body, `"violations"`)
	require.Empty(t, e.provider.Calls())

	e.earmark.set(func() { e.earmark.deny, e.earmark.away = false, true })
	response, body = e.call(t, http.MethodPost, chatPath, chatBody, auth...)
	require.Equal(t, http.StatusServiceUnavailable, response.StatusCode, body)
	require.Empty(t, e.provider.Calls())

	limited := setup(t, nil)
	limited.earmark.set(func() { limited.earmark.limited = true })
	response, body = limited.call(t, http.MethodPost, chatPath, chatBody, auth...)
	require.Equal(t, http.StatusTooManyRequests, response.StatusCode, body)
	require.Equal(t, []string{"60", "false"}, []string{response.Header.Get("Retry-After"), response.Header.Get("X-Should-Retry")})
	require.Empty(t, limited.provider.Calls())

	gone := setup(t, func(o *gateway.Options) { o.Upstream = &url.URL{Scheme: "http", Host: "127.0.0.1:1"} })
	response, body = gone.call(t, http.MethodPost, chatPath, chatBody, auth...)
	require.Equal(t, http.StatusBadGateway, response.StatusCode)
	require.NotContains(t, body, "127.0.0.1")
	require.Equal(t, []string{"reserve emk_bound acme/ml", "release emk_bound"}, gone.earmark.said())
}

// While Earmark is away only keys that it knew are good.
func TestFailOpenNeedsAKnownKey(t *testing.T) {
	t.Parallel()
	e := setup(t, func(o *gateway.Options) { o.Transport.FailOpen = true })
	call := func(key string) int {
		response, _ := e.call(t, http.MethodPost, chatPath, chatBody, "Authorization", "Bearer "+key)
		return response.StatusCode
	}
	require.Equal(t, http.StatusOK, call(boundKey))
	e.earmark.set(func() { e.earmark.away = true })
	require.Equal(t, http.StatusOK, call(boundKey))
	require.Equal(t, http.StatusServiceUnavailable, call(wideKey))
	require.Equal(t, http.StatusServiceUnavailable, call("emk_nobody"))
	require.Len(t, e.provider.Calls(), 2)
	e.earmark.set(func() { e.earmark.away = false })
	e.gateway.Close(t.Context())
	said := e.earmark.said()
	require.Equal(t, `usage emk_bound {"completion_tokens":7,"prompt_tokens":11,"total_tokens":18}`, said[len(said)-1])
}

// On a loopback address a caller may need no key; a web page must not be such a caller.
func TestWebPagesAreRefused(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		host, header, value, refused string
	}{
		{host: "rebound.example", refused: "Host"}, // a name of the page's own site, pointed here
		{header: "Sec-Fetch-Site", value: "cross-site", refused: "Origin"},
		{header: "Origin", value: "https://other.example", refused: "Origin"},
		{host: "llm.example.org"}, // configured
		{host: "gateway:8081"},
		{header: "Sec-Fetch-Site", value: "same-origin"},
	} {
		e := setup(t, func(o *gateway.Options) { o.Hosts = []string{"llm.example.org"} })
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url+chatPath, strings.NewReader(chatBody))
		require.NoError(t, err)
		r.Host = test.host
		r.Header.Set("Authorization", "Bearer "+boundKey)
		if test.header != "" {
			r.Header.Set(test.header, test.value)
		}
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		if test.refused == "" {
			require.Equal(t, http.StatusOK, response.StatusCode, "%+v: %s", test, body)
			continue
		}
		require.Equal(t, http.StatusForbidden, response.StatusCode, "%+v: %s", test, body)
		require.Contains(t, string(body), `"message":"Earmark: `+test.refused)
		require.Empty(t, e.earmark.said())
		require.Empty(t, e.provider.Calls())
	}
}
