//go:build unix

// Package chaos_test breaks a whole Earmark while it is used, and looks whether its
// promises held: nothing overspent, nothing leaked, no commit lost or charged twice, and no event
// missed, by the feed or by a webhook.
//
// Everything is real: two servers and two workers, a durable Postgres, a Temporal
// with its file. Between each two of them is a proxy that can delay, cut and mangle.
// Two tenants use the same scopes and the same idempotency keys, each with an API key of its
// own. A driver makes requests for both and keeps a journal of its calls and their answers; the
// answers are compared with the ledger once all faults have ended.
//
// A seed determines the faults and the requests, and when each of them begins. It does not
// determine which request a fault hits, so a second run with the same seed may go differently.
package chaos_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/stack"
)

const (
	// shortRun is how long `go test` injects faults: long enough for each kind once.
	shortRun = 75 * time.Second
	// grace and admissionDeadline are those of every process.
	grace             = 5 * time.Second
	admissionDeadline = 2 * time.Second
)

var (
	durationFlag = flag.Duration("duration", shortRun, "how long faults are injected; never shorter than each kind once")
	seedFlag     = flag.Uint64("seed", 0, "what faults and requests are drawn from; 0 draws one")
	rateFlag     = flag.Float64("rate", 15, "requests that begin in a second")
)

func TestMain(m *testing.M) { os.Exit(stack.Main(m)) }

func TestChaos(t *testing.T) {
	t.Parallel()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64N(1_000_000) + 1
	}
	t.Logf("seed %d, %s of faults, %.0f requests a second", seed, *durationFlag, *rateFlag)
	defer t.Logf("seed %d", seed)

	c := newCluster(t, true)
	d := newDriver(c, seed)
	watchers := d.watch(c)
	keepEvidence(t, c, d, seed)
	d.begin(c, *rateFlag)
	plan := newPlan(c.kinds(d), seed, *durationFlag)
	injected := c.inject(plan)

	c.mend()
	mended := time.Now()
	t.Log("all is mended")
	d.end()
	t.Logf("all outcomes are known after %.0f s", time.Since(mended).Seconds())
	c.awaitCleanup()
	report := d.report(c, injected, mended)
	t.Log(report)

	problems := slices.Concat(d.check(c), d.crossings(c), d.checkEvents(c, watchers))
	for i, problem := range problems {
		if i == mostShown {
			t.Logf("… and %d more", len(problems)-i)
			break
		}
		t.Log(problem)
	}
	if len(problems) > 0 {
		require.FailNow(t, "what was promised did not hold", "seed %d, %d findings, see above", seed, len(problems))
	}
}

// isShort reports whether this is the form of the test that is run with all others.
func isShort() bool { return *durationFlag <= shortRun }

// mostShown bounds how many findings are printed.
const mostShown = 20
