package main
import "context"
import "github.com/earmark-dev/earmark"
import "github.com/earmark-dev/earmark/client"
import "iter"
func main() {}
func streamModel(context.Context) iter.Seq2[string, error] { return nil }
func send(string) {}
func run(ctx context.Context, earmarks *client.Client, request earmark.ReservationRequest, promptTokens, totalTokens int64) error {
var err error
_, err = earmarks.DoStream(ctx, "", request, func(ctx context.Context, _ *earmark.Reservation, meter *client.Meter) error {
	meter.Add(earmark.Amounts{"tokens": promptTokens}) // spent as soon as it is sent
	for chunk, err := range streamModel(ctx) {
		if err != nil {
			return err
		}
		meter.Add(earmark.Amounts{"tokens": 1})
		send(chunk)
	}
	meter.Set(earmark.Amounts{"tokens": totalTokens}) // the model's own count, if it gives one
	return nil
})

return err }