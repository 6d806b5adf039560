package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/client/internal/fake"
)

// Guard a call of a model: reserve its worst case, keep the lease while it runs,
// and charge what it really used.
func Example() {
	earmarkURL, stop := (&fake.Earmark{Limit: 5000}).Serve()
	defer stop()
	ctx := context.Background()

	earmarks, err := client.New(earmarkURL)
	if err != nil {
		fmt.Println(err)
		return
	}
	request := earmark.ReservationRequest{Scopes: []string{"acme/ml/u1"}, Amounts: earmark.Amounts{"tokens": 1200}, OnExpiry: earmark.OnExpiryCommit}
	settled, err := earmarks.Do(ctx, "chat-7f3a-turn-12", request, func(ctx context.Context, _ *earmark.Reservation) (earmark.Amounts, error) {
		usedTokens, err := callModel(ctx)
		return earmark.Amounts{"tokens": usedTokens}, err
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(settled.Reservation.State, settled.Reservation.Usage)
	// Output:
	// committed 873 tokens
}

// Tell the ways apart in which a guarded call can fail.
func ExampleClient_Do() {
	earmarkURL, stop := (&fake.Earmark{Limit: 5000}).Serve()
	defer stop()
	earmarks, err := client.New(earmarkURL, client.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		fmt.Println(err)
		return
	}
	guard := func(tokens int64, call func(context.Context) (usedTokens int64, err error)) {
		request := earmark.ReservationRequest{Scopes: []string{"acme/ml/u1"}, Amounts: earmark.Amounts{"tokens": tokens}, OnExpiry: earmark.OnExpiryCommit}
		_, err := earmarks.Do(context.Background(), "", request, func(ctx context.Context, _ *earmark.Reservation) (earmark.Amounts, error) {
			usedTokens, err := call(ctx)
			return earmark.Amounts{"tokens": usedTokens}, err
		})
		var unsettled *client.UnsettledError
		switch {
		case err == nil:
			fmt.Println("charged")
		case client.IsDenied(err):
			fmt.Println("denied:", err)
		case errors.Is(err, client.ErrNothingSent):
			fmt.Println("given back:", err)
		case errors.As(err, &unsettled):
			fmt.Println("left to its expiry policy:", unsettled.OnExpiry)
		default:
			fmt.Println("charged, and the model failed:", err)
		}
	}
	guard(1200, callModel)
	guard(1_000_000, callModel)
	guard(1200, func(context.Context) (int64, error) { return 0, client.NothingSent(errors.New("the prompt is empty")) })
	guard(1200, func(context.Context) (int64, error) { return 0, errors.New("the connection broke") })
	guard(1200, func(context.Context) (int64, error) { return 64, errors.New("the answer was cut off") })
	// Output:
	// charged
	// denied: 1,000,000 tokens do not fit into the budget on acme
	// given back: nothing was sent: the prompt is empty
	// left to its expiry policy: commit
	// charged, and the model failed: the answer was cut off
}

// Count a stream as it comes, so that what was spent is known when it breaks.
func ExampleClient_DoStream() {
	earmarkURL, stop := (&fake.Earmark{Limit: 5000}).Serve()
	defer stop()
	earmarks, err := client.New(earmarkURL)
	if err != nil {
		fmt.Println(err)
		return
	}
	request := earmark.ReservationRequest{Scopes: []string{"acme/ml/u1"}, Amounts: earmark.Amounts{"tokens": 1200}, OnExpiry: earmark.OnExpiryCommit}
	settled, err := earmarks.DoStream(context.Background(), "", request,
		func(_ context.Context, _ *earmark.Reservation, meter *client.Meter) error {
			meter.Add(earmark.Amounts{"tokens": 60}) // the prompt
			for _, chunk := range []string{"So ", "it ", "goes"} {
				meter.Add(earmark.Amounts{"tokens": 1})
				fmt.Print(chunk)
			}
			fmt.Println()
			return io.ErrUnexpectedEOF // the stream broke
		})
	fmt.Println(err)
	fmt.Println(settled.Reservation.State, settled.Reservation.Usage)
	// Output:
	// So it goes
	// unexpected EOF
	// committed 63 tokens
}

// The same as Do, call by call, for work that is not one function. Then extending,
// settling and every failure in between are yours.
func ExampleClient_Reserve() {
	earmarkURL, stop := pretendEarmark()
	defer stop()
	ctx := context.Background()

	budgets, err := client.New(earmarkURL)
	if err != nil {
		fmt.Println(err)
		return
	}
	reservation, err := budgets.Reserve(ctx, "chat-7f3a-turn-12", earmark.ReservationRequest{
		Scopes:  []string{"acme/ml/u1"},
		Amounts: earmark.Amounts{"tokens": 1200},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(reservation.State, reservation.Amounts)

	usedTokens, err := callModel(ctx)
	if err != nil { // what was spent is not known: the expiry policy settles
		fmt.Println(err)
		return
	}
	settled, err := budgets.Commit(ctx, reservation.ID, earmark.Amounts{"tokens": usedTokens})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(settled.Reservation.State, settled.Reservation.Usage)
	// Output:
	// held 1,200 tokens
	// committed 873 tokens
}

// A denial is an error that says which budgets stand in the way.
func ExampleIsDenied() {
	earmarkURL, stop := pretendEarmark()
	defer stop()

	budgets, err := client.New(earmarkURL)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = budgets.Reserve(context.Background(), "", earmark.ReservationRequest{
		Scopes:  []string{"acme/ml/u1"},
		Amounts: earmark.Amounts{"tokens": 1_000_000},
	})
	var denial *earmark.Error
	if client.IsDenied(err) && errors.As(err, &denial) {
		for _, v := range denial.Violations {
			fmt.Printf("%s has %s %s, %s are requested\n",
				v.Scope, earmark.FormatAmount(v.Available), v.Unit, earmark.FormatAmount(v.Requested))
		}
		fmt.Println("worth a retry:", denial.Retryable)
	}
	// Output:
	// acme has 5,000 tokens, 1,000,000 are requested
	// worth a retry: false
}

// List every page.
func ExampleClient_Budgets() {
	earmarkURL, stop := pretendEarmark()
	defer stop()

	budgets, err := client.New(earmarkURL)
	if err != nil {
		fmt.Println(err)
		return
	}
	filter := earmark.BudgetFilter{Covering: "acme/ml/u1"}
	for {
		page, err := budgets.Budgets(context.Background(), filter)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, budget := range page.Data {
			fmt.Println(budget.Scope, earmark.FormatAmount(budget.Limit), budget.Unit)
		}
		if page.NextCursor == "" {
			return
		}
		filter.Cursor = page.NextCursor
	}
	// Output:
	// acme/ml 20,000 tokens
	// acme 5,000 tokens
}

func callModel(context.Context) (usedTokens int64, err error) { return 873, nil }

// pretendEarmark answers as Earmark would, so that the examples run by themselves.
func pretendEarmark() (url string, stop func()) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case strings.HasSuffix(r.URL.Path, "/commit"):
			_, _ = io.WriteString(w, `{"id":"rsv_1","state":"committed","usage":{"tokens":873}}`)
		case r.Method == http.MethodGet && r.URL.Query().Get("cursor") == "":
			_, _ = io.WriteString(w, `{"data":[{"scope":"acme/ml","limit":20000,"unit":"tokens"}],"next_cursor":"2"}`)
		case r.Method == http.MethodGet:
			_, _ = io.WriteString(w, `{"data":[{"scope":"acme","limit":5000,"unit":"tokens"}],"next_cursor":""}`)
		case strings.Contains(string(body), "1000000"):
			w.WriteHeader(http.StatusPaymentRequired)
			_, _ = io.WriteString(w, `{"code":"budget_exceeded","detail":"does not fit","retryable":false,
				"violations":[{"scope":"acme","unit":"tokens","available":5000,"requested":1000000}]}`)
		default:
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"id":"rsv_1","state":"held","amounts":{"tokens":1200}}`)
		}
	}))
	return server.URL, server.Close
}
