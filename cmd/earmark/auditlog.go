package main

import (
	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
)

func newAuditLog() *cobra.Command {
	var o options
	var filter earmark.AuditFilter
	var limit int
	cmd := &cobra.Command{
		Use:   "audit-log",
		Short: "List who changed budgets, keys and the tenant, newest first",
		Long: `List the changes of budgets, keys and the tenant, newest first: who made each,
and why. --json also shows what was changed, before and after. It needs a key
with the role admin.`,
		Example: `  earmark audit-log --actor operator:alice
  earmark audit-log --subject bud_7sk2nq4d5aaaaaaaaaaaaaaaaa --json`,
		Args: noArguments,
		RunE: o.run(func(s *session, _ []string) error {
			if err := checkLimit(limit); err != nil {
				return err
			}
			page, err := collect(s, limit, func(cursor string, limit int) (earmark.Page[earmark.AuditRecord], error) {
				filter.Cursor, filter.Limit = cursor, limit
				return s.api.Audit(s.ctx, filter)
			})
			if err != nil {
				return err
			}
			return s.print(withMore(auditTable(page.Data), page.NextCursor, limit))
		}),
	}
	cmd.Flags().StringVar(&filter.Subject, "subject", "", "only changes of the budget, key or tenant with this `ID`")
	cmd.Flags().StringVar(&filter.Action, "action", "", "only changes of this `KIND`, such as key.revoke")
	cmd.Flags().StringVar(&filter.Actor, "actor", "", "only changes by this `ACTOR`, such as operator:alice or key:k3jd8fh2qz07")
	limitFlag(cmd, &limit, defaultEntries)
	completeWords(cmd, "subject", nil)
	completeWords(cmd, "action", earmark.Actions)
	completeWords(cmd, "actor", nil)
	o.flags(cmd)
	return cmd
}

func auditTable(records []earmark.AuditRecord) view {
	columns := []column{
		{title: "WHEN"},
		{title: "ACTION"},
		{title: "SUBJECT", isID: true, shrink: 2, least: shortID},
		{title: "BY", drop: 1},
		{title: "REASON", shrink: 1, least: 12},
	}
	return func(p *sheet) {
		if len(records) == 0 {
			p.line("No changes.")
			return
		}
		rows := make([][]cell, 0, len(records))
		for _, r := range records {
			rows = append(rows, []cell{{p.when(r.CreatedAt), dim}, {r.Action, plain}, {r.Subject, plain}, {r.Actor.String(), plain}, {r.Reason, plain}})
		}
		p.table(columns, rows)
	}
}
