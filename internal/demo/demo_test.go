//go:build unix

package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/stack"
)

const (
	testCallers = 30
	testRounds  = 2
	fitting     = limitTokens / requestTokens
)

func TestMain(m *testing.M) { os.Exit(stack.Main(m)) }

// setup gives a stack and a pool on its database, as big as the command's.
func setup(t *testing.T) (*stack.Stack, *pgxpool.Pool) {
	t.Helper()
	s := stack.New(t, stack.Options{})
	pool, err := postgres.Open(t.Context(), s.DatabaseURL)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return s, pool
}

func schemas(t *testing.T, pool *pgxpool.Pool) (n int) {
	t.Helper()
	require.NoError(t, pool.QueryRow(context.Background(), "SELECT count(*) FROM pg_namespace WHERE nspname = 'earmark_demo'").Scan(&n))
	return n
}

func TestUsualWays(t *testing.T) {
	t.Parallel()
	_, pool := setup(t)
	scratch, err := openScratch(t.Context(), pool)
	require.NoError(t, err)
	results := map[string]Result{}
	for _, way := range usualWays(scratch) {
		result, err := race(t.Context(), way, testCallers, testRounds)
		require.NoError(t, err)
		require.EqualValues(t, testCallers*testRounds, result.Decisions)
		require.Positive(t, result.DecisionsPerSecond)
		require.LessOrEqual(t, result.Wait.P50MS, result.Wait.P99MS)
		results[result.Way] = result
	}
	for _, unsafe := range []string{CheckThenAdd, LockTheCheck} {
		result := results[unsafe]
		require.Positive(t, result.EndOverTokens, unsafe)
		require.Equal(t, result.WorstOverTokens, result.EndOverTokens, "what is spent stays spent: %s", unsafe)
		require.Greater(t, result.Admitted, fitting*testRounds, unsafe)
	}
	require.Positive(t, results[AddThenCheck].WorstOverTokens)
	for _, safe := range []string{AddThenCheck, LockAcrossCall, GuardedUpdate} {
		require.Zero(t, results[safe].EndOverTokens, safe)
		require.Equal(t, fitting*testRounds, results[safe].Admitted, safe)
	}
	for _, calm := range []string{LockAcrossCall, GuardedUpdate} {
		require.Zero(t, results[calm].WorstOverTokens, calm)
	}
	oneByOne := float64(fitting-1) * float64(modelTime.Milliseconds())
	require.Greater(t, results[LockAcrossCall].Wait.P99MS, oneByOne, "the last one waits for every model")

	require.NoError(t, scratch.close(t.Context()))
	require.Zero(t, schemas(t, pool))
}

func TestScratch(t *testing.T) {
	t.Parallel()
	_, pool := setup(t)
	first, err := openScratch(t.Context(), pool)
	require.NoError(t, err)
	_, err = openScratch(t.Context(), pool)
	require.ErrorContains(t, err, "another demo runs")
	require.Equal(t, 1, schemas(t, pool), "a second demo leaves the first one's schema alone")

	require.NoError(t, first.disconnect(t.Context()), "as after kill -9")
	second, err := openScratch(t.Context(), pool)
	require.NoError(t, err)
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, second.close(stopped))
	require.Zero(t, schemas(t, pool))

	_, err = pool.Exec(t.Context(), "CREATE SCHEMA earmark_demo")
	require.NoError(t, err)
	_, err = openScratch(t.Context(), pool)
	require.ErrorContains(t, err, "no demo made")
	require.Equal(t, 1, schemas(t, pool), "what somebody else made is left alone")
}

// lying answers with a balance that is one token short.
type lying struct{ next http.RoundTripper }

func (l lying) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := l.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	_ = response.Body.Close()
	body = bytes.ReplaceAll(body, []byte(`"committed":975,"available"`), []byte(`"committed":974,"available"`))
	response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return response, nil
}

func TestEarmark(t *testing.T) {
	t.Parallel()
	s, pool := setup(t)
	server := s.Serve().Ready()
	run := func(scope string, transport http.RoundTripper) (*Report, []Step) {
		var steps []Step
		options := Options{
			Scope: scope, Callers: testCallers, Rounds: testRounds,
			ShowWay: func(Result) {}, ShowRaced: func(*Report) {}, ShowStep: func(step Step) { steps = append(steps, step) },
		}
		api, err := client.New(server.URL, client.WithHTTPClient(&http.Client{Transport: transport}))
		require.NoError(t, err)
		report := NewReport(pool, options)
		require.NoError(t, report.Run(t.Context(), api, pool, options))
		require.Zero(t, schemas(t, pool))
		return report, steps
	}

	report, steps := run("demo/honest", http.DefaultTransport)
	require.NoError(t, report.Err())
	require.True(t, report.Audit.Passed)
	require.Len(t, report.Ways, 6)
	earmark := report.Ways[5]
	require.Equal(t, Earmark, earmark.Way)
	require.Equal(t, fitting*testRounds, earmark.Admitted)
	require.Zero(t, earmark.WorstOverTokens)
	require.Zero(t, earmark.EndOverTokens)
	require.Len(t, steps, len(report.Story.Life)+1+len(report.Story.Death))
	require.Positive(t, report.Story.ExpiredAfterSeconds)
	require.NotEmpty(t, report.Story.WorkflowID)

	report, _ = run("demo/lying", lying{http.DefaultTransport})
	require.False(t, report.Audit.Passed)
	require.ErrorContains(t, report.Err(), "tokens that the balances have committed: 1,948, not 1,950")
}

// The command on a real stack: what it prints, how it ends, and what it leaves.
func TestCommand(t *testing.T) {
	t.Parallel()
	s, pool := setup(t)
	server := s.Serve("--ui-url", "http://127.0.0.1:1").Ready()

	text := s.MustRun("demo", "--url", server.URL, "--callers", "20", "--rounds", "1")
	for _, words := range []string{
		"20 callers at once want 75 tokens each, and 1,000 are left: 13 fit.", "tokens are spent.", "Never over.", "the ledger adds up",
		"denied: 400 of 1,000 available, retryable: true", "0 reserved, 450 committed, 550 available", "expired by itself",
		"http://127.0.0.1:1/namespaces/" + s.Namespace + "/workflows/reservation-rsv_",
	} {
		require.Contains(t, text, words)
	}
	require.NotContains(t, text, "\x1b", "no colour in a pipe")

	var report Report
	require.NoError(t, json.Unmarshal([]byte(s.MustRun("demo", "--url", server.URL, "--callers", "20", "--rounds", "1", "--json")), &report))
	require.True(t, report.Audit.Passed)
	require.Len(t, report.Ways, 6)

	process := s.Process("demo", "--url", server.URL, "--rounds", "20")
	process.Start()
	process.AwaitLog("All saw room")
	require.Equal(t, 1, schemas(t, pool))
	process.Signal(syscall.SIGINT)
	require.Equal(t, 1, process.Wait(10*time.Second))
	require.Contains(t, process.Log(), "earmark: stopped")
	require.Zero(t, schemas(t, pool), "Ctrl-C drops the schema")

	for _, away := range [][]string{
		{"demo", "--url", "http://127.0.0.1:1"},
		{"demo", "--url", server.URL, "--database-url", "postgres://nobody@127.0.0.1:1/none"},
	} {
		result := s.Run(away...)
		require.Equal(t, 1, result.Code)
		require.Empty(t, result.Stdout)
		require.Equal(t, 1, strings.Count(result.Stderr, "\n"), "one sentence: %s", result.Stderr)
		require.Contains(t, result.Stderr, "make dev")
	}
}
