package ledgertest

import (
	"encoding/json"
	"math/big"
	"slices"
	"time"

	"github.com/earmark-dev/earmark"
)

// Event is an event of a reservation or a grant, or the crossing of a threshold. The fields below WindowStart are those of the
// event's data that follow from the calls alone, whatever their order.
type Event struct {
	Type          earmark.EventType `json:"type"`
	BudgetID      string            `json:"budget_id"`
	ReservationID string            `json:"reservation_id"`
	WindowStart   *time.Time        `json:"window_start"`

	State      earmark.State   `json:"state"`
	Amounts    earmark.Amounts `json:"amounts"`
	Usage      earmark.Amounts `json:"usage"`
	Overage    earmark.Amounts `json:"overage"`
	Shortfall  earmark.Amounts `json:"shortfall"`
	Rejected   bool            `json:"rejected"`
	Correction earmark.Amounts `json:"correction"`
	Reason     string          `json:"reason"`

	Limit           int64              `json:"limit"`
	Threshold       *earmark.Threshold `json:"threshold"`
	ThresholdAmount int64              `json:"threshold_amount"`
	GrantID         string             `json:"grant_id"`
	Remaining       int64              `json:"remaining"`
}

// Events returns what happened, oldest first.
func (l *Ledger) Events() []Event { return l.events }

// emit writes an event of a reservation as it is now, with what change adds.
func (l *Ledger) emit(name earmark.EventType, r *reservation, change ...func(*Event)) {
	e := Event{Type: name, ReservationID: r.ID, State: r.State, Amounts: r.Amounts, Usage: r.Usage, Reason: r.Reason}
	for _, c := range change {
		c(&e)
	}
	l.events = append(l.events, copied(e))
}

// copied returns a copy of an event that later changes of its reservation do not reach.
func copied(e Event) (c Event) {
	text, err := json.Marshal(e)
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		panic("ledgertest: " + err.Error())
	}
	return c
}

// reached is the part of a window's balance up to which its thresholds are crossed.
type reached struct{ committed, used int64 }

func (r reached) of(t earmark.Threshold) int64 {
	if t.Of == earmark.ThresholdOfUsed {
		return r.used
	}
	return r.committed
}

func (s sums) balance() reached { return reached{s.committed, s.reserved + s.committed} }

// amountOf returns the amount of a threshold under a limit, rounded up; at least 1.
func amountOf(t earmark.Threshold, limit int64) int64 {
	if t.Amount > 0 {
		return t.Amount
	}
	amount := new(big.Int).Mul(big.NewInt(limit), big.NewInt(t.Percent))
	amount.Add(amount, big.NewInt(99)).Quo(amount, big.NewInt(100))
	return max(1, amount.Int64())
}

// cross writes an event for each threshold between what a window had reached and its balance.
func (l *Ledger) cross(b *budget, start time.Time, s *sums) {
	now := s.balance()
	for _, t := range b.Thresholds {
		if amount := amountOf(t, b.Limit); s.reached.of(t) < amount && amount <= now.of(t) {
			l.crossed(b, start, t, amount)
		}
	}
	s.reached = reached{max(s.reached.committed, now.committed), max(s.reached.used, now.used)}
}

func (l *Ledger) crossed(b *budget, start time.Time, t earmark.Threshold, amount int64) {
	l.events = append(l.events, Event{Type: earmark.EventThreshold, BudgetID: b.ID, WindowStart: &start, Limit: b.Limit, Threshold: &t, ThresholdAmount: amount})
}

// moveThresholds applies a change of the limit or of the thresholds to the windows that have not ended: what is above
// the balance is crossed again, and what is not, now, unless it was crossed before. For a window that has ended it is not
// defined which thresholds are crossed afterwards.
func (l *Ledger) moveThresholds(b *budget, before earmark.Budget) {
	if b.Limit == before.Limit && slices.Equal(b.Thresholds, before.Thresholds) {
		return
	}
	for start, s := range b.windows {
		if _, end := b.window(start); end != nil && !end.After(l.now()) {
			s.stale = true
			continue
		}
		now := s.balance()
		for _, t := range b.Thresholds {
			was := slices.Contains(before.Thresholds, t) && amountOf(t, before.Limit) <= s.reached.of(t)
			if amount := amountOf(t, b.Limit); amount <= now.of(t) && !was {
				l.crossed(b, start, t, amount)
			}
		}
		s.reached = now
	}
}

// Stale reports whether a window had ended when its budget's limit or thresholds were changed.
func (l *Ledger) Stale(budgetID string, start time.Time) bool {
	s := l.budgets[budgetID].windows[start.UTC()]
	return s != nil && s.stale
}
