package api

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/earmark-dev/earmark"
)

// metrics are the API's own metrics. Every label has a closed set of values: routes come
// from the router, outcomes and codes from the ledger.
type metrics struct {
	requests    *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	admissions  *prometheus.CounterVec
	settlements *prometheus.CounterVec
	refusals    *prometheus.CounterVec

	admissionSeconds  prometheus.Histogram
	settlementSeconds *prometheus.HistogramVec
}

// secondsBuckets reach from 1 ms, below the fastest call, to 10 s, above every deadline of
// a caller.
var secondsBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

func newMetrics(registry prometheus.Registerer) *metrics {
	factory := promauto.With(registry)
	m := &metrics{
		requests: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "earmark_http_requests_total",
			Help: "Calls answered, by route, method and class of status.",
		}, []string{"route", "method", "status"}),
		seconds: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "earmark_http_request_duration_seconds",
			Help:    "Time to answer a call, in seconds.",
			Buckets: secondsBuckets,
		}, []string{"route", "method"}),
		admissions: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "earmark_admissions_total",
			Help: "Valid requests for a reservation, by outcome: applied is a new hold, same a replay; an error counts by its code.",
		}, []string{"outcome"}),
		settlements: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "earmark_settlements_total",
			Help: "Valid commits, releases, extends, adoptions, charges and corrections, by outcome; an error counts by its code.",
		}, []string{"verb", "outcome"}),
		refusals: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "earmark_refused_calls_total",
			Help: "Calls refused for their number: key_rate is a key's own rate (429), queue_NAME a full queue of the server (503).",
		}, []string{"reason"}),
		admissionSeconds: factory.NewHistogram(prometheus.HistogramOpts{
			Name:    "earmark_admission_duration_seconds",
			Help:    "Time to decide on a valid request for a reservation, whatever the decision, in seconds.",
			Buckets: secondsBuckets,
		}),
		settlementSeconds: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "earmark_settlement_duration_seconds",
			Help:    "Time to settle, extend, adopt, charge or correct over HTTP, in seconds.",
			Buckets: secondsBuckets,
		}, []string{"verb"}),
	}
	// Counters start at 0, so that their first increase is visible.
	for _, outcome := range []string{string(earmark.OutcomeApplied), string(earmark.OutcomeSame), string(earmark.OutcomeDenied), string(earmark.CodeAdmissionUnknown)} {
		m.admissions.WithLabelValues(outcome)
	}
	for _, reason := range []string{"key_rate", "queue_admissions", "queue_reads", "queue_lists", "queue_charges", "queue_changes", "queue_streams", "queue_unknown_keys"} {
		m.refusals.WithLabelValues(reason)
	}
	for _, verb := range []string{"commit", "release", "extend", "adopt", "charge", "correct"} {
		m.settlements.WithLabelValues(verb, string(earmark.OutcomeApplied))
		m.settlementSeconds.WithLabelValues(verb)
	}
	return m
}

func (m *metrics) request(c *gin.Context, took time.Duration) {
	route := c.FullPath()
	if route == "" {
		route = "none" // an arbitrary path of a caller is no label
	}
	method := boundedMethod(c.Request.Method)
	class := strconv.Itoa(c.Writer.Status()/100) + "xx"
	m.requests.WithLabelValues(route, method, class).Inc()
	if !wantsStream(c) { // how long a reader stays says nothing about the server
		m.seconds.WithLabelValues(route, method).Observe(took.Seconds())
	}
}

func (m *metrics) admission(outcome earmark.Outcome, err error, took time.Duration) {
	m.admissions.WithLabelValues(outcomeLabel(outcome, err)).Inc()
	m.admissionSeconds.Observe(took.Seconds())
}

func (m *metrics) settlement(verb string, outcome earmark.Outcome, taken bool, err error, took time.Duration) {
	m.settlementSeconds.WithLabelValues(verb).Observe(took.Seconds())
	label := outcomeLabel(outcome, err)
	if taken && err == nil {
		label = "accepted"
	}
	m.settlements.WithLabelValues(verb, label).Inc()
}

// refused counts an error that refuses a call for the number of calls.
func (m *metrics) refused(e *earmark.Error) {
	switch {
	case e.Code == earmark.CodeRateLimited:
		m.refusals.WithLabelValues("key_rate").Inc()
	case e.Queue != "":
		m.refusals.WithLabelValues("queue_" + strings.ReplaceAll(e.Queue, " ", "_")).Inc()
	}
}

func outcomeLabel(outcome earmark.Outcome, err error) string {
	if err != nil {
		return string(asError(err).Code)
	}
	return string(outcome)
}

func boundedMethod(method string) string {
	known := []string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut,
		http.MethodPatch, http.MethodDelete, http.MethodOptions,
	}
	if slices.Contains(known, method) {
		return method
	}
	return "other"
}
