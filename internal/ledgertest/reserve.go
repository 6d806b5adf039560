package ledgertest

import (
	"cmp"
	"context"
	"maps"
	"math"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
)

// mostInTheWay is how many overdue reservations one admission expires.
const mostInTheWay = 100

// touched is a budget that a request affects, in one window.
type touched struct {
	*budget
	start time.Time
	end   *time.Time
	// overdue is the part reserved by overdue reservations that an admission would expire:
	// a decision does not count it.
	overdue int64
	// The parts of overdue that grants bear, and those that have ended.
	overdueGranted, lost int64
	overdueOn            map[*grant]int64
}

// Reserve sets the amounts aside on every budget that covers one of the scopes,
// or on none (R1, R2).
func (l *Ledger) Reserve(_ context.Context, a earmark.Admission) (earmark.Result, error) {
	if !a.Released { // Postgres takes its locks first
		l.meet(a.Tenant, a.Request.Scopes, a.Request.Amounts, l.now(), a.Actor())
	}
	if answer := l.replay(a.ID, a.Tenant, a.RequestHash); answer != nil {
		return *answer, nil
	}
	now := l.now()
	r := &reservation{tenant: a.Tenant, hash: a.RequestHash, Reservation: earmark.Reservation{
		ID: a.ID, State: earmark.StateHeld, Scopes: a.Request.Scopes, Amounts: a.Request.Amounts, CreatedAt: now,
		ExpiresAt: new(now.Add(a.Request.TTL())), OnExpiry: a.Request.OnExpiry, Metadata: orEmpty(a.Request.Metadata), WorkflowID: a.WorkflowID,
	}}
	if a.Released {
		r.State, r.SettledAt, r.Reason = earmark.StateReleased, &now, "released before it was reserved"
		l.reservations[r.ID] = r
		l.note("release", r, a.Actor(), r.Reason)
		return l.result(earmark.OutcomeReleased, r), nil
	}
	if !a.AdmitBy.IsZero() && now.After(a.AdmitBy) {
		return earmark.Result{Outcome: earmark.OutcomeTooLate}, nil
	}
	budgets := l.touch(a.Tenant, a.Request.Scopes, a.Request.Amounts, now)
	if answer := l.unmet(a.Tenant, a.Request.Scopes, a.Request.Amounts, budgets, a.Request); answer != nil {
		return *answer, nil
	}
	if l.misfit(budgets, a.Request.Amounts) != nil {
		for _, overdue := range l.inTheWay(budgets, mostInTheWay) {
			l.applyExpiry(overdue, earmark.ActorWorkflow, "overdue, and in the way of an admission")
		}
	}
	if answer := l.misfit(budgets, a.Request.Amounts); answer != nil {
		return *answer, nil
	}
	for _, b := range budgets {
		s := b.total(b.start)
		requested := a.Request.Amounts[b.Unit]
		r.OverLimit = r.OverLimit || requested > b.limit(b.start, now)-s.reserved-s.committed
		r.granted = r.granted || b.everRolled || len(b.grants) > 0
		share := earmark.ReservationBudget{BudgetID: b.ID, Scope: b.Scope, Unit: b.Unit, WindowStart: b.start, Reserved: requested}
		r.Budgets = append(r.Budgets, share)
		b.hold(r, share, now)
		l.post("reserve", r, share, requested, 0, a.Actor(), "")
	}
	l.reservations[r.ID] = r
	return l.result(earmark.OutcomeApplied, r), nil
}

