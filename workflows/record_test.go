//go:build record

package workflows_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
	"github.com/earmark-dev/earmark/internal/ledgertest"
	"github.com/earmark-dev/earmark/internal/webhook"
	"github.com/earmark-dev/earmark/internal/workflowstore"
	"github.com/earmark-dev/earmark/workflows"
)

// TestRecord writes the histories that TestReplay replays, from a real Temporal:
//
//	go test -tags record -run '^TestRecord$' ./workflows
//
// A history that exists is left alone: remove it first to record it anew, which
// gives up the promise that workflows begun by the released code go on.
func TestRecord(t *testing.T) {
	plays := map[string]func(*temporalEnv){
		"committed_by_update": func(r *temporalEnv) {
			r.begin()
			r.update(workflows.MessageCommit, used(70))
		},
		"committed_by_signal": func(r *temporalEnv) {
			r.begin()
			r.signal(workflows.MessageCommit, used(70))
		},
		"released": func(r *temporalEnv) {
			r.begin()
			r.update(workflows.MessageRelease, workflows.ReleaseMessage{Reason: "the model was not called"})
		},
		"released_first": func(r *temporalEnv) {
			r.start()
			r.signal(workflows.MessageRelease, workflows.ReleaseMessage{})
			r.work()
		},
		"expired": func(r *temporalEnv) {
			r.admission.Request.TTLSeconds = 1
			r.begin()
		},
		"extended": func(r *temporalEnv) {
			r.admission.Request.TTLSeconds = 1
			r.begin()
			r.signal(workflows.SignalExtend, workflows.ExtendMessage{TTLSeconds: 2})
		},
		"review_committed": func(r *temporalEnv) {
			r.admission.Request.TTLSeconds = 1
			r.admission.Request.OnExpiry = earmark.OnExpiryReview
			r.begin()
			r.eventually("expire", 1)
			r.taskEnds() // so that the next event is in a task of its own
			r.signal(workflows.SignalRefresh, nil)
			r.eventually("inspect", 1)
			r.update(workflows.MessageCommit, used(70))
		},
		"denied": func(r *temporalEnv) {
			r.admission.Request.Amounts = earmark.Amounts{testUnit: testLimit + 1}
			r.begin()
		},
		"cancelled": func(r *temporalEnv) {
			r.begin()
			require.NoError(r, r.client.CancelWorkflow(r.ctx, r.admission.WorkflowID, ""))
		},
		"adopted": func(r *temporalEnv) {
			r.ledger.past(func(m *ledgertest.Ledger) (earmark.Result, error) { return m.Reserve(r.ctx, r.admission) })
			r.adopt = true
			r.begin()
			r.update(workflows.MessageCommit, used(70))
		},
		"charged": func(r *temporalEnv) {
			r.begin()
			r.ledger.lose()
			r.update(workflows.MessageCommit, used(70))
		},
		"adopted_expired": func(r *temporalEnv) {
			r.admission.Request.TTLSeconds = 2
			r.ledger.past(func(m *ledgertest.Ledger) (earmark.Result, error) { return m.Reserve(r.ctx, r.admission) })
			r.adopt = true
			r.work()
			r.start()
		},
		"continued_as_new": func(r *temporalEnv) {
			r.begin()
			r.run = r.runID()
			for r.runID() == r.run {
				r.signal(workflows.SignalExtend, workflows.ExtendMessage{TTLSeconds: 600})
				r.taskEnds() // so that each signal has a task of its own
			}
			r.signal(workflows.MessageRelease, nil)
		},
		"lost": func(r *temporalEnv) {
			r.admission.Request.TTLSeconds = 1
			r.begin()
			r.ledger.lose()
		},
		"malformed": func(r *temporalEnv) {
			r.begin()
			r.signal(workflows.MessageCommit, map[string]any{"usage": "much"})
			r.signal(workflows.MessageCommit, workflows.CommitMessage{Usage: earmark.Amounts{"requests": 1}})
			r.eventually("commit", 1)
			r.update(workflows.MessageCommit, used(70))
		},
		"overage_rejected": func(r *temporalEnv) {
			r.ledger.budget.Overage = earmark.OverageReject
			r.ledger.lose()
			r.admission.Request.TTLSeconds = 2
			r.begin()
			r.update(workflows.MessageCommit, used(150))
			r.eventually("expire", 1)
			r.taskEnds()
			r.update(workflows.MessageCommit, used(150))
		},
		"reset": func(r *temporalEnv) {
			r.begin()
			r.signal(workflows.SignalExtend, workflows.ExtendMessage{TTLSeconds: 600})
			r.eventually("extend", 1)
			const firstTaskCompleted = 4 // after started, scheduled, started
			response, err := r.client.ResetWorkflowExecution(r.ctx, &workflowservice.ResetWorkflowExecutionRequest{
				Namespace: client.DefaultNamespace, WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: r.admission.WorkflowID},
				Reason: "a test", WorkflowTaskFinishEventId: firstTaskCompleted, RequestId: r.admission.ID,
			})
			require.NoError(r, err)
			require.Equal(r, response.GetRunId(), r.runID())
			r.update(workflows.MessageCommit, used(70))
		},
		"review_released": func(r *temporalEnv) {
			r.admission.Request.TTLSeconds = 1
			r.admission.Request.OnExpiry = earmark.OnExpiryReview
			r.begin()
			r.eventually("expire", 1)
			r.taskEnds()
			r.update(workflows.MessageRelease, workflows.ReleaseMessage{Reason: "looked at it"})
		},
		"settled_past": func(r *temporalEnv) {
			r.begin()
			r.ledger.past(func(m *ledgertest.Ledger) (earmark.Result, error) {
				return m.Commit(r.ctx, earmark.Transition{ID: r.admission.ID, Tenant: testTenant, Actor: earmark.ActorAPI}, used(70).Usage)
			})
			r.signal(workflows.SignalRefresh, nil)
		},
		"settled_patiently": func(r *temporalEnv) { // for so long that the search attribute says so
			r.begin()
			r.ledger.away("commit")
			r.signal(workflows.MessageCommit, used(70))
			require.Eventually(r, func() bool { return len(r.events(enumspb.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES)) > 0 }, time.Minute, time.Second)
			r.ledger.back()
		},
		"too_late": func(r *temporalEnv) {
			r.admission.AdmitBy = time.Now().Add(-time.Second)
			r.begin()
		},
		"too_late_charged": func(r *temporalEnv) {
			r.admission.AdmitBy = time.Now().Add(-time.Second)
			r.start()
			r.signal(workflows.MessageCommit, used(70))
			r.work()
		},
		"webhook": func(r *temporalEnv) { // delivers, fails, is woken, and ends with its endpoint
			w := worker.New(r.client, r.queue, worker.Options{})
			w.RegisterWorkflowWithOptions(workflows.Webhook, workflow.RegisterOptions{Name: workflows.WebhookType})
			answers := []activities.DeliverReport{
				{State: webhook.StateDue, Delivered: 2}, {State: webhook.StateWaiting, WaitMS: 1000, Failed: true}, {State: webhook.StateIdle}, {State: webhook.StateOver}}
			calls := 0
			w.RegisterActivityWithOptions(func(context.Context, string) (activities.DeliverReport, error) {
				calls++
				return answers[calls-1], nil
			}, activity.RegisterOptions{Name: "Deliver"})
			require.NoError(r, w.Start())
			r.Cleanup(w.Stop)
			options := client.StartWorkflowOptions{ID: r.admission.WorkflowID, TaskQueue: r.queue}
			_, err := r.client.SignalWithStartWorkflow(r.ctx, options.ID, workflows.SignalDeliver, nil, options, workflows.WebhookType, workflows.WebhookInput{ID: "whk_a"})
			require.NoError(r, err)
			require.Eventually(r, func() bool { return len(r.events(enumspb.EVENT_TYPE_ACTIVITY_TASK_COMPLETED)) == 3 }, patience, 50*time.Millisecond)
			r.taskEnds()
			r.signal(workflows.SignalDeliver, nil)
		},
		"patient": func(r *temporalEnv) {
			r.ledger.away("reserve")
			r.start()
			r.work()
			r.eventually("reserve", 5)
			r.ledger.back()
			r.update(workflows.MessageCommit, used(70))
		},
	}
	require.Len(t, plays, len(recordings))
	for _, name := range recordings {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat(recordingFile(name)); err == nil {
				t.Logf("%s exists and is left alone", recordingFile(name))
				return
			}
			r := newRigOn(t, address(t, name))
			plays[name](r)
			_ = r.client.GetWorkflow(r.ctx, r.admission.WorkflowID, "").Get(r.ctx, nil) // a cancelled one ends with an error
			r.record(name)
		})
	}
}

