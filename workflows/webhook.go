package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark/activities"
	"github.com/earmark-dev/earmark/internal/webhook"
)

// The names of the workflow that delivers the events of one endpoint.
const (
	WebhookType   = "Webhook"
	WebhookQueue  = "earmark-webhooks" // after the installation's Prefix
	SignalDeliver = "deliver"          // no payload: events wait, or the endpoint was changed

	webhookIDPrefix = "webhook-"
)

// WebhookQueue returns the name of the task queue of webhooks. They have one of their own, so that endpoints that do not
// answer keep no reservation waiting.
func (p Prefix) WebhookQueue() string { return p.name(WebhookQueue) }

// WebhookWorkflowID returns the workflow id of an endpoint.
func (p Prefix) WebhookWorkflowID(webhookID string) string {
	return p.name(webhookIDPrefix + webhookID)
}

const (
	// deliveriesPerRun bounds the history of one run.
	deliveriesPerRun = 300
	// webhookLingers is how long the workflow of an endpoint waits for the next event. Then it ends, and the next
	// event starts it again.
	webhookLingers = time.Minute
	// deliverTimeout is above the time that one activity sends, its last attempt included.
	deliverTimeout  = activities.SendBudget + webhook.AttemptTimeout + 20*time.Second
	deliverRetryMax = time.Minute
)

// WebhookInput is the input of the Webhook workflow.
type WebhookInput struct {
	ID string `json:"id"` // of the endpoint
}

// Webhook delivers the events of one endpoint, one after the other, until none waits or the endpoint is disabled or
// deleted. The ledger has the position and the time of the next attempt. So a workflow that is started anew goes on
// where another one stopped; and since an id has one open workflow at most, nothing is delivered out of order.
func Webhook(ctx workflow.Context, in WebhookInput) error {
	var webhooks *activities.Webhooks
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: deliverTimeout,
		HeartbeatTimeout:    activities.DeliveryHeartbeat,
		RetryPolicy:         &temporal.RetryPolicy{MaximumInterval: deliverRetryMax},
		Summary:             "send the events that wait",
	})
	signals := workflow.GetSignalChannel(ctx, SignalDeliver)
	for range deliveriesPerRun {
		var report activities.DeliverReport
		if err := workflow.ExecuteActivity(ctx, webhooks.Deliver, in.ID).Get(ctx, &report); err != nil {
			return err
		}
		pause := webhookLingers
		switch report.State {
		case webhook.StateOver:
			return nil
		case webhook.StateDue:
			continue
		case webhook.StateWaiting:
			pause = time.Duration(report.WaitMS) * time.Millisecond // mutation: webhook-backoff
		case webhook.StateIdle:
		}
		woken, err := workflow.AwaitWithTimeout(ctx, pause, func() bool { return signals.Len() > 0 })
		if err != nil {
			return err
		}
		if !woken && report.State == webhook.StateIdle {
			return nil
		}
		drain(signals)
	}
	drain(signals) // the next run looks for events first
	return workflow.NewContinueAsNewError(ctx, WebhookType, in)
}

func drain(signals workflow.ReceiveChannel) {
	for signals.ReceiveAsync(nil) {
	}
}
