package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
)

func newWebhook() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "webhook",
		Short:   "Have events delivered to addresses of yours",
		Example: "  earmark webhook create https://example.com/earmark --type budget.exhausted",
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newWebhookCreate(), newWebhookList(), newWebhookGet(), newWebhookUpdate(), newWebhookDelete(), newWebhookRotateSecret(), newWebhookTest(),
		newWebhookDeliveries(), newWebhookReplay())
	return cmd
}

// webhookFilters are the flags that select events.
type webhookFilters struct{ types, budgets, scopes []string }

func (f *webhookFilters) flags(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.types, "type", nil, "only events of these `TYPES`, separated by commas")
	cmd.Flags().StringSliceVar(&f.budgets, "budget", nil, "only events of the budgets with these `IDS`")
	cmd.Flags().StringSliceVar(&f.scopes, "scope", nil, "only events on these `SCOPES` and below them")
	completeWords(cmd, "type", eventTypeWords())
	complete(cmd, "budget", budgetIDs)
	complete(cmd, "scope", budgetScopes)
}

// request returns the filters, with whole ids of budgets.
func (f *webhookFilters) request(s *session) (r earmark.WebhookRequest, err error) {
	for _, name := range f.types {
		r.Types = append(r.Types, earmark.EventType(name))
	}
	for _, typed := range f.budgets {
		id, err := s.budgetID(typed)
		if err != nil {
			return r, err
		}
		r.Budgets = append(r.Budgets, id)
	}
	r.Scopes = f.scopes
	return r, r.Validate()
}

func newWebhookCreate() *cobra.Command {
	var o options
	var f webhookFilters
	cmd := &cobra.Command{
		Use:   "create URL",
		Short: "Have events from now on delivered to an address",
		Long: `Have events from now on delivered to an address, in order and at least once. An
event passes all filters that are given. The secret that signs deliveries is
printed alone on standard output, and nothing shows it again.`,
		Example: `  earmark webhook create https://example.com/earmark > webhook.secret
  earmark webhook create https://example.com/ml --scope acme/ml \
    --type budget.exhausted,webhook.disabled`,
		Args:              arguments("URL"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: o.run(func(s *session, args []string) error {
			request, err := f.request(s)
			if err != nil {
				return err
			}
			request.URL = args[0]
			issued, err := s.api.CreateWebhook(s.ctx, request)
			return s.printIssuedWebhook("Created", issued, err)
		}),
	}
	f.flags(cmd)
	o.flags(cmd)
	return cmd
}

// printIssuedWebhook prints the secret alone on standard output, and the rest beside it.
func (s *session) printIssuedWebhook(done string, issued *earmark.IssuedWebhook, err error) error {
	if err != nil {
		return err
	}
	if s.asJSON {
		return s.print(webhookDetails(&issued.Webhook))
	}
	fmt.Fprintln(s.cmd.OutOrStdout(), issued.Secret)
	s.note("%s. The secret is shown this once; keep it now.", done)
	fmt.Fprint(s.cmd.ErrOrStderr(), s.render(webhookDetails(&issued.Webhook)))
	return nil
}

func newWebhookList() *cobra.Command {
	var o options
	var limit int
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List webhooks, newest first",
		Example: "  earmark webhook list",
		Args:    noArguments,
		RunE: o.run(func(s *session, _ []string) error {
			if err := checkLimit(limit); err != nil {
				return err
			}
			return s.present(func() (view, error) {
				page, err := collect(s, limit, func(cursor string, limit int) (earmark.Page[earmark.Webhook], error) {
					return s.api.Webhooks(s.ctx, earmark.PageFilter{Cursor: cursor, Limit: limit})
				})
				if err != nil {
					return nil, err
				}
				return withMore(webhookTable(page.Data), page.NextCursor, limit), nil
			})
		}),
	}
	limitFlag(cmd, &limit, earmark.DefaultPageSize)
	o.flags(cmd)
	return cmd
}

// onWebhook is a command about one webhook.
func onWebhook(use, short, example string, o *options, run func(s *session, id string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use:                   use + " ID",
		Short:                 short,
		Example:               example,
		Args:                  arguments("ID"),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeArgs(1, webhookIDs),
		RunE: o.run(func(s *session, args []string) error {
			id, err := s.webhookID(args[0])
			if err != nil {
				return err
			}
			return run(s, id)
		}),
	}
	o.flags(cmd)
	return cmd
}

func (s *session) printWebhook(w *earmark.Webhook, err error) error {
	if err != nil {
		return err
	}
	return s.print(webhookDetails(w))
}

func newWebhookGet() *cobra.Command {
	var o options
	return onWebhook("get", "Show a webhook", "  earmark webhook get whk_7sk2nq4d5a", &o, func(s *session, id string) error {
		w, err := s.api.Webhook(s.ctx, id)
		return s.printWebhook(w, err)
	})
}

