package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/earmark-dev/earmark"
)

// SQLSTATEs that mean something to the ledger, from the manual's appendix A.
const (
	numericValueOutOfRange = "22003"
	invalidParameterValue  = "22023"
	uniqueViolation        = "23505"
)

// retryAfterFault is what callers are told to wait when Postgres is away.
const retryAfterFault = time.Second

// fault turns what pgx returns into an *earmark.Error: unavailable, since the
// outcome of the call is not known or it was rolled back, and may be tried again.
// Errors that are the ledger's own already stay as they are. The SQLSTATE stays
// readable in the chain.
func fault(err error) error {
	if err == nil {
		return nil
	}
	var known *earmark.Error
	if errors.As(err, &known) {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	unavailable := earmark.Errorf(earmark.CodeUnavailable, "Postgres did not answer: %w", err)
	unavailable.RetryAfter = retryAfterFault
	return unavailable
}

func isNoRows(err error) bool { return errors.Is(err, pgx.ErrNoRows) }

// sqlState returns the SQLSTATE in err's chain, "" if there is none.
func sqlState(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}
