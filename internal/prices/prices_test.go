package prices

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/pricing"
	"github.com/earmark-dev/earmark/usage"
)

var (
	morning = time.Date(2026, 11, 28, 6, 0, 0, 0, time.UTC)
	noon    = morning.Add(6 * time.Hour)
	evening = noon.Add(6 * time.Hour)
)

// shelf is a source in memory.
type shelf struct {
	versions []Version
	reads    int
	err      error
}

func (s *shelf) PriceVersions(_ context.Context, after int64) ([]Version, error) {
	s.reads++
	if s.err != nil {
		return nil, s.err
	}
	return s.versions[after:], nil
}

func (s *shelf) add(tenant string, c Changes) int64 {
	s.versions = append(s.versions, Version{ID: int64(len(s.versions)) + 1, Tenant: tenant, Changes: c})
	return int64(len(s.versions))
}

func entry(model, input string, from time.Time, aliases ...string) pricing.Entry {
	return pricing.Entry{Provider: "openai", Model: model, From: from, Aliases: aliases,
		Prices: pricing.Prices{Rates: pricing.Rates{pricing.Input: pricing.PerMillion(input), pricing.Output: pricing.PerMillion("10")}}}
}

func entries(e ...pricing.Entry) Changes { return Changes{Entries: e} }

func million(model string) usage.Usage {
	return usage.Usage{Model: model, Input: usage.Input{Tokens: 1_000_000}}
}

// cost is the price of a million input tokens, in micro-dollars.
func cost(t *testing.T, p *Prices, model string, at time.Time, scopes ...string) int64 {
	t.Helper()
	charge, err := p.Price(million(model), pricing.Query{Model: model, Time: at}, scopes)
	require.NoError(t, err)
	return charge.USDMicros
}

func current(t *testing.T, b *Book, tenant string) *Prices {
	t.Helper()
	b.Added()
	p, err := b.Current(t.Context(), tenant)
	require.NoError(t, err)
	return p
}

func TestAVersionIsExactWhateverComesLater(t *testing.T) {
	s := &shelf{}
	b := NewBook(s)
	first := s.add(Installation, entries(entry("gpt", "1", morning)))
	require.Equal(t, int64(1_000_000), cost(t, current(t, b, "acme"), "gpt", evening))
	second := s.add(Installation, entries(entry("gpt", "2", noon)))
	s.add(Installation, entries(entry("gpt", "3", morning))) // corrects the past
	latest := current(t, b, "acme")
	require.Equal(t, int64(3_000_000), cost(t, latest, "gpt", morning))
	require.Equal(t, int64(2_000_000), cost(t, latest, "gpt", noon))

	for version, want := range map[int64][2]int64{first: {1_000_000, 1_000_000}, second: {1_000_000, 2_000_000}} {
		p, err := b.Version(t.Context(), "acme", version)
		require.NoError(t, err)
		require.Equal(t, version, p.Version)
		require.Equal(t, want, [2]int64{cost(t, p, "gpt", morning), cost(t, p, "gpt", evening)})
	}
	_, err := b.Version(t.Context(), "acme", 4)
	require.Equal(t, earmark.CodeNotFound, earmark.ErrorCode(err))
}

func TestOwnPricesTakePrecedence(t *testing.T) {
	s := &shelf{}
	s.add(Installation, entries(entry("gpt", "1", morning, "gpt-latest"), entry("mini", "0.5", morning)))
	s.add("acme", entries(entry("gpt", "7", noon)))
	s.add(Installation, entries(entry("gpt", "2", evening)))
	b := NewBook(s)
	acme, other := current(t, b, "acme"), current(t, b, "other")
	require.Equal(t, int64(1_000_000), cost(t, acme, "gpt", morning), "before its own price begins")
	require.Equal(t, int64(7_000_000), cost(t, acme, "gpt", noon))
	require.Equal(t, int64(7_000_000), cost(t, acme, "gpt", evening), "also after a later one of the installation")
	require.Equal(t, int64(500_000), cost(t, acme, "mini", noon))
	require.Equal(t, int64(2_000_000), cost(t, other, "gpt", evening))
	_, err := acme.Find("openai", "gpd", noon)
	var e *earmark.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, earmark.CodeUnknownModel, e.Code)
	require.Equal(t, "model", e.Field)
	require.Contains(t, e.Nearest, "openai/gpt")
}

func TestALaterEntryTakesNames(t *testing.T) {
	merged := entriesOf([]Version{
		{Changes: entries(entry("a", "1", noon, "x", "y"), entry("b", "2", noon))},
		{Changes: entries(entry("c", "3", noon, "Y"), entry("B", "4", noon))},
		{Changes: entries(entry("d", "5", noon, "a"))},
	})
	table, err := pricing.NewTable(merged...)
	require.NoError(t, err)
	for name, want := range map[string]string{"a": "d", "y": "c", "b": "B", "c": "c", "d": "d"} {
		e, err := table.Find("openai", name, noon)
		require.NoError(t, err)
		require.Equal(t, want, e.Model, name)
	}
	_, err = table.Find("openai", "x", noon)
	require.Error(t, err, "the entry that had it is replaced")
}

