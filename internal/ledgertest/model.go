// Package ledgertest is the ledger in memory: a reference that is small enough to be
// checked by reading, for tests to hold the ledger on Postgres against. It works
// one call at a time, by a clock that it is given, and writes the bounds of
// windows with Go's time package instead of Postgres' date functions.
package ledgertest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
)

// Ledger has the methods of the ledger on Postgres, with the same answers. It is
// not safe for concurrent use. Lists come whole, on one page.
type Ledger struct {
	// NewBudgetID makes the ids of budgets; earmark.NewBudgetID unless it is set.
	NewBudgetID func() string

	clock        func() time.Time
	budgets      map[string]*budget
	reservations map[string]*reservation
	entries      []entry
}

type budget struct {
	earmark.Budget // its Balance is computed when it is asked for
	tenant         string
	windows        map[time.Time]*sums
	kept           []interval // windows with other bounds than Bounds gives
}

// sums are what a window has set aside and spent. Together they fit int64 (R8).
type sums struct{ reserved, committed int64 }

type reservation struct {
	earmark.Reservation
	tenant, hash    string
	refused         []string // usage that came after the release, as the journal has it
	refusedAttempts []string // attempts at a commit that were refused
}

type entry struct {
	earmark.Entry
	tenant string
	pruned *pruned // what a checkpoint stands for
}

// New makes an empty ledger that goes by clock.
func New(clock func() time.Time) *Ledger {
	return &Ledger{NewBudgetID: earmark.NewBudgetID, clock: clock, budgets: map[string]*budget{}, reservations: map[string]*reservation{}}
}

// now is the clock's time in the microseconds that Postgres keeps.
func (l *Ledger) now() time.Time { return l.clock().UTC().Truncate(time.Microsecond) }

// CreateBudget stores a valid request, defaults filled.
func (l *Ledger) CreateBudget(ctx context.Context, tenant string, r earmark.BudgetRequest, by earmark.Actor) (*earmark.Budget, error) {
	for _, b := range l.budgets {
		if b.tenant == tenant && b.ArchivedAt == nil && b.Scope == r.Scope && b.Unit == r.Unit && b.Window.Period == r.Window.Period {
			return nil, earmark.Errorf(earmark.CodeBudgetExists, "exists")
		}
	}
	b := &budget{tenant: tenant, windows: map[time.Time]*sums{}, Budget: earmark.Budget{
		ID: l.NewBudgetID(), Scope: r.Scope, Unit: r.Unit, Limit: *r.Limit, Window: r.Window, Enforcement: r.Enforcement,
		SoftCeiling: r.SoftCeiling, Overage: r.Overage, CreatedAt: l.now(),
	}}
	l.budgets[b.ID] = b
	l.noteBudget(b, by, fmt.Sprintf("created with limit %d", b.Limit))
	return l.Budget(ctx, tenant, b.ID)
}

// PatchBudget changes a budget; nil when there is none.
func (l *Ledger) PatchBudget(ctx context.Context, tenant, id string, patch earmark.BudgetPatch, by earmark.Actor) (*earmark.Budget, error) {
	b := l.budgets[id]
	if b == nil || b.tenant != tenant {
		return nil, nil
	}
	if b.ArchivedAt != nil {
		return nil, earmark.Errorf(earmark.CodeInvalidRequest, "archived")
	}
	changed := b.Budget
	if err := patch.Apply(&changed); err != nil {
		return nil, err
	}
	if changed.Limit != b.Limit || changed.Enforcement != b.Enforcement || changed.Overage != b.Overage || !equal(changed.SoftCeiling, b.SoftCeiling) {
		b.Budget = changed
		l.noteBudget(b, by, "changed")
	}
	return l.Budget(ctx, tenant, id)
}

// ArchiveBudget ends a budget for new holds; nil when there is none.
func (l *Ledger) ArchiveBudget(ctx context.Context, tenant, id string, by earmark.Actor) (*earmark.Budget, error) {
	if b := l.budgets[id]; b != nil && b.tenant == tenant && b.ArchivedAt == nil {
		b.ArchivedAt = new(l.now())
		l.noteBudget(b, by, "archived")
	}
	return l.Budget(ctx, tenant, id)
}

