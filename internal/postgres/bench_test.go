package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/postgres/postgrestest"
)

const (
	benchClients  = 16
	benchRequests = 160 // of each strategy in a round
	benchAmount   = 10
	benchFitting  = 20 // requests that fit into the budget of a burst
)

// BenchmarkAdmission compares the ledger's reserve and commit with what an
// application would write by hand. The strategies take turns, so that noise hits
// them alike, and the ratios of their rates are the result: 2 "ours/x" is twice
// the requests a second of x. Overshoot is the requests that a burst on a small
// budget got past its limit, on average. The others keep no reservations, leases
// or keys, so the ledger does more work for its result; what it saves is round
// trips, above all those under a lock. Hence the runs with a network between.
func BenchmarkAdmission(b *testing.B) {
	for _, budgets := range []int{1, 1000} {
		for _, roundTrip := range []time.Duration{0, time.Millisecond} {
			name := fmt.Sprintf("budgets=%d/network=%s", budgets, roundTrip)
			b.Run(name, func(b *testing.B) { benchAdmission(b, distantPool(b, roundTrip), budgets) })
		}
	}
}

// distantPool is a pool whose every round trip takes that much longer.
func distantPool(b *testing.B, roundTrip time.Duration) *pgxpool.Pool {
	config := postgrestest.Pool(b, stack.PostgresURL()).Config()
	dial := config.ConnConfig.DialFunc
	config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return distantConn{conn, roundTrip}, err
	}
	pool, err := pgxpool.NewWithConfig(b.Context(), config)
	require.NoError(b, err)
	b.Cleanup(pool.Close)
	return pool
}

type distantConn struct {
	net.Conn
	roundTrip time.Duration
}

// Write sends what pgx then waits for an answer to: it flushes once a round trip.
func (c distantConn) Write(request []byte) (int, error) {
	time.Sleep(c.roundTrip)
	return c.Conn.Write(request)
}

// strategy admits a request to one of the budgets and settles it.
type strategy struct {
	name    string
	request func(ctx context.Context, budget int) error

	took       time.Duration
	overshoots int64
}

var errNoBudgetLeft = errors.New("the budget is spent")

func benchAdmission(b *testing.B, pool *pgxpool.Pool, budgets int) {
	hand := byHand{pool: pool}
	strategies := []*strategy{
		{name: "ours", request: (&ours{Ledger: postgres.New(pool)}).request},
		{name: "pessimistic", request: hand.pessimistic},
		{name: "optimistic", request: hand.optimistic},
		{name: "unsafe", request: hand.unsafe},
	}
	hand.prepare(b, budgets)
	rounds := 0
	for b.Loop() {
		rounds++
		for _, s := range strategies {
			began := time.Now()
			require.NoError(b, inParallel(benchRequests, func() error { return s.request(b.Context(), 1+rand.IntN(budgets)) }))
			s.took += time.Since(began)
		}
		for _, s := range strategies {
			hand.resetBurst(b)
			var admitted atomic.Int64
			require.NoError(b, inParallel(4*benchFitting, func() error {
				err := s.request(b.Context(), burstBudget)
				if err == nil {
					admitted.Add(1)
				}
				if errors.Is(err, errNoBudgetLeft) {
					return nil
				}
				return err
			}))
			s.overshoots += max(0, admitted.Load()-benchFitting)
		}
	}
	b.ReportMetric(0, "ns/op") // of a round, which nobody wants to know
	b.ReportMetric(float64(rounds*benchRequests)/strategies[0].took.Seconds(), "ours-requests/s")
	for _, s := range strategies {
		if s.name != "ours" {
			b.ReportMetric(float64(s.took)/float64(strategies[0].took), "ours/"+s.name)
		}
		b.ReportMetric(float64(s.overshoots)/float64(rounds), s.name+"-overshoot")
	}
}

