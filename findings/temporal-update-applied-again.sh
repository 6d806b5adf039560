#!/usr/bin/env bash
# Temporal: an update's id is remembered by one run alone; after continue-as-new or a reset it is applied again.
# Guess:  an update with the same workflow id and update id is applied once, so the id can be the idempotency key.
# Seen:   commit "c1" is applied once however often it is sent to one run, again when it is repeated to the next run of the
#         workflow, and again by a reset, which replays it without any caller.
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
	"os/exec"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

var applied atomic.Int32

// Hold counts the commits that were applied, and continues as new on a signal.
func Hold(ctx workflow.Context) error {
	check(workflow.SetUpdateHandler(ctx, "commit", func(ctx workflow.Context) error {
		return workflow.SideEffect(ctx, func(workflow.Context) any { return applied.Add(1) }).Get(new(int32))
	}))
	workflow.GetSignalChannel(ctx, "next").Receive(ctx, nil)
	return workflow.NewContinueAsNewError(ctx, Hold)
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
	first, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: "hold", TaskQueue: "q"}, Hold)
	check(err)
	commit := func() int32 {
		h, err := c.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
			WorkflowID: "hold", UpdateID: "c1", UpdateName: "commit", WaitForStage: client.WorkflowUpdateStageCompleted})
		check(err)
		check(h.Get(ctx, nil))
		return applied.Load()
	}
	once, twice := commit(), commit()
	check(c.SignalWorkflow(ctx, "hold", "", "next", nil))
	_ = c.GetWorkflow(ctx, "hold", first.GetRunID()).GetWithOptions(ctx, nil, client.WorkflowRunGetOptions{DisableFollowingRuns: true})
	continued := commit()
	check(exec.Command("./temporal", "workflow", "reset", "--workflow-id", "hold", "--event-id", "4", "--reason", "try").Run())
	for end := time.Now().Add(20 * time.Second); applied.Load() == continued && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	fmt.Printf("applied: first %d, repeated %d, repeated after continue-as-new %d, after a reset %d\n", once, twice, continued, applied.Load())
	if once != 1 || twice != 1 || continued != 2 || applied.Load() != 3 {
		fmt.Println("CHANGED: an update's id is remembered for longer")
		os.Exit(1)
	}
}
GO
go mod init try 2>/dev/null && go get go.temporal.io/sdk@v1.51.0 2>/dev/null && go mod tidy 2>/dev/null
./temporal --version && go list -m go.temporal.io/sdk
go run . 2>log | grep -vE '^20.* (DEBUG|INFO) ' || { cat log; exit 1; }
