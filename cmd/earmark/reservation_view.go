package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
)

func styleOf(r *earmark.Reservation) style {
	switch {
	case r.Overdue, r.Orphan:
		return red
	case r.State == earmark.StateHeld:
		return yellow
	case r.State == earmark.StateReview:
		return magenta
	case r.State == earmark.StateCommitted:
		return green
	}
	return dim
}

// notes returns what is unusual about a reservation.
func notes(r *earmark.Reservation) string {
	var notes []string
	add := func(applies bool, note string) {
		if applies {
			notes = append(notes, note)
		}
	}
	add(r.Overdue, "overdue")
	add(r.Orphan, "orphan")
	add(r.Late, "late")
	add(r.Estimated, "estimated")
	add(r.OverLimit, "over limit")
	add(len(r.Overage) > 0, "overage")
	add(len(r.Shortfall) > 0, "shortfall")
	add(len(r.Correction) > 0, "corrected")
	add(len(r.RejectedUsage) > 0, "usage rejected")
	return strings.Join(notes, ", ")
}

func reservationTable(reservations []earmark.Reservation) view {
	columns := []column{
		{title: "ID", isID: true, shrink: 1, least: shortID},
		{title: "STATE"},
		{title: "SCOPE", shrink: 2, least: 12, inside: true},
		{title: "AMOUNTS", right: true}, // never cut: a part of a number is another number
		{title: "CREATED", drop: 1},
		{title: "EXPIRES", drop: 2},
		{title: "NOTES", shrink: 3, least: 7},
	}
	return func(p *sheet) {
		if len(reservations) == 0 {
			p.line("No reservations.")
			return
		}
		rows := make([][]cell, 0, len(reservations))
		for _, r := range reservations {
			as, expires := styleOf(&r), ""
			if r.State == earmark.StateHeld && r.ExpiresAt != nil {
				expires = p.when(*r.ExpiresAt)
			}
			rows = append(rows, []cell{
				{r.ID, plain},
				{string(r.State), as},
				{p.several(displayScopes(r.Scopes), " "), plain},
				{p.used(&r), plain},
				{p.when(r.CreatedAt), dim},
				{expires, plain},
				{notes(&r), as},
			})
		}
		p.table(columns, rows)
	}
}

// used formats the reserved amounts and how much of them was used: 450 of 600 tokens. On a
// terminal it shows only one unit.
func (p *sheet) used(r *earmark.Reservation) string {
	var words []string
	for _, unit := range r.Amounts.Units() {
		amount := earmark.FormatQuantity(r.Amounts[unit], unit)
		if usage, known := r.Usage[unit]; known && r.ExpiresAt != nil {
			amount = earmark.FormatAmount(usage) + " of " + amount
		}
		words = append(words, amount)
	}
	return p.several(words, " + ")
}

// several joins words; on a terminal it shows one and the number of the others.
func (p *sheet) several(words []string, separator string) string {
	if p.terminal && len(words) > 1 {
		return fmt.Sprintf("%s, %d more", words[0], len(words)-1)
	}
	return strings.Join(words, separator)
}

// reservationDetails shows one reservation in full.
func reservationDetails(r *earmark.Reservation) view {
	return func(p *sheet) {
		summary(p, r)
		p.fields(
			field{label: "Metadata", value: metadataLines(r.Metadata)},
			field{label: "Response", value: responseLines(r.Response)},
			field{label: "Workflow", value: orElse(r.UIURL, r.WorkflowID)},
		)
		if len(r.Budgets) > 0 {
			p.line("")
			p.table(shareColumns, shares(r.Budgets))
		}
	}
}

// summary prints a reservation and its result.
func summary(p *sheet, r *earmark.Reservation) {
	state := string(r.State)
	if n := notes(r); n != "" {
		state += " (" + n + ")"
	}
	p.fields(
		field{"ID", r.ID, bold},
		field{"State", state, styleOf(r)},
		field{"Scopes", strings.Join(displayScopes(r.Scopes), "\n"), plain},
		field{"Amounts", r.Amounts.String(), plain},
		field{"Usage", r.Usage.String(), plain},
		field{"Correction", explained(r.Correction, "added to the usage"), plain},
		field{"Overage", explained(r.Overage, "more than was reserved"), plain},
		field{"Shortfall", explained(r.Shortfall, "not charged, as the budget's policy says"), red},
		field{"Rejected", explained(r.RejectedUsage, "refused, as the budget's policy says"), red},
		field{"Created", p.moment(r.CreatedAt, time.Local), plain},
		field{map[bool]string{true: "Expired", false: "Expires"}[r.State == earmark.StateReview], expiryWords(p, r), plain},
		field{"Settled", optionalMoment(p, r.SettledAt), plain},
		field{"Reason", r.Reason, plain},
	)
}

func expiryWords(p *sheet, r *earmark.Reservation) string {
	if r.ExpiresAt == nil || !r.Open() {
		return ""
	}
	words := p.moment(*r.ExpiresAt, time.Local)
	if r.State == earmark.StateHeld {
		words += ", then " + string(r.OnExpiry)
	}
	return words
}

func explained(amounts earmark.Amounts, meaning string) string {
	if len(amounts) == 0 {
		return ""
	}
	return amounts.String() + ", " + meaning
}

func optionalMoment(p *sheet, at *time.Time) string {
	if at == nil {
		return ""
	}
	return p.moment(*at, time.Local)
}

// responseLines shows what a charge was computed from.
func responseLines(r *earmark.ResponseRecord) string {
	if r == nil {
		return ""
	}
	model := clean(strings.Trim(r.Provider+"/"+r.Model, "/"))
	return strings.TrimSpace(fmt.Sprintf("%s at %s, read as %s", model, r.RespondedAt.Format(time.RFC3339), clean(r.UsageFormat))) + "\n" + clean(string(r.ProviderUsage))
}

func metadataLines(metadata earmark.Metadata) string {
	lines := make([]string, 0, len(metadata))
	for _, key := range sortedKeys(metadata) {
		lines = append(lines, clean(key+"="+metadata[key]))
	}
	return strings.Join(lines, "\n")
}

var shareColumns = []column{
	{title: "BUDGET", isID: true, shrink: 1, least: shortID},
	{title: "SCOPE", shrink: 2, least: 10, inside: true},
	{title: "UNIT"},
	{title: "RESERVED", right: true},
	{title: "COMMITTED", right: true},
	{title: "WINDOW FROM", drop: 1},
}

// shares returns a reservation's shares in its budgets.
func shares(budgets []earmark.ReservationBudget) [][]cell {
	rows := make([][]cell, 0, len(budgets))
	for _, b := range budgets {
		window := ""
		if b.WindowStart.Unix() != 0 { // a lifetime has no beginning worth telling
			window = b.WindowStart.UTC().Format(time.RFC3339)
		}
		rows = append(rows, []cell{
			{b.BudgetID, plain},
			{earmark.DisplayScope(b.Scope), plain},
			{b.Unit, plain},
			{earmark.FormatAmount(b.Reserved), plain},
			{earmark.FormatAmount(b.Committed), plain},
			{window, dim},
		})
	}
	return rows
}
