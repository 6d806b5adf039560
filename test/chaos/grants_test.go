//go:build unix

package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/ctxtime"
)

// Grants of the budgets that get some. Their limits are used up soon.
const (
	grantedLimit = 500
	grantEvery   = time.Second
	grantBelow   = 2000 // what a budget has available when it gets another grant
	leastGrant   = 200
	mostGrant    = 1500
	mostGrantFor = 20 * time.Second
	voidIn       = 4 // grants that are made for one that is voided
)

// grant is the journal of one grant. Only the goroutine of its budget changes it.
type grant struct {
	id      string
	key     string
	request earmark.GrantRequest
	made    outcome
	voided  outcome // "": nobody asked for that
}

// granting makes grants of a budget, and voids some, until ctx is done. Each call is repeated until its outcome is known.
func (d *driver) granting(ctx context.Context, own *tenant, budget *budget, rng *rand.Rand) {
	call := func(make func(api int) error) outcome {
		for pause := firstPause; ; pause = min(2*pause, mostPause) {
			result, code := outcomeOf(answer{err: make(rng.IntN(len(own.clients)))})
			if result == refused {
				result = outcome(code)
			}
			if result != unknown || !ctxtime.Sleep(d.ctx, pause) {
				return result
			}
		}
	}
	for ctxtime.Sleep(ctx, grantEvery/2+rand64(rng, grantEvery)) {
		if now, err := own.clients[rng.IntN(len(own.clients))].Budget(ctx, budget.ID); err != nil || now.Balance.Available > grantBelow {
			continue
		}
		amount, priority := leastGrant+rng.Int64N(mostGrant-leastGrant), rng.Int64N(3)
		g := &grant{key: fmt.Sprintf("grant-%d", len(budget.grants)), request: earmark.GrantRequest{Amount: amount, Priority: &priority, Reason: "chaos"}}
		if rng.IntN(2) == 0 {
			until := time.Now().Add(time.Second + rand64(rng, mostGrantFor)).UTC()
			g.request.ExpiresAt = &until
		}
		g.id = earmark.GrantID(budget.ID, g.key)
		own.budgets.mu.Lock()
		budget.grants = append(budget.grants, g)
		budget.limits = append(budget.limits, limitChange{budget.limits[len(budget.limits)-1].limit + amount, time.Now()})
		own.budgets.mu.Unlock()
		g.made = call(func(api int) error {
			_, err := own.clients[api].CreateGrant(d.ctx, budget.ID, g.key, g.request)
			return err
		})
		if v := budget.grants[rng.IntN(len(budget.grants))]; rng.IntN(voidIn) == 0 && v.made == done && v.voided == "" {
			v.voided = call(func(api int) error {
				_, err := own.clients[api].VoidGrant(d.ctx, budget.ID, v.id, "chaos")
				return err
			})
		}
	}
}

// grantRow is a grant as the ledger has it, with what it bears of reservations and its entries.
type grantRow struct {
	ID        string
	BudgetID  string
	Amount    int64
	Priority  int64
	Reserved  int64
	Committed int64
	Voided    int64
	ExpiresAt *time.Time
	VoidedAt  *time.Time
	CreatedAt time.Time

	BorneReserved  int64
	BorneCommitted int64
	Overdue        bool // it has expired for longer than the sweeper may take, and that is not noted
	Made           int
	VoidsNoted     int
	ExpiriesNoted  int
}

