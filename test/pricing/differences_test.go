package pricing_test

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/earmark-dev/earmark/pricing"
)

// answer is what another program says.
type answer struct {
	USD   float64 `json:"usd"`
	Model string  `json:"model"`
	Error string  `json:"error"`
}

// outcome is one comparison.
type outcome struct {
	Case   testCase
	Entry  *pricing.Entry
	Ours   string // exact dollars, or empty
	Error  error
	Theirs answer
}

func sameUSD(ours string, theirs float64) bool {
	n, err := strconv.ParseFloat(ours, 64)
	return err == nil && math.Abs(n-theirs) <= 1e-9*math.Max(math.Abs(n), math.Abs(theirs))
}

func here(o *outcome) string {
	if o.Error != nil {
		return "refused"
	}
	return o.Ours
}

func there(o *outcome) string {
	if o.Theirs.Error != "" {
		return "refused: " + o.Theirs.Error
	}
	return strconv.FormatFloat(o.Theirs.USD, 'g', 12, 64)
}

const (
	equalPrice  = "equal"
	bothRefused = "refused by both"
)

// difference is a known way in which another program comes to another price.
type difference struct {
	why     string
	applies func(program string, o *outcome) bool
}

// differences are in the order in which they are tried. What applies must be sure: where both name a price, the other
// program's is derived again.
var differences = []difference{
	{
		"cache writes without a price, or without one for this duration: refused here; billed there as ordinary input or as a shorter duration",
		func(program string, o *outcome) bool {
			return program != "tokenlens" && strings.HasPrefix(string(o.part()), "cache_write")
		},
	},
	{
		"no price for input or for output at all, as with embeddings and OCR: refused here, free there",
		func(program string, o *outcome) bool {
			_, hasInput := o.Entry.Rates[pricing.Input]
			_, hasOutput := o.Entry.Rates[pricing.Output]
			return program != "tokenlens" && o.part() != "" && (!hasInput || !hasOutput)
		},
	},
	{
		"a context tier or service tier without this price, or with one of input and output alone: refused here, completed there from other prices",
		func(program string, o *outcome) bool {
			return program == "LiteLLM" && o.part() != "" && (o.Case.Tier != "" || aboveTier(o.Entry, o.Case.In))
		},
	},
	{
		"an id that the program's own patterns for names do not match: a name here, unknown there",
		func(program string, o *outcome) bool { return program == "genai-prices" && o.Theirs.Error == "unknown" },
	},
	{
		"cached tokens beside audio or images, without saying how many are both: counted as text here, refused there",
		func(program string, o *outcome) bool {
			return program == "genai-prices" && strings.HasPrefix(o.Theirs.Error, "Missing usage value for cache_") && o.Case.CacheRead > 0
		},
	},
	{
		"exactly at a threshold of OpenAI, which is inclusive: the higher price here, the lower there",
		func(program string, o *outcome) bool {
			return program == "LiteLLM" && o.Case.Provider == "openai" && o.Error == nil && sameUSD(o.Below(), o.Theirs.USD)
		},
	},
	{
		"a service tier that the program does not know for this provider: its price here, the standard price there",
		func(program string, o *outcome) bool {
			if program != "LiteLLM" || o.Case.Tier == "" || o.Error != nil {
				return false
			}
			standard := *o
			standard.Case.Tier = ""
			return sameUSD(o.Standard(), o.Theirs.USD) || o.Case.Provider == "openai" && sameUSD(standard.Below(), o.Theirs.USD)
		},
	},
	{
		"cache reads at Fireworks, for which the table has no price: ordinary input here, half of it there",
		func(program string, o *outcome) bool {
			return program == "LiteLLM" && o.Case.Provider == "fireworks_ai" && o.Error == nil && o.Case.CacheRead > 0 && sameUSD(o.HalfCacheRead(), o.Theirs.USD)
		},
	},
	{
		"context tiers, cache writes and the price of a request at Perplexity: charged here, left out there",
		func(program string, o *outcome) bool {
			return program == "LiteLLM" && o.Case.Provider == "perplexity" && o.Error == nil && sameUSD(o.Flat(), o.Theirs.USD)
		},
	},
	{
		"two entries of the table for one provider and name: here the one that has prices, there the one with the provider's prefix, of 0",
		func(program string, o *outcome) bool {
			return program == "LiteLLM" && o.Case.Twice && o.Error == nil && o.Theirs.USD == 0
		},
	},
	{
		"cache reads and writes without a price: ordinary input or refused here, free there",
		func(program string, o *outcome) bool {
			uncached := o.Case
			uncached.In, uncached.CacheRead, uncached.CacheWrite = uncached.In-uncached.CacheRead-uncached.CacheWrite, 0, 0
			return program == "tokenlens" && o.Case.CacheRead+o.Case.CacheWrite > 0 && o.Theirs.USD > 0 &&
				(strings.HasPrefix(string(o.part()), "cache_write") || sameUSD(o.priced(uncached, o.Entry), o.Theirs.USD))
		},
	},
	{
		"a model that the program does not find by its id: 0 there",
		func(program string, o *outcome) bool { return program == "tokenlens" && o.Theirs.USD == 0 },
	},
}

