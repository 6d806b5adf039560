package card

import (
	"strings"

	"github.com/earmark-dev/earmark"
)

// reasonFlag ends a command that is shown to be pasted. A shell refuses the line until somebody
// has put a reason in the place of <why>, so that pasted unchanged it does nothing.
const reasonFlag = " --reason <why>"

// Remedy returns the command that settles a stuck reservation, or lets it settle
// itself. It is safe whatever the cause: usage that turns up later is still charged.
func Remedy(r *earmark.Reservation, reason earmark.StuckReason) string {
	switch {
	case reason == earmark.StuckPaused:
		return "temporal workflow unpause --workflow-id " + r.WorkflowID + reasonFlag
	case r.Lost:
		return "earmark budget create SCOPE UNIT LIMIT"
	case !r.Open():
		return "earmark show " + r.ID // settled past its workflow: nothing is set aside
	case reason == earmark.StuckOrphan:
		return "earmark adopt " + r.ID + reasonFlag
	case len(r.RejectedUsage) > 0:
		return "earmark " + commitCommand(r.ID, r.RejectedUsage, func(unit string) string { return earmark.FormatAmount(r.RejectedUsage[unit]) })
	}
	return "earmark " + releaseCommand(r.ID)
}

// commitCommand is the command that commits usage in the units of amounts; value gives that of a unit.
func commitCommand(id string, amounts earmark.Amounts, value func(unit string) string) string {
	command := "commit " + id
	for _, unit := range amounts.Units() {
		command += " " + unit + "=" + value(unit)
	}
	return command + reasonFlag
}

func releaseCommand(id string) string { return "release " + id + reasonFlag }

// block is a Markdown block of commands to paste.
func block(commands ...string) string {
	return "```\nearmark " + strings.Join(commands, "\nearmark ") + "\n```\n"
}