// misgranted compares the grants of the ledger with the driver's journal, each grant with the reservations and the entries
// that name it, and the ceilings of admissions with what was granted by then.
func (d *driver) misgranted(c *cluster) (problems []string) {
	rows := map[string]grantRow{}
	ofBudget := map[string][]grantRow{}
	if !d.former {
		for _, r := range collect[grantRow](c.t, c.Pool(), `
			SELECT g.id, g.budget_id, g.amount, g.priority::bigint AS priority, g.reserved, g.committed, g.voided, g.expires_at, g.voided_at, g.created_at,
				coalesce(b.reserved, 0)::bigint AS borne_reserved, coalesce(b.committed, 0)::bigint AS borne_committed,
				g.voided_at IS NULL AND NOT g.expiry_noted AND g.expires_at < clock_timestamp() - interval '20 seconds' IS TRUE AS overdue,
				e.made::int, e.voids_noted::int, e.expiries_noted::int
			FROM earmark.grants g
				LEFT JOIN (SELECT grant_id, sum(reserved) AS reserved, sum(committed) AS committed FROM earmark.reservation_grants GROUP BY 1) b ON b.grant_id = g.id
				CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE reason LIKE 'grant %: chaos') AS made, count(*) FILTER (WHERE reason LIKE 'voided %') AS voids_noted,
					count(*) FILTER (WHERE reason LIKE '% unused' AND actor = 'sweeper') AS expiries_noted
					FROM earmark.entries WHERE budget_id = g.budget_id AND kind = 'budget' AND reason LIKE '%' || g.id || '%') e
			WHERE g.rolled_from IS NULL`) {
			rows[r.ID] = r
			ofBudget[r.BudgetID] = append(ofBudget[r.BudgetID], r)
		}
	}
	made, voided, expired := 0, 0, 0
	for _, own := range d.tenants {
		for _, budget := range own.budgets.list {
			for _, g := range budget.grants {
				r, found := rows[g.id]
				delete(rows, g.id)
				if complaint := g.judge(r, found); complaint != "" {
					problems = append(problems, fmt.Sprintf("grant %s of %s: %s\n  journal: %+v\n  ledger:  %+v", g.id, own.name, complaint, *g, r))
				}
				made, voided, expired = made+r.Made, voided+r.VoidsNoted, expired+r.ExpiriesNoted
			}
		}
	}
	for id := range rows {
		problems = append(problems, fmt.Sprintf("grant %s: nobody asked for it", id))
	}
	for _, e := range readEntries(c.t, c.Pool()) {
		if e.Kind != "reserve" || e.BudgetID == nil || !d.budget(*e.BudgetID).granted {
			continue
		}
		most := int64(grantedLimit)
		for _, r := range ofBudget[*e.BudgetID] {
			if r.CreatedAt.Before(e.CreatedAt) {
				most += r.Amount
			}
			if r.VoidedAt != nil && r.VoidedAt.Before(e.CreatedAt) {
				most -= r.Voided
			}
		}
		if e.Ceiling == nil || *e.Ceiling > most {
			problems = append(problems, fmt.Sprintf("entry %d of %s: it was admitted under a ceiling above %d, the limit with all grants of that moment", e.ID, e.ReservationID, most))
		}
	}
	c.t.Logf("%d grants were made, %d voided, %d expired with something unused", made, voided, expired)
	return problems
}

// judge says what is wrong with a grant; "" if it is as the journal has it.
func (g *grant) judge(r grantRow, found bool) string {
	late := g.request.ExpiresAt != nil && g.made == outcome(earmark.CodeInvalidRequest) // it arrived when its end had passed
	switch {
	case !slices.Contains([]outcome{done, unknown}, g.made) && !late || !slices.Contains([]outcome{"", done, unknown}, g.voided):
		return "an answer is not one that may be"
	case !found && g.made == done:
		return "it was answered as made, and is lost"
	case !found:
		return ""
	case late:
		return "it was refused, and is there"
	case r.Amount != g.request.Amount || r.Priority != *g.request.Priority || (r.ExpiresAt == nil) != (g.request.ExpiresAt == nil):
		return "another one is there than was asked for"
	case r.Reserved != r.BorneReserved || r.Committed != r.BorneCommitted || r.Reserved+r.Committed+r.Voided > r.Amount:
		return "what it bears is not what its reservations say"
	case r.VoidedAt != nil && g.voided == "":
		return "it is voided, and nobody asked for that"
	case g.voided == done && r.VoidedAt == nil && (r.ExpiresAt == nil || r.ExpiresAt.After(time.Now())):
		return "a void was answered as done, and is lost"
	case r.Made != 1 || r.VoidsNoted > 1 || (r.VoidsNoted == 1) != (r.VoidedAt != nil) || r.ExpiriesNoted > 1 || r.ExpiriesNoted == 1 && r.VoidedAt != nil:
		return "its entries do not tell its story once"
	case r.Overdue:
		return "it has expired, and the sweeper has not noted that"
	}
	return ""
}
