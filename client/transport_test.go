package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/client/internal/fake"
	"github.com/earmark-dev/earmark/internal/fakeprovider"
)

const (
	billed    = fakeprovider.Input + fakeprovider.Output
	chatBody  = `{"model": "gpt-5", "messages": [{"role":"user","content":"Count."}]}`
	chatPath  = "/v1/chat/completions"
	streaming = `{"model":"gpt-5","stream":true}`
	events    = "text/event-stream"
)

// guarded is a provider behind a Transport, and the Earmark that it asks.
type guarded struct {
	provider  *fakeprovider.Provider
	url       string
	earmark   *fake.Earmark
	transport *client.Transport
	http      *http.Client

	mu        sync.Mutex
	log       bytes.Buffer
	unsettled []*client.UnsettledError
	uncharged []earmark.UsageRequest
}

func (g *guarded) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.Write(p)
}

func newGuarded(t *testing.T, change func(*client.TransportOptions)) *guarded {
	t.Helper()
	g := &guarded{provider: &fakeprovider.Provider{}, earmark: &fake.Earmark{Limit: 1_000_000}}
	var stop func()
	g.url, stop = g.provider.Serve()
	t.Cleanup(stop)
	base := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(base.CloseIdleConnections)
	c, err := client.New("http://earmark.test", client.WithHTTPClient(&http.Client{Transport: g.earmark}), client.WithMaxAttempts(1),
		client.WithSettleLimit(time.Second), client.WithLogger(slog.New(slog.NewTextHandler(g, nil))),
		client.WithUnsettled(func(_ context.Context, e *client.UnsettledError) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.unsettled = append(g.unsettled, e)
		}))
	require.NoError(t, err)
	options := client.TransportOptions{Scopes: []string{"acme"}, OnExpiry: earmark.OnExpiryCommit, Base: base,
		Uncharged: func(_ context.Context, usage earmark.UsageRequest, _ error) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.uncharged = append(g.uncharged, usage)
		}}
	if change != nil {
		change(&options)
	}
	g.transport, err = client.NewTransport(c, options)
	require.NoError(t, err)
	t.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		g.transport.Close(ended)
	})
	g.http = &http.Client{Transport: g.transport}
	return g
}

func (g *guarded) behave(how fakeprovider.Behaviour) {
	g.provider.Behave = func(fakeprovider.Call) fakeprovider.Behaviour { return how }
}

// call makes a call and returns the answer as far as it came.
func (g *guarded) call(ctx context.Context, path, body string, header ...string) (status int, answer string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := g.http.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	read, err := io.ReadAll(response.Body)
	return response.StatusCode, string(read), err
}

// requireSent checks the bytes that the provider got.
func (g *guarded) requireSent(t *testing.T, body string) {
	t.Helper()
	require.Equal(t, body, g.provider.Calls()[0].Body)
}

// settlement returns what Earmark got after the last reserve.
func (g *guarded) settlement(t *testing.T) (settled struct {
	Verb          string
	Usage         earmark.Amounts
	ProviderUsage map[string]any `json:"provider_usage"`
	UsageFormat   string         `json:"usage_format"`
	Estimated     bool
}) {
	t.Helper()
	calls := g.earmark.Calls()
	last := calls[len(calls)-1]
	require.NoError(t, json.Unmarshal([]byte(last.Body), &settled), last.Body)
	settled.Verb = last.Verb
	return settled
}

func (g *guarded) charged(t *testing.T) int64 {
	t.Helper()
	sum := int64(0)
	for _, r := range g.earmark.Reservations() {
		require.NotEqual(t, earmark.StateHeld, r.State)
		sum += r.Usage["tokens"]
	}
	return sum
}

