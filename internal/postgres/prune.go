package postgres

import (
	"context"
	_ "embed"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
)

// Bounds of pruning.
const (
	// LeastKept is the minimum time that a settled reservation is kept, and so how long its
	// idempotency key answers.
	LeastKept = 30 * 24 * time.Hour
	// DefaultKept is longer than the longest window and the usage that arrives late for it.
	DefaultKept = 90 * 24 * time.Hour
	// LeastEventsKept is longer than the days over which the delivery of an event is tried, and
	// DefaultEventsKept leaves a reader time to come back.
	LeastEventsKept   = 7 * 24 * time.Hour
	DefaultEventsKept = 30 * 24 * time.Hour
	// pruneBatch bounds how long one transaction locks rows.
	pruneBatch = 500
	// pruneBreath is the pause between two batches, which leaves the disk to others.
	pruneBreath = 10 * time.Millisecond
)

var (
	//go:embed sql/prune_extent.sql
	pruneExtentSQL string
)

// PruneOptions are the options of Prune.
type PruneOptions struct {
	Keep time.Duration // how long a settled reservation is kept, at least LeastKept
	// KeepEvents is how long an event, and an attempt to deliver one, is kept, at least LeastEventsKept; 0 means DefaultEventsKept.
	KeepEvents time.Duration
	Dry        bool // only count
	Actor      earmark.Actor
	// Progress receives the report after each batch; may be nil.
	Progress func(PruneReport)
}

// PruneReport counts what was removed, or in a dry run what would be removed.
type PruneReport struct {
	Total        int64 `json:"total"`     // reservations that are old enough to be checked
	LookedAt     int64 `json:"looked_at"` // of those
	Reservations int64 `json:"reservations"`
	Entries      int64 `json:"entries"`
	Events       int64 `json:"events"`     // always 0 in a dry run
	Deliveries   int64 `json:"deliveries"` // attempts to deliver events; always 0 in a dry run
}

// pruned is the result of earmark.prune.
type pruned struct {
	Busy         bool       `json:"busy"`
	LookedAt     int64      `json:"looked_at"`
	LastAt       *time.Time `json:"last_at"`
	LastID       string     `json:"last_id"`
	Reservations int64      `json:"reservations"`
	Entries      int64      `json:"entries"`
}

const pruneSQL = "SELECT earmark.prune(p_tenant => @tenant, p_keep_ms => @keep_ms, p_after_at => @after_at, p_after_id => @after_id, " +
	"p_max => @max, p_dry => @dry, p_actor => @actor)"

// Prune removes reservations that were settled long ago, with their entries, in batches of
// one transaction each. It may be interrupted and started again at any time, and takes no
// lock that an admission waits for. It removes nothing from a window that has not ended, and
// no entry that usage reports do not have as a sum; it makes these sums first.
// Balances stay unchanged.
func (l *Ledger) Prune(ctx context.Context, o PruneOptions) (PruneReport, error) {
	var report PruneReport
	if o.Keep < LeastKept {
		err := earmark.Errorf(earmark.CodeInvalidRequest, "is %s; at least %s are allowed, since idempotency keys are kept for that long", o.Keep, LeastKept)
		err.Field = "keep"
		return report, err
	}
	if o.KeepEvents == 0 {
		o.KeepEvents = DefaultEventsKept
	}
	if o.KeepEvents < LeastEventsKept {
		err := earmark.Errorf(earmark.CodeInvalidRequest, "is %s; at least %s are allowed", o.KeepEvents, LeastEventsKept)
		err.Field = "keep_events"
		return report, err
	}
	if err := l.rollUpAll(ctx); err != nil {
		return report, err
	}
	tenants, err := l.pruneExtent(ctx, o.Keep, &report)
	if err != nil {
		return report, err
	}
	for _, tenant := range tenants {
		if err := l.pruneTenant(ctx, tenant, o, &report); err != nil {
			return report, err
		}
	}
	if !o.Dry {
		report.Events, err = l.pruneOld(ctx, pruneEventsSQL, o.KeepEvents)
		if err == nil {
			report.Deliveries, err = l.pruneOld(ctx, pruneDeliveriesSQL, o.KeepEvents)
		}
	}
	return report, err
}

// pruneExtent returns the tenants, and reports how many reservations there are to check.
func (l *Ledger) pruneExtent(ctx context.Context, keep time.Duration, report *PruneReport) (tenants []string, err error) {
	rows, err := l.pool.Query(ctx, pruneExtentSQL, keep.Milliseconds())
	if err != nil {
		return nil, fault(err)
	}
	var tenant string
	var count int64
	_, err = pgx.ForEachRow(rows, []any{&tenant, &count}, func() error {
		tenants, report.Total = append(tenants, tenant), report.Total+count
		return nil
	})
	return tenants, fault(err)
}

func (l *Ledger) pruneTenant(ctx context.Context, tenant string, o PruneOptions, report *PruneReport) error {
	lastAt, lastID := time.Unix(0, 0), ""
	for {
		var batch pruned
		if err := l.read(ctx, &batch, pruneSQL, namedArgs{
			"tenant": tenant, "keep_ms": o.Keep.Milliseconds(), "after_at": lastAt, "after_id": lastID, "max": pruneBatch, "dry": o.Dry, "actor": o.Actor.String()}); err != nil {
			return err
		}
		if batch.Busy {
			return earmark.Errorf(earmark.CodeUnavailable, "another prune is at work on this database")
		}
		report.LookedAt += batch.LookedAt
		report.Reservations += batch.Reservations
		report.Entries += batch.Entries
		if o.Progress != nil {
			o.Progress(*report)
		}
		if batch.LookedAt < pruneBatch {
			return nil
		}
		lastAt, lastID = *batch.LastAt, batch.LastID
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pruneBreath):
		}
	}
}
