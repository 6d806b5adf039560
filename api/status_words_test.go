package api_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestStatusPageShowsTheYearOfTheBudgetsZone reads a window's end in a browser that is
// still in the year before.
func TestStatusPageShowsTheYearOfTheBudgetsZone(t *testing.T) {
	t.Parallel()
	const script = `
		import { day } from "./status/words.js";
		const newYear = "2026-12-31T23:00:00Z";
		console.log(day(newYear, "Europe/Berlin", new Date("2026-12-31T12:00:00Z")));
		console.log(day(newYear, "Europe/Berlin", new Date("2026-12-31T23:30:00Z")));
		console.log(day(newYear, "America/New_York", new Date("2026-12-31T12:00:00Z")));
		console.log(day(newYear, "Area/Unknown", new Date("2026-12-31T12:00:00Z")));`
	cmd := exec.CommandContext(t.Context(), "node", "--no-warnings", "--input-type=module", "--eval", script)
	cmd.Env = append(cmd.Environ(), "TZ=America/New_York")
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", output)
	require.Equal(t, []string{
		"1 Jan 2027, 00:00 Europe/Berlin",
		"1 Jan, 00:00 Europe/Berlin",
		"31 Dec, 18:00 America/New_York",
		"31 Dec, 23:00 UTC",
	}, strings.Split(strings.TrimSpace(string(output)), "\n"))
}
