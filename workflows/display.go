package workflows

import (
	"fmt"
	"strings"

	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark"
)

// Summary is the one line that Temporal UI shows for a reservation, such as
// "acme/ml/u1 · 1,200 tokens".
func Summary(request earmark.ReservationRequest) string {
	const maxBytes = 200 // Temporal's limit on summaries
	summary := strings.Join(request.Scopes, ", ") + " · " + request.Amounts.String()
	if len(summary) > maxBytes {
		summary = fmt.Sprintf("%s and %d more scopes · %d units", request.Scopes[0][:min(len(request.Scopes[0]), 100)], len(request.Scopes)-1, len(request.Amounts))
	}
	return summary
}

// Details is what Temporal UI shows of the request, readable with no worker alive.
// Scopes and units cannot hold Markdown's special characters, so nothing needs
// escaping; metadata could, and stays out.
func Details(id string, request earmark.ReservationRequest) string {
	return fmt.Sprintf("Reservation `%s`\n\n- scopes: `%s`\n- amounts: %s\n- on expiry: %s",
		id, strings.Join(request.Scopes, "`, `"), request.Amounts, request.OnExpiry)
}

// show writes the current details, which cost no history.
func (r *reservation) show(ctx workflow.Context) {
	state := string(r.standing.State)
	if state == "" {
		state = "not reserved (" + string(r.standing.Outcome) + ")"
	}
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("**%s** · %s", state, Summary(r.Admission.Request)))
}
