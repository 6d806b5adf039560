package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
)

const (
	drainAtOnce  = 4 // releases under way at a time
	drainedShown = 20
	redrawEvery  = 200 * time.Millisecond
)

// drain releases many reservations for one operator and one reason.
type drain struct {
	scope     string
	state     choiceFlag[earmark.State]
	stuck     choiceFlag[earmark.StuckReason]
	olderThan time.Duration
	by        byFlags
	yes       bool
}

// drained is the result, which --json prints.
type drained struct {
	DryRun    bool             `json:"dry_run"`
	Selected  int              `json:"selected"`
	Amounts   earmark.Amounts  `json:"amounts"` // reserved by the selected reservations
	GivenBack int              `json:"given_back"`
	Accepted  int              `json:"accepted"`       // kept by Temporal until Postgres is back
	Settled   int              `json:"settled_before"` // by another caller meanwhile: nothing was changed
	Failed    []drainedFailure `json:"failed"`
}

type drainedFailure struct {
	ID    string `json:"id"`
	Error string `json:"error"`
}

func newDrain() *cobra.Command {
	var o options
	d := drain{
		state: choiceFlag[earmark.State]{noun: "STATE", allowed: []earmark.State{earmark.StateHeld, earmark.StateReview}},
		stuck: choiceFlag[earmark.StuckReason]{noun: "WHY", allowed: earmark.StuckReasons},
	}
	cmd := &cobra.Command{
		Use:   "drain --scope SCOPE --reason WHY",
		Short: "Give back many reservations at once; shows them first",
		Long: `Release every open reservation under a scope, as earmark release does: Earmark
still charges usage that arrives later. Without --yes it only shows what it would
do. You can repeat it safely.`,
		Example: `  earmark drain --scope acme/batch --reason "the batch was stopped"
  earmark drain --scope acme --stuck expiry_missed --reason "workers were down" --yes`,
		Args:                  noArguments,
		DisableFlagsInUseLine: true,
		RunE:                  o.run(d.run),
	}
	cmd.Flags().Var((*scopeFlag)(&d.scope), "scope", "reservations with a `SCOPE` at or under this one (required)")
	d.state.define(cmd, "state", "only in this state")
	d.stuck.define(cmd, "stuck", "only what is stuck for this reason")
	cmd.Flags().DurationVar(&d.olderThan, "older-than", 0, "only what was reserved longer ago, such as 10m")
	d.by.flags(cmd)
	cmd.Flags().BoolVar(&d.yes, "yes", false, "do it")
	complete(cmd, "scope", budgetScopes)
	o.flags(cmd)
	return cmd
}

func (d *drain) run(s *session, _ []string) error {
	by, err := d.by.withReason()
	switch {
	case err != nil:
		return err
	case d.scope == "":
		return usageError{errors.New("--scope is missing: say what to drain, such as --scope acme/batch")}
	case d.olderThan < 0:
		return usageError{fmt.Errorf("--older-than is %s; it counts back from now, such as 10m", d.olderThan)}
	case d.state.value != "" && d.stuck.value != "":
		return usageError{errors.New("--state and --stuck do not go together; give one of them")}
	}
	selected, err := d.selection(s)
	if err != nil {
		return err
	}
	report := drained{DryRun: !d.yes, Selected: len(selected), Amounts: totals(selected), Failed: []drainedFailure{}}
	if d.yes {
		if err := d.giveBack(s, selected, by, &report); err != nil {
			return err
		}
	}
	if s.answer, err = json.Marshal(report); err != nil {
		return err
	}
	if err := s.print(func(p *sheet) { d.show(p, selected, report) }); err != nil {
		return err
	}
	if len(report.Failed) > 0 {
		return &callError{code: exitFailed, text: fmt.Sprintf("%d of %d were not given back; repeating the command is safe", len(report.Failed), report.Selected)}
	}
	return nil
}

