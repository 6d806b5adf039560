package replay

import (
	"math/bits"
	"time"
)

// A histogram has subBuckets buckets for each power of two of microseconds, so
// that a quantile is exact to within 1/subBuckets of itself in bounded memory.
const (
	subBuckets = 64
	subBits    = 6 // log2 of subBuckets
	maxBits    = 36
	buckets    = (maxBits - subBits + 1) * subBuckets
)

// histogram counts durations. The zero value is empty.
type histogram struct {
	counts  [buckets]int64
	count   int64
	longest time.Duration
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(max(0, d.Microseconds()))]++
	h.count++
	h.longest = max(h.longest, d)
}

// quantile returns the upper edge of the bucket that holds the q-quantile, and at most the
// longest duration; 0 for an empty histogram.
func (h *histogram) quantile(q float64) time.Duration {
	rank := int64(q * float64(h.count))
	var seen int64
	for bucket, count := range h.counts {
		seen += count
		if seen > rank || (seen == h.count && seen > 0) {
			return min(h.longest, time.Duration(edgeOf(bucket))*time.Microsecond)
		}
	}
	return 0
}

// bucketOf gives values under 2*subBuckets a bucket each; from there each power of
// two is cut into subBuckets.
func bucketOf(micros int64) int {
	shift := max(0, bits.Len64(uint64(micros))-subBits-1) //nolint:gosec // a measured duration is 0 or more
	return min(buckets-1, shift*subBuckets+int(micros>>shift))
}

// edgeOf is the largest value of a bucket.
func edgeOf(bucket int) int64 {
	shift := max(0, bucket/subBuckets-1)
	return int64(bucket-shift*subBuckets+1)<<shift - 1
}
