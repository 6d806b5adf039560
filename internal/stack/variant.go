//go:build unix

package stack

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Edit changes one place of a source file, in a build and not on the disk.
type Edit struct {
	File string // in the module, or absolute
	Old  string // occurs once; empty: the file is new
	New  string
}

// Overlay writes what `go build -overlay` takes to build with the edits, and returns
// its path.
func Overlay(tb testing.TB, edits ...Edit) string {
	tb.Helper()
	root, err := ModuleRoot()
	require.NoError(tb, err)
	dir := openDir(tb)
	replace := map[string]string{}
	for i, edit := range edits {
		file := edit.File
		if !filepath.IsAbs(file) {
			file = filepath.Join(root, file)
		}
		edited := edit.New
		if edit.Old != "" {
			from := file
			if earlier, ok := replace[file]; ok {
				from = earlier
			}
			text, err := os.ReadFile(from)
			require.NoError(tb, err)
			require.Equal(tb, 1, strings.Count(string(text), edit.Old), "%s does not hold this once:\n%s", edit.File, edit.Old)
			edited = strings.Replace(string(text), edit.Old, edit.New, 1)
		}
		replace[file] = filepath.Join(dir, string(rune('a'+i))+"-"+filepath.Base(file))
		require.NoError(tb, os.WriteFile(replace[file], []byte(edited), 0o644))
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	require.NoError(tb, err)
	path := filepath.Join(dir, "overlay.json")
	require.NoError(tb, os.WriteFile(path, overlay, 0o644))
	return path
}

// Variant builds the earmark binary with edits, for tests of what another build of
// it would do, and returns its path.
func Variant(tb testing.TB, edits ...Edit) string {
	tb.Helper()
	root, err := ModuleRoot()
	require.NoError(tb, err)
	overlay := Overlay(tb, edits...)
	binary := filepath.Join(filepath.Dir(overlay), "earmark")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-overlay", overlay, "-o", binary, "./cmd/earmark")
	cmd.Dir = root
	output, err := cmd.CombinedOutput()
	require.NoError(tb, err, "%s", output)
	return binary
}

// Use makes the processes that are started from now on run another binary.
func (s *Stack) Use(binary string) { s.binary = binary }
