package activities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/webhook"
)

// endpoint is a ledger with batches of events, and the endpoint that receives them.
type endpoint struct {
	batches  []webhook.Batch // what the ledger has at each look; idle after the last
	looks    int
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
	e.looks++
	if e.looks > len(e.batches) {
		return webhook.Batch{State: webhook.StateIdle}, nil
	}
	return e.batches[e.looks-1], nil
}

func (e *endpoint) RecordDeliveries(ctx context.Context, _, after string, attempts []webhook.Attempt, retry time.Duration) (bool, error) {
	e.records++
	e.recorded, e.after, e.retry = append(e.recorded, attempts...), after, retry
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
	e := &endpoint{fails: map[string]error{}}
	e.wait(events)
	return e
}

// wait has one more batch wait.
func (e *endpoint) wait(events int) {
	after := len(e.batches)
	batch := webhook.Batch{State: webhook.StateDue, After: fmt.Sprintf("evt_%d_0", after+1)}
	for i := range events {
		batch.Events = append(batch.Events, earmark.Event{ID: fmt.Sprintf("evt_%d_%d", after+1, i+1), Type: earmark.EventExpired})
	}
	e.batches = append(e.batches, batch)
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
	e.batches[0].Attempts, e.disabled = 3, true
	e.fails["evt_1_1"] = errors.New("no answer")
	report, err = e.deliver(t.Context())
	require.NoError(t, err)
	require.Equal(t, 4, e.recorded[0].Attempt)
	require.Equal(t, 10*time.Minute, e.retry)
	require.Equal(t, webhook.StateOver, report.State)
	require.True(t, report.Disabled)
}

// Batch after batch, and what comes soon after, is sent by one activity; each batch has a record.
func TestDeliverSendsAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := due(3)
		e.wait(2)
		e.batches = append(e.batches, webhook.Batch{State: webhook.StateIdle}, webhook.Batch{State: webhook.StateIdle})
		e.wait(1)
		begun := time.Now()
		report, err := e.deliver(t.Context())
		require.NoError(t, err)
		require.Equal(t, DeliverReport{State: webhook.StateIdle, Delivered: 6}, report)
		require.Len(t, e.recorded, 6)
		require.Equal(t, 3, e.records)
		require.Equal(t, "evt_5_0", e.after)
		require.Equal(t, (2+idleLooks)*idlePause, time.Since(begun), "an activity looks for a while after the last event")
	})
	for _, state := range []webhook.State{webhook.StateIdle, webhook.StateOver, webhook.StateWaiting} {
		e := &endpoint{batches: []webhook.Batch{{State: state, WaitMS: 7}}}
		report, err := e.deliver(t.Context())
		require.NoError(t, err)
		require.Equal(t, DeliverReport{State: state, WaitMS: 7}, report)
		require.Zero(t, e.records)
		require.Equal(t, 1, e.looks, "without an event there is no other look")
	}
}

// An activity ends after SendBudget, so that its workflow can be told something. More may wait then.
func TestDeliverEndsInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := due(1)
		for range 100 {
			e.wait(1)
		}
		e.onSend = func() { time.Sleep(time.Second) } //nolint:forbidigo // how long an attempt takes, by the clock of the bubble
		report, err := e.deliver(t.Context())
		require.NoError(t, err)
		require.Equal(t, webhook.StateDue, report.State)
		require.InDelta(t, SendBudget.Seconds(), report.Delivered, 1)
	})
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