// Charge charges amounts without a reservation, whatever the limits are.
func (l *Ledger) Charge(_ context.Context, c earmark.Charge) (earmark.Result, error) {
	if answer := l.replay(c.ID, c.Tenant, c.RequestHash); answer != nil {
		return *answer, nil
	}
	now, at := l.now(), l.now()
	if !c.At.IsZero() {
		at = c.At
	}
	budgets := l.affected(c.Tenant, c.Request.Scopes, c.Request.Amounts, at)
	answer := l.unmet(c.Tenant, c.Request.Scopes, c.Request.Amounts, budgets, earmark.ReservationRequest{Coverage: earmark.CoverageAnyScope, RequireBudget: c.Request.RequireBudget})
	for _, b := range budgets {
		if s := b.at(b.start); answer == nil && c.Request.Amounts[b.Unit] > math.MaxInt64-s.reserved-s.committed {
			return earmark.Result{Outcome: earmark.OutcomeOverflow}, nil // Postgres has rolled back what it made
		}
	}
	l.meet(c.Tenant, c.Request.Scopes, c.Request.Amounts, at, c.Actor)
	if answer != nil {
		return *answer, nil
	}
	budgets = l.touch(c.Tenant, c.Request.Scopes, c.Request.Amounts, at)
	r := &reservation{tenant: c.Tenant, hash: c.RequestHash, Reservation: earmark.Reservation{
		ID: c.ID, State: earmark.StateCommitted, Scopes: c.Request.Scopes, Amounts: c.Request.Amounts, Usage: c.Request.Amounts, CreatedAt: now,
		SettledAt: &now, OnExpiry: earmark.OnExpiryRelease, Reason: c.Reason, Metadata: orEmpty(c.Request.Metadata),
	}}
	for _, b := range budgets {
		share := earmark.ReservationBudget{BudgetID: b.ID, Scope: b.Scope, Unit: b.Unit, WindowStart: b.start, Committed: c.Request.Amounts[b.Unit]}
		r.Budgets = append(r.Budgets, share)
		l.post("charge", r, share, 0, share.Committed, c.Actor, c.Reason)
		uncharged := share
		uncharged.Committed = 0
		l.settle(b.budget, r, uncharged, settlement{committed: share.Committed, by: c.Actor, locked: true}, at)
	}
	l.reservations[r.ID] = r
	return l.result(earmark.OutcomeApplied, r), nil
}

// Decide reports whether the request would be admitted now.
func (l *Ledger) Decide(_ context.Context, tenant string, request earmark.ReservationRequest) (earmark.Result, error) {
	budgets := l.affected(tenant, request.Scopes, request.Amounts, l.now())
	if answer := l.unmet(tenant, request.Scopes, request.Amounts, budgets, request); answer != nil {
		return *answer, nil
	}
	if l.misfit(budgets, request.Amounts) != nil {
		for _, r := range l.inTheWay(budgets, math.MaxInt) {
			for _, share := range r.Budgets {
				if i := slices.IndexFunc(budgets, func(b touched) bool { return b.is(share) }); i >= 0 {
					budgets[i].forget(r, share, l.now())
				}
			}
		}
	}
	if answer := l.misfit(budgets, request.Amounts); answer != nil {
		return *answer, nil
	}
	return earmark.Result{Outcome: earmark.OutcomeApplied}, nil
}

// Preflight makes the read before an admission.
func (l *Ledger) Preflight(ctx context.Context, a earmark.Admission) (earmark.Preflight, error) {
	if answer := l.replay(a.ID, a.Tenant, a.RequestHash); answer != nil {
		return earmark.Preflight{Now: l.now(), Result: *answer}, nil
	}
	decision, err := l.Decide(ctx, a.Tenant, a.Request)
	return earmark.Preflight{Now: l.now(), Result: decision}, err
}

// replay returns the answer for an id that is used again, from its existing reservation.
func (l *Ledger) replay(id, tenant, hash string) *earmark.Result {
	r := l.reservations[id]
	switch {
	case r == nil:
		return nil
	case r.tenant != tenant || r.hash != hash:
		return &earmark.Result{Outcome: earmark.OutcomeMismatch}
	}
	return new(l.result(earmark.OutcomeSame, r))
}

// touch returns the budgets that cover one of scopes in a unit of amounts, each once,
// ordered by id.
func (l *Ledger) touch(tenant string, scopes []string, amounts earmark.Amounts, at time.Time) []touched {
	var budgets []touched
	for _, id := range slices.Sorted(maps.Keys(l.budgets)) {
		b := l.budgets[id]
		_, asked := amounts[b.Unit]
		covered := slices.ContainsFunc(scopes, func(scope string) bool { return covers(b.Scope, scope) })
		if b.tenant == tenant && b.ArchivedAt == nil && asked && covered {
			start, end := b.window(at)
			budgets = append(budgets, touched{budget: b, start: start, end: end})
		}
	}
	return budgets
}

// affected returns those that touch returns, and those that templates would make.
func (l *Ledger) affected(tenant string, scopes []string, amounts earmark.Amounts, at time.Time) []touched {
	budgets := l.touch(tenant, scopes, amounts, at)
	for _, child := range l.missing(tenant, scopes, func(unit string) bool { _, asked := amounts[unit]; return asked }) {
		start, end := child.window(at)
		budgets = append(budgets, touched{budget: child, start: start, end: end})
	}
	slices.SortFunc(budgets, func(a, b touched) int { return strings.Compare(a.ID, b.ID) })
	return budgets
}

