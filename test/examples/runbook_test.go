//go:build unix

package examples_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/stack"
)

// patience bounds what an operator would wait for.
const patience = 40 * time.Second

// broken is a system in which each reservation is stuck for another reason. Each is
// named by its key, so that its id is the one in docs/runbook.md.
type broken struct {
	*stack.Stack
	earmarks *client.Client
	server   *stack.Server
	wrong    sdkworker.Worker // a program that serves the task queue and is not Earmark
}

func breakSystem(t *testing.T) *broken {
	t.Helper()
	s := stack.New(t, stack.Options{Grace: 2 * time.Second})
	server := s.Serve("--without-worker", "--ui-url", "http://127.0.0.1:8233").Ready()
	earmarks, err := client.New(server.URL)
	require.NoError(t, err)
	b := &broken{Stack: s, server: server, earmarks: earmarks}
	right := s.Worker()
	right.AwaitLog("Started Worker")
	limit := int64(10_000)
	_, err = earmarks.CreateBudget(t.Context(), earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit})
	require.NoError(t, err)

	// In review: nobody said what was used.
	review := b.hold(t, "review", time.Second, earmark.OnExpiryReview)
	failing := b.hold(t, "failing", time.Hour, earmark.OnExpiryRelease)
	// A terminated workflow.
	orphan := b.hold(t, "orphan", time.Hour, earmark.OnExpiryRelease)
	require.NoError(t, s.Client().TerminateWorkflow(t.Context(), orphan.WorkflowID, "", "by mistake"))
	// A task that keeps failing: the workers die, and a wrong program takes their place.
	task := b.hold(t, "task", time.Hour, earmark.OnExpiryRelease)
	overdue := b.hold(t, "overdue", time.Hour, earmark.OnExpiryRelease)
	stack.Eventually(t, patience, "the review", func() bool { return b.state(t, review.ID) == earmark.StateReview })
	// An activity that keeps failing: somebody's forgotten transaction holds the row. It
	// comes last: half a minute later its workflow has a task, which would fail as well.
	b.lock(t, failing.ID)
	settled, err := earmarks.Commit(t.Context(), failing.ID, earmark.Amounts{"tokens": 450})
	require.NoError(t, err)
	require.True(t, settled.Accepted)
	stack.Eventually(t, patience, "tries that fail", func() bool {
		description, err := s.Client().DescribeWorkflowExecution(t.Context(), failing.WorkflowID, "")
		require.NoError(t, err)
		return len(description.GetPendingActivities()) == 1 && description.GetPendingActivities()[0].GetAttempt() > 3
	})
	right.Kill()
	b.wrong = sdkworker.New(s.Client(), "earmark", sdkworker.Options{LocalActivityWorkerOnly: true})
	b.wrong.RegisterWorkflowWithOptions(func(workflow.Context) error { return nil }, workflow.RegisterOptions{Name: "Invoice"})
	require.NoError(t, b.wrong.Start())
	t.Cleanup(b.wrong.Stop)
	require.NoError(t, s.Client().SignalWorkflow(t.Context(), task.WorkflowID, "", "commit", map[string]any{"usage": map[string]any{"tokens": 70}}))
	// Overdue: no worker is left that would see the lease run out.
	s.Exec("UPDATE earmark.reservations SET expires_at = clock_timestamp() - interval '40 seconds' WHERE id = $1", overdue.ID)
	return b
}

func (b *broken) hold(t *testing.T, key string, ttl time.Duration, onExpiry earmark.OnExpiry) *earmark.Reservation {
	t.Helper()
	r, err := b.earmarks.Reserve(t.Context(), key, earmark.ReservationRequest{
		Scopes: []string{"acme/" + key}, Amounts: earmark.Amounts{"tokens": 600}, TTLSeconds: int64(ttl.Seconds()), OnExpiry: onExpiry,
	})
	require.NoError(t, err)
	return r
}

// lock holds the reservation's row until its session is ended.
func (b *broken) lock(t *testing.T, id string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), b.DatabaseURL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	_, err = conn.Exec(t.Context(), "BEGIN")
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "SELECT 1 FROM earmark.reservations WHERE id = $1 FOR UPDATE", id)
	require.NoError(t, err)
}

func (b *broken) state(t *testing.T, id string) earmark.State {
	t.Helper()
	r, err := b.earmarks.Reservation(t.Context(), id)
	require.NoError(t, err)
	return r.State
}

// run runs one line of the runbook as its reader does.
func (b *broken) run(t *testing.T, line string) string {
	t.Helper()
	if line == "earmark worker &" { // in the place of the wrong one
		b.wrong.Stop()
		b.Worker().AwaitLog("Started Worker")
		return ""
	}
	if sql, isSQL := strings.CutPrefix(line, `psql "$EARMARK_DATABASE_URL" -Atc `); isSQL {
		var ended bool
		require.NoError(t, b.Pool().QueryRow(t.Context(), strings.Trim(sql, `"`)).Scan(&ended))
		return map[bool]string{true: "t\n", false: "f\n"}[ended]
	}
	require.True(t, strings.HasPrefix(line, "earmark "), line)
	result := stack.RunCommand(t, append(b.Env(), "EARMARK_URL="+b.server.URL, "USER=alice"), stack.Binary(t), words(line)[1:]...)
	require.Zero(t, result.Code, "%s: %s", line, result.Stderr)
	return strings.ReplaceAll(result.Stdout, "/namespaces/"+b.Namespace+"/", "/namespaces/default/")
}

