package main
import "context"
import "github.com/earmark-dev/earmark"
import "github.com/earmark-dev/earmark/client"
func main() { if err := run(); err != nil { panic(err) } }
func callModel(context.Context) (int64, error) { return 7, nil }
func run() error { ctx := context.Background()
earmarks, err := client.New("http://127.0.0.1:27778")
request := earmark.ReservationRequest{Scopes: []string{"acme/ml/u1"}, Amounts: earmark.Amounts{"tokens": 500}, OnExpiry: earmark.OnExpiryCommit}
_, err = earmarks.Do(ctx, "request-3", request, func(ctx context.Context, _ *earmark.Reservation) (earmark.Amounts, error) {
	usedTokens, err := callModel(ctx) // yours
	return earmark.Amounts{"tokens": usedTokens}, err
})

if err != nil { return err }
return nil }