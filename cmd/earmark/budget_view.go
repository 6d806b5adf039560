package main

import (
	"fmt"
	"math/big"
	"strings"
	"time"
	_ "time/tzdata" // for machines that have no time zones

	"github.com/earmark-dev/earmark"
)

func budgetTable(budgets []earmark.Budget) view {
	columns := []column{
		{title: "ID", isID: true, shrink: 1, least: shortID},
		{title: "SCOPE", shrink: 2, least: 10, inside: true},
		{title: "LIMIT", right: true},
		{title: "UNIT"},
		{title: "RESERVED", right: true, drop: 3},
		{title: "COMMITTED", right: true, drop: 4},
		{title: "AVAILABLE", right: true},
		{title: "ENFORCEMENT", drop: 1},
		{title: "RENEWS", drop: 2},
	}
	return func(p *sheet) {
		if len(budgets) == 0 {
			p.line("No budgets. `earmark budget create SCOPE UNIT LIMIT` makes one.")
			return
		}
		rows := make([][]cell, 0, len(budgets))
		for _, b := range budgets {
			renews := ""
			if b.Balance.WindowEnd != nil && b.Window.Period != earmark.PeriodRolling {
				renews = p.when(*b.Balance.WindowEnd)
			}
			rows = append(rows, []cell{
				{b.ID, plain},
				{earmark.DisplayScope(b.Scope), plain},
				{earmark.FormatAmount(b.Limit), plain},
				{per(b.Unit, b.Window), plain},
				{earmark.FormatAmount(b.Balance.Reserved), plain},
				{earmark.FormatAmount(b.Balance.Committed), plain},
				{earmark.FormatAmount(b.Balance.Available), styleOfBalance(b.Balance)},
				{enforcementWords(b), dim},
				{renews, dim},
			})
			if b.Template { // it has no balance
				row := rows[len(rows)-1]
				row[4], row[5], row[6], row[8] = cell{"", dim}, cell{"", dim}, cell{"template", dim}, cell{"", dim}
			}
		}
		p.table(columns, rows)
	}
}

// windowTable lists balances of one budget.
func windowTable(balances []earmark.Balance) view {
	columns := []column{
		{title: "FROM"},
		{title: "TO"},
		{title: "RESERVED", right: true},
		{title: "COMMITTED", right: true},
		{title: "AVAILABLE", right: true},
	}
	return func(p *sheet) {
		if len(balances) == 0 {
			p.line("Nothing was reserved or charged yet.")
			return
		}
		rows := make([][]cell, 0, len(balances))
		for _, b := range balances {
			end := ""
			if b.WindowEnd != nil {
				end = stamp(*b.WindowEnd, time.UTC)
			}
			rows = append(rows, []cell{
				{stamp(b.WindowStart, time.UTC), plain},
				{end, plain},
				{earmark.FormatAmount(b.Reserved), plain},
				{earmark.FormatAmount(b.Committed), plain},
				{earmark.FormatAmount(b.Available), styleOfBalance(b)},
			})
		}
		p.table(columns, rows)
	}
}

// styleOfBalance returns a warning style before a budget is empty.
func styleOfBalance(balance earmark.Balance) style {
	const nearlyEmpty = 10 // a tenth is left
	switch {
	case balance.Available <= 0:
		return red
	case balance.Available < balance.EffectiveLimit/nearlyEmpty:
		return yellow
	}
	return green
}

func enforcementWords(b earmark.Budget) string {
	switch {
	case b.Enforcement == earmark.EnforcementSoft && b.SoftCeiling != nil:
		return "soft to " + earmark.FormatAmount(*b.SoftCeiling)
	case b.Enforcement == earmark.EnforcementSoft:
		return "soft, no ceiling"
	}
	return string(b.Enforcement)
}

// limitWords returns the limit with its unit and window: 1,000 tokens a day.
func limitWords(b *earmark.Budget) string {
	words := earmark.FormatAmount(b.Limit) + " " + clean(b.Unit)
	switch {
	case b.Window.Period == earmark.PeriodLifetime:
		return words
	case b.Window.Period == earmark.PeriodRolling:
		return words + ", " + b.Window.Length()
	case b.Window.Every > 1:
		return words + " every " + b.Window.Length()
	case b.Window.Period == earmark.PeriodHour:
		return words + " an hour"
	}
	return words + " a " + string(b.Window.Period)
}

