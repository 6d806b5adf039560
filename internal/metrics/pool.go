package metrics

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// pools reports how many of the process' connections to Postgres are in use, by the name of the pool.
type pools map[string]*pgxpool.Pool

var (
	poolConnections = describe("earmark_pool_connections", "Connections to Postgres of this process, by their pool and what they do.", "pool", "state")
	poolMax         = describe("earmark_pool_max_connections", "Connections to Postgres that this process may have.", "pool")
	poolAcquires    = describe("earmark_pool_acquires_total", "Times that a connection was taken from the pool.", "pool")
	poolWaits       = describe("earmark_pool_waits_total", "Times that none was free, and one was waited for.", "pool")
	poolCanceled    = describe("earmark_pool_canceled_acquires_total", "Waits for a connection that ended without one.", "pool")
	poolWaitSeconds = describe("earmark_pool_wait_seconds_total", "Seconds spent in waiting for a connection where none was free.", "pool")
)

// Describe lists the metrics that Collect returns.
func (p pools) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{poolConnections, poolMax, poolAcquires, poolWaits, poolCanceled, poolWaitSeconds} {
		descriptions <- d
	}
}

// Collect reads the pools' own counters.
func (p pools) Collect(metrics chan<- prometheus.Metric) {
	for name, pool := range p {
		stat := pool.Stat()
		send := func(kind prometheus.ValueType, d *prometheus.Desc, value float64, labels ...string) {
			metrics <- prometheus.MustNewConstMetric(d, kind, value, append([]string{name}, labels...)...)
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
}
