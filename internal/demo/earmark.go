package demo

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
)

// raceTTLSeconds is how long the hold of a dead caller stays.
const raceTTLSeconds = 60

// Audit compares the callers' counts with the ledger, over all rounds.
type Audit struct {
	Passed bool    `json:"passed"`
	Checks []Check `json:"checks"`
}

// Check is one number that must equal the callers' count.
type Check struct {
	What     string `json:"what"`
	Expected int64  `json:"expected"`
	Found    int64  `json:"found"`
}

// service is Earmark over HTTP, with the numbers found there.
type service struct {
	api     *client.Client
	scope   string
	budgets []string // ids, of the rounds

	charged   atomic.Int64 // tokens, as the callers counted
	committed int64        // tokens, by the balances
	journaled int64        // tokens, by the entries
	reserved  int64        // tokens still reserved at the end
	overspent int64        // tokens past the limit, the largest of all rounds
}

func (s *service) way() way { return way{name: Earmark, begin: s.begin} }

func (s *service) begin(ctx context.Context, round int) (account, error) {
	scope := fmt.Sprintf("%s/round-%d", s.scope, round+1)
	budget, err := s.newBudget(ctx, scope)
	if err != nil {
		return nil, err
	}
	s.budgets = append(s.budgets, budget.ID)
	return &budgeted{service: s, scope: scope, budgetID: budget.ID}, nil
}

func (s *service) newBudget(ctx context.Context, scope string) (*earmark.Budget, error) {
	limit := limitTokens
	return s.api.CreateBudget(ctx, earmark.BudgetRequest{Scope: scope, Unit: unit, Limit: &limit})
}

// budgeted is an account that Earmark manages.
type budgeted struct {
	*service
	scope    string
	budgetID string
}

func (b *budgeted) ask(ctx context.Context, caller int, decided func(bool)) error {
	reservation, err := b.api.Reserve(ctx, fmt.Sprintf("%s/caller-%d", b.scope, caller+1), earmark.ReservationRequest{
		Scopes: []string{b.scope}, Amounts: earmark.Amounts{unit: requestTokens}, TTLSeconds: raceTTLSeconds,
	})
	if client.IsDenied(err) {
		decided(false)
		return nil
	}
	if err != nil {
		return err
	}
	decided(true)
	if err := callModel(ctx); err != nil {
		return err
	}
	if err := b.commit(ctx, reservation.ID, requestTokens); err != nil {
		return err
	}
	b.charged.Add(requestTokens)
	return nil
}

// commit charges, and accepts only an answer of the ledger itself.
func (s *service) commit(ctx context.Context, id string, tokens int64) error {
	settled, err := s.api.Commit(ctx, id, earmark.Amounts{unit: tokens})
	if err == nil && settled.Accepted {
		return earmark.Errorf(earmark.CodeUnavailable, "the ledger is away; the commit of %s is kept until it is back", id)
	}
	return err
}

// end reads the balance, and finds the largest count in the journal.
func (b *budgeted) end(ctx context.Context) (outcome, error) {
	budget, err := b.api.Budget(ctx, b.budgetID)
	if err != nil {
		return outcome{}, err
	}
	entries, err := b.journal(ctx, earmark.EntryFilter{BudgetID: b.budgetID})
	if err != nil {
		return outcome{}, err
	}
	var counted, peak, committed int64
	for _, entry := range entries {
		committed += entry.CommittedDelta
		counted += entry.ReservedDelta + entry.CommittedDelta
		peak = max(peak, counted)
	}
	balance := budget.Balance
	end := balance.Reserved + balance.Committed
	peak = max(peak, end)
	b.committed += balance.Committed
	b.journaled += committed
	b.reserved += balance.Reserved
	b.overspent = max(b.overspent, peak-limitTokens)
	return outcome{peakTokens: peak, endTokens: end}, nil
}

// journal reads all entries, oldest first.
func (s *service) journal(ctx context.Context, filter earmark.EntryFilter) ([]earmark.Entry, error) {
	var entries []earmark.Entry
	filter.Limit = earmark.MaxPageSize
	for {
		page, err := s.api.Entries(ctx, filter)
		if err != nil {
			return nil, err
		}
		entries = append(entries, page.Data...)
		if page.NextCursor == "" || len(page.Data) == 0 {
			return entries, nil
		}
		filter.Cursor = page.NextCursor
	}
}

func (s *service) audit() Audit {
	charged := s.charged.Load()
	audit := Audit{Passed: true, Checks: []Check{
		{"tokens that the balances have committed", charged, s.committed},
		{"tokens that the journal has committed", charged, s.journaled},
		{"tokens still reserved", 0, s.reserved},
		{"tokens past the limit at any moment", 0, s.overspent},
	}}
	for _, check := range audit.Checks {
		audit.Passed = audit.Passed && check.Expected == check.Found
	}
	return audit
}

// archive archives the budgets of the rounds, so that runs do not fill the list of budgets.
func (s *service) archive(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	for _, id := range s.budgets {
		if _, err := s.api.ArchiveBudget(ctx, id); err != nil {
			return // the server is away: the budgets stay, which is harmless
		}
	}
}
