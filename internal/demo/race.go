package demo

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark/internal/ctxtime"
)

// The request of every caller, and the limit.
const (
	unit                = "tokens"
	limitTokens   int64 = 1000
	requestTokens int64 = 75
)

// modelTime is how long the pretended model works.
const modelTime = 40 * time.Millisecond

func callModel(ctx context.Context) error { return pause(ctx, modelTime) }

func pause(ctx context.Context, d time.Duration) error {
	if !ctxtime.Sleep(ctx, d) {
		return ctx.Err()
	}
	return nil
}

// Result is the result of one strategy over all rounds.
type Result struct {
	Way       string `json:"way"`
	Decisions int64  `json:"decisions"`
	Admitted  int64  `json:"admitted"`
	// WorstOverTokens is the largest excess over the limit at any moment of any round;
	// EndOverTokens the largest at the end of one.
	WorstOverTokens int64 `json:"worst_over_tokens"`
	EndOverTokens   int64 `json:"end_over_tokens"`
	// DecisionsPerSecond counts from the start of a round to its last decision.
	DecisionsPerSecond float64 `json:"decisions_per_second"`
	// Wait is how long callers waited for a decision; YesWait for an admission.
	Wait    Latency `json:"wait"`
	YesWait Latency `json:"yes_wait"`
}

// Latency has quantiles in milliseconds.
type Latency struct {
	P50MS float64 `json:"p50_ms"`
	P99MS float64 `json:"p99_ms"`
}

// decision is one caller's answer, and its time.
type decision struct {
	admitted bool
	wait     time.Duration
}

// race lets the callers of every round start at once.
func race(ctx context.Context, w way, callers, rounds int) (Result, error) {
	result := Result{Way: w.name}
	var decisions []decision
	var deciding time.Duration
	for round := range rounds {
		account, err := w.begin(ctx, round)
		if err != nil {
			return result, err
		}
		made, err := runRound(ctx, account, callers)
		if err != nil {
			return result, err
		}
		outcome, err := account.end(ctx)
		if err != nil {
			return result, err
		}
		result.WorstOverTokens = max(result.WorstOverTokens, outcome.peakTokens-limitTokens)
		result.EndOverTokens = max(result.EndOverTokens, outcome.endTokens-limitTokens)
		deciding += slices.MaxFunc(made, byWait).wait
		decisions = append(decisions, made...)
	}
	yes := slices.DeleteFunc(slices.Clone(decisions), func(d decision) bool { return !d.admitted })
	result.Decisions, result.Admitted = int64(len(decisions)), int64(len(yes))
	result.DecisionsPerSecond = float64(len(decisions)) / deciding.Seconds()
	result.Wait, result.YesWait = latencyOf(decisions), latencyOf(yes)
	return result, nil
}

func runRound(ctx context.Context, account account, callers int) ([]decision, error) {
	made := make([]decision, callers)
	start := make(chan struct{})
	var begun time.Time
	group, ctx := errgroup.WithContext(ctx)
	for caller := range callers {
		group.Go(func() error {
			<-start
			return account.ask(ctx, caller, func(admitted bool) {
				made[caller] = decision{admitted: admitted, wait: time.Since(begun)}
			})
		})
	}
	begun = time.Now()
	close(start)
	return made, group.Wait()
}

func byWait(a, b decision) int { return int(a.wait - b.wait) }

func latencyOf(decisions []decision) Latency {
	if len(decisions) == 0 {
		return Latency{}
	}
	sorted := slices.SortedFunc(slices.Values(decisions), byWait)
	quantile := func(q float64) float64 {
		return float64(sorted[min(len(sorted)-1, int(q*float64(len(sorted))))].wait) / float64(time.Millisecond)
	}
	return Latency{P50MS: quantile(0.50), P99MS: quantile(0.99)}
}
