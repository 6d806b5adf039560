//go:build unix

package e2e_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/ledgertest"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/stack"
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

// between are bounds of a number of events.
type between struct{ least, most int }

// windows are a year's windows of a plan whose first or last one may be a few hours long, and see no request.
func windows(n int) between { return between{n - 1, n} }

// planEvents says how many events each plan has in a year, and that it has no others. The customer spends all that there is for a quarter
// of a year, and then little for another one, twice. So of twelve months six are used up, and others may be.
var planEvents = map[string]map[earmark.EventType]between{
	// The 31st of January is the first day of 12 windows, and of the 13th.
	"An allowance from the day of the sign-up": {
		earmark.EventWindowOpened: windows(13), earmark.EventExhausted: {6, 13}, earmark.EventDenied: {30, 2000}},
	// January has its last day alone, at either end. All events are those of the budget that the first request made.
	"An allowance for every new user": {
		earmark.EventWindowOpened: windows(13), earmark.EventExhausted: {6, 13}, earmark.EventDenied: {30, 2000}},
	// A month that was used up has crossed 40 of its 50 dollars.
	"A warning at 80 %": {
		earmark.EventWindowOpened: windows(13), earmark.EventThreshold: {6, 13}, earmark.EventExhausted: {6, 13}, earmark.EventDenied: {30, 2000}},
	// Only weeks open: a rolling window has no start. It is exhausted in each slice of 5 minutes in which something was denied.
	"A cap of five hours under one of a week": {
		earmark.EventWindowOpened: windows(53), earmark.EventExhausted: {10, 2000}, earmark.EventDenied: {10, 2000}},
	// The promotion ends four days after it was made, so it is announced on the first day; what no request fitted into of the
	// credit, 7 days before its end. The credit lasts for the first month.
	"Prepaid credit after an allowance": {
		earmark.EventWindowOpened: windows(13), earmark.EventExhausted: {5, 13}, earmark.EventDenied: {30, 2000}, earmark.EventGrantExpiring: {1, 2}},
	// What rolled over is announced 7 days before it ends, unless it is used up: in a busy month but for a rest.
	"Rollover of half": {
		earmark.EventWindowOpened: windows(13), earmark.EventExhausted: {6, 13}, earmark.EventDenied: {30, 2000}, earmark.EventGrantExpiring: {1, 13}},
}

// TestPlans sets up each plan of docs/plans.md as it stands there, on Postgres and on the model, and lets its customer use it for
// a year. Every answer is the same, and so are the balances of every day. Then a server delivers the year's events: all that
// the feed has, as it has them, and these are what the model expects.
func TestPlans(t *testing.T) {
	t.Parallel()
	for name, calls := range plans(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stack.New(t, stack.Options{})
			y := newPlanYear(t, s, calls)
			y.run()
			s.Exec(`CREATE OR REPLACE FUNCTION test.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
				$$ SELECT at + (pg_catalog.clock_timestamp() - '` + time.Now().Format(time.RFC3339Nano) + `') FROM test.clock $$`) // for retries
			server := s.Serve("--allow-private-webhooks").Ready()
			events := y.checkFeed(name, server.URL)
			for _, r := range y.receivers {
				r.check(t, events)
			}
		})
	}
}

// planReceiver is the endpoint of a webhook that selects events by their type alone.
type planReceiver struct {
	*receiver
	types []earmark.EventType // none for all
}

// watch makes a webhook that the year's events are delivered to. The answer to the fifth delivery gets lost.
func (y *planYear) watch(request earmark.WebhookRequest) {
	y.t.Helper()
	require.NoError(y.t, request.Validate())
	r := planReceiver{receiver: newReceiver(y.t), types: request.Types}
	request.URL, r.loses = r.URL, 5
	made, err := y.postgres.CreateWebhook(y.t.Context(), earmark.DefaultTenant, request, earmark.ActorAPI)
	require.NoError(y.t, err)
	r.secrets = []string{made.Secret}
	y.receivers = append(y.receivers, r)
}

