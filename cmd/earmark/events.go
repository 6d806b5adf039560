package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/ctxtime"
)

// followPause is the pause between two reads of the feed.
const followPause = time.Second

func newEvents() *cobra.Command {
	var o options
	var filter earmark.EventFilter
	var types []string
	var follow bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "List what happened to budgets and reservations, oldest first",
		Long: `List what happened to budgets and reservations, oldest first: windows that
opened, budgets that were exhausted, denials, expiries, late usage, overage and
corrections. The last line has the position with which --after continues: a
reader that continues there misses nothing.

With --follow it prints new events until you stop it, one line of JSON each with
--json.`,
		Example: `  earmark events --type budget.exhausted,reservation.review
  earmark events --after now --follow --json`,
		Args: noArguments,
		RunE: o.run(func(s *session, _ []string) (err error) {
			if err := checkLimit(filter.Limit); err != nil {
				return err
			}
			for _, name := range types {
				filter.Types = append(filter.Types, earmark.EventType(name))
			}
			if filter.BudgetID != "" {
				if filter.BudgetID, err = s.budgetID(filter.BudgetID); err != nil {
					return err
				}
			}
			filter.Limit = min(filter.Limit, earmark.MaxPageSize)
			if follow {
				return followEvents(s, filter)
			}
			page, err := s.api.Events(s.ctx, filter)
			if err != nil {
				return err
			}
			return s.print(eventTable(page))
		}),
	}
	cmd.Flags().StringVar(&filter.After, "after", "", "only events after this `POSITION`: the id of an event, or now")
	cmd.Flags().StringSliceVar(&types, "type", nil, "only events of these `TYPES`, separated by commas")
	cmd.Flags().StringVar(&filter.BudgetID, "budget", "", "only events of the budget with this `ID`")
	cmd.Flags().BoolVar(&follow, "follow", false, "go on until interrupted")
	limitFlag(cmd, &filter.Limit, earmark.DefaultPageSize)
	complete(cmd, "budget", budgetIDs)
	completeWords(cmd, "after", []string{earmark.AfterNow})
	completeWords(cmd, "type", eventTypeWords())
	o.flags(cmd)
	return cmd
}

func eventTypeWords() []string {
	words := make([]string, len(earmark.EventTypes))
	for i, name := range earmark.EventTypes {
		words[i] = string(name)
	}
	return words
}

// followEvents prints events line by line.
func followEvents(s *session, filter earmark.EventFilter) error {
	for {
		page, err := s.api.Events(s.ctx, filter)
		switch {
		case s.ctx.Err() != nil:
			return nil //nolint:nilerr // interrupted: the caller has seen enough
		case err != nil:
			return err
		}
		for _, event := range page.Data {
			line, err := eventLine(event, s.asJSON)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintln(s.screen.out, line); err != nil {
				return err
			}
		}
		filter.After = page.NextAfter
		if len(page.Data) < filter.Limit && !ctxtime.Sleep(s.ctx, followPause) {
			return nil
		}
	}
}

func eventLine(event earmark.Event, asJSON bool) (string, error) {
	if asJSON {
		line, err := json.Marshal(event)
		return string(line), err
	}
	return fmt.Sprintf("%s  %s  %s  %s", event.CreatedAt.UTC().Format(time.RFC3339), event.Type, subjectOfEvent(event), event.Data), nil
}

func subjectOfEvent(event earmark.Event) string {
	if event.BudgetID != "" {
		return event.BudgetID
	}
	return event.ReservationID
}

func eventTable(page *earmark.EventPage) view {
	columns := []column{
		{title: "WHEN"},
		{title: "TYPE"},
		{title: "SUBJECT", isID: true, shrink: 2, least: shortID},
		{title: "SCOPES", shrink: 1, least: 8, drop: 2},
		{title: "DATA", shrink: 3, least: 12, drop: 1},
	}
	return func(p *sheet) {
		if len(page.Data) == 0 {
			p.line("No events. Continue with --after " + page.NextAfter)
			return
		}
		rows := make([][]cell, 0, len(page.Data))
		for _, e := range page.Data {
			rows = append(rows, []cell{{p.when(e.CreatedAt), dim}, {string(e.Type), plain}, {subjectOfEvent(e), plain}, {fmt.Sprint(e.Scopes), plain}, {string(e.Data), plain}})
		}
		p.table(columns, rows)
		p.line("Continue with --after " + page.NextAfter)
	}
}
