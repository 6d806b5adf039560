//go:build unix

package sdks_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/openai/openai-go/v3"
	openaioption "github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
	"github.com/stretchr/testify/require"
	"google.golang.org/genai"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/fakeprovider"
	"github.com/earmark-dev/earmark/internal/stack"
)

const billed = fakeprovider.Input + fakeprovider.Output

// sdk makes the same two calls with each SDK. stream passes the text of each event to seen,
// and leaves the stream once that returns false.
type sdk struct {
	whole  func(ctx context.Context, url string, through *http.Client) (string, error)
	stream func(ctx context.Context, url string, through *http.Client, seen func(string) bool) error
	// attempts that the SDK makes of a call that fails with 500.
	attempts int
}

var sdks = map[string]sdk{
	"openai chat": {
		attempts: 3,
		whole: func(ctx context.Context, url string, through *http.Client) (string, error) {
			c := openAI(url, through)
			answer, err := c.Chat.Completions.New(ctx, chat())
			if err != nil {
				return "", err
			}
			return answer.Choices[0].Message.Content, nil
		},
		stream: func(ctx context.Context, url string, through *http.Client, seen func(string) bool) error {
			c := openAI(url, through)
			stream := c.Chat.Completions.NewStreaming(ctx, chat())
			defer func() { _ = stream.Close() }()
			for stream.Next() {
				choices := stream.Current().Choices
				if len(choices) == 0 {
					return errors.New("the caller did not ask for the chunk without choices")
				}
				if !seen(choices[0].Delta.Content) {
					break
				}
			}
			return stream.Err()
		},
	},
	"openai responses": {
		attempts: 3,
		whole: func(ctx context.Context, url string, through *http.Client) (string, error) {
			c := openAI(url, through)
			answer, err := c.Responses.New(ctx, question())
			if err != nil {
				return "", err
			}
			return answer.OutputText(), nil
		},
		stream: func(ctx context.Context, url string, through *http.Client, seen func(string) bool) error {
			c := openAI(url, through)
			stream := c.Responses.NewStreaming(ctx, question())
			defer func() { _ = stream.Close() }()
			for stream.Next() {
				event := stream.Current()
				if event.Type == "response.output_text.delta" && !seen(event.Delta) {
					break
				}
			}
			return stream.Err()
		},
	},
	"anthropic messages": {
		attempts: 3,
		whole: func(ctx context.Context, url string, through *http.Client) (string, error) {
			c := claude(url, through)
			answer, err := c.Messages.New(ctx, message())
			if err != nil {
				return "", err
			}
			return answer.Content[0].Text, nil
		},
		stream: func(ctx context.Context, url string, through *http.Client, seen func(string) bool) error {
			c := claude(url, through)
			stream := c.Messages.NewStreaming(ctx, message())
			defer func() { _ = stream.Close() }()
			for stream.Next() {
				event := stream.Current()
				if event.Type == "content_block_delta" && !seen(event.Delta.Text) {
					break
				}
			}
			return stream.Err()
		},
	},
	"gemini": {
		attempts: 1,
		whole: func(ctx context.Context, url string, through *http.Client) (string, error) {
			c, err := gemini(ctx, url, through)
			if err != nil {
				return "", err
			}
			answer, err := c.Models.GenerateContent(ctx, "gemini-3", genai.Text("Count."), nil)
			if err != nil {
				return "", err
			}
			return answer.Text(), nil
		},
		stream: func(ctx context.Context, url string, through *http.Client, seen func(string) bool) error {
			c, err := gemini(ctx, url, through)
			if err != nil {
				return err
			}
			for chunk, err := range c.Models.GenerateContentStream(ctx, "gemini-3", genai.Text("Count."), nil) {
				if err != nil {
					return err
				}
				if !seen(chunk.Text()) {
					break
				}
			}
			return nil
		},
	},
}

func openAI(url string, through *http.Client) openai.Client {
	return openai.NewClient(openaioption.WithAPIKey("k"), openaioption.WithBaseURL(url+"/v1/"), openaioption.WithHTTPClient(through))
}

func chat() openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: "gpt-5", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Count.")}}
}