// check compares what was delivered with the events of the feed.
func (r planReceiver) check(t *testing.T, events []json.RawMessage) {
	t.Helper()
	var want []json.RawMessage
	for _, e := range events {
		if len(r.types) == 0 || slices.Contains(r.types, decodeJSON[earmark.Event](t, e).Type) {
			want = append(want, e)
		}
	}
	same := func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }
	arrived := func() []json.RawMessage {
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.Clone(r.raw)
	}
	stack.Eventually(t, deliveryPatience, "all deliveries", func() bool { return len(arrived()) > len(want) })
	got := arrived()
	require.True(t, same(got[r.loses-1], got[r.loses]), "the delivery whose answer was lost comes again")
	require.Len(t, got, len(want)+1, "and no other one")
	require.Equal(t, want, slices.CompactFunc(got, same))
	r.set(func() { require.Empty(t, r.bad) })
}

// checkFeed compares the feed with what the model and the answers of the year ask for, and returns it.
func (y *planYear) checkFeed(name, url string) (events []json.RawMessage) {
	y.t.Helper()
	var written int
	require.NoError(y.t, y.pool.QueryRow(y.t.Context(), "SELECT count(*) FROM earmark.events").Scan(&written))
	a := api{t: y.t, base: url}
	stack.Eventually(y.t, deliveryPatience, "the feed", func() bool { // while other tests have transactions open, events are kept back
		after := ""
		for events = nil; ; {
			page := decoded[struct {
				Data      []json.RawMessage `json:"data"`
				NextAfter string            `json:"next_after"`
			}](y.t, a.do("GET", fmt.Sprintf("/v1/events?limit=%d&after=%s", earmark.MaxPageSize, after), "").status(y.t, http.StatusOK))
			if events = append(events, page.Data...); len(page.Data) < earmark.MaxPageSize {
				return len(events) >= written
			}
			after = page.NextAfter
		}
	})
	require.Len(y.t, events, written)
	count, denied := map[earmark.EventType]int{}, int64(0)
	var crossed []string
	for _, e := range events {
		e := decodeJSON[earmark.Event](y.t, e)
		count[e.Type]++
		data := decodeJSON[struct {
			ThresholdAmount int64 `json:"threshold_amount"`
			Count           int64 `json:"count"`
		}](y.t, e.Data)
		denied += data.Count
		if e.Type == earmark.EventThreshold {
			crossed = append(crossed, fmt.Sprintf("%s %d %s", e.BudgetID, data.ThresholdAmount, e.WindowStart.UTC()))
		}
	}
	var wantCrossed []string
	want := map[earmark.EventType]int{earmark.EventWindowOpened: len(y.opened), earmark.EventExhausted: len(y.exhausted), earmark.EventDenied: y.sampled}
	for _, e := range y.model.Events() {
		want[e.Type]++
		if e.Type == earmark.EventThreshold {
			wantCrossed = append(wantCrossed, fmt.Sprintf("%s %d %s", e.BudgetID, e.ThresholdAmount, e.WindowStart.UTC()))
		}
	}
	y.t.Logf("events: %v", count)
	require.Equal(y.t, want, count)
	require.Equal(y.t, wantCrossed, crossed)
	require.Equal(y.t, y.denied, denied, "the events count each denial once")
	require.Contains(y.t, planEvents, name)
	for kind := range count {
		require.Contains(y.t, planEvents[name], kind)
	}
	for kind, n := range planEvents[name] {
		require.GreaterOrEqual(y.t, count[kind], n.least, "%s", kind)
		require.LessOrEqual(y.t, count[kind], n.most, "%s", kind)
	}
	return events
}

// planLedger is what a year uses of a ledger.
type planLedger interface {
	CreateBudget(ctx context.Context, tenant string, r earmark.BudgetRequest, by earmark.Actor) (*earmark.Budget, error)
	CreateGrant(ctx context.Context, tenant, budgetID, key string, r earmark.GrantRequest, by earmark.Actor) (*earmark.Grant, error)
	Grants(ctx context.Context, tenant, budgetID string, f earmark.PageFilter) (earmark.Page[earmark.Grant], error)
	NoteGrants(ctx context.Context, limit int) (int, error)
	Budget(ctx context.Context, tenant, id string) (*earmark.Budget, error)
	Budgets(ctx context.Context, tenant string, f earmark.BudgetFilter) (earmark.Page[earmark.Budget], error)
	Reserve(ctx context.Context, a earmark.Admission) (earmark.Result, error)
	Commit(ctx context.Context, s earmark.Transition, usage earmark.Amounts) (earmark.Result, error)
}

