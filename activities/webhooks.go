package activities

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/earmark-dev/earmark/internal/ctxtime"
	"github.com/earmark-dev/earmark/internal/webhook"
)

const (
	// SendBudget is how long one activity begins attempts.
	SendBudget = 10 * time.Second
	// eventsPerBatch bounds the events that one record is about.
	eventsPerBatch = 500
	// idlePause is between the looks for a next event that an activity takes after it has sent some, and idleLooks are how many it takes.
	// Where events keep coming, each would otherwise wait for the dispatcher's next look, and cost an activity.
	idlePause = 200 * time.Millisecond
	idleLooks = 5
	// DeliveryHeartbeat is after how long without a heartbeat Temporal gives a delivery to another worker: its own was killed.
	DeliveryHeartbeat = 12 * time.Second
	// DeliveryBeat is how often a delivery that is under way says so.
	DeliveryBeat = 3 * time.Second
	// recordTimeout bounds the record of attempts, which is made even if the worker stops.
	recordTimeout = 5 * time.Second
)

// DeliveryLedger is the part of the ledger that deliveries use.
type DeliveryLedger interface {
	NextDeliveries(ctx context.Context, id string, limit int) (webhook.Batch, error)
	RecordDeliveries(ctx context.Context, id, after string, attempts []webhook.Attempt, retry time.Duration) (disabled bool, err error)
}

// WebhookSender makes one attempt. It returns the status of the answer, 0 without one; the error says why it was no success.
type WebhookSender interface {
	Send(ctx context.Context, endpoint string, m webhook.Message, at time.Time, secrets ...webhook.Secret) (status int, err error)
}

// Webhooks delivers events to endpoints.
type Webhooks struct {
	Ledger DeliveryLedger
	Sender WebhookSender
	Logger *slog.Logger
}

// DeliverReport says what one activity did, and what the endpoint needs next.
type DeliverReport struct {
	State     webhook.State `json:"state"`
	WaitMS    int64         `json:"wait_ms"`   // with StateWaiting: until the next attempt
	Delivered int           `json:"delivered"` // events
	Failed    bool          `json:"failed"`    // the last attempt failed
	Disabled  bool          `json:"disabled"`  // for so many failures
}

// Deliver sends the events that an endpoint wants, in their order, until one fails, none is left or SendBudget is over,
// and records the attempts of each batch. If it is lost before the record, the events of the batch are sent again under the same ids.
func (w *Webhooks) Deliver(ctx context.Context, id string) (DeliverReport, error) {
	defer beat(ctx)()
	begun, delivered, looks := time.Now(), 0, 0
	for {
		report, err := w.deliverBatch(ctx, id, begun)
		delivered += report.Delivered
		report.Delivered = delivered
		if looks++; report.State == webhook.StateDue {
			looks = 0
		}
		more := report.State == webhook.StateDue || report.State == webhook.StateIdle && delivered > 0 && looks <= idleLooks
		if err != nil || !more || ctx.Err() != nil || time.Since(begun) > SendBudget {
			return report, err
		}
		if report.State == webhook.StateIdle && !ctxtime.Sleep(ctx, idlePause) {
			return report, nil
		}
	}
}

// deliverBatch sends what the ledger has for an endpoint now, and records the attempts.
func (w *Webhooks) deliverBatch(ctx context.Context, id string, begun time.Time) (DeliverReport, error) {
	batch, err := w.Ledger.NextDeliveries(ctx, id, eventsPerBatch)
	if err != nil || batch.State != webhook.StateDue {
		return DeliverReport{State: batch.State, WaitMS: batch.WaitMS}, err
	}
	attempts, err := w.send(ctx, batch, begun)
	if len(attempts) == 0 {
		return DeliverReport{}, err
	}
	report := DeliverReport{State: webhook.StateDue, Delivered: len(attempts)}
	var retry time.Duration
	if last := attempts[len(attempts)-1]; last.Error != "" {
		retry = webhook.RetryAfter(last.Attempt)
		report.State, report.WaitMS, report.Failed = webhook.StateWaiting, retry.Milliseconds(), true
		report.Delivered--
	}
	record, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	report.Disabled, err = w.Ledger.RecordDeliveries(record, id, batch.After, attempts, retry)
	if report.Disabled {
		report.State = webhook.StateOver
		w.Logger.WarnContext(ctx, "A webhook is disabled, since every attempt failed for days.", "webhook_id", id, "error", attempts[len(attempts)-1].Error)
	}
	return report, err
}

// beat sends heartbeats until stop is called. An attempt may last longer than Temporal waits for one.
func beat(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var beating sync.WaitGroup
	beating.Go(func() {
		for ctxtime.Sleep(ctx, DeliveryBeat) {
			activity.RecordHeartbeat(ctx)
		}
	})
	return func() {
		cancel()
		beating.Wait()
	}
}

// send makes attempts until one fails. An attempt that ended because the worker stops counts for none; the error says so.
func (w *Webhooks) send(ctx context.Context, batch webhook.Batch, begun time.Time) (attempts []webhook.Attempt, err error) {
	for i, event := range batch.Events {
		if i > 0 && time.Since(begun) > SendBudget {
			break
		}
		message, err := webhook.MessageOf(event)
		if err != nil {
			return attempts, err
		}
		a := webhook.Attempt{EventID: event.ID, Type: event.Type, Attempt: 1, At: time.Now()}
		if i == 0 {
			a.Attempt += batch.Attempts
		}
		a.Status, err = w.Sender.Send(ctx, batch.URL, message, a.At, batch.Secrets...)
		if ctx.Err() != nil {
			return attempts, ctx.Err()
		}
		a.DurationMS, a.Error = time.Since(a.At).Milliseconds(), webhook.Failure(err)
		if attempts = append(attempts, a); a.Error != "" { // mutation: delivery-in-order
			break
		}
	}
	return attempts, nil
}
