#!/usr/bin/env bash
# Temporal 1.29: a priority is taken, stored and shown, and changes nothing until the server's matcher is switched.
# Guess:  a start with Priority{PriorityKey: 1} goes before those with 5 that wait in the same task queue, or is refused.
# Seen:   tasks leave in the order in which they came; with matching.useNewMatcher the same program runs the urgent ones first.
#         Settlements that should pass new work under load wait behind it, and nothing says so.
set -euo pipefail
tmp=$(mktemp -d); server=
stop() { [[ -z $server ]] || { kill "$server"; wait "$server" || true; } 2>/dev/null; server=; }
trap 'stop; rm -rf "$tmp"' EXIT; cd "$tmp"
GOBIN="$tmp" go install -ldflags '-s -w' github.com/temporalio/cli/cmd/temporal@v1.5.1 # takes minutes the first time
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

var (
	mu    sync.Mutex
	order []string
)

// Work notes the order in which first tasks arrive.
func Work(ctx workflow.Context) error {
	mu.Lock()
	defer mu.Unlock()
	order = append(order, strings.Split(workflow.GetInfo(ctx).WorkflowExecution.ID, "-")[0])
	return nil
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	ctx := context.Background()
	c, err := client.Dial(client.Options{HostPort: os.Getenv("TEMPORAL_ADDRESS")})
	check(err)
	var runs []client.WorkflowRun
	for _, kind := range []struct {
		name string
		key  int
	}{{"later", 5}, {"urgent", 1}} {
		for n := range 20 {
			run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
				ID: fmt.Sprintf("%s-%d", kind.name, n), TaskQueue: "q", Priority: temporal.Priority{PriorityKey: kind.key}}, Work)
			check(err)
			runs = append(runs, run)
		}
	}
	shown, err := c.DescribeWorkflowExecution(ctx, "urgent-0", "")
	check(err)
	w := worker.New(c, "q", worker.Options{MaxConcurrentWorkflowTaskPollers: 2, MaxConcurrentWorkflowTaskExecutionSize: 2})
	w.RegisterWorkflow(Work)
	check(w.Start())
	for _, run := range runs {
		check(run.Get(ctx, nil))
	}
	urgent := 0
	for _, kind := range order[:20] {
		if kind == "urgent" {
			urgent++
		}
	}
	fmt.Printf("priority that the server shows: %d; urgent ones among the first 20 of 40: %d\n",
		shown.GetWorkflowExecutionInfo().GetPriority().GetPriorityKey(), urgent)
	if want := os.Getenv("WANT"); want == "few" && urgent > 5 || want == "most" && urgent < 15 {
		fmt.Println("CHANGED: priorities are obeyed in another way")
		os.Exit(1)
	}
}
GO
go mod init try 2>/dev/null && go get go.temporal.io/sdk@v1.51.0 2>/dev/null && go mod tidy 2>/dev/null
go build -o try . && ./temporal --version && go list -m go.temporal.io/sdk
run() { # WANT [flags of the server]
  export TEMPORAL_ADDRESS=127.0.0.1:$((20000 + RANDOM % 10000)) WANT=$1; shift
  ./temporal server start-dev --headless --port "${TEMPORAL_ADDRESS#*:}" --log-level never \
    --dynamic-config-value matching.numTaskqueueReadPartitions=1 --dynamic-config-value matching.numTaskqueueWritePartitions=1 "$@" >/dev/null & server=$!
  until ./temporal operator cluster health >/dev/null 2>&1; do kill -0 "$server"; sleep 0.2; done
  ./try 2>log | grep -vE '^20.* (DEBUG|INFO) ' || { cat log; exit 1; }
  stop
}
echo "as it comes:"; run few
echo "with matching.useNewMatcher:"; run most --dynamic-config-value matching.useNewMatcher=true
