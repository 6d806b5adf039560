package helm_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// earmark builds the program, and returns a function that runs it with an environment and no other. It returns what the
// program says, and whether it failed.
func earmark(t *testing.T) func(env map[string]string, args ...string) (says string, err error) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "earmark")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, "./cmd/earmark")
	build.Dir = root
	output, err := build.CombinedOutput()
	require.NoError(t, err, "%s", output)
	return func(env map[string]string, args ...string) (string, error) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		command := exec.CommandContext(ctx, program, args...)
		command.Env = []string{"PATH=" + os.Getenv("PATH")}
		for name, value := range env {
			command.Env = append(command.Env, name+"="+value)
		}
		output, err := command.CombinedOutput()
		return string(output), err
	}
}

// Without a connection string a process ends once it has checked its settings: with this sentence, if they are right.
const settingsAreRight = "which database?"

// Every argument and every variable of the chart is one that Earmark has, also at the bounds of the schema.
func TestEarmarkTakesTheSettings(t *testing.T) {
	t.Parallel()
	run := earmark(t)
	check := func(values map[string]any) {
		for _, p := range podsOf(objects(t, values)) {
			env := environment(p)
			require.Contains(t, env, "EARMARK_DATABASE_URL_FILE")
			delete(env, "EARMARK_DATABASE_URL_FILE")
			says, err := run(env, p.container().Args...)
			require.Error(t, err)
			require.Contains(t, says, settingsAreRight, p.component)
			require.NotContains(t, says, "has no effect", p.component)
		}
	}
	for _, files := range setups {
		check(valuesOf(t, files...))
	}
	check(with(t, "settings: {logLevel: debug, graceSeconds: 1, admissionDeadlineMilliseconds: 50, settleWindowMilliseconds: 0}\nserve: {drainDelaySeconds: 0}"))
	check(with(t, "settings: {logLevel: error, graceSeconds: 3600, admissionDeadlineMilliseconds: 15000, settleWindowMilliseconds: 2500}\nserve: {drainDelaySeconds: 300}"))

	// The schema refuses what Earmark refuses, and nothing less.
	for value, variable := range map[string][2]string{
		"settings: {graceSeconds: 0}":                        {"EARMARK_GRACE", "500ms"},
		"settings: {graceSeconds: 3601}":                     {"EARMARK_GRACE", "3601s"},
		"settings: {admissionDeadlineMilliseconds: 49}":      {"EARMARK_ADMISSION_DEADLINE", "49ms"},
		"settings: {admissionDeadlineMilliseconds: 15001}":   {"EARMARK_ADMISSION_DEADLINE", "15001ms"},
		"settings: {settleWindowMilliseconds: 2501}":         {"EARMARK_SETTLE_WINDOW", "2501ms"},
		"serve: {drainDelaySeconds: 301}":                    {"EARMARK_DRAIN_DELAY", "301s"},
		"settings: {logLevel: verbose}":                      {"EARMARK_LOG_LEVEL", "verbose"},
		"settings: {allowedHosts: ['earmark.example.com,']}": {"", ""},
	} {
		_, err := render(with(t, value))
		require.Error(t, err, value)
		if variable[0] != "" {
			says, err := run(map[string]string{variable[0]: variable[1]}, "serve")
			require.Error(t, err)
			require.NotContains(t, says, settingsAreRight, value)
		}
	}
	says, _ := run(map[string]string{"EARMARK_DRAINDELAY": "1s"}, "serve")
	require.Contains(t, says, "has no effect", "a variable that is misspelt is not seen")
}

// The variables that libraries read are theirs by name.
func TestLibrariesTakeTheVariables(t *testing.T) {
	t.Parallel()
	sources := map[string]string{"TEMPORAL_": "go.temporal.io/sdk/contrib/envconfig", "PG": "github.com/jackc/pgx/v5"}
	texts := map[string]string{"TEMPORAL_": "", "PG": ""}
	for prefix, module := range sources {
		list := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module)
		list.Dir = root
		directory, err := list.Output()
		require.NoError(t, err)
		source := strings.TrimSpace(string(directory))
		if prefix == "PG" {
			source = filepath.Join(source, "pgconn")
		}
		files, err := filepath.Glob(filepath.Join(source, "*.go"))
		require.NoError(t, err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			texts[prefix] += string(text)
		}
	}
	seen := 0
	for _, p := range podsOf(objects(t, valuesOf(t, setups["everything"]...))) {
		for _, variable := range p.container().Env {
			for prefix, text := range texts {
				if strings.HasPrefix(variable.Name, prefix) {
					seen++
					require.Contains(t, text, `"`+variable.Name+`"`, module(sources, prefix))
				}
			}
		}
	}
	require.Greater(t, seen, 20)
}

func module(sources map[string]string, prefix string) string {
	return sources[prefix] + " reads no such variable"
}
