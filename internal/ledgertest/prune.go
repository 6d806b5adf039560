package ledgertest

import (
	"fmt"
	"slices"
	"time"

	"github.com/earmark-dev/earmark"
)

// pruned are the removed entries of one window, which a checkpoint replaces.
type pruned struct {
	place         int // of the last entry
	entries       int64
	reservations  map[string]bool // by id, removed by this prune
	before        int64           // removed by earlier prunes
	reservedDelta int64
	committed     int64
}

// inWindow identifies a window.
type inWindow struct {
	budgetID string
	start    time.Time
}

// Prune removes reservations that were settled longer than keep ago, and returns how many
// reservations and entries it removed. In each window a checkpoint replaces the last
// removed entry; balances stay unchanged.
func (l *Ledger) Prune(keep time.Duration, actor earmark.Actor) (reservations, entries int64) {
	before := l.now().Add(-keep)
	gone := map[string]bool{}
	for id, r := range l.reservations {
		if !r.Open() && r.SettledAt.Before(before) && !slices.ContainsFunc(r.Budgets, l.runs) {
			gone[id] = true
			delete(l.reservations, id)
		}
	}
	checkpoints := l.checkpoints(gone)
	var kept []entry
	for place, e := range l.entries {
		checkpoint := checkpoints[windowOf(e)]
		if gone[e.ReservationID] {
			entries++
		}
		switch {
		case checkpoint != nil && checkpoint.place == place:
			kept = append(kept, l.checkpoint(checkpoint, e, actor))
		case gone[e.ReservationID], checkpoint != nil && e.pruned != nil:
		default:
			kept = append(kept, e)
		}
	}
	l.entries = kept
	return int64(len(gone)), entries
}

// runs reports whether a share's window has not ended.
func (l *Ledger) runs(share earmark.ReservationBudget) bool {
	_, end := l.budgets[share.BudgetID].window(share.WindowStart)
	return end != nil && end.After(l.now())
}

// checkpoints adds up the removed entries, and the earlier checkpoints of the same windows.
func (l *Ledger) checkpoints(gone map[string]bool) map[inWindow]*pruned {
	sums := map[inWindow]*pruned{}
	for _, e := range l.entries {
		if gone[e.ReservationID] && e.WindowStart != nil {
			sums[windowOf(e)] = &pruned{reservations: map[string]bool{}}
		}
	}
	for place, e := range l.entries {
		sum := sums[windowOf(e)]
		if sum == nil || !gone[e.ReservationID] && e.pruned == nil {
			continue
		}
		sum.place = place
		sum.reservedDelta += e.ReservedDelta
		sum.committed += e.CommittedDelta
		if e.pruned != nil {
			sum.entries += e.pruned.entries
			sum.before += e.pruned.count()
		} else {
			sum.entries++
			sum.reservations[e.ReservationID] = true
		}
	}
	return sums
}

func (p *pruned) count() int64 { return p.before + int64(len(p.reservations)) }

func (l *Ledger) checkpoint(p *pruned, last entry, actor earmark.Actor) entry {
	return entry{tenant: last.tenant, pruned: p, Entry: earmark.Entry{
		Kind: "checkpoint", BudgetID: last.BudgetID, WindowStart: last.WindowStart, ReservedDelta: p.reservedDelta, CommittedDelta: p.committed,
		Actor: actor.String(), Reason: fmt.Sprintf("stands for %d entries of %d reservations", p.entries, p.count()), CreatedAt: l.now(),
	}}
}

// windowOf returns the window that an entry changed; the zero value for a note.
func windowOf(e entry) inWindow {
	if e.WindowStart == nil {
		return inWindow{}
	}
	return inWindow{e.BudgetID, *e.WindowStart}
}
