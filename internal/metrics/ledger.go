package metrics

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
)

// Ledger counts the ledger's transitions. The API and the activities of this process call
// the ledger through it. Late usage and overage are counted with the outcome `applied`,
// which exactly one call in all processes gets.
type Ledger struct {
	*postgres.Ledger

	transitions *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	late        prometheus.Counter
	overage     *prometheus.CounterVec
	units       *unitLabels
	work        *work
}

func newLedger(ledger *postgres.Ledger, registry prometheus.Registerer, units *unitLabels, w *work) *Ledger {
	factory := promauto.With(registry)
	return &Ledger{
		Ledger: ledger,
		transitions: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "earmark_ledger_transitions_total",
			Help: "Transitions asked of the ledger by this process, by outcome; an error counts by its code.",
		}, []string{"transition", "outcome"}),
		seconds: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "earmark_ledger_transition_duration_seconds",
			Help:    "Time that a transition took in the ledger, the wait for a connection included, in seconds.",
			Buckets: secondsBuckets,
		}, []string{"transition"}),
		late: factory.NewCounter(prometheus.CounterOpts{
			Name: "earmark_late_commits_total",
			Help: "Usage that was charged after the reservation's expiry.",
		}),
		overage: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "earmark_overage_total",
			Help: "Usage beyond the reserved amounts, in the unit of the label.",
		}, []string{"unit"}),
		units: units,
		work:  w,
	}
}

// Reserve counts the outcome.
func (l *Ledger) Reserve(ctx context.Context, a earmark.Admission) (earmark.Result, error) {
	return l.count("reserve", func() (earmark.Result, error) { return l.Ledger.Reserve(ctx, a) })
}

// Commit counts the outcome, and what it charges late or beyond the reserved amount.
func (l *Ledger) Commit(ctx context.Context, s earmark.Transition, usage earmark.Amounts) (earmark.Result, error) {
	result, err := l.count("commit", func() (earmark.Result, error) { return l.Ledger.Commit(ctx, s, usage) })
	if err != nil || result.Outcome != earmark.OutcomeApplied || result.Reservation == nil {
		return result, err
	}
	if result.Reservation.Late {
		l.late.Inc()
	}
	for unit, amount := range result.Reservation.Overage {
		l.overage.WithLabelValues(l.units.label(unit)).Add(float64(amount))
	}
	return result, nil
}

// Release counts the outcome.
func (l *Ledger) Release(ctx context.Context, s earmark.Transition) (earmark.Result, error) {
	return l.count("release", func() (earmark.Result, error) { return l.Ledger.Release(ctx, s) })
}

// GiveBack counts the outcome.
func (l *Ledger) GiveBack(ctx context.Context, s earmark.Transition) (earmark.Result, error) {
	return l.count("give_back", func() (earmark.Result, error) { return l.Ledger.GiveBack(ctx, s) })
}

// Expire counts the outcome.
func (l *Ledger) Expire(ctx context.Context, s earmark.Transition) (earmark.Result, error) {
	return l.count("expire", func() (earmark.Result, error) { return l.Ledger.Expire(ctx, s) })
}

// Extend counts the outcome.
func (l *Ledger) Extend(ctx context.Context, s earmark.Transition, ttl time.Duration) (earmark.Result, error) {
	return l.count("extend", func() (earmark.Result, error) { return l.Ledger.Extend(ctx, s, ttl) })
}

// Charge counts the outcome.
func (l *Ledger) Charge(ctx context.Context, c earmark.Charge) (earmark.Result, error) {
	return l.count("charge", func() (earmark.Result, error) { return l.Ledger.Charge(ctx, c) })
}

// Correct counts the outcome.
func (l *Ledger) Correct(ctx context.Context, c earmark.Correction) (earmark.Result, error) {
	return l.count("correct", func() (earmark.Result, error) { return l.Ledger.Correct(ctx, c) })
}

// Sweep counts a run of the sweeper, its only caller.
func (l *Ledger) Sweep(ctx context.Context, grace time.Duration, limit int) ([]string, error) {
	ids, err := l.Ledger.Sweep(ctx, grace, limit)
	if l.work != nil {
		l.work.sweeper.ran(err)
		l.work.swept.Add(float64(len(ids)))
	}
	return ids, err
}

func (l *Ledger) count(transition string, call func() (earmark.Result, error)) (earmark.Result, error) {
	started := time.Now()
	result, err := call()
	l.seconds.WithLabelValues(transition).Observe(time.Since(started).Seconds())
	l.transitions.WithLabelValues(transition, outcomeLabel(result, err)).Inc()
	return result, err
}

func outcomeLabel(result earmark.Result, err error) string {
	var known *earmark.Error
	switch {
	case err == nil:
		return string(result.Outcome)
	case errors.As(err, &known):
		return string(known.Code)
	}
	return string(earmark.CodeInternal)
}