func TestTheMostSpecificMultiplierApplies(t *testing.T) {
	factor := func(m Multiplier, text string) Multiplier {
		if text != "" {
			m.Factor = pricing.MustDecimal(text)
		}
		return m
	}
	gpt, scope, deep := Multiplier{Provider: "openai", Model: "gpt"}, Multiplier{Scope: "acme/ml"}, Multiplier{Scope: "acme/ml/x"}
	s := &shelf{}
	s.add(Installation, entries(entry("gpt", "1", morning, "alias"), entry("mini", "1", morning)))
	s.add(Installation, Changes{Multipliers: []Multiplier{factor(Multiplier{}, "1.1"), factor(gpt, "1.2")}})
	s.add("acme", Changes{Multipliers: []Multiplier{factor(scope, "1.5"), factor(deep, "0.9"), factor(Multiplier{Scope: "zoo"}, "1.4")}})
	b := NewBook(s)
	acme, other := current(t, b, "acme"), current(t, b, "other")
	require.Equal(t, int64(1_100_000), cost(t, acme, "mini", noon))
	require.Equal(t, int64(1_200_000), cost(t, acme, "alias", noon, "acme/mlx"))
	require.Equal(t, int64(1_500_000), cost(t, acme, "gpt", noon, "acme/ml"))
	require.Equal(t, int64(1_500_000), cost(t, acme, "gpt", noon, "zoo", "acme/ml/y"), "the deeper of two scopes")
	require.Equal(t, int64(1_400_000), cost(t, acme, "gpt", noon, "zoo/a", "yak"))
	require.Equal(t, int64(900_000), cost(t, acme, "gpt", noon, "acme/ml/x/z", "acme/ml"))
	require.Equal(t, int64(1_200_000), cost(t, other, "gpt", noon, "acme/ml"))

	s.add("acme", Changes{Multipliers: []Multiplier{factor(Multiplier{}, "2"), factor(gpt, "3"), factor(deep, "")}})
	acme = current(t, b, "acme")
	require.Equal(t, int64(2_000_000), cost(t, acme, "mini", noon), "the tenant's replaces the installation's")
	require.Equal(t, int64(3_000_000), cost(t, acme, "gpt", noon))
	require.Equal(t, int64(1_500_000), cost(t, acme, "gpt", noon, "acme/ml/x"), "a multiplier that was taken back")
	s.add("acme", Changes{Multipliers: []Multiplier{factor(gpt, "")}})
	require.Equal(t, int64(1_200_000), cost(t, current(t, b, "acme"), "gpt", noon), "back to the installation's")
	require.Equal(t, int64(1_100_000), cost(t, current(t, b, "other"), "mini", noon))
}

func TestResaleRoundsUp(t *testing.T) {
	s := &shelf{}
	s.add(Installation, entries(entry("gpt", "1", morning)))
	s.add(Installation, Changes{Multipliers: []Multiplier{{Factor: pricing.MustDecimal("1.000001")}}})
	charge, err := current(t, NewBook(s), "acme").Price(usage.Usage{Input: usage.Input{Tokens: 1}}, pricing.Query{Model: "gpt", Time: noon}, nil)
	require.NoError(t, err)
	require.Equal(t, int64(2), charge.USDMicros)
	require.Equal(t, "0.000001000001", charge.USD())
}

func TestFallback(t *testing.T) {
	s := &shelf{}
	s.add(Installation, entries(entry("gpt", "1", morning), entry("mini", "0.5", morning)))
	b := NewBook(s)
	_, err := current(t, b, "acme").Price(million("new"), pricing.Query{Model: "new", Time: noon}, nil)
	require.Equal(t, earmark.CodeUnknownModel, earmark.ErrorCode(err))
	s.add("acme", Changes{Fallback: &Model{"openai", "gpt"}})
	acme := current(t, b, "acme")
	require.Equal(t, int64(1_000_000), cost(t, acme, "new", noon))
	require.Equal(t, int64(500_000), cost(t, acme, "mini", noon))
	e, err := acme.Find("elsewhere", "new", noon)
	require.NoError(t, err)
	require.Equal(t, "gpt", e.Model)
	parts := usage.Usage{Model: "mini", Each: []usage.Usage{million("new"), million("mini")}}
	charge, err := acme.Price(parts, pricing.Query{Model: "mini", Time: noon}, nil)
	require.NoError(t, err)
	require.Equal(t, int64(1_500_000), charge.USDMicros)
	_, ok := current(t, b, "other").Fallback()
	require.False(t, ok)
	s.add("acme", Changes{Fallback: &Model{}})
	_, ok = current(t, b, "acme").Fallback()
	require.False(t, ok, "it was taken back")
}

func TestAMissingPartIsUnpriced(t *testing.T) {
	s := &shelf{}
	s.add(Installation, entries(entry("gpt", "1", morning)))
	u := usage.Usage{Input: usage.Input{Tokens: 10, CacheWrite: 5}}
	_, err := current(t, NewBook(s), "acme").Price(u, pricing.Query{Model: "gpt", Time: noon}, nil)
	require.Equal(t, earmark.CodeUnpriced, earmark.ErrorCode(err))
	require.ErrorContains(t, err, "cache_write has no rate")
}