// planYear is one customer's year on two ledgers.
type planYear struct {
	t         *testing.T
	random    *rand.Rand
	pool      *pgxpool.Pool
	postgres  *postgres.Ledger
	model     *ledgertest.Ledger
	now       time.Time
	budgets   []*earmark.Budget
	calls     int
	denials   map[string]int // by budget, or by its template
	receivers []planReceiver

	// What events are expected of, besides those of the model.
	opened    map[planWindow]bool
	exhausted map[planWindow]bool
	denied    int64           // how many times a budget denied
	sampled   int             // how many events say so: at most one a budget and minute
	waiting   map[string]bool // budgets with denials since the last event
	saidAt    map[string]time.Time
}

type planWindow struct {
	budgetID string
	start    int64
}

func newPlanYear(t *testing.T, s *stack.Stack, calls []planCall) *planYear {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s.Exec(ledgertest.VirtualClock + ledgertest.ReplaceClock("test"))
	pool, err := postgres.Open(t.Context(), s.DatabaseURL)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	y := &planYear{t: t, random: rand.New(rand.NewPCG(seed, 0)), pool: pool, postgres: postgres.New(pool), denials: map[string]int{},
		opened: map[planWindow]bool{}, exhausted: map[planWindow]bool{}, waiting: map[string]bool{}, saidAt: map[string]time.Time{}}
	y.model = ledgertest.New(func() time.Time { return y.now })
	y.setNow(time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC))
	y.watch(earmark.WebhookRequest{URL: "https://example.com/all"})
	for _, call := range calls {
		switch call.path {
		case "/v1/webhooks":
			y.watch(decodeStrictly[earmark.WebhookRequest](t, call.body))
		case "/v1/budgets/$BUDGET/grants":
			y.grant(call)
		default:
			require.Equal(t, "/v1/budgets", call.path)
			y.budget(call)
		}
	}
	return y
}

func (y *planYear) setNow(at time.Time) {
	y.t.Helper()
	_, err := y.pool.Exec(y.t.Context(), "UPDATE test.clock SET at = $1", at)
	require.NoError(y.t, err)
	y.now = at
}

func (y *planYear) budget(call planCall) {
	y.t.Helper()
	request := decodeStrictly[earmark.BudgetRequest](y.t, call.body).WithDefaults()
	require.NoError(y.t, request.Validate())
	y.budgets = append(y.budgets, onBoth(y, func(l planLedger) (*earmark.Budget, error) {
		b, err := l.CreateBudget(y.t.Context(), earmark.DefaultTenant, request, earmark.ActorAPI)
		if b != nil {
			y.model.NewBudgetID = func() string { return b.ID }
		}
		return b, err
	}))
}

// grant makes a grant of the last budget. The page has dates to come; the customer's year is the same one a hundred years before.
func (y *planYear) grant(call planCall) {
	y.t.Helper()
	request := decodeStrictly[earmark.GrantRequest](y.t, strings.ReplaceAll(call.body, `"21`, `"20`)).WithDefaults()
	require.NoError(y.t, request.Validate())
	budget := y.budgets[len(y.budgets)-1].ID
	onBoth(y, func(l planLedger) (*earmark.Grant, error) {
		return l.CreateGrant(y.t.Context(), earmark.DefaultTenant, budget, call.key, request, earmark.ActorAPI)
	})
}

// onBoth makes one call on both ledgers, whose answers are the same.
func onBoth[T any](y *planYear, call func(planLedger) (T, error)) T {
	y.t.Helper()
	got, err := call(y.postgres)
	require.NoError(y.t, err)
	want, err := call(y.model)
	require.NoError(y.t, err)
	gotText, err := json.MarshalIndent(got, "", "  ")
	require.NoError(y.t, err)
	wantText, err := json.MarshalIndent(want, "", "  ")
	require.NoError(y.t, err)
	require.Equal(y.t, string(wantText), string(gotText), "at %s", y.now)
	return got
}

