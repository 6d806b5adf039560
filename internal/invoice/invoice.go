// Package invoice reads what providers export of usage and costs, and compares it with the ledger by day and model.
package invoice

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The units that an invoice is compared in.
const (
	UnitCost   = "usd_micros"
	UnitTokens = "tokens" // input and output together
)

// Columns are the names of the columns of an export.
type Columns struct {
	Day   string
	Model string
	// Cost is in US dollars. If it is empty, Tokens are compared: the columns whose sum is the input and the output.
	Cost   string
	Tokens []string
}

// exports are the exports that are known by their columns: those of costs come first.
var exports = []Columns{
	{Day: "start_time_iso", Model: "line_item", Cost: "amount_value"},                          // OpenAI, costs by line item
	{Day: "usage_date_utc", Model: "model", Cost: "cost_usd"},                                  // Anthropic, costs
	{Day: "start_time_iso", Model: "model", Tokens: []string{"input_tokens", "output_tokens"}}, // OpenAI, usage by model; input includes the cache
	{Day: "usage_date_utc", Model: "model_version", Tokens: []string{ // Anthropic, usage; input excludes the cache
		"usage_input_tokens_no_cache", "usage_input_tokens_cache_write_5m", "usage_input_tokens_cache_write_1h", "usage_input_tokens_cache_read",
		"usage_output_tokens"}},
}

// ParseColumns reads day=…,model=…,cost=… or day=…,model=…,tokens=…; tokens may be given more than once.
func ParseColumns(text string) (Columns, error) {
	var c Columns
	for part := range strings.SplitSeq(text, ",") {
		role, name, _ := strings.Cut(part, "=")
		if name == "" {
			return c, fmt.Errorf("%q is not of the form day=NAME", part)
		}
		switch role {
		case "day":
			c.Day = name
		case "model":
			c.Model = name
		case "cost":
			c.Cost = name
		case "tokens":
			c.Tokens = append(c.Tokens, name)
		default:
			return c, fmt.Errorf("%q is not allowed; use day, model, cost and tokens", role)
		}
	}
	if c.Day == "" || c.Model == "" || (c.Cost == "") == (len(c.Tokens) == 0) {
		return c, errors.New("name the columns day, model, and either cost or tokens")
	}
	return c, nil
}

// Line names one line of a comparison.
type Line struct {
	Day   string // YYYY-MM-DD
	Model string // empty if none is known
}

// Invoice is what an export says.
type Invoice struct {
	Unit   string
	Lines  map[Line]*big.Rat // in Unit
	Errors []error           // of rows that could not be read, with line and column
}

// Read reads an export. Days are dates in the file, or moments that are put into zone. rename has the ledger's names of
// models, by the export's. The error says that the file as a whole cannot be read.
func Read(file io.Reader, columns *Columns, zone *time.Location, rename map[string]string) (*Invoice, error) {
	rows := csv.NewReader(file)
	rows.FieldsPerRecord = -1 // a row of another length is an error of that row alone
	header, err := rows.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty")
	} else if err != nil {
		return nil, err
	}
	index := map[string]int{}
	for i, name := range header {
		index[strings.TrimSpace(strings.TrimPrefix(name, "\ufeff"))] = i
	}
	found, err := choose(columns, index)
	if err != nil {
		return nil, err
	}
	invoice := &Invoice{Unit: UnitCost, Lines: map[Line]*big.Rat{}}
	if found.Cost == "" {
		invoice.Unit = UnitTokens
	}
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return invoice, nil
		} else if err != nil { // what follows cannot be told apart from it
			invoice.Errors = append(invoice.Errors, err)
			return invoice, nil
		}
		line, _ := rows.FieldPos(0)
		if err := invoice.add(row, index, found, zone, rename); err != nil {
			invoice.Errors = append(invoice.Errors, fmt.Errorf("line %d, %w", line, err))
		}
	}
}

// choose returns the given columns, or those of the first known export whose columns are all there.
func choose(given *Columns, index map[string]int) (Columns, error) {
	missing := func(c Columns) string {
		for _, name := range append([]string{c.Day, c.Model, cmp.Or(c.Cost, c.Day)}, c.Tokens...) {
			if _, there := index[name]; !there {
				return name
			}
		}
		return ""
	}
	if given != nil {
		if name := missing(*given); name != "" {
			return *given, fmt.Errorf("the file has no column %q; it has %s", name, strings.Join(slices.Sorted(maps.Keys(index)), ", "))
		}
		return *given, nil
	}
	for _, known := range exports {
		if missing(known) == "" {
			return known, nil
		}
	}
	return Columns{}, fmt.Errorf("the file is none of the known exports; name its columns with --columns day=…,model=…,cost=…; it has %s",
		strings.Join(slices.Sorted(maps.Keys(index)), ", "))
}

