package postgres_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/amounts"
	"github.com/earmark-dev/earmark/internal/prices"
	"github.com/earmark-dev/earmark/pricing"
)

// The short form is among the tests; `make day` is the whole day.
var dayRequests = flag.Int("day", 500, "requests of TestDayIsExact")

const (
	dayModels    = 20
	dayScopes    = 8
	dayAtOnce    = 8
	dayEstimated = 11 // each 11th request breaks off, and is corrected by its real usage
	dayLeftOpen  = 7  // each 7th is settled in the evening, also those of the morning
	dayCorrected = 13 // each 13th is corrected by the invoice
)

// daily is one request of the day and what the test itself knows of it.
type daily struct {
	model                               int
	at                                  time.Time
	afternoon                           bool
	plain, read, written, text, thought int64
	correction                          int64
}

// TestDayIsExact sends a day's requests of twenty models in three dialects through estimates,
// reservations, commits, broken streams and corrections, with a change of all prices at
// noon, and compares the ledger with a sum of the test's own in exact fractions.
func TestDayIsExact(t *testing.T) {
	b := setup(t)
	n, seed := *dayRequests, rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	midnight := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
	noon := midnight.Add(12 * time.Hour)
	var budgets []*earmark.Budget
	for i := range dayScopes {
		scope := fmt.Sprintf("acme/u%d", i)
		budgets = append(budgets, b.budget(scope, earmark.UnitUSDMicros, 1<<60))
		b.budget(scope, earmark.UnitTokens, 1<<60)
	}

	var rates [2][dayModels][5]string // before and after noon: input, read, written, output, thought; US dollars a million
	for half := range rates {
		for model := range dayModels {
			for part := range rates[half][model] {
				rates[half][model][part] = fmt.Sprintf("%d.%04d", random.IntN(20), random.IntN(10_000))
			}
		}
	}
	book := prices.NewBook(b.Ledger)
	publish := func(half int, from time.Time) {
		var entries []pricing.Entry
		for model, r := range rates[half] {
			entries = append(entries, pricing.Entry{Provider: "vendor", Model: fmt.Sprintf("model-%d", model), From: from, Prices: pricing.Prices{Rates: pricing.Rates{
				pricing.Input: pricing.PerMillion(r[0]), pricing.CacheRead: pricing.PerMillion(r[1]), pricing.CacheWrite5m: pricing.PerMillion(r[2]),
				pricing.Output: pricing.PerMillion(r[3]), pricing.Reasoning: pricing.PerMillion(r[4])}}})
		}
		added, err := b.owner.AddPrices(ctx(), prices.Installation, int64(half), prices.Changes{Entries: entries}, "the day", earmark.OperatorActor("alice"), "")
		require.NoError(t, err)
		require.NotNil(t, added)
		book.Added()
	}

	day := make([]*daily, n)
	for i := range day {
		d := &daily{model: random.IntN(dayModels), at: midnight.Add(time.Duration(i) * 24 * time.Hour / time.Duration(n)), afternoon: i >= n/2}
		d.plain, d.text = random.Int64N(100_000), random.Int64N(5_000)
		if random.IntN(2) == 0 {
			d.read = random.Int64N(50_000)
		}
		if dialect(d.model) == "anthropic" && random.IntN(3) == 0 {
			d.written = random.Int64N(20_000)
		}
		if random.IntN(3) == 0 {
			d.thought = random.Int64N(10_000)
		}
		if i%dayCorrected == 0 {
			d.correction = random.Int64N(1_000) + 1
		}
		day[i] = d
	}
	all := func(from, to int, call func(i int) error) {
		var group errgroup.Group
		group.SetLimit(dayAtOnce)
		for i := from; i < to; i++ {
			group.Go(func() error { return call(i) })
		}
		require.NoError(t, group.Wait())
	}
	request := func(i int) error {
		if err := b.reserveDaily(book, i, day[i]); err != nil || i%dayLeftOpen == 0 {
			return err
		}
		return b.settleDaily(book, i, day[i])
	}
	publish(0, time.Time{})
	all(0, n/2, request)
	publish(1, noon)
	all(n/2, n, request)
	all(0, n, func(i int) error {
		if i%dayLeftOpen != 0 {
			return nil
		}
		return b.settleDaily(book, i, day[i])
	})

	want := make([]int64, dayScopes)
	for i, d := range day {
		half := 0
		if d.afternoon {
			half = 1
		}
		sum := new(big.Rat) // micro-dollars: a dollar a million tokens is a micro-dollar a token
		for part, count := range []int64{d.plain, d.read, d.written, d.text, d.thought} {
			rate, ok := new(big.Rat).SetString(rates[half][d.model][part])
			require.True(t, ok)
			sum.Add(sum, rate.Mul(rate, new(big.Rat).SetInt64(count)))
		}
		sum.Add(sum, big.NewRat(1, 2)) // half up
		micros := new(big.Int).Quo(sum.Num(), sum.Denom()).Int64()
		want[i%dayScopes] += micros + d.correction
	}
	for i, budget := range budgets {
		b.requireBalance(budget.ID, 0, want[i])
	}
}

