package postgres_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/ledgertest"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/webhook"
)

// planCall is a call of the API in docs/plans.md.
type planCall struct {
	path string
	key  string // of a grant
	body string
}

var planCalls = regexp.MustCompile(`(?s)call "\$EARMARK_URL(\S+)" (?:-H 'Idempotency-Key: (\S+)' )?-d '(.*?)'`)

// plans reads the calls of each section of docs/plans.md.
func plans(t *testing.T) map[string][]planCall {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "plans.md"))
	require.NoError(t, err)
	all := map[string][]planCall{}
	for _, section := range strings.Split(string(page), "\n## ")[1:] {
		name, text, _ := strings.Cut(section, "\n")
		for _, match := range planCalls.FindAllStringSubmatch(text, -1) {
			all[name] = append(all[name], planCall{path: match[1], key: match[2], body: match[3]})
		}
		require.NotEmpty(t, all[name], name)
	}
	return all
}

// decodeStrictly refuses members that the API does not know.
func decodeStrictly[T any](t *testing.T, body string) (request T) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewBufferString(body))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(&request), body)
	return request
}

// TestPlans sets up each plan of docs/plans.md as it stands there, on Postgres and on the model,
// and lets its customer use it for a year. Every answer is the same, and so are the balances of every day.
func TestPlans(t *testing.T) {
	t.Parallel()
	for name, calls := range plans(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			isWebhook := func(c planCall) bool { return c.path == "/v1/webhooks" }
			y := newPlanYear(t, slices.DeleteFunc(slices.Clone(calls), isWebhook))
			for _, call := range calls {
				if isWebhook(call) {
					y.watch(decodeStrictly[earmark.WebhookRequest](t, call.body))
				}
			}
			y.run()
			y.checkDeliveries()
		})
	}
}

// watch makes a webhook of thresholds.
func (y *planYear) watch(request earmark.WebhookRequest) {
	y.t.Helper()
	require.NoError(y.t, request.Validate())
	require.Equal(y.t, []earmark.EventType{earmark.EventThreshold}, request.Types)
	made, err := y.ledgers[0].(*postgres.Ledger).CreateWebhook(ctx(), earmark.DefaultTenant, request, earmark.ActorAPI)
	require.NoError(y.t, err)
	y.webhook = made.ID
}

// checkDeliveries compares what the webhook is to be sent over the year with the crossings of the model.
func (y *planYear) checkDeliveries() {
	y.t.Helper()
	if y.webhook == "" {
		return
	}
	var want, got []string
	for _, e := range y.ledgers[1].(*ledgertest.Ledger).Events() {
		if e.Type == earmark.EventThreshold {
			want = append(want, fmt.Sprintf("%s %d %s", e.BudgetID, e.ThresholdAmount, e.WindowStart.UTC()))
		}
	}
	require.GreaterOrEqual(y.t, len(want), 12, "one in each month")
	require.Eventually(y.t, func() bool { // while other tests have transactions open, events are kept back
		batch, err := y.ledgers[0].(*postgres.Ledger).NextDeliveries(ctx(), y.webhook, planDays)
		require.NoError(y.t, err)
		var attempts []webhook.Attempt
		for _, e := range batch.Events {
			amount := decodedJSON[struct {
				ThresholdAmount int64 `json:"threshold_amount"`
			}](y.t, e.Data).ThresholdAmount
			got = append(got, fmt.Sprintf("%s %d %s", e.BudgetID, amount, e.WindowStart.UTC()))
			attempts = append(attempts, webhook.Attempt{EventID: e.ID, Type: e.Type, Attempt: 1, At: y.now, Status: 200})
		}
		if len(attempts) > 0 {
			_, err = y.ledgers[0].(*postgres.Ledger).RecordDeliveries(ctx(), y.webhook, batch.After, attempts, 0)
			require.NoError(y.t, err)
		}
		return len(got) >= len(want)
	}, 3*time.Minute, 10*time.Millisecond)
	require.Equal(y.t, want, got)
}

const planDays = 366

// planYear is one customer's year on two ledgers.
type planYear struct {
	t       *testing.T
	random  *rand.Rand
	ledgers [2]oracle
	setNow  func(time.Time)
	now     time.Time
	budgets []*earmark.Budget
	calls   int
	denials map[string]int // by budget, or by its template
	webhook string         // its id, if the plan has one
}

