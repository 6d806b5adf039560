package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth bounds the lines of the help, because longer lines are hard to read.
const helpWidth = 80

func init() {
	cobra.EnableCommandSorting = false // the help lists commands in the order of a request's life
	cobra.AddTemplateFunc("wrapped", func(flags *pflag.FlagSet) string { return flags.FlagUsagesWrapped(helpWidth) })
}

// wrapHelp wraps the descriptions of flags.
func wrapHelp(root *cobra.Command) {
	template := root.UsageTemplate()
	for _, flags := range []string{"LocalFlags", "InheritedFlags"} {
		template = strings.ReplaceAll(template, "{{."+flags+".FlagUsages", "{{wrapped ."+flags)
	}
	template = strings.ReplaceAll(template, " for more information about a command.", " for more.")
	root.SetUsageTemplate(template)
}
