package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/prices"
	"github.com/earmark-dev/earmark/pricing"
	"github.com/earmark-dev/earmark/usage"
)

// maxPriceFileBytes bounds a file of prices; the largest public one has 4 MB.
const maxPriceFileBytes = 64 << 20

func newPrice() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "price",
		Short: "Import, set, show and compare the prices of models, on the database",
		Long: `Prices turn a model and its usage into US dollars. They are kept in versions,
which are added and never changed: a reservation is charged at the version of
its admission. Without --tenant they are those of all tenants; a tenant's own
come first.`,
		Example: `  earmark price import prices.json --format litellm --dry-run
  earmark price show gpt-5 --provider openai --explain`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPriceImport(), newPriceSet(), newPriceList(), newPriceShow(), newPriceDiff(), newPriceVersions(), newPriceMultiplier(), newPriceFallback())
	return cmd
}

// priceCommand is a command on the prices of one owner.
type priceCommand struct {
	databaseCommand
	tenant  string
	version int64
	at      momentFlag
}

func (p *priceCommand) ownerFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.tenant, "tenant", prices.Installation, "the prices of this `TENANT` (default: those of all tenants)")
	completeWords(cmd, "tenant", nil)
}

// viewFlags are the flags that choose which prices are shown.
func (p *priceCommand) viewFlags(cmd *cobra.Command) {
	p.ownerFlag(cmd)
	cmd.Flags().Var(&p.at, "at", "the prices at this `TIME`, such as 2027-01-31 or 2027-01-31T12:00:00Z (default: now)")
	cmd.Flags().Int64Var(&p.version, "version", 0, "as they were at version `N` (default: the newest)")
	p.readFlags(cmd)
}

func (p *priceCommand) check() error {
	if p.tenant == prices.Installation {
		return nil
	}
	return earmark.ValidateTenant(p.tenant)
}

// prices returns the prices that the flags choose.
func (p *priceCommand) prices(ctx context.Context, l *postgres.Ledger) (*prices.Prices, error) {
	book := prices.NewBook(l)
	if p.version != 0 {
		return book.Version(ctx, p.tenant, p.version)
	}
	return book.Current(ctx, p.tenant)
}

// add adds a version; it is nil if nothing has changed.
func (p *priceCommand) add(ctx context.Context, l *postgres.Ledger, by earmark.Actor, reason, source string, draft func(prices.State) (prices.Changes, error)) (*prices.Version, error) {
	return prices.NewBook(l).Add(ctx, p.tenant, draft, func(ctx context.Context, after int64, changes prices.Changes) (*prices.Version, error) {
		return l.AddPrices(ctx, p.tenant, after, changes, source, by, reason)
	})
}

func newPriceList() *cobra.Command {
	var p priceCommand
	var provider, model string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the prices that hold, by provider and model",
		Example: `  earmark price list --provider anthropic
  earmark price list --model gpt-5 --at 2027-01-31 --json`,
		Args: noArguments,
		RunE: p.run(func(ctx context.Context, cmd *cobra.Command, _ []string) (databaseCall, error) {
			if err := p.check(); err != nil {
				return nil, err
			}
			return func(l *postgres.Ledger, _ earmark.Actor, _ string) error {
				book, err := p.prices(ctx, l)
				if err != nil {
					return err
				}
				held := book.Held(provider, model, p.at.or(time.Now()))
				return p.print(cmd, priceListDocument{Version: book.Version, Entries: held}, priceTable(held))
			}, nil
		}),
	}
	cmd.Flags().StringVar(&provider, "provider", "", "only those of this `PROVIDER`")
	cmd.Flags().StringVar(&model, "model", "", "only models whose name contains `TEXT`")
	p.viewFlags(cmd)
	return cmd
}

// priceListDocument is the JSON of `price list`. `price import --format earmark` reads it.
type priceListDocument struct {
	Version int64           `json:"version"`
	Entries []pricing.Entry `json:"entries"`
}

