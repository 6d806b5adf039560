package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/earmark-dev/earmark/internal/prices"
	"github.com/earmark-dev/earmark/pricing"
)

// perMillion formats the rate of a token part for a million; empty if there is none.
func perMillion(rates pricing.Rates, part pricing.Part) string {
	rate, found := rates[part]
	if found && rate.As != "" {
		rate, found = rates[rate.As]
	}
	if !found {
		return ""
	}
	return ofMillion(rate.USD)
}

func ofMillion(usd pricing.Decimal) string {
	shifted, err := usd.Shift(million.zeros())
	if err != nil {
		return usd.String() + "e6" // it has too many digits
	}
	return shifted.String()
}

func priceTable(entries []pricing.Entry) view {
	columns := []column{
		{title: "PROVIDER", shrink: 2, least: 8},
		{title: "MODEL", shrink: 1, least: 16, inside: true},
		{title: "INPUT/1M", right: true},
		{title: "OUTPUT/1M", right: true},
		{title: "CACHE READ", right: true, drop: 3},
		{title: "CACHE WRITE", right: true, drop: 2},
		{title: "FROM", drop: 4},
		{title: "ALSO", drop: 1},
	}
	return func(p *sheet) {
		if len(entries) == 0 {
			p.line("No prices. `earmark price import FILE --format FORMAT` adds some.")
			return
		}
		rows := make([][]cell, 0, len(entries))
		for _, e := range entries {
			from := ""
			if !e.From.IsZero() {
				from = p.when(e.From)
			}
			rows = append(rows, []cell{
				{e.Provider, plain}, {e.Model, bold}, {perMillion(e.Rates, pricing.Input), plain}, {perMillion(e.Rates, pricing.Output), plain},
				{perMillion(e.Rates, pricing.CacheRead), plain}, {perMillion(e.Rates, pricing.CacheWrite), plain}, {from, dim}, {extras(e), dim},
			})
		}
		p.table(columns, rows)
	}
}

// extras names what an entry has beside its rates.
func extras(e pricing.Entry) string {
	var parts []string
	if len(e.Tiers) > 0 {
		parts = append(parts, fmt.Sprintf("%d tiers", len(e.Tiers)))
	}
	if len(e.Variants) > 0 {
		parts = append(parts, fmt.Sprintf("%d variants", len(e.Variants)))
	}
	return strings.Join(parts, ", ")
}

func priceView(d priceDocument) view {
	return func(p *sheet) {
		e := d.Entry
		from := "always"
		if !e.From.IsZero() {
			from = stamp(e.From, e.From.UTC().Location())
		}
		p.fields(field{"Model", e.Provider + "/" + e.Model, bold}, field{"Also called", strings.Join(e.Aliases, "\n"), plain},
			field{"Holds from", from, plain}, field{"Version", fmt.Sprint(d.Version), plain}, field{"Source", e.Source, plain})
		p.line("")
		rateLines(p, e.Rates)
		for _, tier := range e.Tiers {
			words := "above"
			if tier.Inclusive {
				words = "from"
			}
			p.line("\n%s %d input tokens", words, tier.Threshold)
			rateLines(p, tier.Rates)
		}
		for _, v := range e.Variants {
			p.line("\n%s", clean(v.When.String()))
			if v.Prices == nil {
				p.line("  tokens × %s", v.Multiplier.String())
				continue
			}
			rateLines(p, v.Prices.Rates)
			for _, tier := range v.Prices.Tiers {
				p.line("  past %d input tokens", tier.Threshold)
				rateLines(p, tier.Rates)
			}
		}
		if d.Explanation != nil {
			p.line("\n%s", strings.TrimRight(d.Explanation.String(), "\n"))
		}
	}
}

// rateLines prints each rate in US dollars, for a million tokens or for one of another part.
func rateLines(p *sheet, rates pricing.Rates) {
	columns := []column{{title: "PART"}, {title: "US DOLLARS", right: true}, {title: "FOR"}}
	var rows [][]cell
	for _, part := range pricing.Parts() {
		rate, found := rates[part]
		if !found {
			continue
		}
		usd, unit := rate.USD.String(), "one"
		if part.IsTokens() {
			usd, unit = ofMillion(rate.USD), "1M tokens"
		}
		if rate.As != "" {
			usd, unit = "", "as "+string(rate.As)
		}
		rows = append(rows, []cell{{string(part), plain}, {usd, plain}, {unit, dim}})
	}
	p.table(columns, rows)
}

