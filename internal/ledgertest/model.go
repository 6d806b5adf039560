// Package ledgertest is the ledger in memory: a reference model, small enough to be checked
// by reading, with which tests compare the ledger on Postgres. It makes one call at a time,
// uses the clock that its caller passes, and computes the bounds of windows with Go's time
// package instead of Postgres' date functions.
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

// Ledger has the methods of the ledger on Postgres, with the same results. It is not safe
// for concurrent use. Its lists have one page with everything.
type Ledger struct {
	// NewBudgetID generates the ids of budgets; nil means earmark.NewBudgetID.
	NewBudgetID func() string

	clock        func() time.Time
	budgets      map[string]*budget
	reservations map[string]*reservation
	entries      []entry
	events       []Event
}

type budget struct {
	earmark.Budget // its Balance is computed on each read
	tenant         string
	windows        map[time.Time]*sums
	kept           []interval // windows with bounds other than those of Bounds
	overrides      []*override
	grants         []*grant
	rolledUntil    *time.Time // windows that start before have rolled over, or began before the setting; nil: none rolls over
	everRolled     bool
	l              *Ledger
	revision       int        // of the template that it follows
	revisions      []revision // of a template
}

// sums are the reserved and committed amounts of a window, whose sum fits int64 (R8), and the parts that grants bear.
type sums struct {
	reserved, committed               int64
	grantedReserved, grantedCommitted int64
	reached                           reached
	stale                             bool // see Stale
}

func (s sums) empty() bool { return s.reserved == 0 && s.committed == 0 }

type reservation struct {
	earmark.Reservation
	tenant, hash    string
	refused         []string          // usage that came after the release, in the words of the journal
	refusedAttempts []string          // refused attempts at a commit
	corrections     map[string]string // hashes of the requests, by the correction's id
	parts           map[*grant]*part
	granted         bool // a budget had grants when it was admitted, so a settlement looks for them
}

type entry struct {
	earmark.Entry
	tenant string
	pruned *pruned // of a checkpoint
}

// New returns an empty ledger that uses clock.
func New(clock func() time.Time) *Ledger {
	return &Ledger{NewBudgetID: earmark.NewBudgetID, clock: clock, budgets: map[string]*budget{}, reservations: map[string]*reservation{}}
}

// now returns the clock's time in microseconds, the resolution of Postgres.
func (l *Ledger) now() time.Time { return l.clock().UTC().Truncate(time.Microsecond) }

// CreateBudget stores a valid request whose defaults are filled.
func (l *Ledger) CreateBudget(ctx context.Context, tenant string, r earmark.BudgetRequest, by earmark.Actor) (*earmark.Budget, error) {
	for _, b := range l.budgets {
		if b.tenant == tenant && b.ArchivedAt == nil && b.Scope == r.Scope && b.Unit == r.Unit && b.Window.Period == r.Window.Period && max(b.Window.Every, 1) == r.Window.Every && b.Window.RollingSeconds == r.Window.RollingSeconds {
			return nil, earmark.Errorf(earmark.CodeBudgetExists, "exists")
		}
	}
	b := &budget{l: l, tenant: tenant, windows: map[time.Time]*sums{}, Budget: earmark.Budget{
		ID: l.NewBudgetID(), Scope: r.Scope, Unit: r.Unit, Limit: *r.Limit, Window: r.Window, Enforcement: r.Enforcement,
		SoftCeiling: r.SoftCeiling, Overage: r.Overage, Allowance: r.Allowance, Thresholds: r.Thresholds, Rollover: r.Rollover, CreatedAt: l.now(), Template: strings.HasSuffix(r.Scope, "*"),
	}}
	if b.Window.Every == 1 {
		b.Window.Every = 0 // not shown
	}
	b.beginRollover(l.now())
	l.budgets[b.ID] = b
	l.revise(b, false)
	l.noteBudget(b, by, fmt.Sprintf("created with limit %d", b.Limit))
	return l.Budget(ctx, tenant, b.ID)
}

// PatchBudget changes a budget; nil if there is none.
func (l *Ledger) PatchBudget(ctx context.Context, tenant, id string, patch earmark.BudgetPatch, by earmark.Actor) (*earmark.Budget, error) {
	b := l.budgets[id]
	if b == nil || b.tenant != tenant {
		return nil, nil
	}
	if b.ArchivedAt != nil {
		return nil, earmark.Errorf(earmark.CodeInvalidRequest, "archived")
	}
	before := l.followed(b, l.now()).Budget
	changed := before
	if err := patch.Apply(&changed); err != nil {
		return nil, err
	}
	if patch.FollowsTemplate != nil {
		if err := l.setFollowing(b, *patch.FollowsTemplate, by); err != nil {
			return nil, err
		}
		return l.Budget(ctx, tenant, id)
	}
	if !sameSettings(changed, before) {
		l.rollOver(b, l.now(), by)
		l.follow(b, by)
		l.take(b, changed)
		b.FollowsTemplate, b.revision = false, 0
		l.revise(b, patch.NextWindow())
		l.noteBudget(b, by, "changed")
	}
	return l.Budget(ctx, tenant, id)
}

