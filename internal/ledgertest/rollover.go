package ledgertest

import (
	"crypto/sha256"
	"fmt"
	"math"
	"math/big"
	"slices"
	"time"

	"github.com/earmark-dev/earmark"
)

// future is a moment to come at which a denial looks: a budget as it is until then, and whether nothing is held any more.
type future struct {
	touched
	sums  sums // of its window, without what is overdue
	freed bool
}

func rolloverID(budgetID string, start time.Time) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s rollover %d", budgetID, start.UnixMicro()))
	return "grt_" + childIDs.EncodeToString(sum[:])
}

// beginRollover notes the first window of a budget that rolls over, the current one, when the setting is new.
func (b *budget) beginRollover(now time.Time) {
	switch {
	case b.Rollover == nil || b.Template:
		b.rolledUntil = nil
	case b.rolledUntil == nil:
		start, _ := b.window(now)
		b.rolledUntil, b.everRolled = &start, true
	}
}

// due returns the grants of what the windows of a budget that ended since its last opening left: of as many as can be in force at a moment.
func (l *Ledger) due(id string, at time.Time, then *future) (made []*grant) {
	b := l.budgets[id]
	if b == nil || b.rolledUntil == nil || b.ArchivedAt != nil {
		return nil
	}
	var ended []interval
	for start, _ := b.window(at); len(ended) < int(b.Rollover.Windows) && start.After(*b.rolledUntil); {
		earlier, end := b.window(start.Add(-time.Microsecond))
		if earlier.Before(*b.rolledUntil) {
			break
		}
		ended = append(ended, interval{earlier, *end})
		start = earlier
	}
	slices.Reverse(ended)
	for _, w := range ended {
		s := sums{}
		if b.windows[w.start] != nil {
			s = *b.windows[w.start]
		}
		if then != nil && then.start.Equal(w.start) {
			s = then.sums
			s.grantedReserved -= then.overdueGranted
		}
		left := b.limitAt(w.end.Add(-time.Microsecond)) - (s.committed - s.grantedCommitted)
		if then == nil || !then.freed {
			left -= s.reserved - s.grantedReserved
		}
		amount := min(max(0, left), b.Rollover.Max)
		if b.Rollover.MaxTotal != nil {
			room := new(big.Int).Sub(big.NewInt(*b.Rollover.MaxTotal), rolledLeft(slices.Concat(b.grants, made), w.end))
			if room.Sign() < 0 {
				room.SetInt64(0)
			}
			amount = min(amount, room.Int64())
		}
		expires := w.end
		for range b.Rollover.Windows {
			_, end := b.window(expires)
			expires = *end
		}
		made = append(made, &grant{left: left, expiringNoted: expires.Sub(w.end) < expiringAhead+24*time.Hour, Grant: earmark.Grant{
			ID: rolloverID(b.ID, w.start), BudgetID: b.ID, Amount: amount, Priority: earmark.DefaultGrantPriority, EffectiveAt: w.end, ExpiresAt: &expires,
			Source: "rollover", RolledFrom: new(w.start), Reason: "left of the window of " + w.start.Format("2006-01-02T15:04:05Z"), CreatedAt: l.now(),
		}})
	}
	return made
}

// dueSum returns the sum of these.
func (l *Ledger) dueSum(id string, at time.Time, then *future) *big.Int {
	sum := new(big.Int)
	for _, g := range l.due(id, at, then) {
		sum.Add(sum, big.NewInt(g.Amount))
	}
	return sum
}

// rolledLeft is what rollover grants that are in force at a moment have left.
func rolledLeft(grants []*grant, at time.Time) *big.Int {
	left := new(big.Int)
	for _, g := range grants {
		if g.RolledFrom != nil && g.inForce(at) {
			left.Add(left, big.NewInt(g.room()))
		}
	}
	return left
}

// rolledWindows are the starts of the windows that have rolled over into grants in force, or are to.
func (l *Ledger) rolledWindows(b touched) (starts []time.Time) {
	if l.budgets[b.ID] == nil || l.budgets[b.ID].rolledUntil == nil {
		return nil
	}
	for _, g := range b.grants {
		if g.RolledFrom != nil && !g.ended(l.now()) {
			starts = append(starts, *g.RolledFrom)
		}
	}
	for _, g := range l.due(b.ID, l.now(), nil) {
		starts = append(starts, *g.RolledFrom)
	}
	return starts
}

