//go:build record

package workflows_test

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/model"
	"github.com/earmark-dev/earmark/workflows"
)

// TestRecord writes the histories that TestReplay replays, from a real Temporal:
//
//	go test -tags record -run '^TestRecord$' ./workflows
//
// A history that exists is left alone: remove it first to record it anew, which
// gives up the promise that workflows begun by the released code go on.
func TestRecord(t *testing.T) {
	plays := map[string]func(*rig){
		"committed_by_update": func(r *rig) {
			r.begin()
			r.update(workflows.MessageCommit, used(70))
		},
		"committed_by_signal": func(r *rig) {
			r.begin()
			r.signal(workflows.MessageCommit, used(70))
		},
		"released": func(r *rig) {
			r.begin()
			r.update(workflows.MessageRelease, workflows.ReleaseMessage{Reason: "the model was not called"})
		},
		"released_first": func(r *rig) {
			r.start()
			r.signal(workflows.MessageRelease, workflows.ReleaseMessage{})
			r.work()
		},
		"expired": func(r *rig) {
			r.admission.Request.TTLSeconds = 1
			r.begin()
		},
		"extended": func(r *rig) {
			r.admission.Request.TTLSeconds = 1
			r.begin()
			r.signal(workflows.SignalExtend, workflows.ExtendMessage{TTLSeconds: 2})
		},
		"review_committed": func(r *rig) {
			r.admission.Request.TTLSeconds = 1
			r.admission.Request.OnExpiry = earmark.OnExpiryReview
			r.begin()
			r.eventually("expire", 1)
			time.Sleep(100 * time.Millisecond) // the task with the expiry ends, and the next event is in one of its own
			r.signal(workflows.SignalRefresh, nil)
			r.eventually("inspect", 1)
			r.update(workflows.MessageCommit, used(70))
		},
		"denied": func(r *rig) {
			r.admission.Request.Amounts = earmark.Amounts{testUnit: testLimit + 1}
			r.begin()
		},
		"cancelled": func(r *rig) {
			r.begin()
			require.NoError(r, r.client.CancelWorkflow(r.ctx, r.admission.WorkflowID, ""))
		},
		"adopted": func(r *rig) {
			r.ledger.past(func(m *model.Ledger) (earmark.Result, error) { return m.Reserve(r.ctx, r.admission) })
			r.adopt = true
			r.begin()
			r.update(workflows.MessageCommit, used(70))
		},
		"charged": func(r *rig) {
			r.begin()
			r.ledger.lose()
			r.update(workflows.MessageCommit, used(70))
		},
		"patient": func(r *rig) {
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
			r := newRig(t)
			plays[name](r)
			_ = r.client.GetWorkflow(r.ctx, r.admission.WorkflowID, "").Get(r.ctx, nil) // a cancelled one ends with an error
			r.record(name)
		})
	}
}

// begin starts the workflow next to a worker and waits for the first decision.
func (r *rig) begin() {
	r.work()
	r.startAndAsk()
}

func (r *rig) record(name string) {
	text, err := temporalproto.CustomJSONMarshalOptions{}.Marshal(&historypb.History{Events: r.history()})
	require.NoError(r, err)
	var history any
	require.NoError(r, json.Unmarshal(text, &history))
	scrub(history)
	text, err = json.MarshalIndent(history, "", " ")
	require.NoError(r, err)
	require.NoError(r, os.WriteFile(recordingFile(name), append(text, '\n'), 0o644))
}

// scrub removes what tells of a machine or a build. The name of a sticky queue holds
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
