package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
)

// parseAmount reads a whole number in the usual forms: 1000000, 1,000,000 or 1_000_000. It
// refuses ambiguous ones.
func parseAmount(text string) (int64, error) {
	digits, err := ungroup(text)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil { // only its size can be wrong
		return 0, fmt.Errorf("%s is too large: the largest amount is %s", text, earmark.FormatAmount(math.MaxInt64))
	}
	return n, nil
}

// ungroup removes the separators from an amount.
func ungroup(text string) (string, error) {
	const groupLength = 3
	refuse := func(why string) (string, error) {
		return "", fmt.Errorf("%q is not an amount: %s; write a whole number such as 1200, 1,200 or 1_200", clipped(text), why)
	}
	switch {
	case text == "":
		return refuse("it is empty")
	case strings.HasPrefix(text, "-"):
		return refuse("it is negative")
	case strings.Contains(text, "."):
		return refuse("a point may mean a fraction or a thousand")
	case strings.Trim(text, "0123456789,_") != "":
		return refuse("only digits are allowed")
	case strings.Contains(text, ",") && strings.Contains(text, "_"):
		return refuse("it mixes commas and underscores")
	}
	groups := strings.Split(strings.ReplaceAll(text, "_", ","), ",")
	for i, group := range groups {
		if len(groups) > 1 && (len(group) > groupLength || group == "" || (i > 0 && len(group) != groupLength)) {
			return refuse("separators stand between groups of three digits")
		}
	}
	return strings.Join(groups, ""), nil
}

// parseUnitAmount reads UNIT=N.
func parseUnitAmount(text string) (unit string, amount int64, err error) {
	unit, number, found := strings.Cut(text, "=")
	if !found {
		return "", 0, fmt.Errorf("%q has no unit; write UNIT=N, such as tokens=1200", clipped(text))
	}
	if err := earmark.ValidateUnit("", unit); err != nil {
		return "", 0, err
	}
	amount, err = parseAmount(number)
	return unit, amount, err
}

// addAmount adds UNIT=N to amounts. It refuses a repeated unit, which may be a mistake.
func addAmount(amounts earmark.Amounts, text string) error {
	unit, amount, err := parseUnitAmount(text)
	if err != nil {
		return err
	}
	if _, given := amounts[unit]; given {
		return fmt.Errorf("%s is given twice", unit)
	}
	amounts[unit] = amount
	return nil
}

// amountsFlag collects --amount UNIT=N. Amounts may contain commas, so commas do not
// separate them; the flag is repeated.
type amountsFlag earmark.Amounts

func (f amountsFlag) Set(text string) error { return addAmount(earmark.Amounts(f), text) }
func (f amountsFlag) Type() string          { return "UNIT=N" }
func (f amountsFlag) String() string        { return "" }

// metadataFlag collects --metadata KEY=VALUE. Values may contain any text.
type metadataFlag earmark.Metadata

func (f metadataFlag) Set(text string) error {
	key, value, found := strings.Cut(text, "=")
	if !found || key == "" {
		return fmt.Errorf("%q is not of the form KEY=VALUE, such as model=large", clipped(text))
	}
	f[key] = value
	return nil
}
func (f metadataFlag) Type() string   { return "KEY=VALUE" }
func (f metadataFlag) String() string { return "" }

// amountFlag is an optional amount.
type amountFlag struct{ value *int64 }

func (f *amountFlag) Set(text string) error {
	n, err := parseAmount(text)
	f.value = &n
	return err
}
func (f *amountFlag) Type() string   { return "N" }
func (f *amountFlag) String() string { return "" }

// ceilingFlag is an amount, or "none", which removes a ceiling.
type ceilingFlag struct {
	given bool
	value *int64 // nil: none
}

func (f *ceilingFlag) Set(text string) error {
	f.given, f.value = true, nil
	if text == "none" {
		return nil
	}
	n, err := parseAmount(text)
	f.value = &n
	return err
}
func (f *ceilingFlag) Type() string   { return "N|none" }
func (f *ceilingFlag) String() string { return "" }

// ttlFlag is the length of a lease: 90s, 5m or 1h30m, or a number of seconds.
type ttlFlag time.Duration

