package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/workflowstore"
	"github.com/earmark-dev/earmark/migrations"
)

// attributesTimeout bounds the registration of search attributes.
const attributesTimeout = 30 * time.Second

func newMigrate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database and the Temporal namespace up to date with this version",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newMigrateUp(), newMigrateStatus())
	return cmd
}

func newMigrateUp() *cobra.Command {
	s := &settings{LogFormat: "text"}
	plan := false
	cmd := &cobra.Command{
		Use:     "up",
		Short:   "Apply pending migrations and register the search attributes",
		Example: "  earmark migrate up --database-url postgres://earmark@127.0.0.1:5432/earmark --temporal-address 127.0.0.1:7233",
		Args:    noArguments,
		RunE: withDatabase(s, func(ctx context.Context, cmd *cobra.Command, pool *pgxpool.Pool) error {
			if plan {
				return printPlan(ctx, cmd.OutOrStdout(), pool)
			}
			if err := migrateUp(ctx, cmd.OutOrStdout(), pool); err != nil {
				return err
			}
			if err := noteMissingRole(ctx, cmd.ErrOrStderr(), pool); err != nil {
				return err
			}
			if s.WithoutSearchAttributes {
				return nil
			}
			return withTemporal(ctx, s, func(ctx context.Context, c client.Client, namespace string) error {
				return registerAttributes(ctx, cmd.OutOrStdout(), c, namespace)
			})
		}),
	}
	s.databaseFlags(cmd.Flags())
	s.temporalFlags(cmd.Flags())
	cmd.Flags().BoolVar(&plan, "plan", false, "change nothing; say what would be applied, and which programs are connected")
	return cmd
}

func newMigrateStatus() *cobra.Command {
	s := &settings{LogFormat: "text"}
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "List the migrations and the search attributes that are missing",
		Example: "  earmark migrate status --database-url postgres://earmark@127.0.0.1:5432/earmark",
		Args:    noArguments,
		RunE: withDatabase(s, func(ctx context.Context, cmd *cobra.Command, pool *pgxpool.Pool) error {
			if err := printMigrations(ctx, cmd.OutOrStdout(), pool); err != nil {
				return err
			}
			if s.WithoutSearchAttributes {
				return nil
			}
			return withTemporal(ctx, s, func(ctx context.Context, c client.Client, namespace string) error {
				missing, err := workflowstore.MissingSearchAttributes(ctx, c, namespace)
				if err != nil {
					return fmt.Errorf("the search attributes of namespace %s: %w", namespace, err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "search attributes missing in namespace %s: %s\n", namespace, orNone(missing))
				return nil
			})
		}),
	}
	s.databaseFlags(cmd.Flags())
	s.temporalFlags(cmd.Flags())
	return cmd
}

func migrateUp(ctx context.Context, out io.Writer, pool *pgxpool.Pool) error {
	applied, err := postgres.Migrate(ctx, pool)
	for _, m := range applied {
		fmt.Fprintf(out, "applied %s in %s\n", m.Name, m.Took.Round(time.Millisecond))
	}
	if err == nil && len(applied) == 0 {
		fmt.Fprintln(out, "the database is up to date")
	}
	return err
}

// noteMissingRole says what to do where the account that migrates may not make roles.
func noteMissingRole(ctx context.Context, out io.Writer, pool *pgxpool.Pool) error {
	has, err := postgres.HasAppRole(ctx, pool)
	if err == nil && !has {
		fmt.Fprintf(out, "The role %s is missing, because this account may not make roles. serve and worker work with this account too; to take\n"+
			"the right to change rows by hand from them, have it made (CREATE ROLE %[1]s NOLOGIN) and run migrate up again.\n", postgres.AppRole)
	}
	return err
}

func registerAttributes(ctx context.Context, out io.Writer, c client.Client, namespace string) error {
	added, err := workflowstore.AddSearchAttributes(ctx, c, namespace)
	if len(added) > 0 {
		fmt.Fprintf(out, "registered the search attributes %s in namespace %s\n", strings.Join(added, ", "), namespace)
	}
	switch {
	case err == nil:
		return nil
	case len(added) > 0:
		return fmt.Errorf("Temporal does not take the search attributes yet, or does not say so; admissions fail until it does: %w", err)
	}
	return attributesRefused(namespace, err)
}

// attributesRefused explains who can register the search attributes if this account may
// not, and how.
func attributesRefused(namespace string, err error) error {
	var denied *serviceerror.PermissionDenied
	if !errors.As(err, &denied) {
		return fmt.Errorf("the search attributes were not registered in namespace %s; try again, or use --without-search-attributes: %w", namespace, err)
	}
	var commands strings.Builder
	for _, name := range sortedKeys(workflowstore.SearchAttributes()) {
		fmt.Fprintf(&commands, "\n  temporal operator search-attribute create --namespace %s --name %s --type %s", namespace, name, workflowstore.SearchAttributes()[name])
	}
	return fmt.Errorf("this account may not register search attributes in namespace %s (%w).\n"+
		"The schema is up to date. Whoever administers Temporal can register them, as below, or on the namespace's page in Temporal Cloud;\n"+
		"or pass --without-search-attributes here and to serve and worker: all works but the searches in Temporal UI.%s", namespace, err, commands.String())
}

func printMigrations(ctx context.Context, out io.Writer, pool *pgxpool.Pool) error {
	migrations, err := postgres.MigrationStatus(ctx, pool)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MIGRATION\tAPPLIED")
	for _, m := range migrations {
		when := "pending"
		if !m.AppliedAt.IsZero() {
			when = m.AppliedAt.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(table, "%s\t%s\n", m.Name, when)
	}
	return table.Flush()
}

// printPlan says what migrate up would do to the database.
func printPlan(ctx context.Context, out io.Writer, pool *pgxpool.Pool) error {
	steps, err := postgres.MigrationStatus(ctx, pool)
	if err != nil {
		return err
	}
	pending := 0
	for _, m := range steps {
		if m.AppliedAt.IsZero() {
			pending++
			fmt.Fprintf(out, "would apply %s: %s\n", m.Name, m.Purpose)
		}
	}
	if pending == 0 {
		fmt.Fprintln(out, "the database is up to date")
	}
	programs, err := postgres.ConnectedPrograms(ctx, pool)
	for _, p := range programs {
		verdict := "works beside this one"
		switch {
		case p.Schema == 0:
			verdict = "a build that does not say what it is for"
		case p.Schema < migrations.OldestBeside:
			verdict = fmt.Sprintf("too old: migrate up refuses to begin while it is connected; upgrade it to schema %d or newer, or stop it", migrations.OldestBeside)
		}
		fmt.Fprintf(out, "connected from %s with %d connections, for schema %d: %s\n", p.Client, p.Connections, p.Schema, verdict)
	}
	return err
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// withDatabase runs f with a pool on the database of the settings.
func withDatabase(s *settings, f func(context.Context, *cobra.Command, *pgxpool.Pool) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		if err := s.loadWithDatabase(cmd); err != nil {
			return err
		}
		pool, err := openPool(cmd.Context(), s.DatabaseURL)
		if err != nil {
			return err
		}
		defer pool.Close()
		return f(cmd.Context(), cmd, pool)
	}
}

// withTemporal runs f with a client on the namespace of the settings, within attributesTimeout.
func withTemporal(ctx context.Context, s *settings, f func(context.Context, client.Client, string) error) error {
	c, namespace, err := s.temporal(s.logger())
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, attributesTimeout)
	defer cancel()
	return f(ctx, c, namespace)
}
