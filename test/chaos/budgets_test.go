//go:build unix

package chaos_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/ctxtime"
)

const (
	unitTokens   = "tokens"
	unitRequests = "requests"

	scopeAll    = "chaos"
	scopeHot    = "chaos/hot"
	scopeSoft   = "chaos/soft"
	scopeReject = "chaos/reject"
	scopeFit    = "chaos/fit"
	scopeLeft   = "chaos/left"
	scopeRight  = "chaos/right"
	scopeEach   = "chaos/each" // below it a template gives each scope a budget
	scopeTopUp  = "chaos/topup"
	scopeCredit = "chaos/credit"
	scopeRolls  = "chaos/rolls"
	scopeProbe  = "probe"
)

const (
	// raiseEvery is how often the limits follow what was spent: a limit that was
	// reached for good would deny everything from then on.
	raiseEvery = 2 * time.Second
	// templateStep is by how much a template's limit is raised each time: a template has no balance to follow.
	templateStep = 300
	// archiveEvery is after how many raises one of a template's children is archived.
	archiveEvery = 3
	ample        = 1_000_000_000
)

// budget is one of a tenant's budgets, with every limit it was ever given.
type budget struct {
	earmark.Budget
	headroom int64     // that is left free over what is counted; 0: the limit stays
	granted  bool      // it gets grants, see granting
	rollsAt  time.Time // the end of its first window, of which some rolls over; zero: none does

	limits []limitChange // oldest first, each higher than the one before; with all that was ever granted
	grants []*grant
}

type limitChange struct {
	limit int64
	sent  time.Time
}

type budgets struct {
	mu   sync.Mutex
	list []*budget
}

func newBudgets(t *testing.T, api *client.Client, former bool) *budgets {
	t.Helper()
	b := &budgets{}
	add := func(headroom int64, request earmark.BudgetRequest) {
		limit := int64(ample)
		if headroom > 0 {
			limit = headroom
		}
		request.Limit = &limit
		sent := time.Now()
		made, err := api.CreateBudget(context.Background(), request)
		if earmark.ErrorCode(err) == earmark.CodeInvalidRequest && request.Thresholds != nil {
			request.Thresholds = nil // a server from before them, in the drill of an upgrade
			made, err = api.CreateBudget(context.Background(), request)
		}
		require.NoError(t, err)
		b.list = append(b.list, &budget{Budget: *made, headroom: headroom, limits: []limitChange{{limit, sent}}})
	}
	hourly := earmark.Window{Period: earmark.PeriodHour, Timezone: "UTC"}
	daily := earmark.Window{Period: earmark.PeriodDay, Timezone: "Asia/Kathmandu"}
	// Thresholds of limits that stay; see judgeBudgetEvents.
	thresholds := func(amounts ...int64) (list []earmark.Threshold) {
		for _, amount := range amounts {
			list = append(list, earmark.Threshold{Amount: amount, Of: earmark.ThresholdOfCommitted}, earmark.Threshold{Amount: amount, Of: earmark.ThresholdOfUsed})
		}
		return list
	}
	add(0, earmark.BudgetRequest{Scope: scopeAll, Unit: unitTokens, Thresholds: thresholds(1, 1_000, 5_000, 20_000, ample)})
	add(0, earmark.BudgetRequest{Scope: scopeAll, Unit: unitRequests, Window: daily, Thresholds: thresholds(10, 100, 1_000)})
	add(4000, earmark.BudgetRequest{Scope: scopeHot, Unit: unitTokens, Window: hourly})
	add(2500, earmark.BudgetRequest{Scope: scopeSoft, Unit: unitTokens, Enforcement: earmark.EnforcementSoft})
	add(2500, earmark.BudgetRequest{Scope: scopeReject, Unit: unitTokens, Overage: earmark.OverageReject})
	add(2500, earmark.BudgetRequest{Scope: scopeFit, Unit: unitTokens, Overage: earmark.OverageAllowIfAvailable})
	add(2500, earmark.BudgetRequest{Scope: scopeLeft, Unit: unitTokens})
	add(2500, earmark.BudgetRequest{Scope: scopeRight, Unit: unitTokens, Window: hourly})
	add(0, earmark.BudgetRequest{Scope: scopeProbe, Unit: unitTokens})
	if !former { // it has neither templates nor grants
		add(600, earmark.BudgetRequest{Scope: scopeEach + "/*", Unit: unitTokens, Window: hourly})
		add(grantedLimit, earmark.BudgetRequest{Scope: scopeTopUp, Unit: unitTokens, Allowance: earmark.AllowanceFirst})
		add(grantedLimit, earmark.BudgetRequest{Scope: scopeCredit, Unit: unitTokens, Window: hourly, Allowance: earmark.AllowanceLast})
		for _, budget := range b.list[len(b.list)-2:] {
			budget.headroom, budget.granted = 0, true
		}
		rollsAt := firstRollover(time.Now())
		add(rolledLimit, earmark.BudgetRequest{Scope: scopeRolls, Unit: unitTokens, Allowance: earmark.AllowanceLast, Rollover: &earmark.Rollover{Max: mostRolled},
			Window: earmark.Window{Period: earmark.PeriodDay, Timezone: "UTC", Anchor: rollsAt.Format(earmark.AnchorLayout)}})
		rolls := b.list[len(b.list)-1]
		rolls.headroom, rolls.rollsAt = 0, rollsAt
		rolls.limits = append(rolls.limits, limitChange{rolledLimit + mostRolled, rollsAt})
	}
	return b
}

