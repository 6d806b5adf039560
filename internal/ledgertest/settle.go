package ledgertest

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/earmark-dev/earmark"
)

// Commit charges usage and gives back the rest.
func (l *Ledger) Commit(_ context.Context, s earmark.Transition, usage earmark.Amounts) (earmark.Result, error) {
	r := l.find(s)
	if r == nil {
		return unknown()
	}
	if unit := differingUnit(r.Amounts, usage); unit != "" {
		result := l.result(earmark.OutcomeUnitsMismatch, r)
		result.Subject = unit
		return result, nil
	}
	switch {
	case r.State == earmark.StateCommitted && (s.Estimated || !r.Estimated) && r.Usage.Equal(usage):
		return l.result(earmark.OutcomeSame, r), nil
	case r.State == earmark.StateCommitted && (s.Estimated || !r.Estimated):
		return l.result(earmark.OutcomeConflict, r), nil
	case r.State == earmark.StateReleased:
		l.refuse(r, s.Actor, fmt.Sprintf("usage %s came after the release and was not charged", journalText(usage)))
		return l.result(earmark.OutcomeConflict, r), nil
	case s.Attempt != "" && slices.Contains(r.refusedAttempts, s.Attempt):
		return l.result(earmark.OutcomeOverageRejected, r), nil
	}
	late := r.State != earmark.StateHeld
	overage := beyond(usage, r.Amounts)
	if !late && l.rejects(r, overage) {
		if !r.RejectedUsage.Equal(usage) {
			r.RejectedUsage, r.OnExpiry = usage, earmark.OnExpiryReview
			l.note("reject", r, s.Actor, fmt.Sprintf("usage %s is over the reserved amount", journalText(usage)))
			l.emit(earmark.EventOverage, r, func(e *Event) { e.Usage, e.Overage, e.Rejected = usage, overage, true })
		}
		if s.Attempt != "" {
			r.refusedAttempts = append(r.refusedAttempts, s.Attempt)
		}
		return l.result(earmark.OutcomeOverageRejected, r), nil
	}
	charges, fits := l.charges(r, usage, late)
	if !fits {
		l.refuse(r, s.Actor, fmt.Sprintf("usage %s would make a sum larger than %d and was not charged", journalText(usage), math.MaxInt64))
		return earmark.Result{Outcome: earmark.OutcomeOverflow}, nil
	}
	r.Reason = lateReason(r, s.Reason)
	kind := "commit"
	if s.Estimated {
		kind = "estimate"
	}
	l.charge(kind, r, charges, s.Actor, r.Reason, r.granted || late || overage != nil)
	r.Shortfall = shortfall(r, usage)
	r.State, r.Usage, r.Overage, r.Late, r.Estimated, r.SettledAt = earmark.StateCommitted, usage, overage, late, s.Estimated, new(l.now())
	if late {
		l.emit(earmark.EventCommittedLate, r)
	}
	if overage != nil {
		l.emit(earmark.EventOverage, r, func(e *Event) { e.Overage, e.Shortfall = overage, r.Shortfall })
	}
	return l.result(earmark.OutcomeApplied, r), nil
}

// shortfall returns the largest part of usage that one of r's budgets did not charge; nil if there is none.
func shortfall(r *reservation, usage earmark.Amounts) earmark.Amounts {
	var short earmark.Amounts
	for _, share := range r.Budgets {
		if part := usage[share.Unit] - share.Committed; part > 0 {
			if short == nil {
				short = earmark.Amounts{}
			}
			short[share.Unit] = max(short[share.Unit], part)
		}
	}
	return short
}

// refuse records once why usage was not charged.
func (l *Ledger) refuse(r *reservation, actor earmark.Actor, reason string) {
	if !slices.Contains(r.refused, reason) {
		r.refused = append(r.refused, reason)
		l.note("refuse", r, actor, reason)
	}
}