// Budget returns one budget with the balance of its current window.
func (l *Ledger) Budget(_ context.Context, tenant, id string) (*earmark.Budget, error) {
	b := l.budgets[id]
	if b == nil || b.tenant != tenant {
		return nil, nil
	}
	answer := b.Budget
	start, end := b.window(l.now())
	s := b.at(start)
	answer.Balance = earmark.Balance{
		Limit: b.Limit, Reserved: s.reserved, Committed: s.committed, Available: b.Limit - s.reserved - s.committed,
		WindowStart: start, WindowEnd: end,
	}
	return &answer, nil
}

// Budgets lists the budgets that are not archived, newest first.
func (l *Ledger) Budgets(ctx context.Context, tenant string, f earmark.BudgetFilter) (earmark.Page[earmark.Budget], error) {
	page := earmark.Page[earmark.Budget]{Data: []earmark.Budget{}}
	for id, b := range l.budgets {
		if b.tenant == tenant && b.ArchivedAt == nil && (f.Scope == "" || f.Scope == b.Scope) && (f.Covering == "" || covers(b.Scope, f.Covering)) {
			answer, _ := l.Budget(ctx, tenant, id)
			page.Data = append(page.Data, *answer)
		}
	}
	slices.SortFunc(page.Data, func(a, b earmark.Budget) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), strings.Compare(b.ID, a.ID))
	})
	return page, nil
}

// Reservation returns one reservation, nil when there is none.
func (l *Ledger) Reservation(_ context.Context, tenant, id string) (*earmark.Reservation, error) {
	r := l.reservations[id]
	if r == nil || r.tenant != tenant {
		return nil, nil
	}
	return l.show(r), nil
}

// Reservations lists reservations, newest first. No one looks for workflows
// here, so none is an orphan.
func (l *Ledger) Reservations(_ context.Context, tenant string, f earmark.ReservationFilter) (earmark.Page[earmark.Reservation], error) {
	page := earmark.Page[earmark.Reservation]{Data: []earmark.Reservation{}}
	for _, r := range l.reservations {
		shown := l.show(r)
		under := func(scope string) bool { return covers(f.Scope, scope) }
		if r.tenant == tenant && (f.State == "" || f.State == r.State) && (!f.Overdue || shown.Overdue) && !f.Orphan &&
			(f.Scope == "" || slices.ContainsFunc(r.Scopes, under)) {
			page.Data = append(page.Data, *shown)
		}
	}
	slices.SortFunc(page.Data, func(a, b earmark.Reservation) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), strings.Compare(b.ID, a.ID))
	})
	return page, nil
}

// Entries lists entries of the journal, oldest first.
func (l *Ledger) Entries(_ context.Context, tenant string, f earmark.EntryFilter) (earmark.Page[earmark.Entry], error) {
	page := earmark.Page[earmark.Entry]{Data: []earmark.Entry{}}
	for _, e := range l.entries {
		if e.tenant == tenant && (f.BudgetID == "" || f.BudgetID == e.BudgetID) && (f.ReservationID == "" || f.ReservationID == e.ReservationID) {
			page.Data = append(page.Data, e.Entry)
		}
	}
	return page, nil
}

// Window is one window of a budget, and what it has set aside and spent.
type Window struct {
	BudgetID            string
	Start               time.Time
	Reserved, Committed int64
}

// Windows lists every window that is not empty, by budget and start.
func (l *Ledger) Windows() []Window {
	windows := []Window{}
	for id, b := range l.budgets {
		for start, s := range b.windows {
			if *s != (sums{}) {
				windows = append(windows, Window{BudgetID: id, Start: start, Reserved: s.reserved, Committed: s.committed})
			}
		}
	}
	slices.SortFunc(windows, func(a, b Window) int {
		return cmp.Or(strings.Compare(a.BudgetID, b.BudgetID), a.Start.Compare(b.Start))
	})
	return windows
}

