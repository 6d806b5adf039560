package pricing

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/earmark-dev/earmark/usage"
)

// Query says how to price a usage. What the response itself says (model, service tier,
// speed, region) takes precedence.
type Query struct {
	// Provider is the company that bills; it may be empty if only one provider has the
	// model.
	Provider string
	// Model is used if the usage names no model, or one that the table does not know, such
	// as the name of a deployment.
	Model string
	// Time decides which prices apply. It is required.
	Time time.Time
	// ResponseTime is the time of the response; it decides which off-peak hours apply. The
	// zero time means Time.
	ResponseTime time.Time
	// ServiceTier, Speed and Region are used if the usage names none. A batch is the
	// service tier "batch".
	ServiceTier string
	Speed       string
	Region      string
	// Estimate rounds up instead of half up.
	Estimate bool
	// FallbackProvider and FallbackModel price what has a model that the table does not
	// know. Without a FallbackModel that is an error.
	FallbackProvider, FallbackModel string
	// Multiplier is for resale: the sum is multiplied by it, exactly, and rounded up. 0
	// means none.
	Multiplier Decimal
}

// Charge is the cost of a usage.
type Charge struct {
	// USDMicros are micro-dollars, rounded once.
	USDMicros int64
	exact     sum
}

// USD returns the exact amount in US dollars, before rounding, as a decimal.
func (c *Charge) USD() string { return c.exact.String() }

// Price returns the cost of a usage. If a gateway reported what it charged, that is the
// amount, and the table is not used.
//
// The error is an [*UnknownModelError] or [*UnpricedError] if the table has no price.
func (t *Table) Price(u usage.Usage, q Query) (Charge, error) {
	return t.price(&u, &q, nil)
}

// Explain is Price with the lines of the sum.
func (t *Table) Explain(u usage.Usage, q Query) (Explanation, error) {
	var lines []Line
	charge, err := t.price(&u, &q, &lines)
	if err != nil {
		return Explanation{}, err
	}
	return Explanation{Lines: lines, Multiplier: q.Multiplier, Estimate: q.Estimate, Charge: charge}, nil
}

func (t *Table) price(u *usage.Usage, q *Query, lines *[]Line) (Charge, error) {
	if q.Time.IsZero() {
		return Charge{}, errors.New("the time of the response is missing: it decides which prices hold")
	}
	all := new(sum)
	switch {
	case u.Cost.USD != "":
		if err := addGatewayCost(all, u.Cost, lines); err != nil {
			return Charge{}, err
		}
	case len(u.Each) > 0:
		for i := range u.Each {
			if err := t.addPart(all, &u.Each[i], u.Model, q, lines); err != nil {
				return Charge{}, err
			}
		}
	default:
		if err := t.addPart(all, u, u.Model, q, lines); err != nil {
			return Charge{}, err
		}
	}
	up := q.Estimate
	if !q.Multiplier.IsZero() {
		all.multiply(q.Multiplier)
		up = true
	}
	micros, err := all.micros(up)
	if err != nil {
		return Charge{}, err
	}
	return Charge{USDMicros: micros, exact: *all}, nil
}

func addGatewayCost(all *sum, cost usage.Cost, lines *[]Line) error {
	for _, amount := range [...]struct{ what, usd string }{{"charged by the gateway", cost.USD.String()}, {"charged by the provider beside it", cost.UpstreamUSD.String()}} {
		if amount.usd == "" {
			continue
		}
		usd, err := ParseDecimal(amount.usd)
		if err != nil {
			return fmt.Errorf("the gateway's cost: %w", err)
		}
		all.add(1, usd, 0)
		if lines != nil {
			*lines = append(*lines, Line{What: amount.what, Count: "1", USD: usd.String(), RateUSD: usd.String()})
		}
	}
	return nil
}

