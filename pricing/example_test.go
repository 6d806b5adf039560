package pricing_test

import (
	"fmt"
	"time"

	"github.com/earmark-dev/earmark/pricing"
	"github.com/earmark-dev/earmark/usage"
)

// From a response body to micro-dollars.
func ExampleTable_Explain() {
	table, err := pricing.NewTable(pricing.Entry{
		Provider: "anthropic", Model: "claude-opus-5-5",
		Prices: pricing.Prices{Rates: pricing.Rates{
			pricing.Input: pricing.PerMillion("4"), pricing.CacheRead: pricing.PerMillion("0.2"), pricing.Output: pricing.PerMillion("20"),
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	body := []byte(`{"model": "claude-opus-5-5", "usage": {"input_tokens": 10, "cache_read_input_tokens": 50001, "output_tokens": 503}}`)
	u, err := usage.Normalize(usage.Anthropic, body)
	if err != nil {
		fmt.Println(err)
		return
	}
	e, err := table.Explain(u, pricing.Query{Provider: "anthropic", Time: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(e.String())
	// Output:
	// anthropic/claude-opus-5-5  input       10 ×     0.000004   = 0.00004 USD
	// anthropic/claude-opus-5-5  cache_read  50001 ×  0.0000002  = 0.0100002 USD
	// anthropic/claude-opus-5-5  output      503 ×    0.00002    = 0.01006 USD
	// 0.0201002 USD, rounded half up: 20100 micro-dollars
}

func ExampleImportLiteLLM() {
	entries, findings, err := pricing.ImportLiteLLM([]byte(`{
		"gpt-x": {"litellm_provider": "openai", "input_cost_per_token": 5e-06, "output_cost_per_token": 3e-05,
			"input_cost_per_token_above_272k_tokens": 1e-05}
	}`), pricing.ImportOptions{})
	fmt.Println(len(entries), err)
	for _, f := range findings {
		fmt.Println(f)
	}
	table, err := pricing.NewTable(entries...)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = table.Price(usage.Usage{Input: usage.Input{Tokens: 272_000}}, pricing.Query{Model: "gpt-x", Time: time.Now()})
	fmt.Println(err)
	// Output:
	// 1 <nil>
	// gpt-x: above 272000 tokens: a price for one of input and output alone; refused for all such prompts
	// no price for this usage of model "gpt-x" at openai: input has no rate, and 272000 were used
}
