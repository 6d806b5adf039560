#!/usr/bin/env bash
# Temporal: continue-as-new drops the static summary and details of a workflow, and keeps its memo.
# Guess:  what was given at the start stays with the workflow, as memo and search attributes do.
# Seen:   the second run has an empty summary and no details: a hold that lives long is a blank line in the UI.
set -euo pipefail
tmp=$(mktemp -d); server=
trap '[[ -z $server ]] || { kill "$server"; wait "$server" || true; } 2>/dev/null; rm -rf "$tmp"' EXIT; cd "$tmp"
GOBIN="$tmp" go install -ldflags '-s -w' github.com/temporalio/cli/cmd/temporal@v1.5.1 # takes minutes the first time
export TEMPORAL_ADDRESS=127.0.0.1:$((20000 + RANDOM % 10000))
./temporal server start-dev --headless --port "${TEMPORAL_ADDRESS#*:}" --log-level never >/dev/null & server=$!
until ./temporal operator cluster health >/dev/null 2>&1; do kill -0 "$server"; sleep 0.2; done
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// Hold waits for a signal, continues as new once, and waits again.
func Hold(ctx workflow.Context, run int) error {
	workflow.GetSignalChannel(ctx, "next").Receive(ctx, nil)
	if run == 1 {
		return workflow.NewContinueAsNewError(ctx, Hold, 2)
	}
	return nil
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	c, err := client.Dial(client.Options{HostPort: os.Getenv("TEMPORAL_ADDRESS")})
	check(err)
	w := worker.New(c, "q", worker.Options{})
	w.RegisterWorkflow(Hold)
	check(w.Start())
	ctx := context.Background()
	_, err = c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: "hold", TaskQueue: "q", StaticSummary: "5 USD for acme", StaticDetails: "until noon", Memo: map[string]any{"team": "ml"},
	}, Hold, 1)
	check(err)
	describe := func() (run, text string) {
		d, err := c.DescribeWorkflow(ctx, "hold", "")
		check(err)
		summary, _ := d.GetStaticSummary()
		details, _ := d.GetStaticDetails()
		return d.WorkflowExecution.RunID, fmt.Sprintf("summary %q, details %q, memo fields %d", summary, details, len(d.Memo.GetFields()))
	}
	firstRun, before := describe()
	check(c.SignalWorkflow(ctx, "hold", "", "next", nil))
	run, after := describe()
	for ; run == firstRun; run, after = describe() {
		time.Sleep(50 * time.Millisecond)
	}
	fmt.Println("first run: ", before)
	fmt.Println("second run:", after)
	if before != `summary "5 USD for acme", details "until noon", memo fields 1` || after != `summary "", details "", memo fields 1` {
		fmt.Println("CHANGED: continue-as-new treats the summary in another way")
		os.Exit(1)
	}
}
GO
go mod init try 2>/dev/null && go get go.temporal.io/sdk@v1.51.0 2>/dev/null && go mod tidy 2>/dev/null
./temporal --version && go list -m go.temporal.io/sdk
go run . 2>log | grep -vE '^20.* (DEBUG|INFO) ' || { cat log; exit 1; }
