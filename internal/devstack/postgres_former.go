//go:build unix

package devstack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// awaitFormerServer deals with the postmaster.pid of a server that was not stopped in order, and reports
// whether there was one. One that still runs gets a moment to finish: it may just have lost its parent.
func (s *postgresStart) awaitFormerServer(ctx context.Context) (leftover bool, err error) {
	path := filepath.Join(s.dataDir(), "postmaster.pid")
	for deadline := time.Now().Add(postgresLeftoverLimit); ; time.Sleep(pollInterval) {
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return leftover, nil
		}
		if err != nil {
			return false, fmt.Errorf("read %s: %w", path, err)
		}
		leftover = true
		pid, rest, _ := strings.Cut(string(content), "\n")
		former := processID(pid)
		if former == 0 {
			return true, nil // Postgres says better than we could what is wrong with the file
		}
		if !runsPostgres(former, s.dataDir()) {
			return true, disown(path, rest)
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return true, fmt.Errorf("another Postgres (process %d) already runs on %s; stop it, or choose another directory with --data-dir", former, s.dataDir())
		}
	}
}

// processID reads a process id; 0 if there is none.
func processID(line string) int {
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return 0
	}
	return pid
}

// disown writes our own process id into the pid file of a dead server. Postgres would take any live process
// that happens to have the old id for that server and refuse to start. This process is the parent of the new
// server, and Postgres does not take its own parent for another server. The file must stay: Postgres reads from
// its other lines whether processes of the dead server still use the data.
func disown(path, rest string) error {
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"+rest), privateFileMode); err != nil { //nolint:gosec // a pid file in the data directory
		return fmt.Errorf("take over the pid file of a dead Postgres: %w", err)
	}
	return nil
}

// runsPostgres reports whether the process with this id is alive and the server of dataDir, as opposed to gone,
// a zombie that nobody waits for, or something else that was given the id since.
func runsPostgres(pid int, dataDir string) bool {
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return false
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil {
		return cwd == dataDir // where a server always is
	}
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil { //nolint:gosec // of a number
		// pid (name) state …
		_, state, _ := strings.Cut(string(stat), ") ")
		return strings.Contains(string(stat), "(postgres)") && !strings.HasPrefix(state, "Z")
	}
	out, err := exec.Command("ps", "-o", "stat=,comm=", "-p", strconv.Itoa(pid)).Output() //nolint:gosec // of a number
	return err == nil && strings.Contains(string(out), "postgres") && !strings.HasPrefix(strings.TrimSpace(string(out)), "Z")
}
