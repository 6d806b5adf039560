package postgres_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
)

// TestContentionMakesNoErrors runs admissions over overlapping sets of scopes, in
// orders of their own, beside settlements, expiries, sweeps, changes of limits and of
// a template, whose children are first met here and archived now and then.
// No call may fail, not by a deadlock (40P01) nor by waiting too long (55P03), the
// rules hold at every moment, and in the end nothing is left set aside.
func TestContentionMakesNoErrors(t *testing.T) {
	b := setup(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := &contention{env: b}
	for _, scope := range contendedScopes {
		c.budgets = append(c.budgets, b.budget(scope, "tokens", 3000).ID)
	}
	c.budgets = append(c.budgets, b.budget("o", "requests", 500).ID, b.budget("o/a", "tokens", 2000, func(r *earmark.BudgetRequest) {
		r.Window.Period, r.Overage = earmark.PeriodHour, earmark.OverageAllowIfAvailable
	}).ID)
	c.template = b.budget("t/*", "tokens", 3000).ID
	c.budgets = append(c.budgets, c.template)

	const clients, requestsEach = 12, 40
	busy, stop := context.WithCancel(ctx())
	var background errgroup.Group
	for i, disturb := range []func(*rand.Rand) error{c.sweepSome, c.sweepSome, c.patchSome, c.changeAChild, c.auditOnce} {
		random := rand.New(rand.NewPCG(seed, uint64(1000+i)))
		background.Go(func() error {
			for busy.Err() == nil {
				if err := disturb(random); err != nil {
					return err
				}
				time.Sleep(time.Millisecond) //nolint:forbidigo // the pace of the disturbance
			}
			return nil
		})
	}
	var group errgroup.Group
	for client := range clients {
		random := rand.New(rand.NewPCG(seed, uint64(client)))
		group.Go(func() error {
			for i := range requestsEach {
				if err := c.request(random, fmt.Sprintf("%d-%d", client, i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := group.Wait()
	stop()
	require.NoError(t, err)
	require.NoError(t, background.Wait())
	require.NoError(t, c.settleTheRest())
	require.Positive(t, c.admitted.Load())
	require.Positive(t, c.denied.Load(), "limits that are never met show nothing")
	t.Logf("%d admitted, %d denied, %d swept", c.admitted.Load(), c.denied.Load(), c.swept.Load())
	require.Positive(t, c.archived.Load())
	var reserved int64
	require.NoError(t, b.pool.QueryRow(ctx(), "SELECT sum(reserved) FROM earmark.windows").Scan(&reserved))
	require.Zero(t, reserved)
}

var contendedScopes = []string{"o", "o/a", "o/b", "o/a/u1", "o/b/u2", "p", "p/c"}

type contention struct {
	*env
	budgets                           []string
	template                          string
	left                              sync.Map // of ids, which nobody settled
	admitted, denied, swept, archived atomic.Int64
}

// request reserves on scopes in a random order and does one of all the things
// that may follow.
func (c *contention) request(random *rand.Rand, key string) error {
	scopes := append(slices.Clone(contendedScopes), childScope(random), childScope(random))
	random.Shuffle(len(scopes), func(i, j int) { scopes[i], scopes[j] = scopes[j], scopes[i] })
	amounts := tokens(1 + random.Int64N(60))
	a := admission(key, amounts, scopes[:1+random.IntN(4)]...)
	a.Request.Coverage = earmark.CoverageAnyScope // requests are counted on one of them alone
	if covers := func(scope string) bool { return scope[0] == 'o' }; random.IntN(2) == 0 && slices.ContainsFunc(a.Request.Scopes, covers) {
		amounts["requests"] = 1
	}
	result, err := c.Reserve(ctx(), a)
	if err != nil {
		return fmt.Errorf("reserve: %w", err)
	}
	switch result.Outcome {
	case earmark.OutcomeDenied:
		c.denied.Add(1)
		return nil
	case earmark.OutcomeApplied:
		c.admitted.Add(1)
		return c.settle(random, earmark.Transition{ID: a.ID, Tenant: a.Tenant, Actor: earmark.ActorWorkflow}, amounts)
	default:
		return fmt.Errorf("reserve: %s", result.Outcome)
	}
}

func (c *contention) settle(random *rand.Rand, s earmark.Transition, reserved earmark.Amounts) (err error) {
	usage := earmark.Amounts{}
	for unit, n := range reserved {
		usage[unit] = random.Int64N(2 * n)
	}
	switch random.IntN(8) {
	case 0, 1:
		_, err = c.Commit(ctx(), s, usage)
	case 2, 3:
		_, err = c.Release(ctx(), s)
	case 4:
		_, err = c.Extend(ctx(), s, time.Hour)
		c.left.Store(s.ID, nil)
	default: // a process that died: the sweeper or another admission finds it
		_, err = c.pool.Exec(ctx(), "UPDATE earmark.reservations SET expires_at = clock_timestamp() - interval '1 minute' WHERE id = $1", s.ID)
		if err == nil && random.IntN(2) == 0 {
			_, err = c.Expire(ctx(), s)
		}
		if err == nil && random.IntN(3) == 0 {
			_, err = c.Commit(ctx(), s, usage) // late, or just in time
		}
		c.left.Store(s.ID, nil)
	}
	return err
}

func (c *contention) sweepSome(random *rand.Rand) error {
	ids, err := c.Sweep(ctx(), time.Second, 1+random.IntN(20))
	c.swept.Add(int64(len(ids)))
	time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond) //nolint:forbidigo // leaves some to the admissions
	return err
}

func (c *contention) patchSome(random *rand.Rand) error {
	id := c.budgets[random.IntN(len(c.budgets))]
	_, err := c.PatchBudget(ctx(), earmark.DefaultTenant, id, earmark.BudgetPatch{Limit: new(200 + random.Int64N(3000))}, earmark.ActorAPI)
	return err
}

func childScope(random *rand.Rand) string { return fmt.Sprintf("t/%d", random.IntN(20)) }

// changeAChild archives a child, or changes it by hand, or lets it follow again.
func (c *contention) changeAChild(random *rand.Rand) error {
	page, err := c.Budgets(ctx(), earmark.DefaultTenant, earmark.BudgetFilter{TemplateID: c.template})
	if err != nil || len(page.Data) == 0 {
		return err
	}
	child := page.Data[random.IntN(len(page.Data))]
	switch random.IntN(3) {
	case 0:
		_, err = c.ArchiveBudget(ctx(), earmark.DefaultTenant, child.ID, earmark.ActorAPI)
		c.archived.Add(1)
	case 1:
		_, err = c.PatchBudget(ctx(), earmark.DefaultTenant, child.ID, earmark.BudgetPatch{Limit: new(random.Int64N(3000))}, earmark.ActorAPI)
	default:
		_, err = c.PatchBudget(ctx(), earmark.DefaultTenant, child.ID, earmark.BudgetPatch{FollowsTemplate: new(true)}, earmark.ActorAPI)
	}
	return err
}

func (c *contention) auditOnce(*rand.Rand) error {
	report, err := c.CheckRules(ctx())
	if mismatches := report.Mismatches(); len(mismatches) > 0 {
		return fmt.Errorf("audit: %v", mismatches)
	}
	time.Sleep(20 * time.Millisecond) //nolint:forbidigo // the pace of the disturbance
	return err
}

func (c *contention) settleTheRest() (err error) {
	c.left.Range(func(id, _ any) bool {
		_, err = c.Release(ctx(), earmark.Transition{ID: id.(string), Tenant: earmark.DefaultTenant, Actor: earmark.OperatorActor("alice")})
		return err == nil
	})
	return err
}

// TestPatchedLimitHoldsForAdmissionsThatBeginAfterIt reads from the journal which
// limit each admission was held against: never one that had been replaced before
// the admission was asked for.
func TestPatchedLimitHoldsForAdmissionsThatBeginAfterIt(t *testing.T) {
	b := setup(t)
	const patches, clients = 60, 8
	limitOf := func(patch int64) int64 { return 1000 + patch*17%500 } // each another one
	budget := b.budget("acme", "tokens", limitOf(0))
	patchOf := map[int64]int64{}
	for patch := range int64(patches + 1) {
		patchOf[limitOf(patch)] = patch
	}
	require.Len(t, patchOf, patches+1)

	type admitted struct {
		id            string
		patchedBefore int64 // the last patch that had returned when the admission was asked for
	}
	var patched atomic.Int64
	var all [clients][]admitted
	var group errgroup.Group
	for client := range clients {
		group.Go(func() error {
			for i := 0; patched.Load() < patches; i++ {
				before := patched.Load()
				a := admission(fmt.Sprintf("%d-%d", client, i), tokens(400), "acme")
				result, err := b.Reserve(ctx(), a)
				if err != nil {
					return err
				}
				if result.Outcome != earmark.OutcomeApplied {
					continue
				}
				all[client] = append(all[client], admitted{a.ID, before})
				if _, err := b.Release(ctx(), earmark.Transition{ID: a.ID, Tenant: a.Tenant, Actor: earmark.ActorWorkflow}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for patch := int64(1); patch <= patches; patch++ {
		_, err := b.PatchBudget(ctx(), earmark.DefaultTenant, budget.ID, earmark.BudgetPatch{Limit: new(limitOf(patch))}, earmark.ActorAPI)
		require.NoError(t, err)
		patched.Store(patch)
	}
	require.NoError(t, group.Wait())
	checked := 0
	for _, a := range slices.Concat(all[:]...) {
		var ceiling, after int64
		const sql = "SELECT ceiling, reserved_after + committed_after FROM earmark.entries WHERE reservation_id = $1 AND kind = 'reserve'"
		require.NoError(t, b.pool.QueryRow(ctx(), sql, a.id).Scan(&ceiling, &after))
		require.GreaterOrEqual(t, patchOf[ceiling], a.patchedBefore, "held against a limit that had been replaced")
		require.LessOrEqual(t, after, ceiling)
		checked++
	}
	require.Positive(t, checked)
}

// TestOneKeyWithManyBodiesHoldsOnce asks for different amounts on different
// budgets, charges, and releases first, all at once and all with one key.
func TestOneKeyWithManyBodiesHoldsOnce(t *testing.T) {
	b := setup(t)
	const budgets, rounds = 4, 10
	for i := range budgets {
		b.budget(fmt.Sprintf("s%d", i), "tokens", 1_000_000)
	}
	for round := range rounds {
		key := fmt.Sprintf("round %d", round)
		var calls []func() (earmark.Result, error)
		for attempt := range 6 {
			a := admission(key, tokens(int64(100+attempt)), fmt.Sprintf("s%d", attempt%budgets), fmt.Sprintf("s%d", (attempt+1)%budgets))
			calls = append(calls, func() (earmark.Result, error) { return b.Reserve(ctx(), a) })
		}
		calls = append(calls, func() (earmark.Result, error) {
			a := admission(key, tokens(7), "s0")
			a.Released = true
			return b.Reserve(ctx(), a)
		}, func() (earmark.Result, error) {
			usage := earmark.UsageRequest{Scopes: []string{"s1"}, Amounts: tokens(9)}
			charge := earmark.Charge{ID: earmark.ReservationID(earmark.DefaultTenant, key), Tenant: earmark.DefaultTenant, Request: usage, RequestHash: usage.Hash(), Actor: earmark.ActorAPI}
			return b.Charge(ctx(), charge)
		})
		won := 0
		for _, result := range atOnce(t, calls...) {
			if result.Outcome != earmark.OutcomeMismatch {
				require.Contains(t, []earmark.Outcome{earmark.OutcomeApplied, earmark.OutcomeReleased}, result.Outcome)
				won++
			}
		}
		require.Equal(t, 1, won)
	}
}

// TestSettledOnceByMany lets commits and releases of one reservation meet: one is
// applied, and the others see what stands.
func TestSettledOnceByMany(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	b.budget("acme/ml", "tokens", 1000)
	for round := range 10 {
		s := b.held(admission(fmt.Sprint(round), tokens(50), "acme/ml"))
		var calls []func() (earmark.Result, error)
		for i := range 4 {
			calls = append(calls,
				func() (earmark.Result, error) { return b.Commit(ctx(), s, tokens(int64(10*(i/2)))) },
				func() (earmark.Result, error) { return b.Release(ctx(), s) })
		}
		states, applied := map[earmark.State]bool{}, 0
		for _, result := range atOnce(t, calls...) {
			states[result.Reservation.State] = true
			if result.Outcome == earmark.OutcomeApplied {
				applied++
			} else {
				require.Contains(t, []earmark.Outcome{earmark.OutcomeSame, earmark.OutcomeConflict}, result.Outcome)
			}
		}
		require.Equal(t, 1, applied)
		require.Len(t, states, 1)
	}
}
