package workflows_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark/workflows"
)

// recordings are the histories in testdata/replay, by name. They are recorded by
// record_test.go, from code that is released, and never to make this test pass: a
// workflow that is open while the code changes has to go on from such a history.
var recordings = []string{
	"adopted", "adopted_expired", "cancelled", "charged", "committed_by_signal", "committed_by_update", "continued_as_new", "denied",
	"expired", "extended", "lost", "malformed", "overage_rejected", "patient", "released", "released_first", "reset", "review_committed",
	"review_released", "settled_past", "settled_patiently", "too_late", "too_late_charged", "webhook",
}

const recordingsDir = "testdata/replay"

func TestReplay(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(recordingsDir, "*.json"))
	require.NoError(t, err)
	require.Len(t, files, len(recordings), "run `make replay-fixtures` for a new one")
	for _, name := range recordings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			replayer := worker.NewWorkflowReplayer()
			replayer.RegisterWorkflowWithOptions(workflows.Reservation, workflow.RegisterOptions{Name: workflows.ReservationType})
			replayer.RegisterWorkflowWithOptions(workflows.Webhook, workflow.RegisterOptions{Name: workflows.WebhookType})
			err := replayer.ReplayWorkflowHistoryFromJSONFile(log.NewStructuredLogger(slog.New(slog.DiscardHandler)), recordingFile(name))
			require.NoError(t, err, "the workflow would not go on from a history of before: guard the change with workflow.GetVersion")
		})
	}
}

// Recordings are public: nothing in them names the machine they were made on.
func TestRecordingsNameNoMachine(t *testing.T) {
	t.Parallel()
	host, err := os.Hostname()
	require.NoError(t, err)
	for _, name := range recordings {
		text, err := os.ReadFile(recordingFile(name))
		require.NoError(t, err)
		for _, word := range append(unwanted, host) {
			require.NotContains(t, string(text), `"`+word, name)
		}
		require.Less(t, len(text), 32<<10, "%s is large", name)
		require.NotContains(t, string(text), "@", "%s: an identity has an @", name)
	}
}

// unwanted are the fields of events that identify a machine or a build, and matter
// to no replay.
var unwanted = []string{"identity", "workerVersion", "binaryChecksum"}

func recordingFile(name string) string { return filepath.Join(recordingsDir, name+".json") }
