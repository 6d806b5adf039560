package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/invoice"
	"github.com/earmark-dev/earmark/internal/postgres"
)

// errDiffers ends a comparison that found a difference and has shown it.
var errDiffers = errors.New("the invoice and the journal differ")

// invoiceFlags are the flags of reconcile-invoice.
type invoiceFlags struct {
	tenant, columns, timeZone, metadata, unit string
	tolerance                                 int64
	rename                                    []string
	asJSON                                    bool
}

func newReconcileInvoice() *cobra.Command {
	s := &settings{}
	f := &invoiceFlags{}
	cmd := &cobra.Command{
		Use:   "reconcile-invoice FILE.csv",
		Short: "Compare a provider's usage export with the journal",
		Long: `Compare a provider's export of costs or usage with what the reservations and
direct charges of a tenant used, corrections included, by day and model. It knows
the exports of OpenAI and Anthropic by their columns. Costs are compared in
usd_micros, token counts in tokens. It writes nothing, and exits with 1 if a line
differs by more than --tolerance or a row of the file cannot be read.

A reservation belongs to the day on which it was made. Pruned ones are missing.`,
		Example: `  earmark reconcile-invoice costs.csv
  earmark reconcile-invoice costs.csv --rename "Claude Haiku 4.5=claude-haiku-4-5" \
    --tolerance 10000
  earmark reconcile-invoice bill.csv --columns day=date,model=sku,cost=usd`,
		Args: arguments("FILE.csv"),
		RunE: func(cmd *cobra.Command, args []string) error {
			run, err := f.prepare(args[0])
			if err != nil {
				return usageError{err}
			}
			return withDatabase(s, run)(cmd, args)
		},
	}
	s.databaseFlags(cmd.Flags())
	cmd.Flags().StringVar(&f.tenant, "tenant", earmark.DefaultTenant, "the `TENANT` whose journal is compared")
	cmd.Flags().StringVar(&f.columns, "columns", "", "the file's `COLUMNS`: day=NAME,model=NAME,cost=NAME in dollars; or tokens=NAME, repeated")
	cmd.Flags().StringVar(&f.timeZone, "time-zone", "UTC", "the `ZONE` of the days: UTC, or Area/City")
	cmd.Flags().StringVar(&f.metadata, "model-metadata", "", "the metadata `KEY` with the model (default: the model of an estimate, or else model)")
	cmd.Flags().StringVar(&f.unit, "unit", "", "the `UNIT` of the journal (default: usd_micros for costs, tokens for token counts)")
	cmd.Flags().Int64Var(&f.tolerance, "tolerance", 0, "by how much a line may differ, in the unit: `N`")
	cmd.Flags().StringArrayVar(&f.rename, "rename", nil, "the journal's name of a model, `INVOICE=JOURNAL`; repeat it for more")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
	return cmd
}