func TestTransportCommitsWhatTheProviderSays(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, path, body string }{
		{"chat", chatPath, chatBody},
		{"chat stream", chatPath, streaming},
		{"chat stream with usage", chatPath, `{"model":"gpt-5","stream":true,"stream_options":{"include_usage":true}}`},
		{"responses", "/v1/responses", `{"model":"gpt-5"}`},
		{"responses stream", "/v1/responses", streaming},
		{"messages", "/v1/messages", `{"model":"claude","max_tokens":5}`},
		{"messages stream", "/v1/messages", `{"model":"claude","max_tokens":5,"stream":true}`},
		{"gemini", "/v1beta/models/gemini-3:generateContent", `{"contents":[]}`},
		{"gemini stream", "/v1beta/models/gemini-3:streamGenerateContent?alt=sse", `{"contents":[]}`},
	} {
		for _, units := range [][]string{nil, {"tokens"}} {
			t.Run(fmt.Sprint(test.name, units), func(t *testing.T) {
				t.Parallel()
				g := newGuarded(t, func(o *client.TransportOptions) { o.Units = units })
				status, answer, err := g.call(t.Context(), test.path, test.body)
				require.NoError(t, err)
				require.Equal(t, http.StatusOK, status)
				require.Contains(t, answer, "three ✓")
				require.Equal(t, []string{"reserve", "commit"}, g.earmark.Verbs())
				require.False(t, g.settlement(t).Estimated)
				require.EqualValues(t, billed, g.charged(t))
				require.EqualValues(t, billed, g.provider.Billed())
			})
		}
	}
}

// The reader of an answer learns of its end when the call is charged, before it closes the body.
func TestTransportChargesBeforeTheEnd(t *testing.T) {
	t.Parallel()
	for _, body := range []string{chatBody, streaming} {
		g := newGuarded(t, nil)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+chatPath, strings.NewReader(body))
		require.NoError(t, err)
		response, err := g.http.Do(r)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, response.Body)
		require.NoError(t, err)
		require.EqualValues(t, billed, g.charged(t))
		require.NoError(t, response.Body.Close())
	}
}

func TestTransportPassesTheLastBytesBeforeItSettles(t *testing.T) {
	t.Parallel()
	for _, body := range []string{`{"model":"gpt-5","stream":true,"stream_options":{"include_usage":true}}`, streaming} {
		g := newGuarded(t, nil)
		const stream = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7}}\n\ndata: [DONE]\n\n"
		g.answer(t, events, iotest.DataErrReader(strings.NewReader(stream)))
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+chatPath, strings.NewReader(body))
		require.NoError(t, err)
		response, err := g.http.Do(r)
		require.NoError(t, err)
		n, err := response.Body.Read(make([]byte, 1024))
		require.NoError(t, err)
		require.Positive(t, n)
		require.Equal(t, []string{"reserve"}, g.earmark.Verbs())
		_, err = response.Body.Read(make([]byte, 1024))
		require.Equal(t, io.EOF, err)
		require.EqualValues(t, billed, g.charged(t))
		require.NoError(t, response.Body.Close())
	}
}

func TestTransportReadsEveryLineEnd(t *testing.T) {
	t.Parallel()
	const (
		word  = `data: {"choices":[{"index":0,"delta":{"content":"one"},"finish_reason":"stop"}]}`
		usage = `data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7}}`
		done  = `data: [DONE]`
	)
	for name, end := range map[string]string{"LF": "\n", "CRLF": "\r\n", "CR": "\r"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole := strings.Join([]string{word, "", usage, "", done, "", ""}, end)
			shown := strings.Join([]string{word, "", done, "", ""}, end)
			for split := range len(whole) + 1 {
				g := newGuarded(t, nil)
				g.answer(t, events, io.MultiReader(strings.NewReader(whole[:split]), strings.NewReader(whole[split:])))
				_, answer, err := g.call(t.Context(), chatPath, streaming)
				require.NoError(t, err)
				require.Equal(t, shown, answer, "split at %d", split)
				require.EqualValues(t, billed, g.charged(t), "split at %d", split)
				require.False(t, g.settlement(t).Estimated, "split at %d", split)
			}
			g := newGuarded(t, nil)
			g.answer(t, events, iotest.OneByteReader(strings.NewReader(whole)))
			_, answer, err := g.call(t.Context(), chatPath, streaming)
			require.NoError(t, err)
			require.Equal(t, shown, answer)
			require.EqualValues(t, billed, g.charged(t))

			// An event is passed on although nothing follows.
			g = newGuarded(t, nil)
			rest, more := io.Pipe()
			g.answer(t, events, io.MultiReader(strings.NewReader(word+end+end), rest))
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+chatPath, strings.NewReader(streaming))
			require.NoError(t, err)
			response, err := g.http.Do(r)
			require.NoError(t, err)
			first := make([]byte, len(word+end+end))
			_, err = io.ReadFull(response.Body, first)
			require.NoError(t, err)
			require.Equal(t, word+end+end, string(first))
			require.NoError(t, more.Close())
			require.NoError(t, response.Body.Close())
		})
	}
}

