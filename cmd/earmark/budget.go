package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/earmark-dev/earmark"
)

var (
	enforcements = []earmark.Enforcement{earmark.EnforcementHard, earmark.EnforcementSoft}
	allowances   = []earmark.Allowance{earmark.AllowanceFirst, earmark.AllowanceLast}
	overages     = []earmark.OveragePolicy{earmark.OverageAllowWithOverdraft, earmark.OverageAllowIfAvailable, earmark.OverageReject}
)

func newBudget() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "budget",
		Short:   "Create, list, show, report on, change and archive budgets",
		Example: "  earmark budget create acme/ml tokens 10_000_000 --period month",
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBudgetCreate(), newBudgetList(), newBudgetShow(), newBudgetWindows(), newBudgetUsage(), newBudgetSet(), newBudgetReset(), newBudgetArchive())
	return cmd
}

func newBudgetCreate() *cobra.Command {
	var o options
	var soft, quiet bool
	var window earmark.Window
	var length time.Duration
	var ceiling amountFlag
	var extras extraFlags
	period := choiceFlag[earmark.Period]{earmark.PeriodLifetime, "PERIOD", earmark.Periods}
	overage := choiceFlag[earmark.OveragePolicy]{earmark.OverageAllowWithOverdraft, "POLICY", overages}
	allowance := choiceFlag[earmark.Allowance]{earmark.AllowanceFirst, "PLACE", allowances}
	cmd := &cobra.Command{
		Use:   "create SCOPE UNIT LIMIT",
		Short: "Create a budget",
		Long: `Create a budget: a limit on a scope and everything under it, in one unit, over
one window. There is at most one budget for each scope, unit, period and
--every. A SCOPE that ends with /* makes a template: it limits nothing itself,
and gives each child of the scope a budget of its own when a request first
meets it.`,
		Example: `  earmark budget create acme/ml tokens 10_000_000 --period month \
    --timezone Europe/Berlin
  earmark budget create acme usd_micros 50,000,000 --soft-ceiling 60,000,000
  earmark budget create acme/pro tokens 10_000_000 --period month \
    --anchor 2026-01-31T09:00
  earmark budget create acme/pro tokens 500_000 --rolling 5h
  earmark budget create acme/trial requests 100 --overage reject
  earmark budget create 'app/users/*' requests 100 --period day`,
		Args:              arguments("SCOPE", "UNIT", "LIMIT"),
		ValidArgsFunction: completeArgs(1, budgetScopes),
		RunE: o.run(func(s *session, args []string) error {
			limit, err := parseAmount(args[2])
			if err != nil {
				return usageError{fmt.Errorf("LIMIT: %w", err)}
			}
			scope, err := earmark.ParseBudgetScope("scope", args[0])
			if err != nil {
				return err
			}
			thresholds, rollover, err := extras.values(s.cmd)
			if err != nil {
				return err
			}
			window.Period = period.value
			if err := setRolling(&window, length); err != nil {
				return err
			}
			request := earmark.BudgetRequest{
				Scope: scope, Unit: args[1], Limit: &limit, SoftCeiling: ceiling.value, Overage: overage.value,
				Allowance: allowance.value, Window: window, Thresholds: thresholds, Rollover: rollover,
			}.WithDefaults()
			if soft || ceiling.value != nil {
				request.Enforcement = earmark.EnforcementSoft
			}
			s.subject.scopes = []string{scope}
			if err := request.Validate(); err != nil {
				return err
			}
			budget, err := s.api.CreateBudget(s.ctx, request)
			if err != nil {
				return err
			}
			if quiet && !s.asJSON {
				return s.print(func(p *sheet) { p.line("%s", budget.ID) })
			}
			return s.print(budgetDetails(budget))
		}),
	}
	period.define(cmd, "period", "the window that the limit is for (a week starts on Monday)")
	cmd.Flags().Int64Var(&window.Every, "every", 1, "how many periods a window has: `N`, up to 1000")
	cmd.Flags().StringVar(&window.Anchor, "anchor", "", "a local `TIME` at which a window starts, such as 2026-01-31T09:00; others follow from it")
	cmd.Flags().StringVar(&window.Timezone, "timezone", "UTC", "the time `ZONE` in which the window begins: UTC or an IANA name such as Europe/Berlin")
	cmd.Flags().BoolVar(&soft, "soft", false, "admit past the limit, and say so")
	cmd.Flags().Var(&ceiling, "soft-ceiling", "admit past the limit up to this much; implies --soft")
	overage.define(cmd, "overage", "charge usage beyond the reserved amount, charge what fits, or refuse it")
	allowance.define(cmd, "allowance", "use the limit of the window before grants, or after them")
	extras.define(cmd, "", "")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the id alone")
	cmd.Flags().DurationVar(&length, "rolling", 0, "the last `DURATION` at any time, such as 5h or 90m; instead of --period")
	cmd.MarkFlagsMutuallyExclusive("period", "rolling")
	completeNothing(cmd, "timezone", "rolling", "anchor")
	o.flags(cmd)
	return cmd
}

