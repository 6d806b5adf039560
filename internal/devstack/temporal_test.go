//go:build unix

package devstack

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
)

var testAttributes = map[string]string{"EarmarkTenant": "Keyword", "EarmarkScope": "KeywordList"}

func startTemporal(t *testing.T, opts TemporalOptions) *Temporal {
	t.Helper()
	opts.SearchAttributes = testAttributes
	server, err := StartTemporal(context.Background(), opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop(context.Background())) })
	return server
}

func dial(t *testing.T, server *Temporal) client.Client {
	t.Helper()
	c, err := client.Dial(client.Options{HostPort: server.Address()})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func requireAttributes(t *testing.T, c client.Client) {
	t.Helper()
	listed, err := c.OperatorService().ListSearchAttributes(context.Background(),
		&operatorservice.ListSearchAttributesRequest{Namespace: client.DefaultNamespace})
	require.NoError(t, err)
	require.Equal(t, enums.INDEXED_VALUE_TYPE_KEYWORD, listed.GetCustomAttributes()["EarmarkTenant"])
	require.Equal(t, enums.INDEXED_VALUE_TYPE_KEYWORD_LIST, listed.GetCustomAttributes()["EarmarkScope"])
}

func TestTemporalKeepsItsHistoriesOverARestart(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	first := startTemporal(t, TemporalOptions{Dir: dir})
	requireAttributes(t, dial(t, first))
	// Nobody works on the queue: the workflow waits.
	_, err := dial(t, first).ExecuteWorkflow(context.Background(), client.StartWorkflowOptions{ID: "kept", TaskQueue: "none"}, "Kept")
	require.NoError(t, err)

	response, err := http.Get(first.UIURL())
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusOK, response.StatusCode)
	http.DefaultClient.CloseIdleConnections()

	pid := first.PID()
	stop(t, first)
	requireDone(t, first.Done())
	require.NoError(t, first.Err())
	requireGone(t, pid)

	second := startTemporal(t, TemporalOptions{Dir: dir, Headless: true})
	require.Empty(t, second.UIURL())
	c := dial(t, second)
	requireAttributes(t, c)
	found, err := c.DescribeWorkflowExecution(context.Background(), "kept", "")
	require.NoError(t, err)
	require.Equal(t, enums.WORKFLOW_EXECUTION_STATUS_RUNNING, found.GetWorkflowExecutionInfo().GetStatus())
}

func TestTemporalStartsAfterKill(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	first := startTemporal(t, TemporalOptions{Dir: dir, Headless: true})
	require.NoError(t, syscall.Kill(first.PID(), syscall.SIGKILL))
	requireDone(t, first.Done())
	require.ErrorContains(t, first.Err(), "Temporal ended (signal: killed)")

	requireAttributes(t, dial(t, startTemporal(t, TemporalOptions{Dir: dir, Port: first.port, Headless: true})))
}

func TestTemporalInMemoryLeavesNoDatabase(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	stop(t, startTemporal(t, TemporalOptions{Dir: dir, Headless: true, InMemory: true}))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1)
	require.Equal(t, "temporal.log", left[0].Name())
}

func TestTemporalRefusesTakenPorts(t *testing.T) {
	t.Parallel()
	port := occupy(t)
	_, err := StartTemporal(context.Background(), TemporalOptions{Dir: openDir(t), Port: port})
	require.EqualError(t, err, "port "+fmtInt(port)+", wanted for Temporal, is already in use; choose another with --temporal-port")
	_, err = StartTemporal(context.Background(), TemporalOptions{Dir: openDir(t), UIPort: port})
	require.EqualError(t, err, "port "+fmtInt(port)+", wanted for the Temporal UI, is already in use; choose another with --ui-port")
}

func TestTemporalSaysWhatKeepsItFromStarting(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "temporal.db"), []byte("this is not a database, whatever its name"), 0o600))
	ctx, cancel := context.WithTimeout(context.Background(), testLimit)
	defer cancel()
	start := time.Now()
	_, err := StartTemporal(ctx, TemporalOptions{Dir: dir, Headless: true})
	require.ErrorContains(t, err, "Temporal ended (exit status 1); "+filepath.Join(dir, "temporal.log")+" ends with:\n")
	require.ErrorContains(t, err, "not a database")
	require.Less(t, time.Since(start), testLimit)
}

func TestTemporalThatIsNotInstalled(t *testing.T) {
	t.Setenv("PATH", "")
	t.Chdir(t.TempDir())
	_, err := StartTemporal(context.Background(), TemporalOptions{Dir: t.TempDir()})
	require.ErrorContains(t, err, "temporal was not found; run `make build`")
}

// Histories hold scopes, amounts and metadata.
func TestTemporalKeepsItsFilesToItself(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	first := startTemporal(t, TemporalOptions{Dir: dir, Headless: true})
	requireClosed(t, dir)
	stop(t, first)

	// As an earlier version left it.
	require.NoError(t, os.Chmod(dir, 0o755))
	for _, name := range []string{"temporal.db", "temporal.log"} {
		require.NoError(t, os.Chmod(filepath.Join(dir, name), 0o644))
	}
	startTemporal(t, TemporalOptions{Dir: dir, Headless: true})
	requireClosed(t, dir)
}

// What the documentation says about the growth of the database.
func TestTemporalKeepsClosedHistoriesForADay(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	require.Zero(t, TemporalBytes(dir))
	server, err := StartTemporal(context.Background(), TemporalOptions{Dir: dir, Headless: true})
	require.NoError(t, err)
	described, err := dial(t, server).WorkflowService().DescribeNamespace(t.Context(), &workflowservice.DescribeNamespaceRequest{Namespace: client.DefaultNamespace})
	require.NoError(t, err)
	require.Equal(t, 24*time.Hour, described.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration())
	require.Positive(t, TemporalBytes(dir))
	stop(t, server)
	require.NoError(t, RemoveTemporal(dir))
	require.Zero(t, TemporalBytes(dir))
	require.NoError(t, RemoveTemporal(dir), "nothing there is no error")
}
