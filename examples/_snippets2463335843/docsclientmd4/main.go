package main
import "github.com/earmark-dev/earmark/client"
import "net/http"
import "io"
import "iter"
import "github.com/earmark-dev/earmark/client/middleware"
import "context"
import "encoding/json"
import "github.com/earmark-dev/earmark"
func main() {}
func streamModel(context.Context) iter.Seq[string] { return nil }
func userOf(*http.Request) string { return "u1" }
var mux = http.NewServeMux()
var earmarks *client.Client

func init() {
mux.Handle("POST /chat", middleware.Handler(earmarks, ask, http.HandlerFunc(chat)))
}

// What to set aside for a request.
func ask(r *http.Request) (middleware.Ask, error) {
	body, err := middleware.PeekBody(r, 64<<10) // the handler can read it again
	if err != nil {
		return middleware.Ask{}, err // 413, 400
	}
	var asked struct {
		MaxTokens int64 `json:"max_tokens"`
	}
	if err := json.Unmarshal(body, &asked); err != nil || asked.MaxTokens < 1 {
		return middleware.Ask{}, earmark.Errorf(earmark.CodeInvalidRequest, "max_tokens is missing") // 400
	}
	return middleware.Ask{Request: earmark.ReservationRequest{
		Scopes:  []string{"acme/ml/" + userOf(r)}, // as your authentication knows it
		Amounts: earmark.Amounts{"tokens": asked.MaxTokens},
	}}, nil
}

func chat(w http.ResponseWriter, r *http.Request) {
	meter := middleware.Meter(r.Context())
	for chunk := range streamModel(r.Context()) {
		meter.Add(earmark.Amounts{"tokens": 1})
		_, _ = io.WriteString(w, chunk)
		_ = http.NewResponseController(w).Flush()
	}
}
