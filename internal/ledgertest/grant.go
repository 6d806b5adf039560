package ledgertest

import (
	"cmp"
	"context"
	"math"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
)

// grant is a grant of a budget with the hash of its request.
type grant struct {
	earmark.Grant // its Remaining is computed on each read
	hash          string
	left          int64 // of the window that rolled over into it
	expiryNoted   bool
	expiringNoted bool
}

// part is what a grant bears of a reservation.
type part struct{ held, reserved, committed int64 }

// CreateGrant grants an amount on top of a budget's limit; nil if there is no such budget.
func (l *Ledger) CreateGrant(_ context.Context, tenant, budgetID, key string, r earmark.GrantRequest, by earmark.Actor) (*earmark.Grant, error) {
	b := l.budgets[budgetID]
	if b == nil || b.tenant != tenant {
		return nil, nil
	}
	id := earmark.GrantID(budgetID, key)
	for _, g := range b.grants {
		switch {
		case g.ID == id && g.hash == r.Hash():
			made := g.show(l.now())
			made.Replayed = true
			return &made, nil
		case g.ID == id:
			err := earmark.Errorf(earmark.CodeIdempotencyMismatch, "used")
			err.Field = "Idempotency-Key"
			return nil, err
		}
	}
	if b.ArchivedAt != nil {
		return nil, earmark.Errorf(earmark.CodeInvalidRequest, "archived")
	}
	if b.Template {
		return nil, earmark.Invalidf("scope", "a template has no balance")
	}
	if b.rolling() {
		return nil, earmark.Invalidf("window", "rolling")
	}
	g := &grant{hash: r.Hash(), Grant: earmark.Grant{
		ID: id, BudgetID: b.ID, Amount: r.Amount, Priority: *r.Priority, EffectiveAt: l.now(), Source: "manual", Reason: r.Reason, CreatedAt: l.now(),
	}}
	if r.EffectiveAt != nil {
		g.EffectiveAt = r.EffectiveAt.UTC()
	}
	if r.ExpiresAt != nil {
		g.ExpiresAt = new(r.ExpiresAt.UTC())
	}
	if g.ExpiresAt != nil && (!g.ExpiresAt.After(g.EffectiveAt) || !g.ExpiresAt.After(l.now())) {
		return nil, earmark.Invalidf("expires_at", "has passed")
	}
	b.grants = append(b.grants, g)
	l.noteBudget(b, by, r.Reason)
	return new(g.show(l.now())), nil
}

// VoidGrant takes away what is left of a grant; nil if the budget has none with this id.
func (l *Ledger) VoidGrant(_ context.Context, tenant, budgetID, id string, by earmark.Actor, reason string) (*earmark.Grant, error) {
	b := l.budgets[budgetID]
	if b == nil || b.tenant != tenant {
		return nil, nil
	}
	for _, g := range b.grants {
		if g.ID != id {
			continue
		}
		if !g.ended(l.now()) {
			g.VoidedAt, g.Voided = new(l.now()), g.room()
			l.noteBudget(b, by, reason)
		}
		return new(g.show(l.now())), nil
	}
	return nil, nil
}

// expiringAhead is how long before its end a grant has its event.
const expiringAhead = 7 * 24 * time.Hour

// NoteGrants writes down what was unused of grants that have expired, and an event of those that soon will.
func (l *Ledger) NoteGrants(_ context.Context, limit int) (int, error) {
	type owned struct {
		*budget
		*grant
	}
	var expired, expiring []owned
	for _, b := range l.budgets {
		for _, g := range b.grants {
			switch {
			case g.VoidedAt != nil || g.ExpiresAt == nil:
			case g.ended(l.now()) && !g.expiryNoted:
				expired = append(expired, owned{b, g})
			case !g.ended(l.now()) && !g.expiringNoted && !l.now().Add(expiringAhead).Before(*g.ExpiresAt):
				expiring = append(expiring, owned{b, g})
			}
		}
	}
	due := func(grants []owned) []owned {
		slices.SortFunc(grants, func(a, b owned) int {
			return cmp.Or(a.ExpiresAt.Compare(*b.ExpiresAt), strings.Compare(a.grant.ID, b.grant.ID))
		})
		return grants[:min(limit, len(grants))]
	}
	expired, expiring = due(expired), due(expiring)
	for _, e := range expired {
		e.expiryNoted = true
		if e.room() > 0 {
			l.noteBudget(e.budget, earmark.ActorSweeper, "expired")
		}
	}
	for _, e := range expiring {
		e.expiringNoted = true
		if e.grant.Amount > e.Committed && e.ArchivedAt == nil {
			l.events = append(l.events, Event{Type: earmark.EventGrantExpiring, BudgetID: e.budget.ID, GrantID: e.grant.ID, Remaining: e.room()})
		}
	}
	return len(expired) + len(expiring), nil
}

