package replay

import (
	"context"
	"fmt"

	"github.com/earmark-dev/earmark"
)

// Audit reports whether the ledger holds exactly the usage of the admitted rows.
type Audit struct {
	Passed bool    `json:"passed"`
	Checks []Check `json:"checks"`
}

// Check is one number that must equal the run's own count.
type Check struct {
	What     string `json:"what"`
	Expected int64  `json:"expected"`
	Found    int64  `json:"found"`
}

// Passed reports whether the number is the expected one.
func (c Check) Passed() bool { return c.Expected == c.Found }

// audit compares the budget and its whole journal with the run's own counts.
func (r *run) audit(ctx context.Context) (Audit, error) {
	var budget *earmark.Budget
	if _, err := persist(ctx, func(ctx context.Context) (err error) {
		budget, err = r.api.Budget(ctx, r.budget.ID)
		return err
	}); err != nil {
		return Audit{}, err
	}
	journal, err := r.readJournal(ctx)
	if err != nil {
		return Audit{}, err
	}
	expected := r.tally.read()
	audit := Audit{Passed: true, Checks: []Check{
		{"tokens the budget has committed", expected.usedTokens, budget.Balance.Committed},
		{"tokens the budget still reserves", 0, budget.Balance.Reserved},
		{"tokens committed in the journal", expected.usedTokens, journal.committed},
		{"tokens still reserved in the journal", 0, journal.reserved},
		{"admissions in the journal", expected.admitted, journal.admissions},
		{"admissions past the limit", 0, journal.pastLimit},
	}}
	for _, check := range audit.Checks {
		audit.Passed = audit.Passed && check.Passed()
	}
	return audit, nil
}

// journal is the sum of the entries of a budget.
type journal struct {
	reserved   int64
	committed  int64
	admissions int64
	pastLimit  int64 // admissions after which more than the limit was reserved and committed
}

// readJournal adds up every entry of the budget, page by page, oldest first.
func (r *run) readJournal(ctx context.Context) (journal, error) {
	var sum journal
	var last int64
	filter := earmark.EntryFilter{BudgetID: r.budget.ID, Limit: earmark.MaxPageSize}
	for {
		var page earmark.Page[earmark.Entry]
		if _, err := persist(ctx, func(ctx context.Context) (err error) {
			page, err = r.api.Entries(ctx, filter)
			return err
		}); err != nil {
			return sum, err
		}
		for _, entry := range page.Data {
			if entry.ID <= last { // a repeating cursor would never end
				return sum, fmt.Errorf("the journal is out of order: entry %d comes after %d", entry.ID, last)
			}
			last = entry.ID
			sum.add(entry, r.budget.Limit)
		}
		if page.NextCursor == "" || len(page.Data) == 0 {
			return sum, nil
		}
		filter.Cursor = page.NextCursor
	}
}

func (j *journal) add(entry earmark.Entry, limit int64) {
	j.reserved += entry.ReservedDelta
	j.committed += entry.CommittedDelta
	if entry.Kind != "reserve" {
		return
	}
	j.admissions++
	if j.reserved+j.committed > limit {
		j.pastLimit++
	}
}
