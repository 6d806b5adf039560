package replay

import (
	"fmt"
	"sync"
	"time"
)

// tally counts the results of rows while the run goes on.
type tally struct {
	mu sync.Mutex
	counts
	admission histogram // of an admission, from the moment at which the row was due
	denial    histogram // of a denial, the same
	commit    histogram
}

// counts are the numbers of a tally. A row that was sent and is decided is in
// exactly one of admitted, denied, unknown, notReserved and failed.
type counts struct {
	sent         int64
	inFlight     int64
	delayed      int64 // sent after their time, because maxInFlight others were under way
	longestDelay time.Duration
	retried      int64 // had no decision at the first attempt
	admitted     int64
	denied       int64
	unknown      int64 // no decision: neither admitted nor denied
	notReserved  int64 // were unknown; at the end nothing is reserved for them
	foundLater   int64 // were unknown; at the end they are admitted, and counted there
	failed       int64 // got an answer to their reservation that no row should get
	accepted     int64 // had their commit answered by 202
	committed    int64
	overage      int64 // committed more than was reserved

	reservedTokens  int64 // of admitted rows
	usedTokens      int64 // of admitted rows: what the ledger must hold in the end
	committedTokens int64

	simulated    time.Duration // how far the trace has been sent
	firstFailure string        // the first answer that no row should get
}

func (t *tally) update(change func(c *counts)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.counts)
}

// observe counts a duration in one of t's histograms.
func (t *tally) observe(h *histogram, d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h.add(d)
}

func (t *tally) read() counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts
}

func (t *tally) latency(h *histogram) Latency {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Latency{
		Count: h.count,
		P50MS: millis(h.quantile(0.5)),
		P90MS: millis(h.quantile(0.9)),
		P99MS: millis(h.quantile(0.99)),
		MaxMS: millis(h.longest),
	}
}

func (c *counts) note(doing string, row Row, err error) {
	if c.firstFailure == "" {
		c.firstFailure = fmt.Sprintf("%s row %d: %v", doing, row.Number, err)
	}
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