func inParallel(times int64, f func() error) error {
	var group errgroup.Group
	var taken atomic.Int64
	for range benchClients {
		group.Go(func() error {
			for taken.Add(1) <= times {
				if err := f(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// burstBudget is small, and empty again before each burst.
const burstBudget = 0

// ours reserves and commits through the ledger.
type ours struct {
	*postgres.Ledger
	keys atomic.Int64
}

func (o *ours) request(ctx context.Context, budget int) error {
	a := admission(fmt.Sprint(o.keys.Add(1)), tokens(benchAmount), fmt.Sprintf("b%d", budget))
	result, err := o.Reserve(ctx, a)
	if err != nil {
		return err
	}
	if result.Outcome == earmark.OutcomeDenied {
		return errNoBudgetLeft
	}
	_, err = o.Commit(ctx, earmark.Settlement{ID: a.ID, Tenant: a.Tenant, Actor: earmark.ActorWorkflow}, tokens(benchAmount))
	return err
}

// byHand is what applications do on a table of their own.
type byHand struct{ pool *pgxpool.Pool }

func (h byHand) prepare(b *testing.B, budgets int) {
	for _, sql := range []string{
		`CREATE SCHEMA hand`,
		`CREATE TABLE hand.budgets (id bigint PRIMARY KEY, limit_amount bigint NOT NULL, reserved bigint NOT NULL DEFAULT 0, committed bigint NOT NULL DEFAULT 0, version bigint NOT NULL DEFAULT 0) WITH (fillfactor = 50)`,
		`CREATE TABLE hand.log (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, budget_id bigint NOT NULL, reserved bigint NOT NULL, committed bigint NOT NULL)`,
		fmt.Sprintf(`INSERT INTO hand.budgets (id, limit_amount) SELECT n, 1000000000 FROM generate_series(0, %d) AS n`, budgets),
		fmt.Sprintf(`INSERT INTO earmark.budgets (id, tenant, scope, unit, limit_amount, period, timezone, enforcement, overage)
			SELECT 'bud_' || n, 'default', 'b' || n, 'tokens', 1000000000, 'lifetime', 'UTC', 'hard', 'allow_with_overdraft' FROM generate_series(0, %d) AS n`, budgets),
		fmt.Sprintf(`UPDATE hand.budgets SET limit_amount = %d WHERE id = %d`, benchFitting*benchAmount, burstBudget),
		`ANALYZE`,
	} {
		_, err := h.pool.Exec(b.Context(), sql)
		require.NoError(b, err)
	}
}

// resetBurst gives the burst's budgets room for benchFitting more requests.
func (h byHand) resetBurst(b *testing.B) {
	for _, sql := range []string{
		fmt.Sprintf(`UPDATE hand.budgets SET reserved = 0, committed = 0 WHERE id = %d`, burstBudget),
		fmt.Sprintf(`UPDATE earmark.budgets SET limit_amount = %d + coalesce((SELECT reserved + committed FROM earmark.windows WHERE budget_id = 'bud_%[2]d'), 0) WHERE id = 'bud_%[2]d'`,
			benchFitting*benchAmount, burstBudget),
	} {
		_, err := h.pool.Exec(b.Context(), sql)
		require.NoError(b, err)
	}
}

const (
	logSQL       = "INSERT INTO hand.log (budget_id, reserved, committed) VALUES ($1, $2, $3)"
	changeSQL    = "UPDATE hand.budgets SET reserved = reserved + $2, committed = committed + $3, version = version + 1 WHERE id = $1"
	freeSQL      = "SELECT limit_amount - reserved - committed, version FROM hand.budgets WHERE id = $1"
	changeIfSQL  = changeSQL + " AND version = $4"
	lockedSQL    = freeSQL + " FOR UPDATE"
	mostAttempts = 10_000
)

// pessimistic locks the budget's row in a transaction of the application, twice.
func (h byHand) pessimistic(ctx context.Context, budget int) error {
	change := func(reserved, committed int64) error {
		return pgx.BeginFunc(ctx, h.pool, func(tx pgx.Tx) error {
			var free, version int64
			if err := tx.QueryRow(ctx, lockedSQL, budget).Scan(&free, &version); err != nil {
				return err
			}
			if reserved > free {
				return errNoBudgetLeft
			}
			if _, err := tx.Exec(ctx, changeSQL, budget, reserved, committed); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, logSQL, budget, reserved, committed)
			return err
		})
	}
	if err := change(benchAmount, 0); err != nil {
		return err
	}
	return change(-benchAmount, benchAmount)
}

var errChanged = errors.New("another was faster")

// optimistic reads without a lock, and rolls back and begins again when the row
// has changed since.
func (h byHand) optimistic(ctx context.Context, budget int) error {
	change := func(reserved, committed int64) error {
		return pgx.BeginFunc(ctx, h.pool, func(tx pgx.Tx) error {
			var free, version int64
			if err := tx.QueryRow(ctx, freeSQL, budget).Scan(&free, &version); err != nil {
				return err
			}
			if reserved > free {
				return errNoBudgetLeft
			}
			if _, err := tx.Exec(ctx, logSQL, budget, reserved, committed); err != nil {
				return err
			}
			changed, err := tx.Exec(ctx, changeIfSQL, budget, reserved, committed, version)
			if err == nil && changed.RowsAffected() == 0 {
				return errChanged
			}
			return err
		})
	}
	untilUnchanged := func(reserved, committed int64) (err error) {
		for range mostAttempts {
			if err = change(reserved, committed); !errors.Is(err, errChanged) {
				return err
			}
		}
		return err
	}
	if err := untilUnchanged(benchAmount, 0); err != nil {
		return err
	}
	return untilUnchanged(-benchAmount, benchAmount)
}

// unsafe checks, and adds up afterwards what was used.
func (h byHand) unsafe(ctx context.Context, budget int) error {
	var free, version int64
	if err := h.pool.QueryRow(ctx, freeSQL, budget).Scan(&free, &version); err != nil {
		return err
	}
	if benchAmount > free {
		return errNoBudgetLeft
	}
	_, err := h.pool.Exec(ctx, changeSQL, budget, 0, benchAmount)
	return err
}
