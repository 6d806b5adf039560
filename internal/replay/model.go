package replay

import (
	"math/rand/v2"
	"time"
)

// How long a simulated model takes: PrefillTime to read the context, then
// TokenTime for each token that it generates, more or less by up to Jitter of
// the whole. At 40 tokens a second that is a model of the trace's time.
const (
	PrefillTime = 250 * time.Millisecond
	TokenTime   = 25 * time.Millisecond
	Jitter      = 0.2
)

// modelTime is how long the model is busy with a row, in the trace's time. The same
// seed gives the same time to the same row.
func modelTime(row Row, seed uint64) time.Duration {
	busy := PrefillTime + time.Duration(row.GeneratedTokens)*TokenTime
	random := rand.New(rand.NewPCG(seed, uint64(row.Number))) //nolint:gosec // the same seed makes the same times
	return time.Duration(float64(busy) * (1 + Jitter*(2*random.Float64()-1)))
}

// reservedTokens is the worst case of a row: all of its context and as much output
// as the model is allowed.
func reservedTokens(row Row, maxOutputTokens int64) int64 {
	return row.ContextTokens + maxOutputTokens
}
