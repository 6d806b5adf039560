//go:build unix && mutations

package mutations_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/test/stack"
)

// testLimit bounds one test without its mechanism: some then wait in vain.
const testLimit = "5m"

// goTest runs one test, the code changed by an overlay if there is one: also in the
// binary that the test builds.
func goTest(t *testing.T, overlay, dir, name string) (output string, passed bool) {
	t.Helper()
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	cmd := exec.Command("go", "test", "-count=1", "-timeout", testLimit, "-run", "^"+name+"$", "./"+dir)
	cmd.Dir = root
	cmd.Env = os.Environ()
	if overlay != "" {
		cmd.Env = append(cmd.Env, "GOFLAGS=-overlay="+overlay)
	}
	text, err := cmd.CombinedOutput()
	return string(text), err == nil
}

// Every mechanism is taken out once, and its test has to fail. Before that each test
// has to pass.
func TestMechanismsAreNeeded(t *testing.T) {
	passes := map[string]bool{}
	for _, m := range mechanisms {
		t.Run(m.name, func(t *testing.T) {
			dir, name := m.where()
			if !passes[m.test] {
				output, passed := goTest(t, "", dir, name)
				require.True(t, passed, "with everything in place:\n%s", output)
				passes[m.test] = true
			}
			begun := time.Now()
			output, passed := goTest(t, stack.Overlay(t, m.edit(t)), dir, name)
			require.False(t, passed, "%s passes without it", name)
			require.NotContains(t, output, "[build failed]")
			require.NotContains(t, output, "go build ./cmd/earmark")
			require.True(t, strings.Contains(output, "--- FAIL: "+name) || strings.Contains(output, "panic: "), "%s", output)
			t.Logf("%s fails, after %s", name, time.Since(begun).Round(time.Second))
		})
	}
}