func differenceTable(differences []prices.Difference) view {
	columns := []column{
		{title: "PROVIDER", shrink: 2, least: 8}, {title: "MODEL", shrink: 1, least: 16, inside: true}, {title: "PART"},
		{title: "BEFORE", right: true}, {title: "AFTER", right: true}, {title: "PERCENT", right: true},
	}
	shown := func(d prices.Difference, usd *pricing.Decimal) string {
		switch {
		case d.Part == prices.Other:
			return ""
		case usd == nil:
			return "none"
		case d.Part.IsTokens():
			return ofMillion(*usd)
		}
		return usd.String()
	}
	return func(p *sheet) {
		if len(differences) == 0 {
			p.line("No price differs.")
			return
		}
		rows := make([][]cell, 0, len(differences))
		for _, d := range differences {
			style, percent := plain, d.Percent
			switch {
			case strings.HasPrefix(percent, "+"):
				style = red
			case strings.HasPrefix(percent, "-"):
				style = green
			case d.Part == prices.Other:
				percent = "tiers, variants or names"
			case d.Before == nil:
				percent = "new"
			case d.After == nil:
				percent = "gone"
			}
			rows = append(rows, []cell{{d.Provider, plain}, {d.Model, plain}, {string(d.Part), plain}, {shown(d, d.Before), plain}, {shown(d, d.After), plain}, {percent, style}})
		}
		p.table(columns, rows)
		p.line("US dollars, for a million tokens or for one of another part.")
	}
}

func importView(d importDocument) view {
	return func(p *sheet) {
		changed, added := splitNew(d.Different)
		if len(changed) > 0 {
			differenceTable(changed)(p)
		}
		verb := "Added version " + cmp.Or(versionText(d.Version), "")
		switch {
		case d.DryRun:
			verb = "Nothing is written. It would add"
		case d.Version == nil:
			verb = "Nothing has changed, and no version was added"
		}
		p.line("%s: %d prices of %d that the file has, from %s on; %d models are new.", verb, d.Changed, d.Read, stamp(d.From, d.From.Location()), added)
		if len(d.Missing) > 0 {
			p.line("%d models are not in the file and keep their prices.", len(d.Missing))
		}
		if len(d.Findings) > 0 {
			p.line("%d lines of the file were not taken over; standard error has them.", len(d.Findings))
		}
	}
}

// splitNew returns the differences of models that had a price before, and how many others there are.
func splitNew(differences []prices.Difference) (changed []prices.Difference, added int) {
	modelOf := func(d prices.Difference) prices.Model { return prices.Model{Provider: d.Provider, Model: d.Model} }
	known := map[prices.Model]bool{}
	for _, d := range differences {
		known[modelOf(d)] = known[modelOf(d)] || d.Before != nil || d.Part == prices.Other
	}
	for _, d := range differences {
		if known[modelOf(d)] {
			changed = append(changed, d)
		}
	}
	for _, before := range known {
		if !before {
			added++
		}
	}
	return changed, added
}

func versionText(version *int64) string {
	if version == nil {
		return ""
	}
	return fmt.Sprint(*version)
}

func versionTable(versions []prices.Summary) view {
	columns := []column{
		{title: "VERSION", right: true}, {title: "TENANT", shrink: 3, least: 8}, {title: "ADDED"}, {title: "BY", shrink: 2, least: 8},
		{title: "CHANGES"}, {title: "SOURCE", shrink: 1, least: 10, inside: true}, {title: "REASON", drop: 1},
	}
	return func(p *sheet) {
		if len(versions) == 0 {
			p.line("No versions. `earmark price import FILE --format FORMAT` adds one.")
			return
		}
		rows := make([][]cell, 0, len(versions))
		for _, v := range versions {
			var changes []string
			if v.Entries > 0 {
				changes = append(changes, fmt.Sprintf("%d prices", v.Entries))
			}
			if v.Multipliers > 0 {
				changes = append(changes, fmt.Sprintf("%d multipliers", v.Multipliers))
			}
			if v.Fallback {
				changes = append(changes, "fallback")
			}
			rows = append(rows, []cell{{fmt.Sprint(v.ID), bold}, {cmp.Or(v.Tenant, "all"), plain}, {p.when(v.CreatedAt), dim}, {v.Actor.String(), plain},
				{strings.Join(changes, ", "), plain}, {v.Source, plain}, {v.Reason, dim}})
		}
		p.table(columns, rows)
	}
}

func multiplierTable(multipliers []prices.Multiplier) view {
	columns := []column{{title: "FOR"}, {title: "NAME", shrink: 1, least: 10, inside: true}, {title: "FACTOR", right: true}}
	return func(p *sheet) {
		if len(multipliers) == 0 {
			p.line("No multipliers: what is charged is what the provider bills.")
			return
		}
		var rows [][]cell
		for _, m := range multipliers {
			kind, name, factor := "everything", "", m.Factor.String()
			switch {
			case m.Scope != "":
				kind, name = "scope", displayScopes([]string{m.Scope})[0]
			case m.Model != "":
				kind, name = "model", m.Provider+"/"+m.Model
			}
			if m.Factor.IsZero() {
				factor = "removed"
			}
			rows = append(rows, []cell{{kind, plain}, {name, plain}, {factor, bold}})
		}
		p.table(columns, rows)
	}
}
