package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/prices"
	"github.com/earmark-dev/earmark/pricing"
)

// priceFormat is a kind of file that `price import` reads.
type priceFormat string

const formatEarmark priceFormat = "earmark"

var priceFormats = map[priceFormat]func([]byte, pricing.ImportOptions) ([]pricing.Entry, []pricing.Finding, error){
	"litellm":      pricing.ImportLiteLLM,
	"models.dev":   pricing.ImportModelsDev,
	"openrouter":   pricing.ImportOpenRouter,
	"genai-prices": pricing.ImportGenAIPrices,
	formatEarmark:  readEntries,
}

// readEntries reads the JSON of `price list`.
func readEntries(data []byte, _ pricing.ImportOptions) ([]pricing.Entry, []pricing.Finding, error) {
	var document priceListDocument
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&document); err != nil {
		return nil, nil, err
	}
	return document.Entries, nil, nil
}

// importDocument is the JSON of `price import`.
type importDocument struct {
	Version   *int64              `json:"version"` // null: nothing was added
	DryRun    bool                `json:"dry_run"`
	From      time.Time           `json:"from"`
	Read      int                 `json:"read"`      // entries that the file prices
	Changed   int                 `json:"changed"`   // of them, those that are new or differ
	Missing   []prices.Model      `json:"missing"`   // models of these providers with a price, but not in the file; their prices stay
	Findings  []pricing.Finding   `json:"findings"`  // what the file says that was not taken over
	Different []prices.Difference `json:"different"` // rates at From

	changes []pricing.Entry // that are added
}

func newPriceImport() *cobra.Command {
	var p priceCommand
	var from momentFlag
	var providers []string
	var free, dryRun bool
	var source string
	format := choiceFlag[priceFormat]{"", "FORMAT", []priceFormat{"litellm", "models.dev", "openrouter", "genai-prices", formatEarmark}}
	cmd := &cobra.Command{
		Use:   "import FILE|- --format FORMAT",
		Short: "Import a public table of prices, or one from price list --json",
		Long: `Add a version with the prices of a file that are new or differ. What the file
says and Earmark cannot charge is reported line by line on standard error, and
is an error when it is used. Models that the file does not name keep their
prices.`,
		Example: `  earmark price import prices.json --format litellm --dry-run
  curl -s $URL | earmark price import - --format models.dev`,
		Args: arguments("FILE|-"),
		RunE: p.run(func(ctx context.Context, cmd *cobra.Command, args []string) (databaseCall, error) {
			if err := p.check(); err != nil {
				return nil, err
			}
			if format.value == "" {
				return nil, usageError{fmt.Errorf("--format is missing: use one of %s", strings.Join(format.words(), ", "))}
			}
			if len(source) > prices.MaxSourceBytes {
				return nil, usageError{fmt.Errorf("--source is over %d bytes", prices.MaxSourceBytes)}
			}
			data, err := readFile(cmd, args[0], maxPriceFileBytes)
			if err != nil {
				return nil, err
			}
			entries, findings, err := priceFormats[format.value](data, pricing.ImportOptions{Free: free})
			if err != nil {
				return nil, usageError{fmt.Errorf("%s is not a table of the format %s: %w", args[0], format.value, err)}
			}
			if entries = ofProviders(entries, providers); len(entries) == 0 {
				return nil, fmt.Errorf("%s has no price that was taken over; %d were refused", args[0], len(findings))
			}
			if source == "" {
				source = string(format.value) + " " + args[0]
			}
			shown := importDocument{DryRun: dryRun, From: from.or(time.Now()).UTC().Truncate(time.Microsecond), Read: len(entries), Findings: orEmpty(findings)}
			return func(l *postgres.Ledger, by earmark.Actor, reason string) error {
				draft := func(state prices.State) (prices.Changes, error) {
					shown.compare(state.Own, entries)
					if dryRun {
						return prices.Changes{}, state.Check(prices.Changes{Entries: shown.changes})
					}
					return prices.Changes{Entries: shown.changes}, nil
				}
				version, err := p.add(ctx, l, by, reason, clipSource(source), draft)
				if err != nil {
					return err
				}
				if version != nil {
					shown.Version = &version.ID
				}
				return p.printImport(cmd, shown)
			}, nil
		}),
	}
	format.define(cmd, "format", "the kind of file")
	cmd.Flags().Var(&from, "from", "the `TIME` from which the prices hold (default: now); prices that the file dates later keep their date")
	cmd.Flags().StringArrayVar(&providers, "provider", nil, "import only this `PROVIDER`; repeat it for more")
	cmd.Flags().BoolVar(&free, "free", false, "take over entries whose prices are all 0; tables write 0 for what they do not know, too")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would change, and write nothing")
	cmd.Flags().StringVar(&source, "source", "", "`TEXT` about where the file comes from (default: its format and name)")
	p.ownerFlag(cmd)
	p.flags(cmd)
	return cmd
}