// charges returns what each of r's budgets is charged for usage, in their order, and
// whether that fits int64.
func (l *Ledger) charges(r *reservation, usage earmark.Amounts, late bool) (charges []int64, fits bool) {
	for _, share := range r.Budgets {
		b := l.budgets[share.BudgetID]
		window := b.at(share.WindowStart)
		charged := usage[share.Unit]
		at := l.settledAt(b, share.WindowStart)
		ceiling := b.withGrants(l.ceiling(b, at), share.WindowStart, at)
		if !late && l.followed(b, at).Overage == earmark.OverageAllowIfAvailable && ceiling != nil && charged > share.Reserved {
			free := max(0, *ceiling-window.reserved-window.committed)
			free = max(0, free-l.heldElsewhere(b, share.WindowStart))
			charged = share.Reserved + min(charged-share.Reserved, free)
		}
		open := int64(0)
		if r.Open() {
			open = share.Reserved
		}
		if charged > math.MaxInt64-(window.reserved-open)-(window.committed-share.Committed) {
			return nil, false
		}
		charges = append(charges, charged)
	}
	return charges, true
}

// charge sets the committed amount of each of r's budgets to its charge, and the reserved
// amount to 0.
func (l *Ledger) charge(kind string, r *reservation, charges []int64, actor earmark.Actor, reason string, locked bool) {
	for i := range r.Budgets {
		share := &r.Budgets[i]
		reservedDelta := int64(0)
		if r.Open() {
			reservedDelta = -share.Reserved
		}
		l.post(kind, r, *share, reservedDelta, charges[i]-share.Committed, actor, reason)
		l.settleGrants(r, *share, settlement{charges[i], -reservedDelta, actor, locked})
		share.Committed = charges[i]
	}
}

// rejects reports whether a budget of r refuses a part of overage.
func (l *Ledger) rejects(r *reservation, overage earmark.Amounts) bool {
	return slices.ContainsFunc(r.Budgets, func(share earmark.ReservationBudget) bool {
		return overage[share.Unit] > 0 && l.followed(l.budgets[share.BudgetID], l.now()).Overage == earmark.OverageReject
	})
}

// Release gives the amount back as the caller's own release: nothing was spent, and that is
// final.
func (l *Ledger) Release(_ context.Context, s earmark.Transition) (earmark.Result, error) {
	return l.release(s, earmark.StateReleased, "release")
}

// GiveBack gives the amount back as an operator's release: an expiry with a reason.
func (l *Ledger) GiveBack(_ context.Context, s earmark.Transition) (earmark.Result, error) {
	return l.release(s, earmark.StateExpired, "expire")
}

func (l *Ledger) release(s earmark.Transition, to earmark.State, kind string) (earmark.Result, error) {
	r := l.find(s)
	switch {
	case r == nil:
		return unknown()
	case r.State == earmark.StateCommitted:
		return l.result(earmark.OutcomeConflict, r), nil
	case !r.Open():
		return l.result(earmark.OutcomeSame, r), nil
	}
	l.giveBack(r, to, kind, s.Actor, s.Reason)
	if to == earmark.StateExpired {
		l.emit(earmark.EventExpired, r)
	}
	return l.result(earmark.OutcomeApplied, r), nil
}

// Expire applies the expiry policy to a reservation whose lease has ended.
func (l *Ledger) Expire(_ context.Context, s earmark.Transition) (earmark.Result, error) {
	r := l.find(s)
	switch {
	case r == nil:
		return unknown()
	case r.State != earmark.StateHeld:
		return l.result(earmark.OutcomeSame, r), nil
	case r.leaseLeft(l.now()) > 0:
		return l.result(earmark.OutcomeNotDue, r), nil
	}
	l.applyExpiry(r, s.Actor, s.Reason)
	return l.result(earmark.OutcomeApplied, r), nil
}

// Sweep expires up to limit held reservations, of any tenant, that have been overdue for
// more than grace.
func (l *Ledger) Sweep(_ context.Context, grace time.Duration, limit int) ([]string, error) {
	ids := []string{}
	for _, r := range l.overdue(grace, limit, func(*reservation) bool { return true }) {
		l.applyExpiry(r, earmark.ActorSweeper, "overdue, and its workflow did not act")
		ids = append(ids, r.ID)
	}
	return ids, nil
}

