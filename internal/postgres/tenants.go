package postgres

import (
	"context"
	_ "embed"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
)

const (
	createTenantSQL      = "SELECT earmark.create_tenant(p_id => @id, p_actor => @actor, p_reason => @reason)"
	setTenantDisabledSQL = "SELECT earmark.set_tenant_disabled(p_id => @id, p_disabled => @disabled, p_actor => @actor, p_reason => @reason)"
)

//go:embed sql/tenants.sql
var tenantsSQL string

// CreateTenant creates a tenant. It checks the id and the reason. The error is
// CodeInvalidRequest if the tenant exists.
func (l *Ledger) CreateTenant(ctx context.Context, id string, by earmark.Actor, reason string) (*earmark.Tenant, error) {
	if err := earmark.ValidateTenant(id); err != nil {
		return nil, err
	}
	if err := earmark.ValidateReason(reason); err != nil {
		return nil, err
	}
	var t earmark.Tenant
	if err := l.read(ctx, &t, createTenantSQL, namedArgs{"id": id, "actor": by.String(), "reason": reason}); err != nil {
		return nil, err
	}
	if t.ID == "" {
		return nil, earmark.Invalidf("tenant", "%q exists already", id)
	}
	return &t, nil
}

// Tenants lists all tenants by id.
func (l *Ledger) Tenants(ctx context.Context) ([]earmark.Tenant, error) {
	rows, err := l.pool.Query(ctx, tenantsSQL)
	if err != nil {
		return nil, fault(err)
	}
	tenants, err := pgx.CollectRows(rows, documentOf[earmark.Tenant])
	return tenants, fault(err)
}

// DisableTenant makes all keys of a tenant stop working until EnableTenant. Open
// reservations remain until they are settled or expire. The error is CodeNotFound if there
// is no such tenant.
func (l *Ledger) DisableTenant(ctx context.Context, id string, by earmark.Actor, reason string) (*earmark.Tenant, error) {
	return l.setTenantDisabled(ctx, id, true, by, reason)
}

// EnableTenant makes the keys of a tenant work again.
func (l *Ledger) EnableTenant(ctx context.Context, id string, by earmark.Actor, reason string) (*earmark.Tenant, error) {
	return l.setTenantDisabled(ctx, id, false, by, reason)
}

func (l *Ledger) setTenantDisabled(ctx context.Context, id string, disabled bool, by earmark.Actor, reason string) (*earmark.Tenant, error) {
	if err := earmark.ValidateTenant(id); err != nil {
		return nil, err
	}
	if err := earmark.ValidateReason(reason); err != nil {
		return nil, err
	}
	var t earmark.Tenant
	err := l.read(ctx, &t, setTenantDisabledSQL, namedArgs{"id": id, "disabled": disabled, "actor": by.String(), "reason": reason})
	if err != nil {
		return nil, err
	}
	if t.ID == "" {
		return nil, noSuchTenant(id)
	}
	return &t, nil
}

func noSuchTenant(id string) error {
	return earmark.Errorf(earmark.CodeNotFound, "there is no tenant %q", earmark.Clip(id))
}
