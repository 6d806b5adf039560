package pricing

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// parseHours reads a window as 16:30-00:30.
func parseHours(text string) (Window, error) {
	from, to, found := strings.Cut(text, "-")
	var w Window
	if !found {
		return w, fmt.Errorf("%s is not a window such as 16:30-00:30", shorten(text))
	}
	if err := w.Start.UnmarshalText([]byte(strings.TrimSpace(from))); err != nil {
		return w, err
	}
	err := w.End.UnmarshalText([]byte(strings.TrimSpace(to)))
	return w, err
}

// parseDays reads days from 1, Monday, to 7, Sunday, or by name.
func parseDays(items []node) (days []time.Weekday, ok bool) {
	for _, item := range items {
		if n, isNumber := item.integer(); isNumber && n >= 1 && n <= 7 {
			days = append(days, time.Weekday(n%7))
			continue
		}
		found := false
		for day := range time.Weekday(7) {
			if name := strings.ToLower(item.text()); len(name) >= 3 && strings.HasPrefix(strings.ToLower(day.String()), name) {
				days, found = append(days, day), true
			}
		}
		if !found {
			return nil, false
		}
	}
	return days, true
}

// ImportModelsDev reads models.dev's api.json. Its prices are for a million tokens.
func ImportModelsDev(data []byte, options ImportOptions) ([]Entry, []Finding, error) {
	root, err := parseJSON(data)
	if err != nil {
		return nil, nil, err
	}
	im := newImporter(options)
	for _, provider := range root.members {
		for _, model := range provider.node.get("models").members {
			im.modelsDevEntry(provider.name, model.name, model.node)
		}
	}
	return im.entries, im.findings, nil
}

var modelsDevParts = map[string]Part{
	"input": Input, "output": Output, "reasoning": Reasoning, "cache_read": CacheRead, "cache_write": CacheWrite,
	"input_audio": InputAudio, "output_audio": OutputAudio,
}

func (im *importer) modelsDevEntry(provider, model string, n node) {
	path := provider + ".models." + model
	cost := n.get("cost")
	if cost.kind != '{' {
		im.report(path, "no cost")
		return
	}
	base, ok := im.modelsDevRates(path+".cost", cost, nil)
	if !ok {
		return
	}
	e := Entry{Provider: provider, Model: model, Prices: Prices{Rates: base}}
	tiers := cost.get("tiers").items
	if cost.has("context_over_200k") && len(tiers) == 0 {
		// It may stand for a threshold of 256k, 272k or 512k too.
		im.report(path+".cost.context_over_200k", "it does not say at how many tokens it begins (tiers would): prompts above 200,000 tokens are refused")
		e.Tiers = []Tier{{Threshold: 200_000, Rates: Rates{}}}
	}
	for i, item := range tiers {
		at := fmt.Sprintf("%s.cost.tiers[%d]", path, i)
		kind := item.get("tier")
		threshold, isNumber := kind.get("size").integer()
		if kind.get("type").text() != "context" || !isNumber || threshold <= 0 {
			im.report(at, "is not a tier by context size; the model is refused")
			return
		}
		rates, ok := im.modelsDevRates(at, item, base)
		if !ok {
			rates = Rates{}
		}
		e.Tiers = append(e.Tiers, Tier{Threshold: threshold, Inclusive: inclusiveProviders[provider], Rates: rates})
	}
	slices.SortFunc(e.Tiers, func(a, b Tier) int { return cmp.Compare(a.Threshold, b.Threshold) })
	for _, mode := range n.get("experimental").get("modes").members {
		im.modelsDevMode(path+".experimental.modes."+mode.name, mode.node, &e)
	}
	im.add(path, e)
}

// modelsDevMode reads a mode that the response names as its service tier or speed.
func (im *importer) modelsDevMode(path string, n node, e *Entry) {
	if !n.has("cost") {
		return
	}
	body := n.get("provider").get("body")
	when := When{ServiceTier: body.get("service_tier").text(), Speed: body.get("speed").text()}
	rates, ok := im.modelsDevRates(path+".cost", n.get("cost"), e.Rates)
	switch {
	case !ok:
	case when.ServiceTier == "" && when.Speed == "":
		im.report(path, "neither a service tier nor a speed says when it holds")
	default:
		prices := Prices{Rates: rates}
		for _, tier := range e.Tiers { // what it costs there is not said
			prices.Tiers = append(prices.Tiers, Tier{Threshold: tier.Threshold, Inclusive: tier.Inclusive, Rates: Rates{}})
		}
		e.Variants = append(e.Variants, Variant{When: when, Prices: &prices})
	}
}

func (im *importer) modelsDevRates(path string, n node, base Rates) (Rates, bool) {
	rates := Rates{}
	for _, m := range n.members {
		part, known := modelsDevParts[m.name]
		switch {
		case m.name == "tier" || m.name == "tiers" || m.name == "context_over_200k":
		case !known:
			im.report(join(path, m.name), "is not understood")
		case im.setRate(join(path, m.name), rates, part, m.node):
			perToken, err := rates[part].USD.dividedBy10(6)
			if err != nil {
				im.report(join(path, m.name), "%v", err)
				return nil, false
			}
			rates[part] = Rate{USD: perToken}
		default:
			return nil, false
		}
	}
	if base == nil {
		base = rates
	}
	if _, found := rates[Input]; !found || rates.isHalf(base) {
		im.report(path, "a price for one of input and output alone")
		return nil, false
	}
	rates.fillShared(base)
	im.reportMissing(path, "this tier", rates, base)
	return rates, true
}

