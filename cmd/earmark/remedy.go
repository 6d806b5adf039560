package main

import (
	"cmp"
	"fmt"
	"os"
	"os/user"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
)

// byFlags are the operator and the reason of a settlement.
type byFlags struct{ operator, reason string }

func (f *byFlags) flags(cmd *cobra.Command) { f.flagsFor(cmd, "the journal") }

// flagsFor is flags where another record than the journal keeps them.
func (f *byFlags) flagsFor(cmd *cobra.Command, record string) {
	cmd.Flags().StringVar(&f.reason, "reason", "", "`WHY`, for "+record)
	cmd.Flags().StringVar(&f.operator, "as", "", "the `NAME` that "+record+" names beside it (default: the user of this machine)")
}

// by returns both after checking them, before anything is sent.
func (f *byFlags) by() (client.By, error) {
	by := client.By{Operator: f.operator, Reason: f.reason}
	if by.Operator == "" {
		by.Operator = thisUser()
	}
	return by, cmp.Or(earmark.ValidateOperator(by.Operator), earmark.ValidateReason(by.Reason))
}

// withReason is by for a change that needs a reason in the journal.
func (f *byFlags) withReason() (client.By, error) {
	if f.reason == "" {
		return client.By{}, usageError{fmt.Errorf(`--reason is missing: say why, for the journal, such as --reason "its process died"`)}
	}
	return f.by()
}

func thisUser() string {
	if name := os.Getenv("USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "unknown"
}

func newAdopt() *cobra.Command {
	var o options
	var f byFlags
	cmd := &cobra.Command{
		Use:   "adopt ID --reason WHY",
		Short: "Start a new workflow for a reservation that lost its own",
		Long: `Start a new workflow for an open reservation whose workflow was terminated, deleted
or lost. The reconciler does the same within minutes; this does it now. A
reservation that has an open workflow keeps it.`,
		Example:               `  earmark adopt rsv_k3jd8fh2qz --reason "terminated by mistake"`,
		Args:                  arguments("ID"),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeArgs(1, openReservations),
		RunE: o.run(func(s *session, args []string) error {
			by, err := f.withReason()
			if err != nil {
				return err
			}
			id, err := s.reservationID(args[0])
			if err != nil {
				return err
			}
			reservation, err := s.api.Adopt(s.ctx, id, by)
			if err != nil {
				return err
			}
			return s.print(func(p *sheet) {
				p.line("%s: an open workflow guards it", p.paint("Guarded", green))
				p.fields(field{"ID", reservation.ID, bold}, field{"Workflow", orElse(reservation.UIURL, reservation.WorkflowID), plain},
					field{"Expires", expiryWords(p, reservation), plain})
			})
		}),
	}
	f.flags(cmd)
	o.flags(cmd)
	return cmd
}
