package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/ctxtime"
	"github.com/earmark-dev/earmark/internal/postgres"
)

// The seed's strategies to keep a limit, at the ledger: what an application would
// write by hand, and ours. The others keep no reservations, leases or keys, so the
// ledger does more work for its result; what it saves is round trips, above all
// those under a lock. Hence the runs with a network between.

const (
	strategyClients = 16
	burstFitting    = 20 // requests that fit into the budget of a burst
	burstRequests   = 4 * burstFitting
	burstWork       = 5 * time.Millisecond // between the admission and the settlement of each
	networkDelay    = time.Millisecond     // added to every answer of Postgres
)

// strategy admits a request to one of the budgets, lets its caller work, and settles
// it.
type strategy struct {
	key     string
	title   string
	request func(ctx context.Context, budget int, work func()) error
}

// idle is no work at all: throughput is that of the ledger.
func idle() {}

var errNoBudgetLeft = errors.New("the budget is spent")

// strategies compares them on one hot budget and on many, near and far.
func (r *run) strategies(ctx context.Context) error {
	d := r.deployments[ledgerName]
	if err := prepareByHand(ctx, d.pool); err != nil {
		return err
	}
	far, stop, err := distant(ctx, d.databaseURL)
	if err != nil {
		return err
	}
	defer stop()
	near, err := strategyPool(ctx, d.databaseURL)
	if err != nil {
		return err
	}
	defer near.Close()
	for _, place := range []struct {
		key, title string
		pool       *pgxpool.Pool
	}{{"loopback", "loopback", near}, {"network", fmt.Sprintf("Postgres %d ms away", networkDelay.Milliseconds()), far}} {
		for _, budgets := range []int{1, manyBudgets} {
			r.say("  %s, %s", plural(budgets, "budget"), place.title)
			key := fmt.Sprintf("strategies.%s.%d", place.key, budgets)
			if err := r.compareStrategies(ctx, key, place.pool, budgets); err != nil {
				return err
			}
			r.strategyTable(key, fmt.Sprintf("%s, %s", plural(budgets, "budget"), place.title))
		}
	}
	return nil
}

func plural(n int, what string) string {
	if n == 1 {
		return "one hot " + what
	}
	return fmt.Sprintf("%s %ss", earmark.FormatAmount(int64(n)), what)
}

func strategiesOn(pool *pgxpool.Pool) []strategy {
	hand := byHand{pool: pool}
	return []strategy{
		{"unsafe", "unsafe: check, then increment", hand.unsafe},
		{"optimistic", "optimistic: rollback and again", hand.optimistic},
		{"pessimistic", "pessimistic: SELECT … FOR UPDATE", hand.pessimistic},
		{"ours", "ours: one call a transition", (&ours{postgres.New(pool), handScope}).request},
		{"roots", "ours, each customer under a root of its own", (&ours{postgres.New(pool), rootScope}).request},
	}
}

func (r *run) compareStrategies(ctx context.Context, key string, pool *pgxpool.Pool, budgets int) error {
	const share = 4 // of a way's duration: there are many combinations
	all := strategiesOn(pool)
	f := &r.report.figures
	for round := range r.Rounds + 1 {
		for _, s := range all {
			requests, err := s.forAWhile(ctx, r.Duration/share, budgets)
			if err != nil {
				return fmt.Errorf("%s: %w", s.title, err)
			}
			if round == 0 { // to warm up
				continue
			}
			f.add(key+"."+s.key+".requests_per_second", "1/s", float64(len(requests.took))/requests.elapsed.Seconds())
			f.add(key+"."+s.key+".p99_ms", "ms", quantileMS(requests.took, 0.99))
			over, err := s.burst(ctx, pool)
			if err != nil {
				return fmt.Errorf("%s: %w", s.title, err)
			}
			f.add(key+"."+s.key+".overshoot", "requests", float64(over))
		}
	}
	for _, s := range all {
		f.ratio(key+".ours_per_"+s.key, key+".ours.requests_per_second", key+"."+s.key+".requests_per_second")
	}
	return nil
}

type requests struct {
	took    []time.Duration // sorted
	elapsed time.Duration
}

// forAWhile lets the clients make requests on random budgets.
func (s strategy) forAWhile(ctx context.Context, duration time.Duration, budgets int) (requests, error) {
	ctx, cancel := context.WithTimeout(ctx, duration+overtime)
	defer cancel()
	took := make([][]time.Duration, strategyClients)
	begun := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for client := range strategyClients {
		group.Go(func() error {
			for time.Since(begun) < duration {
				asked := time.Now()
				if err := s.request(ctx, 1+rand.IntN(budgets), idle); err != nil { //nolint:gosec // no secret
					return err
				}
				took[client] = append(took[client], time.Since(asked))
			}
			return nil
		})
	}
	err := group.Wait()
	all := slices.Concat(took...)
	slices.Sort(all)
	return requests{took: all, elapsed: time.Since(begun)}, err
}

