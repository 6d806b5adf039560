package pricing

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Part is a countable part of usage with a rate of its own. Rates are in US dollars for one
// unit of the part.
type Part string

// The parts. The token parts are disjoint: Input is the input without the cache, audio,
// images and video that have rates of their own; Output is the output without reasoning,
// audio, images and video that have.
const (
	Input          Part = "input"
	InputAudio     Part = "input_audio"
	InputImage     Part = "input_image"
	InputVideo     Part = "input_video"
	CacheRead      Part = "cache_read"
	CacheReadAudio Part = "cache_read_audio"
	CacheReadImage Part = "cache_read_image"
	CacheReadVideo Part = "cache_read_video"
	CacheWrite     Part = "cache_write" // for a duration that the provider did not name
	CacheWrite5m   Part = "cache_write_5m"
	CacheWrite30m  Part = "cache_write_30m"
	CacheWrite1h   Part = "cache_write_1h"
	CacheWrite12h  Part = "cache_write_12h"
	Output         Part = "output"
	Reasoning      Part = "reasoning" // without a rate of its own, it costs as much as output
	OutputAudio    Part = "output_audio"
	OutputImage    Part = "output_image"
	OutputVideo    Part = "output_video"

	Requests        Part = "requests" // free if it has no rate
	WebSearches     Part = "web_searches"
	WebFetches      Part = "web_fetches" // free if it has no rate
	MapSearches     Part = "map_searches"
	SearchSources   Part = "search_sources"
	SearchUnits     Part = "search_units"
	Classifications Part = "classifications"
	ToolCalls       Part = "tool_calls"
	AudioSeconds    Part = "audio_seconds"
	Images          Part = "images"
	Pages           Part = "pages"
)

var tokenParts = []Part{
	Input, InputAudio, InputImage, InputVideo, CacheRead, CacheReadAudio, CacheReadImage, CacheReadVideo,
	CacheWrite, CacheWrite5m, CacheWrite30m, CacheWrite1h, CacheWrite12h, Output, Reasoning, OutputAudio, OutputImage, OutputVideo,
}

var countParts = []Part{
	Requests, WebSearches, WebFetches, MapSearches, SearchSources, SearchUnits, Classifications, ToolCalls, AudioSeconds, Images, Pages,
}

// Parts returns all parts, those of tokens first.
func Parts() []Part { return slices.Concat(tokenParts, countParts) }

// IsTokens reports whether the part counts tokens.
func (p Part) IsTokens() bool { return slices.Contains(tokenParts, p) }

// Rate is a price in US dollars for one unit of a part, or the name of the part whose rate
// it shares.
type Rate struct {
	USD Decimal
	// As names a part of the same rates, for example output for reasoning. USD is then 0.
	As Part
}

// USD returns the rate of text US dollars for one unit. It panics if text is not a decimal.
func USD(text string) Rate { return Rate{USD: MustDecimal(text)} }

// PerMillion returns the rate of text US dollars for a million units. It panics if text is
// not a decimal.
func PerMillion(text string) Rate {
	d, err := MustDecimal(text).dividedBy10(6)
	if err != nil {
		panic(err)
	}
	return Rate{USD: d}
}

// As returns the rate of another part.
func As(part Part) Rate { return Rate{As: part} }

// MarshalJSON writes "0.0000025", or {"as": "output"}.
func (r Rate) MarshalJSON() ([]byte, error) {
	if r.As != "" {
		return json.Marshal(map[string]Part{"as": r.As})
	}
	return r.USD.MarshalJSON()
}

// UnmarshalJSON reads a number, a string, or {"as": "output"}. null is refused: a missing price is not 0.
func (r *Rate) UnmarshalJSON(text []byte) error {
	*r = Rate{}
	if text[0] != '{' {
		return r.USD.UnmarshalJSON(text)
	}
	var other struct {
		As Part `json:"as"`
	}
	if err := json.Unmarshal(text, &other); err != nil {
		return err
	}
	if r.As = other.As; r.As == "" {
		return fmt.Errorf(`a rate is a number, a string, or {"as": "output"}`)
	}
	return nil
}

// Rates has a rate for every part with a price.
type Rates map[Part]Rate

