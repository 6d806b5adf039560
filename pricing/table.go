package pricing

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Table finds the prices of a model. Fill it with Add before use; after that, concurrent
// reads are safe.
type Table struct {
	base     *Table              // asked for what this table does not have; may be nil
	byName   map[string][]*Entry // by model and alias in lower case; ascending by From
	matchers map[string][]*Entry // by provider: the entries with a Match, in the order of Add
	entries  []*Entry
}

// NewTable returns a table of entries. The error names the entry and its field.
func NewTable(entries ...Entry) (*Table, error) { return (*Table)(nil).With(entries...) }

// With returns a table of entries that take precedence over those of t, which stays as it
// is: t is asked only for a model and a moment that they do not price. The error names the
// entry and its field.
func (t *Table) With(entries ...Entry) (*Table, error) {
	t = &Table{base: t, byName: map[string][]*Entry{}, matchers: map[string][]*Entry{}}
	for _, e := range entries {
		if err := t.Add(e); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Add adds one entry. It refuses a second entry for the same provider, name and date.
func (t *Table) Add(e Entry) error {
	fail := func(err error) error { return fmt.Errorf("price of %s at %s: %w", e.Model, e.Provider, err) }
	e.Provider = strings.ToLower(e.Provider)
	e.Variants = slices.Clone(e.Variants)
	if err := e.validate(); err != nil {
		return fail(err)
	}
	names := []string{strings.ToLower(e.Model)}
	for _, alias := range e.Aliases {
		if alias = strings.ToLower(alias); !slices.Contains(names, alias) {
			names = append(names, alias)
		}
	}
	for _, name := range names {
		for _, other := range t.byName[name] {
			if other.Provider == e.Provider && other.From.Equal(e.From) {
				return fail(fmt.Errorf("%s has a price from the same date already", name))
			}
		}
	}
	kept := &e
	t.entries = append(t.entries, kept)
	for _, name := range names {
		t.byName[name] = append(t.byName[name], kept)
		slices.SortStableFunc(t.byName[name], func(a, b *Entry) int { return a.From.Compare(b.From) })
	}
	if e.Match != nil {
		t.matchers[e.Provider] = append(t.matchers[e.Provider], kept)
	}
	return nil
}

// Entries returns the entries by provider, model and date. Of a table that takes precedence
// over another, it leaves out the entries of the other that its own stand in front of.
func (t *Table) Entries() []Entry {
	all := make([]Entry, 0, len(t.entries))
	first := map[[2]string]time.Time{} // the earliest date of each of the models
	for _, e := range t.entries {
		all = append(all, *e)
		key := [2]string{e.Provider, strings.ToLower(e.Model)}
		if from, known := first[key]; !known || e.From.Before(from) {
			first[key] = e.From
		}
	}
	if t.base != nil {
		for _, e := range t.base.Entries() {
			if from, known := first[[2]string{e.Provider, strings.ToLower(e.Model)}]; !known || e.From.Before(from) {
				all = append(all, e)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Entry) int {
		return cmp.Or(strings.Compare(a.Provider, b.Provider), strings.Compare(a.Model, b.Model), a.From.Compare(b.From))
	})
	return all
}

// UnknownModelError says that no entry has the model.
type UnknownModelError struct {
	Provider string // from the query; may be empty
	Model    string
	Nearest  []string // existing names, the most similar first; provider/model
}

func (e *UnknownModelError) Error() string {
	at := ""
	if e.Provider != "" {
		at = " at " + e.Provider
	}
	if len(e.Nearest) == 0 {
		return fmt.Sprintf("no price for model %q%s", e.Model, at)
	}
	return fmt.Sprintf("no price for model %q%s; nearest are %s", e.Model, at, strings.Join(e.Nearest, ", "))
}

// UnpricedError says that the model has an entry, but none that prices this usage.
type UnpricedError struct {
	Provider string
	Model    string
	// Part is the part without a rate, and how much of it was used; empty if the reason is
	// another.
	Part   Part
	Count  int64
	Reason string
}

func (e *UnpricedError) Error() string {
	return fmt.Sprintf("no price for this usage of model %q at %s: %s", e.Model, e.Provider, e.Reason)
}

// Find returns the entry that applies at a time. provider may be empty if only one provider
// has the model, or if model has the form provider/model.
func (t *Table) Find(provider, model string, at time.Time) (*Entry, error) {
	e, err := t.find(strings.ToLower(provider), strings.ToLower(model), at)
	if err == nil {
		return e, nil
	}
	var unknown *UnknownModelError
	if errors.As(err, &unknown) {
		unknown.Provider, unknown.Model = provider, model
		unknown.Nearest = t.nearest(strings.ToLower(provider), strings.ToLower(model))
	}
	return nil, err
}

func (t *Table) find(provider, model string, at time.Time) (*Entry, error) {
	found, early, err := t.named(provider, model, at)
	switch {
	case err != nil:
		return nil, err
	case found != nil:
		return found, nil
	case early:
		return nil, &UnpricedError{Provider: cmp.Or(provider, "any provider"), Model: model, Reason: "its first price begins after " + at.UTC().Format(time.RFC3339)}
	}
	if prefix, rest, ok := strings.Cut(model, "/"); ok && (provider == "" || provider == prefix) {
		if e, err := t.find(prefix, rest, at); err == nil {
			return e, nil
		}
	}
	return nil, &UnknownModelError{}
}

// named returns the entry that has this name, nil if none applies at the time; early says
// that one applies later.
func (t *Table) named(provider, model string, at time.Time) (found *Entry, early bool, err error) {
	for _, e := range t.byName[model] {
		switch {
		case provider != "" && e.Provider != provider:
		case e.From.After(at):
			early = true
		case found != nil && found.Provider != e.Provider:
			return nil, false, &UnpricedError{Provider: "any provider", Model: model, Reason: "several have it, such as " + found.Provider + " and " + e.Provider + ": name one"}
		default:
			found = e
		}
	}
	if found == nil {
		for _, e := range t.matchers[provider] {
			if (found == nil || e.From.After(found.From)) && (found == nil || e.Model == found.Model) && e.Match.holds(model) {
				if e.From.After(at) {
					early = true
				} else {
					found = e
				}
			}
		}
	}
	if found != nil || t.base == nil {
		return found, early, nil
	}
	found, earlyBelow, err := t.base.named(provider, model, at)
	return found, early || earlyBelow, err
}

// all returns the entries, and those of the tables below.
func (t *Table) all() []*Entry {
	var all []*Entry
	for ; t != nil; t = t.base {
		all = append(all, t.entries...)
	}
	return all
}

// nearest returns the most similar names.
func (t *Table) nearest(provider, model string) []string {
	const most = 5
	type candidate struct {
		name     string
		distance int
	}
	if prefix, rest, ok := strings.Cut(model, "/"); ok && provider == "" {
		provider, model = prefix, rest
	}
	var all []candidate
	seen := map[string]bool{}
	for _, e := range t.all() {
		name := e.Provider + "/" + e.Model
		if seen[name] {
			continue
		}
		seen[name] = true
		d := distance(model, strings.ToLower(e.Model))
		if provider != "" && provider != e.Provider {
			d += 3 // prefers another model of this provider to this model of another provider
		}
		if d <= len(model)/3+2 {
			all = append(all, candidate{name, d})
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Or(a.distance-b.distance, strings.Compare(a.name, b.name)) })
	names := make([]string, 0, most)
	for _, c := range all[:min(most, len(all))] {
		names = append(names, c.name)
	}
	return names
}

// distance is the number of letters to insert, delete or replace between two names; long ones are cut.
func distance(a, b string) int {
	const most = 100
	a, b = a[:min(most, len(a))], b[:min(most, len(b))]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := before
			if a[i] != b[j] {
				replace++
			}
			before = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