// burst lets the clients race for a small budget, and returns how many requests got
// past its limit.
func (s strategy) burst(ctx context.Context, pool *pgxpool.Pool) (over int64, err error) {
	if err := resetBurst(ctx, pool); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, overtime)
	defer cancel()
	var admitted, taken atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range strategyClients {
		group.Go(func() error {
			for taken.Add(1) <= burstRequests {
				err := s.request(ctx, burstBudget, func() { ctxtime.Sleep(ctx, burstWork) })
				switch {
				case err == nil:
					admitted.Add(1)
				case !errors.Is(err, errNoBudgetLeft):
					return err
				}
			}
			return nil
		})
	}
	err = group.Wait()
	return max(0, admitted.Load()-burstFitting), err
}

func (r *run) strategyTable(key, where string) {
	f := &r.report.figures
	table := Table{Title: fmt.Sprintf("Reserve and commit at the ledger, %d clients: %s", strategyClients, where),
		Columns: []string{"strategy", "requests/s", "p99, ms", "overshoot of a burst", "ours is × this"}}
	for _, s := range strategiesOn(nil) {
		ratio := ""
		if s.key != "ours" {
			ratio = f.text(key + ".ours_per_" + s.key)
		}
		k := key + "." + s.key
		table.row(s.title, f.text(k+".requests_per_second"), f.text(k+".p99_ms"), f.text(k+".overshoot"), ratio)
	}
	table.Notes = []string{fmt.Sprintf("Overshoot: requests past the limit when %d clients race for %d places, each working %s between admission and settlement.", strategyClients, burstFitting, burstWork)}
	r.report.Tables = append(r.report.Tables, table)
}

func strategyPool(ctx context.Context, databaseURL string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return nil, err
	}
	config.MaxConns = strategyClients
	return pgxpool.NewWithConfig(ctx, config)
}

// distant is a pool on the same database with a network between.
func distant(ctx context.Context, databaseURL string) (pool *pgxpool.Pool, stop func(), err error) {
	u, err := url.Parse(databaseURL)
	if err != nil {
		return nil, nil, err
	}
	proxy := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.New(io.Discard)), "postgres", "127.0.0.1:0", address(u))
	if err := proxy.Start(); err != nil {
		return nil, nil, fmt.Errorf("start a proxy: %w", err)
	}
	toxic := fmt.Sprintf(`{"type": "latency", "stream": "downstream", "attributes": {"latency": %d}}`, networkDelay.Milliseconds())
	if _, err := proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
		proxy.Stop()
		return nil, nil, fmt.Errorf("delay the proxy: %w", err)
	}
	u.Host = proxy.Listen
	if pool, err = strategyPool(ctx, u.String()); err != nil {
		proxy.Stop()
		return nil, nil, err
	}
	return pool, func() { pool.Close(); proxy.Stop() }, nil
}

func address(u *url.URL) string {
	if u.Port() == "" {
		const postgresPort = 5432
		return net.JoinHostPort(u.Hostname(), strconv.Itoa(postgresPort))
	}
	return u.Host
}

// ours reserves and commits through the ledger.
type ours struct {
	*postgres.Ledger
	scope func(budget int) string
}

func (o *ours) request(ctx context.Context, budget int, work func()) error {
	asked := request(o.scope(budget), unitAmount)
	a := earmark.Admission{ID: earmark.NewReservationID(), Tenant: earmark.DefaultTenant, Request: asked, RequestHash: "hash"}
	result, err := o.Reserve(ctx, a)
	switch {
	case err != nil:
		return err
	case result.Outcome == earmark.OutcomeDenied:
		return errNoBudgetLeft
	case result.Outcome != earmark.OutcomeApplied:
		return fmt.Errorf("reserve: %s", result.Outcome)
	}
	work()
	result, err = o.Commit(ctx, earmark.Transition{ID: a.ID, Tenant: a.Tenant, Actor: earmark.ActorWorkflow}, earmark.Amounts{unit: unitAmount})
	if err == nil && result.Outcome != earmark.OutcomeApplied {
		err = fmt.Errorf("commit: %s", result.Outcome)
	}
	return err
}

// handScope has all customers under one root, which has no budget, and rootScope each under its own.
func handScope(budget int) string { return fmt.Sprintf("hand/b%d", budget) }

func rootScope(budget int) string { return fmt.Sprintf("root%d/b", budget) }