// prepare reads the file before anything is asked.
func (f *invoiceFlags) prepare(path string) (func(context.Context, *cobra.Command, *pgxpool.Pool) error, error) {
	if err := earmark.ValidateTenant(f.tenant); err != nil {
		return nil, err
	}
	if f.tolerance < 0 {
		return nil, fmt.Errorf("--tolerance: %d is too small: whole numbers from 0 are allowed", f.tolerance)
	}
	if err := earmark.ValidateTimezone("--time-zone", f.timeZone); err != nil {
		return nil, err
	}
	zone, err := time.LoadLocation(f.timeZone)
	if err != nil {
		return nil, fmt.Errorf("--time-zone: %w", err)
	}
	var columns *invoice.Columns
	if f.columns != "" {
		named, err := invoice.ParseColumns(f.columns)
		if err != nil {
			return nil, fmt.Errorf("--columns: %w", err)
		}
		columns = &named
	}
	rename := map[string]string{}
	for _, pair := range f.rename {
		from, to, found := strings.Cut(pair, "=")
		if !found {
			return nil, fmt.Errorf("--rename: %q is not of the form INVOICE=JOURNAL", clipped(pair))
		}
		rename[from] = to
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	bill, err := invoice.Read(file, columns, zone, rename)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return func(ctx context.Context, cmd *cobra.Command, pool *pgxpool.Pool) error {
		return f.compare(ctx, cmd, pool, path, bill)
	}, nil
}

// comparison is the answer of reconcile-invoice.
type comparison struct {
	Unit   string               `json:"unit"`
	Lines  []invoice.Difference `json:"lines"`
	Total  invoice.Difference   `json:"total"`
	Errors []string             `json:"errors"` // rows that could not be read
}

func (f *invoiceFlags) compare(ctx context.Context, cmd *cobra.Command, pool *pgxpool.Pool, path string, bill *invoice.Invoice) error {
	answer := comparison{Unit: bill.Unit, Lines: []invoice.Difference{}, Total: invoice.Difference{Day: "total"}, Errors: []string{}}
	if f.unit != "" {
		answer.Unit = f.unit
	}
	for _, err := range bill.Errors {
		answer.Errors = append(answer.Errors, path+": "+err.Error())
	}
	if first, last := bill.Days(); first != "" {
		journal, err := f.journal(ctx, pool, answer.Unit, first, last)
		if err != nil {
			return err
		}
		answer.Lines = bill.Compare(journal)
	}
	differs := false
	for _, line := range answer.Lines {
		answer.Total.Invoice += line.Invoice
		answer.Total.Journal += line.Journal
		differs = differs || line.Difference > f.tolerance || -line.Difference > f.tolerance
	}
	answer.Total.Difference = answer.Total.Invoice - answer.Total.Journal
	if err := f.print(cmd, answer); err != nil {
		return err
	}
	switch {
	case len(answer.Errors) > 0:
		return fmt.Errorf("%d rows could not be read, so the comparison is incomplete", len(answer.Errors))
	case differs:
		return errDiffers
	}
	return nil
}

func (f *invoiceFlags) journal(ctx context.Context, pool *pgxpool.Pool, unit, first, last string) (map[invoice.Line]int64, error) {
	keys := []string{earmark.MetadataModel, "model"}
	if f.metadata != "" {
		keys = []string{f.metadata}
	}
	query := postgres.SpendingQuery{Tenant: f.tenant, Unit: unit, TimeZone: f.timeZone, Metadata: keys}
	query.First, _ = time.Parse(time.DateOnly, first) // the invoice has dates alone
	query.Last, _ = time.Parse(time.DateOnly, last)
	spent, err := postgres.New(pool).Spending(ctx, query)
	if err != nil {
		return nil, err
	}
	journal := map[invoice.Line]int64{}
	for _, s := range spent {
		journal[invoice.Line{Day: s.Day, Model: s.Model}] = s.Amount
	}
	return journal, nil
}

func (f *invoiceFlags) print(cmd *cobra.Command, answer comparison) error {
	for _, line := range answer.Errors {
		fmt.Fprintln(cmd.ErrOrStderr(), clean(line))
	}
	if f.asJSON {
		return printJSON(cmd.OutOrStdout(), answer)
	}
	p := &sheet{screen: screenOf(cmd.OutOrStdout()), now: time.Now()}
	columns := []column{
		{title: "DAY"}, {title: "MODEL", shrink: 1, least: 12}, {title: "INVOICE", right: true}, {title: "JOURNAL", right: true}, {title: "DIFFERENCE", right: true},
	}
	var rows [][]cell
	for _, line := range append(answer.Lines, answer.Total) {
		as := plain
		if line.Difference != 0 {
			as = red
		}
		rows = append(rows, []cell{{line.Day, plain}, {clean(line.Model), plain}, {earmark.FormatAmount(line.Invoice), plain},
			{earmark.FormatAmount(line.Journal), plain}, {earmark.FormatAmount(line.Difference), as}})
	}
	p.table(columns, rows)
	p.line("All amounts are in %s.", clean(answer.Unit))
	return p.flush()
}