// compare finds what changes, on top of the owner's present entries.
func (d *importDocument) compare(own, entries []pricing.Entry) {
	d.changes = prices.Changed(own, entries, d.From)
	d.Changed = len(d.changes)
	d.Different = orEmpty(prices.Diff(own, slices.Concat(own, d.changes), d.From))
	d.Missing = orEmpty(prices.Missing(own, entries, d.From))
}

func (p *priceCommand) printImport(cmd *cobra.Command, d importDocument) error {
	words := p.words(cmd)
	for _, finding := range d.Findings {
		words.line("%s", clean(finding.String()))
	}
	if err := words.flush(); err != nil {
		return err
	}
	return p.print(cmd, d, importView(d))
}

func ofProviders(entries []pricing.Entry, providers []string) []pricing.Entry {
	if len(providers) == 0 {
		return entries
	}
	return slices.DeleteFunc(entries, func(e pricing.Entry) bool {
		return !slices.ContainsFunc(providers, func(name string) bool { return strings.EqualFold(name, e.Provider) })
	})
}

func clipSource(text string) string { return text[:min(len(text), prices.MaxSourceBytes)] }

func newPriceSet() *cobra.Command {
	var p priceCommand
	var from momentFlag
	var provider string
	var aliases []string
	var replace bool
	rates := ratesFlag{}
	per := million
	cmd := &cobra.Command{
		Use:   "set MODEL --provider PROVIDER --input USD --output USD",
		Short: "Set the prices of one model by hand",
		Long: `Add a version with the price of one model, in US dollars for --per tokens.
Without prices of their own, cache reads, audio, images and video cost what
input or output does, and cache writes and searches are refused when they are
used. --rate names any other part, such as web_searches=0.01, for one of it, or
for --per of them if it counts tokens. The names of the model stay.`,
		Example: `  earmark price set my-model --provider my-gateway --input 2.50 --output 10
  earmark price set llama --provider local --input 0 --output 0`,
		Args: arguments("MODEL"),
		RunE: p.run(func(ctx context.Context, cmd *cobra.Command, args []string) (databaseCall, error) {
			if err := p.check(); err != nil {
				return nil, err
			}
			if provider == "" {
				return nil, usageError{errors.New("--provider is missing: name the company that bills, such as openai")}
			}
			set, err := rates.rates(per)
			if err != nil {
				return nil, err
			}
			at := from.or(time.Now()).UTC().Truncate(time.Microsecond)
			entry := pricing.Entry{Provider: provider, Model: args[0], Aliases: aliases, From: at, Prices: pricing.Prices{Rates: set}}
			return func(l *postgres.Ledger, by earmark.Actor, reason string) error {
				version, err := p.add(ctx, l, by, reason, "by hand", func(state prices.State) (prices.Changes, error) {
					e, err := state.SetByHand(entry, replace)
					return prices.Changes{Entries: e}, err
				})
				if err != nil {
					return err
				}
				if version == nil {
					return p.print(cmd, map[string]any{"version": nil}, func(p *sheet) { p.line("Nothing has changed: the model has these prices.") })
				}
				shown := priceDocument{Version: version.ID, Entry: version.Entries[0]}
				return p.print(cmd, shown, priceView(shown))
			}, nil
		}),
	}
	cmd.Flags().StringVar(&provider, "provider", "", "the `PROVIDER` that bills (required)")
	for name, part := range map[string]pricing.Part{"input": pricing.Input, "output": pricing.Output, "cache-read": pricing.CacheRead, "cache-write": pricing.CacheWrite, "reasoning": pricing.Reasoning} {
		cmd.Flags().Var(&partRateFlag{rates, part}, name, "`USD` for "+strings.ReplaceAll(name, "-", " ")+" tokens")
	}
	cmd.Flags().Var(rates, "rate", "the price of another part as `PART=USD`; repeat it for more")
	cmd.Flags().Var(&per, "per", "the `TOKENS` that the prices are for: 1, 1K or 1M")
	cmd.Flags().StringArrayVar(&aliases, "alias", nil, "another `NAME` of the model; repeat it for more")
	cmd.Flags().BoolVar(&replace, "replace", false, "also drop tiers and variants that the present price has")
	cmd.Flags().Var(&from, "from", "the `TIME` from which the price holds (default: now)")
	p.ownerFlag(cmd)
	p.flags(cmd)
	return cmd
}

