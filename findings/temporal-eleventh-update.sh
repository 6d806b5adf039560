#!/usr/bin/env bash
# Temporal: an update beyond ten in flight is refused at once, and reaches the caller as a time-out of its own kind.
# Guess:  the eleventh caller gets ResourceExhausted, or at least context.DeadlineExceeded, in some milliseconds.
# Seen:   the SDK repeats the call until the caller's deadline, here 3 s, and then returns an error that is neither:
#         errors.Is(err, context.DeadlineExceeded) is false. A settlement that tests for it takes the wrong turn.
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
	"errors"
	"fmt"
	"os"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// Hold has an update that does not end.
func Hold(ctx workflow.Context) error {
	never := func() bool { return false }
	check(workflow.SetUpdateHandler(ctx, "commit", func(ctx workflow.Context) error { return workflow.Await(ctx, never) }))
	return workflow.Await(ctx, never)
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
	_, err = c.ExecuteWorkflow(context.Background(), client.StartWorkflowOptions{ID: "hold", TaskQueue: "q"}, Hold)
	check(err)
	commit := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		_, err := c.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
			WorkflowID: "hold", UpdateName: "commit", WaitForStage: client.WorkflowUpdateStageAccepted})
		return err
	}
	for range 10 {
		check(commit(time.Minute))
	}
	start := time.Now()
	err = commit(3 * time.Second)
	took := time.Since(start).Round(100 * time.Millisecond)
	var exhausted *serviceerror.ResourceExhausted
	deadline, refused := errors.Is(err, context.DeadlineExceeded), errors.As(err, &exhausted)
	fmt.Printf("eleventh update: %T after %v: %v\n", err, took, err)
	fmt.Printf("is context.DeadlineExceeded: %v; is ResourceExhausted: %v\n", deadline, refused)
	if err == nil || took < 2500*time.Millisecond || deadline || refused {
		fmt.Println("CHANGED: the eleventh update is answered in another way")
		os.Exit(1)
	}
}
GO
go mod init try 2>/dev/null && go get go.temporal.io/sdk@v1.51.0 2>/dev/null && go mod tidy 2>/dev/null
./temporal --version && go list -m go.temporal.io/sdk
go run . 2>log | grep -vE '^20.* (DEBUG|INFO) ' || { cat log; exit 1; }