// inForce returns the limit with its overrides and grants; "" if there are none.
func inForce(b *earmark.Budget) string {
	var added []string
	var grants int64
	if g := b.Balance.Granted; g != nil {
		grants = g.Reserved + g.Committed + g.Remaining
	}
	if b.Balance.EffectiveLimit-grants != b.Limit {
		added = append(added, "overrides")
	}
	if grants > 0 {
		added = append(added, "grants")
	}
	if added == nil {
		return ""
	}
	return earmark.FormatAmount(b.Balance.EffectiveLimit) + " with " + strings.Join(added, " and ")
}

// grantedWords returns what grants bear of a balance and what they have left; "" if there is neither.
func grantedWords(g *earmark.Granted) string {
	if g == nil {
		return ""
	}
	return fmt.Sprintf("%s left, %s reserved, %s committed", earmark.FormatAmount(g.Remaining), earmark.FormatAmount(g.Reserved), earmark.FormatAmount(g.Committed))
}

// allowanceWords says when the window's own limit is used, where that is not told by the absence of grants; else "".
func allowanceWords(b *earmark.Budget) string {
	switch {
	case b.Allowance == earmark.AllowanceLast:
		return "used after grants"
	case b.Balance.Granted != nil:
		return "used before grants"
	}
	return ""
}

// budgetDetails shows one budget in full.
func budgetDetails(b *earmark.Budget) view {
	return func(p *sheet) {
		zone, err := time.LoadLocation(b.Window.Timezone)
		if err != nil {
			zone = time.UTC
		}
		window := "lifetime"
		if end := b.Balance.WindowEnd; end != nil {
			window = fmt.Sprintf("%s, %s\nfrom %s\nto   %s", b.Window.Length(), b.Window.Timezone,
				stamp(b.Balance.WindowStart, zone), p.moment(*end, zone))
		}
		archived := optionalMoment(p, b.ArchivedAt)
		p.fields(
			field{"ID", b.ID, bold},
			field{"Scope", earmark.DisplayScope(b.Scope), plain},
			field{"Limit", limitWords(b), plain},
			field{"In force", inForce(b), yellow},
			field{"Grants", grantedWords(b.Balance.Granted), plain},
			field{"Allowance", allowanceWords(b), plain},
			field{"Enforcement", enforcementWords(*b), plain},
			field{"Overage", string(b.Overage), plain},
			field{"Thresholds", thresholdWords(b.Thresholds), plain},
			field{"Rollover", rolloverWords(b.Rollover), plain},
			field{"Window", window, plain},
			field{"Template", templateWords(b), plain},
			field{"Created", p.moment(b.CreatedAt, time.Local), plain},
			field{"Archived", archived, red},
		)
		if b.Template {
			return
		}
		p.line("")
		balance(p, b.Balance)
	}
}

// templateWords says what a budget has to do with a template; "" if nothing.
func templateWords(b *earmark.Budget) string {
	switch {
	case b.Template:
		return "gives each child a budget of its own and limits nothing itself;\n`earmark budget list --template " + b.ID + "` lists them"
	case b.FollowsTemplate:
		return b.TemplateID + ", followed"
	case b.TemplateID != "":
		return b.TemplateID + ", not followed"
	}
	return ""
}

// balance prints how a window's limit is divided.
func balance(p *sheet, balance earmark.Balance) {
	shares := []struct {
		label  string
		amount int64
		style  style
	}{
		{"Committed", balance.Committed, plain},
		{"Reserved", balance.Reserved, yellow},
		{"Available", balance.Available, styleOfBalance(balance)},
	}
	if over := -balance.Available; over > 0 {
		last := &shares[len(shares)-1]
		last.label, last.amount = "Over limit", over
	}
	width := 0
	for _, share := range shares {
		width = max(width, len(earmark.FormatAmount(share.amount)))
	}
	for _, share := range shares {
		line := p.paint(padRight(share.label, labelWidth), dim) + "  " + p.paint(padLeft(earmark.FormatAmount(share.amount), width), share.style)
		if balance.EffectiveLimit > 0 {
			percent := percentOf(share.amount, balance.EffectiveLimit)
			line += fmt.Sprintf("  %4d%%", percent)
			line += "  " + p.paint(bar(percent), share.style)
		}
		p.line("%s", strings.TrimRight(line, " "))
	}
}

// percentOf rounds towards zero. It does not multiply as int64, which could overflow.
func percentOf(part, whole int64) int64 {
	hundredfold := new(big.Int).Mul(big.NewInt(part), big.NewInt(100))
	return hundredfold.Quo(hundredfold, big.NewInt(whole)).Int64()
}

func bar(percent int64) string {
	const percentPerMark = 4
	return strings.Repeat("■", int(min(max(percent, 0), 100)/percentPerMark))
}
