//go:build unix

// Package bench_test measures the whole path of a reservation, over real HTTP, as
// ratios to what Temporal alone costs on the same machine in the same minute. Rounds
// of both are interleaved, so that a machine that slows down slows both.
//
//	go test -run '^$' -bench . ./test/bench
package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/test/stack"
)

// The aims. A round is the least that is measured at a time; rounds of Earmark and
// of Temporal alone follow each other.
const (
	maxAdmissionRatio = 1.5 // of the median, against the bare start of a workflow
	minLifecycleRatio = 0.9 // of lifecycles a second, against the bare workflow
	maxEvents         = 14  // in the history of a lifecycle

	admissionRounds, admissionsPerRound = 15, 20
	lifecycleRounds, lifecyclesPerRound = 6, 120
	clients                             = 8
)

func TestMain(m *testing.M) { os.Exit(stack.Main(m)) }

// BenchmarkAdmission measures one client that reserves, against one that starts a
// workflow, which then runs a local activity and sets a timer as a reservation does.
func BenchmarkAdmission(b *testing.B) {
	e := setup(b)
	for b.Loop() {
		// Beside the two that are compared, what an admission is made of: the start and
		// first local activity of a workflow, and calls that read and write the ledger alone.
		calls := []struct {
			name string
			call func() error
			took []time.Duration
		}{
			{name: "admission", call: func() error { _, err := e.reserve(); return err }},
			{name: "start", call: func() error { _, err := e.startBare(); return err }},
			{name: "start+step", call: e.startBareAndStep},
			{name: "decision", call: e.decide},
			{name: "charge", call: e.charge},
		}
		for round := range admissionRounds + 1 {
			for i := range calls {
				took := oneByOne(b, admissionsPerRound, calls[i].call)
				if round > 0 { // the first is to warm up
					calls[i].took = append(calls[i].took, took...)
				}
			}
		}
		for _, c := range calls {
			b.ReportMetric(milliseconds(quantile(c.took, 0.5)), c.name+"-p50-ms")
			b.ReportMetric(milliseconds(quantile(c.took, 0.99)), c.name+"-p99-ms")
		}
		admission, start := milliseconds(quantile(calls[0].took, 0.5)), milliseconds(quantile(calls[1].took, 0.5))
		b.ReportMetric(admission/start, "admission/start")
		b.Logf("admission p50 %.2f ms, bare start %.2f ms: ratio %.2f, aim <= %.1f: %s",
			admission, start, admission/start, maxAdmissionRatio, verdict(admission/start <= maxAdmissionRatio))
	}
	b.ReportMetric(0, "ns/op") // an iteration is a whole comparison
}

// BenchmarkLifecycle measures clients that reserve and commit, against clients that
// start a workflow and complete it by an update.
func BenchmarkLifecycle(b *testing.B) {
	e := setup(b)
	for b.Loop() {
		e.lifecycles(b, lifecyclesPerRound)
		e.bareLifecycles(b, lifecyclesPerRound)
		var earmarkRates, bareRates []float64
		for range lifecycleRounds {
			earmarkRates = append(earmarkRates, e.lifecycles(b, lifecyclesPerRound))
			bareRates = append(bareRates, e.bareLifecycles(b, lifecyclesPerRound))
		}
		ours, bare := harmonicMean(earmarkRates), harmonicMean(bareRates)
		b.ReportMetric(ours, "lifecycles/s")
		b.ReportMetric(bare, "bare-lifecycles/s")
		b.ReportMetric(ours/bare, "lifecycles/bare")
		b.Logf("%.0f lifecycles a second with %d clients, bare workflows %.0f: ratio %.2f, aim >= %.1f: %s",
			ours, clients, bare, ours/bare, minLifecycleRatio, verdict(ours/bare >= minLifecycleRatio))
		events := e.eventsOfLifecycle(b)
		b.ReportMetric(float64(events), "events/lifecycle")
		b.Logf("%d history events a lifecycle, bare workflow %d, aim <= %d: %s", events, e.eventsOfBareLifecycle(b), maxEvents, verdict(events <= maxEvents))
	}
	b.ReportMetric(0, "ns/op")
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "missed"
}

func quantile(durations []time.Duration, q float64) time.Duration {
	slices.Sort(durations)
	return durations[int(q*float64(len(durations)-1))]
}

// harmonicMean is the mean of rates over rounds of equal work.
func harmonicMean(rates []float64) float64 {
	var sum float64
	for _, rate := range rates {
		sum += 1 / rate
	}
	return float64(len(rates)) / sum
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

// oneByOne makes n calls, one after the other, and returns how long each took.
func oneByOne(b *testing.B, n int, call func() error) []time.Duration {
	b.Helper()
	took := make([]time.Duration, n)
	for i := range took {
		begun := time.Now()
		err := call()
		took[i] = time.Since(begun)
		require.NoError(b, err)
	}
	return took
}

// lifecycles reserves and commits n times with several clients, and returns how
// many that is a second.
func (e *env) lifecycles(b *testing.B, n int) float64 {
	b.Helper()
	return perSecond(b, n, func() error {
		id, err := e.reserve()
		if err != nil {
			return err
		}
		return e.commit(id)
	})
}

func (e *env) bareLifecycles(b *testing.B, n int) float64 {
	b.Helper()
	return perSecond(b, n, func() error {
		id, err := e.startBare()
		if err != nil {
			return err
		}
		return e.completeBare(id)
	})
}

func perSecond(b *testing.B, n int, call func() error) float64 {
	b.Helper()
	failed := make(chan error, clients)
	begun := time.Now()
	for range clients {
		go func() {
			var err error
			for i := 0; i < n/clients && err == nil; i++ {
				err = call()
			}
			failed <- err
		}()
	}
	for range clients {
		require.NoError(b, <-failed)
	}
	return float64(n) / time.Since(begun).Seconds()
}

func (e *env) reserve() (id string, err error) {
	var reservation struct {
		ID string `json:"id"`
	}
	n := e.serial.Add(1)
	err = e.post("/v1/reservations", fmt.Sprint("key-", n), http.StatusCreated,
		fmt.Sprintf(`{"scopes":["acme/u%d"],"amounts":{"tokens":10},"ttl_seconds":3600}`, n%clients), &reservation)
	return reservation.ID, err
}

func (e *env) commit(id string) error {
	return e.post("/v1/reservations/"+id+"/commit", "", http.StatusOK, `{"usage":{"tokens":7}}`, &struct{}{})
}

func (e *env) post(path, key string, want int, body string, answer any) error {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, e.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	response, err := e.http.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != want {
		return fmt.Errorf("%s: %s", path, response.Status)
	}
	return json.NewDecoder(response.Body).Decode(answer)
}