func dialect(model int) string { return []string{"openai_chat", "anthropic", "gemini"}[model%3] }

// usage is what a provider would send.
func (d *daily) usage() json.RawMessage {
	input, output := d.plain+d.read+d.written, d.text+d.thought
	var raw map[string]any
	switch dialect(d.model) {
	case "openai_chat":
		raw = map[string]any{"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
			"prompt_tokens_details": map[string]int64{"cached_tokens": d.read}, "completion_tokens_details": map[string]int64{"reasoning_tokens": d.thought}}
	case "anthropic":
		raw = map[string]any{"input_tokens": d.plain, "cache_read_input_tokens": d.read, "cache_creation_input_tokens": d.written, "output_tokens": output,
			"cache_creation":        map[string]int64{"ephemeral_5m_input_tokens": d.written, "ephemeral_1h_input_tokens": 0},
			"output_tokens_details": map[string]int64{"thinking_tokens": d.thought}}
	default:
		raw = map[string]any{"promptTokenCount": input, "cachedContentTokenCount": d.read, "candidatesTokenCount": d.text, "thoughtsTokenCount": d.thought, "totalTokenCount": input + output}
	}
	encoded, err := json.Marshal(raw)
	if err != nil {
		panic(err) // a map of numbers encodes
	}
	return encoded
}

func (b *env) reserveDaily(book *prices.Book, i int, d *daily) error {
	current, err := book.Current(ctx(), earmark.DefaultTenant)
	if err != nil {
		return err
	}
	scopes := []string{fmt.Sprintf("acme/u%d", i%dayScopes)}
	limit := d.text + d.thought
	estimate := earmark.Estimate{Model: fmt.Sprintf("model-%d", d.model), InputTokens: max(1, d.plain+d.read+d.written), MaxOutputTokens: &limit}
	worst, err := amounts.Worst(estimate, []string{earmark.UnitTokens, earmark.UnitUSDMicros}, scopes, current, d.at)
	if err != nil {
		return err
	}
	a := admission(fmt.Sprintf("day-%d", i), worst, scopes...)
	a.Request.Metadata = a.Request.Metadata.With(earmark.Priced{Model: estimate.Model, Version: current.Version, At: d.at})
	result, err := b.Reserve(ctx(), a)
	if err == nil && result.Outcome != earmark.OutcomeApplied {
		err = fmt.Errorf("request %d: %s", i, result.Outcome)
	}
	return err
}

// settleDaily charges what the provider sent, at the prices that the reservation remembers.
func (b *env) settleDaily(book *prices.Book, i int, d *daily) error {
	id := earmark.ReservationID(earmark.DefaultTenant, fmt.Sprintf("day-%d", i))
	r, err := b.Reservation(ctx(), earmark.DefaultTenant, id)
	if err != nil {
		return err
	}
	priced := r.Metadata.Priced()
	version, err := book.Version(ctx(), earmark.DefaultTenant, priced.Version)
	if err != nil {
		return err
	}
	response := earmark.Response{ProviderUsage: d.usage(), UsageFormat: dialect(d.model)}
	used, _, err := amounts.Used(response, r.Amounts.Units(), r.Scopes, version, priced, d.at)
	if err != nil {
		return err
	}
	for unit, amount := range used {
		if amount > r.Amounts[unit] {
			return fmt.Errorf("request %d: %d %s were used, and %d reserved", i, amount, unit, r.Amounts[unit])
		}
	}
	s := earmark.Transition{ID: id, Tenant: earmark.DefaultTenant, Actor: earmark.ActorAPI}
	commit := func(s earmark.Transition, usage earmark.Amounts) error {
		result, err := b.Commit(ctx(), s, usage)
		if err == nil && result.Outcome != earmark.OutcomeApplied {
			err = fmt.Errorf("request %d: commit: %s", i, result.Outcome)
		}
		return err
	}
	if i%dayEstimated == 0 {
		broken := s
		broken.Estimated = true
		if err := commit(broken, earmark.Amounts{earmark.UnitTokens: 1, earmark.UnitUSDMicros: 1}); err != nil {
			return err
		}
	}
	if err := commit(s, used); err != nil || d.correction == 0 {
		return err
	}
	result, err := b.Correct(ctx(), earmark.Correction{ID: "invoice", ReservationID: id, Tenant: earmark.DefaultTenant, Actor: earmark.ActorAPI,
		Request: earmark.CorrectionRequest{Amounts: earmark.Amounts{earmark.UnitUSDMicros: d.correction}, Reason: "the invoice differs"}})
	if err == nil && result.Outcome != earmark.OutcomeApplied {
		err = fmt.Errorf("request %d: correction: %s", i, result.Outcome)
	}
	return err
}
