package prices

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/pricing"
)

// Limits of a version.
const (
	MaxEntries     = 20_000
	MaxSourceBytes = 512
	// maxTries bounds the tries to add a version while others are added.
	maxTries = 5
)

// State is what a version is made from.
type State struct {
	Version int64           // the newest
	Own     []pricing.Entry // those of the owner of the new version
	Prices  *Prices         // those of the owner and of the installation

	tenant   string
	versions history
}

// Add adds a version that draft makes from the present state; if another is added at the same
// time, draft is called again. add stores the changes after a version; it returns nil if
// another came first. Without changes nothing is added, and the version is nil. The error is
// CodeInvalidRequest if the changes break a rule.
func (b *Book) Add(ctx context.Context, tenant string, draft func(State) (Changes, error),
	add func(ctx context.Context, after int64, changes Changes) (*Version, error)) (*Version, error) {
	for range maxTries {
		b.Added() // reads anew
		state, err := b.state(ctx, tenant)
		if err != nil {
			return nil, err
		}
		changes, err := draft(state)
		if err != nil {
			return nil, err
		}
		if changes.IsEmpty() {
			return nil, nil //nolint:nilnil // documented: nothing has changed
		}
		if err := state.Check(changes); err != nil {
			return nil, err
		}
		added, err := add(ctx, state.Version, changes)
		if err != nil {
			return nil, err
		}
		if added != nil {
			b.Added()
			return added, nil
		}
	}
	return nil, earmark.Errorf(earmark.CodeUnavailable, "other price versions were added at the same time; try again")
}

func (b *Book) state(ctx context.Context, tenant string) (State, error) {
	current, err := b.Current(ctx, tenant)
	if err != nil {
		return State{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return State{Version: current.Version, Own: entriesOf(b.versions.owned(tenant, current.Version)), Prices: current,
		tenant: tenant, versions: b.versions[:current.Version:current.Version]}, nil
}

// Check returns an error if the prices with the changes would break a rule.
func (s State) Check(changes Changes) error {
	if len(changes.Entries) > MaxEntries {
		return earmark.Invalidf("entries", "are %d; at most %d are allowed", len(changes.Entries), MaxEntries)
	}
	table, err := pricing.NewTable()
	if err != nil {
		return err
	}
	for i, e := range changes.Entries {
		at := fmt.Sprintf("entries[%d]", i)
		if err := cmp.Or(earmark.ValidateName(at+".provider", e.Provider), earmark.ValidateName(at+".model", e.Model)); err != nil {
			return err
		}
		for j, alias := range e.Aliases {
			if err := earmark.ValidateName(fmt.Sprintf("%s.aliases[%d]", at, j), alias); err != nil {
				return err
			}
		}
		if err := table.Add(e); err != nil {
			return earmark.Invalidf(at, "%w", err)
		}
	}
	after := slices.Concat(s.versions, history{{ID: s.Version + 1, Tenant: s.tenant, Changes: changes}})
	shared, err := pricing.NewTable(entriesOf(after.owned(Installation, s.Version+1))...)
	if err == nil {
		_, err = newPrices(after, s.tenant, s.Version+1, shared)
	}
	if err != nil {
		return earmark.Invalidf("entries", "%w", err)
	}
	return nil
}

// SetByHand returns the changes that make an entry the price of its model. The entry keeps
// the names of the present one. If that has tiers or variants, which the entry would drop, the
// error is CodeInvalidRequest, unless replace is set.
func (s State) SetByHand(e pricing.Entry, replace bool) ([]pricing.Entry, error) {
	if present := holding(byModel(slices.Concat(s.Prices.Entries(), s.Own))[modelOf(e)], e.From); present != nil {
		e.Model, e.Match = present.Model, present.Match
		for _, alias := range present.Aliases {
			if !slices.ContainsFunc(e.Aliases, func(own string) bool { return strings.EqualFold(own, alias) }) {
				e.Aliases = append(slices.Clone(e.Aliases), alias)
			}
		}
		if !replace && len(present.Tiers)+len(present.Variants) > 0 {
			return nil, earmark.Invalidf("", "%s has %d tiers and %d variants, which this price would drop; add --replace to drop them, or change them in the output of "+
				"`earmark price list --json` and import it", modelOf(e), len(present.Tiers), len(present.Variants))
		}
	}
	return Changed(s.Own, []pricing.Entry{e}, e.From), nil
}

// Named returns the model of the entry that has a name. The error is CodeUnknownModel or
// CodeUnpriced.
func (s State) Named(provider, model string, at time.Time) (Model, error) {
	e, err := s.Prices.table.Find(provider, model, at)
	if err != nil {
		return Model{}, asError(err)
	}
	return Model{e.Provider, e.Model}, nil
}

// Multiplier checks a multiplier, and names its model as its entry does.
func (s State) Multiplier(m Multiplier, at time.Time) (Multiplier, error) {
	switch {
	case m.Scope != "" && m.Model != "":
		return m, earmark.Invalidf("", "a multiplier is for a scope or for a model, not for both")
	case m.Model == "" && m.Provider != "":
		return m, earmark.Invalidf("model", "is missing; a provider alone has no multiplier")
	case m.Scope != "":
		return m, earmark.ValidateScope("scope", m.Scope)
	case m.Model == "":
		return m, nil
	}
	named, err := s.Named(m.Provider, m.Model, at)
	m.Provider, m.Model = named.Provider, named.Model
	return m, err
}
