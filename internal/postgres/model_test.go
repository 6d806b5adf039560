package postgres_test

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/ledgertest"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/postgres/postgrestest"
)

// The default run is short; -rapid.checks=1000 on the command line looks longer.
func init() {
	for name, value := range map[string]string{"rapid.checks": "40", "rapid.steps": "60"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
}

// oracle is what the ledger on Postgres and the model have in common.
type oracle interface {
	CreateBudget(ctx context.Context, tenant string, r earmark.BudgetRequest, by earmark.Actor) (*earmark.Budget, error)
	PatchBudget(ctx context.Context, tenant, id string, patch earmark.BudgetPatch, by earmark.Actor) (*earmark.Budget, error)
	ArchiveBudget(ctx context.Context, tenant, id string, by earmark.Actor) (*earmark.Budget, error)
	CreateOverride(ctx context.Context, tenant, budgetID, key string, r earmark.OverrideRequest, by earmark.Actor) (*earmark.Override, error)
	ResetBudget(ctx context.Context, tenant, budgetID, key string, r earmark.ReasonRequest, by earmark.Actor) (*earmark.Override, error)
	EndOverride(ctx context.Context, tenant, budgetID, id string, by earmark.Actor, reason string) (*earmark.Override, error)
	Overrides(ctx context.Context, tenant, budgetID string, f earmark.PageFilter) (earmark.Page[earmark.Override], error)
	CreateGrant(ctx context.Context, tenant, budgetID, key string, r earmark.GrantRequest, by earmark.Actor) (*earmark.Grant, error)
	VoidGrant(ctx context.Context, tenant, budgetID, id string, by earmark.Actor, reason string) (*earmark.Grant, error)
	Grants(ctx context.Context, tenant, budgetID string, f earmark.PageFilter) (earmark.Page[earmark.Grant], error)
	NoteGrants(ctx context.Context, limit int) (int, error)
	Budget(ctx context.Context, tenant, id string) (*earmark.Budget, error)
	Budgets(ctx context.Context, tenant string, f earmark.BudgetFilter) (earmark.Page[earmark.Budget], error)
	Preflight(ctx context.Context, a earmark.Admission) (earmark.Preflight, error)
	Decide(ctx context.Context, tenant string, request earmark.ReservationRequest) (earmark.Result, error)
	CountedUnits(ctx context.Context, tenant, id, hash string, scopes []string) (earmark.Counted, error)
	Reserve(ctx context.Context, a earmark.Admission) (earmark.Result, error)
	Commit(ctx context.Context, s earmark.Transition, usage earmark.Amounts) (earmark.Result, error)
	Release(ctx context.Context, s earmark.Transition) (earmark.Result, error)
	GiveBack(ctx context.Context, s earmark.Transition) (earmark.Result, error)
	Expire(ctx context.Context, s earmark.Transition) (earmark.Result, error)
	Extend(ctx context.Context, s earmark.Transition, ttl time.Duration) (earmark.Result, error)
	Charge(ctx context.Context, c earmark.Charge) (earmark.Result, error)
	Correct(ctx context.Context, c earmark.Correction) (earmark.Result, error)
	Inspect(ctx context.Context, tenant, id string) (earmark.Result, error)
	Sweep(ctx context.Context, grace time.Duration, limit int) ([]string, error)
	Reservations(ctx context.Context, tenant string, f earmark.ReservationFilter) (earmark.Page[earmark.Reservation], error)
	Entries(ctx context.Context, tenant string, f earmark.EntryFilter) (earmark.Page[earmark.Entry], error)
}

var (
	_ oracle = (*postgres.Ledger)(nil)
	_ oracle = (*ledgertest.Ledger)(nil)
)

// forget empties the database between two runs of a property. The journal refuses
// that as long as its trigger stands.
const forget = `
ALTER TABLE earmark.entries DISABLE TRIGGER entries_append_only;
TRUNCATE earmark.events, earmark.denials, earmark.entries, earmark.corrections, earmark.reservation_budgets, earmark.reservations, earmark.windows, earmark.overrides, earmark.grants, earmark.reservation_grants, earmark.template_revisions, earmark.budgets,
    earmark.usage_rollups;
ALTER TABLE earmark.entries ENABLE ALWAYS TRIGGER entries_append_only`

// timedPool is a pool on a database whose clock stands still until setClock.
func timedPool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	url := postgrestest.URL(t, stack.PostgresURL())
	conn, err := pgx.Connect(ctx(), url)
	require.NoError(t, err)
	_, err = conn.Exec(ctx(), ledgertest.VirtualClock+ledgertest.ReplaceClock("test"))
	require.NoError(t, err)
	require.NoError(t, conn.Close(ctx()))
	pool, err := postgres.Open(ctx(), url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func setClock(t require.TestingT, pool *pgxpool.Pool, at time.Time) {
	_, err := pool.Exec(ctx(), "UPDATE test.clock SET at = $1", at)
	require.NoError(t, err)
}

// TestLedgerDoesAsTheModel makes random calls and lets random time pass, on
// Postgres and in memory side by side, and compares after each step what the call
// answered, every balance, every reservation and the journal; and the audit finds
// nothing. A failure prints its seed.
func TestLedgerDoesAsTheModel(t *testing.T) {
	t.Parallel()
	pool := timedPool(t)
	rapid.Check(t, func(rt *rapid.T) {
		_, err := pool.Exec(ctx(), forget)
		require.NoError(rt, err)
		m := newMachine(rt, pool)
		rt.Repeat(map[string]func(*rapid.T){
			"":              m.compare,
			"create budget": m.createBudget,
			"patch budget":  m.patchBudget,
			"raise":         m.raiseBudget,
			"archive":       m.archiveBudget,
			"override":      m.override,
			"end override":  m.endOverride,
			"grant":         m.grant,
			"grant more":    m.grant,
			"void":          m.voidGrant,
			"note grants":   m.noteGrants,
			"reserve":       m.reserve,
			"reserve again": m.reserve, // the more often it is named, the more often it is done
			"reserve more":  m.reserve,
			"commit":        m.commit,
			"commit more":   m.commit,
			"release":       m.release,
			"give back":     m.giveBack,
			"expire":        m.expire,
			"extend":        m.extend,
			"charge":        m.charge,
			"correct":       m.correct,
			"correct again": m.correct,
			"sweep":         m.sweep,
			"look":          m.look,
			"reconcile":     m.reconcile,
			"time passes":   m.timePasses,
			"time goes on":  m.timePasses,
			"prune":         m.prune,
			"roll up usage": m.rollUp,
			"other tzdata":  m.otherTimeZoneData,
		})
	})
}

// Small domains, so that calls meet: the same keys again, the same few budgets,
// and amounts at the edges of what fits.
var (
	modelScopes    = []string{"a", "a/b", "a/b/c", "ab"}
	modelTemplates = []string{"*", "a/*", "a/b/*"}
	modelUnits     = []string{"tokens", "usd_micros"}
	modelKeys      = []string{"k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9"}
	modelLimits    = []int64{100, 100, 100, 100, 10, 10, 10, 1, 0, math.MaxInt64 - 1, math.MaxInt64}
	modelTTLs      = []int64{1, 60, 300, 3600, 86400, 604800}
	modelActors    = []earmark.Actor{earmark.ActorWorkflow, earmark.ActorAPI, earmark.OperatorActor("alice")}
	modelZones     = []string{"UTC", "Europe/Berlin", "Atlantic/Azores", "America/Havana", "America/Sao_Paulo", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia"}
	// Each begins shortly before a change of clocks in one of the zones.
	modelBeginnings = []string{
		"2011-12-29T20:00:00Z", "2017-10-15T02:30:00Z", "2018-02-18T01:30:00Z", "2023-12-31T21:30:00Z", "2024-03-10T04:30:00Z",
		"2024-03-31T00:30:00Z", "2024-04-06T14:30:00Z", "2024-10-05T15:00:00Z", "2024-10-26T23:30:00Z", "2024-10-27T00:30:00Z", "2024-11-03T04:30:00Z",
	}
)

// machine runs the two ledgers side by side.
type machine struct {
	pool     *pgxpool.Pool
	postgres *postgres.Ledger
	model    *ledgertest.Ledger
	now      time.Time
	budgets  []string // ids, archived ones too
	fresh    int      // keys that were drawn to be used once
	entries  int      // that were compared by now
	events   int      // the same, of the model
	event    int64    // the last one on Postgres
	again    map[string]bool
}

func newMachine(t *rapid.T, pool *pgxpool.Pool) *machine {
	m := &machine{pool: pool, postgres: postgres.New(pool), again: map[string]bool{}}
	m.model = ledgertest.New(func() time.Time { return m.now })
	beginning, err := time.Parse(time.RFC3339, rapid.SampledFrom(modelBeginnings).Draw(t, "beginning"))
	require.NoError(t, err)
	m.advanceTo(t, beginning)
	for range rapid.IntRange(1, 4).Draw(t, "budgets") {
		m.createBudget(t)
	}
	return m
}

func (m *machine) advanceTo(t *rapid.T, at time.Time) {
	if at.After(m.now) {
		m.now = at
		setClock(t, m.pool, at)
	}
}

// both makes one call on both ledgers and compares the answers.
func both[T any](t *rapid.T, m *machine, call func(oracle) (T, error)) T {
	t.Helper()
	got, gotErr := call(m.postgres)
	want, wantErr := call(m.model)
	require.Equal(t, refusal(t, wantErr), refusal(t, gotErr))
	require.Equal(t, asJSON(t, want), asJSON(t, got))
	return got
}

// refusal is an error's code and field; an outage or a bug fails the test.
func refusal(t *rapid.T, err error) [2]string {
	if err == nil {
		return [2]string{}
	}
	var known *earmark.Error
	require.ErrorAs(t, err, &known)
	require.NotContains(t, []earmark.Code{earmark.CodeUnavailable, earmark.CodeInternal}, known.Code, "%v", err)
	return [2]string{string(known.Code), known.Field}
}

func asJSON(t require.TestingT, value any) string {
	document, err := json.MarshalIndent(value, "", "  ")
	require.NoError(t, err)
	return string(document)
}

func (m *machine) createBudget(t *rapid.T) {
	r := earmark.BudgetRequest{
		Scope: rapid.SampledFrom(append(modelScopes[:3:3], modelTemplates...)).Draw(t, "scope"), Unit: drawUnit(t),
		Limit: new(rapid.SampledFrom(modelLimits).Draw(t, "limit")),
		Window: earmark.Window{
			Period:   rapid.SampledFrom(earmark.Periods).Draw(t, "period"),
			Timezone: rapid.SampledFrom(modelZones).Draw(t, "zone"), Every: 1,
		},
		Enforcement: drawEnforcement(t), Overage: drawOverage(t), Allowance: earmark.AllowanceFirst,
	}
	if r.Window.Period != earmark.PeriodRolling {
		r.Allowance = drawAllowance(t)
	}
	switch r.Window.Period {
	case earmark.PeriodLifetime:
	case earmark.PeriodRolling:
		r.Window.RollingSeconds = rapid.SampledFrom([]int64{60, 3600, 18000, 604800}).Draw(t, "rolling")
	default:
		r.Window.Every = rapid.SampledFrom([]int64{1, 1, 2, 5}).Draw(t, "every")
		r.Window.Anchor = rapid.SampledFrom([]string{"", "", "2016-01-31T02:30", "2030-12-31T09:00"}).Draw(t, "anchor")
	}
	if r.Enforcement == earmark.EnforcementSoft {
		r.SoftCeiling = drawCeiling(t, *r.Limit)
	}
	if r.Window.Period != earmark.PeriodRolling {
		r.Thresholds = drawThresholds(t)
	}
	if rolls(r.Window) {
		r.Rollover = drawRollover(t)
	}
	require.NoError(t, r.Validate())
	both(t, m, func(l oracle) (*earmark.Budget, error) {
		b, err := l.CreateBudget(ctx(), earmark.DefaultTenant, r, earmark.ActorAPI)
		if b != nil && l == oracle(m.postgres) {
			m.budgets = append(m.budgets, b.ID)
			m.model.NewBudgetID = func() string { return b.ID }
		}
		return b, err
	})
}

// drawUnit draws one unit more often than the other, so that budgets share it.
func drawUnit(t *rapid.T) string {
	return modelUnits[rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "unit")]
}

// oneIn is true once in n times. Plain numbers would not do: rapid likes small ones.
func oneIn(t *rapid.T, n int, label string) bool {
	faces := make([]bool, n)
	faces[n-1] = true
	return rapid.SampledFrom(faces).Draw(t, label)
}

func drawEnforcement(t *rapid.T) earmark.Enforcement {
	return rapid.SampledFrom([]earmark.Enforcement{earmark.EnforcementHard, earmark.EnforcementHard, earmark.EnforcementSoft}).Draw(t, "enforcement")
}

func drawOverage(t *rapid.T) earmark.OveragePolicy {
	return rapid.SampledFrom([]earmark.OveragePolicy{earmark.OverageAllowWithOverdraft, earmark.OverageAllowIfAvailable, earmark.OverageAllowIfAvailable, earmark.OverageReject}).Draw(t, "overage")
}

func drawAllowance(t *rapid.T) earmark.Allowance {
	return rapid.SampledFrom([]earmark.Allowance{earmark.AllowanceFirst, earmark.AllowanceLast}).Draw(t, "allowance")
}

// rolls reports whether windows like w may roll over.
func rolls(w earmark.Window) bool {
	return slices.Contains([]earmark.Period{earmark.PeriodDay, earmark.PeriodWeek, earmark.PeriodMonth, earmark.PeriodYear}, w.Period)
}

// drawRollover draws what a window rolls over, or nothing.
func drawRollover(t *rapid.T) *earmark.Rollover {
	r := earmark.Rollover{
		Max: rapid.SampledFrom([]int64{0, 1, 20, 50, 100, math.MaxInt64}).Draw(t, "rollover"), Windows: int64(rapid.SampledFrom([]int{1, 1, 2, 3}).Draw(t, "for windows")),
	}
	if r.Max == 0 {
		return nil
	}
	if over := rapid.SampledFrom([]int64{-1, 0, 1, 30}).Draw(t, "total over max"); over >= 0 && r.Max < 1000 {
		r.MaxTotal = new(r.Max + over)
	}
	return &r
}

// drawCeiling draws a soft ceiling at or a little over limit, or none.
func drawCeiling(t *rapid.T, limit int64) *int64 {
	over := rapid.SampledFrom([]int64{-1, 0, 1, 50}).Draw(t, "ceiling over limit")
	if over < 0 || limit > math.MaxInt64-over {
		return nil
	}
	return new(limit + over)
}

// drawThresholds draws up to three thresholds, often none.
func drawThresholds(t *rapid.T) []earmark.Threshold {
	var drawn []earmark.Threshold
	for range rapid.SampledFrom([]int{0, 1, 2, 3}).Draw(t, "thresholds") {
		threshold := earmark.Threshold{Of: rapid.SampledFrom([]string{earmark.ThresholdOfCommitted, earmark.ThresholdOfUsed}).Draw(t, "of")}
		if oneIn(t, 3, "amount") {
			threshold.Amount = rapid.SampledFrom([]int64{1, 10, 50, math.MaxInt64}).Draw(t, "threshold")
		} else {
			threshold.Percent = rapid.SampledFrom([]int64{1, 33, 50, 80, 100}).Draw(t, "percent")
		}
		if !slices.Contains(drawn, threshold) {
			drawn = append(drawn, threshold)
		}
	}
	return drawn
}

// drawBudget draws a budget that exists, one that a template made too, or seldom one that does not.
func (m *machine) drawBudget(t *rapid.T) string {
	all, err := m.model.Budgets(ctx(), earmark.DefaultTenant, earmark.BudgetFilter{})
	require.NoError(t, err)
	for _, b := range all.Data {
		if !slices.Contains(m.budgets, b.ID) {
			m.budgets = append(m.budgets, b.ID)
		}
	}
	return rapid.SampledFrom(append([]string{"bud_none"}, m.budgets...)).Draw(t, "budget")
}

func (m *machine) patchBudget(t *rapid.T) {
	var patch earmark.BudgetPatch
	if rapid.Bool().Draw(t, "patch limit") {
		patch.Limit = new(rapid.SampledFrom(modelLimits).Draw(t, "limit"))
	}
	if rapid.Bool().Draw(t, "patch enforcement") {
		patch.Enforcement = new(drawEnforcement(t))
	}
	if rapid.Bool().Draw(t, "patch ceiling") {
		patch.SoftCeiling = new(drawCeiling(t, rapid.SampledFrom(modelLimits).Draw(t, "around")))
	}
	if rapid.Bool().Draw(t, "patch overage") {
		patch.Overage = new(drawOverage(t))
	}
	if rapid.Bool().Draw(t, "patch thresholds") {
		patch.Thresholds = new(drawThresholds(t))
	}
	if oneIn(t, 3, "patch allowance") {
		patch.Allowance = new(drawAllowance(t))
	}
	id := m.drawBudget(t)
	b, err := m.model.Budget(ctx(), earmark.DefaultTenant, id)
	require.NoError(t, err)
	if b != nil && b.Template && oneIn(t, 2, "effective") {
		patch.Effective = new(rapid.SampledFrom([]earmark.Effective{earmark.EffectiveNow, earmark.EffectiveNextWindow}).Draw(t, "effective at"))
	}
	if b != nil && rolls(b.Window) && oneIn(t, 3, "patch rollover") {
		patch.Rollover = new(drawRollover(t))
	}
	if oneIn(t, 4, "patch following") {
		patch = earmark.BudgetPatch{FollowsTemplate: new(rapid.Bool().Draw(t, "follow"))}
	}
	both(t, m, func(l oracle) (*earmark.Budget, error) {
		return l.PatchBudget(ctx(), earmark.DefaultTenant, id, patch, earmark.ActorAPI)
	})
}

// raiseBudget moves the limit of a budget with thresholds to where little is missing, so that they are crossed again.
func (m *machine) raiseBudget(t *rapid.T) {
	all, err := m.model.Budgets(ctx(), earmark.DefaultTenant, earmark.BudgetFilter{})
	require.NoError(t, err)
	all.Data = slices.DeleteFunc(all.Data, func(b earmark.Budget) bool {
		return len(b.Thresholds) == 0 || b.SoftCeiling != nil || b.Balance.Committed+b.Balance.Reserved > math.MaxInt64/2
	})
	if len(all.Data) == 0 {
		t.Skip("no budget has thresholds")
	}
	b := rapid.SampledFrom(all.Data).Draw(t, "raised")
	patch := earmark.BudgetPatch{Limit: new(b.Balance.Committed + b.Balance.Reserved + rapid.SampledFrom([]int64{1, 5, 20, 100}).Draw(t, "free"))}
	both(t, m, func(l oracle) (*earmark.Budget, error) {
		return l.PatchBudget(ctx(), earmark.DefaultTenant, b.ID, patch, earmark.ActorAPI)
	})
}

func (m *machine) archiveBudget(t *rapid.T) {
	if !oneIn(t, 4, "archive") {
		t.Skip("without budgets there is little to see")
	}
	id := m.drawBudget(t)
	both(t, m, func(l oracle) (*earmark.Budget, error) {
		return l.ArchiveBudget(ctx(), earmark.DefaultTenant, id, earmark.ActorAPI)
	})
}

// override overrides the limit of a budget or resets it, sometimes under a key that is used already.
func (m *machine) override(t *rapid.T) {
	id, key := m.drawBudget(t), rapid.SampledFrom(modelKeys).Draw(t, "override key")
	if oneIn(t, 3, "reset") {
		both(t, m, func(l oracle) (*earmark.Override, error) {
			return l.ResetBudget(ctx(), earmark.DefaultTenant, id, key, earmark.ReasonRequest{Reason: "again"}, earmark.ActorAPI)
		})
		return
	}
	r := earmark.OverrideRequest{Amount: rapid.SampledFrom([]int64{1, 5, 50, 100, -1, -5, -50, -100, math.MaxInt64, -math.MaxInt64}).Draw(t, "by"), Reason: "a raise or a cut"}
	hour := func(label string) *time.Time {
		return new(m.now.Add(time.Duration(rapid.IntRange(-2, 30).Draw(t, label)) * time.Hour))
	}
	if oneIn(t, 2, "effective at") {
		r.EffectiveAt = hour("begins")
	}
	if oneIn(t, 2, "ends") {
		if r.Windows = new(int64(rapid.IntRange(1, 3).Draw(t, "windows"))); oneIn(t, 2, "at a time") {
			r.ExpiresAt, r.Windows = hour("expires"), nil
		}
	}
	if r.Validate() != nil {
		t.Skip("the API refuses it")
	}
	both(t, m, func(l oracle) (*earmark.Override, error) {
		return l.CreateOverride(ctx(), earmark.DefaultTenant, id, key, r, earmark.ActorAPI)
	})
}

func (m *machine) endOverride(t *rapid.T) {
	budget := m.drawBudget(t)
	id := earmark.OverrideID(budget, rapid.SampledFrom(modelKeys).Draw(t, "override key"))
	both(t, m, func(l oracle) (*earmark.Override, error) {
		return l.EndOverride(ctx(), earmark.DefaultTenant, budget, id, earmark.ActorAPI, "enough")
	})
	both(t, m, func(l oracle) (earmark.Page[earmark.Override], error) {
		return l.Overrides(ctx(), earmark.DefaultTenant, budget, earmark.PageFilter{Limit: earmark.MaxPageSize})
	})
}

// grant grants a little or a lot to a budget, sometimes under a key that is used already.
func (m *machine) grant(t *rapid.T) {
	id, key := m.drawBudget(t), rapid.SampledFrom(modelKeys).Draw(t, "grant key")
	r := earmark.GrantRequest{Amount: rapid.SampledFrom([]int64{1, 5, 20, 50, 100, math.MaxInt64}).Draw(t, "granted"), Reason: "a top-up"}
	if oneIn(t, 2, "priority") {
		r.Priority = new(rapid.SampledFrom([]int64{0, 49, 100}).Draw(t, "at"))
	}
	hour := func(label string) *time.Time {
		return new(m.now.Add(time.Duration(rapid.IntRange(-2, 30).Draw(t, label)) * time.Hour))
	}
	if oneIn(t, 4, "effective at") {
		r.EffectiveAt = hour("begins")
	}
	if oneIn(t, 2, "ends") {
		r.ExpiresAt = hour("expires")
	}
	if r.Validate() != nil {
		t.Skip("the API refuses it")
	}
	r = r.WithDefaults()
	both(t, m, func(l oracle) (*earmark.Grant, error) {
		return l.CreateGrant(ctx(), earmark.DefaultTenant, id, key, r, earmark.ActorAPI)
	})
}

func (m *machine) voidGrant(t *rapid.T) {
	budget := m.drawBudget(t)
	id := earmark.GrantID(budget, rapid.SampledFrom(modelKeys).Draw(t, "grant key"))
	both(t, m, func(l oracle) (*earmark.Grant, error) {
		return l.VoidGrant(ctx(), earmark.DefaultTenant, budget, id, earmark.ActorAPI, "paid back")
	})
}

func (m *machine) noteGrants(t *rapid.T) {
	most := rapid.SampledFrom([]int{1, 100}).Draw(t, "most")
	both(t, m, func(l oracle) (int, error) { return l.NoteGrants(ctx(), most) })
}

// compareGrants compares every grant of every budget.
func (m *machine) compareGrants(t *rapid.T) {
	for _, id := range m.budgets {
		both(t, m, func(l oracle) (earmark.Page[earmark.Grant], error) {
			return l.Grants(ctx(), earmark.DefaultTenant, id, earmark.PageFilter{Limit: earmark.MaxPageSize})
		})
	}
}

// drawAmount draws small amounts, so that several fit, and from the edges: of
// int64, and of what a budget has left.
func (m *machine) drawAmount(t *rapid.T, least int64) int64 {
	if !oneIn(t, 3, "edge") {
		return rapid.SampledFrom([]int64{1, 2, 3, 5, 8, 20, 40}).Draw(t, "amount")
	}
	edges := []int64{9, 10, 11, 99, 100, 101, math.MaxInt64 - 1, math.MaxInt64}
	for _, id := range m.budgets {
		b, err := m.model.Budget(ctx(), earmark.DefaultTenant, id)
		require.NoError(t, err)
		edges = append(edges, b.Balance.Available, b.Balance.Available, b.Balance.EffectiveLimit-b.Balance.Committed)
		for _, threshold := range b.Thresholds {
			amount := threshold.Amount
			if threshold.Percent > 0 {
				amount = b.Limit/100*threshold.Percent + (b.Limit%100*threshold.Percent+99)/100
			}
			edges = append(edges, amount-b.Balance.Committed, amount-b.Balance.Committed-b.Balance.Reserved)
		}
		if b.Balance.Available < math.MaxInt64 {
			edges = append(edges, b.Balance.Available+1)
		}
	}
	return max(least, rapid.SampledFrom(edges).Draw(t, "amount"))
}

func (m *machine) drawAmounts(t *rapid.T) earmark.Amounts {
	amounts := earmark.Amounts{drawUnit(t): m.drawAmount(t, 1)}
	if oneIn(t, 5, "two units") {
		amounts[drawUnit(t)] = m.drawAmount(t, 1)
	}
	return amounts
}

func drawScopes(t *rapid.T) []string {
	scopes := rapid.SampledFrom([]string{"a/b/c", "a/b/c", "a/b/c", "a/b/d", "a/b", "a"})
	drawn := rapid.SliceOfNDistinct(scopes, 1, 2, rapid.ID).Draw(t, "scopes")
	if oneIn(t, 20, "scope without a budget") {
		drawn = append(drawn, "ab")
	}
	return drawn
}

func drawKey(t *rapid.T) string {
	return earmark.ReservationID(earmark.DefaultTenant, rapid.SampledFrom(modelKeys).Draw(t, "key"))
}

func (m *machine) drawAdmission(t *rapid.T) earmark.Admission {
	r := earmark.ReservationRequest{
		Scopes: drawScopes(t), Amounts: m.drawAmounts(t), RequireBudget: oneIn(t, 10, "require budget"), Coverage: rapid.SampledFrom([]earmark.Coverage{earmark.CoverageEachScope, earmark.CoverageAnyScope}).Draw(t, "coverage"), TTLSeconds: rapid.SampledFrom(modelTTLs).Draw(t, "ttl"),
		OnExpiry: rapid.SampledFrom([]earmark.OnExpiry{earmark.OnExpiryRelease, earmark.OnExpiryRelease, earmark.OnExpiryCommit, earmark.OnExpiryReview}).Draw(t, "on expiry"),
	}
	id := drawKey(t)
	if !oneIn(t, 3, "used key") {
		m.fresh++
		id = earmark.ReservationID(earmark.DefaultTenant, "fresh"+strconv.Itoa(m.fresh))
	}
	if old, _ := m.model.Reservation(ctx(), earmark.DefaultTenant, id); old != nil && oneIn(t, 2, "same body") {
		r.Scopes, r.Amounts, r.OnExpiry, r.TTLSeconds = old.Scopes, old.Amounts, old.OnExpiry, modelTTLs[0]
		if old.ExpiresAt != nil {
			r.TTLSeconds = int64(old.ExpiresAt.Sub(old.CreatedAt).Seconds()) // unless it was extended
		}
	}
	require.NoError(t, r.Validate())
	a := earmark.Admission{ID: id, Tenant: earmark.DefaultTenant, Request: r, RequestHash: r.Hash(), WorkflowID: "reservation-" + id}
	// A deadline that is over, one that is this very moment, one to come, or none.
	if oneIn(t, 5, "deadline") {
		a.AdmitBy = m.now.Add(rapid.SampledFrom([]time.Duration{-time.Microsecond, 0, time.Microsecond}).Draw(t, "admit by"))
	}
	a.Released = oneIn(t, 20, "released first")
	return a
}

func (m *machine) reserve(t *rapid.T) {
	a := m.drawAdmission(t)
	both(t, m, func(l oracle) (earmark.Result, error) { return l.Reserve(ctx(), a) })
}

// look makes the calls that change nothing; that they do not shows in compare.
func (m *machine) look(t *rapid.T) {
	a := m.drawAdmission(t)
	both(t, m, func(l oracle) (earmark.Preflight, error) { return l.Preflight(ctx(), a) })
	both(t, m, func(l oracle) (earmark.Result, error) { return l.Decide(ctx(), a.Tenant, a.Request) })
	both(t, m, func(l oracle) (earmark.Counted, error) {
		return l.CountedUnits(ctx(), a.Tenant, a.ID, a.RequestHash, a.Request.Scopes)
	})
	both(t, m, func(l oracle) (earmark.Result, error) { return l.Inspect(ctx(), a.Tenant, a.ID) })
	states := []earmark.State{"", earmark.StateHeld, earmark.StateCommitted, earmark.StateReleased, earmark.StateExpired, earmark.StateReview}
	f := earmark.ReservationFilter{State: rapid.SampledFrom(states).Draw(t, "state"), Scope: rapid.SampledFrom(append([]string{""}, modelScopes...)).Draw(t, "under"), Overdue: rapid.Bool().Draw(t, "overdue")}
	both(t, m, func(l oracle) (earmark.Page[earmark.Reservation], error) { return l.Reservations(ctx(), a.Tenant, f) })
	covering := earmark.BudgetFilter{Covering: rapid.SampledFrom(modelScopes).Draw(t, "covering")}
	both(t, m, func(l oracle) (earmark.Page[earmark.Budget], error) { return l.Budgets(ctx(), a.Tenant, covering) })
}

// drawSettlement names a reservation that is open, or less often any.
func (m *machine) drawSettlement(t *rapid.T) earmark.Transition {
	id := drawKey(t)
	all, err := m.model.Reservations(ctx(), earmark.DefaultTenant, earmark.ReservationFilter{})
	require.NoError(t, err)
	if open := m.open(t); len(open) > 0 && !oneIn(t, 3, "any") {
		id = rapid.SampledFrom(open).Draw(t, "open").ID
	} else if len(all.Data) > 0 && !oneIn(t, 10, "none") {
		id = rapid.SampledFrom(all.Data).Draw(t, "reservation").ID
	}
	return earmark.Transition{
		ID: id, Tenant: earmark.DefaultTenant, Actor: rapid.SampledFrom(modelActors).Draw(t, "actor"),
		Reason: rapid.SampledFrom([]string{"", "why not"}).Draw(t, "reason"),
	}
}

func (m *machine) open(t *rapid.T) []earmark.Reservation {
	all, err := m.model.Reservations(ctx(), earmark.DefaultTenant, earmark.ReservationFilter{})
	require.NoError(t, err)
	return slices.DeleteFunc(all.Data, func(r earmark.Reservation) bool { return !r.Open() })
}

func (m *machine) commit(t *rapid.T) {
	s := m.drawSettlement(t)
	s.Attempt = rapid.SampledFrom([]string{"", "one", "another"}).Draw(t, "attempt")
	s.Estimated = oneIn(t, 4, "estimated")
	usage := m.drawAmounts(t)
	if r, _ := m.model.Reservation(ctx(), s.Tenant, s.ID); r != nil && !oneIn(t, 10, "other units") {
		usage = earmark.Amounts{}
		for unit, reserved := range r.Amounts {
			near := []int64{0, 1, reserved - 1, reserved, reserved, m.drawAmount(t, 0)}
			if reserved < math.MaxInt64-100 {
				near = append(near, reserved+1, reserved+100)
			}
			usage[unit] = rapid.SampledFrom(near).Draw(t, "usage")
		}
	}
	both(t, m, func(l oracle) (earmark.Result, error) { return l.Commit(ctx(), s, usage) })
	if oneIn(t, 5, "twice") {
		s.Estimated = s.Estimated && oneIn(t, 2, "estimated again")
		both(t, m, func(l oracle) (earmark.Result, error) { return l.Commit(ctx(), s, usage) })
	}
}

func (m *machine) release(t *rapid.T) {
	s := m.drawSettlement(t)
	both(t, m, func(l oracle) (earmark.Result, error) { return l.Release(ctx(), s) })
}

func (m *machine) giveBack(t *rapid.T) {
	s := m.drawSettlement(t)
	both(t, m, func(l oracle) (earmark.Result, error) { return l.GiveBack(ctx(), s) })
}

func (m *machine) expire(t *rapid.T) {
	s := m.drawSettlement(t)
	if r, _ := m.model.Reservation(ctx(), s.Tenant, s.ID); r != nil && r.State == earmark.StateHeld && !oneIn(t, 4, "not due") {
		m.advanceTo(t, *r.ExpiresAt)
	}
	both(t, m, func(l oracle) (earmark.Result, error) { return l.Expire(ctx(), s) })
}

func (m *machine) extend(t *rapid.T) {
	s := m.drawSettlement(t)
	ttl := time.Duration(rapid.SampledFrom(modelTTLs).Draw(t, "ttl")) * time.Second
	both(t, m, func(l oracle) (earmark.Result, error) { return l.Extend(ctx(), s, ttl) })
}

func (m *machine) charge(t *rapid.T) {
	r := earmark.UsageRequest{Scopes: drawScopes(t), Amounts: m.drawAmounts(t), RequireBudget: oneIn(t, 5, "require budget")}
	require.NoError(t, r.Validate())
	if !oneIn(t, 3, "charge") {
		t.Skip("what is charged is not there to be reserved")
	}
	c := earmark.Charge{ID: drawKey(t), Tenant: earmark.DefaultTenant, Request: r, RequestHash: r.Hash(), Actor: earmark.ActorAPI, Reason: "spent"}
	if oneIn(t, 4, "earlier") {
		c.At = m.now.Add(-time.Duration(rapid.IntRange(0, 200).Draw(t, "hours ago")) * time.Hour)
	}
	both(t, m, func(l oracle) (earmark.Result, error) { return l.Charge(ctx(), c) })
}

// correct corrects a reservation that is committed, or less often any: by what is charged or nearly so, by
// what fits, and under a key that may be used already.
func (m *machine) correct(t *rapid.T) {
	all, err := m.model.Reservations(ctx(), earmark.DefaultTenant, earmark.ReservationFilter{State: earmark.StateCommitted})
	require.NoError(t, err)
	s := m.drawSettlement(t)
	if len(all.Data) > 0 && !oneIn(t, 5, "any state") {
		s.ID = rapid.SampledFrom(all.Data).Draw(t, "committed").ID
	}
	amounts := earmark.Amounts{}
	if r, _ := m.model.Reservation(ctx(), s.Tenant, s.ID); r != nil && !oneIn(t, 10, "other units") {
		for _, unit := range r.Amounts.Units() {
			charged := r.Usage[unit] + r.Correction[unit]
			amounts[unit] = rapid.SampledFrom([]int64{-charged - 1, -charged, -charged, -1, -1, 1, 20, m.drawAmount(t, 1), math.MaxInt64}).Draw(t, "correction")
		}
	} else {
		amounts[drawUnit(t)] = -1
	}
	for _, unit := range amounts.Units() {
		if amounts[unit] == 0 || len(amounts) > 1 && oneIn(t, 3, "leave out") {
			delete(amounts, unit)
		}
	}
	request := earmark.CorrectionRequest{Amounts: amounts, Reason: rapid.SampledFrom([]string{"the invoice differs", "a refund"}).Draw(t, "why")}
	if len(amounts) == 0 {
		t.Skip("a correction of nothing does not reach the ledger")
	}
	require.NoError(t, request.Validate())
	c := earmark.Correction{
		ID: earmark.CorrectionID(s.ID, rapid.SampledFrom(modelKeys).Draw(t, "correction key")), ReservationID: s.ID, Tenant: s.Tenant,
		Request: request, Actor: s.Actor,
	}
	both(t, m, func(l oracle) (earmark.Result, error) { return l.Correct(ctx(), c) })
	if oneIn(t, 5, "twice") {
		both(t, m, func(l oracle) (earmark.Result, error) { return l.Correct(ctx(), c) })
	}
}

func (m *machine) sweep(t *rapid.T) {
	grace := time.Duration(rapid.SampledFrom([]int{0, 1, 30}).Draw(t, "grace")) * time.Second
	most := rapid.SampledFrom([]int{1, 2, 100}).Draw(t, "most")
	both(t, m, func(l oracle) ([]string, error) { return l.Sweep(ctx(), grace, most) })
}

// reconcile does what the reconciler does with the ledger. The model has no workflows:
// that no balance, state or entry changes by it shows in compare.
func (m *machine) reconcile(t *rapid.T) {
	checks, err := m.postgres.ClaimChecks(ctx(), time.Second, rapid.SampledFrom([]int{1, 100}).Draw(t, "most"))
	require.NoError(t, err)
	for _, check := range checks {
		r, err := m.model.Reservation(ctx(), check.Tenant, check.ID)
		require.NoError(t, err)
		require.Equal(t, r.State, check.State)
		require.True(t, r.CreatedAt.Equal(check.CreatedAt))
		require.NoError(t, m.postgres.MarkChecked(ctx(), check.Tenant, check.ID, false, rapid.Bool().Draw(t, "refreshed")))
	}
}

// timePasses moves the clock: by some time, or to the edge of a lease or a window.
func (m *machine) timePasses(t *rapid.T) {
	var moments []time.Time
	for _, r := range m.open(t) {
		moments = append(moments, r.ExpiresAt.Add(-time.Microsecond), *r.ExpiresAt, r.ExpiresAt.Add(time.Microsecond), r.ExpiresAt.Add(31*time.Second))
	}
	if len(moments) > 0 && oneIn(t, 2, "edge of a lease") {
		m.advanceTo(t, rapid.SampledFrom(moments).Draw(t, "moment"))
		return
	}
	moments = []time.Time{m.now.Add(time.Microsecond), m.now.Add(time.Second), m.now.Add(31 * time.Second), m.now.Add(time.Hour), m.now.Add(25 * time.Hour)}
	for _, id := range m.budgets {
		b, err := m.model.Budget(ctx(), earmark.DefaultTenant, id)
		require.NoError(t, err)
		if end := b.Balance.WindowEnd; end != nil {
			moments = append(moments, end.Add(-time.Microsecond), *end)
		}
	}
	m.advanceTo(t, rapid.SampledFrom(moments).Draw(t, "moment"))
}

// otherTimeZoneData makes a window, now or soon, as other time-zone data would have bounded it.
func (m *machine) otherTimeZoneData(t *rapid.T) {
	id := rapid.SampledFrom(m.budgets).Draw(t, "budget")
	b, err := m.model.Budget(ctx(), earmark.DefaultTenant, id)
	require.NoError(t, err)
	start, end := ledgertest.Bounds(b.Window, m.now)
	if end == nil {
		t.Skip("a lifetime has no bounds to change")
	}
	if b.Template {
		t.Skip("a template has no window")
	}
	if b.Window.Period == earmark.PeriodRolling {
		t.Skip("the slices of a rolling window do not depend on a time zone")
	}
	if rapid.Bool().Draw(t, "the next one") {
		start, end = ledgertest.Bounds(b.Window, *end)
	}
	shift := rapid.SampledFrom([]time.Duration{-time.Hour, -30 * time.Minute, 30 * time.Minute, time.Hour}).Draw(t, "shift")
	kept := bounds{start.Add(shift), new(end.Add(shift))}
	const unlessOverlapping = `WITH made AS (
			INSERT INTO earmark.windows (budget_id, window_start, window_end, next_committed, next_used)
			SELECT id, $2, $3, earmark.next_threshold(b, 'committed'), earmark.next_threshold(b, 'used') FROM earmark.budgets b
			WHERE id = $1 AND NOT EXISTS (SELECT FROM earmark.windows WHERE budget_id = $1 AND window_start < $3 AND window_end > $2)
			RETURNING budget_id, window_start)
		SELECT earmark.emit('budget.window_opened', 'default', '{}', budget_id, NULL, window_start, '{}') FROM made`
	made, err := m.pool.Exec(ctx(), unlessOverlapping, id, kept.Start, kept.End)
	require.NoError(t, err)
	if made.RowsAffected() == 1 {
		m.model.KeepWindow(id, kept.Start, *kept.End)
	}
}

// rollUp changes nothing that the comparison sees; the audit compares the sums.
func (m *machine) rollUp(t *rapid.T) {
	_, err := m.postgres.RollUpUsage(ctx())
	require.NoError(t, err)
}

// prune lets so much time pass that something can be pruned. That the workflows of
// what others settled know it is the reconciler's to note, and it is not here.
func (m *machine) prune(t *rapid.T) {
	keep := postgres.LeastKept + time.Duration(rapid.IntRange(0, 5).Draw(t, "more days"))*24*time.Hour
	if oneIn(t, 2, "long time") {
		m.advanceTo(t, m.now.Add(postgres.LeastKept+time.Duration(rapid.IntRange(-1, 8).Draw(t, "days"))*24*time.Hour))
	}
	_, err := m.pool.Exec(ctx(), "UPDATE earmark.reservations SET refresh_due = false WHERE refresh_due")
	require.NoError(t, err)
	got, err := m.postgres.Prune(ctx(), postgres.PruneOptions{Keep: keep, KeepEvents: 100 * 366 * 24 * time.Hour, Actor: earmark.OperatorActor("test")})
	require.NoError(t, err)
	reservations, entries := m.model.Prune(keep, earmark.OperatorActor("test"))
	require.Equal(t, [2]int64{reservations, entries}, [2]int64{got.Reservations, got.Entries})
	m.entries = 0 // what is left is compared from its beginning
}

// compare holds everything that both ledgers keep against each other.
func (m *machine) compare(t *rapid.T) {
	both(t, m, func(l oracle) (earmark.Page[earmark.Reservation], error) {
		return l.Reservations(ctx(), earmark.DefaultTenant, earmark.ReservationFilter{Limit: earmark.MaxPageSize})
	})
	both(t, m, func(l oracle) (earmark.Page[earmark.Budget], error) {
		return l.Budgets(ctx(), earmark.DefaultTenant, earmark.BudgetFilter{Limit: earmark.MaxPageSize})
	})
	m.compareGrants(t)
	m.compareWindows(t)
	m.compareEntries(t)
	m.compareEvents(t)
	report, err := m.postgres.CheckRules(ctx())
	require.NoError(t, err)
	require.Empty(t, report.Mismatches())
}

// compareWindows also looks at windows that are over and at those of archived budgets.
func (m *machine) compareWindows(t *rapid.T) {
	rows, err := m.pool.Query(ctx(), "SELECT budget_id, window_start, reserved, committed, granted_reserved, granted_committed FROM earmark.windows WHERE reserved > 0 OR committed > 0 ORDER BY 1, 2")
	require.NoError(t, err)
	got, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ledgertest.Window])
	require.NoError(t, err)
	for i := range got {
		got[i].Start = got[i].Start.UTC()
	}
	require.Equal(t, asJSON(t, m.model.Windows()), asJSON(t, got))
}

