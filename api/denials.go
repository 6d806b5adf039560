package api

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/earmark-dev/earmark"
)

const (
	// denialPause is the pause between two writes of denials.
	denialPause = time.Second
	// denialTimeout bounds one write.
	denialTimeout = 5 * time.Second
	// maxCountedBudgets bounds the budgets whose denials wait for a write. Beyond it denials are not counted.
	maxCountedBudgets = 10_000
)

// denialLedger is the part of the ledger that writes the events of denials.
type denialLedger interface {
	CountDenials(ctx context.Context, tenant string, denials []earmark.Denials) (due time.Duration, err error)
}

// denials counts denials by budget and writes them in the background, for a denial is a read and stays one.
type denials struct {
	ledger   denialLedger
	stopping <-chan struct{}
	log      *slog.Logger

	mu      sync.Mutex
	pending map[deniedBudget]earmark.Denials
	running bool
}

type deniedBudget struct{ tenant, id string }

func newDenials(ledger denialLedger, stopping <-chan struct{}, log *slog.Logger) *denials {
	return &denials{ledger: ledger, stopping: stopping, log: log, pending: map[deniedBudget]earmark.Denials{}}
}

// add counts one denial in each of the budgets.
func (d *denials) add(ctx context.Context, tenant string, violations []earmark.Violation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, v := range violations {
		key := deniedBudget{tenant, v.BudgetID}
		counted, found := d.pending[key]
		if !found && len(d.pending) >= maxCountedBudgets {
			continue
		}
		d.pending[key] = earmark.Denials{BudgetID: v.BudgetID, Count: counted.Count + 1, Requested: v.Requested, Limit: v.Limit, Available: v.Available}
	}
	if !d.running {
		d.running = true
		go d.run(context.WithoutCancel(ctx))
	}
}

// run writes what is pending, until nothing is and no count waits for its minute.
func (d *denials) run(ctx context.Context) {
	due := map[string]time.Time{} // by tenant
	for {
		taken := d.take(len(due) == 0)
		if len(taken) == 0 && len(due) == 0 {
			return
		}
		now := time.Now()
		for tenant, at := range due {
			if _, found := taken[tenant]; !found && !now.Before(at) {
				taken[tenant] = nil
			}
		}
		for tenant, counted := range taken {
			delete(due, tenant)
			if after := d.write(ctx, tenant, counted); after > 0 {
				due[tenant] = time.Now().Add(after)
			}
		}
		select {
		case <-d.stopping:
			d.finish(ctx)
			return
		case <-time.After(denialPause):
		}
	}
}

// finish writes what is pending, once.
func (d *denials) finish(ctx context.Context) {
	for tenant, counted := range d.take(true) {
		d.write(ctx, tenant, counted)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running = false
}

// take returns what is pending, by tenant. Without anything, and if the loop would end, it notes that it ends.
func (d *denials) take(ends bool) map[string][]earmark.Denials {
	d.mu.Lock()
	defer d.mu.Unlock()
	taken := map[string][]earmark.Denials{}
	for key, counted := range d.pending {
		taken[key.tenant] = append(taken[key.tenant], counted)
	}
	clear(d.pending)
	d.running = len(taken) > 0 || !ends
	return taken
}

// write writes the denials of a tenant, and takes them back if that fails.
func (d *denials) write(ctx context.Context, tenant string, counted []earmark.Denials) (due time.Duration) {
	slices.SortFunc(counted, func(a, b earmark.Denials) int { return cmp.Compare(a.BudgetID, b.BudgetID) })
	ctx, cancel := context.WithTimeout(ctx, denialTimeout)
	defer cancel()
	due, err := d.ledger.CountDenials(ctx, tenant, counted)
	if err == nil {
		return due
	}
	d.log.WarnContext(ctx, "Denials could not be counted; the next write tries again.", "tenant", tenant, "error", err)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range counted {
		key := deniedBudget{tenant, c.BudgetID}
		newer, found := d.pending[key]
		if found {
			newer.Count += c.Count
		} else {
			newer = c
		}
		d.pending[key] = newer
	}
	return denialPause
}