// Grants lists the grants of a budget, newest first.
func (l *Ledger) Grants(_ context.Context, _, budgetID string, _ earmark.PageFilter) (earmark.Page[earmark.Grant], error) {
	page := earmark.Page[earmark.Grant]{Data: []earmark.Grant{}}
	if b := l.budgets[budgetID]; b != nil {
		for _, g := range b.grants {
			page.Data = append(page.Data, g.show(l.now()))
		}
	}
	slices.SortFunc(page.Data, func(a, b earmark.Grant) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), strings.Compare(b.ID, a.ID))
	})
	return page, nil
}

func (g *grant) show(now time.Time) earmark.Grant {
	shown := g.Grant
	if !g.ended(now) {
		shown.Remaining = g.room()
	}
	return shown
}

func (g *grant) ended(at time.Time) bool {
	return g.ExpiresAt != nil && !at.Before(*g.ExpiresAt) || g.VoidedAt != nil && !at.Before(*g.VoidedAt)
}

func (g *grant) inForce(at time.Time) bool { return !at.Before(g.EffectiveAt) && !g.ended(at) }

// room is what nothing has taken of a grant.
func (g *grant) room() int64 { return g.Amount - g.Voided - g.Reserved - g.Committed }

// inOrder returns a budget's grants in the order of use.
func (b *budget) inOrder() []*grant {
	never := time.Unix(1<<40, 0)
	expiry := func(g *grant) time.Time {
		if g.ExpiresAt == nil {
			return never
		}
		return *g.ExpiresAt
	}
	return slices.SortedFunc(slices.Values(b.grants), func(x, y *grant) int {
		return cmp.Or(cmp.Compare(x.Priority, y.Priority), expiry(x).Compare(expiry(y)), x.CreatedAt.Compare(y.CreatedAt), strings.Compare(x.ID, y.ID))
	})
}

// granted returns what grants bear of the window at start, and what those in force at a moment have left.
func (b *budget) granted(start, at time.Time) earmark.Granted {
	s := b.at(start)
	granted := earmark.Granted{Reserved: s.grantedReserved, Committed: s.grantedCommitted}
	for _, g := range b.grants {
		if g.inForce(at) {
			granted.Remaining += min(g.room(), math.MaxInt64-granted.Remaining)
		}
	}
	granted.Remaining = clamp(new(big.Int).Add(big.NewInt(granted.Remaining), b.l.dueSum(b.ID, at, nil)))
	return granted
}

// withGrants returns a limit or a ceiling with what grants add to it; nil stays nil.
func (b *budget) withGrants(amount *int64, start, at time.Time) *int64 {
	if amount == nil {
		return nil
	}
	granted := b.granted(start, at)
	sum := big.NewInt(*amount)
	for _, part := range []int64{granted.Reserved, granted.Committed, granted.Remaining} {
		sum.Add(sum, big.NewInt(part))
	}
	if !sum.IsInt64() {
		return new(int64(math.MaxInt64))
	}
	return new(sum.Int64())
}

// limit is the limit of the window at start at a moment, with overrides and grants.
func (b *budget) limit(start, at time.Time) int64 {
	return *b.withGrants(new(b.raised(b.Limit, at)), start, at)
}

// part returns what a grant bears of a reservation.
func (r *reservation) part(g *grant) *part {
	if r.parts == nil {
		r.parts = map[*grant]*part{}
	}
	if r.parts[g] == nil {
		r.parts[g] = &part{}
	}
	return r.parts[g]
}

// hold sets aside on grants what a new share takes from them.
func (b *budget) hold(r *reservation, share earmark.ReservationBudget, at time.Time) {
	rest, s := share.Reserved, b.at(share.WindowStart)
	if b.Allowance == earmark.AllowanceFirst {
		rest -= min(rest, max(0, b.raised(b.Limit, at)-(s.reserved-s.grantedReserved)-(s.committed-s.grantedCommitted)))
	}
	for _, g := range b.inOrder() {
		if take := min(rest, g.room()); take > 0 && g.inForce(at) {
			rest -= take
			g.Reserved += take
			b.at(share.WindowStart).grantedReserved += take
			*r.part(g) = part{held: take, reserved: take}
		}
	}
}

