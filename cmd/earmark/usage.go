package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
)

func newUsage() *cobra.Command {
	var o options
	var key string
	var quiet bool
	request := earmark.UsageRequest{Amounts: earmark.Amounts{}, Metadata: earmark.Metadata{}}
	cmd := &cobra.Command{
		Use:   "usage SCOPE… --amount UNIT=N --key KEY",
		Short: "Charge usage that has no reservation",
		Long: `Charge usage that has no reservation, on every budget that covers one of the
scopes. Earmark always charges it, even past a limit, because it is spent. The
--key names the usage, so that a repeated command does not charge it twice.`,
		Example:               "  earmark usage acme/ml/u1 --amount tokens=873 --key batch-2026-03-01",
		Args:                  arguments("SCOPE…"),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeArgs(manyArgs, budgetScopes),
		RunE: o.run(func(s *session, args []string) error {
			scopes, err := parseScopes(args)
			if err != nil {
				return err
			}
			request.Scopes = scopes
			s.subject = subject{scopes: scopes, amounts: request.Amounts, key: key, verb: "usage", requireBudget: request.RequireBudget}
			switch {
			case len(request.Amounts) == 0:
				return usageError{fmt.Errorf("--amount is missing: say how much, such as --amount tokens=1200")}
			case key == "":
				return usageError{fmt.Errorf("--key is missing: name this usage, so that it is not charged twice, such as --key batch-2026-03-01")}
			}
			if err := request.Validate(); err != nil {
				return err
			}
			reservation, err := s.api.ChargeUsage(s.ctx, key, request)
			if err != nil {
				return err
			}
			return s.printMade(reservation, quiet)
		}),
	}
	cmd.Flags().Var(amountsFlag(request.Amounts), "amount", "an amount that was used, such as tokens=1200; repeat it for more units (required)")
	requireBudgetFlag(cmd, &request.RequireBudget)
	cmd.Flags().Var(metadataFlag(request.Metadata), "metadata", "a note of your own, such as source=batch; repeat it for more")
	cmd.Flags().StringVar(&key, "key", "", "idempotency `KEY`: names the usage (required)")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the id alone")
	complete(cmd, "amount", budgetedUnits)
	o.flags(cmd)
	return cmd
}
