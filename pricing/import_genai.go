package pricing

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// ImportGenAIPrices reads the data of pydantic's genai-prices: a list of providers. Its prices are for a million tokens or a thousand
// others; thresholds are exclusive in its data, so that OpenAI's 272,000 is written 271999.
func ImportGenAIPrices(data []byte, options ImportOptions) ([]Entry, []Finding, error) {
	root, err := parseJSON(data)
	if err != nil {
		return nil, nil, err
	}
	if root.kind != '[' {
		return nil, nil, fmt.Errorf("the table is not a list of providers")
	}
	im := newImporter(options)
	for _, provider := range root.items {
		name := provider.get("id").text()
		for _, model := range provider.get("models").items {
			im.genAIModel(name, model)
		}
	}
	return im.entries, im.findings, nil
}

// genAIParts has the parts of prices per million tokens (10^6), per thousand others (10^3), or of an hour.
var genAIParts = map[string]struct {
	part  Part
	power uint8
}{
	"input_mtok": {Input, 6}, "input_audio_mtok": {InputAudio, 6}, "input_image_mtok": {InputImage, 6}, "input_video_mtok": {InputVideo, 6},
	"cache_read_mtok": {CacheRead, 6}, "cache_audio_read_mtok": {CacheReadAudio, 6}, "cache_image_read_mtok": {CacheReadImage, 6},
	"cache_video_read_mtok": {CacheReadVideo, 6}, "cache_write_mtok": {CacheWrite, 6}, "cache_write_1h_mtok": {CacheWrite1h, 6},
	"output_mtok": {Output, 6}, "output_reasoning_mtok": {Reasoning, 6}, "output_audio_mtok": {OutputAudio, 6},
	"output_image_mtok": {OutputImage, 6}, "output_video_mtok": {OutputVideo, 6},
	"web_searches_kcount": {WebSearches, 3}, "requests_kcount": {Requests, 3}, "input_document_kpages": {Pages, 3},
	"audio_hours": {AudioSeconds, 0}, "input_audio_hours": {AudioSeconds, 0},
}

const secondsPerHour = 3600

func (im *importer) genAIModel(provider string, n node) {
	model := n.get("id").text()
	path := provider + "." + model
	if model == "" {
		im.report(provider, "a model without an id")
		return
	}
	match, names := im.genAIMatch(path, n.get("match"), model)
	list := n.get("prices")
	if list.kind == '{' {
		list = node{kind: '[', items: []node{{kind: '{', members: []namedNode{{"prices", list}}}}}
	}
	// The last whose constraint holds is taken. Hours replace what is listed before them.
	var entries []Entry
	for i, item := range list.items {
		at := fmt.Sprintf("%s.prices[%d]", path, i)
		prices, ok := im.genAIPrices(at, item.get("prices"))
		if !ok {
			return
		}
		constraint := item.get("constraint")
		switch {
		case constraint.has("start_time"):
			window, err := genAIWindow(constraint)
			if err != nil {
				im.report(at, "%v; the model is refused", err)
				return
			}
			for j := range entries {
				entries[j].Variants = append(entries[j].Variants, Variant{When: When{Windows: []Window{window}}, Prices: &prices})
			}
		case constraint.has("start_date"):
			from, err := time.Parse(time.DateOnly, constraint.get("start_date").text())
			if err != nil {
				im.report(at, "start_date is not a date; the model is refused")
				return
			}
			entries = append(entries, Entry{From: from, Prices: prices})
		case constraint.kind == 0:
			entries = append(entries, Entry{Prices: prices})
		default:
			im.report(at, "its constraint is not understood; the model is refused")
			return
		}
	}
	for i, e := range entries {
		e.Provider, e.Model, e.Aliases, e.Match = provider, model, names, match
		im.add(fmt.Sprintf("%s.prices[%d]", path, i), e)
	}
}

func genAIWindow(n node) (Window, error) {
	var w Window
	for name, end := range map[string]*TimeOfDay{"start_time": &w.Start, "end_time": &w.End} {
		at, err := time.Parse("15:04:05Z07:00", n.get(name).text())
		if err != nil {
			return w, fmt.Errorf("%s is not a time of day", name)
		}
		*end = timeOfDay(at)
	}
	return w, nil
}

