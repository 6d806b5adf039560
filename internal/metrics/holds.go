package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/earmark-dev/earmark/internal/postgres"
)

const (
	// holdsMaxAge is how long one answer of Postgres is reused, so that several scrapers
	// cost one query.
	holdsMaxAge = 5 * time.Second
	// holdsTimeout bounds the query, including the wait for a connection. It is below
	// Prometheus' scrape timeout.
	holdsTimeout = 2 * time.Second
)

// holds reports the holds of the whole ledger; every process reports the same. If Postgres
// does not answer, `earmark_ledger_up` is 0 and the other metrics are absent, so that no
// old value looks current.
type holds struct {
	read  func(context.Context) (postgres.Holds, error)
	units *unitLabels

	mu     sync.Mutex
	readAt time.Time
	latest postgres.Holds
	err    error
}

func newHolds(read func(context.Context) (postgres.Holds, error), units *unitLabels) *holds {
	return &holds{read: read, units: units}
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	ledgerUp    = describe("earmark_ledger_up", "1 if Postgres answered the gauges of the ledger, else 0; then they are absent.")
	openHolds   = describe("earmark_open_reservations", "Reservations that set budget aside, in the whole ledger, by state.", "state")
	heldAmount  = describe("earmark_held_amount", "What open reservations set aside, in the whole ledger, in the unit of the label.", "unit")
	oldestHold  = describe("earmark_oldest_hold_age_seconds", "Seconds since the oldest open reservation was made; 0 without any.")
	overdue     = describe("earmark_overdue_reservations", "Held reservations past their expiry, in the whole ledger.")
	mostOverdue = describe("earmark_most_overdue_seconds", "How long the most overdue reservation is past its expiry, in seconds; 0 without any.")
	orphans     = describe("earmark_orphan_reservations", "Open reservations that no open workflow was found to guard, in the whole ledger.")
)

// Describe lists the metrics that Collect may return.
func (h *holds) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{ledgerUp, openHolds, heldAmount, oldestHold, overdue, mostOverdue, orphans} {
		descriptions <- d
	}
}

// Collect reads Postgres, or reuses the last answer up to holdsMaxAge.
func (h *holds) Collect(metrics chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	now, err := h.current()
	if err != nil {
		gauge(ledgerUp, 0)
		return
	}
	gauge(ledgerUp, 1)
	gauge(openHolds, float64(now.Held), "held")
	gauge(openHolds, float64(now.Review), "review")
	amounts := make(map[string]float64)
	for unit, amount := range now.Amounts {
		amounts[h.units.label(unit)] += amount
	}
	for label, amount := range amounts {
		gauge(heldAmount, amount, label)
	}
	gauge(oldestHold, now.OldestAge.Seconds())
	gauge(overdue, float64(now.Overdue))
	gauge(mostOverdue, now.MostOverdue.Seconds())
	gauge(orphans, float64(now.Orphans))
}

// current returns what was read at most holdsMaxAge ago, including a failure: a Postgres in
// trouble gets no more queries than a healthy one.
func (h *holds) current() (postgres.Holds, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.readAt.IsZero() && time.Since(h.readAt) < holdsMaxAge {
		return h.latest, h.err
	}
	ctx, cancel := context.WithTimeout(context.Background(), holdsTimeout) // a collector gets no context
	defer cancel()
	h.latest, h.err = h.read(ctx)
	h.readAt = time.Now()
	return h.latest, h.err
}
