package main
import "github.com/earmark-dev/earmark"
import "github.com/earmark-dev/earmark/client"
import "errors"
func main() {}
func work(prompt string) (earmark.Amounts, error) {
if prompt == "" {
	return nil, client.NothingSent(errors.New("the prompt is empty"))
}

return nil, nil }
var _ = client.ErrNothingSent