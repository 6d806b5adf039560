package main
import (
	"github.com/earmark-dev/earmark"        // Amounts, ReservationRequest, Error
	"github.com/earmark-dev/earmark/client" // New, Do, DoStream
)

var _ earmark.Amounts
var _ *client.Client
func main() {}