// ratesFlag collects prices by part, as text.
type ratesFlag map[pricing.Part]string

func (f ratesFlag) Type() string   { return "PART=USD" }
func (f ratesFlag) String() string { return "" }

func (f ratesFlag) Set(text string) error {
	part, usd, found := strings.Cut(text, "=")
	if !found {
		return fmt.Errorf("%q is not of the form PART=USD, such as web_searches=0.01", clipped(text))
	}
	return f.set(pricing.Part(part), usd)
}

func (f ratesFlag) set(part pricing.Part, usd string) error {
	if _, given := f[part]; given {
		return fmt.Errorf("%s is given twice", clipped(string(part)))
	}
	if !slices.Contains(pricing.Parts(), part) {
		names := make([]string, 0, len(pricing.Parts()))
		for _, known := range pricing.Parts() {
			names = append(names, string(known))
		}
		return fmt.Errorf("%q is not a part; use one of %s", clipped(string(part)), strings.Join(names, ", "))
	}
	if _, err := pricing.ParseDecimal(usd); err != nil {
		return fmt.Errorf("%q is not a price in US dollars, such as 2.50", clipped(usd))
	}
	f[part] = usd
	return nil
}

// rates returns the prices for one unit.
func (f ratesFlag) rates(per tokensPer) (pricing.Rates, error) {
	rates := pricing.Rates{}
	for part, usd := range f {
		d, err := pricing.ParseDecimal(usd)
		if part.IsTokens() && err == nil {
			d, err = d.Shift(-per.zeros())
		}
		if err != nil {
			return nil, usageError{fmt.Errorf("the price of %s: %w", part, err)}
		}
		rates[part] = pricing.Rate{USD: d}
	}
	if len(rates) == 0 {
		return nil, usageError{errors.New("no price is given: set --input and --output, or --rate PART=USD")}
	}
	rates.Complete()
	return rates, nil
}

// partRateFlag is the flag of one part.
type partRateFlag struct {
	rates ratesFlag
	part  pricing.Part
}

func (f *partRateFlag) Type() string          { return "USD" }
func (f *partRateFlag) String() string        { return "" }
func (f *partRateFlag) Set(text string) error { return f.rates.set(f.part, text) }

// tokensPer is the number of tokens that a price is for: 1, 1K or 1M.
type tokensPer string

const million tokensPer = "1M"

func (t *tokensPer) Type() string   { return "TOKENS" }
func (t *tokensPer) String() string { return string(*t) }

func (t *tokensPer) Set(text string) error {
	switch text = strings.ToUpper(text); text {
	case "1", "1K", "1M":
		*t = tokensPer(text)
		return nil
	}
	return errors.New("use one of 1, 1K, 1M")
}

func (t tokensPer) zeros() int {
	return map[tokensPer]int{"1": 0, "1K": 3, "1M": 6}[t]
}

func newPriceMultiplier() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "multiplier",
		Short: "Set, list and remove factors for resale",
		Long: `A multiplier is applied to the exact cost, which is then rounded up. That of the
innermost scope applies; without one, that of the model; without one, that of
the tenant. A tenant's own replaces the one of all tenants.`,
		Example: "  earmark price multiplier set 1.2 --tenant acme",
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newMultiplierChange("set FACTOR"), newMultiplierChange("remove"), newMultiplierList())
	return cmd
}