func newWebhookUpdate() *cobra.Command {
	var o options
	var f webhookFilters
	var url string
	var enable, disable bool
	cmd := onWebhook("update", "Change, disable or enable a webhook", `  earmark webhook update whk_7sk2nq4d5a --enable
  earmark webhook update whk_7sk2nq4d5a --type budget.exhausted --scope ""`, &o, func(s *session, id string) error {
		for _, list := range []*[]string{&f.types, &f.budgets, &f.scopes} {
			if len(*list) == 1 && (*list)[0] == "" {
				*list = []string{}
			}
		}
		request, err := f.request(s)
		if err != nil {
			return err
		}
		changed := s.cmd.Flags().Changed
		var patch earmark.WebhookPatch
		if changed("endpoint") {
			patch.URL = &url
		}
		if changed("type") {
			patch.Types = &request.Types
		}
		if changed("budget") {
			patch.Budgets = &request.Budgets
		}
		if changed("scope") {
			patch.Scopes = &request.Scopes
		}
		if enable || disable {
			patch.Enabled = &enable
		}
		if err := patch.Validate(); err != nil {
			return usageError{errors.New("what is to change? Give --endpoint, --type, --budget, --scope, --enable or --disable")}
		}
		w, err := s.api.PatchWebhook(s.ctx, id, patch)
		return s.printWebhook(w, err)
	})
	cmd.Long = `Change, disable or enable a webhook. A filter replaces the one before; an empty
one, such as --type "", selects everything. --enable resumes deliveries with the
event at which they stopped; it, and a new --endpoint, make an attempt at once.`
	cmd.Flags().StringVar(&url, "endpoint", "", "deliver to this `URL`")
	cmd.Flags().BoolVar(&enable, "enable", false, "resume deliveries")
	cmd.Flags().BoolVar(&disable, "disable", false, "stop deliveries")
	cmd.MarkFlagsMutuallyExclusive("enable", "disable")
	cmd.DisableFlagsInUseLine = false
	f.flags(cmd)
	return cmd
}

func newWebhookDelete() *cobra.Command {
	var o options
	return onWebhook("delete", "Delete a webhook", "  earmark webhook delete whk_7sk2nq4d5a", &o, func(s *session, id string) error {
		w, err := s.api.DeleteWebhook(s.ctx, id)
		if err == nil {
			s.note("Deleted.")
		}
		return s.printWebhook(w, err)
	})
}

func newWebhookRotateSecret() *cobra.Command {
	var o options
	return onWebhook("rotate-secret", "Give a webhook a new secret; for 24 hours both sign",
		"  earmark webhook rotate-secret whk_7sk2nq4d5a > webhook.secret", &o, func(s *session, id string) error {
			issued, err := s.api.RotateWebhookSecret(s.ctx, id)
			return s.printIssuedWebhook("Rotated", issued, err)
		})
}

func newWebhookTest() *cobra.Command {
	var o options
	return onWebhook("test", "Send a test, and show what the endpoint answered", "  earmark webhook test whk_7sk2nq4d5a", &o, func(s *session, id string) error {
		tested, err := s.api.TestWebhook(s.ctx, id)
		if err != nil {
			return err
		}
		if err := s.print(func(p *sheet) {
			p.fields(field{"Status", statusWords(tested.Status), plain}, field{"Error", clean(tested.Error), red},
				field{"Took", (time.Duration(tested.DurationMS) * time.Millisecond).String(), plain}, field{"webhook-id", tested.EventID, dim})
		}); err != nil {
			return err
		}
		if tested.Error != "" {
			return &callError{code: exitFailed, text: "the endpoint did not take the test"}
		}
		return nil
	})
}

func newWebhookDeliveries() *cobra.Command {
	var o options
	var limit int
	cmd := onWebhook("deliveries", "List the attempts to deliver, newest first", "  earmark webhook deliveries whk_7sk2nq4d5a", &o, func(s *session, id string) error {
		if err := checkLimit(limit); err != nil {
			return err
		}
		return s.present(func() (view, error) {
			page, err := collect(s, limit, func(cursor string, limit int) (earmark.Page[earmark.Delivery], error) {
				return s.api.Deliveries(s.ctx, id, earmark.PageFilter{Cursor: cursor, Limit: limit})
			})
			if err != nil {
				return nil, err
			}
			return withMore(deliveryTable(page.Data), page.NextCursor, limit), nil
		})
	})
	cmd.DisableFlagsInUseLine = false
	limitFlag(cmd, &limit, earmark.DefaultPageSize)
	return cmd
}

func newWebhookReplay() *cobra.Command {
	var o options
	var from, to momentFlag
	cmd := onWebhook("replay", "Deliver the events of a time again", "  earmark webhook replay whk_7sk2nq4d5a --from 2026-04-30 --to 2026-05-01", &o, func(s *session, id string) error {
		if from.IsZero() {
			return usageError{errors.New("from when on? Give --from, a date or RFC 3339")}
		}
		w, err := s.api.ReplayWebhook(s.ctx, id, earmark.WebhookReplay{From: from.Time, To: to.given()})
		return s.printWebhook(w, err)
	})
	cmd.Long = `Deliver the events of a time again, in their order and with the same webhook-id,
and then go on. A replay replaces one that is under way.`
	cmd.Use = "replay ID --from TIME"
	cmd.Flags().Var(&from, "from", "events from this time on, a date or RFC 3339 (required)")
	cmd.Flags().Var(&to, "to", "events before this time (default: now)")
	return cmd
}

