package pricing

import (
	"fmt"
	"maps"
	"strings"
	"time"
)

// Finding reports what an import left out, and where.
type Finding struct {
	// Path is the path of the entry or the field in the imported table.
	Path string `json:"path"`
	// Reason says why it was left out. Usage that it would have priced is an error.
	Reason string `json:"reason"`
}

func (f Finding) String() string { return f.Path + ": " + f.Reason }

// ImportOptions apply to all imports.
type ImportOptions struct {
	// From is the moment from which the prices apply. The zero time means always.
	From time.Time
	// Free imports entries whose prices are all 0. Tables use 0 for free models, and for
	// models whose price they do not know.
	Free bool
	// Source is written into every entry.
	Source string
}

// importer collects the entries of one table.
type importer struct {
	options  ImportOptions
	entries  []Entry
	findings []Finding
	names    map[string]string // provider and name → path, to find duplicate names
}

func newImporter(options ImportOptions) *importer {
	return &importer{options: options, names: map[string]string{}}
}

func (im *importer) report(path, format string, args ...any) {
	im.findings = append(im.findings, Finding{path, fmt.Sprintf(format, args...)})
}

// add imports an entry, unless it is free without ImportOptions.Free or is a duplicate.
func (im *importer) add(path string, e Entry) {
	if e.Source == "" {
		e.Source = im.options.Source
	}
	if e.From.IsZero() {
		e.From = im.options.From
	}
	e.Provider = strings.ToLower(e.Provider)
	if !im.options.Free && e.isFree() {
		im.report(path, "all prices are 0: free, or not known to the table; refused unless free entries are allowed")
		return
	}
	if err := e.validate(); err != nil {
		im.report(path, "refused: %v", err)
		return
	}
	names := e.Aliases[:0:0]
	for i, name := range append([]string{e.Model}, e.Aliases...) {
		key := e.Provider + "\n" + strings.ToLower(name) + "\n" + e.From.Format(time.RFC3339)
		if other, taken := im.names[key]; taken && other != path {
			im.report(path, "%s at %s is there already, from %s", name, e.Provider, other)
			if i == 0 {
				return
			}
			continue
		}
		im.names[key] = path
		if i > 0 {
			names = append(names, name)
		}
	}
	e.Aliases = names
	im.entries = append(im.entries, e)
}

func (e *Entry) isFree() bool {
	for _, rate := range e.Rates {
		if !rate.USD.IsZero() {
			return false
		}
	}
	for _, tier := range e.Tiers {
		for _, rate := range tier.Rates {
			if !rate.USD.IsZero() {
				return false
			}
		}
	}
	return true
}

// fill sets the rate of a part to that of another, if the part has none and the other has
// one.
func (r Rates) fill(part, as Part) {
	if _, found := r[part]; found {
		return
	}
	if other, found := r[as]; found && other.As == "" {
		r[part] = As(as)
	}
}

// Complete gives parts without a price the one that they have in every table that is
// imported: audio, images and video cost what text does, a cached part costs the rate of cache
// reads, and cache reads without a price cost what input does. Cache writes are not filled.
func (r Rates) Complete() { r.fillShared(maps.Clone(r)) }

// fillShared applies what all tables mean by parts without a price of their own: audio,
// images and video are ordinary input and output, a cached part costs the rate of cache
// reads, and a provider without a price for cache reads bills them as input. base decides
// which parts have prices of their own; cache writes are never filled.
func (r Rates) fillShared(base Rates) {
	for _, pair := range [...][2]Part{
		{CacheRead, Input}, {InputAudio, Input}, {InputImage, Input}, {InputVideo, Input}, {OutputAudio, Output}, {OutputImage, Output}, {OutputVideo, Output},
	} {
		if own, found := base[pair[0]]; !found || own.As != "" {
			r.fill(pair[0], pair[1])
		}
	}
	for _, part := range [...]Part{CacheReadAudio, CacheReadImage, CacheReadVideo} {
		if own, found := base[part]; found && own.As == "" {
			continue
		}
		if own, found := r[CacheRead]; found && own.As == Input {
			r.fill(part, Input)
		} else {
			r.fill(part, CacheRead)
		}
	}
	for _, part := range [...]Part{CacheWrite5m, CacheWrite30m} {
		if own, found := base[part]; !found || own.As != "" {
			r.fill(part, CacheWrite)
		}
	}
}

// isHalf reports whether a set of rates names one of input and output where base has both.
func (r Rates) isHalf(base Rates) bool {
	for _, part := range [...]Part{Input, Output} {
		_, inBase := base[part]
		if _, found := r[part]; inBase && !found {
			return true
		}
	}
	return false
}

// missing lists the parts that base prices apart and r does not.
func (r Rates) missing(base Rates) (parts []string) {
	for _, part := range tokenParts {
		if own, found := base[part]; !found || own.As != "" {
			continue
		}
		if _, found := r[part]; !found && (part != Reasoning || base[Reasoning] != base[Output]) {
			parts = append(parts, string(part))
		}
	}
	return parts
}

// inclusiveProviders bill the higher tier from the threshold on, the others above it. Of
// the tables, only genai-prices says so. OpenAI: "standard rates for prompts with <272K
// input tokens"; xAI: "≥ 200k prompt tokens".
var inclusiveProviders = map[string]bool{"openai": true, "xai": true, "x-ai": true}