// rolledThen is what a rollover grant has left when nothing is held any more.
func (b touched) rolledThen(g *grant) *big.Int {
	amount := min(g.Amount, g.left)
	if own := b.l.budgets[b.ID]; own.rolledUntil != nil && own.windows[*g.RolledFrom] != nil {
		s := own.windows[*g.RolledFrom]
		held := big.NewInt(s.reserved - s.grantedReserved)
		amount = min(clamp(held.Add(held, big.NewInt(amount))), max(own.Rollover.Max, g.Amount))
	}
	return big.NewInt(max(amount, g.Committed+g.Voided) - g.Voided - g.Committed)
}

// limitAt is a budget's limit that was in force at a moment.
func (b *budget) limitAt(at time.Time) int64 {
	limit := b.Limit
	if b.FollowsTemplate {
		revisions := b.l.budgets[b.TemplateID].revisions
		for n := b.revision; n < len(revisions); n++ {
			r := revisions[n]
			_, end := b.window(r.at)
			if !r.at.After(at) && (!r.nextWindow || end != nil && !end.After(at)) {
				limit = r.settings.Limit
			}
		}
	}
	return b.raised(limit, at)
}

// rollOver opens a budget's window of a moment: it makes the grants that are due, once.
func (l *Ledger) rollOver(b *budget, at time.Time, by earmark.Actor) {
	start, _ := b.window(at)
	if b.rolledUntil == nil || !start.After(*b.rolledUntil) {
		return
	}
	for _, g := range l.due(b.ID, at, nil) {
		b.grants = append(b.grants, g)
		l.noteBudget(b, by, g.Reason)
	}
	b.rolledUntil = &start
}

// rollSettled follows a settlement by which a window that has rolled over has more left, or less.
func (l *Ledger) rollSettled(b *budget, start time.Time, more int64, by earmark.Actor) {
	if b.rolledUntil == nil || !start.Before(*b.rolledUntil) || more == 0 {
		return
	}
	for _, g := range b.grants {
		if g.RolledFrom == nil || !g.RolledFrom.Equal(start) || g.ended(l.now()) {
			continue
		}
		left := new(big.Int).Add(big.NewInt(g.left), big.NewInt(more))
		g.left = max(-math.MaxInt64, clamp(left))
		amount := g.Amount
		if more > 0 {
			by := min(more, g.left-g.Amount, b.Rollover.Max-g.Amount)
			if b.Rollover.MaxTotal != nil {
				by = min(by, clamp(new(big.Int).Sub(big.NewInt(*b.Rollover.MaxTotal), rolledLeft(b.grants, l.now()))))
			}
			amount += max(0, by)
		} else {
			amount = min(amount, max(g.left, g.Reserved+g.Committed))
		}
		if amount != g.Amount {
			g.Amount = amount
			l.noteBudget(b, by, "settled")
		}
	}
}

// rollGivenBack follows a settlement by which grants of what rolled over have back what late usage of their window could not take.
func (l *Ledger) rollGivenBack(b *budget, r *reservation, by earmark.Actor) {
	for _, g := range b.grants {
		if amount := max(g.left, g.Reserved+g.Committed+g.Voided); r.parts[g] != nil && g.RolledFrom != nil && g.Amount > amount {
			g.Amount = amount
			l.noteBudget(b, by, "given back")
		}
	}
}

// clamp returns the int64 that is nearest.
func clamp(n *big.Int) int64 {
	switch {
	case n.IsInt64():
		return n.Int64()
	case n.Sign() < 0:
		return math.MinInt64
	}
	return math.MaxInt64
}

// laterEnds returns the ends of the windows after the one that ends at end, as long as windows before them add to what is rolled over.
func (b *budget) laterEnds(end *time.Time) (ends []*time.Time) {
	if b.rolledUntil == nil {
		return nil
	}
	for range b.Rollover.Windows - 1 {
		_, end = b.window(*end)
		ends = append(ends, end)
	}
	return ends
}