// explain says that the two agree, or why not; empty where nothing explains it.
func explain(program string, o *outcome) string {
	switch refused := o.Theirs.Error != ""; {
	case o.Error != nil && refused:
		return bothRefused
	case o.Error == nil && !refused && sameUSD(o.Ours, o.Theirs.USD):
		return equalPrice
	}
	for _, d := range differences {
		if d.applies(program, o) {
			return d.why
		}
	}
	return ""
}

// part is what has no rate here, or empty.
func (o *outcome) part() pricing.Part {
	var unpriced *pricing.UnpricedError
	if errors.As(o.Error, &unpriced) {
		return unpriced.Part
	}
	return ""
}

// priced is the price by another entry, or empty where it has none.
func (o *outcome) priced(c testCase, e *pricing.Entry) string {
	table, err := pricing.NewTable(*e)
	if err != nil {
		return ""
	}
	charge, err := table.Price(c.usage(), c.query())
	if err != nil {
		return ""
	}
	return charge.USD()
}

// Standard is the price at the standard service tier.
func (o *outcome) Standard() string {
	c := o.Case
	c.Tier = ""
	return o.priced(c, o.Entry)
}

// Below is the price if no threshold were inclusive.
func (o *outcome) Below() string {
	e := *o.Entry
	exclude := func(p pricing.Prices) pricing.Prices {
		p.Tiers = slices.Clone(p.Tiers)
		for i := range p.Tiers {
			p.Tiers[i].Inclusive = false
		}
		return p
	}
	e.Prices = exclude(e.Prices)
	e.Variants = slices.Clone(e.Variants)
	for i, v := range e.Variants {
		if v.Prices != nil {
			prices := exclude(*v.Prices)
			e.Variants[i].Prices = &prices
		}
	}
	return o.priced(o.Case, &e)
}

// Flat is the price without context tiers and without a price of a request, with cache writes as ordinary input.
func (o *outcome) Flat() string {
	e := *o.Entry
	e.Tiers, e.Rates = nil, maps.Clone(e.Rates)
	delete(e.Rates, pricing.Requests)
	for _, part := range [...]pricing.Part{pricing.CacheWrite, pricing.CacheWrite5m, pricing.CacheWrite1h} {
		e.Rates[part] = pricing.As(pricing.Input)
	}
	for _, part := range [...]pricing.Part{pricing.CacheWrite30m, pricing.CacheWrite12h} {
		delete(e.Rates, part)
	}
	return o.priced(o.Case, &e)
}

// HalfCacheRead is the price if cache reads cost half of input.
func (o *outcome) HalfCacheRead() string {
	c, e := o.Case, *o.Entry
	c.Tier = "" // LiteLLM does not know this provider's
	e.Rates = maps.Clone(e.Rates)
	input, err := strconv.ParseFloat(e.Rates[pricing.Input].USD.String(), 64)
	if err != nil || e.Rates[pricing.CacheRead].As != pricing.Input {
		return ""
	}
	e.Rates[pricing.CacheRead] = pricing.USD(strconv.FormatFloat(input/2, 'f', -1, 64))
	return o.priced(c, &e)
}

func aboveTier(e *pricing.Entry, input int64) bool {
	return len(e.Tiers) > 0 && input >= e.Tiers[0].Threshold
}