func TestTransportReserves(t *testing.T) {
	t.Parallel()
	reserved := func(t *testing.T, g *guarded) (request earmark.ReservationRequest) {
		t.Helper()
		require.NoError(t, json.Unmarshal([]byte(g.earmark.Calls()[0].Body), &request))
		return request
	}
	t.Run("an estimate", func(t *testing.T) {
		t.Parallel()
		g := newGuarded(t, func(o *client.TransportOptions) { o.Provider = "openai" })
		const body = `{"model":"gpt-5","max_completion_tokens":100,"n":2,"service_tier":"flex"}`
		_, _, err := g.call(t.Context(), chatPath, body)
		require.NoError(t, err)
		hundred := int64(100)
		require.Equal(t, &earmark.Estimate{Model: "gpt-5", Provider: "openai", InputTokens: int64(len(body)), MaxOutputTokens: &hundred, N: 2, ServiceTier: "flex"},
			reserved(t, g).Estimate)
		require.Equal(t, earmark.Metadata{"api": "openai_chat", "model": "gpt-5"}, reserved(t, g).Metadata)
		g.requireSent(t, body)
	})
	t.Run("units of its own", func(t *testing.T) {
		t.Parallel()
		g := newGuarded(t, func(o *client.TransportOptions) {
			o.Units, o.MaxOutputTokens = []string{"input_tokens", "output_tokens", "requests"}, 30
			o.InputTokens = func(*http.Request, client.ModelCall) int64 { return 20 }
		})
		_, _, err := g.call(t.Context(), chatPath, chatBody)
		require.NoError(t, err)
		require.Equal(t, earmark.Amounts{"input_tokens": 20, "output_tokens": 30, "requests": 1}, reserved(t, g).Amounts)
		require.Equal(t, earmark.Amounts{"input_tokens": 11, "output_tokens": 7, "requests": 1}, g.settlement(t).Usage)
	})
	t.Run("the model of a path, and of an embedding without output", func(t *testing.T) {
		t.Parallel()
		g := newGuarded(t, nil)
		_, _, err := g.call(t.Context(), "/openai/deployments/my%20ada/embeddings", `{"input":"x"}`)
		require.NoError(t, err)
		require.Equal(t, "my ada", reserved(t, g).Estimate.Model)
		require.Zero(t, *reserved(t, g).Estimate.MaxOutputTokens)
		require.EqualValues(t, fakeprovider.Input, g.charged(t))
	})
	t.Run("scopes of the call", func(t *testing.T) {
		t.Parallel()
		g := newGuarded(t, func(o *client.TransportOptions) {
			o.Scopes = nil
			o.ScopesOf = func(r *http.Request, call client.ModelCall) ([]string, error) {
				return []string{r.Header.Get("Team") + "/" + call.Model}, nil
			}
		})
		_, _, err := g.call(t.Context(), chatPath, chatBody, "Team", "acme")
		require.NoError(t, err)
		require.Equal(t, []string{"acme/gpt-5"}, reserved(t, g).Scopes)
	})
}

// The extra chunk is hidden from who did not ask, and each other byte is as it was.
func TestTransportAsksForUsage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ body, sent string }{
		{streaming, `{"stream_options":{"include_usage":true},"model":"gpt-5","stream":true}`},
		{" {\n \"model\":\"m\", \"stream\": true, \"stream_options\" : null , \"x\":1.50}", " {\n \"model\":\"m\", \"stream\": true, \"stream_options\" : {\"include_usage\":true} , \"x\":1.50}"},
		{`{"model":"m","stream":true,"stream_options":{},"é":"\u00e9"}`, `{"model":"m","stream":true,"stream_options":{"include_usage":true},"é":"\u00e9"}`},
		{`{"model":"m","stream":true,"stream_options":{"include_obfuscation": false,"include_usage":false}}`, `{"model":"m","stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}`},
	} {
		g := newGuarded(t, nil)
		_, answer, err := g.call(t.Context(), chatPath, test.body)
		require.NoError(t, err)
		require.Equal(t, test.sent, g.provider.Calls()[0].Body)
		require.NotContains(t, answer, `"usage"`)
		require.Contains(t, answer, "data: [DONE]\n\n")
		require.Equal(t, 5, strings.Count(answer, "data: "))
		require.EqualValues(t, billed, g.charged(t))
	}
	for _, body := range []string{chatBody, `{"model":"gpt-5","stream":true,"stream_options":{"include_usage":true}}`} {
		g := newGuarded(t, nil)
		_, answer, err := g.call(t.Context(), chatPath, body)
		require.NoError(t, err)
		g.requireSent(t, body)
		require.Contains(t, answer, `"usage"`)
	}
}