func newPriceShow() *cobra.Command {
	var p priceCommand
	var provider, usageText string
	var explain bool
	var scopes []string
	format := choiceFlag[usage.Format]{"", "FORMAT", usage.Formats()}
	cmd := &cobra.Command{
		Use:   "show MODEL",
		Short: "Show the prices of a model, and what a usage costs",
		Long: `Show the prices of a model. With --explain, show the sum for a usage line by
line: the usage object of the provider, or the response around it, from --usage;
- reads standard input. Without --usage it is a million tokens in and a million
out.`,
		Example: `  earmark price show gpt-5 --provider openai --explain
  earmark price show claude-sonnet-5 --explain --usage - < response.json`,
		Args: arguments("MODEL"),
		RunE: p.run(func(ctx context.Context, cmd *cobra.Command, args []string) (databaseCall, error) {
			if err := p.check(); err != nil {
				return nil, err
			}
			u, err := usageOf(cmd, usageText, format.value)
			if err != nil {
				return nil, err
			}
			at := p.at.or(time.Now())
			return func(l *postgres.Ledger, _ earmark.Actor, _ string) error {
				book, err := p.prices(ctx, l)
				if err != nil {
					return err
				}
				entry, err := book.Find(provider, args[0], at)
				if err != nil {
					return err
				}
				shown := priceDocument{Version: book.Version, Entry: *entry}
				if explain || usageText != "" {
					e, err := book.Explain(u, pricing.Query{Provider: provider, Model: args[0], Time: at}, scopes)
					if err != nil {
						return err
					}
					shown.Explanation = &priceSum{e, e.Charge.USD(), e.Charge.USDMicros}
				}
				return p.print(cmd, shown, priceView(shown))
			}, nil
		}),
	}
	cmd.Flags().StringVar(&provider, "provider", "", "the `PROVIDER` that bills; required if several have the model")
	cmd.Flags().BoolVar(&explain, "explain", false, "show the sum for a usage")
	cmd.Flags().StringVar(&usageText, "usage", "", "the usage as the provider's `JSON`; - reads standard input")
	format.define(cmd, "usage-format", "how to read it (default: by its shape)")
	cmd.Flags().Var((*scopesFlag)(&scopes), "scope", "the scope that is charged, for its multiplier")
	p.viewFlags(cmd)
	return cmd
}

// priceDocument is the JSON of `price show`.
type priceDocument struct {
	Version     int64         `json:"version"`
	Entry       pricing.Entry `json:"entry"`
	Explanation *priceSum     `json:"explanation,omitempty"`
}

type priceSum struct {
	pricing.Explanation
	USD       string `json:"usd"` // exact
	USDMicros int64  `json:"usd_micros"`
}

// usageOf reads the usage that is priceSum.
func usageOf(cmd *cobra.Command, text string, format usage.Format) (usage.Usage, error) {
	const million = 1_000_000
	switch text {
	case "":
		return usage.Usage{Input: usage.Input{Tokens: million}, Output: usage.Output{Tokens: million}}, nil
	case "-":
		body, err := readBounded(cmd.InOrStdin(), usage.MaxBytes)
		if err != nil {
			return usage.Usage{}, fmt.Errorf("--usage: %w", err)
		}
		text = string(body)
	}
	u, err := usage.Normalize(format, []byte(text))
	if err != nil {
		return u, usageError{fmt.Errorf("--usage: %w", err)}
	}
	return u, nil
}