// words splits a line as a shell does that knows double quotes alone.
func words(line string) []string {
	var words []string
	for _, match := range regexp.MustCompile(`"([^"]*)"|(\S+)`).FindAllStringSubmatch(line, -1) {
		words = append(words, match[1]+match[2])
	}
	return words
}

var (
	ages     = regexp.MustCompile(` for \d+[smhd]( \d+[smhd])?`)
	searched = regexp.MustCompile(`%27\d{4}-\d\d-[^\n]*%27`) // a time in a link
)

// as reports whether a command answered what the runbook shows, which may end with "…".
func as(shown, got string) bool {
	masked := func(text string) string {
		// The history keeps the first failure in a row. A task may have gone to the worker
		// that was killed just then.
		text = strings.ReplaceAll(text, "a worker took the task and did not finish it in time", "unable to find workflow type: Reservation. Supported types: [Invoice]")
		return strings.Join(unmistakable(searched.ReplaceAllString(ages.ReplaceAllString(text, " for AGE"), "TIME")), " ")
	}
	if beginning, cut := strings.CutSuffix(strings.TrimSpace(shown), "…"); cut {
		return strings.HasPrefix(masked(got), masked(beginning))
	}
	return masked(shown) == masked(got)
}

// From a system broken in every way at once, the runbook's commands alone get every
// reservation settled, and answer what it shows.
func TestRunbook(t *testing.T) {
	t.Parallel()
	blocks := with(blocksOf(t, "docs/runbook.md"), "A broken system, settled", "console")
	require.NotEmpty(t, blocks)
	b := breakSystem(t)
	for _, step := range strings.Split(strings.TrimPrefix(strings.Join(blocks, ""), "$ "), "\n$ ") {
		line, shown, _ := strings.Cut(step, "\n")
		begun := time.Now()
		got := b.run(t, line)
		// What has to show up or to go away takes its time.
		for line == "earmark stuck" && !as(shown, got) && time.Since(begun) < patience {
			time.Sleep(200 * time.Millisecond) //nolint:forbidigo // polls
			got = b.run(t, line)
		}
		require.True(t, as(shown, got), "%s answers\n%s", line, got)
	}
	for _, key := range []string{"review", "failing", "orphan", "task", "overdue"} {
		r, err := b.earmarks.Reservation(t.Context(), earmark.ReservationID(earmark.DefaultTenant, key))
		require.NoError(t, err)
		require.False(t, r.Open(), key)
	}
}

// The commands that only look, and the queries, do what they say on a sound system.
func TestRunbookLooks(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{})
	server := s.Serve().Ready()
	earmarks, err := client.New(server.URL)
	require.NoError(t, err)
	limit := int64(1000)
	_, err = earmarks.CreateBudget(t.Context(), earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit})
	require.NoError(t, err)
	_, err = earmarks.Reserve(t.Context(), "k", earmark.ReservationRequest{
		Scopes: []string{"acme"}, Amounts: earmark.Amounts{"tokens": 1}, TTLSeconds: 1, OnExpiry: earmark.OnExpiryReview,
	})
	require.NoError(t, err)
	stack.Eventually(t, patience, "the reconciler's schedule", func() bool {
		_, err := s.Client().ScheduleClient().GetHandle(t.Context(), "earmark-reconcile").Describe(t.Context())
		return err == nil
	})
	var script strings.Builder
	for _, b := range blocksOf(t, "docs/runbook.md") {
		switch b.language {
		case "sh":
			script.WriteString(b.text)
		case "sql":
			_, err := s.Pool().Exec(t.Context(), b.text)
			require.NoError(t, err, b.text)
		}
	}
	bash(t, s, server, script.String())

	page, err := earmarks.Stuck(t.Context(), earmark.ReservationFilter{})
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(moduleRoot(t), "docs", "runbook.md"))
	require.NoError(t, err)
	for _, search := range page.Searches {
		query, _, _ := strings.Cut(search.Query, "EarmarkExpiresAt < ")
		require.Contains(t, string(text), "| "+search.Title+" | `"+query)
		found := func() int64 {
			counted, err := s.Client().CountWorkflow(t.Context(), &workflowservice.CountWorkflowExecutionsRequest{Query: search.Query})
			require.NoError(t, err, search.Query)
			return counted.GetCount()
		}
		want := int64(0)
		if search.Title == "in review" {
			want = 1
		}
		// The searches read visibility, which a busy machine writes some time after a workflow has ended.
		stack.Eventually(t, patience, search.Query, func() bool { return found() == want })
	}
	require.NotEmpty(t, page.Searches)
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	return root
}

// temporalCLI finds the binary that runs the server, too.
func temporalCLI(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("temporal"); err == nil {
		return path
	}
	path, err := exec.LookPath(filepath.Join(moduleRoot(t), "bin", "temporal"))
	require.NoError(t, err, "run `make build`")
	return path
}
