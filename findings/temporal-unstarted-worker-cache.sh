#!/usr/bin/env bash
# Temporal's Go SDK: a worker that could not start keeps the process's cache of workflows as it was.
# Guess:  worker.Start returned an error, so the worker has no part in anything: SetStickyWorkflowCacheSize counts for the next
#         worker, and when that one stops, the cache is emptied and the goroutines of its workflows end.
# Seen:   the next worker caches all 25 open workflows instead of 4, and after its Stop their 25 goroutines are still there,
#         as long as something refers to the worker that did not start. A process that tries until Temporal answers gets there.
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
	"net"
	"os"
	"runtime"
	"strings"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

const open, size = 25, 4

// Hold stays open until it is signalled.
func Hold(ctx workflow.Context) error {
	workflow.GetSignalChannel(ctx, "end").Receive(ctx, nil)
	return nil
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// cached returns how many workflows the process has in memory: each has a goroutine in Hold.
func cached() int {
	text := make([]byte, 1<<22)
	return strings.Count(string(text[:runtime.Stack(text, true)]), "main.Hold(")
}

// settled is cached, once it has not changed for a second.
func settled() int {
	n := cached()
	for same := 0; same < 10; time.Sleep(100 * time.Millisecond) {
		if now := cached(); now != n {
			n, same = now, 0
		} else {
			same++
		}
	}
	return n
}

// try runs a worker with open workflows, and returns what it caches while it runs and after it has stopped.
func try(c client.Client, queue string) (running, stopped int) {
	worker.SetStickyWorkflowCacheSize(size)
	w := worker.New(c, queue, worker.Options{})
	w.RegisterWorkflow(Hold)
	check(w.Start())
	for n := range open {
		id := fmt.Sprint(queue, n)
		_, err := c.ExecuteWorkflow(context.Background(), client.StartWorkflowOptions{ID: id, TaskQueue: queue}, Hold)
		check(err)
		for done := false; !done; time.Sleep(20 * time.Millisecond) { // its first task has ended
			d, err := c.DescribeWorkflowExecution(context.Background(), id, "")
			check(err)
			done = d.WorkflowExecutionInfo.HistoryLength >= 4
		}
	}
	running = settled()
	w.Stop()
	return running, settled()
}

func main() {
	c, err := client.Dial(client.Options{HostPort: os.Getenv("TEMPORAL_ADDRESS")})
	check(err)
	running, stopped := try(c, "first")
	fmt.Printf("size %d, %d open workflows: %d cached, %d after the worker has stopped\n", size, open, running, stopped)
	well := running <= size && stopped == 0

	l, err := net.Listen("tcp", "127.0.0.1:0") // a port at which nothing answers once it is closed
	check(err)
	check(l.Close())
	away, err := client.NewLazyClient(client.Options{HostPort: l.Addr().String()})
	check(err)
	worker.SetStickyWorkflowCacheSize(1000)
	unstarted := worker.New(away, "away", worker.Options{})
	unstarted.RegisterWorkflow(Hold)
	fmt.Println("another worker did not start:", unstarted.Start() != nil)
	running, stopped = try(c, "second")
	runtime.KeepAlive(unstarted)
	fmt.Printf("size %d, %d open workflows: %d cached, %d after the worker has stopped\n", size, open, running, stopped)
	if !well || running != open || stopped != open {
		fmt.Println("CHANGED: a worker that did not start has another effect")
		os.Exit(1)
	}
}
GO
go mod init try 2>/dev/null && go get go.temporal.io/sdk@v1.51.0 2>/dev/null && go mod tidy 2>/dev/null
./temporal --version && go list -m go.temporal.io/sdk
go run . 2>log | grep -vE '^20.* (DEBUG|INFO|WARN) ' || { cat log; exit 1; }
