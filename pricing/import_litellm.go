package pricing

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ImportLiteLLM reads LiteLLM's model_prices_and_context_window.json. Its model names are taken without the provider's
// prefix, and with it as an alias; its providers are litellm_provider.
func ImportLiteLLM(data []byte, options ImportOptions) ([]Entry, []Finding, error) {
	root, err := parseJSON(data)
	if err != nil {
		return nil, nil, err
	}
	im := newImporter(options)
	var aliases []namedNode
	for _, m := range root.members {
		switch {
		case m.name == "sample_spec" || m.name == "fallback_generalizations": // documentation, no models
		case m.node.has("alias_of"):
			aliases = append(aliases, m)
		case m.node.get("litellm_provider").text() == "":
			im.report(m.name, "no litellm_provider: who bills is not known")
		default:
			im.liteLLMEntry(m.name, m.node)
		}
	}
	for _, m := range aliases {
		im.liteLLMAlias(m.name, m.node.get("alias_of").text())
	}
	return im.entries, im.findings, nil
}

func (im *importer) liteLLMAlias(name, target string) {
	for i := range im.entries {
		e := &im.entries[i]
		if e.Model == target || slices.Contains(e.Aliases, target) {
			copied := *e
			copied.Model, copied.Aliases = name, nil
			im.add(name, copied)
			return
		}
	}
	im.report(name, "alias_of: %s has no price", shorten(target))
}

// liteLLMKey splits the name of a price: its part, how long the cache keeps it, the
// threshold of its tier, the service tier.
var liteLLMKey = regexp.MustCompile(`^(.+?)(_above_1hr|_above_12hr)?(?:_above_(\d+)(k?)_tokens)?(?:_(batches|flex|priority|balanced|ultrafast|decisions))?$`)

var liteLLMParts = map[string]Part{
	"input_cost_per_token":                 Input,
	"input_cost_per_audio_token":           InputAudio,
	"input_cost_per_image_token":           InputImage,
	"input_cost_per_video_token":           InputVideo,
	"cache_read_input_token_cost":          CacheRead,
	"cache_read_input_audio_token_cost":    CacheReadAudio,
	"cache_read_input_image_token_cost":    CacheReadImage,
	"cache_creation_input_token_cost":      CacheWrite,
	"output_cost_per_token":                Output,
	"output_cost_per_reasoning_token":      Reasoning,
	"output_cost_per_audio_token":          OutputAudio,
	"output_cost_per_image_token":          OutputImage,
	"output_cost_per_video_token":          OutputVideo,
	"input_cost_per_request":               Requests,
	"input_cost_per_query":                 SearchUnits,
	"google_maps_grounding_cost_per_query": MapSearches,
	"ocr_cost_per_page":                    Pages,
}

// setKey identifies one set of rates of an entry.
type setKey struct {
	tier      string // service tier
	threshold int64
}

var liteLLMTiers = map[string]string{"batches": "batch"}

func (im *importer) liteLLMEntry(name string, n node) {
	provider := n.get("litellm_provider").text()
	if strings.HasPrefix(provider, "vertex_ai") {
		provider = "vertex_ai"
	}
	e := Entry{Provider: provider, Model: name, Source: n.get("source").text()}
	if rest, found := strings.CutPrefix(name, provider+"/"); found {
		e.Model, e.Aliases = rest, []string{name}
	}
	sets := map[setKey]Rates{{}: {}}
	for _, m := range n.members {
		im.liteLLMPrice(name, n, m, sets)
	}
	base := sets[setKey{}]
	if n.has("tiered_pricing") && !im.liteLLMTieredPricing(name, n.get("tiered_pricing"), sets) {
		return
	}
	if len(base) == 0 {
		im.report(name, "no price that usage has a count for")
		return
	}
	if _, found := base[Input]; !found && base[Output].USD.digits > 0 {
		im.report(name, "a price for output and none for input")
	}
	e.Prices = im.assemble(name, sets, "", base, provider)
	tiers := map[string]bool{}
	for key := range sets {
		tiers[key.tier] = true
	}
	for _, tier := range sortedKeys(tiers) {
		if tier == "" {
			continue
		}
		if _, found := sets[setKey{tier, 0}]; !found {
			im.report(name, "service tier %s has a price above a threshold and none below", tier)
			continue
		}
		if sets[setKey{tier, 0}].isHalf(base) {
			im.report(name, "service tier %s has a price for one of input and output alone", tier)
			continue
		}
		prices := im.assemble(name, sets, tier, base, provider)
		e.Variants = append(e.Variants, Variant{When: When{ServiceTier: tier}, Prices: &prices})
	}
	if im.liteLLMVariants(name, n, &e) {
		im.add(name, e)
	}
}