func newPriceDiff() *cobra.Command {
	var p priceCommand
	cmd := &cobra.Command{
		Use:   "diff [A [B]]",
		Short: "Compare two versions, by model and in percent",
		Long: `Compare the prices of version A with those of version B, at one moment. Without
B it is the newest, and without A the one before it. Version 0 has no prices.`,
		Example: `  earmark price diff
  earmark price diff 3 7 --at 2027-01-31`,
		Args: cobra.MaximumNArgs(2),
		RunE: p.run(func(ctx context.Context, cmd *cobra.Command, args []string) (databaseCall, error) {
			if err := p.check(); err != nil {
				return nil, err
			}
			numbers, err := versionNumbers(args)
			if err != nil {
				return nil, err
			}
			return func(l *postgres.Ledger, _ earmark.Actor, _ string) error {
				book := prices.NewBook(l)
				newest, err := book.Current(ctx, p.tenant)
				if err != nil {
					return err
				}
				from, to := max(0, newest.Version-1), newest.Version
				if len(numbers) > 0 {
					from = numbers[0]
				}
				if len(numbers) > 1 {
					to = numbers[1]
				}
				before, err := book.Version(ctx, p.tenant, from)
				if err != nil {
					return err
				}
				after, err := book.Version(ctx, p.tenant, to)
				if err != nil {
					return err
				}
				differences := prices.Diff(before.Entries(), after.Entries(), p.at.or(time.Now()))
				return p.print(cmd, map[string]any{"from_version": from, "to_version": to, "differences": orEmpty(differences)}, differenceTable(differences))
			}, nil
		}),
	}
	p.ownerFlag(cmd)
	cmd.Flags().Var(&p.at, "at", "compare the prices at this `TIME` (default: now)")
	p.readFlags(cmd)
	return cmd
}

func versionNumbers(args []string) (numbers []int64, err error) {
	for _, arg := range args {
		n, err := parseAmount(arg)
		if err != nil {
			return nil, usageError{fmt.Errorf("%q is not the number of a version; `earmark price versions` shows them", clipped(arg))}
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

func newPriceVersions() *cobra.Command {
	var p priceCommand
	cmd := &cobra.Command{
		Use:     "versions",
		Short:   "List the versions, newest first: who added what, and why",
		Example: "  earmark price versions",
		Args:    noArguments,
		RunE: p.run(func(ctx context.Context, cmd *cobra.Command, _ []string) (databaseCall, error) {
			return func(l *postgres.Ledger, _ earmark.Actor, _ string) error {
				versions, err := l.PriceVersions(ctx, 0)
				if err != nil {
					return err
				}
				summaries := prices.Summaries(versions)
				return p.print(cmd, map[string]any{"versions": summaries}, versionTable(summaries))
			}, nil
		}),
	}
	p.readFlags(cmd)
	return cmd
}

// momentFlag is a time: a date, which begins in UTC, or RFC 3339.
type momentFlag struct{ time.Time }

func (f *momentFlag) Set(text string) (err error) {
	if f.Time, err = time.Parse(time.RFC3339, text); err != nil {
		f.Time, err = time.Parse(time.DateOnly, text)
	}
	if err != nil || f.IsZero() {
		return fmt.Errorf("%q is not a time; write 2027-01-31 or 2027-01-31T12:00:00Z", clipped(text))
	}
	return earmark.ValidateTime("", f.Time)
}
func (f *momentFlag) Type() string { return "TIME" }
func (f *momentFlag) String() string {
	if f.IsZero() {
		return ""
	}
	return f.Format(time.RFC3339)
}

// or returns the time, or another if none is given.
func (f *momentFlag) or(other time.Time) time.Time {
	if f.IsZero() {
		return other
	}
	return f.Time
}

// readFile reads a file, or standard input for -.
func readFile(cmd *cobra.Command, name string, limit int64) ([]byte, error) {
	if name == "-" {
		return readBounded(cmd.InOrStdin(), limit)
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, usageError{err}
	}
	defer func() { _ = file.Close() }() // nothing was written
	data, err := readBounded(file, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}

func readBounded(from io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, limit+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(data)) > limit:
		return nil, usageError{fmt.Errorf("is over %d MiB", limit>>20)}
	case strings.TrimSpace(string(data)) == "":
		return nil, usageError{errors.New("is empty")}
	}
	return data, nil
}

// orEmpty makes an empty list of nil, so that JSON shows [].
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
