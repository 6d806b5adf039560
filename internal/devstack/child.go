//go:build unix

package devstack

import (
	"os/exec"
	"syscall"
)

// Child is any other program, run under the same rules: it leads a process group of its own, writes into a
// log file, and dies with this process.
type Child struct{ *process }

// StartChild starts cmd, which SIGTERM has to end. It lives until Stop.
func StartChild(name string, cmd *exec.Cmd, logPath string) (*Child, error) {
	child, err := startProcess(name, cmd, logPath, syscall.SIGTERM, syscall.SIGKILL)
	if err != nil {
		return nil, err
	}
	return &Child{process: child}, nil
}

// FreePort picks a port that nobody is handed in between, see freePort.
func FreePort() (int, error) { return freePort() }
