//go:build unix

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"

	"github.com/earmark-dev/earmark/internal/ctxtime"
	"github.com/earmark-dev/earmark/internal/stack"
)

func TestMain(m *testing.M) { os.Exit(stack.Main(m)) }

// program builds the command and returns its path.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "earmark-bench")
	output, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", path, "github.com/earmark-dev/earmark/bench").CombinedOutput()
	require.NoError(t, err, "%s", output)
	return path
}

// A quick run of everything measures every aim, and leaves nothing behind.
func TestQuick(t *testing.T) {
	t.Parallel()
	dir, data := outputs(t)
	jsonFile, markdownFile, plotFile := filepath.Join(dir, "b.json"), filepath.Join(dir, "b.md"), filepath.Join(dir, "b.svg")
	names, _, _ := ScenarioNames()
	names = slices.DeleteFunc(names, func(name string) bool { return name == "pooler" }) // needs a PgBouncer
	others, peers := startDoubles(t)
	cmd := exec.CommandContext(t.Context(), program(t), "--earmark", stack.Binary(t), "--base", stack.Binary(t), "--quick",
		"--peer", blnk+"="+peers[blnk], "--peer", formance+"="+peers[formance], "--scenario", strings.Join(names, ","), "--rows", "500,2000",
		"--json", jsonFile, "--markdown", markdownFile, "--plot", plotFile, "--data-dir", data)
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", output)

	var report Report
	content, err := os.ReadFile(jsonFile)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(content, &report))
	require.Len(t, report.Aims, len(aims))
	markdown, err := os.ReadFile(markdownFile)
	require.NoError(t, err)
	for _, aim := range report.Aims {
		require.NotNil(t, aim.Measured, aim.Aim)
		require.NotEqual(t, NotMeasured, aim.Verdict, aim.Aim)
		require.Contains(t, string(output), aim.Aim)
		require.Contains(t, string(markdown), "| "+aim.Aim+" |")
	}
	figures := make(map[string]Figure)
	for _, figure := range report.Figures {
		figures[figure.Key] = figure
	}
	// The race can be seen, and ours does not have it.
	require.Positive(t, figures["strategies.loopback.1.unsafe.overshoot"].Max)
	require.Zero(t, figures["strategies.loopback.1.ours.overshoot"].Max)
	require.Equal(t, "on", report.Machine.Fsync)
	require.Equal(t, 2, strings.Count(string(markdown), " settled rows, 8 clients**")+strings.Count(string(markdown), "| 2,000 |"))
	svg, err := os.Open(plotFile)
	require.NoError(t, err)
	t.Cleanup(func() { _ = svg.Close() })
	requireXML(t, svg)
	requireEmpty(t, data)
	others.requireSettled(t)
}

// Ctrl-C ends a run soon, with all that it started.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	dir, data := outputs(t)
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), program(t), "--earmark", stack.Binary(t), "--scenario", "admission", "--data-dir", data)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	stack.Eventually(t, startLimit, "the first round", func() bool {
		content, err := os.ReadFile(log.Name())
		return err == nil && bytes.Contains(content, []byte("admission:"))
	})
	children, err := stack.Descendants(cmd.Process.Pid)
	require.NoError(t, err)
	require.NotEmpty(t, children)
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	begun := time.Now()
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	require.Equal(t, 1, exit.ExitCode())
	require.Less(t, time.Since(begun), stopLimit)
	for _, child := range children {
		require.ErrorIs(t, syscall.Kill(child, 0), syscall.ESRCH, "process %d is left over", child)
	}
	requireEmpty(t, data)
}

// outputs are a directory for results and one for data, which Postgres may enter.
func outputs(t *testing.T) (dir, data string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "bench-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	data = filepath.Join(dir, "data")
	require.NoError(t, os.Mkdir(data, 0o755))
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir, data
}

func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func requireXML(t *testing.T, in io.Reader) {
	t.Helper()
	for decoder := xml.NewDecoder(in); ; {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
	}
}

// In an open loop a request that had to wait for its turn has waited, although it
// was sent late; in a closed one nobody sees that.
func TestOpenLoopCountsFromTheDueTime(t *testing.T) {
	t.Parallel()
	const (
		takes     = 20 * time.Millisecond
		perSecond = 200 // four times of what one at a time gets through
		duration  = 200 * time.Millisecond
	)
	var one sync.Mutex
	w := &way{title: "one at a time", admit: func(ctx context.Context, _ int64) (string, error) {
		one.Lock()
		defer one.Unlock()
		ctxtime.Sleep(ctx, takes)
		return "", nil
	}, settle: func(context.Context, string) error { return nil }}
	b, err := w.open(t.Context(), perSecond, duration)
	require.NoError(t, err)
	require.EqualValues(t, perSecond*duration.Seconds(), b.done)
	// The last of 40 is due at 195 ms and ends after 800.
	require.Greater(t, b.quantileMS(1), 500.0)
	b, err = w.closed(t.Context(), 1, duration)
	require.NoError(t, err)
	require.Less(t, b.quantileMS(0.5), 500.0)
}