// setRolling makes the window a rolling one, unless length is 0.
func setRolling(window *earmark.Window, length time.Duration) error {
	if length%time.Second != 0 {
		return usageError{fmt.Errorf("--rolling: %s is not a number of whole minutes", length)}
	}
	if length != 0 {
		window.Period, window.RollingSeconds = earmark.PeriodRolling, int64(length/time.Second)
	}
	return nil
}

func newBudgetList() *cobra.Command {
	var o options
	var filter earmark.BudgetFilter
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List budgets and their balances, newest first",
		Long: `List budgets with the balance of their current windows, newest first. Archived
ones are not listed.`,
		Example: `  earmark budget list
  earmark budget list --covering acme/ml/u1   # what a request of u1 meets
  earmark budget list --template bud_7sk2nq4d5a   # the children of a template`,
		Args: noArguments,
		RunE: o.run(func(s *session, _ []string) error {
			if filter.Scope != "" && filter.Covering != "" {
				return usageError{errors.New("--scope and --covering do not go together; give one of them")}
			}
			if err := checkLimit(limit); err != nil {
				return err
			}
			if filter.TemplateID != "" {
				var err error
				if filter.TemplateID, err = s.budgetID(filter.TemplateID); err != nil {
					return err
				}
			}
			return s.present(func() (view, error) {
				page, err := collect(s, limit, func(cursor string, limit int) (earmark.Page[earmark.Budget], error) {
					filter.Cursor, filter.Limit = cursor, limit
					return s.api.Budgets(s.ctx, filter)
				})
				if err != nil {
					return nil, err
				}
				return withMore(budgetTable(page.Data), page.NextCursor, limit), nil
			})
		}),
	}
	cmd.Flags().Var((*budgetScopeFlag)(&filter.Scope), "scope", "only budgets on exactly this `SCOPE`, or templates with it")
	cmd.Flags().Var((*scopeFlag)(&filter.Covering), "covering", "every budget on the path of this `SCOPE`: its own and those above it")
	cmd.Flags().StringVar(&filter.TemplateID, "template", "", "only budgets that the template with this `ID` made, or that follow it")
	limitFlag(cmd, &limit, earmark.DefaultPageSize)
	complete(cmd, "template", budgetIDs)
	complete(cmd, "scope", budgetScopes)
	complete(cmd, "covering", budgetScopes)
	o.flags(cmd)
	o.watchFlag(cmd)
	return cmd
}

func newBudgetShow() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:               "show ID",
		Short:             "Show a budget and the balance of its current window",
		Example:           "  earmark budget show bud_7sk2nq4d5a\n  earmark budget show bud_7sk2nq4d5a --watch",
		Args:              arguments("ID"),
		ValidArgsFunction: completeArgs(1, budgetIDs),
		RunE: o.run(func(s *session, args []string) error {
			id, err := s.budgetID(args[0])
			if err != nil {
				return err
			}
			return s.present(func() (view, error) {
				budget, err := s.api.Budget(s.ctx, id)
				if err != nil {
					return nil, err
				}
				return budgetDetails(budget), nil
			})
		}),
	}
	o.flags(cmd)
	o.watchFlag(cmd)
	return cmd
}

func newBudgetWindows() *cobra.Command {
	var o options
	var limit int
	cmd := &cobra.Command{
		Use:   "windows ID",
		Short: "List the balances of a budget's windows, newest first",
		Long: `List the balances of a budget's windows in which something was reserved or
charged, newest first. Of a rolling budget they are those of its slices. What
was available is by the budget's present limit.`,
		Example:           "  earmark budget windows bud_7sk2nq4d5a --limit 12",
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
			page, err := collect(s, limit, func(cursor string, limit int) (earmark.Page[earmark.Balance], error) {
				return s.api.BudgetWindows(s.ctx, id, earmark.WindowFilter{Cursor: cursor, Limit: limit})
			})
			if err != nil {
				return err
			}
			return s.print(withMore(windowTable(page.Data), page.NextCursor, limit))
		}),
	}
	limitFlag(cmd, &limit, earmark.DefaultPageSize)
	o.flags(cmd)
	return cmd
}

