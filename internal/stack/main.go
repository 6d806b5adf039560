//go:build unix

package stack

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// parallelTests run at once, unless -parallel says otherwise: more than there are
// cores, since most of a test is waiting for leases and limits.
const parallelTests = "6"

// shared is what the stacks of a test binary have in common. Each is made when it
// is first asked for, so that a test alone waits for nothing that it does not use.
var shared struct {
	dir      string
	binary   once[string]
	postgres once[*Postgres]
	temporal once[*Temporal]
}

// once makes a value at the first call, and remembers whether that went well.
type once[T any] struct {
	sync.Once
	value T
	err   error
}

func (o *once[T]) get(tb testing.TB, make func() (T, error)) T {
	tb.Helper()
	require.NotEmpty(tb, shared.dir, "TestMain has to run the tests through stack.Main")
	o.Do(func() { o.value, o.err = make() })
	require.NoError(tb, o.err)
	return o.value
}

// Main runs the tests of a package and stops what they shared. It returns the exit
// code.
func Main(m interface{ Run() int }) (code int) {
	var err error
	if shared.dir, err = os.MkdirTemp("", "earmark-shared-"); err == nil {
		err = os.Chmod(shared.dir, 0o755)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot make a directory for the tests:", err)
		return 1
	}
	moreAtOnce()
	code = m.Run()
	if err := stopShared(); err != nil {
		fmt.Fprintln(os.Stderr, "cannot stop what the tests shared:", err)
		return 1
	}
	return code
}

func moreAtOnce() {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		_ = flag.Set("test.parallel", parallelTests)
	}
}

func stopShared() error {
	ctx := context.Background()
	var errs []error
	if temporal := shared.temporal.value; temporal != nil && temporal.server != nil {
		errs = append(errs, temporal.server.Stop(ctx))
	}
	if postgres := shared.postgres.value; postgres != nil && postgres.server != nil {
		errs = append(errs, postgres.server.Stop(ctx))
	}
	return errors.Join(append(errs, os.RemoveAll(shared.dir))...)
}

func sharedPostgres(tb testing.TB) *Postgres {
	tb.Helper()
	return shared.postgres.get(tb, func() (*Postgres, error) { return startPostgres(filepath.Join(shared.dir, "postgres"), true) })
}

func sharedTemporal(tb testing.TB) *Temporal {
	tb.Helper()
	return shared.temporal.get(tb, func() (*Temporal, error) { return startTemporal(filepath.Join(shared.dir, "temporal"), true) })
}

// Binary is the path of the earmark binary, built from the working tree.
func Binary(tb testing.TB) string {
	tb.Helper()
	return shared.binary.get(tb, func() (string, error) {
		binary := filepath.Join(shared.dir, "earmark")
		root, err := ModuleRoot()
		if err != nil {
			return "", err
		}
		cmd := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "./cmd/earmark")
		cmd.Dir = root
		if output, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go build ./cmd/earmark: %w\n%s", err, output)
		}
		return binary, nil
	})
}

// ModuleRoot is the directory of the main module: the nearest one, from the current one up, that
// holds the command's source. Tests of the other modules find it too.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "cmd", "earmark")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("there is no cmd/earmark above the current directory")
		}
	}
}