func TestTransportRefuses(t *testing.T) {
	t.Parallel()
	type answer struct {
		Type, Code string
		Violations []earmark.Violation
		Error      struct {
			Message, Type, Code string
			Violations          []earmark.Violation
		}
	}
	for _, test := range []struct {
		name        string
		intercept   http.HandlerFunc
		limit       int64
		path, body  string
		status      int
		code, words string
		violations  int
	}{
		{"a denial", nil, 10, chatPath, chatBody, 402, "budget_exceeded", "tokens do not fit into the budget on acme", 1},
		{"Earmark away", fake.Unavailable(), 0, chatPath, chatBody, 503, "unavailable", "Earmark: Postgres or Temporal is away", 0},
		{"a key beyond its rate", fake.Problem(429, "rate_limited", "slow down"), 0, chatPath, chatBody, 429, "rate_limited", "Earmark: slow down", 0},
		{"a scope without a budget", fake.Problem(404, "no_budget", "meets no budget"), 0, chatPath, chatBody, 400, "no_budget", "Earmark: meets no budget", 0},
		{"a wrong key", fake.Problem(401, "unauthenticated", "no such key"), 0, chatPath, chatBody, 401, "unauthenticated", "Earmark: no such key", 0},
		{"an unknown call", nil, 0, "/v1/images/generations", "{}", 400, "unknown_call", "POST /v1/images/generations is no call that the guard knows", 0},
		{"no JSON", nil, 0, chatPath, "no json", 400, "unknown_call", "it is no JSON text", 0},
		{"JSON and more", nil, 0, chatPath, chatBody + "x", 400, "unknown_call", "it is no JSON text", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			g := newGuarded(t, nil)
			g.earmark.Limit = test.limit
			if test.intercept != nil {
				g.earmark.Intercept = func(string, int) http.HandlerFunc { return test.intercept }
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+test.path, strings.NewReader(test.body))
			require.NoError(t, err)
			response, err := g.http.Do(r)
			require.NoError(t, err)
			defer func() { _ = response.Body.Close() }()
			var got answer
			raw, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(raw, &got), string(raw))
			require.Equal(t, test.status, response.StatusCode, string(raw))
			require.Equal(t, "false", response.Header.Get("X-Should-Retry"))
			require.Equal(t, []string{test.code, test.code, "earmark"}, []string{got.Code, got.Error.Code, got.Error.Type})
			require.Contains(t, got.Error.Message, test.words)
			require.Len(t, got.Violations, test.violations)
			require.Len(t, got.Error.Violations, test.violations)
			require.Empty(t, g.provider.Calls())
			if denied := client.DenialOf(fmt.Errorf("POST \"x\": 402 Payment Required {\"a\": %s", raw)); test.status == http.StatusPaymentRequired {
				require.NotNil(t, denied)
				require.Equal(t, got.Violations, denied.Violations)
				require.Equal(t, "urn:earmark:problem:budget_exceeded", got.Type)
			} else {
				require.Nil(t, denied)
			}
		})
	}
}

func TestTransportPassesWhatIsFree(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, nil)
	status, _, err := g.call(t.Context(), "/v1/messages/count_tokens", "{}")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	response, err := g.http.Get(g.url + "/v1/models")
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Empty(t, g.earmark.Verbs())

	g = newGuarded(t, func(o *client.TransportOptions) { o.PassUnknown = true })
	status, _, err = g.call(t.Context(), "/v1/images/generations", "{}")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	require.Empty(t, g.earmark.Verbs())
}

