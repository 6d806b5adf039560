package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
)

func newTenant() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tenant",
		Short: "Create, list, disable and enable tenants, on the database",
		Long: `A tenant owns budgets, reservations, entries and keys. Tenants never see each
other's. The tenant "default" is always there, and enough for one customer.`,
		Example: "  earmark tenant create acme",
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newTenantChange("create", "Create a tenant", "", (*postgres.Ledger).CreateTenant),
		newTenantList(),
		newTenantChange("disable", "Refuse all keys of a tenant, within 5 seconds everywhere",
			"Refuse all keys of a tenant until it is enabled again. What is held goes on to\nits expiry, and nothing is deleted.", (*postgres.Ledger).DisableTenant),
		newTenantChange("enable", "Let the keys of a disabled tenant work again", "", (*postgres.Ledger).EnableTenant),
	)
	return cmd
}

// newTenantChange is the command VERB, which changes one tenant.
func newTenantChange(verb, short, long string,
	change func(*postgres.Ledger, context.Context, string, earmark.Actor, string) (*earmark.Tenant, error)) *cobra.Command {
	var d databaseCommand
	reasonRequired := verb == "disable"
	cmd := &cobra.Command{
		Use:     verb + " TENANT",
		Short:   short,
		Long:    long,
		Example: "  earmark tenant " + verb + " acme",
		Args:    arguments("TENANT"),
		RunE: d.run(func(ctx context.Context, cmd *cobra.Command, args []string) (databaseCall, error) {
			if err := earmark.ValidateTenant(args[0]); err != nil {
				return nil, err
			}
			if reasonRequired {
				if err := d.requireReason(); err != nil {
					return nil, err
				}
			}
			return func(l *postgres.Ledger, by earmark.Actor, reason string) error {
				tenant, err := change(l, ctx, args[0], by, reason)
				if err != nil {
					return err
				}
				return d.print(cmd, tenant, tenantTable([]earmark.Tenant{*tenant}))
			}, nil
		}),
	}
	if reasonRequired {
		cmd.Use, cmd.Example = cmd.Use+" --reason WHY", cmd.Example+` --reason "it does not pay"`
		cmd.DisableFlagsInUseLine = true
	}
	d.flags(cmd)
	return cmd
}

func newTenantList() *cobra.Command {
	var d databaseCommand
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List all tenants",
		Example: "  earmark tenant list",
		Args:    noArguments,
		RunE: d.run(func(ctx context.Context, cmd *cobra.Command, _ []string) (databaseCall, error) {
			return func(l *postgres.Ledger, _ earmark.Actor, _ string) error {
				tenants, err := l.Tenants(ctx)
				if err != nil {
					return err
				}
				return d.print(cmd, earmark.Page[earmark.Tenant]{Data: tenants}, tenantTable(tenants))
			}, nil
		}),
	}
	d.readFlags(cmd)
	return cmd
}

func tenantTable(tenants []earmark.Tenant) view {
	columns := []column{{title: "TENANT"}, {title: "STATE"}, {title: "CREATED", drop: 1}, {title: "DISABLED", drop: 2}}
	return func(p *sheet) {
		rows := make([][]cell, 0, len(tenants))
		for _, t := range tenants {
			state, style, disabled := "active", green, ""
			if t.DisabledAt != nil {
				state, style, disabled = "disabled", red, p.when(*t.DisabledAt)
			}
			rows = append(rows, []cell{{t.ID, plain}, {state, style}, {p.when(t.CreatedAt), dim}, {disabled, dim}})
		}
		p.table(columns, rows)
	}
}
