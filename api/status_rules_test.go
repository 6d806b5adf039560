package api_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/workflows/card"
)

// runScript runs an ES module in Node, which may import the status page's own, and returns its lines.
func runScript(t *testing.T, script string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", "--no-warnings", "--input-type=module", "--eval", script)
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", output)
	return strings.Split(strings.TrimSpace(string(output)), "\n")
}

// The order of stuck reservations depends on nothing that changes from one look to the next, and
// what is broken comes before what waits for a decision.
func TestStatusPageOrdersStuckReservations(t *testing.T) {
	t.Parallel()
	got := runScript(t, `
		import { inOrder } from "./status/rules.js";
		const r = (id, reason, since, age_seconds) => ({ id, stuck: { reason, since, age_seconds } });
		const list = [
			r("e", "review", "2026-11-24T10:00:00.1Z", 60), r("d", "review", "2026-11-24T10:00:00.9Z", 60),
			r("c", "review", "2026-11-24T10:00:00.9Z", 60), r("b", "orphan", null, 0), r("a", "expiry_missed", "2026-11-24T10:01:00Z", 1),
			r("f", "orphan", "2026-11-24T10:00:00Z", 9), r("g", "task_failing", "2026-11-24T10:01:30Z", 1), r("h", "orphan", null, 0),
		];
		for (let i = 0; i < list.length; i++) {
			list.push(list.shift()); // in whatever order they come
			console.log([...list].sort(inOrder).map((r) => r.id).join(" "));
		}`)
	for _, order := range got {
		require.Equal(t, "g f b h a e c d", order)
	}
	require.Len(t, got, 8)
}

// A command that is pasted without its blanks filled in does nothing: the shell refuses the line.
func TestPastedCommandsDoNothing(t *testing.T) {
	t.Parallel()
	id := earmark.ReservationID(earmark.DefaultTenant, "k")
	reservation := func(reason earmark.StuckReason, change func(*earmark.Reservation)) earmark.Reservation {
		r := earmark.Reservation{ID: id, State: earmark.StateReview, Scopes: []string{"acme/ml/u1"}, Amounts: earmark.Amounts{"tokens": 5, "requests": 1}}
		if change != nil {
			change(&r)
		}
		r.Stuck = &earmark.Stuck{Reason: reason, Remedy: card.Remedy(&r, reason)}
		return r
	}
	stuck := []earmark.Reservation{
		reservation(earmark.StuckReview, nil), reservation(earmark.StuckOrphan, nil), reservation(earmark.StuckExpiryMissed, nil),
		reservation(earmark.StuckReview, func(r *earmark.Reservation) { r.Scopes = []string{"acme/x"} }),
		reservation(earmark.StuckReview, func(r *earmark.Reservation) { r.Scopes = []string{"other"} }),
		reservation(earmark.StuckSettlementFailing, func(r *earmark.Reservation) { r.RejectedUsage = earmark.Amounts{"tokens": 9} }),
	}
	list, err := json.Marshal(stuck)
	require.NoError(t, err)
	lines := runScript(t, `
		import { bulk, commands } from "./status/rules.js";
		const list = `+string(list)+`;
		for (const flag of ["", " --url http://127.0.0.1:8081"]) {
			for (const r of list) for (const [, line] of commands(r, flag)) console.log(line);
			for (const some of [list.slice(0, 4), list]) for (const [, line] of bulk("review", some, flag)) console.log(line);
			for (const [, line] of bulk("paused", list, flag)) console.log(line);
		}`)
	require.Contains(t, lines, "earmark commit "+id+" requests=<used> tokens=<used> --url http://127.0.0.1:8081 --reason <why>")
	require.Contains(t, lines, "earmark drain --scope acme --stuck review --reason <why>")
	require.Contains(t, lines, "earmark drain --scope <scope> --stuck review --reason <why>")

	require.Contains(t, lines, `for id in $(earmark stuck --reason paused --json | grep -o '"workflow_id": *"[^"]*"' | cut -d '"' -f 4); do temporal workflow unpause --workflow-id "$id" --reason <why>; done`)

	program := "#!/bin/sh\necho \"$@\" >> ran\n"
	for _, shell := range []string{"sh", "bash"} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "earmark"), []byte(program), 0o755))
		paste := func(line string) error {
			cmd := exec.CommandContext(t.Context(), shell)
			cmd.Dir, cmd.Env, cmd.Stdin = dir, []string{"PATH=" + dir + ":/usr/bin:/bin"}, strings.NewReader(line+"\n")
			return cmd.Run()
		}
		for _, line := range lines {
			require.Error(t, paste(line), "%s: %s", shell, line)
		}
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		require.NoError(t, err)
		require.Equal(t, []string{filepath.Join(dir, "earmark")}, files, "nothing ran, and nothing was written")

		filled := strings.NewReplacer("<why>", "checked", "<used>", "5", "<scope>", "acme").Replace(lines[0])
		require.NoError(t, paste(filled))
		require.FileExists(t, filepath.Join(dir, "ran"))
	}
}

// The command for all paused reservations unpauses the workflow of each; with no or one reservation there is none.
func TestStatusPageUnpausesAll(t *testing.T) {
	t.Parallel()
	lines := runScript(t, `
		import { bulk } from "./status/rules.js";
		const r = { state: "held", scopes: ["acme"] };
		console.log(bulk("paused", [], "").length, bulk("paused", [r], "").length);
		for (const [label, line] of bulk("paused", [r, { ...r, state: "expired" }], " --url http://127.0.0.1:8081")) console.log(label + "\n" + line);`)
	require.Len(t, lines, 3)
	require.Equal(t, []string{"0 0", "Let all their workflows run, with Temporal's command line"}, lines[:2])

	dir := t.TempDir()
	page, err := json.Marshal(earmark.Page[earmark.Reservation]{Data: []earmark.Reservation{
		{WorkflowID: "reservation-rsv_a", Metadata: earmark.Metadata{"note": `"workflow_id":"other"`}}, {WorkflowID: "reservation-rsv_b"},
	}})
	require.NoError(t, err)
	for name, program := range map[string]string{
		"earmark":  `[ "$*" = "stuck --reason paused --json --url http://127.0.0.1:8081" ] && printf "%s\n" '` + string(page) + `'`,
		"temporal": `echo "$*" >> ran`,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+program+"\n"), 0o755))
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(lines[2], "<why>", "checked"))
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", output)
	ran, err := os.ReadFile(filepath.Join(dir, "ran"))
	require.NoError(t, err)
	require.Equal(t, "workflow unpause --workflow-id reservation-rsv_a --reason checked\nworkflow unpause --workflow-id reservation-rsv_b --reason checked\n", string(ran))
}
