package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
)

// defaultEntries is more than one reservation has.
const defaultEntries = 200

func newEntries() *cobra.Command {
	var o options
	var filter earmark.EntryFilter
	var limit int
	cmd := &cobra.Command{
		Use:   "entries",
		Short: "List the ledger's journal, oldest first",
		Long: `List the ledger's journal, oldest first: every change of a balance, who made
it, and why. Entries are never changed.`,
		Example: `  earmark entries --reservation rsv_k3jd8fh2qz
  earmark entries --budget bud_7sk2nq4d5a --limit 10000 > journal.txt`,
		Args: noArguments,
		RunE: o.run(func(s *session, _ []string) (err error) {
			if filter.BudgetID != "" && filter.ReservationID != "" {
				return usageError{errors.New("--budget and --reservation do not go together; give one of them")}
			}
			if err := checkLimit(limit); err != nil {
				return err
			}
			if filter.BudgetID != "" {
				if filter.BudgetID, err = s.budgetID(filter.BudgetID); err != nil {
					return err
				}
			}
			if filter.ReservationID != "" {
				if filter.ReservationID, err = s.reservationID(filter.ReservationID); err != nil {
					return err
				}
			}
			page, err := collect(s, limit, func(cursor string, limit int) (earmark.Page[earmark.Entry], error) {
				filter.Cursor, filter.Limit = cursor, limit
				return s.api.Entries(s.ctx, filter)
			})
			if err != nil {
				return err
			}
			return s.print(withMore(entryTable(page.Data, filter), page.NextCursor, limit))
		}),
	}
	cmd.Flags().StringVar(&filter.BudgetID, "budget", "", "only entries of the budget with this `ID`")
	cmd.Flags().StringVar(&filter.ReservationID, "reservation", "", "only entries of the reservation with this `ID`")
	limitFlag(cmd, &limit, defaultEntries)
	complete(cmd, "budget", budgetIDs)
	complete(cmd, "reservation", anyReservations)
	o.flags(cmd)
	return cmd
}

// entryTable leaves out a column whose value is the same in every row.
func entryTable(entries []earmark.Entry, filter earmark.EntryFilter) view {
	columns := []column{
		{title: "WHEN"},
		{title: "KIND"},
		{title: "RESERVED", right: true},
		{title: "COMMITTED", right: true},
		{title: "BUDGET", isID: true, shrink: 2, least: shortID},
		{title: "RESERVATION", isID: true, shrink: 1, least: shortID},
		{title: "BY", drop: 2},
		{title: "REASON", shrink: 3, least: 12, drop: 1},
	}
	cells := func(p *sheet, e earmark.Entry) []cell {
		return []cell{
			{p.when(e.CreatedAt), dim},
			{e.Kind, plain},
			{delta(e.ReservedDelta), yellow},
			{delta(e.CommittedDelta), green},
			{e.BudgetID, plain},
			{e.ReservationID, plain},
			{e.Actor, plain},
			{e.Reason, plain},
		}
	}
	without := -1
	switch {
	case filter.BudgetID != "":
		without = 4
	case filter.ReservationID != "":
		without = 5
	}
	return func(p *sheet) {
		if len(entries) == 0 {
			p.line("No entries.")
			return
		}
		rows := make([][]cell, 0, len(entries))
		for _, e := range entries {
			row := cells(p, e)
			if without >= 0 {
				row = slices.Delete(row, without, without+1)
			}
			rows = append(rows, row)
		}
		if without >= 0 {
			columns = slices.Delete(columns, without, without+1)
		}
		p.table(columns, rows)
	}
}

// delta formats a change with its sign; "" for no change.
func delta(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s%s", map[bool]string{true: "+"}[n > 0], earmark.FormatAmount(n))
}
