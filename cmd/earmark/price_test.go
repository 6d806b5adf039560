//go:build unix

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

const liteLLMPrices = `{
  "gpt-5": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1.25e-06, "output_cost_per_token": 1e-05, "cache_read_input_token_cost": 1.25e-07},
  "gpt-5-long": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06,
    "input_cost_per_token_above_272k_tokens": 2e-06, "output_cost_per_token_above_272k_tokens": 4e-06},
  "free": {"litellm_provider": "local", "mode": "chat", "input_cost_per_token": 0, "output_cost_per_token": 0},
  "odd": {"litellm_provider": "local", "mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06, "input_cost_per_second": 1}
}`

func priceFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "prices.json")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestPriceCommands(t *testing.T) {
	t.Parallel()
	run, ledger := onDatabase(t)
	run("tenant", "create", "acme").ok(t)
	require.Contains(t, run("price", "list").ok(t), "No prices.")
	require.Contains(t, run("price", "versions").ok(t), "No versions.")
	file := priceFile(t, liteLLMPrices)

	dry := run("price", "import", file, "--format", "litellm", "--dry-run")
	require.Contains(t, dry.ok(t), "Nothing is written. It would add: 3 prices of 3")
	require.Contains(t, dry.stderr, "odd.input_cost_per_second: ")
	require.Contains(t, dry.stderr, "free: all prices are 0")
	require.Contains(t, run("price", "list").ok(t), "No prices.")

	imported := run("price", "import", file, "--format", "litellm", "--from", "2026-01-01", "--as", "alice", "--reason", "first")
	require.Contains(t, imported.ok(t), "Added version 1: 3 prices of 3 that the file has, from 2026-01-01 00:00:00 UTC on; 3 models are new.")
	require.Contains(t, run("price", "import", file, "--format", "litellm").ok(t), "Nothing has changed, and no version was added")
	require.Contains(t, run("price", "show", "gpt-5", "--explain").ok(t), "11.25 USD, rounded half up: 11250000 micro-dollars")
	usageText := `{"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110, "prompt_tokens_details": {"cached_tokens": 40}}`
	var shown priceDocument
	require.NoError(t, json.Unmarshal([]byte(run("price", "show", "gpt-5", "--usage", usageText, "--json").ok(t)), &shown))
	require.Equal(t, int64(180), shown.Explanation.USDMicros)
	require.Equal(t, "0.00018", shown.Explanation.USD)
	require.Len(t, shown.Explanation.Lines, 3)

	require.Contains(t, run("price", "set", "gpt-5", "--provider", "openai", "--input", "2.50", "--output", "10", "--from", "2026-02-01").ok(t), "2.5  1M tokens")
	require.Contains(t, run("price", "set", "gpt-5", "--provider", "openai", "--input", "2.50", "--output", "10", "--from", "2026-03-01").ok(t), "Nothing has changed")
	diff := run("price", "diff").ok(t)
	require.Regexp(t, `gpt-5 +input +1\.25 +2\.5 +\+100\.0`, diff)
	require.NotContains(t, diff, "output", "it costs the same")
	require.Contains(t, run("price", "diff", "1", "2", "--at", "2026-01-31").ok(t), "No price differs.")
	require.Contains(t, run("price", "show", "gpt-5", "--explain", "--at", "2026-01-31T23:59:59Z").ok(t), "11250000 micro-dollars")
	require.Contains(t, run("price", "show", "gpt-5", "--explain", "--version", "1").ok(t), "11250000 micro-dollars")
	require.Contains(t, run("price", "set", "free", "--provider", "local", "--input", "0", "--output", "0").ok(t), "0  1M tokens")
	require.Contains(t, run("price", "show", "free", "--explain").ok(t), "0 USD")
	require.Contains(t, run("price", "set", "counted", "--provider", "local", "--input", "3", "--per", "1k", "--rate", "web_searches=0.01", "--alias", "other").ok(t), "3000  1M tokens")
	require.Contains(t, run("price", "show", "other").ok(t), "local/counted")

	// A tenant's own prices, multipliers and fallback.
	run("price", "set", "gpt-5", "--provider", "openai", "--input", "1", "--output", "1", "--tenant", "acme").ok(t)
	run("price", "multiplier", "set", "1.5", "--tenant", "acme", "--scope", "acme/a@b.com").ok(t)
	run("price", "multiplier", "set", "1.1", "--model", "other").ok(t)
	require.Contains(t, run("price", "fallback", "gpt-5", "--tenant", "acme").ok(t), "cost what openai/gpt-5 costs")
	require.Contains(t, run("price", "show", "unheard-of", "--explain", "--tenant", "acme", "--scope", "acme/a@b.com/x").ok(t), "3 USD, rounded up: 3000000")
	factors := run("price", "multiplier", "list", "--tenant", "acme").ok(t)
	require.Contains(t, factors, "acme/a@b.com")
	require.Contains(t, factors, "local/counted")
	require.NotContains(t, run("price", "multiplier", "list").ok(t), "a@b.com")
	require.Contains(t, run("price", "multiplier", "remove", "--model", "other").ok(t), "removed")
	require.NotContains(t, run("price", "multiplier", "list").ok(t), "counted")
	require.Contains(t, run("price", "fallback", "none", "--tenant", "acme").ok(t), "are refused")

	// What list shows can be changed and imported again.
	listed := run("price", "list", "--provider", "openai", "--json").ok(t)
	again := run("price", "import", priceFile(t, listed), "--format", "earmark")
	require.Contains(t, again.ok(t), "Nothing has changed")
	long := strings.ReplaceAll(listed, `"0.000004"`, `"0.000005"`)
	require.NotEqual(t, listed, long)
	require.Regexp(t, `gpt-5-long +other +tiers, variants or names`, run("price", "import", priceFile(t, long), "--format", "earmark").ok(t))

	versions := run("price", "versions").ok(t)
	require.Contains(t, versions, "operator:alice")
	require.Contains(t, versions, "3 prices")
	log, err := ledger.Audit(t.Context(), "acme", earmark.AuditFilter{Action: earmark.ActionPriceAdd})
	require.NoError(t, err)
	require.Len(t, log.Data, 4)
}

