// Command earmark is the whole product in one binary: the HTTP API, the worker,
// the schema, a stack for one machine, and the operator's commands.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker, see the Makefile.
var version = "dev"

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // the command ran and failed, or an audit found a mismatch
	exitUsage  = 2 // wrong flags or arguments: nothing was done
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

// usageError marks what the caller wrote wrongly.
type usageError struct{ error }

func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(os.Stderr, "earmark:", err)
	var wrong usageError
	if errors.As(err, &wrong) {
		return exitUsage
	}
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "earmark",
		Short:         "Holds budget for AI requests: reserve, commit, release, and never overspend",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArguments,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath())}
	})
	root.AddCommand(newDev(), newServe(), newWorker(), newMigrate(), newAudit(), newHealth())
	return root
}

// noArguments refuses arguments, and says which commands there are.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return usageError{fmt.Errorf("there is no command %q; see `%s --help`", args[0], cmd.CommandPath())}
	}
	return usageError{fmt.Errorf("%s takes no arguments, but got %q", cmd.CommandPath(), args[0])}
}
