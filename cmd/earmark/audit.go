package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark/internal/postgres"
)

func newAudit() *cobra.Command {
	s := &settings{}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Check every rule of the ledger on a live database",
		Long: `Check every rule of the ledger on a live database, in one snapshot, without
blocking other calls. Exits with 1 on any mismatch.`,
		Example: "  earmark audit --database-url \"$(earmark dev --print-database-url)\"",
		Args:    noArguments,
		RunE: withDatabase(s, func(ctx context.Context, cmd *cobra.Command, pool *pgxpool.Pool) error {
			report, err := postgres.New(pool).CheckRules(ctx)
			if err != nil {
				return err
			}
			return printAudit(cmd, report, asJSON)
		}),
	}
	s.databaseFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printAudit prints the report; it returns an error if a rule is broken.
func printAudit(cmd *cobra.Command, report postgres.AuditReport, asJSON bool) error {
	out := cmd.OutOrStdout()
	mismatches := report.Mismatches()
	if asJSON {
		if err := printJSON(out, report); err != nil {
			return err
		}
	} else {
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "RULE\tCHECKED\tMISMATCHED\tMEANING")
		for _, check := range report.Checks {
			fmt.Fprintf(table, "%s\t%d\t%d\t%s\n", check.Rule, check.Checked, check.Mismatched, check.Meaning)
		}
		if err := table.Flush(); err != nil {
			return err
		}
		for _, line := range mismatches {
			fmt.Fprintln(out, line)
		}
	}
	if len(mismatches) > 0 {
		return fmt.Errorf("%d of %d checks found mismatches", len(mismatches), len(report.Checks))
	}
	return nil
}
