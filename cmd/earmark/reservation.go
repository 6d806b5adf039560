package main

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
)

var (
	states   = []earmark.State{earmark.StateHeld, earmark.StateCommitted, earmark.StateReleased, earmark.StateExpired, earmark.StateReview}
	policies = []earmark.OnExpiry{earmark.OnExpiryRelease, earmark.OnExpiryCommit, earmark.OnExpiryReview}
)

// requestFlags are the flags of reserve and decide.
type requestFlags struct {
	amounts  earmark.Amounts
	metadata earmark.Metadata
	ttl      ttlFlag
	onExpiry choiceFlag[earmark.OnExpiry]
	anyScope bool
	own      bool
}

func (f *requestFlags) flags(cmd *cobra.Command) {
	f.amounts, f.metadata = earmark.Amounts{}, earmark.Metadata{}
	f.ttl = ttlFlag(earmark.DefaultTTL)
	f.onExpiry = choiceFlag[earmark.OnExpiry]{earmark.OnExpiryRelease, "POLICY", policies}
	cmd.Flags().Var(amountsFlag(f.amounts), "amount", "an amount to set aside, such as tokens=1200; repeat it for more units (required)")
	cmd.Flags().Var(&f.ttl, "ttl", "how long to hold it: 90s, 5m, or a number of seconds")
	f.onExpiry.define(cmd, "on-expiry", "give it back, charge it, or keep it for an operator when that has passed")
	cmd.Flags().BoolVar(&f.anyScope, "any-scope", false, "admit a unit that a budget on one of several scopes counts; on the others it is unlimited then")
	requireBudgetFlag(cmd, &f.own)
	cmd.Flags().Var(metadataFlag(f.metadata), "metadata", "a note of your own, such as model=large; repeat it for more")
	complete(cmd, "amount", budgetedUnits)
}

func requireBudgetFlag(cmd *cobra.Command, own *bool) {
	cmd.Flags().BoolVar(own, "require-budget", false, "refuse a scope without a budget of its own, although one above it would limit it")
}

// request checks the arguments before anything is sent.
func (f *requestFlags) request(s *session, args []string) (earmark.ReservationRequest, error) {
	scopes, err := parseScopes(args)
	if err != nil {
		return earmark.ReservationRequest{}, err
	}
	s.subject.scopes, s.subject.amounts = scopes, f.amounts
	request := earmark.ReservationRequest{
		Scopes: scopes, Amounts: f.amounts, TTLSeconds: int64(time.Duration(f.ttl) / time.Second), OnExpiry: f.onExpiry.value, Metadata: f.metadata,
	}.WithDefaults()
	request.RequireBudget, s.subject.requireBudget = f.own, f.own
	if f.anyScope {
		request.Coverage = earmark.CoverageAnyScope
	}
	if len(f.amounts) == 0 {
		return request, usageError{fmt.Errorf("--amount is missing: say how much, such as --amount tokens=1200")}
	}
	return request, request.Validate()
}

func newReserve() *cobra.Command {
	var o options
	var f requestFlags
	var key string
	var quiet bool
	cmd := &cobra.Command{
		Use:   "reserve SCOPE…",
		Short: "Set amounts aside for one request",
		Long: `Set amounts aside for one request, on every budget that covers one of the
scopes.

A --key makes it safe to repeat: the same key and request hold once. Without
--key the command makes a key, and shows it if the outcome is unknown.`,
		Example: `  earmark reserve acme/ml/u1 --amount tokens=600
  earmark reserve acme/ml/u1 --amount tokens=1,200 --amount requests=1 \
    --ttl 2m --on-expiry review --metadata model=large
  id=$(earmark reserve acme --amount tokens=600 --key chat-7f3a-turn-12 --quiet)`,
		Args:              arguments("SCOPE…"),
		ValidArgsFunction: completeArgs(manyArgs, budgetScopes),
		RunE: o.run(func(s *session, scopes []string) error {
			request, err := f.request(s, scopes)
			if err != nil {
				return err
			}
			if key == "" {
				key = "cli-" + rand.Text()
			}
			s.subject.key = key
			reservation, err := s.api.Reserve(s.ctx, key, request)
			if err != nil {
				return err
			}
			return s.printMade(reservation, quiet)
		}),
	}
	f.flags(cmd)
	cmd.Flags().StringVar(&key, "key", "", "idempotency `KEY`: names the request, so that it can be repeated")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the id alone")
	o.flags(cmd)
	return cmd
}

// printMade prints the reservation of a call with a key, from this call or an earlier one.
func (s *session) printMade(r *earmark.Reservation, quiet bool) error {
	if quiet && !s.asJSON {
		return s.print(func(p *sheet) { p.line("%s", r.ID) })
	}
	if s.last.repeated() {
		s.note("An earlier call with this key did it; nothing more was set aside or charged.")
	}
	return s.print(func(p *sheet) { outcome(p, r) })
}

