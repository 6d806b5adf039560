package main

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
)

func newOverride() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "override",
		Short:   "Raise or lower a budget's limit for a time",
		Example: "  earmark override create bud_7sk2nq4d5a 500 --windows 1 --reason \"a launch\"",
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newOverrideCreate(), newOverrideList(), newOverrideEnd())
	return cmd
}

// onceFlags are those of a change that must apply once.
type onceFlags struct{ key, reason string }

func (f *onceFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.key, "key", "", "idempotency `KEY`: names this change of the budget, so that it can be repeated")
	reasonFlag(cmd, &f.reason)
}

func reasonFlag(cmd *cobra.Command, reason *string) {
	cmd.Flags().StringVar(reason, "reason", "", "`WHY`, for the journal (required)")
}

// named returns the key, and makes one if none is given.
func (f *onceFlags) named(s *session, verb string) string {
	if f.key == "" {
		f.key = "cli-" + rand.Text()
	}
	s.subject = subject{key: f.key, verb: verb}
	return f.key
}

func newOverrideCreate() *cobra.Command {
	var o options
	var f onceFlags
	var from, until momentFlag
	var windows int64
	cmd := &cobra.Command{
		Use:   "create ID AMOUNT --reason WHY",
		Short: "Add to a budget's limit for a time, or take from it",
		Long: `Add AMOUNT to a budget's limit, and to its soft ceiling, for a time: until a
time, for some windows, or until it is ended. A negative AMOUNT lowers the
limit; put -- before it. The limit itself stays as it is. A cut may go below
what is used: Earmark takes nothing back, and admits nothing more until it
fits.

A --key makes it safe to repeat: the same key and change of a budget apply
once. Without --key the command makes a key, and shows it if the outcome is
unknown.`,
		Example: `  earmark override create bud_7sk2nq4d5a 500 --until 2026-06-01 \
    --reason "a launch"
  earmark override create bud_7sk2nq4d5a --windows 2 \
    --reason "an unpaid invoice" -- -200`,
		Args:                  arguments("ID", "AMOUNT"),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeArgs(1, budgetIDs),
		RunE: o.run(func(s *session, args []string) error {
			amount, err := parseSigned(args[1])
			if err != nil {
				return usageError{fmt.Errorf("AMOUNT: %w", err)}
			}
			request := earmark.OverrideRequest{Amount: amount, EffectiveAt: from.given(), ExpiresAt: until.given(), Reason: f.reason}
			if s.cmd.Flags().Changed("windows") {
				request.Windows = &windows
			}
			if err := request.Validate(); err != nil {
				return err
			}
			id, err := s.budgetID(args[0])
			if err != nil {
				return err
			}
			override, err := s.api.CreateOverride(s.ctx, id, f.named(s, "override "+id), request)
			return s.printOverride(override, err)
		}),
	}
	cmd.Flags().Var(&from, "from", "when it begins, a date or RFC 3339 (default: now)")
	cmd.Flags().Var(&until, "until", "when it ends, a date or RFC 3339 (default: never)")
	cmd.Flags().Int64Var(&windows, "windows", 0, "end it after this many `WINDOWS`: the one in which it begins and those after it")
	f.flags(cmd)
	o.flags(cmd)
	return cmd
}

// parseSigned reads an amount that may be negative.
func parseSigned(text string) (int64, error) {
	number, negative := strings.CutPrefix(text, "-")
	amount, err := parseAmount(strings.TrimPrefix(number, "+"))
	if negative {
		amount = -amount
	}
	return amount, err
}

func (f *momentFlag) given() *time.Time {
	if f.IsZero() {
		return nil
	}
	return &f.Time
}

func newBudgetReset() *cobra.Command {
	var o options
	var f onceFlags
	cmd := &cobra.Command{
		Use:   "reset ID --reason WHY",
		Short: "Give the whole limit of the current window again",
		Long: `Give the whole limit of a budget's current window again: an override of what is
committed, until the window ends. Balances and the journal stay as they are;
what is reserved stays reserved. --key is as for earmark override create.`,
		Example:               "  earmark budget reset bud_7sk2nq4d5a --reason \"an outage of the provider\"",
		Args:                  arguments("ID"),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeArgs(1, budgetIDs),
		RunE: o.run(func(s *session, args []string) error {
			if err := (earmark.ReasonRequest{Reason: f.reason}).Validate(); err != nil {
				return err
			}
			id, err := s.budgetID(args[0])
			if err != nil {
				return err
			}
			override, err := s.api.ResetBudget(s.ctx, id, f.named(s, "reset "+id), f.reason)
			return s.printOverride(override, err)
		}),
	}
	f.flags(cmd)
	o.flags(cmd)
	return cmd
}

func (s *session) printOverride(override *earmark.Override, err error) error {
	if err != nil {
		return err
	}
	if s.last.repeated() {
		s.note("An earlier call with this key did it; nothing more was changed.")
	}
	return s.print(overrideTable([]earmark.Override{*override}))
}