func (v *Invoice) add(row []string, index map[string]int, c Columns, zone *time.Location, rename map[string]string) error {
	field := func(name string) string {
		if i := index[name]; i < len(row) {
			return strings.TrimSpace(row[i])
		}
		return ""
	}
	sum, given := new(big.Rat), false
	for _, name := range append(slices.Clone(c.Tokens), c.Cost) {
		if name == "" || field(name) == "" {
			continue // OpenAI leaves a day without costs empty
		}
		amount, err := number(field(name), name == c.Cost)
		if err != nil {
			return fmt.Errorf("column %s: %w", name, err)
		}
		sum.Add(sum, amount)
		given = true
	}
	if _, there := index["amount_currency"]; there && given && !strings.EqualFold(field("amount_currency"), "usd") {
		currency := field("amount_currency")
		return fmt.Errorf("column amount_currency: %q is not usd", currency)
	}
	if !given {
		return nil
	}
	day, err := date(field(c.Day), zone)
	if err != nil {
		return fmt.Errorf("column %s: %w", c.Day, err)
	}
	model := field(c.Model)
	if c.Model == "line_item" { // "gpt-4o-2024-08-06, input"
		model, _, _ = strings.Cut(model, ", ")
	}
	if named, known := rename[model]; known {
		model = named
	}
	at := Line{Day: day, Model: model}
	if v.Lines[at] == nil {
		v.Lines[at] = new(big.Rat)
	}
	v.Lines[at].Add(v.Lines[at], sum)
	return nil
}

var decimal = regexp.MustCompile(`^-?[0-9]{1,12}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?$`)

// number reads dollars as micro-dollars, or a count.
func number(text string, dollars bool) (*big.Rat, error) {
	if !dollars {
		n, err := strconv.ParseInt(text, 10, 64)
		const maxCount = 1_000_000_000_000_000
		if err != nil || n < 0 || n > maxCount {
			return nil, fmt.Errorf("%q is not a whole number from 0 to %d", text, int64(maxCount))
		}
		return new(big.Rat).SetInt64(n), nil
	}
	if !decimal.MatchString(text) {
		return nil, fmt.Errorf("%q is not an amount in dollars, such as 12.5", text)
	}
	const microsPerDollar, maxDollars = 1_000_000, 1_000_000_000 // sums of them fit into an int64
	n, _ := new(big.Rat).SetString(text)
	if new(big.Rat).Abs(n).Cmp(new(big.Rat).SetInt64(maxDollars)) > 0 {
		return nil, fmt.Errorf("%q is out of range: at most %d dollars are allowed in a row", text, maxDollars)
	}
	return n.Mul(n, new(big.Rat).SetInt64(microsPerDollar)), nil
}

// date reads a date, or a moment with its offset, which it puts into zone.
func date(text string, zone *time.Location) (string, error) {
	if at, err := time.Parse(time.DateOnly, text); err == nil {
		return at.Format(time.DateOnly), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return "", fmt.Errorf("%q is not a day such as 2026-05-31, or a moment such as 2026-05-31T00:00:00+00:00", text)
	}
	return at.In(zone).Format(time.DateOnly), nil
}

// Difference is one line of a comparison, in the unit of the invoice.
type Difference struct {
	Day        string `json:"day"`
	Model      string `json:"model"`
	Invoice    int64  `json:"invoice"` // rounded half away from 0
	Journal    int64  `json:"journal"`
	Difference int64  `json:"difference"` // invoice − journal
}

// Compare returns a line for each day and model of either side, sorted.
func (v *Invoice) Compare(journal map[Line]int64) []Difference {
	lines := map[Line]Difference{}
	for at, amount := range v.Lines {
		rounded, _ := strconv.ParseInt(amount.FloatString(0), 10, 64) // each row is bounded
		lines[at] = Difference{Day: at.Day, Model: at.Model, Invoice: rounded}
	}
	for at, amount := range journal {
		line := lines[at]
		line.Day, line.Model, line.Journal = at.Day, at.Model, amount
		lines[at] = line
	}
	compared := make([]Difference, 0, len(lines))
	for _, line := range lines {
		line.Difference = line.Invoice - line.Journal
		compared = append(compared, line)
	}
	slices.SortFunc(compared, func(a, b Difference) int {
		return cmp.Or(strings.Compare(a.Day, b.Day), strings.Compare(a.Model, b.Model))
	})
	return compared
}

// Days returns the first and the last day; empty without lines.
func (v *Invoice) Days() (first, last string) {
	for at := range v.Lines {
		if first == "" || at.Day < first {
			first = at.Day
		}
		last = max(last, at.Day)
	}
	return first, last
}