// liteLLMPrice imports one price into its set, or reports it.
func (im *importer) liteLLMPrice(name string, n node, m namedNode, sets map[setKey]Rates) {
	if !strings.Contains(m.name, "cost") || m.node.value == nil && m.node.kind == 0 {
		return
	}
	path := join(name, m.name)
	switch m.name {
	case "search_context_cost_per_query":
		im.liteLLMSearch(path, m.node, sets[setKey{}])
		return
	case "input_cost_per_token_cache_hit": // DeepSeek's older name of cache_read_input_token_cost
		if !n.has("cache_read_input_token_cost") {
			im.setRate(path, sets[setKey{}], CacheRead, m.node)
		}
		return
	case "input_cost_per_second":
		if n.get("mode").text() == "audio_transcription" {
			im.setRate(path, sets[setKey{}], AudioSeconds, m.node)
			return
		}
	case "output_cost_per_image":
		if n.get("mode").text() == "image_generation" {
			im.setRate(path, sets[setKey{}], Images, m.node)
			return
		}
	}
	parts := liteLLMKey.FindStringSubmatch(m.name)
	part, known := liteLLMParts[parts[1]]
	switch {
	case !known:
		if d, err := m.node.decimal(); err != nil || !d.IsZero() {
			im.report(path, "is not taken over: usage has no count for it")
		}
		return
	case parts[2] != "" && part != CacheWrite:
		im.report(path, "a duration is known for cache writes alone")
		return
	case parts[2] == "_above_1hr": // how long the cache keeps it, not the size of the prompt
		part = CacheWrite1h
	case parts[2] == "_above_12hr":
		part = CacheWrite12h
	}
	key := setKey{tier: parts[5]}
	if other, found := liteLLMTiers[parts[5]]; found {
		key.tier = other
	}
	if parts[3] != "" {
		threshold, err := strconv.ParseInt(parts[3], 10, 32)
		if err != nil {
			im.report(path, "threshold %s is not a number of tokens", parts[3])
			return
		}
		if parts[4] == "k" {
			threshold *= 1000
		}
		key.threshold = threshold
	}
	if sets[key] == nil {
		sets[key] = Rates{}
	}
	im.setRate(path, sets[key], part, m.node)
}

func (im *importer) setRate(path string, rates Rates, part Part, n node) bool {
	d, err := n.decimal()
	if err != nil {
		im.report(path, "%v", err)
		return false
	}
	rates[part] = Rate{USD: d}
	return true
}

// liteLLMSearch imports the price of a search, unless it depends on what usage does not
// contain.
func (im *importer) liteLLMSearch(path string, n node, rates Rates) {
	var first *Decimal
	for _, m := range n.members {
		d, err := m.node.decimal()
		if err != nil || first != nil && *first != d {
			im.report(path, "depends on the size of the search context, which no usage object says")
			return
		}
		first = &d
	}
	if first != nil {
		rates[WebSearches] = Rate{USD: *first}
	}
}

// assemble builds the prices of one service tier, with its context tiers.
func (im *importer) assemble(name string, sets map[setKey]Rates, tier string, base Rates, provider string) Prices {
	rates := sets[setKey{tier, 0}]
	rates.fillShared(base)
	if tier != "" {
		im.reportMissing(name, "service tier "+tier, rates, base)
	}
	prices := Prices{Rates: rates}
	var thresholds []int64
	for key := range sets {
		if key.threshold > 0 && (key.tier == tier || key.tier == "") && !slices.Contains(thresholds, key.threshold) {
			thresholds = append(thresholds, key.threshold)
		}
	}
	slices.Sort(thresholds)
	for _, threshold := range thresholds {
		above := sets[setKey{tier, threshold}]
		what := strings.TrimSpace(tier + " above " + strconv.FormatInt(threshold, 10) + " tokens")
		switch {
		case above == nil: // the standard tier has one, this tier has none: the price above it is unknown
			im.report(name, "%s: no price, though the standard service tier has one", what)
			above = Rates{}
		case above.isHalf(base):
			im.report(name, "%s: a price for one of input and output alone; refused for all such prompts", what)
			above = Rates{}
		default:
			above.fillShared(base)
			im.reportMissing(name, what, above, base)
		}
		prices.Tiers = append(prices.Tiers, Tier{Threshold: threshold, Inclusive: inclusiveProviders[provider], Rates: above})
	}
	return prices
}

func (im *importer) reportMissing(path, what string, rates, base Rates) {
	if missing := rates.missing(base); len(missing) > 0 {
		im.report(path, "%s: no price for %s, which has one otherwise", what, strings.Join(missing, ", "))
	}
}

