package main

import (
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
)

func newBudgetUsage() *cobra.Command {
	var o options
	var from, to momentFlag
	var asCSV bool
	query := earmark.UsageQuery{By: earmark.UsageByDay}
	cmd := &cobra.Command{
		Use:   "usage ID",
		Short: "Show what a budget was charged over time",
		Long: `Show what a budget was charged: by hour or day in the budget's time zone, by
scope, or by the values of a metadata key. Without --from and --to it is the
present window, or the last 30 days of a budget whose window never ends or is
longer than 400 days. Hours and days without a charge are left out. What is
reserved is not in it: the balance shows that.`,
		Example: `  earmark budget usage bud_7sk2nq4d5a
  earmark budget usage bud_7sk2nq4d5a --by metadata.feature
  earmark budget usage bud_7sk2nq4d5a --from 2027-01-01 --to 2027-02-01 --csv`,
		Args:              arguments("ID"),
		ValidArgsFunction: completeArgs(1, budgetIDs),
		RunE: o.run(func(s *session, args []string) error {
			if asCSV && s.asJSON {
				return usageError{errors.New("--csv and --json do not go together; give one of them")}
			}
			id, err := s.budgetID(args[0])
			if err != nil {
				return err
			}
			for flag, at := range map[*momentFlag]**time.Time{&from: &query.From, &to: &query.To} {
				if !flag.IsZero() {
					*at = &flag.Time
				}
			}
			if err := query.Validate(); err != nil {
				return err
			}
			report, err := s.api.UsageReport(s.ctx, id, query)
			if err != nil {
				return err
			}
			if asCSV {
				return s.print(func(p *sheet) { p.text.Write(report.CSV()) })
			}
			return s.print(usageTable(report))
		}),
	}
	cmd.Flags().Var(&from, "from", "from this `TIME` on")
	cmd.Flags().Var(&to, "to", "up to this `TIME`")
	cmd.Flags().StringVar(&query.By, "by", query.By, "hour, day, scope or metadata.`KEY`")
	cmd.Flags().BoolVar(&asCSV, "csv", false, "print CSV")
	completeWords(cmd, "by", []string{earmark.UsageByHour, earmark.UsageByDay, earmark.UsageByScope, earmark.UsageByMetadata})
	o.flags(cmd)
	return cmd
}

// usageTable shows a report's parts with their sum, and the balance beside them.
func usageTable(r *earmark.UsageReport) view {
	title := strings.ToUpper(strings.TrimPrefix(r.By, earmark.UsageByMetadata))
	columns := []column{
		{title: title, shrink: 1, least: 10, inside: true},
		{title: "COMMITTED", right: true},
		{title: "CHARGES", right: true, drop: 1},
		{title: "SHARE", drop: 2},
	}
	return func(p *sheet) {
		zone, err := time.LoadLocation(r.Timezone)
		if err != nil {
			zone = time.UTC
		}
		rows := make([][]cell, 0, len(r.Data)+1)
		for _, part := range r.Data {
			name := cell{"none", dim}
			switch {
			case part.Start != nil:
				name = cell{partTime(r.By, part.Start.In(zone)), plain}
			case part.Other:
				name = cell{"all others", dim}
			case part.Value != nil && *part.Value == "":
				name = cell{`""`, plain}
			case part.Value != nil:
				name = cell{*part.Value, plain}
			}
			share := ""
			if r.Total.Committed > 0 {
				share = bar(percentOf(part.Committed, r.Total.Committed))
			}
			rows = append(rows, append([]cell{name}, sumCells(part.UsageSum, share)...))
		}
		p.line("%s from %s to %s", clean(r.Unit), stamp(r.From, zone), stamp(r.To, zone))
		p.line("")
		p.table(columns, append(rows, append([]cell{{"all", bold}}, sumCells(r.Total, "")...)))
		p.line("")
		p.line("%s", p.paint("The present window:", dim))
		balance(p, r.Balance)
	}
}

func sumCells(sum earmark.UsageSum, share string) []cell {
	return []cell{{earmark.FormatAmount(sum.Committed), plain}, {earmark.FormatAmount(sum.Charges), dim}, {share, green}}
}

func partTime(by string, start time.Time) string {
	if by == earmark.UsageByHour {
		return start.Format("2006-01-02 15:04 MST")
	}
	return start.Format(time.DateOnly)
}
