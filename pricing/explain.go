package pricing

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// Line is one product in the sum of a charge. All amounts are exact decimals in US dollars.
type Line struct {
	Provider string `json:"provider,omitempty"`
	Model    string `json:"model,omitempty"`
	What     string `json:"what"`  // the part
	Count    string `json:"count"` // of tokens, seconds, requests and so on
	RateUSD  string `json:"rate_usd"`
	Special  string `json:"special,omitempty"` // the variants that apply; their multipliers are in USD, not in RateUSD
	USD      string `json:"usd"`
}

// Explanation shows the calculation of a charge.
type Explanation struct {
	Lines      []Line  `json:"lines"`
	Multiplier Decimal `json:"multiplier,omitzero"` // of the sum, for resale
	Estimate   bool    `json:"estimate,omitempty"`
	Charge     Charge  `json:"-"`
}

// String writes the lines as a table, and the exact and the rounded sum.
func (e *Explanation) String() string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, l := range e.Lines {
		model := l.Model
		if l.Provider != "" {
			model = l.Provider + "/" + l.Model
		}
		if l.Special != "" {
			model += " (" + l.Special + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s ×\t%s\t= %s USD\n", model, l.What, l.Count, l.RateUSD, l.USD)
	}
	_ = w.Flush() // a strings.Builder does not fail
	if !e.Multiplier.IsZero() {
		fmt.Fprintf(&text, "× %s for resale\n", e.Multiplier)
	}
	how := "half up"
	if e.Estimate || !e.Multiplier.IsZero() {
		how = "up"
	}
	fmt.Fprintf(&text, "%s USD, rounded %s: %d micro-dollars\n", e.Charge.USD(), how, e.Charge.USDMicros)
	return text.String()
}