func TestClosedLoopTellsFailures(t *testing.T) {
	t.Parallel()
	refused := errors.New("refused")
	w := &way{title: "every second", admit: func(_ context.Context, n int64) (string, error) {
		if n%2 == 0 {
			return "", refused
		}
		return "", nil
	}, settle: func(ctx context.Context, _ string) error { ctxtime.Sleep(ctx, time.Millisecond); return nil }}
	b, err := w.closed(t.Context(), 2, 300*time.Millisecond)
	require.NoError(t, err)
	require.Positive(t, b.failed)
	require.Contains(t, b.examples, "refused")
	require.Len(t, b.admission, int(b.done))

	w.admit = func(context.Context, int64) (string, error) { return "", refused }
	_, err = w.closed(t.Context(), 1, 100*time.Millisecond)
	require.ErrorContains(t, err, "refused")
}

func TestFigures(t *testing.T) {
	t.Parallel()
	var f figures
	for _, v := range []float64{30, 10, 20, notANumber} {
		f.add("a", "1/s", v)
		f.add("b", "1/s", v/10)
	}
	f.ratio("a/b", "a", "b")
	require.Equal(t, Figure{Key: "a", Unit: "1/s", Median: 20, Min: 10, Max: 30, Rounds: []float64{30, 10, 20}}, f.list()[0])
	require.Equal(t, "20 (10–30)", f.text("a"))
	require.Equal(t, "10", f.text("a/b"))
	require.Equal(t, notMeasured, f.text("c"))
	for value, text := range map[float64]string{0: "0", 0.0123: "0.012", 0.5: "0.50", 13: "13", 13.37: "13.4", 133.7: "134", 12345.6: "12,346"} {
		require.Equal(t, text, number(value))
	}
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	var r Report
	r.judge()
	for _, result := range r.Aims {
		require.Equal(t, NotMeasured, result.Verdict)
	}
	for _, v := range []float64{1.2, 1.3, 1.4} {
		r.figures.add("admission.alone.ratio", "×", v)
		r.figures.add("admission.half.ratio", "×", v+0.1)
		r.figures.add("strategies.loopback.1.ours.overshoot", "requests", v-1.2)
	}
	r.judge()
	require.Equal(t, Met, r.Aims[0].Verdict)
	require.Equal(t, Missed, r.Aims[1].Verdict)
	for _, result := range r.Aims {
		if result.Key == "strategies.loopback.1.ours.overshoot" {
			require.Equal(t, Missed, result.Verdict, "one burst in three went over, and that is one too many")
		}
	}
}

func TestActions(t *testing.T) {
	t.Parallel()
	event := func(kind enumspb.EventType) *historypb.HistoryEvent { return &historypb.HistoryEvent{EventType: kind} }
	marker := func(task int64) *historypb.HistoryEvent {
		return &historypb.HistoryEvent{EventType: enumspb.EVENT_TYPE_MARKER_RECORDED, Attributes: &historypb.HistoryEvent_MarkerRecordedEventAttributes{
			MarkerRecordedEventAttributes: &historypb.MarkerRecordedEventAttributes{WorkflowTaskCompletedEventId: task}}}
	}
	retried := &historypb.HistoryEvent{EventType: enumspb.EVENT_TYPE_ACTIVITY_TASK_STARTED, Attributes: &historypb.HistoryEvent_ActivityTaskStartedEventAttributes{
		ActivityTaskStartedEventAttributes: &historypb.ActivityTaskStartedEventAttributes{Attempt: 3}}}
	require.EqualValues(t, 1+2+1+1+3, actions([]*historypb.HistoryEvent{
		event(enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED),
		event(enumspb.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED), event(enumspb.EVENT_TYPE_WORKFLOW_TASK_STARTED), event(enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED),
		marker(4), marker(4), marker(9), // two of one task are one
		event(enumspb.EVENT_TYPE_TIMER_STARTED),
		event(enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED),
		event(enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED), retried, // and two retries
		event(enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED),
	}))
}

func TestPlot(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.ErrorIs(t, (&Report{}).Plot(&out), ErrNoSweep)
	r := &Report{Machine: Machine{Cores: 2}, Sweep: []Curve{
		{Way: "bare <start>", Points: []Point{{10, 2, 5, 0}, {100, 3, 9, 0}}},
		{Way: "earmark", Points: []Point{{10, 4, 8, 0}, {100, 900, 4000, 0.2}}},
	}}
	require.NoError(t, r.Plot(&out))
	requireXML(t, bytes.NewReader(out.Bytes()))
	for _, words := range []string{"bare &lt;start&gt; p50", "earmark p99", "latency, ms", "lifecycles a second", ">1,000<"} {
		require.Contains(t, out.String(), words)
	}
}