func newOverrideList() *cobra.Command {
	return newListOfBudget("overrides", "earmark override list bud_7sk2nq4d5a", overridesOf, overrideTable)
}

func newOverrideEnd() *cobra.Command {
	cmd := newEndOfBudget("end ID OVERRIDE", "earmark override end bud_7sk2nq4d5a ovr_4hq… --reason \"the invoice is paid\"", (*session).overrideID, overrideTable,
		func(s *session, budgetID, id, reason string) (*earmark.Override, error) {
			return s.api.EndOverride(s.ctx, budgetID, id, reason)
		})
	cmd.Short = "End an override early"
	return cmd
}

func overridesOf(s *session, budgetID string, f earmark.PageFilter) (earmark.Page[earmark.Override], error) {
	return s.api.Overrides(s.ctx, budgetID, f)
}

// newListOfBudget lists what was given to a budget, such as its overrides.
func newListOfBudget[T any](what, example string, list func(*session, string, earmark.PageFilter) (earmark.Page[T], error), table func([]T) view) *cobra.Command {
	var o options
	var limit int
	cmd := &cobra.Command{
		Use:               "list ID",
		Short:             "List the " + what + " of a budget, newest first",
		Example:           "  " + example,
		Args:              arguments("ID"),
		ValidArgsFunction: completeArgs(1, budgetIDs),
		RunE: o.run(func(s *session, args []string) error {
			if err := checkLimit(limit); err != nil {
				return err
			}
			id, err := s.budgetID(args[0])
			if err != nil {
				return err
			}
			return s.present(func() (view, error) {
				page, err := collect(s, limit, func(cursor string, limit int) (earmark.Page[T], error) {
					return list(s, id, earmark.PageFilter{Cursor: cursor, Limit: limit})
				})
				if err != nil {
					return nil, err
				}
				return withMore(table(page.Data), page.NextCursor, limit), nil
			})
		}),
	}
	limitFlag(cmd, &limit, earmark.DefaultPageSize)
	o.flags(cmd)
	return cmd
}

// newEndOfBudget ends one of these, for a reason. use names the verb and both arguments; idOf completes the second one.
func newEndOfBudget[T any](use, example string, idOf func(s *session, budgetID, typed string) (string, error), table func([]T) view,
	end func(s *session, budgetID, id, reason string) (*T, error)) *cobra.Command {
	var o options
	var reason string
	cmd := &cobra.Command{
		Use:                   use + " --reason WHY",
		Example:               "  " + example,
		Args:                  arguments(strings.Fields(use)[1:]...),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeArgs(1, budgetIDs),
		RunE: o.run(func(s *session, args []string) error {
			if err := (earmark.ReasonRequest{Reason: reason}).Validate(); err != nil {
				return err
			}
			budgetID, err := s.budgetID(args[0])
			if err != nil {
				return err
			}
			id, err := idOf(s, budgetID, args[1])
			if err != nil {
				return err
			}
			ended, err := end(s, budgetID, id, reason)
			if err != nil {
				return err
			}
			return s.print(table([]T{*ended}))
		}),
	}
	reasonFlag(cmd, &reason)
	o.flags(cmd)
	return cmd
}

// overrideID completes the beginning of an id, as lists show it.
func (s *session) overrideID(budgetID, typed string) (string, error) {
	return s.wholeID(typed, "ovr_", "override", func(cursor string) (ids []string, next string, err error) {
		page, err := s.api.Overrides(s.ctx, budgetID, earmark.PageFilter{Cursor: cursor, Limit: earmark.MaxPageSize})
		for _, o := range page.Data {
			ids = append(ids, o.ID)
		}
		return ids, page.NextCursor, err
	})
}

func overrideTable(overrides []earmark.Override) view {
	columns := []column{
		{title: "ID", isID: true, shrink: 1, least: shortID},
		{title: "AMOUNT", right: true},
		{title: "FROM"},
		{title: "UNTIL"},
		{title: "REASON", shrink: 2, least: 10},
	}
	return func(p *sheet) {
		if len(overrides) == 0 {
			p.line("No overrides. `earmark override create ID AMOUNT` makes one.")
			return
		}
		rows := make([][]cell, 0, len(overrides))
		for _, o := range overrides {
			until := "never"
			switch {
			case o.EndedAt != nil:
				until = "ended " + p.when(*o.EndedAt)
			case o.ExpiresAt != nil:
				until = p.when(*o.ExpiresAt)
			}
			rows = append(rows, []cell{{o.ID, plain}, {signed(o.Amount), plain}, {p.when(o.EffectiveAt), dim}, {until, dim}, {clean(o.Reason), plain}})
		}
		p.table(columns, rows)
	}
}

func signed(amount int64) string {
	if amount > 0 {
		return "+" + earmark.FormatAmount(amount)
	}
	return earmark.FormatAmount(amount)
}