func newMultiplierChange(use string) *cobra.Command {
	var p priceCommand
	var m prices.Multiplier
	var scope scopeFlag
	sets := strings.HasPrefix(use, "set")
	cmd := &cobra.Command{
		Use:     use,
		Short:   "Set a factor for a scope, for a model, or for everything",
		Example: "  earmark price multiplier set 1.15 --model gpt-5 --provider openai",
		Args:    arguments(strings.Fields(use)[1:]...),
		RunE: p.run(func(ctx context.Context, cmd *cobra.Command, args []string) (databaseCall, error) {
			if err := p.check(); err != nil {
				return nil, err
			}
			m.Scope = string(scope)
			if sets {
				factor, err := pricing.ParseDecimal(args[0])
				if err != nil || factor.IsZero() {
					return nil, usageError{fmt.Errorf("FACTOR: %q is not a factor above 0, such as 1.2", clipped(args[0]))}
				}
				m.Factor = factor
			}
			return func(l *postgres.Ledger, by earmark.Actor, reason string) error {
				version, err := p.add(ctx, l, by, reason, "by hand", func(state prices.State) (prices.Changes, error) {
					named, err := state.Multiplier(m, time.Now())
					return prices.Changes{Multipliers: []prices.Multiplier{named}}, err
				})
				if err != nil {
					return err
				}
				return p.print(cmd, version, multiplierTable(version.Multipliers))
			}, nil
		}),
	}
	if !sets {
		cmd.Short, cmd.Example = "Remove the factor of a scope, of a model, or of everything", "  earmark price multiplier remove --scope acme/ml"
	}
	cmd.Flags().Var(&scope, "scope", "for this scope and those below it")
	cmd.Flags().StringVar(&m.Model, "model", "", "for this `MODEL`")
	cmd.Flags().StringVar(&m.Provider, "provider", "", "the `PROVIDER` of the model; required if several have it")
	p.ownerFlag(cmd)
	p.flags(cmd)
	return cmd
}

func newMultiplierList() *cobra.Command {
	var p priceCommand
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the factors that apply to a tenant",
		Example: "  earmark price multiplier list --tenant acme",
		Args:    noArguments,
		RunE: p.run(func(ctx context.Context, cmd *cobra.Command, _ []string) (databaseCall, error) {
			if err := p.check(); err != nil {
				return nil, err
			}
			return func(l *postgres.Ledger, _ earmark.Actor, _ string) error {
				book, err := p.prices(ctx, l)
				if err != nil {
					return err
				}
				all := orEmpty(book.Multipliers())
				return p.print(cmd, map[string]any{"version": book.Version, "multipliers": all}, multiplierTable(all))
			}, nil
		}),
	}
	p.ownerFlag(cmd)
	p.readFlags(cmd)
	return cmd
}

func newPriceFallback() *cobra.Command {
	var p priceCommand
	var provider string
	cmd := &cobra.Command{
		Use:   "fallback MODEL|none",
		Short: "Choose whose prices apply to a model without any",
		Long: `Without a fallback, a model that has no price is refused (unknown_model). With
one, it costs what the fallback costs: name an expensive model.`,
		Example: `  earmark price fallback claude-opus-5 --provider anthropic --tenant acme
  earmark price fallback none --tenant acme`,
		Args: arguments("MODEL|none"),
		RunE: p.run(func(ctx context.Context, cmd *cobra.Command, args []string) (databaseCall, error) {
			if err := p.check(); err != nil {
				return nil, err
			}
			return func(l *postgres.Ledger, by earmark.Actor, reason string) error {
				version, err := p.add(ctx, l, by, reason, "by hand", func(state prices.State) (prices.Changes, error) {
					if args[0] == "none" {
						return prices.Changes{Fallback: &prices.Model{}}, nil
					}
					model, err := state.Named(provider, args[0], time.Now())
					return prices.Changes{Fallback: &model}, err
				})
				if err != nil {
					return err
				}
				return p.print(cmd, version, func(p *sheet) {
					if version.Fallback.Model == "" {
						p.line("Models without a price are refused, unless a fallback of all tenants is set.")
						return
					}
					p.line("Models without a price cost what %s costs.", version.Fallback)
				})
			}, nil
		}),
	}
	cmd.Flags().StringVar(&provider, "provider", "", "the `PROVIDER` of the model; required if several have it")
	p.ownerFlag(cmd)
	p.flags(cmd)
	return cmd
}