// compareEntries compares the entries that are new since the last time. Their ids
// differ, since Postgres leaves out those of calls that it rolled back.
func (m *machine) compareEntries(t *rapid.T) {
	all, err := m.model.Entries(ctx(), earmark.DefaultTenant, earmark.EntryFilter{})
	require.NoError(t, err)
	var got []earmark.Entry
	filter := earmark.EntryFilter{Limit: earmark.MaxPageSize}
	for {
		page, err := m.postgres.Entries(ctx(), earmark.DefaultTenant, filter)
		require.NoError(t, err)
		got = append(got, page.Data...)
		if filter.Cursor = page.NextCursor; filter.Cursor == "" {
			break
		}
	}
	require.Len(t, got, len(all.Data))
	want, got := slices.Clone(all.Data[m.entries:]), got[m.entries:]
	m.entries = len(all.Data)
	// A sweep writes the entries of all that expire before those of what goes into review. Within a
	// reservation and a budget the order counts.
	for _, entries := range [][]earmark.Entry{want, got} {
		slices.SortStableFunc(entries, func(a, b earmark.Entry) int {
			return cmp.Or(strings.Compare(a.ReservationID, b.ReservationID), strings.Compare(a.BudgetID, b.BudgetID))
		})
	}
	for i := range got {
		got[i].ID = 0
		if got[i].Kind == "budget" { // in words of its own
			got[i].Reason = want[i].Reason
		}
	}
	require.Equal(t, asJSON(t, want), asJSON(t, got))
}