func TestTransportAtAnEnding(t *testing.T) {
	t.Parallel()
	estimatedInput := int64(len(streaming)+3) / 4

	t.Run("a stream that breaks is charged what it sent, as an estimate", func(t *testing.T) {
		t.Parallel()
		g := newGuarded(t, nil)
		g.behave(fakeprovider.Behaviour{Cut: true, CutAfter: 2})
		_, answer, err := g.call(t.Context(), chatPath, streaming)
		require.Error(t, err)
		require.Equal(t, 2, strings.Count(answer, "data: "))
		require.True(t, g.settlement(t).Estimated)
		require.Equal(t, "openai_chat", g.settlement(t).UsageFormat)
		require.Equal(t, estimatedInput+2, g.charged(t))
	})
	t.Run("with the input that the provider counted", func(t *testing.T) {
		t.Parallel()
		g := newGuarded(t, nil)
		g.behave(fakeprovider.Behaviour{Cut: true, CutAfter: 4})
		_, _, err := g.call(t.Context(), "/v1/messages", streaming)
		require.Error(t, err)
		require.True(t, g.settlement(t).Estimated)
		require.EqualValues(t, fakeprovider.Input+2, g.charged(t))
	})
	for name, leave := range map[string]func(io.Closer, context.CancelFunc){
		"a reader who closes is charged what was sent, as an estimate":     func(body io.Closer, _ context.CancelFunc) { _ = body.Close() },
		"a cancelled call, read no more, is charged the same":              func(_ io.Closer, cancel context.CancelFunc) { cancel() },
		"a cancelled call that is closed at the same time is charged once": func(body io.Closer, cancel context.CancelFunc) { cancel(); _ = body.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGuarded(t, nil)
			gate := make(chan struct{}, 1)
			g.behave(fakeprovider.Behaviour{Gate: gate})
			committed := make(chan struct{})
			g.earmark.Intercept = func(verb string, _ int) http.HandlerFunc {
				if verb == "commit" {
					close(committed) // twice would panic
				}
				return nil
			}
			gate <- struct{}{}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url+chatPath, strings.NewReader(streaming))
			require.NoError(t, err)
			response, err := g.http.Do(r)
			require.NoError(t, err)
			defer func() { _ = response.Body.Close() }()
			first := make([]byte, 10)
			_, err = io.ReadFull(response.Body, first)
			require.NoError(t, err)
			leave(response.Body, cancel)
			select {
			case <-committed:
			case <-time.After(10 * time.Second):
				require.Fail(t, "the call was not charged")
			}
			require.Eventually(t, func() bool { return g.charged(t) == estimatedInput+1 }, 10*time.Second, time.Millisecond)
			require.True(t, g.earmark.Reservations()[0].Estimated)
		})
	}
	t.Run("a host that sends no usage is charged an estimate", func(t *testing.T) {
		t.Parallel()
		g := newGuarded(t, nil)
		g.behave(fakeprovider.Behaviour{NoUsage: true})
		_, _, err := g.call(t.Context(), chatPath, streaming)
		require.NoError(t, err)
		require.True(t, g.settlement(t).Estimated)
	})
	t.Run("an answer without usage is left to the policy", func(t *testing.T) {
		t.Parallel()
		g := newGuarded(t, nil)
		g.behave(fakeprovider.Behaviour{NoUsage: true})
		_, _, err := g.call(t.Context(), chatPath, chatBody)
		require.NoError(t, err)
		require.Equal(t, []string{"reserve"}, g.earmark.Verbs())
		require.ErrorIs(t, g.unsettled[0], client.ErrUsageUnknown)
	})
	t.Run("a malformed stream passes unchanged, and is left to the policy", func(t *testing.T) {
		t.Parallel()
		for _, body := range []string{streaming, `{"model":"m","stream":true,"stream_options":{"include_usage":true}}`} {
			g := newGuarded(t, nil)
			raw := "garbage\xff\n\ndata: {broken\n\n: comment"
			g.behave(fakeprovider.Behaviour{Raw: raw})
			_, answer, err := g.call(t.Context(), chatPath, body)
			require.NoError(t, err)
			require.Equal(t, raw, answer)
			require.ErrorIs(t, g.unsettled[0], client.ErrUsageUnknown)
			require.Contains(t, g.log.String(), "reservation not settled")
		}
	})
	t.Run("an event that is no UTF-8 passes unchanged, and the usage after it counts", func(t *testing.T) {
		t.Parallel()
		g := newGuarded(t, nil)
		raw := "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\xff\xc3\"},\"finish_reason\":\"stop\"}]}\n\n"
		g.behave(fakeprovider.Behaviour{Raw: raw + "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7}}\n\ndata: [DONE]\n\n"})
		_, answer, err := g.call(t.Context(), chatPath, streaming)
		require.NoError(t, err)
		require.Equal(t, raw+"data: [DONE]\n\n", answer)
		require.False(t, g.settlement(t).Estimated)
		require.EqualValues(t, billed, g.charged(t))
	})
	t.Run("usage that counts nothing is no usage", func(t *testing.T) {
		t.Parallel()
		for _, usage := range []string{`{"prompt_tokens":-11,"completion_tokens":7}`, `{"prompt_tokens":11,"completion_tokens":1e300}`, `{"prompt_tokens":"11"}`, `{}`} {
			g := newGuarded(t, nil)
			raw := `{"choices":[],"usage":` + usage + `}`
			g.behave(fakeprovider.Behaviour{Raw: raw})
			_, answer, err := g.call(t.Context(), chatPath, chatBody)
			require.NoError(t, err)
			require.Equal(t, raw, answer)
			require.Equal(t, []string{"reserve"}, g.earmark.Verbs(), usage)
			require.Contains(t, g.log.String(), "reservation not settled")

			g = newGuarded(t, nil)
			g.behave(fakeprovider.Behaviour{Raw: "data: " + raw + "\n\ndata: [DONE]\n\n"})
			_, _, err = g.call(t.Context(), chatPath, streaming)
			require.NoError(t, err)
			require.True(t, g.settlement(t).Estimated, usage)
		}
	})
	t.Run("a list that Gemini streams where nobody asks for events", func(t *testing.T) {
		t.Parallel()
		g := newGuarded(t, nil)
		g.provider.Behave = func(fakeprovider.Call) fakeprovider.Behaviour { return fakeprovider.Behaviour{} }
		list := `[{"usageMetadata":{"promptTokenCount":1}},{"usageMetadata":{"promptTokenCount":11,"candidatesTokenCount":7,"totalTokenCount":18}}]`
		g.answer(t, "application/json", strings.NewReader(list))
		_, answer, err := g.call(t.Context(), "/v1beta/models/gemini-3:streamGenerateContent", `{"contents":[]}`)
		require.NoError(t, err)
		require.Equal(t, list, answer)
		require.EqualValues(t, billed, g.charged(t))
	})
	t.Run("the service tier of the answer decides the price", func(t *testing.T) {
		t.Parallel()
		g := newGuarded(t, nil)
		g.behave(fakeprovider.Behaviour{Raw: `{"service_tier":"priority","usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}`})
		_, _, err := g.call(t.Context(), chatPath, chatBody)
		require.NoError(t, err)
		require.Equal(t, "priority", g.settlement(t).ProviderUsage["service_tier"])
		require.EqualValues(t, billed, g.charged(t))
	})
}

