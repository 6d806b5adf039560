package postgres

import (
	"context"
	_ "embed"
	"encoding/json"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/prices"
	"github.com/earmark-dev/earmark/pricing"
)

const (
	addPriceVersionSQL = "SELECT earmark.add_price_version(p_after => @after, p_tenant => @tenant, p_prices => @prices, p_source => @source, p_actor => @actor, p_reason => @reason)"
	addOwnPricesSQL    = "SELECT earmark.add_own_prices(p_after => @after, p_tenant => @tenant, p_entries => @entries, p_source => @source, p_actor => @actor, p_reason => @reason)"
)

//go:embed sql/price_versions.sql
var priceVersionsSQL string

// PriceVersions returns the versions after a number, in order.
func (l *Ledger) PriceVersions(ctx context.Context, after int64) ([]prices.Version, error) {
	rows, err := l.pool.Query(ctx, priceVersionsSQL, after)
	if err != nil {
		return nil, fault(err)
	}
	versions, err := pgx.CollectRows(rows, documentOf[prices.Version])
	return versions, fault(err)
}

// AddPrices adds a version after the one that it was made from: of a tenant, or of the
// installation. Only the owner of the schema may. The version is nil if another came first;
// nothing was added then. The error is CodeNotFound if there is no such tenant.
func (l *Ledger) AddPrices(ctx context.Context, tenant string, after int64, changes prices.Changes, source string, by earmark.Actor, reason string) (*prices.Version, error) {
	document, err := json.Marshal(changes)
	if err != nil {
		return nil, err
	}
	var owner *string
	if tenant != prices.Installation {
		owner = &tenant
	}
	return l.addPrices(ctx, tenant, reason, addPriceVersionSQL, namedArgs{
		"after": after, "tenant": owner, "prices": document, "source": source, "actor": by.String(), "reason": reason})
}

// AddOwnPrices is AddPrices for entries of a tenant alone. Every account may.
func (l *Ledger) AddOwnPrices(ctx context.Context, tenant string, after int64, entries []pricing.Entry, source string, by earmark.Actor, reason string) (*prices.Version, error) {
	document, err := json.Marshal(entries)
	if err != nil {
		return nil, err
	}
	return l.addPrices(ctx, tenant, reason, addOwnPricesSQL, namedArgs{
		"after": after, "tenant": tenant, "entries": document, "source": source, "actor": by.String(), "reason": reason})
}

func (l *Ledger) addPrices(ctx context.Context, tenant, reason, sql string, args namedArgs) (*prices.Version, error) {
	if err := earmark.ValidateReason(reason); err != nil {
		return nil, err
	}
	var answer struct {
		Outcome earmark.Outcome `json:"outcome"`
		Version prices.Version  `json:"version"`
	}
	if err := l.read(ctx, &answer, sql, args); err != nil {
		return nil, err
	}
	switch answer.Outcome {
	case earmark.OutcomeUnknown:
		return nil, noSuchTenant(tenant)
	case earmark.OutcomeConflict:
		return nil, nil //nolint:nilnil // documented: another version came first
	default:
		return &answer.Version, nil
	}
}
