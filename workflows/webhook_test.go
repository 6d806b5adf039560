package workflows_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark/activities"
	"github.com/earmark-dev/earmark/internal/webhook"
	"github.com/earmark-dev/earmark/workflows"
)

// deliveries runs the Webhook workflow on an activity that answers in turn, in the SDK's test environment.
type deliveries struct {
	*testing.T
	env     *testsuite.TestWorkflowEnvironment
	start   time.Time
	answers []activities.DeliverReport // idle when they are over
	at      []time.Duration            // when each was asked for, after the start
}

func setupWebhook(t *testing.T, answers ...activities.DeliverReport) *deliveries {
	t.Helper()
	t.Parallel()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	d := &deliveries{T: t, env: suite.NewTestWorkflowEnvironment(), start: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC), answers: answers}
	d.env.SetStartTime(d.start)
	d.env.RegisterWorkflowWithOptions(workflows.Webhook, workflow.RegisterOptions{Name: workflows.WebhookType})
	d.env.RegisterActivityWithOptions(func(_ context.Context, id string) (activities.DeliverReport, error) {
		require.Equal(t, "whk_a", id)
		d.at = append(d.at, d.env.Now().Sub(d.start))
		if len(d.answers) == 0 {
			return activities.DeliverReport{State: webhook.StateIdle}, nil
		}
		answer := d.answers[0]
		d.answers = d.answers[1:]
		return answer, nil
	}, activity.RegisterOptions{Name: "Deliver"})
	return d
}

func (d *deliveries) signalAt(after time.Duration) {
	d.env.RegisterDelayedCallback(func() { d.env.SignalWorkflow(workflows.SignalDeliver, nil) }, after)
}

func (d *deliveries) run() error {
	d.Helper()
	d.env.ExecuteWorkflow(workflows.WebhookType, workflows.WebhookInput{ID: "whk_a"})
	require.True(d, d.env.IsWorkflowCompleted())
	return d.env.GetWorkflowError()
}

// asked checks when deliveries were asked for, to the second.
func (d *deliveries) asked(after ...time.Duration) {
	d.Helper()
	require.Len(d, d.at, len(after))
	for i := range after {
		require.InDelta(d, after[i].Seconds(), d.at[i].Seconds(), 1)
	}
}

func TestWebhookDeliversUntilNothingWaits(t *testing.T) {
	d := setupWebhook(t, activities.DeliverReport{State: webhook.StateDue}, activities.DeliverReport{State: webhook.StateDue})
	d.signalAt(20 * time.Second)
	require.NoError(t, d.run())
	d.asked(0, 0, 0, 20*time.Second)
	require.InDelta(t, 80, d.env.Now().Sub(d.start).Seconds(), 1, "it ends a minute after it was last woken")
}

func TestWebhookWaitsAfterAFailure(t *testing.T) {
	d := setupWebhook(t, activities.DeliverReport{State: webhook.StateWaiting, WaitMS: 5000}, activities.DeliverReport{State: webhook.StateWaiting, WaitMS: 12 * 3600 * 1000},
		activities.DeliverReport{State: webhook.StateWaiting, WaitMS: 3600 * 1000})
	d.signalAt(65 * time.Second) // somebody has changed the endpoint
	require.NoError(t, d.run())
	d.asked(0, 5*time.Second, 65*time.Second, 3665*time.Second)
}

func TestWebhookEndsWithItsEndpoint(t *testing.T) {
	d := setupWebhook(t, activities.DeliverReport{State: webhook.StateOver})
	require.NoError(t, d.run())
	d.asked(0)
}

func TestWebhookContinuesAsNew(t *testing.T) {
	busy := make([]activities.DeliverReport, 1000)
	for i := range busy {
		busy[i].State = webhook.StateDue
	}
	d := setupWebhook(t, busy...)
	var next *workflow.ContinueAsNewError
	require.ErrorAs(t, d.run(), &next)
	require.Equal(t, workflows.WebhookType, next.WorkflowType.Name)
	require.Less(t, len(d.at), 500)
}
