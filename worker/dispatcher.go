package worker

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark/internal/ctxtime"
	"github.com/earmark-dev/earmark/internal/webhook"
)

const (
	// dispatchEvery is how long an event waits for its delivery at most, if its endpoint has nothing to do.
	dispatchEvery = time.Second
	// dispatchLease is after how long the workflow of an endpoint with events is asked again, which starts a lost one.
	dispatchLease   = 10 * time.Second
	dispatchBatch   = 200
	dispatchAtOnce  = 8
	dispatchTimeout = 10 * time.Second
)

// DispatchLedger is the part of the ledger that the dispatcher uses.
type DispatchLedger interface {
	ClaimWebhooks(ctx context.Context, lease time.Duration, limit int) ([]webhook.Claim, error)
}

// Dispatcher looks for endpoints with events that wait, and has their workflows deliver.
type Dispatcher struct {
	Ledger  DispatchLedger
	Deliver func(ctx context.Context, claim webhook.Claim) error
	Logger  *slog.Logger
}

// Run looks every second until ctx is done. It logs a fault once, until a look succeeds or fails otherwise.
func (d *Dispatcher) Run(ctx context.Context) error {
	last := ""
	for pause := time.Duration(0); ctxtime.Sleep(ctx, pause); {
		pause = dispatchEvery
		found, err := d.look(ctx)
		switch {
		case err == nil:
			last = ""
		case ctx.Err() == nil && err.Error() != last:
			last = err.Error()
			d.Logger.WarnContext(ctx, "Webhooks are not looked for, or their workflows not reached; trying again.", "error", err)
		}
		if found == dispatchBatch {
			pause = 0
		}
	}
	return nil
}

func (d *Dispatcher) look(ctx context.Context) (found int, err error) {
	ctx, cancel := context.WithTimeout(ctx, dispatchTimeout)
	defer cancel()
	claims, err := d.Ledger.ClaimWebhooks(ctx, dispatchLease, dispatchBatch)
	if err != nil {
		return 0, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(dispatchAtOnce)
	for _, claim := range claims {
		group.Go(func() error { return d.Deliver(ctx, claim) })
	}
	return len(claims), group.Wait()
}
