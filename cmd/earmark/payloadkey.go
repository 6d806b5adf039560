package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/earmark-dev/earmark/internal/payloads"
)

func newPayloadKey() *cobra.Command {
	return &cobra.Command{
		Use:   "payload-key",
		Short: "Make a key that encrypts what Earmark leaves in Temporal",
		Long: `Make a key that encrypts what Earmark leaves in Temporal, and print it as a line for
the file that --payload-keys names. The first key of the file encrypts, and all
decrypt. Whoever has the file can read the payloads; without it nobody can.

To begin while processes run, put the word none on the first line, above the key,
and restart every process; then remove it and restart them again.

To replace a key, add the new one as the second line and restart every process;
then make it the first line and restart them again. Remove the old one when no
history needs it any more.`,
		Example: "  (umask 077; earmark payload-key > payload.keys)\n  earmark serve --payload-keys payload.keys",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), payloads.NewKey())
			return err
		},
	}
}