// Prices are rates, and their tiers by the size of the prompt.
type Prices struct {
	Rates Rates `json:"rates"`
	// Tiers are in ascending order of threshold. Each has all of its rates: it inherits
	// none.
	Tiers []Tier `json:"tiers,omitempty"`
	// Marginal says that a tier prices only the tokens beyond the threshold, for each part.
	// Otherwise it prices the whole request.
	Marginal bool `json:"marginal,omitempty"`
}

// Tier applies to prompts of more than Threshold input tokens, including cached ones; if
// Inclusive is set, of Threshold or more.
type Tier struct {
	Threshold int64 `json:"threshold"`
	Inclusive bool  `json:"inclusive,omitempty"`
	Rates     Rates `json:"rates"`
}

func (t *Tier) holds(input int64) bool {
	return input > t.Threshold || t.Inclusive && input == t.Threshold
}

// Entry holds the prices of one model at one provider from one date on.
type Entry struct {
	Provider string   `json:"provider"`
	Model    string   `json:"model"`
	Aliases  []string `json:"aliases,omitempty"` // other names of the model, in full
	Match    *Match   `json:"match,omitempty"`   // further names, after all full names
	// From is the moment from which the prices apply, inclusive. They end at the From of
	// the next entry of the model.
	From time.Time `json:"from,omitzero"`
	Prices
	Variants []Variant `json:"variants,omitempty"`
	// Source names the origin of the prices, for people.
	Source string `json:"source,omitempty"`
}

// Variant changes the prices under conditions of the response: Prices replace the entry's,
// or a Multiplier applies to all tokens.
type Variant struct {
	When       When    `json:"when"`
	Prices     *Prices `json:"prices,omitempty"`
	Multiplier Decimal `json:"multiplier,omitzero"`
}

// When has conditions that must all hold; an empty When always holds.
type When struct {
	// ServiceTier is a tier as providers name it: batch, flex, priority and so on.
	ServiceTier string `json:"service_tier,omitempty"`
	Speed       string `json:"speed,omitempty"`
	// Region is where the request was served. * stands for each region that no other
	// variant of the entry names.
	Region  string   `json:"region,omitempty"`
	Windows []Window `json:"windows,omitempty"`
}

// Window is a time of day in UTC, on some days of the week or on all. It may go past
// midnight; if both ends are equal, it is the whole day.
type Window struct {
	Start TimeOfDay `json:"start"` // inclusive
	End   TimeOfDay `json:"end"`   // exclusive
	// Days are the days of the response, also after midnight. Empty means every day.
	Days []time.Weekday `json:"days,omitempty"`
	// Zone is the IANA time zone in which Days are meant, for example Asia/Shanghai. Empty
	// means UTC. Start and End are in UTC in any case.
	Zone string `json:"zone,omitempty"`

	zone *time.Location
}

// TimeOfDay is the number of seconds since midnight in UTC. Its text is 15:04 or 15:04:05.
type TimeOfDay int

const secondsPerDay = 24 * 60 * 60

// UnmarshalText reads 15:04 or 15:04:05.
func (t *TimeOfDay) UnmarshalText(text []byte) error {
	for _, layout := range [...]string{"15:04", "15:04:05"} {
		if at, err := time.Parse(layout, string(text)); err == nil {
			*t = timeOfDay(at)
			return nil
		}
	}
	return fmt.Errorf("%s is not a time of the day as 15:04 or 15:04:05", shorten(string(text)))
}

// MarshalText writes 15:04 or 15:04:05.
func (t TimeOfDay) MarshalText() ([]byte, error) {
	layout := "15:04"
	if t%60 != 0 {
		layout = "15:04:05"
	}
	return []byte(time.Unix(int64(t), 0).UTC().Format(layout)), nil
}

func timeOfDay(at time.Time) TimeOfDay {
	at = at.UTC()
	return TimeOfDay(at.Hour()*3600 + at.Minute()*60 + at.Second())
}

func (w Window) holds(at time.Time) bool {
	if len(w.Days) > 0 {
		day := at.UTC()
		if w.zone != nil {
			day = at.In(w.zone)
		}
		if !slices.Contains(w.Days, day.Weekday()) {
			return false
		}
	}
	now := timeOfDay(at)
	if w.Start < w.End {
		return now >= w.Start && now < w.End
	}
	return now >= w.Start || now < w.End
}

