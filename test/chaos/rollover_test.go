//go:build unix

package chaos_test

import (
	"fmt"
	"time"
)

// Rollover of the budgets that have one. The limit lasts for about a minute: now and then nothing is left, or more than may roll over.
const (
	rolledLimit = 4000
	mostRolled  = 2500
	// leastWindow is how long the first window is at least; a minute longer at most, so that it ends within a short run.
	leastWindow = 15 * time.Second
	// calledWithin is how soon after the end of a window a call of its budget reaches Postgres, whatever is broken.
	calledWithin = 45 * time.Second
)

// firstRollover is the end of the first window of a budget that is made now. Only windows of days and longer roll over, and they may
// begin at any minute of the day.
func firstRollover(now time.Time) time.Time {
	return now.UTC().Add(leastWindow).Truncate(time.Minute).Add(time.Minute)
}

// rolledRow is a rollover grant as the ledger has it, with its entries.
type rolledRow struct {
	ID          string
	BudgetID    string
	Amount      int64
	Left        int64 // what its window left, as it was last followed
	Used        int64
	RolledFrom  time.Time
	EffectiveAt time.Time
	ExpiresAt   time.Time
	Made        int
}

// misrolled compares what rolled over with the journal of the window that left it, now that nothing of that is held any more: it is the
// rest of the limit, up to the most, or what was used of it before late usage came. It exists once.
func (d *driver) misrolled(c *cluster) (problems []string) {
	if d.former {
		return nil
	}
	rolled := map[string][]rolledRow{}
	for _, r := range collect[rolledRow](c.t, c.Pool(), `
		SELECT g.id, g.budget_id, g.amount, g.rolled_left AS left, g.reserved + g.committed AS used, g.rolled_from, g.effective_at, g.expires_at,
			(SELECT count(*) FROM earmark.entries e WHERE e.budget_id = g.budget_id AND e.kind = 'budget' AND e.reason LIKE 'grant ' || g.id || ' % left of the window %')::int AS made
		FROM earmark.grants g WHERE g.rolled_from IS NOT NULL`) {
		rolled[r.BudgetID] = append(rolled[r.BudgetID], r)
	}
	entries := readEntries(c.t, c.Pool())
	for _, own := range d.tenants {
		for _, budget := range own.budgets.list {
			if budget.rollsAt.IsZero() {
				continue
			}
			var counted int64 // in the window that ended
			var last time.Time
			followed := 0
			for _, e := range entries {
				last = e.CreatedAt
				if e.BudgetID == nil || *e.BudgetID != budget.ID || e.WindowStart == nil {
					continue
				}
				most := int64(rolledLimit)
				if e.WindowStart.Before(budget.rollsAt) {
					counted += e.ReservedDelta + e.CommittedDelta
					if !e.CreatedAt.Before(budget.rollsAt) {
						followed++
					}
				} else {
					most += mostRolled
				}
				if e.Kind == "reserve" && (e.Ceiling == nil || *e.Ceiling < rolledLimit || *e.Ceiling > most) {
					problems = append(problems, fmt.Sprintf("entry %d of %s: it was admitted under another ceiling than the limit and what rolled over, %d at most", e.ID, e.ReservationID, most))
				}
			}
			grants := rolled[budget.ID]
			if complaint := budget.judgeRolled(grants, rolledLimit-counted, last); complaint != "" {
				problems = append(problems, fmt.Sprintf("%s of %s, whose first window ended at %s and left %d: %s\n  ledger:  %+v", budget.ID, own.name, clock(&budget.rollsAt), rolledLimit-counted, complaint, grants))
			}
			c.t.Logf("%s: the first window left %d, of which rolled over: %+v; %d entries of it came after its end", own.name, rolledLimit-counted, grants, followed)
		}
	}
	return problems
}

// judgeRolled says what is wrong with the grants of what the first window left; "" if they are as the rules say.
func (b *budget) judgeRolled(grants []rolledRow, left int64, last time.Time) string {
	if len(grants) == 0 {
		if last.After(b.rollsAt.Add(calledWithin)) {
			return "nothing rolled over"
		}
		return ""
	}
	switch g := grants[0]; {
	case len(grants) > 1 || g.Made != 1:
		return "it rolled over more than once"
	case !g.RolledFrom.Equal(b.rollsAt.AddDate(0, 0, -1)) || !g.EffectiveAt.Equal(b.rollsAt) || !g.ExpiresAt.Equal(b.rollsAt.AddDate(0, 0, 1)):
		return "it rolled over from or to another window"
	case g.Left != left:
		return "the ledger takes another rest for it"
	case g.Amount != max(0, min(left, mostRolled), g.Used):
		return "another amount rolled over"
	}
	return ""
}