// findFor finds the entry for one part of a usage. main is the model that the response
// names for the whole usage.
func (t *Table) findFor(u *usage.Usage, main string, q *Query) (*Entry, error) {
	model := u.Model
	if model == "" {
		model = main
	}
	var e *Entry
	var err error
	switch {
	case model == "":
		e, err = t.Find(q.Provider, q.Model, q.Time)
	case q.Model == "" || q.Model == model || model != main:
		e, err = t.Find(q.Provider, model, q.Time)
	default:
		if e, err = t.find(strings.ToLower(q.Provider), strings.ToLower(model), q.Time); err != nil {
			e, err = t.Find(q.Provider, q.Model, q.Time)
		}
	}
	if err != nil && q.FallbackModel != "" {
		var unknown *UnknownModelError
		if errors.As(err, &unknown) {
			return t.Find(q.FallbackProvider, q.FallbackModel, q.Time)
		}
	}
	return e, err
}

// addPart adds the cost of one request.
func (t *Table) addPart(all *sum, u *usage.Usage, main string, q *Query, lines *[]Line) error {
	e, err := t.findFor(u, main, q)
	if err != nil {
		return err
	}
	c := calculation{entry: e, usage: u, lines: lines}
	if err := c.choose(q); err != nil {
		return err
	}
	if c.multiplied == 0 {
		if err := c.addTokens(all); err != nil {
			return err
		}
	} else {
		var tokens sum
		if err := c.addTokens(&tokens); err != nil {
			return err
		}
		for _, factor := range c.multipliers[:c.multiplied] {
			tokens.multiply(factor)
		}
		all.addSum(tokens)
	}
	return c.addCounts(all)
}

// maxMultipliers is one for each condition that a variant may have.
const maxMultipliers = 4

// calculation prices one request of one model.
type calculation struct {
	entry       *Entry
	usage       *usage.Usage
	prices      *Prices
	multipliers [maxMultipliers]Decimal
	multiplied  int
	special     string // the variants that apply, for the lines
	lines       *[]Line
}

func (c *calculation) unpriced(format string, args ...any) *UnpricedError {
	return &UnpricedError{Provider: c.entry.Provider, Model: c.entry.Model, Reason: fmt.Sprintf(format, args...)}
}

func firstWord(words ...string) string {
	for _, word := range words {
		if word != "" {
			return strings.ToLower(word)
		}
	}
	return ""
}

// choose finds the variants that apply. Each condition of the response that is not standard
// must be priced by one of them.
func (c *calculation) choose(q *Query) error {
	tier, speed := firstWord(c.usage.ServiceTier, q.ServiceTier), firstWord(c.usage.Speed, q.Speed)
	region := firstWord(c.usage.Region, q.Region)
	if region == "global" {
		region = ""
	}
	if isStandard(tier) {
		tier = ""
	}
	if isStandard(speed) {
		speed = ""
	}
	tierPriced, speedPriced, regionPriced := tier == "", speed == "", region == ""
	responded := q.ResponseTime
	if responded.IsZero() {
		responded = q.Time
	}
	applies := func(v *Variant) bool {
		return v.When.holds(tier, speed, region, responded) && (v.When.Region != "*" || !c.entry.namesRegion(region))
	}
	var replaced *Variant // the one with the most conditions
	for i := range c.entry.Variants {
		v := &c.entry.Variants[i]
		if !applies(v) {
			continue
		}
		tierPriced, speedPriced = tierPriced || v.When.ServiceTier != "", speedPriced || v.When.Speed != ""
		regionPriced = regionPriced || v.When.Region != ""
		if v.Prices == nil {
			if c.multiplied == maxMultipliers {
				return c.unpriced("more than %d multipliers hold at once", maxMultipliers)
			}
			c.multipliers[c.multiplied] = v.Multiplier
			c.multiplied++
		} else if replaced == nil || v.When.includes(replaced.When) {
			replaced = v
		}
		if c.lines != nil {
			c.special = strings.TrimPrefix(c.special+", "+v.When.String(), ", ")
		}
	}
	for i := range c.entry.Variants { // it must have all conditions of the others
		v := &c.entry.Variants[i]
		if v.Prices != nil && applies(v) && !replaced.When.includes(v.When) {
			return c.unpriced("two of its variants hold, %s and %s, and none has a price for both", replaced.When, v.When)
		}
	}
	switch {
	case !tierPriced:
		return c.unpriced("service tier %q has none", tier)
	case !speedPriced:
		return c.unpriced("speed %q has none", speed)
	case !regionPriced:
		return c.unpriced("region %q has none", region)
	}
	c.prices = &c.entry.Prices
	if replaced != nil {
		c.prices = replaced.Prices
	}
	return nil
}