// ImportOpenRouter reads the answer of OpenRouter's /models. Its prices are texts, for one token.
func ImportOpenRouter(data []byte, options ImportOptions) ([]Entry, []Finding, error) {
	root, err := parseJSON(data)
	if err != nil {
		return nil, nil, err
	}
	im := newImporter(options)
	for i, model := range root.get("data").items {
		if name := model.get("id").text(); name == "" {
			im.report(fmt.Sprintf("data[%d]", i), "no id")
		} else {
			im.openRouterEntry(name, model.get("pricing"))
		}
	}
	return im.entries, im.findings, nil
}

// openRouterParts has the parts of OpenRouter's prices. A 0 is a price for prompt and completion alone: elsewhere it
// stands for "not priced apart", also where reasoning is billed as completion.
var openRouterParts = map[string]Part{
	"prompt": Input, "completion": Output, "request": Requests, "image_token": InputImage, "image_output": OutputImage,
	"audio": InputAudio, "audio_output": OutputAudio, "input_audio_cache": CacheReadAudio, "input_cache_read": CacheRead,
	"input_cache_write": CacheWrite, "input_cache_write_1h": CacheWrite1h, "internal_reasoning": Reasoning, "web_search": WebSearches,
}

func (im *importer) openRouterEntry(name string, pricing node) {
	e := Entry{Provider: "openrouter", Model: name}
	rates, ok := im.openRouterRates(name, pricing)
	if !ok {
		return
	}
	if d, err := pricing.get("discount").decimal(); pricing.has("discount") && (err != nil || !d.IsZero()) {
		im.report(name+".pricing.discount", "whether the prices beside it include it is not said; the model is refused")
		return
	}
	if rates.isHalf(Rates{Input: {}, Output: {}}) {
		im.report(name, "a price for one of prompt and completion alone")
		return
	}
	base := maps.Clone(rates)
	rates.fillShared(base)
	e.Rates = rates
	for i, override := range pricing.get("overrides").items {
		if !im.openRouterOverride(fmt.Sprintf("%s.pricing.overrides[%d]", name, i), override, base, &e) {
			return
		}
	}
	slices.SortStableFunc(e.Tiers, func(a, b Tier) int { return cmp.Compare(a.Threshold, b.Threshold) })
	im.add(name, e)
}

func (im *importer) openRouterRates(path string, n node) (Rates, bool) {
	rates := Rates{}
	for _, m := range n.members {
		part, known := openRouterParts[m.name]
		if !known {
			if d, err := m.node.decimal(); m.node.kind == 0 && m.name != "discount" && !strings.HasPrefix(m.name, "utc_") && m.name != "min_prompt_tokens" && (err != nil || !d.IsZero()) {
				im.report(join(path, "pricing."+m.name), "is not taken over: usage has no count for it")
			}
			continue
		}
		d, err := m.node.decimal()
		if err != nil {
			im.report(join(path, "pricing."+m.name), "%v; the model is refused", err)
			return nil, false
		}
		if !d.IsZero() || part == Input || part == Output {
			rates[part] = Rate{USD: d}
		}
	}
	return rates, true
}

// openRouterOverride reads a price under a condition: a size of the prompt, or hours. Prices that it does not name are
// those of the model.
func (im *importer) openRouterOverride(path string, n node, base Rates, e *Entry) bool {
	own, ok := im.openRouterRates(path, n)
	if !ok {
		return false
	}
	rates := maps.Clone(base)
	maps.Copy(rates, own)
	rates.fillShared(base)
	bySize, byTime := n.has("min_prompt_tokens"), n.has("utc_start") || n.has("utc_end") || n.has("utc_days")
	switch {
	case bySize == byTime:
		im.report(path, "by size and by hours together, or by neither; the model is refused")
		return false
	case bySize:
		threshold, isNumber := n.get("min_prompt_tokens").integer()
		if !isNumber || threshold <= 0 || slices.ContainsFunc(e.Tiers, func(t Tier) bool { return t.Threshold == threshold }) || len(e.Variants) > 0 {
			im.report(path, "min_prompt_tokens is not a threshold of its own, or comes with hours; the model is refused")
			return false
		}
		e.Tiers = append(e.Tiers, Tier{Threshold: threshold, Rates: rates})
	default:
		w, err := parseHHMM(n)
		days, valid := parseDays(n.get("utc_days").items)
		if err != nil || !valid || len(e.Tiers) > 0 || len(e.Variants) > 0 {
			im.report(path, "hours are not understood, or are beside another override; the model is refused")
			return false
		}
		w.Days = days
		e.Variants = append(e.Variants, Variant{When: When{Windows: []Window{w}}, Prices: &Prices{Rates: rates}})
	}
	return true
}

// parseHHMM reads utc_start and utc_end as HHMM; without them it is all day.
func parseHHMM(n node) (Window, error) {
	var w Window
	for name, end := range map[string]*TimeOfDay{"utc_start": &w.Start, "utc_end": &w.End} {
		if !n.has(name) {
			continue
		}
		hhmm, ok := n.get(name).integer()
		if !ok || hhmm < 0 || hhmm > 2359 || hhmm%100 > 59 {
			return w, fmt.Errorf("%s is not a time such as HHMM", name)
		}
		*end = TimeOfDay(hhmm/100*3600 + hhmm%100*60)
	}
	if n.has("utc_start") != n.has("utc_end") {
		return w, fmt.Errorf("utc_start and utc_end are required together")
	}
	return w, nil
}
