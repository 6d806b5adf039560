package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
)

func newGrant() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "grant",
		Short:   "Grant an amount on top of a budget's limit, such as prepaid credit",
		Example: "  earmark grant create bud_7sk2nq4d5a 500 --reason \"order 4711\"",
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newGrantCreate(), newGrantList(), newGrantVoid())
	return cmd
}

func newGrantCreate() *cobra.Command {
	var o options
	var f onceFlags
	var from, until momentFlag
	var priority int64
	cmd := &cobra.Command{
		Use:   "create ID AMOUNT --reason WHY",
		Short: "Grant an amount that is used up once",
		Long: `Grant AMOUNT on top of a budget's limit. It is used up once, in whatever
windows, until it expires. Grants are used by --priority, then the earliest
expiry, then the oldest, before or after the limit of the window: see
earmark budget set --allowance.

A --key makes it safe to repeat: the same key and grant of a budget apply
once. Without --key the command makes a key, and shows it if the outcome is
unknown.`,
		Example: `  earmark grant create bud_7sk2nq4d5a 500 --until 2027-06-01 \
    --reason "order 4711"`,
		Args:                  arguments("ID", "AMOUNT"),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeArgs(1, budgetIDs),
		RunE: o.run(func(s *session, args []string) error {
			amount, err := parseAmount(args[1])
			if err != nil {
				return usageError{fmt.Errorf("AMOUNT: %w", err)}
			}
			request := earmark.GrantRequest{Amount: amount, EffectiveAt: from.given(), ExpiresAt: until.given(), Priority: &priority, Reason: f.reason}
			if err := request.Validate(); err != nil {
				return err
			}
			id, err := s.budgetID(args[0])
			if err != nil {
				return err
			}
			grant, err := s.api.CreateGrant(s.ctx, id, f.named(s, "grant "+id), request)
			if err != nil {
				return err
			}
			if s.last.repeated() {
				s.note("An earlier call with this key did it; nothing more was changed.")
			}
			return s.print(grantTable([]earmark.Grant{*grant}))
		}),
	}
	cmd.Flags().Var(&from, "from", "when it begins, a date or RFC 3339 (default: now)")
	cmd.Flags().Var(&until, "until", "when it expires, a date or RFC 3339 (default: never)")
	cmd.Flags().Int64Var(&priority, "priority", earmark.DefaultGrantPriority, "`N` from 0 to 100; the lower is used first")
	f.flags(cmd)
	o.flags(cmd)
	return cmd
}

func newGrantList() *cobra.Command {
	return newListOfBudget("grants", "earmark grant list bud_7sk2nq4d5a", grantsOf, grantTable)
}

func newGrantVoid() *cobra.Command {
	cmd := newEndOfBudget("void ID GRANT", "earmark grant void bud_7sk2nq4d5a grt_4hq… --reason \"paid back\"", (*session).grantID, grantTable,
		func(s *session, budgetID, id, reason string) (*earmark.Grant, error) {
			return s.api.VoidGrant(s.ctx, budgetID, id, reason)
		})
	cmd.Short = "Take away what is left of a grant"
	cmd.Long = `Take away what is left of a grant. What open reservations hold against it stays
so, and is charged to it.`
	return cmd
}

func grantsOf(s *session, budgetID string, f earmark.PageFilter) (earmark.Page[earmark.Grant], error) {
	return s.api.Grants(s.ctx, budgetID, f)
}

// grantID completes the beginning of an id, as lists show it.
func (s *session) grantID(budgetID, typed string) (string, error) {
	return s.wholeID(typed, "grt_", "grant", func(cursor string) (ids []string, next string, err error) {
		page, err := s.api.Grants(s.ctx, budgetID, earmark.PageFilter{Cursor: cursor, Limit: earmark.MaxPageSize})
		for _, g := range page.Data {
			ids = append(ids, g.ID)
		}
		return ids, page.NextCursor, err
	})
}

func grantTable(grants []earmark.Grant) view {
	columns := []column{
		{title: "ID", isID: true, shrink: 1, least: shortID},
		{title: "AMOUNT", right: true},
		{title: "RESERVED", right: true},
		{title: "COMMITTED", right: true},
		{title: "LEFT", right: true},
		{title: "PRIORITY", right: true},
		{title: "FROM"},
		{title: "UNTIL"},
		{title: "REASON", shrink: 2, least: 10},
	}
	return func(p *sheet) {
		if len(grants) == 0 {
			p.line("No grants. `earmark grant create ID AMOUNT` makes one.")
			return
		}
		rows := make([][]cell, 0, len(grants))
		for _, g := range grants {
			until := "never"
			switch {
			case g.VoidedAt != nil:
				until = "voided " + p.when(*g.VoidedAt)
			case g.ExpiresAt != nil:
				until = p.when(*g.ExpiresAt)
			}
			rows = append(rows, []cell{{g.ID, plain}, {earmark.FormatAmount(g.Amount), plain}, {earmark.FormatAmount(g.Reserved), plain},
				{earmark.FormatAmount(g.Committed), plain}, {earmark.FormatAmount(g.Remaining), plain}, {fmt.Sprint(g.Priority), plain},
				{p.when(g.EffectiveAt), dim}, {until, dim}, {clean(g.Reason), plain}})
		}
		p.table(columns, rows)
	}
}
