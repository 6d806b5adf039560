package main

import (
	"fmt"
	"strings"

	"github.com/earmark-dev/earmark"
)

// Ids are long, and tables on a terminal show only their beginning. The beginning is enough
// to name one.
const (
	idPrefixLength = 8
	// searched is how many of the newest reservations or budgets are searched for an id
	// that begins as typed. Two of them begin alike with a chance of 1 in 10^8.
	searched = 5_000
)

const (
	reservationPrefix = "rsv_"
	budgetPrefix      = "bud_"
)

// reservationID returns the whole id for what was typed.
func (s *session) reservationID(typed string) (string, error) {
	if strings.HasPrefix(typed, budgetPrefix) {
		return "", usageError{fmt.Errorf("%s is a budget's id, not a reservation's; `earmark budget show` shows it", clipped(typed))}
	}
	if earmark.IsReservationID(typed) {
		return typed, nil
	}
	return s.wholeID(typed, reservationPrefix, "reservation", func(cursor string) (ids []string, next string, err error) {
		page, err := s.api.Reservations(s.ctx, earmark.ReservationFilter{Cursor: cursor, Limit: earmark.MaxPageSize})
		for _, r := range page.Data {
			ids = append(ids, r.ID)
		}
		return ids, page.NextCursor, err
	})
}

// budgetID returns the whole id for what was typed.
func (s *session) budgetID(typed string) (string, error) {
	if strings.HasPrefix(typed, reservationPrefix) {
		return "", usageError{fmt.Errorf("%s is a reservation's id, not a budget's; `earmark show` shows it", clipped(typed))}
	}
	if earmark.IsBudgetID(typed) {
		return typed, nil
	}
	return s.wholeID(typed, budgetPrefix, "budget", func(cursor string) (ids []string, next string, err error) {
		page, err := s.api.Budgets(s.ctx, earmark.BudgetFilter{Cursor: cursor, Limit: earmark.MaxPageSize})
		for _, b := range page.Data {
			ids = append(ids, b.ID)
		}
		return ids, page.NextCursor, err
	})
}

// wholeID returns the one id that begins as typed.
func (s *session) wholeID(typed, prefix, noun string, list func(cursor string) (ids []string, next string, err error)) (string, error) {
	beginning := strings.TrimRight(typed, "….")
	if !strings.HasPrefix(beginning, prefix) || len(beginning) < len(prefix)+idPrefixLength {
		return "", usageError{fmt.Errorf("%q is not the id of a %s: give %s and at least %d characters after it", clipped(typed), noun, prefix, idPrefixLength)}
	}
	var found []string
	cursor, seen := "", 0
	for {
		ids, next, err := list(cursor)
		if err != nil {
			return "", err
		}
		for _, id := range ids {
			if strings.HasPrefix(id, beginning) {
				found = append(found, id)
			}
		}
		seen += len(ids)
		if next == "" || seen >= searched {
			break
		}
		cursor = next
	}
	switch len(found) {
	case 0:
		return "", &callError{code: exitNotFound, text: fmt.Sprintf("no %s begins with %s among the newest %s; give its whole id", noun, clipped(beginning), earmark.FormatAmount(searched))}
	case 1:
		return found[0], nil
	}
	return "", usageError{fmt.Errorf("several ids begin with %s: %s", beginning, strings.Join(found, ", "))}
}
