//go:build unix

package chaos_test

import (
	"fmt"
	"slices"
	"time"

	"github.com/earmark-dev/earmark"
)

// overspent goes through the entries of each window, adds them up anew, and looks
// at every admission to a hard budget: with it, no more may be counted than the
// limit of that moment, which has to be one that the driver gave.
func (d *driver) overspent(entries []entry) []string {
	type sum struct{ reserved, committed int64 }
	type window struct {
		budgetID string
		start    time.Time
	}
	var problems []string
	sums := map[window]sum{}
	for _, e := range entries {
		if e.BudgetID == nil || e.WindowStart == nil {
			continue
		}
		w := window{*e.BudgetID, e.WindowStart.UTC()}
		s := sums[w]
		s.reserved += e.ReservedDelta
		s.committed += e.CommittedDelta
		sums[w] = s
		complain := func(format string, args ...any) {
			problems = append(problems, fmt.Sprintf("entry %d of %s in %s: ", e.ID, e.ReservationID, w.budgetID)+fmt.Sprintf(format, args...))
		}
		if s.reserved != *e.ReservedAfter || s.committed != *e.CommittedAfter {
			complain("%d + %d are counted, the entry says %d + %d", s.reserved, s.committed, *e.ReservedAfter, *e.CommittedAfter)
		}
		budget := d.budget(w.budgetID)
		if e.Kind != "reserve" || budget.Enforcement != earmark.EnforcementHard {
			continue
		}
		switch given := slices.ContainsFunc(budget.limits, func(c limitChange) bool { return e.Ceiling != nil && c.limit == *e.Ceiling }); {
		case !given && !budget.granted && budget.rollsAt.IsZero(): // see misgranted and misrolled
			complain("it was admitted under a limit that nobody gave")
		case s.reserved+s.committed > *e.Ceiling:
			complain("it was admitted with %d + %d of %d", s.reserved, s.committed, *e.Ceiling)
		}
	}
	return problems
}

// held is an amount that the driver knows to be counted in a window for a time.
type held struct {
	from, to time.Time
	amount   int64
}

// overspentByJournal asks the driver's journal alone: at the moment of an admission,
// whenever between call and answer that was, no more can have been counted besides
// than fits. What is surely counted is a hold from the answer to its admission until
// its end is asked for or its lease is over, and a charge from the answer to its
// commit.
func (d *driver) overspentByJournal() []string {
	type window struct {
		budgetID string
		start    time.Time
	}
	certain := map[window][]held{}
	type admission struct {
		window
		life           *life
		asked, decided time.Time
		amount         int64
	}
	var admissions []admission
	for _, l := range d.lives {
		charged := false // a commit may be answered twice
		for _, a := range l.Attempts {
			if a.Outcome != done {
				continue
			}
			for _, b := range a.Budgets {
				w := window{b.BudgetID, b.WindowStart.UTC()}
				switch {
				case a.Verb == verbReserve && a.State == earmark.StateHeld:
					admissions = append(admissions, admission{w, l, l.Attempts[0].Sent, a.Answered, b.Reserved})
					certain[w] = append(certain[w], held{a.Answered, l.surelyHeldUntil(), b.Reserved})
				case a.Verb == verbCommit && !charged:
					certain[w] = append(certain[w], held{from: a.Answered, amount: b.Committed})
				}
			}
			charged = charged || a.Verb == verbCommit
		}
	}
	var problems []string
	for _, a := range admissions {
		budget := d.budget(a.budgetID)
		if budget.Enforcement != earmark.EnforcementHard {
			continue
		}
		var counted int64
		for _, h := range certain[a.window] {
			if h.from.Before(a.asked) && (h.to.IsZero() || h.to.After(a.decided)) {
				counted += h.amount
			}
		}
		if limit := budget.highest(a.decided); counted+a.amount > limit {
			problems = append(problems, fmt.Sprintf("%s was admitted with %d on top of %d of %d in %s, by the driver's journal", a.life.ID, a.amount, counted, limit, budget.Scope))
		}
	}
	return problems
}

// surelyHeldUntil is when the driver asks for the end of a hold, or when its lease
// is over if that is sooner.
func (l *life) surelyHeldUntil() time.Time {
	until := l.Attempts[0].Sent.Add(l.Request.TTL())
	for _, a := range l.Attempts {
		if a.Verb != verbReserve && a.Verb != verbExtend && a.Sent.Before(until) {
			until = a.Sent
		}
	}
	return until
}