// answer puts an answer in the place of the provider's.
func (g *guarded) answer(t *testing.T, kind string, body io.Reader) {
	t.Helper()
	c, err := client.New("http://earmark.test", client.WithHTTPClient(&http.Client{Transport: g.earmark}))
	require.NoError(t, err)
	g.http.Transport, err = client.NewTransport(c, client.TransportOptions{Scopes: []string{"acme"}, OnExpiry: earmark.OnExpiryCommit,
		Base: roundTripper(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(body)}, nil
		})})
	require.NoError(t, err)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestTransportBeforeTheFirstByte(t *testing.T) {
	t.Parallel()
	for status, verbs := range map[int][]string{
		400: {"reserve", "release"}, 401: {"reserve", "release"}, 429: {"reserve", "release"}, 500: {"reserve", "release"}, 529: {"reserve", "release"},
		408: {"reserve"}, 504: {"reserve"}, 524: {"reserve"},
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			g := newGuarded(t, nil)
			g.behave(fakeprovider.Behaviour{Status: status})
			got, answer, err := g.call(t.Context(), chatPath, chatBody)
			require.NoError(t, err)
			require.Equal(t, status, got)
			require.Contains(t, answer, "provider")
			require.Equal(t, verbs, g.earmark.Verbs())
		})
	}
	t.Run("a connection that is never made is released", func(t *testing.T) {
		t.Parallel()
		g := newGuarded(t, nil)
		closed, stop := (&fakeprovider.Provider{}).Serve()
		stop()
		g.url = closed
		_, _, err := g.call(t.Context(), chatPath, chatBody)
		require.Error(t, err)
		require.Equal(t, []string{"reserve", "release"}, g.earmark.Verbs())
	})
	t.Run("one that breaks before the answer is left to the policy", func(t *testing.T) {
		t.Parallel()
		g := newGuarded(t, nil)
		g.behave(fakeprovider.Behaviour{Cut: true})
		_, _, err := g.call(t.Context(), chatPath, chatBody)
		require.Error(t, err)
		require.Equal(t, []string{"reserve"}, g.earmark.Verbs())
	})
}