func (w When) holds(tier, speed, region string, at time.Time) bool {
	if w.ServiceTier != "" && w.ServiceTier != tier || w.Speed != "" && w.Speed != speed {
		return false
	}
	if w.Region != "" && w.Region != region && (w.Region != "*" || region == "") {
		return false
	}
	for _, window := range w.Windows {
		if window.holds(at) {
			return true
		}
	}
	return len(w.Windows) == 0
}

// includes reports whether w has every condition of v, and so is more specific.
func (w When) includes(v When) bool {
	return (v.ServiceTier == "" || w.ServiceTier == v.ServiceTier) && (v.Speed == "" || w.Speed == v.Speed) &&
		(v.Region == "" || w.Region == v.Region) && (len(v.Windows) == 0 || len(w.Windows) > 0)
}

func (w When) String() string {
	var parts []string
	for _, condition := range [...]struct{ name, value string }{{"service tier", w.ServiceTier}, {"speed", w.Speed}, {"region", w.Region}} {
		if condition.value != "" {
			parts = append(parts, condition.name+" "+condition.value)
		}
	}
	if len(w.Windows) > 0 {
		parts = append(parts, "off-peak hours")
	}
	return strings.Join(parts, " and ")
}

func (e *Entry) namesRegion(region string) bool {
	for i := range e.Variants {
		if e.Variants[i].When.Region == region {
			return true
		}
	}
	return false
}

// ratesFor returns the rates for a prompt of this size, and for marginal prices those below each threshold.
func (c *calculation) ratesFor(input int64) (Rates, error) {
	p := c.prices
	if len(p.Tiers) == 0 || p.Marginal {
		return p.Rates, nil
	}
	if c.usage.Counts.Requests > 1 && p.Tiers[0].holds(input) {
		return nil, c.unpriced("%d requests are not listed one by one, and the price depends on the prompt of each", c.usage.Counts.Requests)
	}
	rates := p.Rates
	for i := range p.Tiers {
		if p.Tiers[i].holds(input) {
			rates = p.Tiers[i].Rates
		}
	}
	return rates, nil
}

// tokenCount is a part of the tokens and how many there are.
type tokenCount struct {
	part Part
	n    int64
}

// addTokens splits input and output into disjoint parts and adds each at its rate.
func (c *calculation) addTokens(all *sum) error {
	in, out := &c.usage.Input, &c.usage.Output
	rates, err := c.ratesFor(in.Tokens)
	if err != nil {
		return err
	}
	text := in.Tokens - in.CacheRead - in.CacheWrite
	inputs := [...]tokenCount{
		{Input, 0},
		{InputAudio, in.Audio - in.CacheReadAudio},
		{InputImage, in.Image - in.CacheReadImage},
		{InputVideo, in.Video - in.CacheReadVideo},
		{CacheRead, in.CacheRead - in.CacheReadAudio - in.CacheReadImage - in.CacheReadVideo},
		{CacheReadAudio, in.CacheReadAudio},
		{CacheReadImage, in.CacheReadImage},
		{CacheReadVideo, in.CacheReadVideo},
		{CacheWrite, in.CacheWrite - in.CacheWrite5m - in.CacheWrite30m - in.CacheWrite1h - in.CacheWrite12h},
		{CacheWrite5m, in.CacheWrite5m},
		{CacheWrite30m, in.CacheWrite30m},
		{CacheWrite1h, in.CacheWrite1h},
		{CacheWrite12h, in.CacheWrite12h},
	}
	for i := 1; i <= 3; i++ { // audio, images and video
		if inputs[i].n != 0 && rates[inputs[i].part].As == Input {
			inputs[i].n = 0 // stays in the text
		}
		text -= inputs[i].n
	}
	if inputs[0].n = text; text < 0 {
		return c.unpriced("%d tokens of audio, images or video are in the cache or not, at another rate; the usage does not say how many", -text)
	}
	plainOutput := out.Tokens - out.Reasoning - out.Audio - out.Image - out.Video
	for _, list := range [...][]tokenCount{inputs[:], {
		{Output, plainOutput}, {Reasoning, out.Reasoning}, {OutputAudio, out.Audio}, {OutputImage, out.Image}, {OutputVideo, out.Video},
	}} {
		for _, t := range list {
			if t.n == 0 {
				continue
			}
			if err := c.addRated(all, rates, t.part, t.n); err != nil {
				return err
			}
		}
	}
	return nil
}