func TestPriceCommandsRefuse(t *testing.T) {
	t.Parallel()
	run, ledger := onDatabase(t)
	run("price", "import", priceFile(t, liteLLMPrices), "--format", "litellm").ok(t)
	run("price", "set", "gpt-5", "--provider", "azure", "--input", "1", "--output", "1").ok(t)
	before, err := ledger.PriceVersions(t.Context(), 0)
	require.NoError(t, err)
	for command, want := range map[string]struct {
		code  int
		words string
	}{
		"price import /nonexistent --format litellm":                             {exitUsage, "/nonexistent"},
		"price import " + priceFile(t, "[]"):                                     {exitUsage, "--format is missing"},
		"price import " + priceFile(t, "[") + " --format litellm":                {exitUsage, "is not a table of the format litellm"},
		"price import " + priceFile(t, " ") + " --format litellm":                {exitUsage, "is empty"},
		"price import " + priceFile(t, "{}") + " --format litellm":               {exitFailed, "has no price that was taken over"},
		"price import " + priceFile(t, `{"prices": []}`) + " --format earmark":   {exitUsage, "unknown field"},
		"price import " + priceFile(t, liteLLMPrices) + " --format x":            {exitUsage, "use one of litellm"},
		"price set gpt-5 --input 1":                                              {exitUsage, "--provider is missing"},
		"price set gpt-5 --provider openai":                                      {exitUsage, "no price is given"},
		"price set gpt-5 --provider openai --input -1":                           {exitUsage, `"-1" is not a price`},
		"price set gpt-5 --provider openai --input null":                         {exitUsage, `"null" is not a price`},
		"price set gpt-5 --provider openai --rate gold=1":                        {exitUsage, "use one of input,"},
		"price set gpt-5 --provider openai --input 1 --rate input=2":             {exitUsage, "given twice"},
		"price set gpt-5 --provider openai --input 1 --per 2":                    {exitUsage, "use one of 1, 1K, 1M"},
		"price set gpt-5 --provider openai --input 1 --from noon":                {exitUsage, "is not a time"},
		"price set gpt-5-long --provider openai --input 1 --output 1":            {exitUsage, "has 1 tiers and 0 variants"},
		"price set gpt-5 --provider openai --input 1 --output 1 --tenant nobody": {exitNotFound, `there is no tenant "nobody"`},
		"price show gpt-55": {exitNotFound, "nearest are"},
		"price show gpt-5":  {exitFailed, "several have it"},
		"price show gpt-5 --provider openai --usage {}":    {exitUsage, "provider_usage"},
		"price show gpt-5 --version 9":                     {exitNotFound, "there is no price version 9"},
		"price diff x":                                     {exitUsage, "is not the number of a version"},
		"price multiplier set 0":                           {exitUsage, "FACTOR"},
		"price multiplier set 1.1 --model gpt-9":           {exitNotFound, "no price for model"},
		"price multiplier set 1.1 --provider openai":       {exitUsage, "MODEL"},
		"price multiplier set 1.1 --model gpt-5 --scope a": {exitUsage, "not for both"},
		"price fallback gpt-9 --tenant default":            {exitNotFound, "no price for model"},
		"price list --tenant A":                            {exitUsage, "TENANT"},
	} {
		r := run(strings.Fields(command)...)
		require.Equal(t, want.code, r.code, "%s: %s", command, r.stderr)
		require.Contains(t, r.stderr, want.words, command)
		require.Empty(t, r.stdout, command)
	}
	after, err := ledger.PriceVersions(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, before, after, "nothing was written")
}