// at returns the sums of the window that starts at start.
func (b *budget) at(start time.Time) *sums {
	if b.windows[start] == nil {
		b.windows[start] = &sums{}
	}
	return b.windows[start]
}

// ceiling is what admissions end at; nil: they do not.
func (b *budget) ceiling() *int64 {
	if b.Enforcement == earmark.EnforcementHard {
		return &b.Limit
	}
	return b.SoftCeiling
}

// show is a reservation as callers see it: a copy.
func (l *Ledger) show(r *reservation) *earmark.Reservation {
	shown := r.Reservation
	shown.Overdue = r.State == earmark.StateHeld && r.ExpiresAt.Before(l.now())
	shown.Budgets = slices.SortedFunc(slices.Values(r.Budgets), func(a, b earmark.ReservationBudget) int {
		return cmp.Or(strings.Compare(a.Scope, b.Scope), strings.Compare(a.Unit, b.Unit), strings.Compare(a.BudgetID, b.BudgetID))
	})
	if shown.Budgets == nil {
		shown.Budgets = []earmark.ReservationBudget{}
	}
	return &shown
}

func (l *Ledger) result(outcome earmark.Outcome, r *reservation) earmark.Result {
	result := earmark.Result{Outcome: outcome, Reservation: l.show(r)}
	if left := r.leaseLeft(l.now()); left > 0 {
		result.RemainingMS = (left + time.Millisecond - 1).Milliseconds() // rounded up
	}
	return result
}

func (r *reservation) leaseLeft(now time.Time) time.Duration {
	if r.State != earmark.StateHeld {
		return 0
	}
	return r.ExpiresAt.Sub(now)
}

// post changes a balance and says so in the journal; nothing else does either (R3).
func (l *Ledger) post(kind string, r *reservation, share earmark.ReservationBudget, reservedDelta, committedDelta int64, actor earmark.Actor, reason string) {
	s := l.budgets[share.BudgetID].at(share.WindowStart)
	s.reserved += reservedDelta
	s.committed += committedDelta
	l.entries = append(l.entries, entry{tenant: r.tenant, Entry: earmark.Entry{
		Kind: kind, ReservationID: r.ID, BudgetID: share.BudgetID, WindowStart: new(share.WindowStart),
		ReservedDelta: reservedDelta, CommittedDelta: committedDelta, Actor: actor.String(), Reason: reason, CreatedAt: l.now(),
	}})
}

// note says in the journal what changed no balance.
func (l *Ledger) note(kind string, r *reservation, actor earmark.Actor, reason string) {
	l.entries = append(l.entries, entry{tenant: r.tenant, Entry: earmark.Entry{
		Kind: kind, ReservationID: r.ID, Actor: actor.String(), Reason: reason, CreatedAt: l.now(),
	}})
}

func (l *Ledger) noteBudget(b *budget, by earmark.Actor, reason string) {
	l.entries = append(l.entries, entry{tenant: b.tenant, Entry: earmark.Entry{
		Kind: "budget", BudgetID: b.ID, Actor: by.String(), Reason: reason, CreatedAt: l.now(),
	}})
}

// covers reports whether a budget on scope wide counts what is spent on scope
// narrow: whole segments match, so acme does not cover acmecorp.
func covers(wide, narrow string) bool {
	return wide == narrow || strings.HasPrefix(narrow, wide+"/")
}

// journalText is amounts as the journal writes them, which is how Postgres
// prints jsonb: shorter units first.
func journalText(amounts earmark.Amounts) string {
	units := slices.SortedFunc(maps.Keys(amounts), func(a, b string) int {
		return cmp.Or(len(a)-len(b), strings.Compare(a, b))
	})
	for i, unit := range units {
		units[i] = fmt.Sprintf("%q: %d", unit, amounts[unit])
	}
	return "{" + strings.Join(units, ", ") + "}"
}

func equal(a, b *int64) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