func (f *ttlFlag) Set(text string) error {
	seconds, err := strconv.ParseInt(text, 10, 32)
	ttl := time.Duration(seconds) * time.Second
	if err != nil {
		if ttl, err = time.ParseDuration(text); err != nil {
			return fmt.Errorf("%q is not a duration; write 90s, 5m, 1h30m, or a number of seconds", clipped(text))
		}
	}
	switch {
	case ttl%time.Second != 0:
		return fmt.Errorf("%s is not in whole seconds", ttl)
	case ttl < earmark.MinTTL || ttl > earmark.MaxTTL:
		return fmt.Errorf("%s is out of range: %s to %s are allowed", span(ttl), span(earmark.MinTTL), span(earmark.MaxTTL))
	}
	*f = ttlFlag(ttl)
	return nil
}
func (f *ttlFlag) Type() string { return "DURATION" }
func (f *ttlFlag) String() string {
	if *f == 0 {
		return ""
	}
	return span(time.Duration(*f))
}

// scopeFlag is a scope, in its own form or as lists show it: acme/a@b.com.
type scopeFlag string

func (f *scopeFlag) String() string { return string(*f) }
func (f *scopeFlag) Type() string   { return "SCOPE" }

func (f *scopeFlag) Set(text string) error {
	if text == "" { // the flag's own default
		*f = ""
		return nil
	}
	scope, err := earmark.ParseScope("", text)
	*f = scopeFlag(scope)
	return err
}

// budgetScopeFlag is a scopeFlag that may also be the scope of a template.
type budgetScopeFlag string

func (f *budgetScopeFlag) String() string { return string(*f) }
func (f *budgetScopeFlag) Type() string   { return "SCOPE" }

func (f *budgetScopeFlag) Set(text string) error {
	if text == "" { // the flag's own default
		*f = ""
		return nil
	}
	scope, err := earmark.ParseBudgetScope("", text)
	*f = budgetScopeFlag(scope)
	return err
}

func parseScopes(texts []string) ([]string, error) {
	scopes := make([]string, len(texts))
	for i, text := range texts {
		var err error
		if scopes[i], err = earmark.ParseScope("scopes", text); err != nil {
			return nil, err
		}
	}
	return scopes, nil
}

// displayScopes returns scopes for people, with decoded ids.
func displayScopes(scopes []string) []string {
	shown := make([]string, len(scopes))
	for i, scope := range scopes {
		shown[i] = earmark.DisplayScope(scope)
	}
	return shown
}

// choiceFlag accepts one of a few words.
type choiceFlag[T ~string] struct {
	value   T
	noun    string
	allowed []T
}

// define defines the flag, with its words in the help and in completions.
func (f *choiceFlag[T]) define(cmd *cobra.Command, name, usage string) {
	cmd.Flags().Var(f, name, usage+": "+strings.Join(f.words(), ", "))
	completeWords(cmd, name, f.words())
}

func (f *choiceFlag[T]) Set(text string) error {
	for _, allowed := range f.allowed {
		if text == string(allowed) {
			f.value = allowed
			return nil
		}
	}
	return fmt.Errorf("use one of %s", strings.Join(f.words(), ", "))
}
func (f *choiceFlag[T]) Type() string   { return f.noun }
func (f *choiceFlag[T]) String() string { return string(f.value) }

func (f *choiceFlag[T]) words() []string {
	words := make([]string, len(f.allowed))
	for i, allowed := range f.allowed {
		words[i] = string(allowed)
	}
	return words
}

// arguments requires one argument for each name; a name that ends in … stands for one or
// more.
func arguments(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		variadic := len(names) > 0 && strings.HasSuffix(names[len(names)-1], "…")
		switch {
		case len(args) < len(names):
			missing := strings.TrimSuffix(names[len(args)], "…")
			return usageError{fmt.Errorf("%s is missing: %s; see `%s --help`", missing, cmd.UseLine(), cmd.CommandPath())}
		case len(args) > len(names) && !variadic:
			return usageError{fmt.Errorf("%q is one argument too many: %s; see `%s --help`", clipped(args[len(names)]), cmd.UseLine(), cmd.CommandPath())}
		}
		return nil
	}
}

// clipped shortens what was typed, so that a message can quote it.
func clipped(text string) string {
	const maxQuotedRunes = 60
	if runes := []rune(text); len(runes) > maxQuotedRunes {
		return string(runes[:maxQuotedRunes]) + "…"
	}
	return text
}