// ArchiveBudget archives a budget; nil if there is none.
func (l *Ledger) ArchiveBudget(ctx context.Context, tenant, id string, by earmark.Actor) (*earmark.Budget, error) {
	if b := l.budgets[id]; b != nil && b.tenant == tenant && b.ArchivedAt == nil {
		l.follow(b, by)
		b.ArchivedAt, b.FollowsTemplate, b.revision = new(l.now()), false, 0
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
	b = l.followed(b, l.now())
	answer := b.Budget
	start, end := b.window(l.now())
	s := b.total(start)
	limit, granted := b.limit(start, l.now()), b.granted(start, l.now())
	if b.rolling() {
		start = b.firstCounted(start)
	}
	answer.Balance = earmark.Balance{
		Limit: b.Limit, EffectiveLimit: limit, Reserved: s.reserved, Committed: s.committed, Available: limit - s.reserved - s.committed,
		WindowStart: start, WindowEnd: end,
	}
	if granted != (earmark.Granted{}) {
		answer.Balance.Granted = &granted
	}
	return &answer, nil
}

// Budgets lists the budgets that are not archived, newest first.
func (l *Ledger) Budgets(ctx context.Context, tenant string, f earmark.BudgetFilter) (earmark.Page[earmark.Budget], error) {
	page := earmark.Page[earmark.Budget]{Data: []earmark.Budget{}}
	for id, b := range l.budgets {
		if b.tenant == tenant && b.ArchivedAt == nil && (f.Scope == "" || f.Scope == b.Scope) && (f.Covering == "" || covers(b.Scope, f.Covering)) && (f.TemplateID == "" || f.TemplateID == b.TemplateID) {
			answer, _ := l.Budget(ctx, tenant, id)
			page.Data = append(page.Data, *answer)
		}
	}
	slices.SortFunc(page.Data, func(a, b earmark.Budget) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), strings.Compare(b.ID, a.ID))
	})
	return page, nil
}

// Reservation returns one reservation; nil if there is none.
func (l *Ledger) Reservation(_ context.Context, tenant, id string) (*earmark.Reservation, error) {
	r := l.reservations[id]
	if r == nil || r.tenant != tenant {
		return nil, nil
	}
	return l.show(r), nil
}

// Reservations lists reservations, newest first. The model has no workflows, so no
// reservation is an orphan.
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

// Window is one window of a budget with its sums.
type Window struct {
	BudgetID            string
	Start               time.Time
	Reserved, Committed int64
	// GrantedReserved and GrantedCommitted are the parts that grants bear.
	GrantedReserved, GrantedCommitted int64
}

// Windows returns every window that is not empty, by budget and start.
func (l *Ledger) Windows() []Window {
	windows := []Window{}
	for id, b := range l.budgets {
		for start, s := range b.windows {
			if !s.empty() {
				windows = append(windows, Window{BudgetID: id, Start: start, Reserved: s.reserved, Committed: s.committed,
					GrantedReserved: s.grantedReserved, GrantedCommitted: s.grantedCommitted})
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

// ceiling returns the amount that admissions to b may not exceed at a moment; nil means no ceiling.
func (l *Ledger) ceiling(b *budget, at time.Time) *int64 {
	b = l.followed(b, at)
	switch {
	case b.Enforcement == earmark.EnforcementHard:
		return new(b.raised(b.Limit, at))
	case b.SoftCeiling == nil:
		return nil
	}
	return new(b.raised(*b.SoftCeiling, at))
}

// show returns a copy of a reservation, as callers see it.
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

// post changes a balance and writes a journal entry; it is the only function that does
// (R3).
func (l *Ledger) post(kind string, r *reservation, share earmark.ReservationBudget, reservedDelta, committedDelta int64, actor earmark.Actor, reason string) {
	b := l.budgets[share.BudgetID]
	s := b.at(share.WindowStart)
	s.reserved += reservedDelta
	s.committed += committedDelta
	l.cross(b, share.WindowStart, s)
	l.entries = append(l.entries, entry{tenant: r.tenant, Entry: earmark.Entry{
		Kind: kind, ReservationID: r.ID, BudgetID: share.BudgetID, WindowStart: new(share.WindowStart),
		ReservedDelta: reservedDelta, CommittedDelta: committedDelta, Actor: actor.String(), Reason: reason, CreatedAt: l.now(),
	}})
}

// note writes a journal entry that changes no balance.
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

// covers reports whether a budget on scope wide covers scope narrow: whole segments match,
// so acme does not cover acmecorp.
func covers(wide, narrow string) bool {
	return wide == narrow || strings.HasPrefix(narrow, wide+"/")
}

// journalText returns amounts as the journal shows them, which is how Postgres prints
// jsonb: shorter units first.
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
