package ledgertest

import (
	"math"
	"math/big"
	"time"

	"github.com/earmark-dev/earmark"
)

// A rolling budget keeps its sums by slice; at, window and start are those of a slice.

func (b *budget) rolling() bool { return b.Window.Period == earmark.PeriodRolling }

func (b *budget) length() time.Duration { return time.Duration(b.Window.RollingSeconds) * time.Second }

// firstCounted returns the start of the oldest slice that counts while the slice at start
// is the current one.
func (b *budget) firstCounted(start time.Time) time.Time { return start.Add(-b.length()) }

// counts reports whether the window at other counts in a budget whose current one starts
// at start.
func (b *budget) counts(start, other time.Time) bool {
	if b.rolling() {
		return !other.Before(b.firstCounted(start))
	}
	return other.Equal(start)
}

// total returns what counts while the window at start is the current one. No sum is larger
// than int64.
func (b *budget) total(start time.Time) sums {
	total := *b.at(start)
	if !b.rolling() {
		return total
	}
	others := b.others(b.firstCounted(start), start)
	left := math.MaxInt64 - total.reserved - total.committed
	reserved := min(others.reserved, left)
	total.reserved += reserved
	total.committed += min(others.committed, left-reserved)
	return total
}

// others sums the slices from from on, but the one at but. Each sum ends at the largest int64.
func (b *budget) others(from, but time.Time) (others sums) {
	for start, s := range b.windows {
		if !start.Before(from) && !start.Equal(but) {
			others.reserved += min(s.reserved, math.MaxInt64-others.reserved)
			others.committed += min(s.committed, math.MaxInt64-others.committed)
		}
	}
	return others
}

// slicesAt returns what the slices that count now, in which start is that of the current
// one, hold at a later moment at, unless another call comes.
func (b *budget) slicesAt(start, at time.Time, withHolds bool) *big.Int {
	used := new(big.Int)
	for slice, s := range b.windows {
		if b.counts(start, slice) && b.leaves(slice).After(at) {
			used.Add(used, big.NewInt(s.committed))
			if withHolds {
				used.Add(used, big.NewInt(s.reserved))
			}
		}
	}
	return used
}

// leaves returns when a slice stops to count.
func (b *budget) leaves(slice time.Time) time.Time {
	_, end := b.window(slice)
	return end.Add(b.length())
}

// heldElsewhere returns what a rolling window holds beside one slice: the current window,
// or if the slice has left it, what came after.
func (l *Ledger) heldElsewhere(b *budget, slice time.Time) int64 {
	if !b.rolling() {
		return 0
	}
	now, _ := b.window(l.now())
	from := b.firstCounted(now)
	if slice.Before(from) {
		from = slice
	}
	others := b.others(from, slice)
	return others.reserved + min(others.committed, math.MaxInt64-others.reserved)
}
