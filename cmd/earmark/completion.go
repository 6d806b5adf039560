package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
)

// Bounds of a completion: one that is slow or long does not help.
const (
	completionTimeout = time.Second
	completionLimit   = 100
)

// manyArgs means that every argument is completed in the same way.
const manyArgs = 1 << 10

// completer asks a server for the possible values of an argument. If the server does not
// answer, there are none.
type completer func(s *session) ([]cobra.Completion, error)

type completionFunc = func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective)

// complete completes a flag by asking the server.
func complete(cmd *cobra.Command, flag string, ask completer) {
	_ = cmd.RegisterFlagCompletionFunc(flag, completeArgs(manyArgs, ask)) // fails for a flag that does not exist
}

// completeWords completes a flag from a fixed list of words.
func completeWords(cmd *cobra.Command, flag string, words []string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// completeNothing offers no words, and no files, for flags.
func completeNothing(cmd *cobra.Command, flags ...string) {
	for _, flag := range flags {
		completeWords(cmd, flag, nil)
	}
}

// completeArgs completes the first count arguments by asking the server.
func completeArgs(count int, ask completer) completionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) >= count {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		to, err := connectionOf(cmd)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		s, err := (&options{connection: to}).open(cmd, client.WithMaxAttempts(1))
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		s.ctx = ctx
		completions, err := ask(s)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		fitting := slices.DeleteFunc(completions, func(c cobra.Completion) bool { return !strings.HasPrefix(c, begun) })
		directive := cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
		if len(fitting) > 0 && strings.HasSuffix(fitting[0], "=") {
			directive |= cobra.ShellCompDirectiveNoSpace
		}
		return fitting, directive
	}
}

// openReservations returns the reservations that hold amounts.
func openReservations(s *session) ([]cobra.Completion, error) {
	held, err := reservationIDs(s, earmark.StateHeld)
	if err != nil {
		return nil, err
	}
	review, err := reservationIDs(s, earmark.StateReview)
	return append(held, review...), err
}

func committedReservations(s *session) ([]cobra.Completion, error) {
	return reservationIDs(s, earmark.StateCommitted)
}

func anyReservations(s *session) ([]cobra.Completion, error) { return reservationIDs(s, "") }

func reservationIDs(s *session, state earmark.State) ([]cobra.Completion, error) {
	page, err := s.api.Reservations(s.ctx, earmark.ReservationFilter{State: state, Limit: completionLimit})
	var ids []cobra.Completion
	for _, r := range page.Data {
		ids = append(ids, cobra.CompletionWithDesc(r.ID, strings.Join([]string{string(r.State), r.Amounts.String(), strings.Join(displayScopes(r.Scopes), " ")}, ", ")))
	}
	return ids, err
}

func budgetIDs(s *session) ([]cobra.Completion, error) {
	page, err := s.api.Budgets(s.ctx, earmark.BudgetFilter{Limit: completionLimit})
	var ids []cobra.Completion
	for _, b := range page.Data {
		ids = append(ids, cobra.CompletionWithDesc(b.ID, limitWords(&b)+" on "+earmark.DisplayScope(b.Scope)))
	}
	return ids, err
}

func budgetScopes(s *session) ([]cobra.Completion, error) {
	return fromBudgets(s, func(b earmark.Budget) string {
		if b.Template { // no request is on its scope
			return ""
		}
		return b.Scope
	})
}

// budgetedUnits returns the beginnings of amounts.
func budgetedUnits(s *session) ([]cobra.Completion, error) {
	return fromBudgets(s, func(b earmark.Budget) string { return b.Unit + "=" })
}

func fromBudgets(s *session, word func(earmark.Budget) string) ([]cobra.Completion, error) {
	page, err := s.api.Budgets(s.ctx, earmark.BudgetFilter{Limit: earmark.MaxPageSize})
	words := make(map[string]bool)
	for _, b := range page.Data {
		words[word(b)] = true
	}
	delete(words, "")
	return sortedKeys(words), err
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