// settle follows a change of a share's charge to committed, which l.post has made; share is as it was before. A charge goes first to
// what the share was held against, then to what has room at a moment, then to the window itself. What goes back goes in reverse.
func (b *budget) settle(r *reservation, share earmark.ReservationBudget, committed int64, at time.Time) {
	s := b.at(share.WindowStart)
	ownHeld, ownCommitted := share.Reserved, share.Committed
	for _, g := range b.grants {
		if p := r.parts[g]; p != nil {
			g.Reserved -= p.reserved
			s.grantedReserved -= p.reserved
			p.reserved = 0
			ownHeld -= p.held
			ownCommitted -= p.committed
		}
	}
	charge := func(g *grant, by int64) {
		if by != 0 {
			g.Committed += by
			s.grantedCommitted += by
			r.part(g).committed += by
		}
	}
	order := b.inOrder()
	rest := committed - share.Committed
	if rest <= 0 {
		b.takeBack(r, -rest, ownCommitted, order, charge)
		return
	}
	own := func() {
		took := min(rest, max(0, ownHeld-ownCommitted))
		ownCommitted += took
		rest -= took
	}
	if b.Allowance == earmark.AllowanceFirst {
		own()
	}
	for _, g := range order {
		if p := r.parts[g]; p != nil {
			take := max(0, min(rest, p.held-p.committed, g.room()))
			charge(g, take)
			rest -= take
		}
	}
	if b.Allowance == earmark.AllowanceLast {
		own()
	}
	if b.Allowance == earmark.AllowanceFirst {
		// What the window had left for itself before this charge, whose part beyond what was held is rest.
		used := big.NewInt(s.reserved - s.grantedReserved)
		used.Add(used, big.NewInt(s.committed-s.grantedCommitted-rest))
		if free := new(big.Int).Sub(big.NewInt(b.raised(b.Limit, at)), used); free.Sign() > 0 {
			if free.IsInt64() {
				rest -= min(rest, free.Int64())
			} else {
				rest = 0
			}
		}
	}
	for _, g := range order {
		if g.inForce(at) {
			take := min(rest, g.room())
			charge(g, take)
			rest -= take
		}
	}
}

func (b *budget) takeBack(r *reservation, rest, ownCommitted int64, order []*grant, charge func(*grant, int64)) {
	if b.Allowance == earmark.AllowanceLast {
		rest -= min(rest, ownCommitted)
	}
	slices.Reverse(order)
	for _, g := range order {
		if p := r.parts[g]; p != nil {
			take := min(rest, p.committed)
			charge(g, -take)
			rest -= take
		}
	}
}

// settlement is a change of a share's charge to committed, by which freed is not held any more.
type settlement struct {
	committed, freed int64
	by               earmark.Actor
	locked           bool // it looks for what the window rolled over into
}

// settleGrants follows a settlement at the moment of settledAt.
func (l *Ledger) settleGrants(r *reservation, share earmark.ReservationBudget, s settlement) {
	b := l.budgets[share.BudgetID]
	l.settle(b, r, share, s, l.settledAt(b, share.WindowStart))
}

// settle follows a settlement on grants. By the change of what the window itself bears, what it has rolled over changes too.
func (l *Ledger) settle(b *budget, r *reservation, share earmark.ReservationBudget, s settlement, at time.Time) {
	before := *b.at(share.WindowStart)
	l.followed(b, at).settle(r, share, s.committed, at)
	after := *b.at(share.WindowStart)
	l.rollGivenBack(b, r, s.by)
	if s.locked {
		onGrants := after.grantedReserved - before.grantedReserved + after.grantedCommitted - before.grantedCommitted
		l.rollSettled(b, share.WindowStart, s.freed-(s.committed-share.Committed)+onGrants, s.by)
	}
}

// settledAt is the moment whose settings, overrides and grants count for usage in the window at start: now, or its end if it has ended.
func (l *Ledger) settledAt(b *budget, start time.Time) time.Time {
	if _, end := b.window(start); end != nil && !l.now().Before(*end) {
		return end.Add(-time.Microsecond)
	}
	return l.now()
}

// leftThen returns what the grants in force at a later moment will have left without another call; without holds if freed,
// and in any case without those that are overdue.
func (b touched) leftThen(at time.Time, freed bool) *big.Int {
	left := new(big.Int)
	for _, g := range b.grants {
		if !g.inForce(at) {
			continue
		}
		if freed && g.RolledFrom != nil {
			left.Add(left, b.rolledThen(g))
			continue
		}
		left.Add(left, big.NewInt(g.Amount-g.Voided-g.Committed))
		if !freed {
			left.Sub(left, big.NewInt(g.Reserved-b.overdueOn[g]))
		}
	}
	return left
}

// forget leaves out a hold that an admission would expire.
func (b *touched) forget(r *reservation, share earmark.ReservationBudget, now time.Time) {
	b.overdue += share.Reserved
	for _, g := range b.grants {
		if p := r.parts[g]; p != nil {
			if b.overdueOn == nil {
				b.overdueOn = map[*grant]int64{}
			}
			b.overdueOn[g] += p.reserved
			b.overdueGranted += p.reserved
			if g.ended(now) {
				b.lost += p.reserved
			}
		}
	}
}

// firstEarlierLease returns the end of the first lease of a hold that an earlier window has against a grant, or of a window that has rolled
// over, or is to; nil if there is none.
func (l *Ledger) firstEarlierLease(b touched) (first *time.Time) {
	rolled := l.rolledWindows(b)
	for _, r := range l.reservations {
		if r.State != earmark.StateHeld {
			continue
		}
		for _, share := range r.Budgets {
			if share.BudgetID != b.ID || !share.WindowStart.Before(b.start) {
				continue
			}
			for _, g := range b.grants {
				if p := r.parts[g]; p != nil && p.reserved > 0 {
					first = earliest(first, r.ExpiresAt)
				}
			}
			if share.Reserved > 0 && slices.ContainsFunc(rolled, share.WindowStart.Equal) {
				first = earliest(first, r.ExpiresAt)
			}
		}
	}
	return first
}
