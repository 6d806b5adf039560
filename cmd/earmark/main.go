// Command earmark is the whole product in one binary: the HTTP API, the worker,
// the schema, a stack for one machine, and the operator's commands.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // the command ran and failed, or an audit found a mismatch
	exitUsage  = 2 // wrong flags or arguments; nothing was done

	// Of the commands that call a server.
	exitDenied   = 3 // the request does not fit into a budget
	exitNotFound = 4 // there is no such budget, reservation, tenant or key, or no budget covers a scope
	exitUnknown  = 5 // no answer, or one without a decision: the outcome is not known
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// usageError is an error in flags or arguments.
type usageError struct{ error }

func run(ctx context.Context, args []string) int {
	root := newRoot() //nolint:contextcheck // a command gets its context when it runs
	return execute(ctx, root, args)
}

func execute(ctx context.Context, root *cobra.Command, args []string) int {
	out := &notedOutput{Writer: root.OutOrStdout()}
	root.SetOut(out)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	// A wrong flag ends the parsing, perhaps before --json.
	if asJSON, none := cmd.Flags().GetBool("json"); !out.written && none == nil && (asJSON || slices.Contains(args, "--json")) {
		printProblem(out, err)
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(root.ErrOrStderr(), "earmark:", text)
	}
	var wrong usageError
	var call *callError
	switch {
	case errors.As(err, &wrong):
		return exitUsage
	case errors.As(err, &call):
		return call.code
	}
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "earmark",
		Short:         "Reserves, settles and audits spending limits for AI requests",
		Version:       fullVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArguments,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var unknown *pflag.NotExistError
		if errors.As(err, &unknown) && unknown.GetSpecifiedName() >= "0" && unknown.GetSpecifiedName() < ":" {
			return usageError{fmt.Errorf("write -- before a negative amount, after all flags; see `%s --help`", cmd.CommandPath())}
		}
		return usageError{fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath())}
	})
	wrapHelp(root)
	addGroup(root, "Run it:", newDev(), newServe(), newWorker(), newGateway(), newMigrate(), newPayloadKey())
	addGroup(root, "Budgets and reservations:", newBudget(), newOverride(), newGrant(), newReserve(), newCommit(), newRelease(), newExtend(),
		newShow(), newList(), newUsage(), newCorrect(), newDecide(), newEntries(), newEvents(), newWebhook())
	addGroup(root, "Look after it:", newStuck(), newAdopt(), newDrain(), newPrune())
	addGroup(root, "Tenants and keys:", newTenant(), newKey(), newAuditLog())
	addGroup(root, "Prices of models:", newPrice())
	addGroup(root, "Check it:", newAudit(), newReconcileInvoice(), newHealth(), newReplay(), newDemo())
	return root
}

// addGroup adds commands under a title in the help.
func addGroup(root *cobra.Command, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: title, Title: title})
	for _, cmd := range commands {
		cmd.GroupID = title
		root.AddCommand(cmd)
	}
}

// noArguments refuses arguments and lists the commands.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		meant := ""
		cmd.SuggestionsMinimumDistance = 2 // letters apart
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			meant = fmt.Sprintf(" (%s?)", strings.Join(near, " or "))
		}
		return usageError{fmt.Errorf("there is no command %q%s; see `%s --help`", args[0], meant, cmd.CommandPath())}
	}
	return usageError{fmt.Errorf("%s takes no arguments, but got %q", cmd.CommandPath(), args[0])}
}
