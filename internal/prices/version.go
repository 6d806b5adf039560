// Package prices holds the prices of the AI models that the installation and its tenants
// use: an append-only sequence of versions, and what they amount to for one tenant.
//
// A version adds prices, multipliers for resale, or a fallback. It belongs to the
// installation, or to one tenant, whose own prices take precedence. The number of a version
// therefore names all prices of a tenant: those of all versions up to it.
package prices

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/pricing"
)

// Installation is the owner of the prices that all tenants share.
const Installation = ""

// Version is one addition to the prices. Versions are never changed or deleted.
type Version struct {
	ID        int64         `json:"version"` // 1, 2, 3 and so on, in the order of commit
	Tenant    string        `json:"tenant"`  // its owner; Installation for all tenants
	Source    string        `json:"source"`  // where the prices come from, for people
	Actor     earmark.Actor `json:"actor"`
	Reason    string        `json:"reason"`
	CreatedAt time.Time     `json:"created_at"`
	Changes
}

// Changes are what a version adds.
type Changes struct {
	Entries     []pricing.Entry `json:"entries,omitempty"`
	Multipliers []Multiplier    `json:"multipliers,omitempty"`
	// Fallback is the model whose prices apply to a model without any. An empty one takes
	// the owner's back.
	Fallback *Model `json:"fallback,omitempty"`
}

// IsEmpty reports whether there is no change.
func (c Changes) IsEmpty() bool {
	return len(c.Entries) == 0 && len(c.Multipliers) == 0 && c.Fallback == nil
}

// Model names the prices of a model at a provider.
type Model struct {
	Provider string `json:"provider"`
	Model    string `json:"model"`
}

// String returns provider/model.
func (m Model) String() string { return m.Provider + "/" + m.Model }

// Multiplier is a factor for resale. It applies to a scope and those below it, to a model,
// or, with neither, to everything of the owner. Of several, that of the innermost scope
// applies; without one, that of the model; without one, that of everything.
type Multiplier struct {
	Scope string `json:"scope,omitempty"`
	// Provider and Model are those of an entry.
	Provider string `json:"provider,omitempty"`
	Model    string `json:"model,omitempty"`
	// Factor multiplies the exact sum, which is then rounded up. Without one, the owner's
	// multiplier is taken back.
	Factor pricing.Decimal `json:"factor,omitzero"`
}

// history are the versions in order, 1 to its length.
type history []Version

// owned returns the versions up to a number that an owner has.
func (h history) owned(tenant string, upTo int64) []Version {
	var own []Version
	for _, v := range h[:upTo] {
		if v.Tenant == tenant {
			own = append(own, v)
		}
	}
	return own
}

// entryName is a name under which a table finds an entry.
type entryName struct {
	provider, name string
	from           int64 // Unix nanoseconds
}

func namesOf(e pricing.Entry) []entryName {
	names := make([]entryName, 0, 1+len(e.Aliases))
	for _, name := range append([]string{e.Model}, e.Aliases...) {
		names = append(names, entryName{strings.ToLower(e.Provider), strings.ToLower(name), e.From.UnixNano()})
	}
	return names
}

// entriesOf returns the entries that versions of one owner amount to. An entry replaces one
// of the same provider, model and moment, in its place, because the first of several entries that
// match a name applies. It also takes its names from other entries of that moment.
func entriesOf(versions []Version) []pricing.Entry {
	var entries []*pricing.Entry
	holder := map[entryName]int{}
	for _, v := range versions {
		for _, e := range v.Entries {
			names, place := namesOf(e), -1
			for _, name := range names {
				at, taken := holder[name]
				if !taken || entries[at] == nil {
					continue
				}
				old := entries[at]
				if !strings.EqualFold(old.Model, name.name) {
					kept := *old
					kept.Aliases = slices.DeleteFunc(slices.Clone(old.Aliases), func(alias string) bool { return strings.EqualFold(alias, name.name) })
					entries[at] = &kept
					continue
				}
				for _, gone := range namesOf(*old) {
					if holder[gone] == at {
						delete(holder, gone)
					}
				}
				if entries[at] = nil; place < 0 {
					place = at
				}
			}
			if place < 0 {
				place = len(entries)
				entries = append(entries, nil)
			}
			entries[place] = &e
			for _, name := range names {
				holder[name] = place
			}
		}
	}
	merged := make([]pricing.Entry, 0, len(entries))
	for _, e := range entries {
		if e != nil {
			merged = append(merged, *e)
		}
	}
	return merged
}