func question() responses.ResponseNewParams {
	return responses.ResponseNewParams{Model: "gpt-5", Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("Count.")}}
}

func claude(url string, through *http.Client) anthropic.Client {
	return anthropic.NewClient(anthropicoption.WithAPIKey("k"), anthropicoption.WithBaseURL(url), anthropicoption.WithHTTPClient(through))
}

func message() anthropic.MessageNewParams {
	return anthropic.MessageNewParams{Model: "claude", MaxTokens: 50,
		Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock("Count."))}}
}

func gemini(ctx context.Context, url string, through *http.Client) (*genai.Client, error) {
	return genai.NewClient(ctx, &genai.ClientConfig{APIKey: "k", Backend: genai.BackendGeminiAPI, HTTPClient: through,
		HTTPOptions: genai.HTTPOptions{BaseURL: url}})
}

// guardedSDK is an SDK behind a Transport, on a scope of its own.
type guardedSDK struct {
	sdk
	t        *testing.T
	provider *fakeprovider.Provider
	url      string
	earmark  *client.Client
	scope    string
	through  *http.Client
	calls    atomic.Int64 // that the SDK made
}

type counted struct {
	guard *client.Transport
	calls *atomic.Int64
}

func (c *counted) RoundTrip(r *http.Request) (*http.Response, error) {
	c.calls.Add(1)
	return c.guard.RoundTrip(r)
}

func newGuardedSDK(t *testing.T, server *stack.Server, name string, limit int64) *guardedSDK {
	t.Helper()
	g := &guardedSDK{sdk: sdks[name], t: t, provider: &fakeprovider.Provider{}, scope: "sdk/" + strings.NewReplacer(" ", "-", "/", "-").Replace(t.Name())}
	var stop func()
	g.url, stop = g.provider.Serve()
	t.Cleanup(stop)
	var err error
	g.earmark, err = client.New(server.URL, client.WithLogger(slog.New(slog.DiscardHandler)))
	require.NoError(t, err)
	_, err = g.earmark.CreateBudget(t.Context(), earmark.BudgetRequest{Scope: g.scope, Unit: "tokens", Limit: &limit})
	require.NoError(t, err)
	guard, err := client.NewTransport(g.earmark, client.TransportOptions{Scopes: []string{g.scope}, OnExpiry: earmark.OnExpiryReview})
	require.NoError(t, err)
	g.through = &http.Client{Transport: &counted{guard, &g.calls}}
	return g
}

// reservations awaits as many reservations, none of them held.
func (g *guardedSDK) reservations(want int) (all []earmark.Reservation) {
	g.t.Helper()
	stack.Eventually(g.t, 30*time.Second, "the settlements", func() bool {
		page, err := g.earmark.Reservations(g.t.Context(), earmark.ReservationFilter{Scope: g.scope})
		require.NoError(g.t, err)
		all = page.Data
		held := 0
		for _, r := range all {
			if r.State == earmark.StateHeld {
				held++
			}
		}
		return len(all) == want && held == 0
	})
	return all
}

func (g *guardedSDK) requireExact() {
	g.t.Helper()
	r := g.reservations(1)[0]
	require.Equal(g.t, earmark.StateCommitted, r.State)
	require.Equal(g.t, earmark.Amounts{"tokens": billed}, r.Usage)
	require.False(g.t, r.Estimated)
}

func (g *guardedSDK) requireEstimate() {
	g.t.Helper()
	r := g.reservations(1)[0]
	require.Equal(g.t, earmark.StateCommitted, r.State)
	require.True(g.t, r.Estimated)
	require.Positive(g.t, r.Usage["tokens"])
	require.LessOrEqual(g.t, r.Usage["tokens"], r.Amounts["tokens"])
}

func all(string) bool { return true }

