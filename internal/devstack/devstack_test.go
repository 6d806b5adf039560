//go:build unix

package devstack

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// testLimit bounds every wait of these tests.
const testLimit = 30 * time.Second

func TestMain(m *testing.M) {
	if dir := os.Getenv(orphanDirEnv); dir != "" {
		runOrphanParent(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// openDir is a temporary directory that other users may enter. That of t.TempDir is closed, and as root
// Postgres runs as another user.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "earmark-devstack-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// occupy listens on a port until the test ends.
func occupy(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", hostPort(0))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, listener.Close()) })
	return listener.Addr().(*net.TCPAddr).Port
}

func stop(t *testing.T, child interface{ Stop(context.Context) error }) {
	t.Helper()
	require.NoError(t, child.Stop(context.Background()))
}

func requireGone(t *testing.T, pid int) {
	t.Helper()
	require.Eventually(t, func() bool { return !alive(pid) }, testLimit, pollInterval, "process %d is still there", pid)
}

// alive counts a zombie as dead: nobody may be there to wait for it.
func alive(pid int) bool {
	out, err := exec.Command("ps", "-o", "stat=", "-p", fmtInt(pid)).Output()
	state := strings.TrimSpace(string(out))
	return err == nil && state != "" && !strings.HasPrefix(state, "Z")
}

func requireDone(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(testLimit):
		require.FailNow(t, "the end of the child was not noticed")
	}
}

func TestLockDirIsForOne(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(openDir(t), "data")
	lock, err := LockDir(dir)
	require.NoError(t, err)

	_, err = LockDir(dir)
	require.EqualError(t, err, "another earmark dev (process "+fmtInt(os.Getpid())+") runs in "+dir+
		"; stop it, or choose another directory with --data-dir")

	require.NoError(t, lock.Unlock())
	lock, err = LockDir(dir)
	require.NoError(t, err)
	require.NoError(t, lock.Unlock())
}

func TestDefaultDataDir(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", "/somewhere/share")
	dir, err := DefaultDataDir()
	require.NoError(t, err)
	if os.Geteuid() == 0 {
		require.Equal(t, "/var/lib/earmark", dir)
		return
	}
	require.Equal(t, "/somewhere/share/earmark", dir)

	t.Setenv("XDG_DATA_HOME", "")
	t.Setenv("HOME", "/home/someone")
	dir, err = DefaultDataDir()
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(dir, "/home/someone/"))
	require.Equal(t, "earmark", filepath.Base(dir))
}

func TestFreePortCanBeBoundAtOnce(t *testing.T) {
	t.Parallel()
	for range 50 {
		port, err := freePort()
		require.NoError(t, err)
		listener, err := net.Listen("tcp", hostPort(port))
		require.NoError(t, err)
		require.NoError(t, listener.Close())
	}
}

func TestClaimPortWaitsForOneThatIsBeingGivenUp(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", hostPort(0))
	require.NoError(t, err)
	port := listener.Addr().(*net.TCPAddr).Port
	time.AfterFunc(200*time.Millisecond, func() { _ = listener.Close() })

	claimed, err := claimPort(context.Background(), port, "Postgres", portFlagPostgres)
	require.NoError(t, err)
	require.Equal(t, port, claimed)
}

func TestLargeLogIsSetAside(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "service.log")
	require.NoError(t, os.WriteFile(path, nil, 0o644))
	require.NoError(t, os.Truncate(path, logMaxBytes+1))

	log, err := openLog(path)
	require.NoError(t, err)
	require.NoError(t, log.Close())
	require.FileExists(t, path+".1")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Zero(t, info.Size())
}

func TestProcessThatWillNotStopIsKilled(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "stubborn.log")
	child, err := startProcess("Stubborn", exec.Command("sh", "-c", `trap "" TERM; echo ready; while :; do sleep 1; done`),
		log, syscall.SIGTERM, syscall.SIGKILL)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return child.lastWords() != "" }, testLimit, pollInterval)

	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	require.ErrorContains(t, child.Stop(ctx), "Stubborn did not stop in time and was killed; "+log+" ends with:\nready")
	requireDone(t, child.Done())
	require.NoError(t, child.Err())
	stop(t, child)
}
