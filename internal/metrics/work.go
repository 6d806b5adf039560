package metrics

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"

	"github.com/earmark-dev/earmark/activities"
)

// reconcileActivity is the registered name of the reconciler's activity.
const reconcileActivity = "Reconcile"

// deliverActivity is the registered name of the activity that delivers events to webhooks.
const deliverActivity = "Deliver"

// settlementActivities are the activities that a workflow repeats until the ledger answers.
var settlementActivities = []string{"Reserve", "Commit", "Release", "GiveBack", "Expire", "Extend", "Charge", "Inspect"}

// work counts what a worker does besides transitions.
type work struct {
	sweeper    runs
	swept      prometheus.Counter
	reconciler runs
	orphans    prometheus.Counter
	adopted    prometheus.Counter
	failures   *prometheus.CounterVec
	deliveries *prometheus.CounterVec
	disabled   prometheus.Counter
}

// runs counts a repeated job.
type runs struct {
	total *prometheus.CounterVec
	last  prometheus.Gauge
}

func newWork(registry prometheus.Registerer) *work {
	factory := promauto.With(registry)
	w := &work{
		sweeper:    newRuns(factory, "sweeper", "Looks of this process' sweeper for overdue reservations."),
		reconciler: newRuns(factory, "reconciler", "Runs of the reconciler in this process; Temporal chooses one for each."),
		swept: factory.NewCounter(prometheus.CounterOpts{
			Name: "earmark_sweeper_expired_total",
			Help: "Reservations that this process' sweeper expired because their workflow did not.",
		}),
		orphans: factory.NewCounter(prometheus.CounterOpts{
			Name: "earmark_reconciler_orphans_total",
			Help: "Open reservations that were found without an open workflow.",
		}),
		adopted: factory.NewCounter(prometheus.CounterOpts{
			Name: "earmark_reconciler_adopted_total",
			Help: "Orphans that were given a workflow again.",
		}),
		deliveries: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "earmark_webhook_deliveries_total",
			Help: "Attempts of this process to deliver an event to a webhook, by outcome: ok or failed.",
		}, []string{"outcome"}),
		disabled: factory.NewCounter(prometheus.CounterOpts{
			Name: "earmark_webhook_disabled_total",
			Help: "Webhooks that this process disabled because every attempt failed for 3 days.",
		}),
		failures: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "earmark_settlement_failures_total",
			Help: "Calls of a workflow to the ledger that failed although the quick tries were over; each is tried again until it succeeds.",
		}, []string{"activity"}),
	}
	w.deliveries.WithLabelValues("ok")
	w.deliveries.WithLabelValues("failed")
	for _, name := range settlementActivities { // so that each shows 0 instead of being absent
		w.failures.WithLabelValues(name)
	}
	return w
}

func newRuns(factory promauto.Factory, who, help string) runs {
	r := runs{
		total: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "earmark_" + who + "_runs_total",
			Help: help,
		}, []string{"outcome"}),
		last: factory.NewGauge(prometheus.GaugeOpts{
			Name: "earmark_" + who + "_last_success_timestamp_seconds",
			Help: "When the last run ended well, in seconds since 1970; before the first one, when the process started.",
		}),
	}
	r.total.WithLabelValues("ok")
	r.total.WithLabelValues("failed")
	r.last.SetToCurrentTime()
	return r
}

func (r runs) ran(err error) {
	if err != nil {
		r.total.WithLabelValues("failed").Inc()
		return
	}
	r.total.WithLabelValues("ok").Inc()
	r.last.SetToCurrentTime()
}

// workInterceptor observes the activities of a worker, and no workflows.
type workInterceptor struct {
	interceptor.InterceptorBase
	work *work
}

// InterceptActivity wraps an activity.
func (i *workInterceptor) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &activityInterceptor{ActivityInboundInterceptorBase: interceptor.ActivityInboundInterceptorBase{Next: next}, work: i.work}
}

type activityInterceptor struct {
	interceptor.ActivityInboundInterceptorBase
	work *work
}

// ExecuteActivity counts a reconcile run, deliveries to webhooks, and a settlement that fails for longer than its
// local activity may take.
func (i *activityInterceptor) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	info := activity.GetInfo(ctx)
	answer, err := i.Next.ExecuteActivity(ctx, in)
	switch {
	case info.ActivityType.Name == reconcileActivity:
		i.work.reconciler.ran(err)
		if report, ok := answer.(activities.ReconcileReport); ok {
			i.work.orphans.Add(float64(report.Orphans))
			i.work.adopted.Add(float64(report.Adopted))
		}
	case info.ActivityType.Name == deliverActivity:
		if report, ok := answer.(activities.DeliverReport); ok {
			i.work.delivered(report)
		}
	case err != nil && !info.IsLocalActivity:
		i.work.failures.WithLabelValues(info.ActivityType.Name).Inc()
	}
	return answer, err
}

func (w *work) delivered(report activities.DeliverReport) {
	w.deliveries.WithLabelValues("ok").Add(float64(report.Delivered))
	if report.Failed {
		w.deliveries.WithLabelValues("failed").Inc()
	}
	if report.Disabled {
		w.disabled.Inc()
	}
}
