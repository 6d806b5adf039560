package prices

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/pricing"
	"github.com/earmark-dev/earmark/usage"
)

// Prices are the prices of a tenant at one version. They never change, and are safe for
// concurrent use.
type Prices struct {
	// Version is the number of the last version that they contain; 0 if there is none.
	Version int64

	table       *pricing.Table
	multipliers []Multiplier
	fallback    *Model
}

// newPrices returns the prices of a tenant over a table of the installation.
func newPrices(h history, tenant string, version int64, shared *pricing.Table) (*Prices, error) {
	p := &Prices{Version: version, table: shared}
	var own []Version
	if tenant != Installation {
		own = h.owned(tenant, version)
	}
	p.multipliers, p.fallback = settingsOf(h.owned(Installation, version), own)
	entries := entriesOf(own)
	if len(entries) == 0 {
		return p, nil
	}
	var err error
	p.table, err = shared.With(entries...)
	return p, err
}

// Price returns the cost of a usage on the scopes, with the multiplier that applies there.
// The query's Time is the moment whose prices apply. The error is CodeUnknownModel or
// CodeUnpriced.
func (p *Prices) Price(u usage.Usage, q pricing.Query, scopes []string) (pricing.Charge, error) {
	q = p.complete(&u, q, scopes)
	charge, err := p.table.Price(u, q)
	return charge, asError(err)
}

// Explain is Price with the lines of the sum.
func (p *Prices) Explain(u usage.Usage, q pricing.Query, scopes []string) (pricing.Explanation, error) {
	q = p.complete(&u, q, scopes)
	explanation, err := p.table.Explain(u, q)
	return explanation, asError(err)
}

// Find returns the entry of a model at a moment, or that of the fallback. provider may be
// empty if only one provider has the model. The error is CodeUnknownModel or CodeUnpriced.
func (p *Prices) Find(provider, model string, at time.Time) (*pricing.Entry, error) {
	e, err := p.table.Find(provider, model, at)
	var unknown *pricing.UnknownModelError
	if p.fallback != nil && errors.As(err, &unknown) {
		e, err = p.table.Find(p.fallback.Provider, p.fallback.Model, at)
	}
	return e, asError(err)
}

// Fallback returns the model whose prices apply to a model without any.
func (p *Prices) Fallback() (m Model, ok bool) {
	if p.fallback == nil {
		return Model{}, false
	}
	return *p.fallback, true
}

// Multipliers returns the multipliers that are in force.
func (p *Prices) Multipliers() []Multiplier { return p.multipliers }

// Entries returns all entries, by provider, model and date: those of the installation, but
// for the moments for which the tenant has entries of its own.
func (p *Prices) Entries() []pricing.Entry { return p.table.Entries() }

// Held returns the entries that hold at a moment, by provider and model: those of a
// provider, if it is not empty, whose names contain a text, regardless of case.
func (p *Prices) Held(provider, text string, at time.Time) []pricing.Entry {
	held := []pricing.Entry{}
	text = strings.ToLower(text)
	for _, e := range holdingAt(p.Entries(), at) {
		named := func(name string) bool { return strings.Contains(strings.ToLower(name), text) }
		if (provider == "" || strings.EqualFold(provider, e.Provider)) && (named(e.Model) || slices.ContainsFunc(e.Aliases, named)) {
			held = append(held, *e)
		}
	}
	slices.SortFunc(held, func(a, b pricing.Entry) int {
		return cmp.Or(strings.Compare(a.Provider, b.Provider), strings.Compare(strings.ToLower(a.Model), strings.ToLower(b.Model)))
	})
	return held
}

// complete fills in the multiplier and the fallback.
func (p *Prices) complete(u *usage.Usage, q pricing.Query, scopes []string) pricing.Query {
	if p.fallback != nil {
		q.FallbackProvider, q.FallbackModel = p.fallback.Provider, p.fallback.Model
	}
	if len(p.multipliers) > 0 {
		q.Multiplier = p.multiplier(u, &q, scopes)
	}
	return q
}

// multiplier returns the factor that applies; 0 if there is none. Of two scopes of the same
// depth, the higher factor applies.
func (p *Prices) multiplier(u *usage.Usage, q *pricing.Query, scopes []string) (factor pricing.Decimal) {
	const ofEverything, ofModel, ofScope = 1, 2, 3 // and the depth of the scope
	rank := 0
	var entry *pricing.Entry
	for _, m := range p.multipliers {
		is := 0
		switch {
		case m.Scope != "":
			if covers(m.Scope, scopes) {
				is = ofScope + strings.Count(m.Scope, "/")
			}
		case m.Model != "":
			if entry == nil {
				entry = p.entryOf(u, q)
			}
			if strings.EqualFold(m.Model, entry.Model) && (strings.EqualFold(m.Provider, entry.Provider) || entry.Provider == "") {
				is = ofModel
			}
		default:
			is = ofEverything
		}
		if is > rank || is == rank && is > 0 && m.Factor.Rat().Cmp(factor.Rat()) > 0 {
			rank, factor = is, m.Factor
		}
	}
	return factor
}

// covers reports whether a scope is one of the scopes, or above one.
func covers(scope string, scopes []string) bool {
	for _, s := range scopes {
		if s == scope || strings.HasPrefix(s, scope+"/") {
			return true
		}
	}
	return false
}

// entryOf returns the entry of the model that answered; one with a name alone if the table
// has none, because a gateway reported the cost.
func (p *Prices) entryOf(u *usage.Usage, q *pricing.Query) *pricing.Entry {
	for _, model := range []string{u.Model, q.Model} {
		if model == "" {
			continue
		}
		if e, err := p.table.Find(q.Provider, model, q.Time); err == nil {
			return e
		}
	}
	if p.fallback != nil && u.Cost.USD == "" {
		if e, err := p.table.Find(p.fallback.Provider, p.fallback.Model, q.Time); err == nil {
			return e
		}
	}
	name := u.Model
	if name == "" {
		name = q.Model
	}
	return &pricing.Entry{Model: name}
}

// asError returns what the table does not price as an error with a code.
func asError(err error) error {
	var unknown *pricing.UnknownModelError
	var unpriced *pricing.UnpricedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unknown):
		e := earmark.Errorf(earmark.CodeUnknownModel, "%w", err)
		e.Field, e.Nearest = "model", unknown.Nearest
		return e
	case errors.As(err, &unpriced):
		e := earmark.Errorf(earmark.CodeUnpriced, "%w", err)
		e.Field = "model"
		return e
	}
	return err
}
