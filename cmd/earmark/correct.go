package main

import (
	"crypto/rand"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
)

func newCorrect() *cobra.Command {
	var o options
	var f byFlags
	var key string
	amounts := earmark.Amounts{}
	cmd := &cobra.Command{
		Use:   "correct ID --amount UNIT=±N --reason WHY",
		Short: "Correct a final charge",
		Long: `Add signed amounts to what was charged: an invoice differs, a batch is refunded,
a model was priced wrong. It works on a reservation that is committed, and on
usage that was charged without a reservation. A negative amount gives back, at
most what was charged; a positive one is charged even past a limit. The windows
that were charged change, also if they have ended.

A --key makes it safe to repeat: the same key and correction of a reservation
apply once. Without --key the command makes a key, and shows it if the outcome
is unknown.`,
		Example: `  earmark correct rsv_k3jd8fh2qz --amount usd_micros=-200 --reason "a refund"
  earmark correct rsv_k3jd8fh2qz --amount usd_micros=1,300 \
    --reason "the invoice of May" --key invoice-2026-05`,
		Args:                  arguments("ID"),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeArgs(1, committedReservations),
		RunE: o.run(func(s *session, args []string) error {
			if len(amounts) == 0 {
				return usageError{fmt.Errorf("--amount is missing: say by how much, such as --amount usd_micros=-200")}
			}
			by, err := f.withReason()
			if err != nil {
				return err
			}
			request := earmark.CorrectionRequest{Amounts: amounts, Reason: by.Reason, Operator: by.Operator}
			if err := request.Validate(); err != nil {
				return err
			}
			id, err := s.reservationID(args[0])
			if err != nil {
				return err
			}
			if key == "" {
				key = "cli-" + rand.Text()
			}
			s.subject = subject{key: key, verb: "correct " + id}
			reservation, err := s.api.Correct(s.ctx, id, key, request)
			if err != nil {
				return err
			}
			if s.last.repeated() {
				s.note("An earlier call with this key did it; nothing more was corrected.")
			}
			return s.print(func(p *sheet) {
				p.line("%s: %s on %s; %s now", p.paint("Corrected", green), amounts, clean(strings.Join(displayScopes(reservation.Scopes), ", ")),
					reservation.CorrectedUsage())
				p.fields(outcomeFields(p, reservation)...)
			})
		}),
	}
	cmd.Flags().Var(correctionFlag(amounts), "amount", "what to add to the charge, such as usd_micros=-200; repeat it for more units (required)")
	cmd.Flags().StringVar(&key, "key", "", "idempotency `KEY`: names the correction of this reservation, so that it can be repeated")
	f.flags(cmd)
	o.flags(cmd)
	return cmd
}

// correctionFlag is amountsFlag with signs.
type correctionFlag earmark.Amounts

func (f correctionFlag) Set(text string) error {
	unit, number, given := strings.Cut(text, "=")
	number, negative := strings.CutPrefix(number, "-")
	if given {
		text = unit + "=" + number
	}
	err := addAmount(earmark.Amounts(f), text)
	if err == nil && negative {
		f[unit] = -f[unit]
	}
	return err
}
func (f correctionFlag) Type() string   { return "UNIT=±N" }
func (f correctionFlag) String() string { return "" }