func newPlanYear(t *testing.T, calls []planCall) *planYear {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	pool := timedPool(t)
	y := &planYear{t: t, random: rand.New(rand.NewPCG(seed, 0)), denials: map[string]int{}}
	y.setNow = func(at time.Time) { y.now = at; setClock(t, pool, at) }
	model := ledgertest.New(func() time.Time { return y.now })
	y.ledgers = [2]oracle{postgres.New(pool), model}
	y.setNow(time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC))
	for _, call := range calls {
		if call.path == "/v1/budgets/$BUDGET/grants" {
			y.grant(call)
			continue
		}
		require.Equal(t, "/v1/budgets", call.path)
		request := decodeStrictly[earmark.BudgetRequest](t, call.body).WithDefaults()
		require.NoError(t, request.Validate())
		y.budgets = append(y.budgets, onBoth(y, func(l oracle) (*earmark.Budget, error) {
			b, err := l.CreateBudget(ctx(), earmark.DefaultTenant, request, earmark.ActorAPI)
			if b != nil {
				model.NewBudgetID = func() string { return b.ID }
			}
			return b, err
		}))
	}
	return y
}

// grant makes a grant of the last budget. The page has dates to come; the customer's year is the same one a hundred years before.
func (y *planYear) grant(call planCall) {
	y.t.Helper()
	request := decodeStrictly[earmark.GrantRequest](y.t, strings.ReplaceAll(call.body, `"21`, `"20`)).WithDefaults()
	require.NoError(y.t, request.Validate())
	budget := y.budgets[len(y.budgets)-1].ID
	onBoth(y, func(l oracle) (*earmark.Grant, error) {
		return l.CreateGrant(ctx(), earmark.DefaultTenant, budget, call.key, request, earmark.ActorAPI)
	})
}

// onBoth makes one call on both ledgers, whose answers are the same.
func onBoth[T any](y *planYear, call func(oracle) (T, error)) T {
	y.t.Helper()
	got, err := call(y.ledgers[0])
	require.NoError(y.t, err)
	want, err := call(y.ledgers[1])
	require.NoError(y.t, err)
	require.Equal(y.t, asJSON(y.t, want), asJSON(y.t, got), "at %s", y.now)
	return got
}

func (y *planYear) run() {
	start := y.now
	for day := range planDays {
		at := start.AddDate(0, 0, day)
		for range y.random.IntN(8) {
			at = at.Add(time.Duration(y.random.IntN(2*60)) * time.Minute)
			y.setNow(at)
			y.use()
		}
		y.compare()
	}
	for _, b := range y.budgets {
		require.Positive(y.t, y.denials[b.ID], "the year never used up %+v", b.Window)
	}
}

// use reserves up to half of the first limit, and commits up to what was reserved.
func (y *planYear) use() {
	y.t.Helper()
	most := y.budgets[0].Limit / 2
	reserved := 1 + y.random.Int64N(most)
	y.calls++
	a := admission(fmt.Sprintf("call-%d", y.calls), earmark.Amounts{y.budgets[0].Unit: reserved}, strings.Replace(y.budgets[0].Scope, "*", "ana", 1))
	result := onBoth(y, func(l oracle) (earmark.Result, error) { return l.Reserve(ctx(), a) })
	if result.Outcome == earmark.OutcomeDenied {
		for _, violation := range result.Decision.Violations {
			b, err := y.ledgers[0].Budget(ctx(), earmark.DefaultTenant, violation.BudgetID)
			require.NoError(y.t, err)
			y.denials[cmp.Or(b.TemplateID, b.ID)]++
		}
		return
	}
	require.Equal(y.t, earmark.OutcomeApplied, result.Outcome)
	used := earmark.Amounts{y.budgets[0].Unit: y.random.Int64N(reserved + 1)}
	onBoth(y, func(l oracle) (earmark.Result, error) {
		return l.Commit(ctx(), earmark.Transition{ID: a.ID, Tenant: a.Tenant, Actor: earmark.ActorWorkflow}, used)
	})
}

func (y *planYear) compare() {
	y.t.Helper()
	for _, b := range y.budgets {
		onBoth(y, func(l oracle) (earmark.Page[earmark.Grant], error) {
			return l.Grants(ctx(), earmark.DefaultTenant, b.ID, earmark.PageFilter{})
		})
	}
	onBoth(y, func(l oracle) (int, error) { return l.NoteGrants(ctx(), earmark.MaxPageSize) })
	onBoth(y, func(l oracle) (earmark.Page[earmark.Budget], error) {
		return l.Budgets(ctx(), earmark.DefaultTenant, earmark.BudgetFilter{Limit: earmark.MaxPageSize})
	})
}
