package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEnvironmentNamesTheVariable(t *testing.T) {
	t.Setenv("EARMARK_GRACE", "abc")
	err := readEnvironment(t.Context(), &settings{})
	require.ErrorContains(t, err, `EARMARK_GRACE is "abc"`)
}

func TestUnknownVariablesAreNamed(t *testing.T) {
	t.Parallel()
	var warned bytes.Buffer
	warnOfEnvironment(&warned, []string{"EARMARK_GRASE=5s", "EARMARK_GRACE=5s", "EARMARK_URL=x", "PATH=/bin"})
	require.Equal(t, "earmark: warning: the environment variable EARMARK_GRASE is not known and has no effect; did you mean EARMARK_GRACE?\n", warned.String())
}

func TestDatabaseURLFromAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "url")
	require.NoError(t, os.WriteFile(path, []byte("postgres://a:b@c/d\n"), 0o600))
	t.Setenv("EARMARK_DATABASE_URL_FILE", path)
	var s settings
	require.NoError(t, readEnvironment(t.Context(), &s))
	require.Equal(t, "postgres://a:b@c/d", s.DatabaseURL)

	t.Setenv("EARMARK_DATABASE_URL", "postgres://x")
	require.ErrorContains(t, readEnvironment(t.Context(), &settings{}), "both set")
	t.Setenv("EARMARK_DATABASE_URL", "")
	t.Setenv("EARMARK_DATABASE_URL_FILE", path+"x")
	require.ErrorContains(t, readEnvironment(t.Context(), &settings{}), "EARMARK_DATABASE_URL_FILE")
}

// A password on the command line is seen, in each form of a connection string.
func TestPasswordsOnTheCommandLine(t *testing.T) {
	t.Parallel()
	for connection, has := range map[string]bool{
		"postgres://u:secret@h/d": true, "host=h user=u password=secret": true, "postgres://h/d?password=secret": true,
		"postgres://u@h/d": false, "host=h user=u": false, "": false,
	} {
		require.Equal(t, has, hasPassword(connection), connection)
	}
}
