package card

import (
	"strings"

	"github.com/earmark-dev/earmark"
)

// reasonFlag ends a command that a person pastes. The shell refuses the line until the
// person has replaced <why>, so an unchanged line does nothing.
const reasonFlag = " --reason <why>"

// Remedy returns the command that settles a stuck reservation or lets it settle. It is safe
// whatever the cause: usage that arrives later is still charged.
func Remedy(r *earmark.Reservation, reason earmark.StuckReason) string {
	switch {
	case reason == earmark.StuckPaused:
		return "temporal workflow unpause --workflow-id " + r.WorkflowID + reasonFlag
	case r.Lost:
		return "earmark budget create SCOPE UNIT LIMIT"
	case !r.Open():
		return "earmark show " + r.ID // already settled: it holds nothing
	case reason == earmark.StuckOrphan:
		return "earmark adopt " + r.ID + reasonFlag
	case len(r.RejectedUsage) > 0:
		return "earmark " + commitCommand(r.ID, r.RejectedUsage, func(unit string) string { return earmark.FormatAmount(r.RejectedUsage[unit]) })
	}
	return "earmark " + releaseCommand(r.ID)
}

// UnpauseActivity returns the command that lets a paused activity continue. The shell refuses it until the person has
// replaced <you>.
func UnpauseActivity(workflowID, activityID string) string {
	return "temporal activity unpause --workflow-id " + workflowID + " --activity-id " + activityID + " --identity <you>"
}

// commitCommand returns the command that commits usage in the units of amounts; value
// returns the amount of a unit.
func commitCommand(id string, amounts earmark.Amounts, value func(unit string) string) string {
	command := "commit " + id
	for _, unit := range amounts.Units() {
		command += " " + unit + "=" + value(unit)
	}
	return command + reasonFlag
}

func releaseCommand(id string) string { return "release " + id + reasonFlag }

// block returns a Markdown block of commands to paste.
func block(commands ...string) string {
	return "```\nearmark " + strings.Join(commands, "\nearmark ") + "\n```\n"
}