func newBudgetSet() *cobra.Command {
	var o options
	var limit amountFlag
	var ceiling ceilingFlag
	var extras extraFlags
	var follow bool
	effective := choiceFlag[earmark.Effective]{noun: "WHEN", allowed: []earmark.Effective{earmark.EffectiveNow, earmark.EffectiveNextWindow}}
	enforcement := choiceFlag[earmark.Enforcement]{noun: "WORD", allowed: enforcements}
	overage := choiceFlag[earmark.OveragePolicy]{noun: "POLICY", allowed: overages}
	allowance := choiceFlag[earmark.Allowance]{noun: "PLACE", allowed: allowances}
	cmd := &cobra.Command{
		Use:   "set ID",
		Short: "Change a budget",
		Long: `Change a budget; settings without a flag stay as they are. A limit may go below
what is reserved and committed: Earmark takes nothing back, and admits nothing
more until it fits. The children of a template follow its changes; a child that
is changed itself follows no more, until --follow-template.`,
		Example: `  earmark budget set bud_7sk2nq4d5a --limit 20_000_000
  earmark budget set bud_7sk2nq4d5a --enforcement soft --soft-ceiling none
  earmark budget set bud_7sk2nq4d5a --limit 200 --effective next_window
  earmark budget set bud_7sk2nq4d5a --follow-template`,
		Args:              arguments("ID"),
		ValidArgsFunction: completeArgs(1, budgetIDs),
		RunE: o.run(func(s *session, args []string) error {
			patch := earmark.BudgetPatch{Limit: limit.value}
			if ceiling.given {
				patch.SoftCeiling = &ceiling.value
			}
			if enforcement.value != "" {
				patch.Enforcement = &enforcement.value
			}
			if overage.value != "" {
				patch.Overage = &overage.value
			}
			if allowance.value != "" {
				patch.Allowance = &allowance.value
			}
			if err := extras.change(s.cmd, &patch); err != nil {
				return err
			}
			if s.cmd.Flags().Changed("follow-template") {
				patch.FollowsTemplate = &follow
			}
			if patch == (earmark.BudgetPatch{}) {
				return usageError{errors.New("nothing to change: give at least one of --limit, --soft-ceiling, --enforcement, --overage, --allowance, --threshold, --rollover and --follow-template")}
			}
			if effective.value != "" {
				patch.Effective = &effective.value
			}
			if err := patch.Validate(); err != nil {
				return err
			}
			id, err := s.budgetID(args[0])
			if err != nil {
				return err
			}
			budget, err := s.api.PatchBudget(s.ctx, id, patch)
			if err != nil {
				return err
			}
			return s.print(budgetDetails(budget))
		}),
	}
	cmd.Flags().Var(&limit, "limit", "the new limit")
	cmd.Flags().Var(&ceiling, "soft-ceiling", "admit past the limit up to this much, with --enforcement soft; none takes the ceiling away")
	enforcement.define(cmd, "enforcement", "deny a request that does not fit, or admit it")
	overage.define(cmd, "overage", "charge usage beyond the reserved amount, charge what fits, or refuse it")
	allowance.define(cmd, "allowance", "use the limit of the window before grants, or after them")
	extras.define(cmd, ";\nreplaces those of before, none removes them", "; none ends that")
	effective.define(cmd, "effective", "when the children of a template take the change over: now, or with their next windows")
	cmd.Flags().BoolVar(&follow, "follow-template", false, "take the settings of the budget's template and follow its changes;\n--follow-template=false keeps the settings and ends that")
	completeWords(cmd, "soft-ceiling", []string{"none"})
	o.flags(cmd)
	return cmd
}

func newBudgetArchive() *cobra.Command {
	var o options
	var yes bool
	cmd := &cobra.Command{
		Use:   "archive ID",
		Short: "End a budget: it takes no new holds, and open ones settle",
		Long: `End a budget: it takes no new holds, and open ones settle. You cannot undo this,
but you can create a new budget in its place. On a terminal it asks first;
elsewhere it needs --yes.`,
		Example:           "  earmark budget archive bud_7sk2nq4d5a --yes",
		Args:              arguments("ID"),
		ValidArgsFunction: completeArgs(1, budgetIDs),
		RunE: o.run(func(s *session, args []string) error {
			id, err := s.budgetID(args[0])
			if err != nil {
				return err
			}
			if !yes {
				if err := s.confirmArchive(id); err != nil {
					return err
				}
			}
			budget, err := s.api.ArchiveBudget(s.ctx, id)
			if err != nil {
				return err
			}
			return s.print(budgetDetails(budget))
		}),
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	o.flags(cmd)
	return cmd
}

// confirmArchive asks the person at the terminal.
func (s *session) confirmArchive(id string) error {
	in := s.cmd.InOrStdin()
	if !interactive(in) {
		return usageError{errors.New("this cannot be undone, and there is no terminal to ask on: pass --yes to archive the budget")}
	}
	budget, err := s.api.Budget(s.ctx, id)
	if err != nil || budget.ArchivedAt != nil {
		return err
	}
	open := ""
	if budget.Balance.Reserved > 0 {
		open = fmt.Sprintf(" %s are still reserved and will settle.", earmark.FormatAmount(budget.Balance.Reserved))
	}
	fmt.Fprintf(s.cmd.ErrOrStderr(), "Archive the budget of %s on %s?%s [y/N] ", limitWords(budget), clean(earmark.DisplayScope(budget.Scope)), open)
	answer := make(chan string, 1)
	go func() { // Ctrl-C does not end a read
		line, _ := bufio.NewReader(in).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case line := <-answer:
		if line == "y" || line == "yes" {
			return nil
		}
	case <-s.ctx.Done():
		fmt.Fprintln(s.cmd.ErrOrStderr())
	}
	return errors.New("not archived")
}

func interactive(in io.Reader) bool {
	switch in := in.(type) {
	case sized:
		return true
	case *os.File:
		return term.IsTerminal(int(in.Fd()))
	}
	return false
}