// raise raises the limits after what is counted, until ctx is done. Limits only
// grow, and so do soft ceilings, which is where their budgets end. Now and then it archives a child of a template.
func (b *budgets) raise(ctx context.Context, clients []*client.Client) {
	for n := 0; ctxtime.Sleep(ctx, raiseEvery); n++ {
		for _, budget := range b.list {
			if budget.headroom == 0 {
				continue
			}
			api := clients[rand.IntN(len(clients))]
			now, err := api.Budget(ctx, budget.ID)
			if err != nil {
				continue
			}
			limit := now.Balance.Reserved + now.Balance.Committed + budget.headroom
			b.mu.Lock()
			if budget.Template {
				limit = budget.limits[len(budget.limits)-1].limit + templateStep
			}
			if last := budget.limits[len(budget.limits)-1]; limit > last.limit {
				budget.limits = append(budget.limits, limitChange{limit, time.Now()})
			}
			limit = budget.limits[len(budget.limits)-1].limit
			b.mu.Unlock()
			patch := earmark.BudgetPatch{Limit: &limit}
			if budget.Enforcement == earmark.EnforcementSoft {
				ceiling := &limit
				patch.SoftCeiling = &ceiling
			}
			_, _ = api.PatchBudget(ctx, budget.ID, patch) // tried again soon
			if budget.Template && n%archiveEvery == 0 {
				if page, err := api.Budgets(ctx, earmark.BudgetFilter{TemplateID: budget.ID}); err == nil && len(page.Data) > 0 {
					_, _ = api.ArchiveBudget(ctx, page.Data[rand.IntN(len(page.Data))].ID)
				}
			}
		}
	}
}

// highest is the highest limit that may have been in force at a time.
func (b *budget) highest(at time.Time) int64 {
	var highest int64
	for _, change := range b.limits {
		if !change.sent.After(at) {
			highest = change.limit
		}
	}
	return highest
}

// touched are the budgets on the path of one of the scopes that count a unit.
func (b *budgets) touched(scopes []string, unit string) []*budget {
	var found []*budget
	for _, budget := range b.list {
		for _, scope := range scopes {
			if budget.Unit == unit && strings.HasPrefix(scope+"/", budget.Scope+"/") {
				found = append(found, budget)
				break
			}
		}
	}
	return found
}

// refusesOverage reports whether usage over the amounts meets a budget that rejects it.
func (b *budgets) refusesOverage(request earmark.ReservationRequest, usage earmark.Amounts) bool {
	for unit, used := range usage {
		if used <= request.Amounts[unit] {
			continue
		}
		for _, budget := range b.touched(request.Scopes, unit) {
			if budget.Overage == earmark.OverageReject {
				return true
			}
		}
	}
	return false
}