// Extend extends the lease to ttl from now, if that is later than its expiry, and to at
// most earmark.MaxTTL after its creation.
func (l *Ledger) Extend(_ context.Context, s earmark.Transition, ttl time.Duration) (earmark.Result, error) {
	r := l.find(s)
	switch {
	case r == nil:
		return unknown()
	case r.State == earmark.StateExpired || r.State == earmark.StateReview:
		return l.result(earmark.OutcomeExpired, r), nil
	case r.State != earmark.StateHeld:
		return l.result(earmark.OutcomeConflict, r), nil
	}
	expires := l.now().Add(ttl)
	if longest := r.CreatedAt.Add(earmark.MaxTTL); expires.After(longest) {
		expires = longest
	}
	if !expires.After(*r.ExpiresAt) {
		return l.result(earmark.OutcomeSame, r), nil
	}
	r.ExpiresAt = &expires
	reason := "expires at " + expires.Format("2006-01-02T15:04:05Z")
	if s.Reason != "" {
		reason += ": " + s.Reason
	}
	l.note("extend", r, s.Actor, reason)
	return l.result(earmark.OutcomeApplied, r), nil
}

// Inspect returns a reservation's current state.
func (l *Ledger) Inspect(_ context.Context, tenant, id string) (earmark.Result, error) {
	r := l.find(earmark.Transition{Tenant: tenant, ID: id})
	if r == nil {
		return unknown()
	}
	return l.result(earmark.OutcomeSame, r), nil
}

func (l *Ledger) applyExpiry(r *reservation, actor earmark.Actor, reason string) {
	switch r.OnExpiry {
	case earmark.OnExpiryRelease:
		l.giveBack(r, earmark.StateExpired, "expire", actor, reason)
		l.emit(earmark.EventExpired, r)
	case earmark.OnExpiryReview:
		r.State, r.Reason = earmark.StateReview, reason
		l.note("review", r, actor, reason)
		l.emit(earmark.EventReview, r)
	case earmark.OnExpiryCommit:
		for i := range r.Budgets {
			share := &r.Budgets[i]
			l.post("expire", r, *share, -share.Reserved, share.Reserved, actor, reason)
			l.settleGrants(r, *share, settlement{share.Reserved, share.Reserved, actor, r.granted})
			share.Committed = share.Reserved
		}
		r.State, r.Usage, r.Estimated, r.SettledAt, r.Reason = earmark.StateCommitted, r.Amounts, true, new(l.now()), reason
		l.emit(earmark.EventExpired, r)
	}
}

func (l *Ledger) giveBack(r *reservation, to earmark.State, kind string, actor earmark.Actor, reason string) {
	for _, share := range r.Budgets {
		l.post(kind, r, share, -share.Reserved, 0, actor, reason)
		l.settleGrants(r, share, settlement{0, share.Reserved, actor, r.granted})
	}
	r.State, r.SettledAt, r.Reason = to, new(l.now()), reason
}

func (l *Ledger) find(s earmark.Transition) *reservation {
	if r := l.reservations[s.ID]; r != nil && r.tenant == s.Tenant {
		return r
	}
	return nil
}

func unknown() (earmark.Result, error) { return earmark.Result{Outcome: earmark.OutcomeUnknown}, nil }

// lateReason returns the reason of a commit, which says that it is late if it is.
func lateReason(r *reservation, reason string) string {
	late := ""
	switch {
	case r.State == earmark.StateHeld:
		return reason
	case r.Estimated:
		late = "late, corrects an estimate"
	default:
		late = "late"
	}
	if reason == "" {
		return late
	}
	return late + ": " + reason
}

// differingUnit returns the first unit that only one of them has; "" if there is none.
func differingUnit(a, b earmark.Amounts) string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	for _, unit := range all.Units() {
		_, inA := a[unit]
		_, inB := b[unit]
		if !inA || !inB {
			return unit
		}
	}
	return ""
}

// beyond returns the usage beyond reserved; nil if there is none.
func beyond(usage, reserved earmark.Amounts) earmark.Amounts {
	var over earmark.Amounts
	for unit, used := range usage {
		if used > reserved[unit] {
			if over == nil {
				over = earmark.Amounts{}
			}
			over[unit] = used - reserved[unit]
		}
	}
	return over
}
