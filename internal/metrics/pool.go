package metrics

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// pool reports how many of the process' connections to Postgres are in use.
type pool struct{ pool *pgxpool.Pool }

func newPool(p *pgxpool.Pool) pool { return pool{p} }

var (
	poolConnections = describe("earmark_pool_connections", "Connections to Postgres of this process, by what they do.", "state")
	poolMax         = describe("earmark_pool_max_connections", "Connections to Postgres that this process may have.")
	poolAcquires    = describe("earmark_pool_acquires_total", "Times that a connection was taken from the pool.")
	poolWaits       = describe("earmark_pool_waits_total", "Times that none was free, and one was waited for.")
	poolCanceled    = describe("earmark_pool_canceled_acquires_total", "Waits for a connection that ended without one.")
	poolWaitSeconds = describe("earmark_pool_wait_seconds_total", "Seconds spent in waiting for a connection where none was free.")
)

// Describe lists the metrics that Collect returns.
func (p pool) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{poolConnections, poolMax, poolAcquires, poolWaits, poolCanceled, poolWaitSeconds} {
		descriptions <- d
	}
}

// Collect reads the pool's own counters.
func (p pool) Collect(metrics chan<- prometheus.Metric) {
	stat := p.pool.Stat()
	send := func(kind prometheus.ValueType, d *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, kind, value, labels...)
	}
	send(prometheus.GaugeValue, poolConnections, float64(stat.AcquiredConns()), "in_use")
	send(prometheus.GaugeValue, poolConnections, float64(stat.IdleConns()), "idle")
	send(prometheus.GaugeValue, poolConnections, float64(stat.ConstructingConns()), "opening")
	send(prometheus.GaugeValue, poolMax, float64(stat.MaxConns()))
	send(prometheus.CounterValue, poolAcquires, float64(stat.AcquireCount()))
	send(prometheus.CounterValue, poolWaits, float64(stat.EmptyAcquireCount()))
	send(prometheus.CounterValue, poolCanceled, float64(stat.CanceledAcquireCount()))
	send(prometheus.CounterValue, poolWaitSeconds, stat.EmptyAcquireWaitTime().Seconds())
}
