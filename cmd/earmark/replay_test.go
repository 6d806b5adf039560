package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/replay"
	"github.com/earmark-dev/earmark/internal/replay/replaytest"
)

// replayCommand runs `earmark replay` on a short trace.
func replayCommand(t *testing.T, args ...string) (out, progress string, err error) {
	t.Helper()
	root := newRoot()
	var stdout, stderr bytes.Buffer
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	root.SetArgs(append([]string{"replay"}, args...))
	err = root.ExecuteContext(t.Context())
	return stdout.String(), stderr.String(), err
}

func shortTrace(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trace.csv")
	const rows = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,800\n"
	require.NoError(t, os.WriteFile(path, []byte(rows), 0o600))
	return path
}

func replayServer(t *testing.T, server *replaytest.Server) (url string) {
	t.Helper()
	listener := httptest.NewServer(server.Handler())
	t.Cleanup(listener.Close)
	return listener.URL
}

func TestReplay(t *testing.T) {
	t.Parallel()
	url := replayServer(t, &replaytest.Server{})
	out, progress, err := replayCommand(t, "--trace", shortTrace(t), "--speed", "100", "--url", url)
	require.NoError(t, err)
	require.Contains(t, out, "tokens committed  8,798\n")
	require.Contains(t, out, "overage           1 ")
	require.Contains(t, out, "\nPASS\n")
	require.Contains(t, progress, "2/2 rows", "progress goes to stderr")
	require.NotContains(t, out, "2/2 rows")
}

func TestReplayAsJSON(t *testing.T) {
	t.Parallel()
	url := replayServer(t, &replaytest.Server{})
	out, _, err := replayCommand(t, "--trace", shortTrace(t), "--speed", "100", "--url", url, "--json", "--limit", "6000", "--seed", "7", "--scope", "acme")
	require.NoError(t, err)
	var report replay.Report
	require.NoError(t, json.Unmarshal([]byte(out), &report), "stdout is one JSON object")
	require.Equal(t, int64(6000), report.LimitTokens)
	require.Equal(t, uint64(7), report.Seed)
	require.Equal(t, "acme", report.Scope)
	require.Equal(t, int64(1), report.Rows.Admitted)
	require.Equal(t, int64(1), report.Rows.Denied)
	require.True(t, report.Audit.Passed)
}

func TestReplayFailsWhenTheServerLiesByOneToken(t *testing.T) {
	t.Parallel()
	url := replayServer(t, &replaytest.Server{LieCommitted: 1})
	out, _, err := replayCommand(t, "--trace", shortTrace(t), "--speed", "100", "--url", url)
	require.ErrorContains(t, err, "does not hold exactly")
	require.False(t, isUsageError(err), "exit code 1")
	require.Contains(t, out, "\nMISMATCH\n")
}

func TestReplayWithoutAServer(t *testing.T) {
	t.Parallel()
	listener := httptest.NewServer(nil)
	listener.Close() // nobody listens there now
	out, _, err := replayCommand(t, "--trace", shortTrace(t), "--url", listener.URL)
	require.ErrorContains(t, err, "run `make dev` in another terminal")
	require.False(t, isUsageError(err), "exit code 1")
	require.Empty(t, out)
}

func TestReplayRefusesWrongFlags(t *testing.T) {
	t.Parallel()
	trace := shortTrace(t)
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no trace":         {nil, "--trace is missing"},
		"no such file":     {[]string{"--trace", trace + ".none"}, "no such file"},
		"speed 0":          {[]string{"--trace", trace, "--speed", "0"}, "--speed"},
		"negative speed":   {[]string{"--trace", trace, "--speed", "-1"}, "--speed"},
		"speed NaN":        {[]string{"--trace", trace, "--speed", "NaN"}, "--speed"},
		"speed Inf":        {[]string{"--trace", trace, "--speed", "Inf"}, "--speed"},
		"no output tokens": {[]string{"--trace", trace, "--max-output-tokens", "0"}, "--max-output-tokens"},
		"negative limit":   {[]string{"--trace", trace, "--limit", "-1"}, "--limit"},
		"negative rows":    {[]string{"--trace", trace, "--rows", "-1"}, "--rows"},
		"bad scope":        {[]string{"--trace", trace, "--scope", "a//b"}, "--scope"},
		"bad url":          {[]string{"--trace", trace, "--url", "localhost"}, "--url"},
		"not a number":     {[]string{"--trace", trace, "--speed", "fast"}, "--speed"},
		"an argument":      {[]string{"--trace", trace, "more"}, "takes no arguments"},
		"an unknown flag":  {[]string{"--trace", trace, "--fast"}, "unknown flag"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := replayCommand(t, test.args...)
			require.ErrorContains(t, err, test.want)
			require.True(t, isUsageError(err), "exit code 2")
		})
	}
}

func isUsageError(err error) bool {
	var wrong usageError
	return errors.As(err, &wrong)
}