// validate checks an entry before it enters a table. The error names the field.
func (e *Entry) validate() error {
	switch {
	case e.Provider == "" || strings.ContainsAny(e.Provider, " \n\t"):
		return fmt.Errorf("provider: %q must be a name without spaces", e.Provider)
	case e.Model == "":
		return fmt.Errorf("model: is missing")
	}
	if err := e.Prices.validate(""); err != nil {
		return err
	}
	for i := range e.Variants {
		if err := e.Variants[i].validate(fmt.Sprintf("variants[%d].", i)); err != nil {
			return err
		}
		for j := range i {
			if e.Variants[j].When.equal(e.Variants[i].When) && (e.Variants[i].Prices == nil) == (e.Variants[j].Prices == nil) {
				return fmt.Errorf("variants[%d].when: is the same as of variants[%d]", i, j)
			}
		}
	}
	if e.Match != nil {
		return e.Match.compile("match")
	}
	return nil
}

func (v *Variant) validate(path string) error {
	w := v.When
	switch {
	case (v.Prices == nil) == v.Multiplier.IsZero():
		return fmt.Errorf("%sprices: either prices or a multiplier above 0 is required", path)
	case w.ServiceTier == "" && w.Speed == "" && w.Region == "" && len(w.Windows) == 0:
		return fmt.Errorf("%swhen: at least one condition is required", path)
	case isStandard(w.ServiceTier) && w.ServiceTier != "", isStandard(w.Speed) && w.Speed != "":
		return fmt.Errorf("%swhen: the standard service tier and speed are those of the entry itself", path)
	}
	v.When.Windows = slices.Clone(w.Windows) // so that the caller's own windows stay unchanged
	for i, window := range w.Windows {
		if window.Zone != "" && window.Zone != "Local" {
			zone, err := time.LoadLocation(window.Zone)
			if err != nil {
				return fmt.Errorf("%swhen.windows[%d].zone: %s is no IANA time zone", path, i, shorten(window.Zone))
			}
			v.When.Windows[i].zone = zone
		} else if window.Zone == "Local" {
			return fmt.Errorf("%swhen.windows[%d].zone: Local is of one machine alone; name an IANA time zone", path, i)
		}
		if window.Start < 0 || window.Start >= secondsPerDay || window.End < 0 || window.End >= secondsPerDay {
			return fmt.Errorf("%swhen.windows[%d]: start and end must be from 00:00 to 23:59:59", path, i)
		}
	}
	if v.Prices != nil {
		return v.Prices.validate(path + "prices.")
	}
	return nil
}

func (w When) equal(v When) bool {
	return w.ServiceTier == v.ServiceTier && w.Speed == v.Speed && w.Region == v.Region &&
		slices.EqualFunc(w.Windows, v.Windows, func(a, b Window) bool {
			return a.Start == b.Start && a.End == b.End && a.Zone == b.Zone && slices.Equal(a.Days, b.Days)
		})
}

func (p *Prices) validate(path string) error {
	if err := p.Rates.validate(path + "rates."); err != nil {
		return err
	}
	last := int64(0)
	for i, tier := range p.Tiers {
		at := fmt.Sprintf("%stiers[%d].", path, i)
		if tier.Threshold <= last {
			return fmt.Errorf("%sthreshold: %d must be more than 0 and than that of the tier before", at, tier.Threshold)
		}
		last = tier.Threshold
		if err := tier.Rates.validate(at + "rates."); err != nil {
			return err
		}
	}
	return nil
}

func (r Rates) validate(path string) error {
	for _, part := range slices.Sorted(maps.Keys(r)) {
		rate := r[part]
		if !slices.Contains(tokenParts, part) && !slices.Contains(countParts, part) {
			return fmt.Errorf("%s%s: is not a part; allowed are %s", path, shorten(string(part)), partNames())
		}
		if rate.As == "" {
			continue
		}
		if other, found := r[rate.As]; !found || other.As != "" {
			return fmt.Errorf("%s%s: as %s: that part needs a rate in US dollars", path, part, shorten(string(rate.As)))
		}
	}
	return nil
}

func partNames() string {
	var names []string
	for _, part := range slices.Concat(tokenParts, countParts) {
		names = append(names, string(part))
	}
	return strings.Join(names, ", ")
}

// isStandard recognises the values that providers use for the standard tier, speed or
// region.
func isStandard(word string) bool {
	switch word {
	case "", "standard", "default", "on_demand", "unspecified":
		return true
	}
	return false
}
