//go:build unix

package chaos_test

import (
	"context"
	"maps"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/stack"
)

// hold is a reservation in the model.
type hold struct {
	state  earmark.State
	amount int64
	usage  int64
}

// standing is a budget in the model. It is never changed in place.
type standing struct {
	reserved, committed int64
	holds               map[string]hold
}

// move returns the standing with one hold as given, and the sums to match.
func (s standing) move(key string, to hold) standing {
	next := standing{s.reserved, s.committed, maps.Clone(s.holds)}
	if from, ok := s.holds[key]; ok && from.state == earmark.StateHeld {
		next.reserved -= from.amount
	}
	switch to.state {
	case earmark.StateHeld:
		next.reserved += to.amount
	case earmark.StateCommitted:
		next.committed += to.usage
	default: // counts no more
	}
	next.holds[key] = to
	return next
}

// apply returns what a budget would answer, and its state after that.
func (s standing) apply(in asked) (told, standing) {
	now, exists := s.holds[in.key]
	switch in.verb {
	case verbReserve:
		if s.reserved+s.committed+in.amount > linearLimit {
			return told{}, s
		}
		return told{yes: true}, s.move(in.key, hold{state: earmark.StateHeld, amount: in.amount})
	case verbCommit:
		if exists && now.state == earmark.StateHeld {
			return told{yes: true}, s.move(in.key, hold{state: earmark.StateCommitted, usage: in.amount})
		}
		return told{yes: now.state == earmark.StateCommitted && now.usage == in.amount}, s
	case verbRelease:
		if exists && now.state == earmark.StateHeld {
			return told{yes: true}, s.move(in.key, hold{state: earmark.StateReleased})
		}
		return told{yes: now.state == earmark.StateReleased}, s
	}
	return told{reserved: s.reserved, committed: s.committed}, s
}

// budgetModel is one hard budget. A call without an answer has taken effect at some
// time, or at the end of time, when nobody looks any more.
var budgetModel = porcupine.Model{
	Init: func() any { return standing{holds: map[string]hold{}} },
	Step: func(state, input, output any) (bool, any) {
		out := output.(told)
		answer, next := state.(standing).apply(input.(asked))
		return out.unknown || out == answer, next
	},
	Equal: func(one, other any) bool {
		a, b := one.(standing), other.(standing)
		return a.reserved == b.reserved && a.committed == b.committed && maps.Equal(a.holds, b.holds)
	},
}

// served is an account that Earmark keeps.
type served struct {
	clients  []*client.Client
	budgetID string
}

func newServed(t *testing.T, servers []*stack.Server) *served {
	t.Helper()
	a := &served{}
	for _, server := range servers {
		transport := &http.Transport{MaxIdleConnsPerHost: linearClients}
		t.Cleanup(transport.CloseIdleConnections)
		api, err := client.New(server.URL, client.WithMaxAttempts(1), client.WithHTTPClient(&http.Client{Transport: transport, Timeout: callLimit}))
		require.NoError(t, err)
		a.clients = append(a.clients, api)
	}
	limit := int64(linearLimit)
	budget, err := a.any().CreateBudget(context.Background(), earmark.BudgetRequest{Scope: "linear", Unit: unitTokens, Limit: &limit})
	require.NoError(t, err)
	a.budgetID = budget.ID
	return a
}

func (a *served) any() *client.Client { return a.clients[rand.IntN(len(a.clients))] }

func (a *served) reserve(ctx context.Context, key string, amount int64) (bool, error) {
	_, err := a.any().Reserve(ctx, key, earmark.ReservationRequest{Scopes: []string{"linear"}, Amounts: earmark.Amounts{unitTokens: amount}})
	return yes(err, earmark.CodeBudgetExceeded)
}

func (a *served) commit(ctx context.Context, key string, usage int64) (bool, error) {
	settled, err := a.any().Commit(ctx, earmark.ReservationID(earmark.DefaultTenant, key), earmark.Amounts{unitTokens: usage})
	return settledYes(settled, err)
}

func (a *served) release(ctx context.Context, key string) (bool, error) {
	settled, err := a.any().Release(ctx, earmark.ReservationID(earmark.DefaultTenant, key), "")
	return settledYes(settled, err)
}

func (a *served) balance(ctx context.Context) (reserved, committed int64, err error) {
	budget, err := a.any().Budget(ctx, a.budgetID)
	if err != nil {
		return 0, 0, err
	}
	return budget.Balance.Reserved, budget.Balance.Committed, nil
}

func settledYes(settled client.Settled, err error) (bool, error) {
	if settled.Accepted {
		return false, earmark.Errorf(earmark.CodeUnavailable, "it is kept, and its outcome is not known yet")
	}
	return yes(err, earmark.CodeAlreadySettled)
}

// yes takes a refusal for a no, and any other error for an unknown outcome.
func yes(err error, no earmark.Code) (bool, error) {
	if err != nil && earmark.ErrorCode(err) == no {
		return false, nil
	}
	return err == nil, err
}

// counter is an account as most code keeps it: nothing holds between the check and
// the sum, unless it is guarded.
type counter struct {
	pool    *pgxpool.Pool
	guarded bool

	mu    sync.Mutex
	holds map[string]hold
}

// modelTime is how long the model works, between the check and the sum.
const modelTime = 10 * time.Millisecond

func (a *counter) reserve(_ context.Context, key string, amount int64) (bool, error) {
	if a.guarded {
		a.mu.Lock()
		defer a.mu.Unlock()
	}
	reserved, committed, err := a.balance(context.Background())
	if err != nil || reserved+committed+amount > linearLimit {
		return false, err
	}
	time.Sleep(modelTime)
	if err := a.add(amount, 0); err != nil {
		return false, err
	}
	if !a.guarded {
		a.mu.Lock()
		defer a.mu.Unlock()
	}
	a.holds[key] = hold{state: earmark.StateHeld, amount: amount}
	return true, nil
}

func (a *counter) commit(_ context.Context, key string, usage int64) (bool, error) {
	return a.settle(key, hold{state: earmark.StateCommitted, usage: usage})
}

func (a *counter) release(_ context.Context, key string) (bool, error) {
	return a.settle(key, hold{state: earmark.StateReleased})
}

func (a *counter) settle(key string, to hold) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.holds[key]
	if now.state != earmark.StateHeld {
		return now == to, nil
	}
	a.holds[key] = to
	return true, a.add(-now.amount, to.usage)
}

func (a *counter) add(reserved, committed int64) error {
	_, err := a.pool.Exec(context.Background(), "UPDATE usage_counter SET reserved = reserved + $1, committed = committed + $2", reserved, committed)
	return err
}

func (a *counter) balance(context.Context) (reserved, committed int64, err error) {
	err = a.pool.QueryRow(context.Background(), "SELECT reserved, committed FROM usage_counter").Scan(&reserved, &committed)
	return reserved, committed, err
}
