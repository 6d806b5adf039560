// Command gentrace writes a small artificial trace of AI requests for `earmark replay`, in
// the shape of real ones: most contexts are short and a few very long, and requests come in
// bursts.
//
//	go run ./examples/gentrace > examples/trace.csv
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"
)

// The defaults that made the trace in this directory.
const (
	defaultSeed     = 1
	defaultDuration = time.Minute
)

func main() {
	seed := flag.Uint64("seed", defaultSeed, "the same seed makes the same trace")
	duration := flag.Duration("duration", defaultDuration, "how long a time the trace covers")
	flag.Parse()
	if err := generate(os.Stdout, *seed, *duration); err != nil {
		fmt.Fprintln(os.Stderr, "gentrace:", err)
		os.Exit(1)
	}
}

// How requests arrive: single, or, for one in burstOdds, with a burst.
const (
	longestGap      = 500 * time.Millisecond
	longestBurstGap = 40 * time.Millisecond
	burstOdds       = 25
	longestBurst    = 40
)

// The weights of sizes: the first is for 32 to 63 tokens, and each further one for sizes
// twice as large. They are whole numbers, so that every machine makes the same trace.
var (
	contextWeights   = []int{2, 4, 8, 14, 20, 22, 18, 9, 3} // up to 16,383 tokens
	generatedWeights = []int{30, 34, 20, 12, 4}             // up to 1,023 tokens
)

func generate(out io.Writer, seed uint64, duration time.Duration) error {
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // the same seed makes the same trace
	start := time.Date(2025, time.March, 3, 9, 30, 0, 0, time.UTC)
	buffered := bufio.NewWriter(out)
	fmt.Fprintln(buffered, "TIMESTAMP,ContextTokens,GeneratedTokens")
	burst := 0 // requests of a burst that are still to come
	for at := start; at.Before(start.Add(duration)); {
		fmt.Fprintf(buffered, "%s,%d,%d\n", at.Format("2006-01-02 15:04:05.0000000"), size(random, contextWeights), size(random, generatedWeights))
		gap := longestGap
		switch {
		case burst > 0:
			burst--
			gap = longestBurstGap
		case random.IntN(burstOdds) == 0:
			burst = 1 + random.IntN(longestBurst)
		}
		at = at.Add(time.Duration(random.Int64N(gap.Microseconds())) * time.Microsecond)
	}
	return buffered.Flush()
}

// size draws a number of tokens; each further weight is for sizes twice as large.
func size(random *rand.Rand, weights []int) int {
	total := 0
	for _, weight := range weights {
		total += weight
	}
	drawn := random.IntN(total)
	least := 32
	for _, weight := range weights {
		if drawn < weight {
			break
		}
		drawn -= weight
		least *= 2
	}
	return least + random.IntN(least)
}