// Each SDK gets what it would get without the guard, and Earmark what the provider bills.
func TestSDKs(t *testing.T) {
	server := stack.New(t, stack.Options{}).Serve().Ready()
	for name := range sdks {
		t.Run(name, func(t *testing.T) {
			t.Run("whole", func(t *testing.T) {
				g := newGuardedSDK(t, server, name, 1_000_000)
				text, err := g.whole(t.Context(), g.url, g.through)
				require.NoError(t, err)
				require.Equal(t, fakeprovider.Text, text)
				g.requireExact()
			})
			t.Run("stream", func(t *testing.T) {
				g := newGuardedSDK(t, server, name, 1_000_000)
				text := ""
				require.NoError(t, g.stream(t.Context(), g.url, g.through, func(part string) bool { text += part; return true }))
				require.Equal(t, fakeprovider.Text, text)
				g.requireExact()
			})
			t.Run("denial", func(t *testing.T) {
				g := newGuardedSDK(t, server, name, 10)
				_, err := g.whole(t.Context(), g.url, g.through)
				denied := client.DenialOf(err)
				require.NotNil(t, denied, "%v", err)
				require.Len(t, denied.Violations, 1)
				require.Equal(t, g.scope, denied.Violations[0].Scope)
				require.NotNil(t, client.DenialOf(g.stream(t.Context(), g.url, g.through, all)))
				require.EqualValues(t, 2, g.calls.Load(), "no SDK repeats it")
				require.Empty(t, g.provider.Calls())
				g.reservations(0)
			})
			t.Run("broken stream", func(t *testing.T) {
				g := newGuardedSDK(t, server, name, 1_000_000)
				g.provider.Behave = func(fakeprovider.Call) fakeprovider.Behaviour { return fakeprovider.Behaviour{Cut: true, CutAfter: 2} }
				_ = g.stream(t.Context(), g.url, g.through, all) // some SDKs take it for an end
				g.requireEstimate()
			})
			t.Run("left stream", func(t *testing.T) {
				g := newGuardedSDK(t, server, name, 1_000_000)
				gate := make(chan struct{}, 4)
				for range 4 { // as far as the first text, in each API
					gate <- struct{}{}
				}
				g.provider.Behave = func(fakeprovider.Call) fakeprovider.Behaviour { return fakeprovider.Behaviour{Gate: gate} }
				require.NoError(t, g.stream(t.Context(), g.url, g.through, func(part string) bool { return part == "" }))
				require.Equal(t, earmark.StateCommitted, g.reservations(1)[0].State)
			})
			t.Run("cancelled stream", func(t *testing.T) {
				g := newGuardedSDK(t, server, name, 1_000_000)
				gate := make(chan struct{}, 3)
				for range 3 {
					gate <- struct{}{}
				}
				g.provider.Behave = func(fakeprovider.Call) fakeprovider.Behaviour {
					if strings.HasPrefix(name, "gemini") {
						return fakeprovider.Behaviour{Gate: gate, Raw: "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"one\"}]}}]}\r\n\r\n: and no more\n"}
					}
					return fakeprovider.Behaviour{Gate: gate}
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				_ = g.stream(ctx, g.url, g.through, func(string) bool { cancel(); return true })
				g.requireEstimate()
			})
			t.Run("failure", func(t *testing.T) {
				g := newGuardedSDK(t, server, name, 1_000_000)
				g.provider.Behave = func(fakeprovider.Call) fakeprovider.Behaviour {
					return fakeprovider.Behaviour{Status: 500, Header: map[string]string{"Retry-After-Ms": "1"}}
				}
				_, err := g.whole(t.Context(), g.url, g.through)
				require.Error(t, err)
				require.EqualValues(t, g.attempts, g.calls.Load())
				for _, r := range g.reservations(g.attempts) {
					require.Equal(t, earmark.StateReleased, r.State)
				}
			})
			if g := sdks[name]; g.attempts == 1 {
				return
			}
			t.Run("attempts hold once", func(t *testing.T) {
				g := newGuardedSDK(t, server, name, 1_000_000)
				g.provider.Behave = func(fakeprovider.Call) fakeprovider.Behaviour {
					if g.calls.Load() == 1 {
						return fakeprovider.Behaviour{Status: 504, Header: map[string]string{"Retry-After-Ms": "1"}}
					}
					return fakeprovider.Behaviour{}
				}
				text, err := g.whole(t.Context(), g.url, g.through)
				require.NoError(t, err)
				require.Equal(t, fakeprovider.Text, text)
				require.EqualValues(t, 2, g.calls.Load())
				g.requireEstimate()
			})
		})
	}
}
