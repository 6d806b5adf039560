// Command transport answers POST /chat with what a model says. Each call of the model is guarded:
// EARMARK_URL, EARMARK_API_KEY, OPENAI_BASE_URL and OPENAI_API_KEY say by whom.
package main

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"os"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
)

func main() {
	earmarks, err := client.New(cmp.Or(os.Getenv("EARMARK_URL"), "http://127.0.0.1:8080"), client.WithAPIKey(os.Getenv("EARMARK_API_KEY")))
	guard, optionsErr := client.NewTransport(earmarks, client.TransportOptions{Scopes: []string{"acme/ml"}, OnExpiry: earmark.OnExpiryCommit})
	if err := errors.Join(err, optionsErr); err != nil {
		panic(err)
	}
	models := &http.Client{Transport: guard} // or openai.NewClient(option.WithHTTPClient(models))
	url := cmp.Or(os.Getenv("OPENAI_BASE_URL"), "https://api.openai.com/v1") + "/chat/completions"
	http.HandleFunc("POST /chat", func(w http.ResponseWriter, r *http.Request) {
		call, _ := http.NewRequestWithContext(r.Context(), http.MethodPost, url, r.Body) //nolint:gosec // the address is configuration
		call.Header.Set("Authorization", "Bearer "+os.Getenv("OPENAI_API_KEY"))
		answer, err := models.Do(call) //nolint:gosec // the address is configuration
		if err != nil {
			http.Error(w, "the model did not answer", http.StatusBadGateway)
			return
		}
		defer func() { _ = answer.Body.Close() }()
		w.WriteHeader(answer.StatusCode) // 402 is Earmark's no
		_, _ = io.Copy(w, answer.Body)
	})
	panic(http.ListenAndServe(cmp.Or(os.Getenv("ADDR"), "127.0.0.1:3000"), nil)) //nolint:gosec // an example
}
