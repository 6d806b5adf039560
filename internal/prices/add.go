package prices

import (
	"context"
	"fmt"
	"slices"

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
		if err := b.check(ctx, tenant, changes); err != nil {
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
	return State{Version: current.Version, Own: entriesOf(b.versions.owned(tenant, current.Version)), Prices: current}, nil
}

// check returns an error if the prices with the changes would break a rule.
func (b *Book) check(ctx context.Context, tenant string, changes Changes) error {
	if len(changes.Entries) > MaxEntries {
		return earmark.Invalidf("entries", "are %d; at most %d are allowed", len(changes.Entries), MaxEntries)
	}
	table, err := pricing.NewTable()
	if err != nil {
		return err
	}
	for i, e := range changes.Entries {
		if err := table.Add(e); err != nil {
			return earmark.Invalidf(fmt.Sprintf("entries[%d]", i), "%w", err)
		}
	}
	versions, err := b.Versions(ctx)
	if err != nil {
		return err
	}
	next := slices.Concat(versions, history{{ID: int64(len(versions)) + 1, Tenant: tenant, Changes: changes}})
	after, err := preview(next, tenant)
	if err != nil {
		return earmark.Invalidf("entries", "%w", err)
	}
	for i, m := range changes.Multipliers {
		if err := after.checkMultiplier(fmt.Sprintf("multipliers[%d]", i), m); err != nil {
			return err
		}
	}
	return nil
}

// preview returns the prices at the end of a history.
func preview(h history, tenant string) (*Prices, error) {
	shared, err := pricing.NewTable(entriesOf(h.owned(Installation, int64(len(h))))...)
	if err != nil {
		return nil, err
	}
	return newPrices(h, tenant, int64(len(h)), shared)
}

func (p *Prices) checkMultiplier(field string, m Multiplier) error {
	if m.Scope != "" && m.Model != "" {
		return earmark.Invalidf(field, "names a scope and a model; a multiplier applies to one of them, or to everything")
	}
	if m.Scope != "" {
		return earmark.ValidateScope(field+".scope", m.Scope)
	}
	return nil
}
