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

// SQLSTATEs that the ledger distinguishes, from appendix A of the manual.
const (
	numericValueOutOfRange = "22003"
	invalidParameterValue  = "22023"
	uniqueViolation        = "23505"
	noSuchStatement        = "26000"
	statementExists        = "42P05"
	deadlockDetected       = "40P01"
	notAllowed             = "42501"
	lockNotAvailable       = "55P03"
)

// retryAfterFault is the Retry-After while Postgres is away.
const retryAfterFault = time.Second

// fault turns an error of pgx into an *earmark.Error. Most errors are CodeUnavailable: the
// outcome is unknown or the call was rolled back, and the caller may repeat it. If Postgres
// refuses the statement itself, that is CodeInternal: a bug, which a retry does not fix.
// The ledger's own errors stay unchanged. The SQLSTATE stays in the chain.
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
	case state == noSuchStatement || state == statementExists: // a pooler gave the session to another caller
		unavailable = earmark.Errorf(earmark.CodeUnavailable, "the database URL goes through a transaction pooler, which prepared statements do not survive; "+
			"add default_query_exec_mode=cache_describe to it: %w", err)
	case slices.Contains(bugClasses, state[:2]):
		return earmark.Errorf(earmark.CodeInternal, "Postgres refuses what it was asked: %w", err)
	case state == notAllowed:
		unavailable = earmark.Errorf(earmark.CodeUnavailable, "the database account may not do this; an account of `serve` and `worker` needs the role %s, "+
			"and `migrate`, `tenant` and `prune` need the schema's owner: %w", AppRole, err)
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