// liteLLMTieredPricing reads the other form of tiers: ranges above the first token count and up to the second.
func (im *importer) liteLLMTieredPricing(name string, n node, sets map[setKey]Rates) bool {
	for i, item := range n.items {
		path := name + ".tiered_pricing[" + strconv.Itoa(i) + "]"
		bounds := item.get("range").items
		if len(bounds) != 2 {
			im.report(path, "range: two numbers are required")
			return false
		}
		from, ok := bounds[0].integer()
		if !ok {
			im.report(path, "range: the lower bound is not an integer")
			return false
		}
		key := setKey{threshold: from}
		if from > 0 || sets[key] == nil {
			sets[key] = Rates{}
		}
		for _, m := range item.members {
			part, known := liteLLMParts[m.name]
			switch {
			case m.name == "range":
			case !known:
				im.report(join(path, m.name), "is not taken over: usage has no count for it")
			default:
				im.setRate(join(path, m.name), sets[key], part, m.node)
			}
		}
		if from == 0 {
			continue
		}
		if sets[key].isHalf(sets[setKey{}]) {
			im.report(path, "a price for one of input and output alone")
			return false
		}
	}
	return true
}

// liteLLMVariants reads multipliers by region and speed, and off-peak hours.
func (im *importer) liteLLMVariants(name string, n node, e *Entry) bool {
	for _, m := range n.members {
		var when When
		if region, found := strings.CutPrefix(m.name, "regional_processing_uplift_multiplier_"); found {
			when.Region = region
		}
		switch m.name {
		case "regional_endpoint_uplift_multiplier":
			when.Region = "*"
		case "fedramp_uplift_multiplier":
			when.Region = "fedramp"
		case "provider_specific_entry":
			im.liteLLMSpecific(name, m.node, e)
		case "off_peak_pricing":
			if !im.liteLLMOffPeak(join(name, m.name), m.node, e) {
				im.report(name, "its off-peak hours cannot be taken over, so the model is refused")
				return false
			}
		case "search_free_requests":
			im.report(join(name, m.name), "free searches are not counted: each search is charged")
		}
		if when.Region != "" {
			im.multiplier(join(name, m.name), m.node, when, e)
		}
	}
	return true
}

func (im *importer) multiplier(path string, n node, when When, e *Entry) {
	if d, err := n.decimal(); err != nil || d.IsZero() {
		im.report(path, "is not a multiplier above 0")
	} else {
		e.Variants = append(e.Variants, Variant{When: when, Multiplier: d})
	}
}

func (im *importer) liteLLMSpecific(name string, n node, e *Entry) {
	for _, m := range n.members {
		path := name + ".provider_specific_entry." + m.name
		switch m.name {
		case "us", "eu":
			im.multiplier(path, m.node, When{Region: m.name}, e)
		case "fast":
			im.multiplier(path, m.node, When{Speed: m.name}, e)
		default:
			im.report(path, "is not taken over: usage does not say it")
		}
	}
}

// liteLLMOffPeak reads off-peak hours. A rate that they do not name is the standard one. It
// returns false if it cannot read them: the model is then left out, because the standard
// price would be wrong for some hours.
func (im *importer) liteLLMOffPeak(path string, n node, e *Entry) bool {
	rates := Rates{}
	for part, rate := range e.Rates {
		rates[part] = rate
	}
	own := Rates{}
	var windows []Window
	ok := true
	addWindows := func(at string, hours node, days []time.Weekday) {
		texts := hours.items
		if hours.kind == 0 {
			texts = []node{hours}
		}
		for _, text := range texts {
			w, err := parseHours(text.text())
			if err != nil {
				im.report(at, "%v", err)
				ok = false
			}
			w.Days, w.Zone = days, n.get("weekday_timezone").text()
			windows = append(windows, w)
		}
	}
	for _, m := range n.members {
		part, known := liteLLMParts[m.name]
		switch {
		case known:
			im.setRate(join(path, m.name), own, part, m.node)
		case m.name == "weekday_timezone":
		case m.name == "hours_utc":
			addWindows(join(path, m.name), m.node, nil)
		case m.name == "windows":
			for i, item := range m.node.items {
				days, valid := parseDays(item.get("weekdays").items)
				if !valid {
					im.report(join(path, m.name), "weekdays of window %d are not all from 1, Monday, to 7", i)
					ok = false
				}
				addWindows(join(path, m.name), item.get("hours_utc"), days)
			}
		default:
			im.report(join(path, m.name), "is not understood")
			ok = false
		}
	}
	if own.isHalf(e.Rates) || len(windows) == 0 || len(e.Tiers) > 0 {
		im.report(path, "without hours, with one of input and output alone, or beside tiers")
		ok = false
	}
	for part, rate := range own {
		rates[part] = rate
	}
	e.Variants = append(e.Variants, Variant{When: When{Windows: windows}, Prices: &Prices{Rates: rates}})
	return ok
}
