//go:build unix

package stack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stopLimit bounds how long a process may take to end after SIGTERM: as long as it
// lets calls and activities run on, and some more.
const stopLimit = 40 * time.Second

// Process is an earmark process under the control of a test. It dies with the
// test and, on Linux, with the test binary, however that ends.
type Process struct {
	// Credential makes it run as another user; set before Start.
	Credential *syscall.Credential
	// Dir is its working directory; the test's own when empty.
	Dir string

	t       testing.TB
	name    string
	logPath string
	env     []string
	program string
	args    []string

	mu   sync.Mutex
	cmd  *exec.Cmd // the last one that was started
	done chan struct{}
	mark int64 // where the log of the last start begins
}

// NewProcess prepares a program that runs on no stack, to be started by its Start.
func NewProcess(tb testing.TB, name string, env []string, program string, args ...string) *Process {
	tb.Helper()
	return newProcess(tb, name, filepath.Join(openDir(tb), name+".log"), env, program, args)
}

func newProcess(tb testing.TB, name, logPath string, env []string, program string, args []string) *Process {
	tb.Helper()
	p := &Process{t: tb, name: name, logPath: logPath, env: env, program: program, args: args}
	tb.Cleanup(func() {
		p.Kill()
		showLog(tb, name, logPath)
	})
	return p
}

// Start starts the process, which must not run already.
func (p *Process) Start() {
	p.t.Helper()
	require.False(p.t, p.Alive(), "%s runs already", p.name)
	log, err := os.OpenFile(p.logPath, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	require.NoError(p.t, err)
	defer func() { _ = log.Close() }()
	info, err := log.Stat()
	require.NoError(p.t, err)

	cmd := exec.Command(p.program, p.args...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = p.env, p.Dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: p.Credential}
	dieWithParent(cmd.SysProcAttr)
	done, started := make(chan struct{}), make(chan error)
	go func() {
		// On Linux the death signal follows the thread that started the child: the
		// thread has to live as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // ProcessState has how it ended
			close(done)
		}
	}()
	require.NoError(p.t, <-started)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.done, p.mark = cmd, done, info.Size()
}

// UseProgram makes the process run another program, with the same arguments, from its next start on.
func (p *Process) UseProgram(program string) { p.program = program }

// Restart kills the process if it runs, and starts it again as it was.
func (p *Process) Restart() {
	p.t.Helper()
	p.Kill()
	p.Start()
}

// Alive reports whether the process runs.
func (p *Process) Alive() bool {
	_, done := p.current()
	select {
	case <-done:
		return false
	default:
		return done != nil
	}
}

// PID is the id of the process, which leads a process group of the same id.
func (p *Process) PID() int {
	cmd, _ := p.current()
	return cmd.Process.Pid
}

func (p *Process) current() (*exec.Cmd, chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd, p.done
}

// Kill ends the process as kill -9 does, and waits until it is gone. One that is
// gone already is left alone.
func (p *Process) Kill() {
	p.t.Helper()
	if p.Alive() {
		p.Signal(syscall.SIGKILL)
		p.Wait(stopLimit)
	}
}

// Pause freezes the process, which stands still from here on; Resume lets it go on.
func (p *Process) Pause() {
	p.t.Helper()
	p.Signal(syscall.SIGSTOP)
	awaitStill(p.t, p.PID())
}

// Resume lets a frozen process go on.
func (p *Process) Resume() { p.t.Helper(); p.Signal(syscall.SIGCONT) }

// Stop ends the process by SIGTERM, which has to go well, and says how long it took.
func (p *Process) Stop() time.Duration {
	p.t.Helper()
	begun := time.Now()
	p.Signal(syscall.SIGTERM)
	require.Zero(p.t, p.Wait(stopLimit), "%s did not end well; its log:\n%s", p.name, p.Log())
	return time.Since(begun)
}

// Signal sends any signal.
func (p *Process) Signal(signal syscall.Signal) {
	p.t.Helper()
	cmd, _ := p.current()
	if err := cmd.Process.Signal(signal); !errors.Is(err, os.ErrProcessDone) {
		require.NoError(p.t, err)
	}
}

// Wait waits for the end of the process and returns its exit code, -1 after a
// signal.
func (p *Process) Wait(limit time.Duration) int {
	p.t.Helper()
	cmd, done := p.current()
	select {
	case <-done:
	case <-time.After(limit):
		require.FailNow(p.t, "a process did not end", "%s, within %s; its log:\n%s", p.name, limit, p.Log())
	}
	return cmd.ProcessState.ExitCode()
}

// Log is what the process wrote since its last start.
func (p *Process) Log() string {
	content, err := os.ReadFile(filepath.Clean(p.logPath))
	if err != nil {
		return err.Error()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(content[min(p.mark, int64(len(content))):])
}

// AwaitLog waits until the process has written text since its last start.
func (p *Process) AwaitLog(text string) {
	p.t.Helper()
	deadline := time.Now().Add(readyLimit)
	for !strings.Contains(p.Log(), text) {
		require.True(p.t, p.Alive(), "%s has ended; its log:\n%s", p.name, p.Log())
		require.True(p.t, time.Now().Before(deadline), "%s did not write %q; its log:\n%s", p.name, text, p.Log())
		time.Sleep(pollInterval) //nolint:forbidigo // polls
	}
}

// awaitStill waits until processes that were sent SIGSTOP stand still: it reaches their
// threads one by one, which on a busy machine takes long enough for one more answer. One
// that has ended is as good.
func awaitStill(tb testing.TB, pids ...int) {
	tb.Helper()
	var ids []string
	for _, pid := range pids {
		ids = append(ids, strconv.Itoa(pid))
	}
	args := []string{"-o", "state=", "-p", strings.Join(ids, ",")}
	if runtime.GOOS == "linux" {
		args = append(args, "-L") // a line for each thread
	}
	runs := func(state string) bool { return !strings.HasPrefix(state, "T") && !strings.HasPrefix(state, "Z") }
	Eventually(tb, stopLimit, "processes to stand still", func() bool {
		output, _ := exec.Command("ps", args...).Output() // fails where all have ended
		return !slices.ContainsFunc(strings.Fields(string(output)), runs)
	})
}

// Descendants lists every process below pid.
func Descendants(pid int) ([]int, error) {
	output, err := exec.Command("ps", "-A", "-o", "pid=,ppid=").Output()
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for line := range strings.Lines(string(output)) {
		var child, parent int
		if _, err := fmt.Sscan(line, &child, &parent); err != nil {
			return nil, err
		}
		children[parent] = append(children[parent], child)
	}
	var found []int
	for next := children[pid]; len(next) > 0; next = next[1:] {
		found = append(found, next[0])
		next = append(next, children[next[0]]...)
	}
	return found, nil
}