// genAIPrices reads one set of prices. Each price may have tiers of its own; a price without is the same for all sizes.
func (im *importer) genAIPrices(path string, n node) (Prices, bool) {
	var thresholds []int64
	type tiered struct {
		base  Decimal
		above map[int64]Decimal
	}
	parts := map[Part]tiered{}
	for _, m := range n.members {
		at := join(path, m.name)
		known, found := genAIParts[m.name]
		if !found {
			im.report(at, "is not taken over: usage has no count for it")
			continue
		}
		value := m.node
		price := tiered{above: map[int64]Decimal{}}
		if value.kind == '{' {
			for _, tier := range value.get("tiers").items {
				start, isNumber := tier.get("start").integer()
				d, ok := im.genAIRate(at, tier.get("price"), known.power)
				if !isNumber || start <= 0 || !ok {
					im.report(at, "a tier is not understood; these prices are refused")
					return Prices{}, false
				}
				price.above[start] = d
				if !slices.Contains(thresholds, start) {
					thresholds = append(thresholds, start)
				}
			}
			value = value.get("base")
		}
		d, ok := im.genAIRate(at, value, known.power)
		if !ok {
			continue
		}
		price.base = d
		parts[known.part] = price
	}
	slices.Sort(thresholds)
	prices := Prices{Rates: Rates{}}
	for part, price := range parts {
		prices.Rates[part] = Rate{USD: price.base}
	}
	base := maps.Clone(prices.Rates)
	prices.Rates.fillShared(base)
	for _, threshold := range thresholds {
		rates := Rates{}
		for part, price := range parts {
			d, best := price.base, int64(0)
			for start, above := range price.above {
				if start <= threshold && start > best {
					d, best = above, start
				}
			}
			rates[part] = Rate{USD: d}
		}
		rates.fillShared(base)
		prices.Tiers = append(prices.Tiers, Tier{Threshold: threshold, Rates: rates})
	}
	if len(prices.Rates) == 0 {
		im.report(path, "no price that usage has a count for")
		return Prices{}, false
	}
	return prices, true
}

// genAIRate reads a price of 10^power, or of an hour where power is 0.
func (im *importer) genAIRate(path string, n node, power uint8) (Decimal, bool) {
	d, err := n.decimal()
	if err == nil && power > 0 {
		d, err = d.dividedBy10(power)
	}
	if err != nil {
		im.report(path, "%v", err)
		return Decimal{}, false
	}
	if power == 0 {
		perSecond, exact := d.dividedBy(secondsPerHour)
		if !exact {
			im.report(path, "%s an hour is not an exact price of a second; it is left out", d)
			return Decimal{}, false
		}
		d = perSecond
	}
	return d, true
}

// genAIMatch reads the condition on names: full names, where any of them is enough, and the rest.
func (im *importer) genAIMatch(path string, n node, model string) (*Match, []string) {
	var names []string
	var rest []Match
	clauses := n.get("or").items
	if clauses == nil {
		clauses = []node{n}
	}
	for i, clause := range clauses {
		at := path + ".match.or[" + strconv.Itoa(i) + "]"
		if name := clause.get("equals").text(); name != "" {
			if name != model {
				names = append(names, name)
			}
			continue
		}
		m, err := toMatch(clause)
		if err == nil {
			err = m.compile(at)
		}
		if err != nil {
			im.report(at, "names of this form are not found: %v", err)
			continue
		}
		rest = append(rest, m)
	}
	switch len(rest) {
	case 0:
		return nil, names
	case 1:
		return &rest[0], names
	}
	return &Match{Or: rest}, names
}

func toMatch(n node) (Match, error) {
	var m Match
	if len(n.members) != 1 {
		return m, fmt.Errorf("exactly one condition is required")
	}
	only := n.members[0]
	switch only.name {
	case "equals":
		m.Equals = only.node.text()
	case "starts_with":
		m.StartsWith = only.node.text()
	case "ends_with":
		m.EndsWith = only.node.text()
	case "contains":
		m.Contains = only.node.text()
	case "regex":
		m.Regex = only.node.text()
	case "or", "and":
		for _, item := range only.node.items {
			inner, err := toMatch(item)
			if err != nil {
				return m, err
			}
			if only.name == "or" {
				m.Or = append(m.Or, inner)
			} else {
				m.And = append(m.And, inner)
			}
		}
	}
	return m, nil
}