// unmet returns the first scope that no budget covers, whatever its unit, or else the first
// unit that no affected budget counts, on each scope or on any. If the request requires
// a budget, one above a scope does not cover it.
func (l *Ledger) unmet(tenant string, scopes []string, amounts earmark.Amounts, budgets []touched, request earmark.ReservationRequest) *earmark.Result {
	covers := covers
	if request.RequireBudget {
		covers = func(budget, scope string) bool { return budget == scope }
	}
	for _, scope := range scopes {
		met := false
		for _, b := range l.budgets {
			met = met || b.tenant == tenant && b.ArchivedAt == nil && covers(b.Scope, scope)
		}
		for _, child := range l.missing(tenant, scopes, func(string) bool { return true }) {
			met = met || covers(child.Scope, scope)
		}
		if !met {
			return &earmark.Result{Outcome: earmark.OutcomeNoBudget, Subject: scope}
		}
	}
	for _, scope := range scopes {
		for _, unit := range amounts.Units() {
			counts := func(scope string) bool {
				return slices.ContainsFunc(budgets, func(b touched) bool { return b.Unit == unit && covers(b.Scope, scope) })
			}
			if !counts(scope) && (!request.AnyScope() || !slices.ContainsFunc(scopes, counts)) {
				return &earmark.Result{Outcome: earmark.OutcomeUnitNotBudgeted, Subject: unit, Scope: scope}
			}
		}
	}
	return nil
}

// misfit returns the denial or overflow of amounts that do not fit; nil if they fit.
func (l *Ledger) misfit(budgets []touched, amounts earmark.Amounts) *earmark.Result {
	decision := earmark.Decision{Retryable: true}
	retryAt := l.now()
	for _, b := range budgets {
		s := b.total(b.start)
		s.reserved -= b.overdue
		requested, ceiling := amounts[b.Unit], b.withGrants(l.ceiling(b.budget, l.now()), b.start, l.now())
		if ceiling == nil {
			if requested > math.MaxInt64-s.reserved-s.committed {
				return &earmark.Result{Outcome: earmark.OutcomeOverflow, Subject: b.Unit}
			}
			continue
		}
		*ceiling -= b.lost
		available := *ceiling - s.reserved - s.committed
		if requested <= available {
			continue
		}
		decision.Violations = append(decision.Violations, earmark.Violation{
			BudgetID: b.ID, Scope: b.Scope, Unit: b.Unit, Limit: *ceiling, Reserved: s.reserved, Committed: s.committed,
			Available: available, Requested: requested,
		})
		changeAt := l.mayFitAt(b, s, requested)
		if changeAt == nil {
			decision.Retryable = false
		} else if changeAt.After(retryAt) {
			retryAt = *changeAt
		}
	}
	if len(decision.Violations) == 0 {
		return nil
	}
	if decision.Retryable {
		decision.RetryAt = &retryAt
	}
	return &earmark.Result{Outcome: earmark.OutcomeDenied, Decision: &decision}
}

// mayFitAt returns the first moment at which a request that does not fit now may fit without another call; nil if there is none.
func (l *Ledger) mayFitAt(b touched, s sums, requested int64) (first *time.Time) {
	lease, earlier := l.firstLeaseEnd(b), l.firstEarlierLease(b)
	freed := earliest(lease, earlier)
	moments := []*time.Time{b.end, lease, earlier}
	if b.rolling() {
		moments = []*time.Time{lease}
		for slice, s := range b.windows {
			if b.counts(b.start, slice) && !s.empty() {
				moments = append(moments, new(b.leaves(slice)))
			}
		}
	}
	for _, o := range b.overrides {
		moments = append(moments, &o.EffectiveAt, earliest(o.ExpiresAt, o.EndedAt))
	}
	moments = append(moments, b.laterEnds(b.end)...)
	for _, g := range b.grants {
		if g.VoidedAt == nil {
			moments = append(moments, &g.EffectiveAt)
		}
	}
	for _, at := range moments {
		if at == nil || at != lease && at != earlier && !at.After(l.now()) {
			continue
		}
		used := big.NewInt(s.committed - s.grantedCommitted)
		switch {
		case b.rolling():
			used = b.slicesAt(b.start, *at, lease == nil || at.Before(*lease))
		case b.end != nil && !at.Before(*b.end):
			used.SetInt64(0)
		case lease == nil || at.Before(*lease):
			used.Add(used, big.NewInt(s.reserved-s.grantedReserved+b.overdueGranted))
		}
		then := *at
		if then.Before(l.now()) {
			then = l.now()
		}
		ceiling, room := l.ceiling(b.budget, then), b.leftThen(then, freed != nil && !at.Before(*freed))
		room.Add(room, l.dueSum(b.ID, then, &future{touched: b, sums: s, freed: freed != nil && !at.Before(*freed)}))
		if ceiling == nil || used.Add(used, big.NewInt(requested)).Cmp(room.Add(room, big.NewInt(*ceiling))) <= 0 {
			first = earliest(first, at)
		}
	}
	return first
}