// selection returns the reservations to release.
func (d *drain) selection(s *session) (selected []earmark.Reservation, err error) {
	filters := []earmark.ReservationFilter{{State: earmark.StateHeld}, {State: earmark.StateReview}}
	switch {
	case d.stuck.value != "":
		filters = []earmark.ReservationFilter{{Stuck: true, StuckReason: d.stuck.value}}
	case d.state.value != "":
		filters = []earmark.ReservationFilter{{State: d.state.value}}
	}
	for _, filter := range filters {
		filter.Scope = d.scope
		page, err := collect(s, maxListed, func(cursor string, limit int) (earmark.Page[earmark.Reservation], error) {
			filter.Cursor, filter.Limit = cursor, limit
			if filter.Stuck {
				page, err := s.api.Stuck(s.ctx, filter)
				return page.Page, err
			}
			return s.api.Reservations(s.ctx, filter)
		})
		if err != nil {
			return nil, err
		}
		for _, r := range page.Data {
			old := d.olderThan == 0 || r.CreatedAt.Before(s.last.now().Add(-d.olderThan))
			if r.Open() && !r.Lost && old {
				selected = append(selected, r)
			}
		}
	}
	return selected, nil
}

func totals(reservations []earmark.Reservation) earmark.Amounts {
	sum := earmark.Amounts{}
	for _, r := range reservations {
		for unit, amount := range r.Amounts {
			sum[unit] += amount
		}
	}
	return sum
}

// giveBack releases several at a time. It reports failures at the end. If it is
// interrupted, the releases so far remain.
func (d *drain) giveBack(s *session, selected []earmark.Reservation, by client.By, report *drained) error {
	// The session's own client stores one call at a time.
	api, err := s.client(cliUserAgent)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	progress := s.progress(len(selected))
	group, ctx := errgroup.WithContext(s.ctx)
	group.SetLimit(drainAtOnce)
	for _, r := range selected {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			settled, err := api.GiveBack(ctx, r.ID, by)
			mu.Lock()
			defer mu.Unlock()
			report.count(r.ID, settled, err)
			progress(report)
			return ctx.Err()
		})
	}
	err = group.Wait()
	progress(nil)
	return err
}

func (d *drained) count(id string, settled client.Settled, err error) {
	switch {
	case earmark.ErrorCode(err) == earmark.CodeAlreadySettled:
		d.Settled++
	case err != nil:
		d.Failed = append(d.Failed, drainedFailure{id, err.Error()})
	case settled.Accepted:
		d.Accepted++
	default:
		d.GivenBack++
	}
}

// progress draws a bar on a terminal, and nothing elsewhere; nil ends it.
func (s *session) progress(total int) func(*drained) {
	screen := screenOf(s.cmd.ErrOrStderr())
	if !screen.terminal || s.asJSON {
		return func(*drained) {}
	}
	var drawn time.Time
	return func(d *drained) {
		if d == nil {
			fmt.Fprint(screen.out, "\r"+clearLine)
			return
		}
		done := d.GivenBack + d.Accepted + d.Settled + len(d.Failed)
		if time.Since(drawn) < redrawEvery && done < total {
			return
		}
		drawn = time.Now()
		fmt.Fprintf(screen.out, "\r%s %s of %s, %d failed%s", padRight(bar(percentOf(int64(done), int64(total))), len("100%")*6),
			earmark.FormatAmount(int64(done)), earmark.FormatAmount(int64(total)), len(d.Failed), clearLine)
	}
}

// show prints what would be done, or what was done.
func (d *drain) show(p *sheet, selected []earmark.Reservation, report drained) {
	switch {
	case report.Selected == 0:
		p.line("No open reservation fits; nothing was changed.")
		return
	case report.DryRun:
		reservationTable(selected[:min(len(selected), drainedShown)])(p)
		if more := len(selected) - drainedShown; more > 0 {
			p.line("%s", p.paint(fmt.Sprintf("… and %s more", earmark.FormatAmount(int64(more))), dim))
		}
		p.line("")
		p.line("These %s would be given back: %s. Nothing was changed; --yes does it.", earmark.FormatAmount(int64(report.Selected)), report.Amounts)
		return
	}
	words := []string{fmt.Sprintf("%s given back", earmark.FormatAmount(int64(report.GivenBack)))}
	add := func(n int, what string) {
		if n > 0 {
			words = append(words, fmt.Sprintf("%s %s", earmark.FormatAmount(int64(n)), what))
		}
	}
	add(report.Accepted, "accepted: Postgres is away or has lost them, Temporal keeps them")
	add(report.Settled, "settled by another caller meanwhile")
	add(len(report.Failed), "failed")
	p.line("%s of %s", strings.Join(words, ", "), earmark.FormatAmount(int64(report.Selected)))
	for i, failure := range report.Failed {
		if i == drainedShown {
			p.line("  … and more")
			break
		}
		p.line("  %s  %s", failure.ID, clean(failure.Error))
	}
}