// outcome prints the result of a transition.
func outcome(p *sheet, r *earmark.Reservation) {
	p.line("%s: %s", p.paint(strings.ToUpper(string(r.State[:1]))+string(r.State[1:]), styleOf(r)), clean(outcomeWords(r)))
	p.fields(outcomeFields(p, r)...)
}

func outcomeFields(p *sheet, r *earmark.Reservation) []field {
	fields := []field{{"ID", r.ID, bold}}
	if r.State == earmark.StateHeld {
		fields = append(fields, field{"Expires", expiryWords(p, r), plain})
	}
	if n := notes(r); n != "" {
		fields = append(fields, field{"Notes", n, styleOf(r)})
	}
	return append(fields,
		field{"Correction", explained(r.Correction, "added to the usage"), plain},
		field{"Overage", explained(r.Overage, "more than was reserved"), plain},
		field{"Shortfall", explained(r.Shortfall, "not charged, as the budget's policy says"), red},
	)
}

func outcomeWords(r *earmark.Reservation) string {
	on := " on " + strings.Join(displayScopes(r.Scopes), ", ")
	switch r.State {
	case earmark.StateHeld:
		return r.Amounts.String() + on
	case earmark.StateCommitted:
		words := r.Usage.String() + on
		if rest := unused(r); len(rest) > 0 {
			words += "; " + rest.String() + " given back"
		}
		return words
	case earmark.StateReleased:
		return r.Amounts.String() + on + " given back"
	case earmark.StateExpired:
		return r.Amounts.String() + on + " given back; usage that arrives later is still charged"
	case earmark.StateReview:
	}
	return r.Amounts.String() + on + " stays set aside for an operator"
}

// unused returns the reserved amounts that were not used.
func unused(r *earmark.Reservation) earmark.Amounts {
	rest := earmark.Amounts{}
	for unit, amount := range r.Amounts {
		if left := amount - r.Usage[unit]; left > 0 && r.ExpiresAt != nil && !r.Late {
			rest[unit] = left
		}
	}
	return rest
}

func newCommit() *cobra.Command {
	var o options
	var f byFlags
	flagged := earmark.Amounts{}
	cmd := &cobra.Command{
		Use:   "commit ID UNIT=N…",
		Short: "Charge what a request used, and give the rest back",
		Long: `Charge what a request used, in exactly the reserved units, and give the rest
back. A repeated commit with the same usage changes nothing.`,
		Example: `  earmark commit rsv_k3jd8fh2qz tokens=450
  earmark commit rsv_k3jd8fh2qz --usage tokens=450 --reason "the bill says so"`,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("usage") {
				return arguments("ID")(cmd, args)
			}
			return arguments("ID", "UNIT=N…")(cmd, args)
		},
		ValidArgsFunction: completeArgs(1, openReservations),
		RunE: o.run(func(s *session, args []string) error {
			by, err := f.by()
			if err != nil {
				return err
			}
			usage := flagged
			for _, arg := range args[1:] {
				if err := addAmount(usage, arg); err != nil {
					return usageError{err}
				}
			}
			id, err := s.reservationID(args[0])
			if err != nil {
				return err
			}
			settled, err := s.api.CommitBy(s.ctx, id, usage, by)
			return s.printSettled(id, settled, err)
		}),
	}
	cmd.Flags().Var(amountsFlag(flagged), "usage", "what was used, such as tokens=450, in the place of the arguments; repeat it for more units")
	f.flags(cmd)
	o.flags(cmd)
	return cmd
}

func newRelease() *cobra.Command {
	var o options
	var f byFlags
	var final bool
	cmd := &cobra.Command{
		Use:   "release ID --reason WHY",
		Short: "Give everything back",
		Long: `Give everything back in the caller's place. The caller has not said that nothing
was spent, so Earmark still charges usage that arrives later, as late.

With --final it is the caller's own release: nothing was spent, and that is
final. Charge usage that arrives later with earmark usage.`,
		Example: `  earmark release rsv_k3jd8fh2qz --reason "its process died"
  earmark release rsv_k3jd8fh2qz --final --reason "the model refused"`,
		DisableFlagsInUseLine: true,
		Args:                  arguments("ID"),
		ValidArgsFunction:     completeArgs(1, openReservations),
		RunE: o.run(func(s *session, args []string) error {
			by, err := f.by()
			if err == nil && !final {
				by, err = f.withReason()
			}
			if err != nil {
				return err
			}
			id, err := s.reservationID(args[0])
			if err != nil {
				return err
			}
			if final {
				settled, err := s.api.Release(s.ctx, id, by.Reason)
				return s.printSettled(id, settled, err)
			}
			settled, err := s.api.GiveBack(s.ctx, id, by)
			return s.printSettled(id, settled, err)
		}),
	}
	cmd.Flags().BoolVar(&final, "final", false, "nothing was spent: usage that arrives later is not charged")
	f.flags(cmd)
	o.flags(cmd)
	return cmd
}

