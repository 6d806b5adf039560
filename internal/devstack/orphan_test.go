//go:build linux

package devstack

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// orphanDirEnv makes this test binary act as the parent that will be killed.
const orphanDirEnv = "EARMARK_DEVSTACK_ORPHAN_DIR"

// runOrphanParent starts both services, says where they are, and waits for its end.
func runOrphanParent(dir string) {
	ctx := context.Background()
	postgres, err := StartPostgres(ctx, PostgresOptions{Dir: filepath.Join(dir, "postgres"), Fast: true})
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		os.Exit(1)
	}
	temporal, err := StartTemporal(ctx, TemporalOptions{Dir: filepath.Join(dir, "temporal"), Headless: true})
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, postgres.PID(), temporal.PID(), portOf(postgres), temporal.port)
	select {}
}

func TestChildrenDieWithAKilledParent(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), orphanDirEnv+"="+dir)
	parent.Stderr = os.Stderr
	stdout, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	killed := false
	defer func() {
		if !killed {
			_ = parent.Process.Kill()
			_ = parent.Wait()
		}
	}()

	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	var postgresPID, temporalPID, postgresPort, temporalPort int
	_, err = fmt.Sscan(line, &postgresPID, &temporalPID, &postgresPort, &temporalPort)
	require.NoError(t, err, line)
	require.True(t, alive(postgresPID))
	require.True(t, alive(temporalPID))

	require.NoError(t, parent.Process.Kill())
	require.ErrorContains(t, parent.Wait(), "signal: killed")
	killed = true

	// A restart at once, on the same ports and data, is what a person does next.
	ctx := context.Background()
	postgres, err := StartPostgres(ctx, PostgresOptions{Dir: filepath.Join(dir, "postgres"), Port: postgresPort, Fast: true})
	require.NoError(t, err)
	defer stop(t, postgres)
	temporal, err := StartTemporal(ctx, TemporalOptions{Dir: filepath.Join(dir, "temporal"), Port: temporalPort, Headless: true})
	require.NoError(t, err)
	defer stop(t, temporal)
	requireGone(t, postgresPID)
	requireGone(t, temporalPID)
}

// Ctrl-C in a terminal goes to the whole foreground group. The children are in groups of their own.
func TestChildrenLeadTheirOwnGroup(t *testing.T) {
	t.Parallel()
	server := startPostgres(t, openDir(t))
	group, err := syscall.Getpgid(server.PID())
	require.NoError(t, err)
	require.Equal(t, server.PID(), group)
}