// firstLeaseEnd returns the end of the first lease of a hold on the budget; nil without a
// hold. It leaves out overdue holds that give their amount back.
func (l *Ledger) firstLeaseEnd(b touched) (first *time.Time) {
	for _, r := range l.reservations {
		if r.State != earmark.StateHeld || r.OnExpiry == earmark.OnExpiryRelease && r.ExpiresAt.Before(l.now()) {
			continue
		}
		if slices.ContainsFunc(r.Budgets, b.holds) {
			first = earliest(first, r.ExpiresAt)
		}
	}
	return first
}

func earliest(a, b *time.Time) *time.Time {
	if a == nil || b != nil && b.Before(*a) {
		return b
	}
	return a
}

// inTheWay returns up to limit overdue reservations that an admission to budgets would
// expire, the longest overdue first.
func (l *Ledger) inTheWay(budgets []touched, limit int) []*reservation {
	return l.overdue(0, limit, func(r *reservation) bool {
		return r.OnExpiry == earmark.OnExpiryRelease && slices.ContainsFunc(r.Budgets, func(share earmark.ReservationBudget) bool {
			return slices.ContainsFunc(budgets, func(b touched) bool { return b.holds(share) })
		})
	})
}

// overdue returns up to limit held reservations that have been overdue for more than grace
// and that want accepts, the longest overdue first.
func (l *Ledger) overdue(grace time.Duration, limit int, want func(*reservation) bool) []*reservation {
	var due []*reservation
	for _, r := range l.reservations {
		if r.State == earmark.StateHeld && r.ExpiresAt.Before(l.now().Add(-grace)) && want(r) {
			due = append(due, r)
		}
	}
	slices.SortFunc(due, func(a, b *reservation) int {
		return cmp.Or(a.ExpiresAt.Compare(*b.ExpiresAt), strings.Compare(a.ID, b.ID))
	})
	return due[:min(limit, len(due))]
}

// holds reports whether the share takes some of the budget's window.
func (b touched) holds(share earmark.ReservationBudget) bool {
	return b.is(share) && share.Reserved > 0
}

func (b touched) is(share earmark.ReservationBudget) bool {
	return b.ID == share.BudgetID && b.counts(b.start, share.WindowStart)
}

func orEmpty(m earmark.Metadata) earmark.Metadata {
	if m == nil {
		return earmark.Metadata{}
	}
	return m
}

// CountedUnits makes the read before an estimate.
func (l *Ledger) CountedUnits(_ context.Context, tenant, id, hash string, scopes []string) (earmark.Counted, error) {
	if answer := l.replay(id, tenant, hash); answer != nil {
		return earmark.Counted{Result: *answer}, nil
	}
	if answer := l.unmet(tenant, scopes, nil, nil, earmark.ReservationRequest{}); answer != nil {
		return earmark.Counted{Result: *answer}, nil
	}
	units := earmark.Amounts{}
	for _, b := range l.budgets {
		if b.tenant == tenant && b.ArchivedAt == nil && slices.ContainsFunc(scopes, func(scope string) bool { return covers(b.Scope, scope) }) {
			units[b.Unit] = 0
		}
	}
	for _, child := range l.missing(tenant, scopes, func(string) bool { return true }) {
		units[child.Unit] = 0
	}
	return earmark.Counted{Result: earmark.Result{Outcome: earmark.OutcomeApplied}, Units: units.Units()}, nil
}