// printSettled prints the result of a commit or a release.
func (s *session) printSettled(id string, settled client.Settled, err error) error {
	switch {
	case err != nil:
		return err
	case settled.Accepted:
		return s.print(func(p *sheet) {
			p.line("%s: Postgres is away, or has lost the reservation. Temporal keeps this durably, and its", p.paint("Accepted", yellow))
			p.line("workflow applies it; repeating the command is safe. See whether it has landed:")
			p.line("  earmark show %s", id)
		})
	}
	return s.print(func(p *sheet) { outcome(p, settled.Reservation) })
}

func newExtend() *cobra.Command {
	var o options
	var f byFlags
	var ttl ttlFlag
	cmd := &cobra.Command{
		Use:   "extend ID --ttl DURATION",
		Short: "Hold a reservation for longer",
		Long: `Extend the lease to --ttl from now, if that is later, and at most to 7 days
after the reservation was created.`,
		Example:               "  earmark extend rsv_k3jd8fh2qz --ttl 10m",
		Args:                  arguments("ID"),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeArgs(1, openReservations),
		RunE: o.run(func(s *session, args []string) error {
			if ttl == 0 {
				return usageError{fmt.Errorf("--ttl is missing: say how long from now, such as --ttl 10m")}
			}
			by, err := f.by()
			if err != nil {
				return err
			}
			id, err := s.reservationID(args[0])
			if err != nil {
				return err
			}
			reservation, err := s.api.ExtendBy(s.ctx, id, time.Duration(ttl), by)
			if err != nil {
				return err
			}
			return s.print(func(p *sheet) { outcome(p, reservation) })
		}),
	}
	cmd.Flags().Var(&ttl, "ttl", "how long from now: 90s, 10m, or a number of seconds (required)")
	f.flags(cmd)
	o.flags(cmd)
	return cmd
}

func newShow() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:               "show ID",
		Short:             "Show a reservation, its budgets and its workflow",
		Example:           "  earmark show rsv_k3jd8fh2qz\n  earmark show rsv_k3jd8fh2qz --watch",
		Args:              arguments("ID"),
		ValidArgsFunction: completeArgs(1, anyReservations),
		RunE: o.run(func(s *session, args []string) error {
			id, err := s.reservationID(args[0])
			if err != nil {
				return err
			}
			return s.present(func() (view, error) {
				reservation, err := s.api.Reservation(s.ctx, id)
				if err != nil {
					return nil, err
				}
				return reservationDetails(reservation), nil
			})
		}),
	}
	o.flags(cmd)
	o.watchFlag(cmd)
	return cmd
}

func newList() *cobra.Command {
	var o options
	var filter earmark.ReservationFilter
	var limit int
	state := choiceFlag[earmark.State]{noun: "STATE", allowed: states}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List reservations, newest first",
		Long: `List reservations, newest first. A narrow terminal shows short ids, which other
commands accept. A file or a pipe gets everything in full.`,
		Example: `  earmark list --state review
  earmark list --scope acme/ml --overdue
  earmark list --state held --watch`,
		Args: noArguments,
		RunE: o.run(func(s *session, _ []string) error {
			if err := checkLimit(limit); err != nil {
				return err
			}
			filter.State = state.value
			return s.present(func() (view, error) {
				page, err := collect(s, limit, func(cursor string, limit int) (earmark.Page[earmark.Reservation], error) {
					filter.Cursor, filter.Limit = cursor, limit
					return s.api.Reservations(s.ctx, filter)
				})
				if err != nil {
					return nil, err
				}
				return withMore(reservationTable(page.Data), page.NextCursor, limit), nil
			})
		}),
	}
	state.define(cmd, "state", "only reservations in this state")
	cmd.Flags().Var((*scopeFlag)(&filter.Scope), "scope", "only reservations with a `SCOPE` at or under this one")
	cmd.Flags().BoolVar(&filter.Overdue, "overdue", false, "only held ones past their expiry")
	cmd.Flags().BoolVar(&filter.Orphan, "orphan", false, "only held ones that no open workflow was found to guard")
	limitFlag(cmd, &limit, earmark.DefaultPageSize)
	complete(cmd, "scope", budgetScopes)
	o.flags(cmd)
	o.watchFlag(cmd)
	return cmd
}

// withMore says on a terminal that the list continues.
func withMore(list view, nextCursor string, limit int) view {
	return func(p *sheet) {
		list(p)
		if nextCursor != "" && p.terminal {
			p.line("%s", p.paint(fmt.Sprintf("There are more than %s; see them with --limit.", earmark.FormatAmount(int64(limit))), dim))
		}
	}
}
