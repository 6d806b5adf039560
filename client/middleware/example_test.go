package middleware_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/client/internal/fake"
	"github.com/earmark-dev/earmark/client/middleware"
)

// Guard a handler that streams. Its caller sets max_tokens, which is what is
// reserved; what the model streamed is what is charged.
func ExampleHandler() {
	pretend := &fake.Earmark{Limit: 1000}
	earmarkURL, stop := pretend.Serve()
	defer stop()
	earmarks, err := client.New(earmarkURL)
	if err != nil {
		fmt.Println(err)
		return
	}

	ask := func(r *http.Request) (middleware.Ask, error) {
		body, err := middleware.PeekBody(r, 64<<10)
		if err != nil {
			return middleware.Ask{}, err
		}
		var chat struct {
			MaxTokens int64 `json:"max_tokens"`
		}
		if err := json.Unmarshal(body, &chat); err != nil || chat.MaxTokens < 1 {
			return middleware.Ask{}, earmark.Errorf(earmark.CodeInvalidRequest, "max_tokens is missing")
		}
		return middleware.Ask{Request: earmark.ReservationRequest{
			Scopes:   []string{"acme/ml/u1"}, // of the caller, as authentication knows it
			Amounts:  earmark.Amounts{"tokens": chat.MaxTokens},
			OnExpiry: earmark.OnExpiryCommit, // a call that is cut off may have been paid for
		}}, nil
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		meter := middleware.Meter(r.Context())
		for _, word := range []string{"one ", "two ", "three"} {
			meter.Add(earmark.Amounts{"tokens": 1})
			_, _ = io.WriteString(w, word)
			_ = http.NewResponseController(w).Flush()
		}
	})
	server := httptest.NewServer(middleware.Handler(earmarks, ask, handler))
	defer server.Close()

	for _, body := range []string{`{"max_tokens": 600}`, `{"max_tokens": 5000}`, `{}`} {
		response, err := http.Post(server.URL, "application/json", strings.NewReader(body))
		if err != nil {
			fmt.Println(err)
			return
		}
		answer, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if response.StatusCode == http.StatusOK {
			fmt.Println(response.StatusCode, string(answer))
		} else {
			fmt.Println(response.StatusCode, response.Header.Get("Content-Type"))
		}
	}
	for _, reservation := range pretend.Reservations() {
		fmt.Println(reservation.State, reservation.Usage)
	}
	// Output:
	// 200 one two three
	// 402 application/problem+json
	// 400 application/problem+json
	// committed 3 tokens
}
