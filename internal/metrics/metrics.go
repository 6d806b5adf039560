// Package metrics counts what one process of Earmark does, for Prometheus. Every label has
// a closed set of values, or a set with a named bound. docs/observability.md lists all
// metrics.
package metrics

import (
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.temporal.io/sdk/client"

	"github.com/earmark-dev/earmark/internal/postgres"
)

// secondsBuckets reach from 1 ms, below the fastest call, to 10 s, above every deadline of
// a caller.
var secondsBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// Options describe a process.
type Options struct {
	// Version and Commit identify the build; Commit is empty if it is not known.
	Version, Commit string
	Pool            *pgxpool.Pool
	Lists           *pgxpool.Pool // for lists and the overview; nil: Pool
	// Works is true if a worker runs in the process. The sweeper and the reconciler run
	// only there.
	Works bool
}

// Metrics are the metrics of one process.
type Metrics struct {
	// Registry accepts further metrics of the process.
	Registry *prometheus.Registry
	// Ledger is the ledger of the process, with its transitions counted.
	Ledger *Ledger

	temporal client.MetricsHandler
	work     *work // nil if no worker runs
}

// New returns the metrics of a process and the ledger on its pool.
func New(options Options) (*Metrics, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	promauto.With(registry).NewGaugeVec(prometheus.GaugeOpts{
		Name: "earmark_build_info",
		Help: "Always 1; the labels say which release runs.",
	}, []string{"version", "commit"}).WithLabelValues(options.Version, options.Commit).Set(1)

	m := &Metrics{Registry: registry}
	ledger := postgres.New(options.Pool)
	pools := pools{"ledger": options.Pool}
	if options.Lists != nil {
		ledger.ListFrom(options.Lists)
		pools["lists"] = options.Lists
	}
	units := &unitLabels{}
	if options.Works {
		m.work = newWork(registry)
	}
	m.Ledger = newLedger(ledger, registry, units, m.work)
	registry.MustRegister(newHolds(ledger.Holds, units), pools)
	var err error
	m.temporal, err = newTemporalHandler(registry)
	return m, err
}

// WatchCertificate reports when the server's TLS certificate expires; nil means that there is none.
func (m *Metrics) WatchCertificate(expiry func() time.Time) {
	promauto.With(m.Registry).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "earmark_tls_certificate_expiry_timestamp_seconds",
		Help: "When the TLS certificate of the HTTP API expires, in seconds since 1970; 0 without TLS.",
	}, func() float64 {
		if expiry == nil {
			return 0
		}
		return float64(expiry().Unix())
	})
}

// Handler serves the metrics. It leaves out a metric that cannot be collected and serves
// the rest.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// Observe makes a Temporal client, and the workers made with it, report metrics.
func (m *Metrics) Observe(options *client.Options) {
	options.MetricsHandler = m.temporal
	if m.work != nil {
		options.Interceptors = append(options.Interceptors, &workInterceptor{work: m.work})
	}
}