const (
	planDays = 366
	// quietAfter is how many days the customer spends all, and then how many almost nothing.
	quietAfter = 90
)

func (y *planYear) run() {
	start := y.now
	for day := range planDays {
		at := start.AddDate(0, 0, day)
		calls := y.random.IntN(8)
		if day/quietAfter%2 == 1 {
			calls = 0
			if day%7 == 0 {
				calls = 1
			}
		}
		for range calls {
			at = at.Add(time.Duration(y.random.IntN(2*60)) * time.Minute)
			y.setNow(at)
			y.use()
		}
		y.compare()
	}
	y.setNow(y.now.Add(time.Minute))
	y.countDenials(nil) // what waits for its minute
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
	key := fmt.Sprintf("call-%d", y.calls)
	request := earmark.ReservationRequest{
		Scopes: []string{strings.Replace(y.budgets[0].Scope, "*", "ana", 1)}, Amounts: earmark.Amounts{y.budgets[0].Unit: reserved}}.WithDefaults()
	id := earmark.ReservationID(earmark.DefaultTenant, key)
	a := earmark.Admission{ID: id, Tenant: earmark.DefaultTenant, Request: request, RequestHash: request.Hash(), WorkflowID: "reservation-" + id}
	result := onBoth(y, func(l planLedger) (earmark.Result, error) { return l.Reserve(y.t.Context(), a) })
	if result.Outcome == earmark.OutcomeDenied {
		y.countDenials(result.Decision.Violations)
		return
	}
	require.Equal(y.t, earmark.OutcomeApplied, result.Outcome)
	for _, share := range result.Reservation.Budgets {
		if b := y.current(share.BudgetID); b.Window.Period != earmark.PeriodRolling {
			y.opened[planWindow{b.ID, share.WindowStart.UnixMicro()}] = true
		}
	}
	used := earmark.Amounts{y.budgets[0].Unit: y.random.Int64N(reserved + 1)}
	onBoth(y, func(l planLedger) (earmark.Result, error) {
		return l.Commit(y.t.Context(), earmark.Transition{ID: a.ID, Tenant: a.Tenant, Actor: earmark.ActorWorkflow}, used)
	})
}

// countDenials counts a denial as a server does. No request is larger than a limit, so each denial exhausts its budget.
func (y *planYear) countDenials(violations []earmark.Violation) {
	y.t.Helper()
	var counted []earmark.Denials
	for _, v := range violations {
		counted = append(counted, earmark.Denials{BudgetID: v.BudgetID, Count: 1, Requested: v.Requested, Limit: v.Limit, Available: v.Available})
		b := y.current(v.BudgetID)
		y.denials[cmp.Or(b.TemplateID, b.ID)]++
		y.exhausted[planWindow{b.ID, b.Balance.WindowStart.UnixMicro()}] = true
		y.denied++
		y.waiting[b.ID] = true
	}
	_, err := y.postgres.CountDenials(y.t.Context(), earmark.DefaultTenant, counted)
	require.NoError(y.t, err)
	for id := range y.waiting {
		if y.now.Sub(y.saidAt[id]) >= time.Minute {
			y.sampled++
			y.saidAt[id] = y.now
			delete(y.waiting, id)
		}
	}
}

func (y *planYear) current(budgetID string) *earmark.Budget {
	y.t.Helper()
	b, err := y.postgres.Budget(y.t.Context(), earmark.DefaultTenant, budgetID)
	require.NoError(y.t, err)
	return b
}

func (y *planYear) compare() {
	y.t.Helper()
	for _, b := range y.budgets {
		onBoth(y, func(l planLedger) (earmark.Page[earmark.Grant], error) {
			return l.Grants(y.t.Context(), earmark.DefaultTenant, b.ID, earmark.PageFilter{})
		})
	}
	onBoth(y, func(l planLedger) (int, error) { return l.NoteGrants(y.t.Context(), earmark.MaxPageSize) })
	onBoth(y, func(l planLedger) (earmark.Page[earmark.Budget], error) {
		return l.Budgets(y.t.Context(), earmark.DefaultTenant, earmark.BudgetFilter{Limit: earmark.MaxPageSize})
	})
}