// addRated adds n tokens of a part, split among the tiers where they are marginal.
func (c *calculation) addRated(all *sum, rates Rates, part Part, n int64) error {
	if !c.prices.Marginal {
		return c.add(all, rates, part, n, 0)
	}
	for i := len(c.prices.Tiers) - 1; i >= 0; i-- {
		tier := &c.prices.Tiers[i]
		first := tier.Threshold // the last token that is not in this tier
		if tier.Inclusive {
			first--
		}
		if n > first {
			if err := c.add(all, tier.Rates, part, n-first, 0); err != nil {
				return err
			}
			n = first
		}
	}
	if n == 0 {
		return nil
	}
	return c.add(all, rates, part, n, 0)
}

const millisecondPlaces = 3

// addCounts adds the parts that are not tokens, at the rate of the variant, or else of the
// entry itself. Requests and fetches are free if they have no rate.
func (c *calculation) addCounts(all *sum) error {
	n := &c.usage.Counts
	for _, count := range [...]struct {
		part  Part
		n     int64
		free  bool
		shift int
	}{
		{Requests, n.Requests, true, 0}, {WebSearches, n.WebSearches, false, 0}, {WebFetches, n.WebFetches, true, 0},
		{MapSearches, n.MapSearches, false, 0}, {SearchSources, n.SearchSources, false, 0}, {SearchUnits, n.SearchUnits, false, 0},
		{Classifications, n.Classifications, false, 0}, {ToolCalls, n.ToolCalls, false, 0},
		{AudioSeconds, n.AudioMilliseconds, false, millisecondPlaces}, {Images, n.Images, false, 0}, {Pages, n.Pages, false, 0},
	} {
		if count.n == 0 {
			continue
		}
		rates := c.prices.Rates
		if _, priced := rates[count.part]; !priced {
			rates = c.entry.Rates
			if _, priced = rates[count.part]; !priced && count.free {
				continue
			}
		}
		if err := c.add(all, rates, count.part, count.n, count.shift); err != nil {
			return err
		}
	}
	return nil
}

// add adds n × 10^-shift of a part.
func (c *calculation) add(all *sum, rates Rates, part Part, n int64, shift int) error {
	rate, found := rates[part]
	if !found && part == Reasoning {
		rate, found = Rate{As: Output}, true
	}
	if found && rate.As != "" {
		rate, found = rates[rate.As]
	}
	if !found || n < 0 {
		err := c.unpriced("%s has no rate, and %s were used", part, plain(fmt.Sprint(n), shift))
		err.Part, err.Count = part, n
		return err
	}
	all.add(uint64(n), rate.USD, shift)
	if c.lines != nil {
		var line sum
		line.add(uint64(n), rate.USD, shift)
		for _, factor := range c.multipliers[:c.multiplied] {
			if part.IsTokens() {
				line.multiply(factor)
			}
		}
		*c.lines = append(*c.lines, Line{
			Provider: c.entry.Provider, Model: c.entry.Model, What: string(part), Count: plain(fmt.Sprint(n), shift),
			RateUSD: rate.USD.String(), Special: c.special, USD: line.String(),
		})
	}
	return nil
}
