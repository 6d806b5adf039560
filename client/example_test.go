package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
)

// Reserve the worst case, call the model, and commit what it really used.
func Example() {
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

	usedTokens, err := callModel()
	if err != nil { // nothing was spent
		_, _ = budgets.Release(ctx, reservation.ID, err.Error())
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

func callModel() (usedTokens int64, err error) { return 873, nil }

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