func TestTheNewestVersionIsAskedForEvery3Seconds(t *testing.T) {
	s := &shelf{}
	b := NewBook(s)
	now := noon
	b.now = func() time.Time { return now }
	read := func() int64 {
		p, err := b.Current(t.Context(), "acme")
		require.NoError(t, err)
		return p.Version
	}
	require.Zero(t, read())
	s.add(Installation, entries(entry("gpt", "1", morning)))
	now = now.Add(fresh - time.Nanosecond)
	require.Zero(t, read())
	require.Equal(t, 1, s.reads)
	now = now.Add(time.Nanosecond)
	require.Equal(t, int64(1), read())

	s.add(Installation, entries(entry("gpt", "2", noon)))
	p, err := b.Version(t.Context(), "acme", 2) // of another process
	require.NoError(t, err)
	require.Equal(t, int64(2_000_000), cost(t, p, "gpt", noon))

	s.err = errors.New("away")
	reads := s.reads
	_, err = b.Version(t.Context(), "other", 1)
	require.NoError(t, err, "a version that is known needs no source")
	require.Equal(t, reads, s.reads)
	now = now.Add(fresh)
	_, err = b.Current(t.Context(), "acme")
	require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(err))
}

func TestAddDraftsAnewWhenAnotherCameFirst(t *testing.T) {
	s := &shelf{}
	b := NewBook(s)
	s.add(Installation, entries(entry("gpt", "1", morning)))
	var drafted []int64
	add := func(_ context.Context, after int64, c Changes) (*Version, error) {
		if len(s.versions) == 1 {
			s.add("other", entries(entry("gpt", "4", noon)))
		}
		if after != int64(len(s.versions)) {
			return nil, nil
		}
		s.add("acme", c)
		return &s.versions[after], nil
	}
	v, err := b.Add(t.Context(), "acme", func(state State) (Changes, error) {
		drafted = append(drafted, state.Version)
		return entries(entry("gpt", "3", noon)), nil
	}, add)
	require.NoError(t, err)
	require.Equal(t, int64(3), v.ID)
	require.Equal(t, []int64{1, 2}, drafted)
	p, err := b.Current(t.Context(), "acme")
	require.NoError(t, err)
	require.Equal(t, int64(3), p.Version, "what this process added holds at once")

	v, err = b.Add(t.Context(), "acme", func(State) (Changes, error) { return Changes{}, nil }, add)
	require.NoError(t, err)
	require.Nil(t, v)
	bad := entry("gpt", "3", noon)
	bad.Rates = pricing.Rates{"nonsense": pricing.USD("1")}
	_, err = b.Add(t.Context(), "acme", func(State) (Changes, error) { return entries(entry("x", "1", noon), bad), nil }, add)
	require.Equal(t, earmark.CodeInvalidRequest, earmark.ErrorCode(err))
	require.ErrorContains(t, err, "entries[1]")
	require.Len(t, s.versions, 3)
}

func TestOnlyWhatDiffersChanges(t *testing.T) {
	show := func(entries []pricing.Entry) (lines []string) {
		for _, e := range entries {
			lines = append(lines, fmt.Sprintf("%s %s from %s", e.Model, e.Rates[pricing.Input].USD.String(), e.From.Format("15:04")))
		}
		return lines
	}
	var undated time.Time
	for name, test := range map[string]struct{ present, table, want []pricing.Entry }{
		"new":                {nil, []pricing.Entry{entry("a", "1", undated)}, []pricing.Entry{entry("a", "1", noon)}},
		"equal":              {[]pricing.Entry{entry("a", "1", morning)}, []pricing.Entry{entry("a", "1", undated)}, nil},
		"changed":            {[]pricing.Entry{entry("a", "1", morning), entry("b", "1", morning)}, []pricing.Entry{entry("a", "2", undated), entry("b", "1", undated)}, []pricing.Entry{entry("a", "2", noon)}},
		"back":               {[]pricing.Entry{entry("a", "1", morning), entry("a", "2", noon)}, []pricing.Entry{entry("a", "1", undated)}, []pricing.Entry{entry("a", "1", noon)}},
		"planned later":      {[]pricing.Entry{entry("a", "1", morning), entry("a", "2", evening)}, []pricing.Entry{entry("a", "1", undated)}, nil},
		"dated in the table": {nil, []pricing.Entry{entry("a", "1", undated), entry("a", "2", morning), entry("a", "3", evening)}, []pricing.Entry{entry("a", "2", noon), entry("a", "3", evening)}},
		"dated, and known":   {[]pricing.Entry{entry("a", "2", morning)}, []pricing.Entry{entry("a", "2", undated), entry("a", "3", evening)}, []pricing.Entry{entry("a", "3", evening)}},
		"dated, and again":   {[]pricing.Entry{entry("a", "2", noon), entry("a", "3", evening)}, []pricing.Entry{entry("a", "2", undated), entry("a", "3", evening)}, nil},
	} {
		require.Equal(t, show(test.want), show(Changed(test.present, test.table, noon)), name)
	}
}
