package postgres

import (
	"context"
	"errors"
	"slices"
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
	noSuchStatement        = "26000"
	statementExists        = "42P05"
)

// retryAfterFault is the Retry-After while Postgres is away.
const retryAfterFault = time.Second

// fault turns what pgx returns into an *earmark.Error. Mostly it is unavailable: the
// outcome of the call is not known or it was rolled back, and it may be tried
// again. What Postgres refuses in the statement itself is internal: a bug, which
// trying again does not mend. Errors that are the ledger's own already stay as they
// are. The SQLSTATE stays readable in the chain.
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
	var unavailable *earmark.Error
	switch state := sqlState(err); {
	case state == "":
		unavailable = earmark.Errorf(earmark.CodeUnavailable, "Postgres did not answer: %w", err)
	case state == noSuchStatement || state == statementExists: // a pooler gave the session that has it, or lacks it, to another
		unavailable = earmark.Errorf(earmark.CodeUnavailable, "the database URL goes through a transaction pooler, which prepared statements do not survive; "+
			"add default_query_exec_mode=cache_describe to it: %w", err)
	case slices.Contains(bugClasses, state[:2]):
		return earmark.Errorf(earmark.CodeInternal, "Postgres refuses what it was asked: %w", err)
	case slices.Contains(schemaClasses, state[:2]):
		unavailable = earmark.Errorf(earmark.CodeUnavailable, "the database's schema is not what this program needs; run `earmark migrate up`: %w", err)
	default:
		unavailable = earmark.Errorf(earmark.CodeUnavailable, "Postgres could not do it now: %w", err)
	}
	unavailable.RetryAfter = retryAfterFault
	return unavailable
}

// Classes of SQLSTATEs, their first two characters.
var (
	bugClasses    = []string{"21", "22", "23", "39", "P0"} // cardinality, data, constraints, functions, PL/pgSQL
	schemaClasses = []string{"3F", "42"}                   // no such schema, table or function
)

func isNoRows(err error) bool { return errors.Is(err, pgx.ErrNoRows) }

// sqlState returns the SQLSTATE in err's chain, "" if there is none.
func sqlState(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}