// settingsOf returns the multipliers and the fallback that versions of the installation, and
// then of a tenant, amount to. The same multiplier of a tenant replaces the installation's.
func settingsOf(owners ...[]Version) (multipliers []Multiplier, fallback *Model) {
	byTarget := map[Multiplier]Multiplier{}
	var order []Multiplier
	for _, versions := range owners {
		own, ownFallback := map[Multiplier]Multiplier{}, (*Model)(nil)
		var added []Multiplier
		for _, v := range versions {
			for _, m := range v.Multipliers {
				target := m.target()
				if !slices.Contains(added, target) {
					added = append(added, target)
				}
				own[target] = m
			}
			if v.Fallback != nil {
				ownFallback = v.Fallback
			}
		}
		for _, target := range added {
			if own[target].Factor.IsZero() {
				continue
			}
			if _, found := byTarget[target]; !found {
				order = append(order, target)
			}
			byTarget[target] = own[target]
		}
		if ownFallback != nil && ownFallback.Model != "" {
			fallback = ownFallback
		}
	}
	for _, target := range order {
		multipliers = append(multipliers, byTarget[target])
	}
	return multipliers, fallback
}

// target is what a multiplier applies to.
func (m Multiplier) target() Multiplier {
	return Multiplier{Scope: m.Scope, Provider: strings.ToLower(m.Provider), Model: strings.ToLower(m.Model)}
}

// Changed returns those of the entries, read from a table of prices, that say something else
// than the present ones of the same owner, from a moment on. A price that its table dates
// later keeps its date; of earlier ones, the last applies from the moment on.
func Changed(present, entries []pricing.Entry, from time.Time) []pricing.Entry {
	known := byModel(present)
	latest := map[Model]time.Time{} // of the dates that are not after from
	for _, e := range entries {
		if !e.From.After(from) && !e.From.Before(latest[modelOf(e)]) {
			latest[modelOf(e)] = e.From
		}
	}
	var changes []pricing.Entry
	for _, e := range entries {
		model := modelOf(e)
		if !e.From.After(from) {
			if !e.From.Equal(latest[model]) {
				continue
			}
			e.From = from
		}
		if before := holding(known[model], e.From); before == nil || meaning(*before) != meaning(e) {
			changes = append(changes, e)
			known[model] = append(slices.DeleteFunc(slices.Clone(known[model]), func(other pricing.Entry) bool { return other.From.Equal(e.From) }), e)
		}
	}
	return changes
}

// Missing returns the models of the present entries that have a price at a moment, but are not
// among entries, which price other models of the same provider.
func Missing(present, entries []pricing.Entry, at time.Time) (missing []Model) {
	now := byModel(entries)
	providers := map[string]bool{}
	for model := range now {
		providers[model.Provider] = true
	}
	for model, e := range holdingAt(present, at) {
		if providers[model.Provider] && now[model] == nil {
			missing = append(missing, Model{e.Provider, e.Model})
		}
	}
	slices.SortFunc(missing, func(a, b Model) int { return strings.Compare(a.String(), b.String()) })
	return missing
}

// Summary is a version without its entries.
type Summary struct {
	ID          int64         `json:"version"`
	Tenant      string        `json:"tenant"` // its owner; empty for all tenants
	Source      string        `json:"source"`
	Actor       earmark.Actor `json:"actor"`
	Reason      string        `json:"reason"`
	CreatedAt   time.Time     `json:"created_at"`
	Entries     int           `json:"entries"`     // prices that it adds
	Multipliers int           `json:"multipliers"` // that it adds or takes back
	Fallback    bool          `json:"fallback"`    // whether it changes the fallback
}

// Summaries returns versions without their entries, newest first.
func Summaries(versions []Version) []Summary {
	summaries := make([]Summary, 0, len(versions))
	for _, v := range slices.Backward(versions) {
		summaries = append(summaries, Summary{v.ID, v.Tenant, v.Source, v.Actor, v.Reason, v.CreatedAt, len(v.Entries), len(v.Multipliers), v.Fallback != nil})
	}
	return summaries
}

// holding returns the last of a model's entries that is not after a moment; nil if there is none.
func holding(entries []pricing.Entry, at time.Time) (found *pricing.Entry) {
	for i := range entries {
		if e := &entries[i]; !e.From.After(at) && (found == nil || e.From.After(found.From)) {
			found = e
		}
	}
	return found
}

func byModel(entries []pricing.Entry) map[Model][]pricing.Entry {
	models := map[Model][]pricing.Entry{}
	for _, e := range entries {
		models[modelOf(e)] = append(models[modelOf(e)], e)
	}
	return models
}

func modelOf(e pricing.Entry) Model {
	return Model{strings.ToLower(e.Provider), strings.ToLower(e.Model)}
}

// meaning is an entry without its moment and its source.
func meaning(e pricing.Entry) string {
	e.From, e.Source = time.Time{}, ""
	text, err := json.Marshal(e)
	if err != nil {
		panic(err) // it has no value that JSON cannot write
	}
	return string(text)
}
