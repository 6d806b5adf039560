package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
)

func newStuck() *cobra.Command {
	var o options
	var filter earmark.ReservationFilter
	var limit int
	reason := choiceFlag[earmark.StuckReason]{noun: "WHY", allowed: earmark.StuckReasons}
	cmd := &cobra.Command{
		Use:   "stuck",
		Short: "List what needs a person, and the command to fix each",
		Long: `List the reservations that need a person, newest first: why, for how
long, what they hold, the link to the workflow, and the command to fix each.

  paused              the workflow or its activity is paused, so it does not run
  task_failing        the workflow's task fails, so the workflow does not run
  settlement_failing  the workflow cannot settle it and keeps trying
  orphan              no open workflow guards it
  review              it has expired and waits for a decision
  expiry_missed       its lease has ended and nothing has expired it`,
		Example: `  earmark stuck
  earmark stuck --scope acme/ml --reason review
  earmark stuck --watch`,
		Args: noArguments,
		RunE: o.run(func(s *session, _ []string) error {
			if err := checkLimit(limit); err != nil {
				return err
			}
			filter.StuckReason = reason.value
			return s.present(func() (view, error) {
				var last earmark.StuckPage
				page, err := collect(s, limit, func(cursor string, limit int) (earmark.Page[earmark.Reservation], error) {
					filter.Cursor, filter.Limit = cursor, limit
					var err error
					last, err = s.api.Stuck(s.ctx, filter)
					return last.Page, err
				})
				if err != nil {
					return nil, err
				}
				if err := s.answerStuck(last); err != nil {
					return nil, err
				}
				return withMore(stuckList(page.Data, last), page.NextCursor, limit), nil
			})
		}),
	}
	cmd.Flags().Var((*scopeFlag)(&filter.Scope), "scope", "only reservations with a `SCOPE` at or under this one")
	reason.define(cmd, "reason", "only what is stuck for this reason")
	limitFlag(cmd, &limit, earmark.DefaultPageSize)
	complete(cmd, "scope", budgetScopes)
	o.flags(cmd)
	o.watchFlag(cmd)
	return cmd
}

// stuckList is what is stuck, each with what to do.
func stuckList(reservations []earmark.Reservation, page earmark.StuckPage) view {
	return func(p *sheet) {
		if page.Incomplete != "" {
			p.line("%s", p.paint(page.Incomplete, yellow))
			p.line("")
		}
		if len(reservations) == 0 {
			p.line("Nothing is stuck.")
		} else {
			p.line("%s", stuckCounts(reservations))
		}
		for i := range reservations {
			p.line("")
			stuckOne(p, &reservations[i])
		}
		if len(page.Searches) > 0 {
			p.line("")
			p.line("%s", p.paint("The same in Temporal UI:", dim))
			for _, search := range page.Searches {
				p.line("  %s  %s", padRight(search.Title, len("settlement keeps failing")), orElse(search.URL, search.Query))
			}
		}
	}
}

func stuckCounts(reservations []earmark.Reservation) string {
	var words []string
	for _, reason := range earmark.StuckReasons {
		n := 0
		for _, r := range reservations {
			if r.Stuck != nil && r.Stuck.Reason == reason {
				n++
			}
		}
		if n > 0 {
			words = append(words, fmt.Sprintf("%s %s", earmark.FormatAmount(int64(n)), reason))
		}
	}
	return earmark.FormatAmount(int64(len(reservations))) + " stuck: " + strings.Join(words, ", ")
}

func stuckOne(p *sheet, r *earmark.Reservation) {
	stuck := r.Stuck
	if stuck == nil {
		stuck = &earmark.Stuck{}
	}
	age := ""
	if stuck.Since != nil {
		age = " " + p.paint("for "+span(max(time.Second, time.Duration(stuck.AgeSeconds)*time.Second)), bold)
	}
	state := ""
	if r.Lost {
		state = ", lost by Postgres"
	} else if !r.Open() {
		state = ", " + string(r.State)
	}
	p.line("%s%s  %s on %s%s", p.paint(string(stuck.Reason), styleOfStuck(stuck.Reason)), age, r.Amounts, clean(strings.Join(displayScopes(r.Scopes), ", ")), state)
	p.line("  %s", stuck.Reason.Description())
	if stuck.Detail != "" {
		p.line("  %s", p.paint(clean(stuck.Detail), red))
	}
	p.line("  %s", p.paint(orElse(r.UIURL, r.WorkflowID), dim))
	p.line("  %s", clean(stuck.Remedy))
}

func styleOfStuck(reason earmark.StuckReason) style {
	switch reason {
	case earmark.StuckReview:
		return magenta
	case earmark.StuckOrphan, earmark.StuckExpiryMissed, earmark.StuckPaused:
		return yellow
	case earmark.StuckTaskFailing, earmark.StuckSettlementFailing:
	}
	return red
}

// answerStuck makes one document of several pages, with what the last one says
// beside its rows.
func (s *session) answerStuck(page earmark.StuckPage) (err error) {
	var all earmark.Page[json.RawMessage]
	if err := json.Unmarshal(s.answer, &all); err != nil {
		return fmt.Errorf("the answer does not decode: %w", err)
	}
	s.answer, err = json.Marshal(struct {
		earmark.Page[json.RawMessage]
		Incomplete string           `json:"incomplete,omitempty"`
		Searches   []earmark.Search `json:"searches"`
	}{all, page.Incomplete, page.Searches})
	return err
}
