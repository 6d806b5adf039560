package activities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/webhook"
)

// endpoint is a ledger with a batch of events, and the endpoint that receives them.
type endpoint struct {
	batch    webhook.Batch
	fails    map[string]error // by event
	onSend   func()
	sent     []string
	recorded []webhook.Attempt
	after    string
	retry    time.Duration
	disabled bool
	records  int
}

func (e *endpoint) NextDeliveries(context.Context, string, int) (webhook.Batch, error) {
	return e.batch, nil
}

func (e *endpoint) RecordDeliveries(ctx context.Context, _, after string, attempts []webhook.Attempt, retry time.Duration) (bool, error) {
	e.records++
	e.recorded, e.after, e.retry = attempts, after, retry
	return e.disabled, ctx.Err()
}

func (e *endpoint) Send(_ context.Context, _ string, m webhook.Message, _ time.Time, _ ...webhook.Secret) (int, error) {
	e.sent = append(e.sent, m.ID)
	if e.onSend != nil {
		e.onSend()
	}
	if err := e.fails[m.ID]; err != nil {
		return 500, err
	}
	return 200, nil
}

func (e *endpoint) deliver(ctx context.Context) (DeliverReport, error) {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerOptions(worker.Options{BackgroundActivityContext: ctx})
	env.RegisterActivity(&Webhooks{Ledger: e, Sender: e, Logger: slog.New(slog.DiscardHandler)})
	value, err := env.ExecuteActivity((*Webhooks)(nil).Deliver, "whk_a")
	var report DeliverReport
	if err == nil {
		err = value.Get(&report)
	}
	return report, err
}

func due(events int) *endpoint {
	e := &endpoint{fails: map[string]error{}, batch: webhook.Batch{State: webhook.StateDue, After: "evt_1_0"}}
	for i := range events {
		e.batch.Events = append(e.batch.Events, earmark.Event{ID: fmt.Sprintf("evt_1_%d", i+1), Type: earmark.EventExpired})
	}
	return e
}

func TestDeliverStopsAtAFailure(t *testing.T) {
	t.Parallel()
	e := due(3)
	e.fails["evt_1_2"] = errors.New("the endpoint answered 500")
	report, err := e.deliver(t.Context())
	require.NoError(t, err)
	require.Equal(t, DeliverReport{State: webhook.StateWaiting, WaitMS: 5000, Delivered: 1, Failed: true}, report)
	require.Equal(t, []string{"evt_1_1", "evt_1_2"}, e.sent)
	require.Equal(t, []string{"", "the endpoint answered 500"}, []string{e.recorded[0].Error, e.recorded[1].Error})
	require.Equal(t, "evt_1_0", e.after)
	require.Equal(t, 5*time.Second, e.retry)

	// The next attempts of the same event are further and further apart.
	e = due(2)
	e.batch.Attempts, e.disabled = 3, true
	e.fails["evt_1_1"] = errors.New("no answer")
	report, err = e.deliver(t.Context())
	require.NoError(t, err)
	require.Equal(t, 4, e.recorded[0].Attempt)
	require.Equal(t, 10*time.Minute, e.retry)
	require.Equal(t, webhook.StateOver, report.State)
	require.True(t, report.Disabled)
}

func TestDeliverSendsAll(t *testing.T) {
	t.Parallel()
	e := due(3)
	report, err := e.deliver(t.Context())
	require.NoError(t, err)
	require.Equal(t, DeliverReport{State: webhook.StateDue, Delivered: 3}, report, "more may wait")
	require.Len(t, e.recorded, 3)
	for _, state := range []webhook.State{webhook.StateIdle, webhook.StateOver, webhook.StateWaiting} {
		e := &endpoint{batch: webhook.Batch{State: state, WaitMS: 7}}
		report, err := e.deliver(t.Context())
		require.NoError(t, err)
		require.Equal(t, DeliverReport{State: state, WaitMS: 7}, report)
		require.Zero(t, e.records)
	}
}

// An attempt that the worker's stop ended says nothing about the endpoint; what was delivered before is recorded.
func TestStoppedWorkerCountsNoFailure(t *testing.T) {
	t.Parallel()
	for _, before := range []int{0, 2} {
		ctx, cancel := context.WithCancel(t.Context())
		e := due(3)
		e.onSend = func() {
			if len(e.sent) > before {
				cancel()
			}
		}
		report, err := e.deliver(ctx)
		require.Len(t, e.recorded, before)
		if before == 0 {
			require.ErrorContains(t, err, context.Canceled.Error())
			continue
		}
		require.NoError(t, err)
		require.Equal(t, DeliverReport{State: webhook.StateDue, Delivered: before}, report)
	}
}
