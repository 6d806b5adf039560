package replay

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHistogramIsCloseToTheSortedSample(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var h histogram
	var sample []time.Duration
	for range 5000 {
		d := time.Duration(random.ExpFloat64()*float64(30*time.Millisecond)) + time.Duration(random.IntN(200))*time.Microsecond
		h.add(d)
		sample = append(sample, d)
	}
	slices.Sort(sample)
	for _, q := range []float64{0, 0.5, 0.9, 0.99, 0.999, 1} {
		exact := sample[min(len(sample)-1, int(q*float64(len(sample))))]
		require.InDelta(t, exact.Seconds(), h.quantile(q).Seconds(), exact.Seconds()/subBuckets+2e-6, "quantile %g", q)
	}
	require.Equal(t, sample[len(sample)-1], h.longest)
}

func TestHistogramBuckets(t *testing.T) {
	t.Parallel()
	before := -1
	for micros := int64(0); micros < 1<<20; micros++ {
		bucket := bucketOf(micros)
		require.True(t, bucket == before || bucket == before+1, "buckets leave no gap at %d", micros)
		require.LessOrEqual(t, micros, edgeOf(bucket))
		if bucket != before && before >= 0 {
			require.Equal(t, micros-1, edgeOf(before), "a bucket ends where the next begins")
		}
		before = bucket
	}
	require.Equal(t, buckets-1, bucketOf(1<<62), "what is too long is in the last bucket")
}

func TestHistogramOfNothing(t *testing.T) {
	t.Parallel()
	var h histogram
	require.Zero(t, h.quantile(0.99))
	h.add(-time.Second) // a clock's doing
	require.Equal(t, time.Duration(0), h.quantile(0.5))
}

func TestModelTime(t *testing.T) {
	t.Parallel()
	row := Row{Number: 7, GeneratedTokens: 100}
	again := row
	require.Equal(t, modelTime(row, 1), modelTime(again, 1), "the same seed gives the same time")
	require.NotEqual(t, modelTime(row, 1), modelTime(row, 2))
	for number := range int64(1000) {
		row.Number = number
		require.InDelta(t, 2.75, modelTime(row, 1).Seconds(), 2.75*Jitter)
	}
}