// The attempts of an SDK are one call: it holds once, and an attempt that may have been
// billed is in the charge.
func TestTransportHoldsOnceForEachCall(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, nil)
	attempts := 0
	g.provider.Behave = func(fakeprovider.Call) fakeprovider.Behaviour {
		attempts++
		return []fakeprovider.Behaviour{{Status: 504}, {Cut: true}, {Status: 500}, {}}[attempts-1]
	}
	for attempt := range 4 {
		_, _, _ = g.call(t.Context(), chatPath, chatBody, "X-Stainless-Retry-Count", fmt.Sprint(attempt))
	}
	require.Equal(t, 1, g.earmark.Count("reserve"))
	require.Equal(t, 1, g.earmark.Count("commit"))
	require.Zero(t, g.earmark.Count("release"), "the first attempt may have been billed")
	require.True(t, g.settlement(t).Estimated)
	require.EqualValues(t, billed+3*((len(chatBody)+3)/4), g.charged(t))

	for _, other := range [][]string{
		{"X-Stainless-Retry-Count", "0"},
		{"X-Stainless-Retry-Count", "1", "Authorization", "Bearer another"},
	} {
		g := newGuarded(t, nil)
		g.behave(fakeprovider.Behaviour{Status: 504})
		_, _, _ = g.call(t.Context(), chatPath, chatBody, "X-Stainless-Retry-Count", "0")
		_, _, _ = g.call(t.Context(), chatPath, chatBody, other...)
		require.Equal(t, 2, g.earmark.Count("reserve"), "another call")
	}
}