// wrongOpenings are the windows of which not exactly one event says that they opened.
const wrongOpenings = `SELECT w.budget_id || ' ' || w.window_start FROM earmark.windows w JOIN earmark.budgets b ON b.id = w.budget_id
	WHERE (SELECT count(*) FROM earmark.events e WHERE e.type = 'budget.window_opened' AND e.budget_id = w.budget_id AND e.window_start = w.window_start)
		<> CASE WHEN b.period IN ('lifetime', 'rolling') THEN 0 ELSE 1 END`

// compareEvents compares the events that are new since the last time: each cause has one, and each threshold one a
// window until a change of the budget. After such a change a window that has ended crosses no amount twice.
func (m *machine) compareEvents(t *rapid.T) {
	rows, err := m.pool.Query(ctx(), "SELECT id, earmark.event_json(e) FROM earmark.events e WHERE id > $1 AND type <> 'budget.window_opened' ORDER BY id", m.event)
	require.NoError(t, err)
	got := []ledgertest.Event{}
	var written earmark.Event
	_, err = pgx.ForEachRow(rows, []any{&m.event, &written}, func() error {
		var e ledgertest.Event
		if err := json.Unmarshal(written.Data, &e); err != nil {
			return err
		}
		e.Type, e.BudgetID, e.ReservationID, e.WindowStart = written.Type, written.BudgetID, written.ReservationID, written.WindowStart
		if e.WindowStart != nil {
			e.WindowStart = new(e.WindowStart.UTC())
		}
		got = append(got, e)
		written = earmark.Event{}
		return nil
	})
	require.NoError(t, err)
	want := append([]ledgertest.Event{}, m.model.Events()[m.events:]...)
	m.events = len(m.model.Events())
	stale := func(e ledgertest.Event) bool {
		return e.WindowStart != nil && m.model.Stale(e.BudgetID, *e.WindowStart)
	}
	for _, e := range got {
		if stale(e) {
			require.NotContains(t, m.again, asJSON(t, e))
			m.again[asJSON(t, e)] = true
		}
	}
	want, got = slices.DeleteFunc(want, stale), slices.DeleteFunc(got, stale)
	for _, events := range [][]ledgertest.Event{want, got} {
		slices.SortStableFunc(events, func(a, b ledgertest.Event) int {
			byText := 0
			if a.ReservationID == "" {
				byText = strings.Compare(asJSON(t, a), asJSON(t, b))
			}
			return cmp.Or(strings.Compare(a.ReservationID, b.ReservationID), byText)
		})
	}
	require.Equal(t, asJSON(t, want), asJSON(t, got))
	rows, err = m.pool.Query(ctx(), wrongOpenings)
	require.NoError(t, err)
	wrong, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Empty(t, wrong)
}
