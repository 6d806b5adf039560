package worker

import (
	"context"
	"log/slog"
	"time"

	"github.com/earmark-dev/earmark/internal/ctxtime"
)

// readyTimeout bounds one check of the ledger.
const readyTimeout = 5 * time.Second

// ReadyLedger reports whether Postgres answers and has the schema that this program needs.
type ReadyLedger interface {
	Ready(ctx context.Context) error
}

// AwaitLedger returns true once the ledger is ready, and false if ctx ends before. It logs
// what is missing at once, and again whenever that changes.
func AwaitLedger(ctx context.Context, ledger ReadyLedger, logger *slog.Logger) bool {
	last := ""
	for {
		err := look(ctx, ledger)
		switch {
		case ctx.Err() != nil:
			return false
		case err == nil && last != "":
			logger.InfoContext(ctx, "The ledger is ready.")
			return true
		case err == nil:
			return true
		case err.Error() != last:
			last = err.Error()
			logger.WarnContext(ctx, "The ledger is not ready: calls fail and no worker of this process takes tasks until it is.", "error", err)
		}
		ctxtime.Sleep(ctx, retryPause)
	}
}

func look(ctx context.Context, ledger ReadyLedger) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return ledger.Ready(ctx)
}