func TestTransportFailsOpen(t *testing.T) {
	t.Parallel()
	failOpen := func(o *client.TransportOptions) { o.FailOpen = true }
	// away is an Earmark that is away until back is called; it then answers usage with then.
	away := func(t *testing.T, g *guarded, then http.HandlerFunc) (back func()) {
		t.Helper()
		g.earmark.Intercept = func(string, int) http.HandlerFunc { return fake.Unavailable() }
		return func() {
			g.earmark.Replace(func(verb string, _ int) http.HandlerFunc {
				if verb == "usage" {
					return then
				}
				return nil
			})
		}
	}
	ok := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"id":"rsv_x","state":"committed"}`)
	}
	t.Run("and charges later", func(t *testing.T) {
		t.Parallel()
		g := newGuarded(t, failOpen)
		back := away(t, g, ok)
		status, answer, err := g.call(t.Context(), chatPath, streaming)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, status)
		require.Contains(t, answer, "three ✓")
		back()
		g.transport.Close(t.Context())
		var usage earmark.UsageRequest
		calls := g.earmark.Calls()
		require.Equal(t, "usage", calls[len(calls)-1].Verb)
		require.NoError(t, json.Unmarshal([]byte(calls[len(calls)-1].Body), &usage))
		require.JSONEq(t, `{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}`, string(usage.ProviderUsage))
		require.Equal(t, "gpt-5", usage.Model)
		require.Empty(t, g.uncharged)
	})
	t.Run("and charges the reservation whose answer was lost, once", func(t *testing.T) {
		t.Parallel()
		g := newGuarded(t, failOpen)
		back := away(t, g, fake.Problem(http.StatusUnprocessableEntity, earmark.CodeIdempotencyMismatch, "was used for another request"))
		lost := g.earmark.Intercept
		g.earmark.Intercept = func(verb string, nth int) http.HandlerFunc {
			if verb == "reserve" {
				return g.earmark.AnswerLost("reserve")
			}
			return lost(verb, nth)
		}
		_, _, err := g.call(t.Context(), chatPath, chatBody)
		require.NoError(t, err)
		back()
		g.transport.Close(t.Context())
		require.Len(t, g.earmark.Reservations(), 1)
		require.EqualValues(t, billed, g.charged(t))
	})
	t.Run("a call that bills nothing costs nothing", func(t *testing.T) {
		t.Parallel()
		g := newGuarded(t, failOpen)
		back := away(t, g, ok)
		g.behave(fakeprovider.Behaviour{Status: 400})
		_, _, err := g.call(t.Context(), chatPath, chatBody)
		require.NoError(t, err)
		back()
		g.transport.Close(t.Context())
		require.Zero(t, g.earmark.Count("usage"))
	})
	t.Run("usage that nobody knows is the worst case, by the policy", func(t *testing.T) {
		t.Parallel()
		g := newGuarded(t, failOpen)
		back := away(t, g, ok)
		g.behave(fakeprovider.Behaviour{NoUsage: true})
		_, _, err := g.call(t.Context(), chatPath, `{"model":"m","max_tokens":50}`)
		require.NoError(t, err)
		back()
		g.transport.Close(t.Context())
		calls := g.earmark.Calls()
		require.Contains(t, calls[len(calls)-1].Body, `"completion_tokens":50`)
		require.Contains(t, calls[len(calls)-1].Body, `"estimated":"true"`)
	})
	t.Run("usage that is refused, or left at the end, is reported", func(t *testing.T) {
		t.Parallel()
		g := newGuarded(t, failOpen)
		back := away(t, g, fake.Problem(http.StatusNotFound, earmark.CodeNoBudget, "meets no budget"))
		_, _, err := g.call(t.Context(), chatPath, chatBody)
		require.NoError(t, err)
		back()
		g.transport.Close(t.Context())
		require.Len(t, g.uncharged, 1)

		g = newGuarded(t, failOpen)
		away(t, g, nil)
		_, _, err = g.call(t.Context(), chatPath, chatBody)
		require.NoError(t, err)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		g.transport.Close(ended)
		require.Len(t, g.uncharged, 1)
	})
	t.Run("a denial is no outage", func(t *testing.T) {
		t.Parallel()
		g := newGuarded(t, failOpen)
		g.earmark.Limit = 1
		status, _, err := g.call(t.Context(), chatPath, chatBody)
		require.NoError(t, err)
		require.Equal(t, http.StatusPaymentRequired, status)
		require.Empty(t, g.provider.Calls())
	})
}

// A commit that finds no Earmark within the settle limit is repeated; the answer stands.
func TestTransportCommitsLater(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, nil)
	g.earmark.Intercept = func(verb string, _ int) http.HandlerFunc {
		if verb == "commit" {
			return fake.Unavailable()
		}
		return nil
	}
	_, answer, err := g.call(t.Context(), chatPath, chatBody)
	require.NoError(t, err)
	require.Contains(t, answer, fakeprovider.Text)
	g.earmark.Replace(nil)
	g.transport.Close(t.Context())
	require.EqualValues(t, billed, g.charged(t))
	require.Empty(t, g.uncharged)
}

func TestTransportOptions(t *testing.T) {
	t.Parallel()
	c, err := client.New("http://127.0.0.1:1")
	require.NoError(t, err)
	for field, options := range map[string]client.TransportOptions{
		"Scopes":          {OnExpiry: earmark.OnExpiryCommit},
		"on_expiry":       {Scopes: []string{"acme"}},
		"Units":           {Scopes: []string{"acme"}, OnExpiry: earmark.OnExpiryCommit, Units: []string{"usd_micros"}},
		"MaxOutputTokens": {Scopes: []string{"acme"}, OnExpiry: earmark.OnExpiryCommit, MaxOutputTokens: -1},
	} {
		_, err := client.NewTransport(c, options)
		var e *earmark.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, field, e.Field)
	}
	require.Nil(t, client.DenialOf(nil))
	require.Nil(t, client.DenialOf(errors.New("budget_exceeded, but no JSON: {{{{")))
	require.NotNil(t, client.DenialOf(fmt.Errorf("wrapped: %w", earmark.Errorf(earmark.CodeBudgetExceeded, "no"))))
}