// webhookID completes the beginning of an id, as lists show it.
func (s *session) webhookID(typed string) (string, error) {
	if earmark.IsWebhookID(typed) {
		return typed, nil
	}
	return s.wholeID(typed, "whk_", "webhook", func(cursor string) (ids []string, next string, err error) {
		page, err := s.api.Webhooks(s.ctx, earmark.PageFilter{Cursor: cursor, Limit: earmark.MaxPageSize})
		for _, w := range page.Data {
			ids = append(ids, w.ID)
		}
		return ids, page.NextCursor, err
	})
}

func webhookIDs(s *session) ([]cobra.Completion, error) {
	page, err := s.api.Webhooks(s.ctx, earmark.PageFilter{Limit: completionLimit})
	var ids []cobra.Completion
	for _, w := range page.Data {
		ids = append(ids, cobra.CompletionWithDesc(w.ID, clean(w.URL)))
	}
	return ids, err
}

func webhookTable(webhooks []earmark.Webhook) view {
	columns := []column{
		{title: "ID", isID: true, shrink: 1, least: shortID},
		{title: "URL", shrink: 3, least: 16},
		{title: "EVENTS", shrink: 2, least: 8, drop: 1},
		{title: "STATE", shrink: 4, least: 10},
	}
	return func(p *sheet) {
		if len(webhooks) == 0 {
			p.line("No webhooks. `earmark webhook create URL` makes one.")
			return
		}
		rows := make([][]cell, 0, len(webhooks))
		for _, w := range webhooks {
			state, look := webhookState(p, &w)
			rows = append(rows, []cell{{w.ID, plain}, {clean(w.URL), plain}, {selectedEvents(&w, ", "), dim}, {state, look}})
		}
		p.table(columns, rows)
	}
}

func webhookState(p *sheet, w *earmark.Webhook) (string, style) {
	switch {
	case !w.Enabled:
		return "disabled", red
	case w.FailingSince != nil:
		return "fails since " + p.when(*w.FailingSince), yellow
	}
	return "enabled", green
}

// selectedEvents says which events a webhook selects.
func selectedEvents(w *earmark.Webhook, separator string) string {
	var parts []string
	for _, name := range w.Types {
		parts = append(parts, string(name))
	}
	parts = append(parts, w.Budgets...)
	parts = append(parts, displayScopes(w.Scopes)...)
	return orElse(strings.Join(parts, separator), "all")
}

func webhookDetails(w *earmark.Webhook) view {
	return func(p *sheet) {
		state, look := webhookState(p, w)
		p.fields(
			field{"ID", w.ID, bold},
			field{"URL", clean(w.URL), plain},
			field{"Events", selectedEvents(w, "\n"), plain},
			field{"State", state, look},
			field{"Because", clean(w.DisabledReason), plain},
			field{"Last error", clean(w.LastError), red},
			field{"Next attempt", optionalMoment(p, w.NextAttemptAt), plain},
			field{"Old secret", untilWords(p, w.FormerSecretUntil), plain},
			field{"Delivered", "up to " + w.After, dim},
			field{"Created", p.moment(w.CreatedAt, time.Local), plain},
		)
	}
}

func untilWords(p *sheet, until *time.Time) string {
	if until == nil {
		return ""
	}
	return "signs until " + p.moment(*until, time.Local)
}

// statusWords shows the status of an answer.
func statusWords(status int) string {
	if status == 0 {
		return "no answer"
	}
	return strconv.Itoa(status)
}

func deliveryTable(deliveries []earmark.Delivery) view {
	columns := []column{
		{title: "WHEN"},
		{title: "EVENT", shrink: 2, least: 10},
		{title: "TYPE", shrink: 3, least: 10, drop: 2},
		{title: "TRY", right: true},
		{title: "STATUS"},
		{title: "TOOK", right: true, drop: 3},
		{title: "ERROR", shrink: 1, least: 12},
		{title: "NEXT", drop: 1},
	}
	return func(p *sheet) {
		if len(deliveries) == 0 {
			p.line("No attempts yet.")
			return
		}
		rows := make([][]cell, 0, len(deliveries))
		for _, d := range deliveries {
			look, next := green, ""
			if d.Error != "" {
				look = red
			}
			if d.NextAttemptAt != nil {
				next = p.when(*d.NextAttemptAt)
			}
			rows = append(rows, []cell{{p.when(d.At), dim}, {d.EventID, plain}, {string(d.Type), plain}, {strconv.Itoa(d.Attempt), plain},
				{statusWords(d.Status), look}, {strconv.FormatInt(d.DurationMS, 10) + " ms", dim}, {clean(d.Error), plain}, {next, dim}})
		}
		p.table(columns, rows)
	}
}
