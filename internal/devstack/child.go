//go:build unix

package devstack

import (
	"os/exec"
	"syscall"
)

// Child is another program that runs under the same rules: it leads a process group, writes
// to a log file, and dies with this process.
type Child struct{ *process }

// StartChild starts cmd, which must end on SIGTERM. It runs until Stop.
func StartChild(name string, cmd *exec.Cmd, logPath string) (*Child, error) {
	child, err := startProcess(name, cmd, logPath, syscall.SIGTERM, syscall.SIGKILL)
	if err != nil {
		return nil, err
	}
	return &Child{process: child}, nil
}

// FreePort returns a port that the system gives to no other process meanwhile, see
// freePort.
func FreePort() (int, error) { return freePort() }
