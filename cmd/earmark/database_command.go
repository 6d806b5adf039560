package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/postgres"
)

// databaseCommand is a command that works on the database directly, not through the API.
type databaseCommand struct {
	settings
	byFlags
	changes bool // it takes the flags that say who and why
	asJSON  bool
}

// databaseCall is the work of a command on the ledger, after its arguments are checked.
type databaseCall func(l *postgres.Ledger, by earmark.Actor, reason string) error

// flags defines the flags of a command that changes something.
func (d *databaseCommand) flags(cmd *cobra.Command) {
	d.changes = true
	d.flagsFor(cmd, "the audit log")
	d.readFlags(cmd)
}

func (d *databaseCommand) readFlags(cmd *cobra.Command) {
	d.databaseFlags(cmd.Flags())
	cmd.Flags().BoolVar(&d.asJSON, "json", false, "print JSON")
}

// run checks the arguments with prepare and then makes the call that prepare returns.
func (d *databaseCommand) run(prepare func(context.Context, *cobra.Command, []string) (databaseCall, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		call, err := prepare(cmd.Context(), cmd, args)
		if err != nil {
			return explainDatabase(cmd, err)
		}
		var by client.By
		if d.changes {
			if by, err = d.by(); err != nil {
				return explainDatabase(cmd, err)
			}
		}
		return withDatabase(&d.settings, func(_ context.Context, _ *cobra.Command, pool *pgxpool.Pool) error {
			return explainDatabase(cmd, call(postgres.New(pool), earmark.OperatorActor(by.Operator), by.Reason))
		})(cmd, args)
	}
}

// explainDatabase turns an error of the ledger into one with an exit code and the name of
// the wrong flag.
func explainDatabase(cmd *cobra.Command, err error) error {
	e, ok := asAPIError(err)
	if !ok {
		return err
	}
	return &callError{code: exitCodes(e), text: inFlagWords(cmd, e), err: err}
}

// print prints a document as JSON, or as its view shows it.
func (d *databaseCommand) print(cmd *cobra.Command, document any, shown view) error {
	if d.asJSON {
		return printJSON(cmd.OutOrStdout(), document)
	}
	p := &sheet{screen: screenOf(cmd.OutOrStdout()), now: time.Now()}
	shown(p)
	return p.flush()
}

// words is a sheet on standard error, beside what is printed for programs. With --json it shows nothing.
func (d *databaseCommand) words(cmd *cobra.Command) *sheet {
	if d.asJSON {
		return &sheet{screen: screen{out: io.Discard}, now: time.Now()}
	}
	return &sheet{screen: screenOf(cmd.ErrOrStderr()), now: time.Now()}
}

// requireReason refuses a change without a reason, which the audit log needs.
func (d *databaseCommand) requireReason() error {
	if d.reason == "" {
		return usageError{errors.New(`--reason is missing: say why, for the audit log, such as --reason "it was in a log"`)}
	}
	return nil
}
