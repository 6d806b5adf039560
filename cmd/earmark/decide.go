package main

import (
	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
)

func newDecide() *cobra.Command {
	var o options
	var f requestFlags
	cmd := &cobra.Command{
		Use:   "decide SCOPE…",
		Short: "Ask whether a request would be admitted now",
		Long: `Ask whether Earmark would admit a request now, without reserving anything. The
answer may change a moment later. Exits with 3 if the answer is no.`,
		Example:           "  earmark decide acme/ml/u1 --amount tokens=600",
		Args:              arguments("SCOPE…"),
		ValidArgsFunction: completeArgs(manyArgs, budgetScopes),
		RunE: o.run(func(s *session, scopes []string) error {
			request, err := f.request(s, scopes)
			if err != nil {
				return err
			}
			decision, err := s.api.Decide(s.ctx, request)
			if err != nil {
				return err
			}
			if err := s.print(decisionView(request, decision)); err != nil {
				return err
			}
			if !decision.Admitted {
				return errDenied
			}
			return nil
		}),
	}
	f.flags(cmd)
	o.flags(cmd)
	return cmd
}

func decisionView(request earmark.ReservationRequest, decision *earmark.Decision) view {
	return func(p *sheet) {
		if decision.Admitted {
			p.line("%s: %s would be admitted now.", p.paint("Yes", green), request.Amounts)
			return
		}
		p.line("%s: %s would not be admitted now.", p.paint("No", red), request.Amounts)
		denial(p, *decision)
	}
}