// address is where a history is recorded: at the Temporal of the other tests, unless
// it takes one that suggests a new run sooner, lest the history be long.
func address(t *testing.T, name string) string {
	t.Helper()
	if name != "continued_as_new" {
		return stack.TemporalAddress()
	}
	binary, err := exec.LookPath("temporal")
	if err != nil {
		binary = "../bin/temporal"
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") // for a free port
	require.NoError(t, err)
	address := listener.Addr().String()
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	args := []string{"server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", port,
		"--dynamic-config-value", "limit.historyCount.suggestContinueAsNew=24"}
	server := exec.Command(binary, args...)
	require.NoError(t, server.Start())
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	require.Eventually(t, func() bool {
		c, err := client.Dial(client.Options{HostPort: address, Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler))})
		if err != nil {
			return false
		}
		defer c.Close()
		_, err = workflowstore.AddSearchAttributes(context.Background(), c, client.DefaultNamespace)
		return err == nil
	}, time.Minute, time.Second)
	return address
}

// begin starts the workflow next to a worker and waits for the first decision.
func (r *temporalEnv) begin() {
	r.work()
	r.startAndAsk()
}

func (r *temporalEnv) record(name string) {
	text, err := temporalproto.CustomJSONMarshalOptions{}.Marshal(&historypb.History{Events: r.history()})
	require.NoError(r, err)
	var history any
	require.NoError(r, json.Unmarshal(text, &history))
	scrub(history)
	text, err = json.MarshalIndent(history, "", " ")
	require.NoError(r, err)
	require.NoError(r, os.WriteFile(recordingFile(name), append(text, '\n'), 0o644))
}

// scrub removes what identifies a machine or a build. The name of a sticky queue holds
// the host's.
func scrub(value any) {
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			scrub(item)
		}
	case map[string]any:
		if kind, _ := value["kind"].(string); kind == "TASK_QUEUE_KIND_STICKY" {
			value["name"] = "sticky"
		}
		for key, item := range value {
			if slices.Contains(unwanted, key) {
				delete(value, key)
				continue
			}
			scrub(item)
		}
	}
}

// taskEnds waits until the workflow has no task: Temporal has heard what the last one led to.
func (r *temporalEnv) taskEnds() {
	r.Helper()
	require.Eventually(r, func() bool {
		description, err := r.client.DescribeWorkflowExecution(r.ctx, r.admission.WorkflowID, "")
		return err == nil && description.GetPendingWorkflowTask() == nil
	}, patience, 5*time.Millisecond, "the workflow task did not end")
}
