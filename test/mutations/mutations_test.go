//go:build unix && mutations

package mutations_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/stack"
)

// testLimit bounds one test without its mechanism: some then wait in vain.
const testLimit = "5m"

// goTest runs tests of a package, the code changed by an overlay if there is one: also
// in the binary that the tests build.
func goTest(t *testing.T, overlay, dir string, names ...string) (output string, passed bool) {
	t.Helper()
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	module := root
	if inside, found := strings.CutPrefix(dir, "test/"); found { // a module of its own
		module, dir = filepath.Join(root, "test"), inside
	}
	cmd := exec.Command("go", "test", "-count=1", "-vet=off", "-timeout", testLimit, "-run", "^("+strings.Join(names, "|")+")$", "./"+dir)
	cmd.Dir = module
	cmd.Env = os.Environ()
	if overlay != "" {
		cmd.Env = append(cmd.Env, "GOFLAGS=-overlay="+overlay)
	}
	text, err := cmd.CombinedOutput()
	return string(text), err == nil
}

// Every test passes with all in place.
func TestMechanismsAreInPlace(t *testing.T) {
	names := map[string][]string{}
	for _, m := range mechanisms {
		if dir, name := m.guard(); !slices.Contains(names[dir], name) {
			names[dir] = append(names[dir], name)
		}
	}
	for dir, names := range names {
		output, passed := goTest(t, "", dir, names...)
		require.True(t, passed, "%s", output)
	}
}

// Every mechanism is taken out once, and its test has to fail.
func TestMechanismsAreNeeded(t *testing.T) {
	for _, m := range mechanisms {
		t.Run(m.name, func(t *testing.T) {
			dir, name := m.guard()
			begun := time.Now()
			output, passed := goTest(t, stack.Overlay(t, m.edits(t)...), dir, name)
			require.False(t, passed, "%s passes without it", name)
			require.NotContains(t, output, "[build failed]")
			require.NotContains(t, output, "go build ./cmd/earmark")
			require.True(t, strings.Contains(output, "--- FAIL: "+name) || strings.Contains(output, "panic: "), "%s", output)
			t.Logf("%s fails, after %s", name, time.Since(begun).Round(time.Second))
		})
	}
}
